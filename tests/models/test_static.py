"""The static encoder: a text's vector is its own alone, any text has one, and a damaged folder is refused with a sentence."""

import inspect
import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.models.classifier import BadModel, Classifier
from fmcore.models.served_encoder import ServedEncoder
from fmcore.models.static import FILE, Pieces, StaticEncoder, Tables, finished, flattened, known_pairs, pair_keys, summed
from tests import tiny_static
from tests.tiny_static import MAX_TOKENS

TEXTS = [
    "", " ", "?", "🙂🙂 🙂", "我的银行卡丢了。", "card", "I lost my card", "not lost my card", "my card " * 400, "x" * 30_000, "a\x00b\ud800c",
    "Can I still change my order, please?", "  Where\tis my\nparcel  ",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    at = tmp_path_factory.mktemp("static") / "model"
    tiny_static.save_static(at)
    return at


@pytest.fixture
def encoder(folder):
    return StaticEncoder(folder, max_tokens=MAX_TOKENS)


def test_it_has_the_interface_of_the_served_encoder(encoder):
    theirs = {name: value for name, value in vars(ServedEncoder).items() if not name.startswith("_") and name != "side_by_side"}
    for name, value in theirs.items():
        mine = inspect.getattr_static(StaticEncoder, name)
        if callable(value):
            assert inspect.signature(mine) == inspect.signature(value), name
    assert inspect.signature(StaticEncoder.__init__) == inspect.signature(ServedEncoder.__init__)
    assert (encoder.dim, encoder.max_tokens, encoder.path.name, len(encoder.sha256)) == (64, MAX_TOKENS, FILE, 64)


def test_every_text_has_a_vector_of_length_one(encoder):
    vectors, cut = encoder.embed(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((len(TEXTS), 64), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert [TEXTS[i][:4] for i in np.flatnonzero(cut)] == ["my c", "xxxx"]
    assert encoder.embed([])[0].shape == (0, 64)


def test_a_text_beside_others_has_the_vector_it_has_alone(encoder):
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([each]) for each in TEXTS])
    turned = encoder.encode(TEXTS[::-1])[::-1]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together, turned, atol=1e-6)
    many = encoder.encode(TEXTS * 100)  # more than one portion
    np.testing.assert_allclose(many, np.tile(together, (100, 1)), atol=1e-6)


def test_pairs_tell_orders_of_the_same_words_apart(encoder):
    said = next(t for t in tiny_static.parts()[0]["train"]["text"] if 4 <= len(set(t.split())) <= 12)
    one, other = encoder.encode([said, " ".join(reversed(said.split()))])
    assert float(one @ other) < 0.999


