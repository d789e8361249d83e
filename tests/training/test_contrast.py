import numpy as np
import pytest

from fmcore.models.classifier import Classifier
from fmcore.models.encoder import load_encoder
from fmcore.training.contrast import EXAMPLES_AN_INTENT, Contrast, contrastive_loss, drawn_groups, train, tune
from tests.tiny_encoder import save_tiny_encoder, tiny_data


class Silent:
    def progress(self, fraction, message=""): ...

    def metric(self, step, **values): ...

    def device(self, name): ...


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_encoder(tmp_path_factory.mktemp("tiny"))


def test_groups_hold_one_intent_each_and_every_intent_as_often():
    labels = np.array(["a"] * 6 + ["b"] * 2 + ["c"] * 9, dtype=object)
    groups, intents = drawn_groups(labels, passes=12, seed=0)
    assert all(set(labels[g]) == {"abc"[i]} and len(g) == EXAMPLES_AN_INTENT for g, i in zip(groups, intents, strict=True))
    assert len(set(np.bincount(intents))) == 1
    again = drawn_groups(labels, passes=12, seed=0)[0]
    assert all((a == b).all() for a, b in zip(groups, again, strict=True))


def test_the_loss_falls_when_one_class_moves_together_and_others_apart():
    import torch

    classes = torch.tensor([0, 0, 1, 1])
    apart = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.0], [-1.0, 0.1], [-1.0, 0.0]]), dim=1)
    assert contrastive_loss(apart, classes) < 0.1 < contrastive_loss(apart[[0, 2, 1, 3]], classes)
    assert contrastive_loss(apart, torch.arange(4)) == 0


def test_tuning_brings_examples_of_an_intent_together(base):
    data = tiny_data()
    texts, labels = list(data.train["text"]), data.train["label"].to_numpy()

    def separation(encoder):
        vectors = encoder.encode(texts, batch=32)
        similarity, same = vectors @ vectors.T, labels[:, None] == labels[None]
        return similarity[same].mean() - similarity[~same].mean()

    encoder = load_encoder(base, max_tokens=32, device="cpu")
    before = separation(encoder)
    tuned, outcome = tune(encoder, data, Contrast(base=base, passes=40, learning_rate=1e-2), report=Silent())
    assert outcome.steps == 50 and separation(tuned) > before + 0.1


def test_a_run_with_few_shots_leaves_a_model_that_serves(base, tmp_path):
    params = Contrast(base=base, shots=4, passes=8, learning_rate=1e-3, max_tokens=32, random_features=64, resamples=50, fast=True)
    metrics = train(tiny_data(), params, tmp_path, Silent())
    assert metrics["recipe"] == "contrast" and metrics["shots"] == 4 and metrics["training"]["steps"] > 0
    assert Classifier.load(tmp_path, version="v").predict(["refund my money"])[0].label in tiny_data().labels
