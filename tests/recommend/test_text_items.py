"""The text model on a tiny encoder: read once, ranked by text alone, new items and sentences answered without PyTorch."""

import subprocess
import sys

import numpy as np
import pytest

from fmcore.data import interaction_files
from fmcore.data.interactions import leave_one_out
from fmcore.evaluation import metrics, ranking
from fmcore.recommend import text_features, text_items, text_map
from fmcore.recommend.recommender import BadRecommender, Items, best
from fmcore.recommend.text_items import TextItems, served_form
from tests.tiny_encoder import TOPICS, save_tiny_encoder

NOBODY = np.zeros(0, dtype=np.int32)


def catalogue(n_each=12, *, seed=0):
    """Items of four topics in turn: item i is of topic i % 4."""
    rng = np.random.default_rng(seed)
    said = [" ".join(rng.choice(words.split(), 4)) for _ in range(n_each) for words in TOPICS.values()]
    return Items(tuple(f"i{n}" for n in range(len(said))), tuple(said), ("",) * len(said))


def people(n_items, *, n=60, seed=0):
    """Each meets items of one topic only."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(np.arange(who % 4, n_items, 4))[:6].astype(np.int32) for who in range(n)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A served form, made once: nothing here writes into it."""
    home = tmp_path_factory.mktemp("encoders")
    return str(served_form(save_tiny_encoder(home / "tiny"), max_tokens=64, home=home / "served"))


def fitted(encoder, items=None, histories=None):
    items = items or catalogue()
    return TextItems(encoder=encoder).fit(people(len(items)) if histories is None else histories, items)


def test_items_that_nobody_met_are_ranked_by_their_text(encoder):
    items = catalogue()
    never = np.arange(40, 48)
    model = fitted(encoder, items, [past[past < 40] for past in people(len(items))])
    for topic in range(4):
        found = model.scores([np.array([topic, topic + 4], dtype=np.int32)])[0, never]
        assert set(never[np.argsort(-found)[:2]] % 4) == {topic}


def test_the_order_of_a_past_matters_and_an_empty_one_says_nothing(encoder):
    model = fitted(encoder)
    one, other = model.scores([np.array([0, 4, 1], dtype=np.int32), np.array([1, 0, 4], dtype=np.int32)])
    assert not np.allclose(one, other) and one.dtype == np.float32
    assert not model.scores([NOBODY]).any() and model.knows([NOBODY, np.array([2], dtype=np.int32)]).tolist() == [False, True]
    assert model.scores([]).shape == (0, 48)


def test_a_sentence_finds_the_items_that_say_the_same(encoder):
    model = fitted(encoder)
    assert np.allclose(np.linalg.norm(model.vectors, axis=1), 1, atol=1e-4) and model.vectors.dtype == np.float32
    sentence = model.items.titles[6]
    scores = model.scores_of(model.embed([sentence])[0])
    assert scores.shape == (48,) and best(scores, k=1)[0].score == pytest.approx(1, abs=1e-3)
    assert model.items.titles[best(scores, k=1)[0].item] == sentence


def test_new_items_can_be_ranked_at_once_and_only_they_are_read(encoder, monkeypatch):
    model = fitted(encoder)
    read = []
    embed = TextItems.embed
    monkeypatch.setattr(TextItems, "embed", lambda self, texts: (read.extend(texts), embed(self, texts))[1])
    new = Items(("n1", "n2"), ("refund money return back", "login password account locked"), ("", ""))
    wider = model.with_items(new)
    assert read == list(new.titles) and len(model.items) == 48 and wider.items.ids[48:] == ("n1", "n2")
    past = np.array([1, 5], dtype=np.int32)  # refunds
    assert np.array_equal(wider.scores([past])[0, :48], model.scores([past])[0])
    assert wider.scores([past])[0, 48] > wider.scores([past])[0, 49]
    assert wider.with_items(new) is wider, "what is known is not read again"
    retold = wider.with_items(Items(("n1",), ("login password account locked",), ("",)))
    assert len(retold.items) == 50 and np.allclose(retold.vectors[48], retold.vectors[49], atol=1e-5)
    whole = model.with_items(Items(model.items.ids + new.ids, model.items.titles + new.titles, model.items.texts + new.texts))
    assert np.array_equal(whole.scores([past]), wider.scores([past])), "a whole catalogue is taken as well"


def test_an_item_without_words_comes_last_and_says_nothing(encoder):
    told = catalogue()
    items = Items((*told.ids, "x", "y"), (*told.titles, "", "…"), (*told.texts, "", "  "))
    model = fitted(encoder, items, people(48))
    past = np.array([0], dtype=np.int32)
    scores = model.scores([past])[0]
    assert (scores[48:] == scores.min()).all() and (model.scores_of(model.vectors[0])[48:] <= model.scores_of(model.vectors[0]).min()).all()
    assert not model.scores([np.array([48, 49], dtype=np.int32)]).any() and not model.knows([np.array([48], dtype=np.int32)])[0]


@pytest.mark.parametrize("histories", [[], [NOBODY], [np.array([3], dtype=np.int32)]], ids=["nobody", "empty", "one item"])
def test_without_anything_to_learn_from_likeness_stays(encoder, histories):
    model = fitted(encoder, histories=histories)
    past = np.array([2], dtype=np.int32)
    centred = model.vectors - model.vectors.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    assert np.allclose(model.scores([past])[0], centred @ centred[2], atol=1e-3)


