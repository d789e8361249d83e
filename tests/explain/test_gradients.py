"""Integrated gradients through a tiny real BERT: they add up to the served score, whatever the head, and say when they cannot be had."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fmcore import config
from fmcore.explain import gradients, words
from fmcore.explain.attributions import NotExplained
from fmcore.models.classifier import Classifier
from fmcore.models.heads import fit_head
from fmcore.models.lexical import fit_lexical
from fmcore.nouns import Cancelled
from fmcore.training import finetune
from fmcore.training.linear import LinearParams, train
from tests.tiny_encoder import save_tiny_encoder, tiny_data

TEXT = "please cancel the purchase, my card-pin is not with me"
SETTINGS = {
    "logistic": {"c": 10.0},
    "ridge": {"features": 64, "seed": 0, "penalty": 10.0},
    "kernel": {"penalty": 0.3},
    "blend": {"c": 10.0, "features": 64, "seed": 0, "penalty": 10.0, "first_t": 0.5, "second_t": 0.1},
}


class Silent:
    def progress(self, fraction, message=""): ...

    def metric(self, step, **values): ...

    def device(self, name): ...


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_encoder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    """A model of the recipe linear; nobody writes into it. Made before a test has its own FM_HOME, so it has one too."""
    out = tmp_path_factory.mktemp("model") / "linear"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FM_HOME", str(out.parent / "home"))
        config.settings.cache_clear()
        train(tiny_data(), LinearParams(base=base, max_tokens=32, random_features=64, resamples=50, fast=True), out, Silent())
    config.settings.cache_clear()
    return out


@pytest.fixture
def model(folder):
    return Classifier.load(folder, version="v", threads=1)


def target(model, text=TEXT):
    return np.array([label == model.predict([text])[0].label for label in model.labels], dtype=float)


def explained(folder, model, text=TEXT, **asked):
    return gradients.integrated(folder, model, words.split(text), target=target(model, text), **{"steps": 64, **asked})


def with_head(model, kind):
    classes = np.searchsorted(model.labels, model.reference.labels.astype(str))
    head = fit_head(kind, SETTINGS[kind], model.reference.embeddings, classes, n_classes=len(model.labels))
    return replace(model, head=head, temperature=0.2)


@pytest.mark.parametrize("kind", SETTINGS)
def test_values_of_whole_words_add_up_to_the_served_score_with_every_kind_of_head(folder, model, kind):
    model = with_head(model, kind)
    found = explained(folder, model)
    assert found.values.shape == (len(TEXT.split()),)
    assert found.score == model.predict([TEXT])[0].score
    assert abs(found.values).sum() > 0.05 and found.additivity_error < 0.02
    assert explained(folder, model, steps=256).additivity_error < 0.01


def test_lexical_scores_beside_the_head_are_explained_too(folder, model):
    data = tiny_data()
    classes = np.searchsorted(model.labels, data.train["label"].to_numpy(dtype=str))
    model = replace(model, lexical=fit_lexical(list(data.train["text"]), classes, n_classes=4), lexical_weight=2.0)
    found = explained(folder, model)
    assert found.additivity_error < 0.02 and found.score == model.predict([TEXT])[0].score
    plain = replace(model, lexical_weight=0.0)
    assert abs(explained(folder, plain, TEXT).values - found.values).max() > 0.05
    by_word = dict(zip(words.split(TEXT).tokens, found.values, strict=True))
    assert max(by_word, key=by_word.get) in ("cancel", "purchase,", "card-pin")


def test_a_word_of_several_tokens_has_one_value_and_runs_have_their_words_sum(folder, model):
    whole = words.split(TEXT)
    each = gradients.integrated(folder, model, whole, target=target(model))
    runs = gradients.integrated(folder, model, whole.runs(3), target=target(model))
    edges = np.searchsorted([a for a, _ in whole.spans], [a for a, _ in whole.runs(3).spans])
    assert runs.values == pytest.approx(np.add.reduceat(each.values, edges))


def test_words_beyond_what_the_model_reads_add_nothing(folder, model):
    found = explained(folder, model, "refund my money " * 40, steps=8)
    assert found.values.shape == (120,) and found.values[:20].any() and not found.values[40:].any()


@pytest.mark.parametrize("text", ["", "   ", "card", "退款到账了吗", "<b>**card**</b> $x^2$ \U0001f4b3"])
def test_any_text_is_explained(folder, model, text):
    found = explained(folder, model, text)
    assert found.values.shape == (len(words.split(text)),) and np.isfinite(found.values).all() and found.additivity_error < 0.02


def test_the_same_question_has_the_same_answer_and_every_label_can_be_asked_for(folder, model):
    once, again = (explained(folder, model) for _ in range(2))
    assert (once.values == again.values).all() and once.base_value == again.base_value
    asked = [gradients.integrated(folder, model, words.split(TEXT), target=row) for row in np.eye(len(model.labels))]
    assert sum(a.score for a in asked) == pytest.approx(1) and sum(a.base_value for a in asked) == pytest.approx(1, abs=1e-5)


def test_progress_comes_between_batches_and_can_stop_it_leaving_torch_as_it_was(folder, model):
    seen, before = [], torch.get_num_threads()
    explained(folder, model, steps=48, progress=seen.append)
    assert seen == sorted(seen) and len(seen) == 3 and seen[-1] == 1.0

    def stop(fraction):
        assert torch.get_num_threads() == before
        raise Cancelled

    with pytest.raises(Cancelled):
        explained(folder, model, progress=stop)
    assert torch.get_num_threads() == before


def test_it_refuses_where_the_encoder_in_pytorch_is_not_at_hand(folder, model, tmp_path):
    cases = {
        "keeps no PyTorch weights": {"recipe": "full"},
        "other weights than": {"base_sha256": "0" * 64},
        "There are no gradients": {"base": str(tmp_path / "gone")},
        "no PyTorch weights": {"base": None},
    }
    for said, changed in cases.items():
        with pytest.raises(NotExplained, match=said) as refusal:
            explained(folder, replace(model, info={**model.info, **changed}))
        assert refusal.value.hint


def test_no_connection_is_opened_for_a_base_from_the_hub(folder, model, monkeypatch):
    asked = []

    def cached_file(name, file, **options):
        asked.append(options["local_files_only"])
        raise OSError("not downloaded before")

    monkeypatch.setattr("transformers.utils.hub.cached_file", cached_file)
    with pytest.raises(NotExplained, match="not downloaded before"):
        explained(folder, replace(model, info={**model.info, "base": "nobody/has-this-model"}))
    assert asked == [True]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["full", "lora"])
def test_a_tuned_model_is_explained_by_its_own_weights(base, tmp_path, recipe):
    params = finetune.Tuning(
        recipe=recipe, base=base, epochs=3, batch=16, learning_rate=5e-3, random_features=64, resamples=50, max_tokens=32, device="cpu"
    )
    folder, torn = tmp_path / "model", tmp_path / "torn"
    finetune.train(tiny_data(), params, folder, Silent())
    model = Classifier.load(folder, version="v", threads=1)
    assert explained(folder, model, steps=256).additivity_error < 0.03
    shutil.copytree(folder, torn)
    (torn / "encoder.safetensors").write_bytes(b"torn")
    with pytest.raises(NotExplained, match="encoder.safetensors"):
        explained(torn, model)
    (torn / "encoder.safetensors").unlink()
    with pytest.raises(NotExplained, match="keeps no PyTorch weights") as refusal:
        explained(torn, model)
    assert "Train it again" in refusal.value.hint
