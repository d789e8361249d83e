import json

import pytest

from fmcore.models.classifier import Classifier
from fmcore.models.manifest import check_manifest
from fmcore.nouns import Cancelled
from fmcore.training.linear import LinearParams, TooFewExamples, few_shot, train
from tests.tiny_encoder import save_tiny_encoder, tiny_data


class Listening:
    """A report that remembers, and asks to stop at a given fraction."""

    def __init__(self, stop_at=2.0):
        self.fractions, self.devices, self.metrics, self.stop_at = [], [], [], stop_at

    def progress(self, fraction, message=""):
        self.fractions.append(fraction)
        if fraction >= self.stop_at:
            raise Cancelled()

    def metric(self, step, **values):
        self.metrics.append(values)

    def device(self, name):
        self.devices.append(name)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_encoder(tmp_path_factory.mktemp("tiny"))


def params(base, **more):
    return LinearParams(base=base, max_tokens=32, random_features=64, resamples=50, fast=True, **more)


def test_a_run_leaves_a_complete_folder_with_measured_figures_that_serves(base, tmp_path):
    report, data = Listening(), tiny_data()
    metrics = train(data, params(base), tmp_path / "out", report)
    check_manifest(tmp_path / "out")
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["accuracy"]["value"] > metrics["majority"]["accuracy"]["value"]
    assert metrics["split_hash"] == data.split_hash and metrics["baseline"]["accuracy"]["n"] == metrics["accuracy"]["n"] == 48
    assert metrics["synthetic"] and metrics["oos"]["n"] == 12 and metrics["serving"]["forms"]
    assert report.fractions == sorted(report.fractions) and report.fractions[-1] == 1 and report.devices
    model = Classifier.load(tmp_path / "out", version="v1")
    held = model.heldout_table
    assert (held["label"] == held["predicted"])[held["label"] != "oos"].mean() == pytest.approx(metrics["accuracy"]["value"], abs=1e-4)
    told = model.predict([*data.test["text"], "card " * 500])
    assert told[-1].truncated and not told[0].truncated and told[0].label in data.labels


def test_a_few_shots_are_drawn_by_the_seed_and_test_rows_are_never_learnt_from(base, tmp_path):
    data = tiny_data()
    one, again, other = (few_shot(data, shots=3, seed=s) for s in (1, 1, 2))
    assert one.train.equals(again.train) and not one.train.equals(other.train)
    assert one.train["label"].value_counts().eq(3).all() and one.test.equals(data.test) and "3 training rows" in one.split_note
    metrics = train(data, params(base, shots=3), tmp_path / "out", Listening())
    assert metrics["shots"] == 3 and not Classifier.load_without_encoder(tmp_path / "out", version="v").heldout_seen.any()
    with pytest.raises(TooFewExamples, match="fewer than 99"):
        few_shot(data, shots=99, seed=0)


def test_a_cancelled_run_leaves_no_finished_folder(base, tmp_path):
    with pytest.raises(Cancelled):
        train(tiny_data(), params(base), tmp_path / "out", Listening(stop_at=0.5))
    assert not (tmp_path / "out" / "MANIFEST.json").exists()
