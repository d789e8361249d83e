"""A sentiment version carries what the lexicon gets on the same rows and what came of the failure suite; other versions do not."""

import json

import pytest

from fmcore.data import catalogue, labelled
from fmcore.evaluation import robustness
from fmcore.evaluation.lexicon import lexicon_figures
from fmcore.models.classifier import Classifier
from fmcore.training.linear import LinearParams, train
from tests.tiny_encoder import save_tiny_encoder, tiny_data


class Quiet:
    def progress(self, fraction, message=""):
        pass

    def metric(self, step, **values):
        pass

    def device(self, name):
        pass


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_encoder(tmp_path_factory.mktemp("tiny"))


def params(base):
    return LinearParams(base=base, max_tokens=32, random_features=64, resamples=50, fast=True)


def news():
    """A part of the demo news: enough to learn a little from."""
    whole = catalogue.load("demo_sentiment")
    frames = {part: getattr(whole, part).groupby("label").head(30) for part in catalogue.PARTS}
    return labelled.build("little_news", frames, note="Some of the demo news.", synthetic=True, test_is_publishers=False)


def test_a_sentiment_version_is_measured_beside_the_lexicon_and_on_the_failure_suite(base, tmp_path):
    data = news()
    metrics = train(data, params(base), tmp_path / "out", Quiet())
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())
    expected, right = lexicon_figures(list(data.test["text"]), list(data.test["label"]), resamples=50)
    assert metrics["lexicon"] == expected and metrics["lexicon"]["accuracy"]["n"] == len(data.test)
    ours, theirs = metrics["accuracy"]["value"], right.mean()
    assert metrics["against_lexicon"]["value"] == pytest.approx(ours - theirs, abs=1e-4)
    suite = metrics["failure_suite"]
    assert suite["n"] == len(robustness.cases()) and len(suite["failures"]) == suite["n"] - suite["n_passed"]
    model = Classifier.load(tmp_path / "out", version="v")
    again = robustness.suite(lambda texts: [p.label for p in model.predict(texts)])
    assert again.n_passed == suite["n_passed"]  # what was measured is what is served


def test_a_version_of_another_task_has_neither(base, tmp_path):
    metrics = train(tiny_data(), params(base), tmp_path / "out", Quiet())
    assert not {"lexicon", "against_lexicon", "failure_suite"} & metrics.keys()