@pytest.mark.parametrize("titles", [("",), ("", "", ""), ("a refund", "a refund", "a refund"), ("😀 ' \" \\",)])
def test_odd_catalogues_are_read(encoder, titles):
    items = Items(tuple(map(str, range(len(titles)))), titles, ("",) * len(titles))
    model = TextItems(encoder=encoder).fit([np.arange(len(titles), dtype=np.int32)] * 3, items)
    found = model.scores([np.array([0], dtype=np.int32)])
    assert found.shape == (1, len(titles)) and np.isfinite(found).all()


def test_saved_and_loaded_it_says_the_same(encoder, tmp_path):
    model = fitted(encoder)
    (tmp_path / "kept").mkdir()
    model.save(tmp_path / "kept")
    again = TextItems.load(tmp_path / "kept", model.items)
    pasts = people(48, n=5, seed=1)
    assert np.allclose(again.scores(pasts), model.scores(pasts), atol=1e-5)
    assert np.array_equal(again.embed(["a lost card"]), model.embed(["a lost card"]))
    with pytest.raises(BadRecommender, match="other items"):
        TextItems.load(tmp_path / "kept", catalogue(3))
    (tmp_path / "kept" / "text.safetensors").write_bytes(b"damaged")
    with pytest.raises(BadRecommender, match="cannot be read"):
        TextItems.load(tmp_path / "kept", model.items)


def test_weights_become_a_served_form_once(encoder, tmp_path, monkeypatch):
    weights = save_tiny_encoder(tmp_path / "tiny")
    assert np.array_equal(fitted(weights).vectors, fitted(encoder).vectors)
    text_items.served_form.cache_clear()
    monkeypatch.setattr(text_items.export, "export_onnx", lambda *a: pytest.fail("the form was made a second time"))
    assert np.array_equal(fitted(weights).vectors, fitted(encoder).vectors)
    monkeypatch.setattr(text_items, "load_encoder", lambda *a, **k: pytest.fail("a folder with a served form needs no weights"))
    fitted(encoder)


def test_serving_imports_neither_torch_nor_scikit_learn(encoder, tmp_path):
    model = fitted(encoder)
    (tmp_path / "kept").mkdir()
    model.save(tmp_path / "kept")
    program = f"""
import sys, pathlib, numpy as np
from fmcore.recommend.text_items import TextItems, served_form
from fmcore.recommend.recommender import Items
n = {len(model.items)}
items = Items(tuple(map(str, range(n))), {model.items.titles!r}, {model.items.texts!r})
model = TextItems.load(pathlib.Path({str(tmp_path / "kept")!r}), items)
model.scores([np.array([1], dtype=np.int32)]), model.scores_of(model.embed(["card"])[0])
model.with_items(Items(("new",), ("a card",), ("",))).recommend(np.array([1], dtype=np.int32))
print([m for m in ("torch", "sklearn", "transformers") if m in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_cause_of_an_item_lowers_its_score_when_it_is_taken_away(encoder):
    model = fitted(encoder)
    past = np.array([0, 1, 5, 2], dtype=np.int32)
    items = [each.item for each in model.recommend(past, k=5)]
    named = [(item, cause) for item, cause in zip(items, model.causes(past, items), strict=True) if cause is not None]
    assert named
    for item, (cause, drop) in named:
        assert model.scores([past[past != cause]])[0, item] == pytest.approx(model.scores([past])[0, item] - drop, abs=1e-4)


def test_what_follows_what_is_learnt_beyond_likeness():
    """After an item of topic 0 people meet one of topic 1, which no likeness tells."""
    rng = np.random.default_rng(0)
    vectors = np.repeat(np.eye(4, 16, dtype=np.float32), 10, axis=0) + rng.normal(0, 0.05, (40, 16)).astype(np.float32)
    features = text_features.learn([""] * 40, vectors)
    read = features.of([""] * 40, vectors)
    pasts = [np.array([rng.integers(0, 10), rng.integers(10, 20)], dtype=np.int32) for _ in range(200)]
    found = text_map.placed(read, text_map.learn(read, pasts, embedded=features.embedded)).scores([np.array([3], dtype=np.int32)])[0]
    assert found[10:20].mean() > found[20:].mean() + 0.5


def test_years_and_shared_words_are_read():
    texts = [f"{word} of {year}" for word in ("comedy", "drama") for year in (1950, 1952, 1990, 1992)] * 5
    features = text_features.learn(texts, np.zeros((40, 4), dtype=np.float32))
    assert {"comedy", "drama"} <= set(features.words)
    read = features.of(texts, np.zeros((40, 4), dtype=np.float32))
    apart = np.linalg.norm(read[0] - read, axis=1)
    assert apart[1] < apart[2] and apart[1] < apart[5], "two years beside each other are near, forty and another genre are not"
    assert text_features.year("Blade Runner 2049 (2017)") == 2017 and text_features.year("room 12345") is None


@pytest.mark.slow
def test_cold_films_are_found_ten_times_as_often_as_by_chance(public_data):
    """Each film once taken out of training; the last film of each person is foretold among all films, the interval's lower bound counts."""
    data = interaction_files.load("movielens")
    items, split = Items(data.items, data.titles, data.texts), leave_one_out(data.histories())
    found = []
    for part in range(10):
        rows = ranking.cold_items(split.with_validation(), split.test, n_items=len(items), part=part)
        model = TextItems().fit(rows.train, items)
        found.append(ranking.ranks(model.scores(rows.pasts), rows.pasts, rows.targets))
    hit = metrics.mean(ranking.hits(np.concatenate(found)))
    assert hit.n == 610 and hit.low > 10 * 10 / len(items)
