"""The cascade: doubtful texts get the full model's answer, the others the fast one's; and it serves like any version."""

import json
import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from fmcore.models.cascade import BY_FAST, BY_FULL, FAST, FULL, Cascade, goes_on, margins
from fmcore.models.classifier import CASCADE, BadModel, Classifier
from fmcore.models.manifest import MAX_FILES, check_manifest
from fmcore.training.teach import teach
from tests import tiny_static

ODD = ["", "🙂", "我的银行卡丢了。", "x" * 30_000, "a\x00b\ud800c"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    at = tmp_path_factory.mktemp("cascade") / "model"
    tiny_static.save_cascade(at)
    return at


@pytest.fixture
def cascade(folder):
    return Classifier.load(folder, version="cascade-1")


@pytest.fixture(scope="module")
def texts():
    return [*tiny_static.parts()[0]["test"]["text"], *ODD]


def test_a_folder_with_two_models_loads_as_one_classifier(cascade, folder):
    assert isinstance(cascade, Cascade) and isinstance(cascade, Classifier)
    assert (cascade.version, cascade.margin, cascade.share_expected) == ("cascade-1", 0.1, 0.3)
    light = Classifier.load_without_encoder(folder, version="cascade-1")
    assert light.labels == cascade.labels and light.embedder is None
    assert check_manifest(folder) and sum(p.is_file() for p in folder.rglob("*")) <= MAX_FILES


def test_what_goes_on_gets_the_full_answer_and_the_rest_the_fast_one(cascade, folder, texts):
    fast, full = (Classifier.load(folder / name, version="cascade-1") for name in (FAST, FULL))
    answers, first, second = cascade.predict(texts), fast.predict(texts), full.predict(texts)
    n_sent = 0
    for answer, one, other in zip(answers, first, second, strict=True):
        sent = goes_on(one, cascade.margin)
        n_sent += sent
        expected, said = (other, BY_FULL) if sent else (one, BY_FAST)
        assert (answer.label, answer.in_scope, answer.candidates) == (expected.label, expected.in_scope, expected.candidates)
        assert answer.score == pytest.approx(expected.score, abs=1e-5)
        assert answer.reason.endswith(said) and answer.version == "cascade-1"
    assert 0 < n_sent < len(texts)
    assert (cascade.tally.n_asked, cascade.tally.n_sent) == (len(texts), n_sent)
    assert cascade.tally.share_sent == pytest.approx(n_sent / len(texts))


@pytest.mark.parametrize(("margin", "stage"), [(1.0, BY_FULL), (0.0, BY_FAST)])
def test_the_margin_decides_between_all_and_only_strange_texts(folder, texts, margin, stage):
    model = replace(Classifier.load(folder, version="c"), margin=margin)
    first = model.fast.predict(texts)
    for answer, one in zip(model.predict(texts), first, strict=True):
        assert answer.reason.endswith(stage if one.in_scope else BY_FULL)


def test_out_of_scope_doubt_goes_on_however_sure_the_label(cascade):
    sure = cascade.fast.predict(["where is my card"])[0]
    sure = replace(sure, scores={"a": 0.99, "b": 0.01}, in_scope=True)
    assert not goes_on(sure, 0.5) and goes_on(replace(sure, in_scope=False), 0.5)
    assert goes_on(replace(sure, scores={"a": 0.6, "b": 0.4}), 0.5)


def test_probabilities_are_those_behind_the_answers(cascade, texts):
    chances = cascade.probabilities_of(texts)
    assert chances.shape == (len(texts), len(cascade.labels))
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-6)
    for row, answer in zip(chances, cascade.predict(texts), strict=True):
        assert cascade.labels[int(row.argmax())] == answer.label
        assert row.max() == pytest.approx(answer.score, abs=1e-5)


def test_alone_and_among_others_the_answer_is_the_same(cascade, texts):
    together = cascade.predict(texts)
    alone = [cascade.predict([each])[0] for each in texts]
    assert [(a.label, a.in_scope, a.reason[-20:]) for a in together] == [(a.label, a.in_scope, a.reason[-20:]) for a in alone]
    assert cascade.predict([]) == [] and cascade.probabilities_of([]).shape[0] == 0


def test_embeddings_and_known_examples_are_the_full_models(cascade, folder):
    full = Classifier.load(folder / FULL, version="full")
    np.testing.assert_allclose(cascade.embed(["my card"])[0], full.embed(["my card"])[0], atol=1e-6)
    assert len(cascade.reference) == len(full.reference)
    assert cascade.read_to("my card") == len("my card")


def test_once_it_was_taught_an_intent_the_full_model_answers_everything(cascade, texts):
    taught = teach(cascade, "crypto", ["do you buy bitcoin", "bitcoin and ether wallet", "sell my bitcoin coins"]).classifier
    assert taught.labels[-1] == "crypto" and taught.predict(["sell my bitcoin wallet"])[0].label == "crypto"
    assert not any(a.reason.endswith(BY_FAST) for a in taught.predict(texts))
    assert taught.probabilities_of(texts[:3]).shape == (3, len(cascade.labels) + 1)
    assert "crypto" not in cascade.predict(["sell my bitcoin wallet"])[0].scores


@pytest.mark.parametrize("damage", ["no fast", "no full", "not json", "margin", "nan", "labels", "nested", "no table", "format"])
def test_a_damaged_cascade_is_no_model(folder, tmp_path, damage):
    at = tmp_path / "damaged"
    shutil.copytree(folder, at)
    facts = json.loads((at / CASCADE).read_text())
    changed = {"margin": {"threshold": 3}, "nan": {"threshold": float("nan")}, "format": {"format": 99}}
    if damage in ("no fast", "no full"):
        shutil.rmtree(at / damage.split()[1])
    elif damage == "not json":
        (at / CASCADE).write_text("{")
    elif damage == "no table":
        (at / "heldout.parquet").unlink()
    elif damage == "nested":
        shutil.rmtree(at / FULL)
        shutil.copytree(folder, at / FULL)
    elif damage == "labels":
        model = json.loads((at / FAST / "model.json").read_text())
        model["labels"] = [f"{label}_" for label in model["labels"]]
        (at / FAST / "model.json").write_text(json.dumps(model))
    else:
        (at / CASCADE).write_text(json.dumps(facts | changed[damage]))
    with pytest.raises(BadModel):
        Classifier.load(at, version="damaged")


def test_margins_are_the_gap_between_the_two_most_probable():
    np.testing.assert_allclose(margins(np.array([[0.7, 0.1, 0.2], [0.3, 0.4, 0.3]])), [0.5, 0.1])


def test_a_long_batch_needs_little_memory(cascade):
    cascade.predict(["my card"])
    tracemalloc.start()
    cascade.fast.embed(["where is my card please " * 20] * 5000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6
