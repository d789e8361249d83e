"""Pretraining: a base that fills masks and loads as an encoder; the same to the bit when cut and resumed; reasons when it cannot go on."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from fmcore.config import settings
from fmcore.data.corpus import Corpus
from fmcore.models import bases
from fmcore.models.encoder import load_encoder
from fmcore.nouns import Cancelled
from fmcore.training import loop, pretrain
from fmcore.training.checkpoint import CheckpointNotSaved
from fmcore.training.packing import NothingToPack
from tests.tiny_encoder import frame, save_tiny_encoder

TINY = pretrain.Pretraining(size="tiny", vocab=150, steps=8, batch=8, max_tokens=32, checkpoints=2, device="cpu", report_s=0)


class Heard:
    """A report that keeps the figures, and cancels at a step where asked to."""

    def __init__(self, cancel_at=None):
        self.cancel_at, self.metrics = cancel_at, []

    def progress(self, fraction, message=""):
        pass

    def metric(self, step, **values):
        self.metrics.append((step, values))
        if self.cancel_at is not None and step >= self.cancel_at and "loss" in values:
            raise Cancelled

    def device(self, name):
        pass

    def losses(self):
        return {step: values["loss"] for step, values in self.metrics if "loss" in values}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "news.txt"
    chance = np.random.default_rng(1)
    verbs, names = ["rose", "fell", "grew", "shrank"], ["Alpha", "Beta", "Gamma", "Delta", "Omega"]
    said = [
        f"Shares of {chance.choice(names)} {chance.choice(verbs)} {i} percent. Analysts expected {chance.choice(verbs)}."
        for i in range(150)
    ]
    path.write_text("\n".join(said))
    return str(path)


@pytest.fixture(scope="session")
def corpus(texts):
    return Corpus.of([texts])


@pytest.fixture(scope="session")
def whole(corpus, tmp_path_factory):
    """(losses by step, folder) of a run that nothing cut; read only."""
    report, folder = Heard(), tmp_path_factory.mktemp("whole") / "model"
    torch.set_num_threads(1)
    pretrain.train(corpus, TINY, folder, report)
    return report.losses(), folder


def test_from_scratch_a_base_is_written_that_loads_fills_masks_and_tells_its_course(corpus, tmp_path):
    report = Heard()
    figures = pretrain.train(corpus, TINY, tmp_path / "model", report, checkpoint=tmp_path / "checkpoint")
    base = bases.put_in_place(tmp_path / "model", settings().home, name="mine")
    assert base.steps == (4, 8) and base.curve()["step"].tolist() == [4, 8]
    assert {"masked_accuracy", "unigram_accuracy", "probe_accuracy", "val_loss"} <= set(base.curve())
    assert tuple(base.filled().columns) == bases.FILLED_COLUMNS and set(base.filled()["step"]) == {4, 8}
    live = [json.loads(line) for line in (tmp_path / "checkpoint" / "fills.jsonl").read_text().splitlines()]
    assert pd.DataFrame(live).equals(base.filled())
    assert load_encoder("base:mine", max_tokens=16, device="cpu").encode(["Alpha rose"], batch=1).shape == (1, 128)
    assert base.fill_mask().fill("Shares of [MASK] rose.")[0].words
    assert (
        {"loss", "tokens_per_s", "rss_mb"} <= set(report.metrics[0][1]) and figures["steps"] == 8 and figures["probe"] == "demo_sentiment"
    )
    facts = base.facts
    assert facts["corpus_hash"] == corpus.hash and facts["n_tokens"] == 8 * 8 * 32 and not facts["synthetic"] and facts["vocabulary"] <= 150


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_cut_at_a_step_and_resumed_it_has_the_same_losses_and_weights_to_the_bit(corpus, whole, tmp_path, cut):
    with pytest.raises(Cancelled):
        pretrain.train(corpus, TINY, tmp_path / "model", Heard(cancel_at=cut), checkpoint=tmp_path / "checkpoint")
    resumed = Heard()
    pretrain.train(corpus, TINY, tmp_path / "model", resumed, checkpoint=tmp_path / "checkpoint")
    losses, folder = whole
    assert resumed.losses() == {step: loss for step, loss in losses.items() if step > cut}
    for name in ("encoder/model.safetensors", "head.safetensors", "curve.parquet", "fills.parquet", "encoder/tokenizer.json"):
        assert (tmp_path / "model" / name).read_bytes() == (folder / name).read_bytes(), name


def test_it_learns_what_a_simple_corpus_has_to_teach(corpus, tmp_path):
    asked = dataclasses.replace(TINY, steps=120, checkpoints=3, learning_rate=3e-3, report_s=60)
    figures = pretrain.train(corpus, asked, tmp_path / "model", Heard())
    losses = pd.read_parquet(tmp_path / "model" / "curve.parquet")["val_loss"].tolist()
    assert losses == sorted(losses, reverse=True) and figures["masked_accuracy"] > 1.5 * figures["unigram_accuracy"]


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_pairs_are_learnt_beside_the_words(corpus, tmp_path, objective):
    figures = pretrain.train(corpus, dataclasses.replace(TINY, objective=objective, checkpoints=1), tmp_path / "model", Heard())
    assert 0 <= figures["pair_accuracy"] <= 1 and (tmp_path / "model" / "MANIFEST.json").is_file()


def test_a_base_is_continued_with_its_own_words_head_and_names_its_parent(tmp_path):
    folder = save_tiny_encoder(tmp_path / "base")
    (tmp_path / "service.txt").write_text("\n".join(f"{said} {i}" for i, said in enumerate(frame(30, seed=1)["text"])))
    corpus = Corpus.of([str(tmp_path / "service.txt")])
    asked = dataclasses.replace(TINY, start="continue", base=folder, checkpoints=1)
    pretrain.train(corpus, asked, tmp_path / "model", Heard())
    base = bases.put_in_place(tmp_path / "model", settings().home, name="first")
    assert base.facts["parent"] == load_encoder(folder, max_tokens=16, device="cpu").sha256 and base.facts["size"] == ""
    again = Heard()
    pretrain.train(corpus, dataclasses.replace(asked, base="base:first"), tmp_path / "second", again)
    assert again.metrics[0][1]["loss"] < 6 and (tmp_path / "second" / "head.safetensors").is_file()


def test_a_base_that_knows_no_word_of_the_corpus_says_so(corpus, tmp_path):
    asked = dataclasses.replace(TINY, start="continue", base=save_tiny_encoder(tmp_path / "base"))
    with pytest.raises(NothingToPack, match="knows no word"):
        pretrain.train(corpus, asked, tmp_path / "model", Heard())


def poisoned(monkeypatch, at):
    """The loss is NaN from step `at` on."""
    seen, plain = [], pretrain.loss_of

    def loss(model, batch):
        seen.append(1)
        return plain(model, batch) * (float("nan") if len(seen) >= at else 1.0)

    monkeypatch.setattr(pretrain, "loss_of", loss)


def test_a_loss_that_is_no_number_stops_with_the_reason_and_the_last_good_checkpoint_is_kept(corpus, tmp_path, monkeypatch):
    poisoned(monkeypatch, 6)
    with pytest.raises(loop.Diverged, match="nan at step 6"):
        pretrain.train(corpus, TINY, tmp_path / "model", Heard(), checkpoint=tmp_path / "checkpoint")
    base = bases.put_in_place(tmp_path / "model", settings().home, name="rescued")
    assert "nan at step 6" in base.facts["figures"]["stopped"] and base.steps == (4,)
    encoder = load_encoder("base:rescued", max_tokens=16, device="cpu")
    assert all(torch.isfinite(p).all() for p in encoder.model.parameters())


def test_a_loss_that_is_no_number_before_any_checkpoint_keeps_nothing(corpus, tmp_path, monkeypatch):
    poisoned(monkeypatch, 1)
    with pytest.raises(loop.Diverged):
        pretrain.train(corpus, TINY, tmp_path / "model", Heard())
    assert not (tmp_path / "model").exists()


def test_a_disk_that_is_full_is_said_the_former_checkpoint_stays_and_the_run_goes_on(corpus, whole, tmp_path, monkeypatch):
    plain, calls = shutil.copyfile, []

    def full(source, target, **options):
        if str(target).endswith("fill_mask.onnx"):
            calls.append(target)
            if len(calls) > 1 and "/8/" in str(target):
                raise OSError(28, "No space left on device")
        return plain(source, target, **options)

    with monkeypatch.context() as patch:
        patch.setattr("fmcore.models.fill_mask.FP32", dataclasses.replace(pretrain.exams.fill_mask.FP32, write=full))
        with pytest.raises(CheckpointNotSaved, match="Free some disk space"):
            pretrain.train(corpus, TINY, tmp_path / "model", Heard(), checkpoint=tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint" / "checkpoint.json").is_file() and (tmp_path / "checkpoint" / "kept" / "4" / "fill_mask.onnx").is_file()
    resumed = Heard()
    pretrain.train(corpus, TINY, tmp_path / "model", resumed, checkpoint=tmp_path / "checkpoint")
    assert min(resumed.losses()) > 4
    assert (tmp_path / "model" / "encoder" / "model.safetensors").read_bytes() == (whole[1] / "encoder" / "model.safetensors").read_bytes()


def test_an_unknown_size_is_refused(corpus, tmp_path):
    with pytest.raises(pretrain.UnknownSize):
        pretrain.train(corpus, dataclasses.replace(TINY, size="huge"), tmp_path / "model", Heard())


def test_minutes_set_the_steps_and_end_the_run(corpus, tmp_path):
    figures = pretrain.train(corpus, dataclasses.replace(TINY, steps=0, minutes=0.02, checkpoints=1), tmp_path / "model", Heard())
    assert figures["steps"] >= 1
