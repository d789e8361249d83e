"""The tuning recipes end to end on a tiny real BERT: what they leave frozen, what they write, and that they repeat and resume."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fmcore.models.classifier import Classifier
from fmcore.models.encoder import load_encoder
from fmcore.models.manifest import check_manifest
from fmcore.nouns import Cancelled
from fmcore.text import text_hash
from fmcore.training import finetune
from fmcore.training.linear import NAME_WEIGHT
from tests.tiny_encoder import TOPICS, save_tiny_encoder, tiny_data

pytestmark = pytest.mark.slow
FILES = {
    "MANIFEST.json", "encoder.onnx", "encoder.safetensors", "head.safetensors", "heldout.parquet", "heldout.safetensors", "metrics.json", "model.json",
    "novelty.safetensors", "reference.safetensors", "replies.json", "tokenizer.json",
}  # fmt: skip


class Quiet:
    def __init__(self, cancel_at=None):
        self.cancel_at, self.fractions, self.metrics = cancel_at, [], []

    def progress(self, fraction, message=""):
        self.fractions.append(fraction)

    def metric(self, step, **values):
        self.metrics.append((step, values))
        if self.cancel_at is not None and step >= self.cancel_at:
            raise Cancelled

    def device(self, name):
        pass


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_encoder(tmp_path_factory.mktemp("base"))


def options(base, **changed):
    chosen = {"epochs": 2, "batch": 16, "learning_rate": 5e-3, "random_features": 64, "resamples": 50, "max_tokens": 32, "device": "cpu"}
    return finetune.Tuning(base=base, **{**chosen, **changed})


def weights(encoder):
    return {name: tensor.detach().clone() for name, tensor in encoder.model.state_dict().items()}


def tuned(base, data, report=None, checkpoint=None, **changed):
    torch.set_num_threads(1)
    params = options(base, **changed)
    encoder = load_encoder(base, max_tokens=32, device="cpu")
    return finetune.tune(encoder, data, params, report=report or Quiet(), checkpoint=checkpoint)


@pytest.mark.parametrize("recipe", ["full", "lora"])
def test_a_recipe_writes_a_whole_model_folder_that_answers_without_pytorch_objects(base, tmp_path, recipe):
    report = Quiet()
    metrics = finetune.train(tiny_data(), options(base, recipe=recipe), tmp_path / "model", report)
    assert {p.name for p in (tmp_path / "model").iterdir()} == FILES
    check_manifest(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "metrics.json").read_text())["accuracy"] == metrics["accuracy"]
    answer = Classifier.load(tmp_path / "model", version="v").predict(["please replace my card"])[0]
    assert answer.label in TOPICS and sum(answer.scores.values()) == pytest.approx(1)
    assert metrics["n"] == 60 and metrics["oos"]["n"] == 12 and metrics["training"]["epochs"] == 2
    assert report.fractions == sorted(report.fractions) and report.fractions[-1] == 1.0


@pytest.mark.parametrize("recipe", ["full", "lora"])
def test_the_tuned_weights_kept_for_gradients_are_those_that_are_served_and_serving_does_without_them(base, tmp_path, recipe):
    finetune.train(tiny_data(), options(base, recipe=recipe), tmp_path, Quiet())
    texts = list(tiny_data().test["text"][:8])
    served = Classifier.load(tmp_path, version="v").embed(texts)[0]
    plain, kept = load_encoder(base, max_tokens=32, device="cpu"), load_encoder(base, max_tokens=32, device="cpu")
    kept.load_weights(tmp_path)
    assert ((kept.encode(texts, batch=8) * served).sum(axis=1) > 0.99).all()
    first, now = weights(plain), weights(kept)
    assert any(not torch.allclose(first[name], now[name], atol=1e-3) for name in first)
    assert (tmp_path / "encoder.safetensors").stat().st_size < 0.6 * (Path(base) / "model.safetensors").stat().st_size
    (tmp_path / "encoder.safetensors").unlink()
    assert (Classifier.load(tmp_path, version="v").embed(texts)[0] == served).all()


def test_full_tuning_moves_every_layer_but_the_token_embeddings_on_a_cpu(base):
    before = weights(load_encoder(base, max_tokens=32, device="cpu"))
    encoder, outcome, _ = tuned(base, tiny_data())
    after = weights(encoder)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "embeddings.word_embeddings.weight" not in moved
    assert {"embeddings.position_embeddings.weight", "encoder.layer.0.attention.self.query.weight", "encoder.layer.1.output.dense.bias"} <= moved
    assert outcome.best == max(epoch["val_accuracy"] for epoch in outcome.history)


def test_lora_gives_back_a_plain_encoder_whose_norms_are_untouched(base):
    before = weights(load_encoder(base, max_tokens=32, device="cpu"))
    encoder, _, _ = tuned(base, tiny_data(), recipe="lora")
    after = weights(encoder)
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "encoder.layer.0.attention.self.query.weight" in moved and not any("LayerNorm" in name or "embeddings" in name for name in moved)


def test_the_same_seed_gives_the_same_encoder_and_another_seed_another(base):
    data = tiny_data()
    first, again, other = (weights(tuned(base, data, seed=seed)[0]) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("recipe", ["full", "lora"])
def test_a_cancelled_tuning_resumes_to_the_very_same_encoder(base, tmp_path, recipe):
    data = tiny_data()
    whole = weights(tuned(base, data, recipe=recipe)[0])
    with pytest.raises(Cancelled):
        tuned(base, data, recipe=recipe, report=Quiet(cancel_at=5), checkpoint=tmp_path)
    encoder, outcome, _ = tuned(base, data, recipe=recipe, checkpoint=tmp_path)
    resumed = weights(encoder)
    assert outcome.resumed == 1 and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_of_other_data_is_not_taken_up(base, tmp_path):
    with pytest.raises(Cancelled):
        tuned(base, tiny_data(), report=Quiet(cancel_at=5), checkpoint=tmp_path)
    _, outcome, _ = tuned(base, tiny_data(n_train=21), checkpoint=tmp_path)
    assert outcome.resumed == 0


def test_tuning_beats_the_frozen_encoder_it_started_from(base):
    _, outcome, frozen = tuned(base, tiny_data(n_train=40), epochs=12, learning_rate=1e-3)
    assert outcome.best > frozen


def test_where_rows_are_few_each_labels_name_is_one_more_training_row():
    data = tiny_data()
    rows = finetune.rows_of(data, with_names=True)
    assert rows[len(data.train):].to_dict("records") == [{"text": label, "label": label} for label in data.labels]
    assert finetune.rows_of(data, with_names=False) is data.train


def test_few_shots_do_not_learn_from_validation_rows_or_stop_by_them(base, tmp_path):
    metrics = finetune.train(tiny_data(), options(base, shots=3), tmp_path / "model", Quiet())
    assert metrics["n_shipped"] == metrics["n_train"] == (3 + NAME_WEIGHT) * len(TOPICS)
    assert metrics["training"]["history"] == []


def test_the_publishers_test_rows_are_never_learnt_from(base, tmp_path):
    cut = finetune.train(tiny_data(), options(base, epochs=1), tmp_path / "cut", Quiet())
    published = finetune.train(tiny_data(test_is_publishers=True), options(base, epochs=1), tmp_path / "published", Quiet())
    assert cut["n_shipped"] == 80 + 48 + 48 and published["n_shipped"] == 80 + 48
    assert cut["accuracy"] == published["accuracy"]


def test_agreement_of_annotators_softens_what_the_loss_aims_at():
    texts, classes = ["profit rose", "profit rose a bit", "profit was seen", "unheard of"], np.array([2, 2, 1, 0])
    tiers = {text_hash(texts[0]): "all", text_hash(texts[1]): "50", text_hash(texts[2]): "75"}
    targets = finetune.targets_of(texts, classes, tiers)
    assert targets.dtype == np.float32 and np.allclose(targets.sum(axis=1), 1) and (targets.argmax(axis=1) == classes).all()
    assert np.allclose(targets[np.arange(4), classes], [0.98, 0.6, 0.87, 1.0])
    assert targets[1, 1] == pytest.approx(targets[1, 0])  # the other labels in the proportion in which they come
    assert finetune.targets_of(texts, classes, {}) is classes


@pytest.mark.parametrize("recipe", ["full", "lora"])
def test_tuning_on_rows_with_known_agreement_repeats_and_gives_words_a_say(base, tmp_path, recipe):
    data = tiny_data()
    data = replace(data, tiers={text_hash(message): "66" for message in data.train["text"][::2]})
    first, _, _ = tuned(base, data, recipe=recipe)
    again, _, _ = tuned(base, data, recipe=recipe)
    assert all(torch.equal(a, b) for a, b in zip(weights(first).values(), weights(again).values(), strict=True))
    metrics = finetune.train(data, options(base, recipe=recipe, epochs=1, lexical=True), tmp_path, Quiet())
    tried = [(t["kind"], t["settings"].get("c")) for t in metrics["head"]["tried"]]
    assert metrics["lexical"]["n_words"] > 0 and tried[0][0] == "logistic" and tried[0][1] in finetune.TUNED_C
    check_manifest(tmp_path)
    answer = Classifier.load(tmp_path, version="v").predict([data.test["text"].iloc[0]])[0]
    assert answer.label in data.labels and sum(answer.scores.values()) == pytest.approx(1)


def test_consistency_counts_how_far_two_passes_are_apart():
    answers = [torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])]
    batch = {"classes": torch.tensor([0])}
    plain, right, wrong = (finetune.loss_of(lambda _, a=a: a, batch, consistency=0.0) for a in (answers[0], *answers))
    assert plain == right < wrong
    same = finetune.loss_of(lambda _: answers[0], batch, consistency=1.0)
    assert same == pytest.approx(float(right))  # two equal answers: only the loss itself
    passes = iter(answers)
    apart = finetune.loss_of(lambda _: next(passes), batch, consistency=1.0)
    p = torch.softmax(answers[0], dim=1)[0]
    assert float(apart) == pytest.approx(float((right + wrong) / 2 + (p[0] - p[1]) * 2), rel=1e-5)  # both ways of the divergence, halved


def test_a_run_with_consistency_resumes_to_the_very_same_encoder(base, tmp_path):
    whole, _, _ = tuned(base, tiny_data(), consistency=1.0)
    with pytest.raises(Cancelled):
        tuned(base, tiny_data(), report=Quiet(cancel_at=5), checkpoint=tmp_path, consistency=1.0)
    resumed, outcome, _ = tuned(base, tiny_data(), checkpoint=tmp_path, consistency=1.0)
    assert outcome.resumed == 1
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(resumed).values(), strict=True))


def test_padding_does_not_change_what_a_row_says():
    batch = finetune.padded([{"input_ids": [2, 9, 3]}, {"input_ids": [2, 3]}], pad=0, classes=np.array([1, 0]))
    assert batch["input_ids"].tolist() == [[2, 9, 3], [2, 3, 0]] and batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["classes"].tolist() == [1, 0]