def test_the_sum_is_that_of_the_tokens_and_the_known_pairs():
    chance = np.random.default_rng(0)
    tokens, pairs = chance.standard_normal((5, 3)).astype(np.float32), chance.standard_normal((2, 3)).astype(np.float32)
    begin_one, one_two = 5 * 7 + 1, 1 * 7 + 2  # the beginning is token 5, the end token 6
    made = Tables(tokens, pairs, np.array(sorted([begin_one, one_two])), np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    place = {key: i for i, key in enumerate(made.keys)}
    found = summed([[1, 2], [], [2, 1]], made)
    expected = [tokens[1] + tokens[2] + pairs[place[begin_one]] + pairs[place[one_two]], np.zeros(3), tokens[2] + tokens[1]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_nothing_known_becomes_a_fixed_direction():
    rows = finished(np.zeros((2, 4), np.float32), np.zeros((4, 4), np.float32), np.zeros(4, np.float32))
    assert rows.tolist() == [[1, 0, 0, 0]] * 2


@given(st.lists(st.lists(st.integers(0, 8), max_size=6), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_every_pair_of_a_row_is_counted_for_that_row(rows):
    keys, counts = pair_keys(*flattened(rows), 9)
    expected = [[a * 11 + b for a, b in zip([9, *row], [*row, 10], strict=True)] for row in rows]
    assert keys.tolist() == [key for row in expected for key in row]
    assert counts.tolist() == [len(row) for row in expected]
    known = np.unique([key for row in expected for key in row[:1]])
    places, kept = known_pairs(keys, counts, known)
    assert [known[p] for p in places] == [key for row in expected for key in row if key in known]
    assert kept.tolist() == [sum(key in known for key in row) for row in expected]


def test_a_piece_has_the_same_tokens_first_and_later_and_memory_is_bounded(folder, monkeypatch):
    monkeypatch.setattr("fmcore.models.static.REMEMBERED", 4)
    pieces = Pieces(folder / "tokenizer.json", max_tokens=MAX_TOKENS)
    texts = ["where is my card", "my order , please", "change my order", "where is my card"]
    first = [pieces.tokens([each])[0][0] for each in texts]
    assert first == pieces.tokens(texts)[0] and len(pieces._known) <= 8
    assert pieces.tokens(["z" * 100])[0] and "z" * 100 not in pieces._known


def test_it_says_how_far_it_reads(encoder):
    assert encoder.read_to("where is my card") == len("where is my card")
    long = "my card " * 400
    assert encoder.read_to(long) == len("my card " * (MAX_TOKENS // 2)) - 1
    assert encoder.read_to("") == 0


def test_threads_at_once_get_what_one_gets(encoder):
    expected, found = encoder.encode(TEXTS), {}

    def ask(i):
        found[i] = encoder.encode(TEXTS)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for each in found.values():
        np.testing.assert_allclose(each, expected, atol=1e-6)


def test_a_folder_with_tables_and_no_graph_loads_as_a_classifier(folder):
    model = Classifier.load(folder, version="static-1")
    answers = model.predict(TEXTS)
    assert len(answers) == len(TEXTS) and {a.version for a in answers} == {"static-1"}
    assert [a.in_scope for a in answers[:4]] == [False] * 4  # nothing to read is out of scope
    alone = [model.predict([each])[0] for each in TEXTS]
    assert [(a.label, a.in_scope, a.candidates) for a in answers] == [(a.label, a.in_scope, a.candidates) for a in alone]
    np.testing.assert_allclose([a.score for a in answers], [a.score for a in alone], atol=1e-5)
    for answer in answers:
        assert list(answer.scores.values()) == sorted(answer.scores.values(), reverse=True)
        assert sum(answer.scores.values()) == pytest.approx(1.0)
        assert answer.candidates == tuple(answer.scores)[: len(answer.candidates)]


def test_few_rows_stand_for_the_known_examples_and_are_kept(folder):
    model = Classifier.load(folder, version="static-1")
    assert len(model.novelty.near) <= 60 < len(model.reference)
    again = Classifier.load_without_encoder(folder, version="static-1")
    np.testing.assert_array_equal(model.novelty.near, again.novelty.near)
    taught = model.novelty.with_class(model.reference.embeddings[:2])
    assert len(taught.near) == len(model.novelty.near) + 2


@pytest.mark.parametrize("damage", ["cut", "shape", "nan", "keys", "vocabulary", "missing", "tokenizer"])
def test_a_damaged_folder_is_no_model(folder, tmp_path, damage):
    import shutil

    from safetensors.numpy import load_file, save_file

    at = tmp_path / "damaged"
    shutil.copytree(folder, at)
    held = load_file(at / FILE)
    if damage == "cut":
        (at / FILE).write_bytes((at / FILE).read_bytes()[:-100])
    elif damage == "missing":
        del held["layer"]
        save_file(held, at / FILE)
    elif damage == "tokenizer":
        (at / "tokenizer.json").write_text(json.dumps({"model": None}))
    else:
        changed = {
            "shape": {"layer": held["layer"][:, :3].copy()}, "nan": {"bias": np.full_like(held["bias"], np.nan)},
            "keys": {"keys": held["keys"][::-1].copy()}, "vocabulary": {"tokens": held["tokens"][:5].copy()},
        }[damage]  # fmt: skip
        save_file({**held, **changed}, at / FILE)
    with pytest.raises(BadModel):
        Classifier.load(at, version="damaged")
