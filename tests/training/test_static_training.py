"""Static students and cascades from a tiny real teacher: what they learn from, what they write, and what they lose."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.models.cascade import Cascade
from fmcore.models.classifier import Classifier
from fmcore.models.gate import read_heldout
from fmcore.models.manifest import MAX_FILES, check_manifest
from fmcore.models.static import StaticEncoder
from fmcore.nouns import Cancelled
from fmcore.training import cascade, compress, linear, static
from tests.tiny_encoder import save_tiny_encoder, tiny_data


class Quiet:
    def __init__(self, cancel_at=None):
        self.cancel_at, self.losses = cancel_at, []

    def progress(self, fraction, message=""):
        if self.cancel_at is not None and fraction >= self.cancel_at:
            raise Cancelled

    def metric(self, step, **values):
        self.losses += [values["loss"]] if "loss" in values else []

    def device(self, name):
        pass


@pytest.fixture(scope="module")
def data():
    return tiny_data(n_train=40)


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory, data):
    at = tmp_path_factory.mktemp("teacher")
    torch.set_num_threads(1)
    asked = {"base": save_tiny_encoder(at / "base"), "random_features": 64, "resamples": 50, "max_tokens": 32}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FM_HOME", str(at / "home"))
        linear.train(data, linear.LinearParams(**asked, fast=True, lexical=True), at / "model", Quiet())
    return at / "model"


@pytest.fixture
def teacher(teacher_folder):
    metrics = json.loads((teacher_folder / "metrics.json").read_text())
    return compress.Teacher.open(teacher_folder, version="teacher", sha256=check_manifest(teacher_folder), metrics=metrics)


def asked(method, **changed):
    return compress.Compression(method=method, **{"random_features": 64, "resamples": 50, **changed})


# --- the static student


@pytest.mark.slow
def test_a_static_student_is_a_whole_folder_without_a_network(teacher, data, tmp_path):
    report = Quiet()
    metrics = compress.train(teacher, data, asked("static"), tmp_path / "model", report)
    assert {p.name for p in (tmp_path / "model").iterdir()} == {
        "MANIFEST.json", "head.safetensors", "heldout.parquet", "heldout.safetensors", "metrics.json", "model.json", "novelty.safetensors",
        "reference.safetensors", "replies.json", "static.safetensors", "tokenizer.json",
    }  # fmt: skip
    check_manifest(tmp_path / "model")
    model = Classifier.load(tmp_path / "model", version="static-1")
    table = read_heldout(tmp_path / "model")
    assert list(table["predicted"]) == [p.label for p in model.predict(list(data.test["text"]))]
    assert set(table["text_hash"]) == set(read_heldout(teacher.folder)["text_hash"])
    inside = table[table["label"] != "oos"]
    assert metrics["accuracy"]["value"] == pytest.approx((inside["label"] == inside["predicted"]).mean(), abs=1e-4)
    assert metrics["accuracy"]["value"] > 0.5  # four classes
    assert metrics["compressed"]["method"] == "static" and metrics["compressed"]["lost"]["n"] == len(inside)
    assert (metrics["recipe"], metrics["form"], model.info["recipe"]) == ("static", "static", "static")
    assert metrics["training"]["n_texts"] > metrics["training"]["n_rows"] == len(data.train)


@pytest.mark.slow
def test_the_same_seed_makes_the_same_tables(teacher, data, tmp_path):
    made = {}
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        static.train(teacher, data, asked("static", seed=seed), tmp_path / name, Quiet())
        made[name] = StaticEncoder(tmp_path / name, max_tokens=32).encode(list(data.test["text"]))
    np.testing.assert_array_equal(made["one"], made["two"])
    assert np.abs(made["one"] - made["other"]).max() > 1e-3


@pytest.mark.slow
def test_it_learns_from_texts_without_labels_and_the_loss_falls(teacher, data, tmp_path, monkeypatch):
    texts = tuple(data.validation["text"].sample(frac=1, random_state=1).str.split().str[::-1].str.join(" "))
    report = Quiet()
    monkeypatch.setattr(static, "SAID_EVERY", 10)
    metrics = static.train(teacher, data, asked("static", texts=texts), tmp_path / "model", report)
    assert metrics["training"]["n_texts"] == len(data.train) * 5 + 1 + len(texts)  # rows, four pieces a row, the empty text
    assert len(report.losses) > 2 and report.losses[-1] < report.losses[0]


@pytest.mark.slow
def test_no_held_out_row_speaks_through_the_teacher(teacher, data):
    embeddings = static.read(teacher, list(data.train["text"]), asked("static"), report=Quiet(), span=(0, 1))
    before = static.before_refits(teacher, list(data.train["text"]), list(data.train["label"]), embeddings)
    assert len(before.novelty.reference) == len(data.train) < len(teacher.served.reference)
    assert before.head.kind == teacher.served.head.kind and before.temperature == teacher.served.temperature
    rows = data.train["text"].iloc[:5]
    again = before.probabilities(embeddings[:5], lexical=before.lexical_scores(list(rows)))
    assert again.shape == (5, 4) and np.abs(again - teacher.served.probabilities_of(list(rows))).max() < 0.5


def test_a_token_that_no_text_held_goes_where_the_others_went():
    chance = np.random.default_rng(0)
    begun, turn = chance.standard_normal((40, 4)), chance.standard_normal((4, 4))
    seen = np.array([3] * 30 + [0] * 10)
    trained = np.where(seen[:, None] > 0, begun @ turn, begun).astype(np.float32)
    spread = static._spread(trained, begun.astype(np.float32), seen)
    np.testing.assert_array_equal(spread[:30], trained[:30])
    cosine = (spread[30:] * (begun @ turn)[30:]).sum(1) / np.linalg.norm(spread[30:], axis=1) / np.linalg.norm((begun @ turn)[30:], axis=1)
    assert cosine.min() > 0.99


@pytest.mark.slow
def test_it_can_be_cancelled_and_a_loss_that_is_no_number_stops_it(teacher, data, tmp_path, monkeypatch):
    with pytest.raises(Cancelled):
        static.train(teacher, data, asked("static"), tmp_path / "model", Quiet(cancel_at=0.62))
    assert not (tmp_path / "model" / "MANIFEST.json").exists()
    monkeypatch.setattr(static, "read", lambda *a, **k: np.full((len(a[1]), 32), np.nan, dtype=np.float32))
    monkeypatch.setattr(static, "before_refits", lambda t, *a: t.served)
    with pytest.raises(static.Diverged):
        static.train(teacher, data, asked("static"), tmp_path / "nan", Quiet())


@pytest.mark.slow
def test_minutes_bound_the_training(teacher, data, tmp_path):
    metrics = static.train(teacher, data, asked("static", minutes=1e-4), tmp_path / "model", Quiet())
    assert metrics["training"]["steps"] >= 1


@given(st.lists(st.text(max_size=40), max_size=6), st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_pieces_hold_words_of_their_texts_only(texts, n):
    made = static.pieces(texts, n, seed=1)
    words = {word for each in texts for word in each.split()}
    assert len(made) in (0, n) and all(piece.split() and set(piece.split()) <= words for piece in made)
    assert made == static.pieces(texts, n, seed=1)


# --- the cascade


@pytest.mark.slow
def test_a_cascade_holds_both_models_and_answers_as_measured(teacher, data, tmp_path):
    metrics = compress.train(teacher, data, asked("cascade"), tmp_path / "model", Quiet())
    check_manifest(tmp_path / "model")
    assert sum(p.is_file() for p in (tmp_path / "model").rglob("*")) <= MAX_FILES
    model = Classifier.load(tmp_path / "model", version="cascade-1")
    assert isinstance(model, Cascade) and model.margin == metrics["cascade"]["margin"]
    table, full = read_heldout(tmp_path / "model"), read_heldout(teacher.folder).set_index("text_hash")
    fast = model.fast.heldout_table.set_index("text_hash")
    first = model.fast.predict(list(data.test["text"]))
    for row, answer in zip(table.itertuples(), first, strict=True):
        source = full if cascade.goes_on(answer, model.margin) else fast
        assert (row.predicted, row.in_scope) == (source.loc[row.text_hash, "predicted"], source.loc[row.text_hash, "in_scope"])
    inside = (table["label"] != "oos").to_numpy()
    share = np.mean([cascade.goes_on(a, model.margin) for a in np.array(first, dtype=object)[inside]])
    assert metrics["cascade"]["share_heldout"] == pytest.approx(share, abs=1e-3)
    assert 0 <= metrics["cascade"]["share_expected"] <= 1 and metrics["compressed"]["allowed_points"] == 1.0
    assert metrics["cascade"]["lost_expected"] <= cascade.TARGET


@pytest.mark.slow
def test_a_cascade_goes_on_to_a_student_where_one_is_named(teacher, data, tmp_path):
    made = compress.train(teacher, data, asked("onnx"), tmp_path / "student", Quiet())
    student = compress.Teacher.open(tmp_path / "student", version="student", sha256=check_manifest(tmp_path / "student"), metrics=made)
    metrics = compress.train(teacher, data, dataclasses.replace(asked("cascade"), second=student), tmp_path / "model", Quiet())
    assert metrics["cascade"]["full"] == "student" and metrics["compressed"]["teacher"] == teacher.version
    assert (tmp_path / "model" / "full" / "encoder.onnx").read_bytes() == (tmp_path / "student" / "encoder.onnx").read_bytes()
    table, full = read_heldout(tmp_path / "model"), read_heldout(student.folder).set_index("text_hash")
    model = Classifier.load(tmp_path / "model", version="cascade-1")
    first = model.fast.predict(list(data.test["text"]))
    sent = [row for row, answer in zip(table.itertuples(), first, strict=True) if cascade.goes_on(answer, model.margin)]
    assert sent and all(row.predicted == full.loc[row.text_hash, "predicted"] for row in sent)


CHANCES = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.52, 0.48]])


def chosen(full, truth, *, always=(), target=0.0):
    return cascade.choose(CHANCES, full, np.array(truth), always=np.isin(np.arange(5), always), target=target)


def test_the_margin_is_the_smallest_that_keeps_the_loss():
    full = np.array([[0.9, 0.1]] * 3 + [[0.1, 0.9]] * 2)  # the two least sure rows are wrong, and the full model knows
    choice = chosen(full, [0, 0, 0, 1, 1])
    assert (choice.share, choice.lost, choice.expected) == (0.4, 0.0, 0.0)
    assert 0.2 < choice.margin < 0.4  # the gaps are 0.8, 0.6, 0.4, 0.2, 0.04
    assert chosen(full, [0, 0, 0, 1, 1], target=20.0).share == 0.2
    assert chosen(full, [0, 0, 0, 1, 1], target=100.0).share == 0.0


def test_a_fast_model_that_is_surely_wrong_makes_everything_go_on():
    full = np.array([[0.0, 1.0]] * 5)
    choice = chosen(full, [1, 1, 1, 1, 1])
    assert (choice.share, choice.margin) == (1.0, 1.0)


def test_luck_with_the_labels_is_not_enough():
    full = np.array([[0.1, 0.9]] * 2 + [[0.9, 0.1]] * 3)  # it would differ on the two surest rows, and expects to be right there
    assert chosen(full, [0, 0, 0, 0, 0]).share == 1.0


def test_labels_that_speak_clearly_against_the_full_models_word_are_heard():
    fast, truth = np.tile([[0.9, 0.1]], (200, 1)), np.ones(200, dtype=int)
    full = np.tile([[0.499, 0.501]], (200, 1))  # it expects next to nothing to be lost, and is right where the fast one is wrong
    found = cascade.choose(fast, full, truth, always=np.zeros(200, dtype=bool), target=5.0)
    assert found.share == 1.0


def test_what_looks_out_of_scope_goes_on_whatever_the_loss():
    full = np.array([[0.9, 0.1]] * 5)
    choice = chosen(full, [0, 0, 0, 0, 0], always=(0,))
    assert choice.share == 0.2 and choice.margin < 0.04
