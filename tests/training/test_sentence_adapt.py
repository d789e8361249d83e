"""Adapting a sentence encoder without labels: what the losses say, what is deleted and turned, resumption to the bit, what is written."""

import json
import math
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcore import config
from fmcore.models import bases
from fmcore.models.encoder import load_encoder
from fmcore.models.manifest import check_manifest
from fmcore.nouns import Cancelled
from fmcore.training import loop, opposites, pretrain, sentence_adapt
from fmcore.training.pretrain import Pretraining
from fmcore.training.sentence_adapt import Adapting, NotAdaptable
from tests.tiny_encoder import frame, save_tiny_encoder


class Heard:
    """A report that keeps what it is told; cancels once the step is reached."""

    def __init__(self, cancel_at=None):
        self.cancel_at, self.metrics, self.said = cancel_at, [], []

    def progress(self, fraction, message=""):
        self.said.append(message)

    def metric(self, step, **values):
        self.metrics.append((step, values))
        if self.cancel_at is not None and step >= self.cancel_at and "loss" in values:
            raise Cancelled

    def device(self, name): ...


def corpus(texts, held=(), **facts):
    """What data/corpus.py's Corpus is to an adaptation."""
    parts = {"train": texts, "held_back": held}
    return SimpleNamespace(
        documents=lambda part="train": iter([(each,) for each in parts[part]]), hash="abc", names=("tiny",), licences={}, notes=[], synthetic=True, **facts
    )


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The tiny encoder, which knows "up" and "down" too."""
    folder = save_tiny_encoder(tmp_path_factory.mktemp("base"))
    made = load_encoder(folder, max_tokens=32, device="cpu")
    made.tokenizer.add_tokens(["up", "down"])
    made.model.resize_token_embeddings(len(made.tokenizer), mean_resizing=False)
    for part in (made.model, made.tokenizer):
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def encoder(base):
    return load_encoder(base, max_tokens=32, device="cpu")


def messages(n=15, seed=0):
    """Sentences of the tiny encoder's words; half of them point up or down."""
    texts = list(dict.fromkeys(frame(n, seed=seed)["text"]))
    return [f"{text} {('', 'up', '', 'down')[i % 4]}".strip() for i, text in enumerate(texts)]


# ---------------------------------------------------------------- the losses


def test_the_contrastive_loss_is_the_formula_s():
    import torch

    first, second = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.8, 0.6], [0.6, 0.8]])
    t = sentence_adapt.TEMPERATURE
    by_hand = -math.log(math.exp(0.8 / t) / (math.exp(0.8 / t) + math.exp(0.6 / t)))
    assert float(sentence_adapt.twins_loss(first, second)) == pytest.approx(by_hand, rel=1e-5)


def test_the_groups_are_sentences_themselves_turned_and_sentences_without_a_direction(encoder):
    pointing = [f"{text} up" for text in messages(6)[::4]] * 4
    objective = sentence_adapt._Groups(encoder, [*messages(15)[::2], *pointing, "up down card"])
    batch = objective.collate(np.array([0, 3]))
    up, down = encoder.tokenizer.convert_tokens_to_ids(["up", "down"])
    there = [(int((row == up).sum()), int((row == down).sum())) for row in batch["input_ids"]]
    assert len(objective.tokens) == len(pointing) and batch["classes"].tolist() == [1, 1, -1, -1, 0, 0]
    assert there == [(1, 0), (1, 0), (0, 1), (0, 1), (0, 0), (0, 0)]


def test_the_decoder_sees_the_words_so_far_and_the_vector_never_a_later_word(encoder):
    import torch

    torch.manual_seed(0)
    decoder = sentence_adapt._decoder(encoder, torch.arange(20)).eval()
    vectors, tokens = torch.nn.functional.normalize(torch.randn(2, encoder.dim), dim=1), torch.tensor([[2, 7, 8, 9], [2, 10, 11, 12]])
    plain = decoder(vectors, tokens)
    changed = tokens.clone()
    changed[:, 3] = 13
    later, other = decoder(vectors, changed), decoder(vectors.flip(0), tokens)
    assert plain.shape == (2, 4, 20)
    assert torch.allclose(plain[:, :3], later[:, :3], atol=1e-6) and not torch.allclose(plain[:, 3], later[:, 3])
    assert not torch.allclose(plain, other)


def test_rewriting_asks_for_each_whole_sentence_and_never_for_the_padding(encoder):
    objective = sentence_adapt._Rewriting(encoder, ["refund my money today please", "card"])
    np.random.seed(0)
    batch = objective.collate(np.array([0, 1]))
    vocabulary = objective._vocabulary.numpy()
    asked = [vocabulary[row[row >= 0]].tolist() for row in batch["wanted"].numpy()]
    assert asked == objective.tokens and (batch["wanted"] == -100).sum() == len(objective.tokens[0]) - len(objective.tokens[1])
    assert batch["input_ids"].shape[1] < batch["whole"].shape[1]
    assert math.isfinite(objective.loss(batch).item())


def test_60_percent_of_the_tokens_go_special_ones_stay_and_one_word_always_does():
    kept = np.array([0, 1])
    for seed in range(20):
        left = sentence_adapt.deleted([0, *range(10, 20), 1], kept, chance=np.random.default_rng(seed))
        assert len(left) == 2 + 4 and left[0] == 0 and left[-1] == 1 and left == sorted(left[:-1]) + [1]
        assert len(sentence_adapt.deleted([0, 10, 1], kept, chance=np.random.default_rng(seed))) == 3


# ---------------------------------------------------------------- words of direction


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("Net sales rose 5 %", 1), ("Sales fell and margins fell", -1), ("The loss widened", -1),
        ("The loss narrowed", 1), ("A good year", 1), ("Bad weather, sales up", 1), ("Sales rose, profit fell", None),
        ("The company is in Finland", 0), ("", 0), ("Uplands and downtown", 0),
    ],
)  # fmt: skip
def test_a_sentence_points_where_most_of_its_words_do(text, way):
    assert opposites.direction(text) == way


def test_every_word_of_movement_is_turned_and_keeps_its_case():
    assert opposites.turned("Profit ROSE today, Up from 3") == "Profit FELL today, Down from 3"
    assert opposites.turned("A good year") == "A bad year"
    assert opposites.turned("The company is in Finland") == "The company is in Finland"


@given(st.text(alphabet=st.sampled_from("rose fell Up DOWN good loss, .\n€é") | st.characters(), max_size=60))
def test_a_turned_text_points_the_other_way(text):
    way = opposites.direction(text)
    if way:
        assert opposites.direction(opposites.turned(text)) == -way


def test_opposites_go_both_ways():
    for table in (opposites.MOVES, opposites.VALUES):
        assert all(word.islower() and other in table and table[other] != other for word, other in table.items())
    assert opposites.MOVES["rose"] == "fell" and opposites.MOVES["fell"] == "rose"


# ---------------------------------------------------------------- which sentences


def test_the_same_sentences_are_drawn_whatever_their_order_each_once_and_blank_ones_never():
    texts = [f"sentence {i}" for i in range(50)]
    some = sentence_adapt.drawn(corpus([*texts, *texts, " ", "..."]), "train", most=20, seed=0)
    assert len(set(some)) == len(some) == 20
    assert some == sentence_adapt.drawn(corpus(texts[::-1]), "train", most=20, seed=0)
    assert set(sentence_adapt.drawn(corpus(texts), "train", most=100, seed=0)) == set(texts)


# ---------------------------------------------------------------- a run


@pytest.mark.parametrize("objective", sentence_adapt.OBJECTIVES)
def test_a_run_writes_a_base_that_loads_and_says_what_it_is(base, objective, tmp_path):
    heard, out = Heard(), tmp_path / "out"
    asked = Adapting(objective=objective, base=base, steps=12, checkpoints=3, batch=8, max_tokens=32, layers=1, learning_rate=1e-3)
    figures = sentence_adapt.train(corpus(messages(), messages(3, seed=9)), asked, out, heard)
    facts, curve = json.loads((out / bases.FACTS).read_text()), pd.read_parquet(out / bases.CURVE)
    check_manifest(out)
    assert curve["step"].tolist() == [4, 8, 12] == [step for step, values in heard.metrics if "tokens_per_s" in values]
    assert figures["steps"] == 12 and facts["figures"] == figures and facts["n_tokens"] == curve["tokens"].iloc[-1] > 0
    assert (facts["objective"], facts["start"], facts["corpus"], facts["synthetic"]) == (objective, "continue", ["tiny"], True)
    assert curve["probe_accuracy"].between(0, 1).all() and facts["figures"]["probe"] == "demo_sentiment"
    before, after = load_encoder(base, max_tokens=32), load_encoder(str(out / bases.ENCODER), max_tokens=32)
    texts = messages(2)
    assert after.sha256 != before.sha256 and not np.allclose(before.encode(texts, batch=8), after.encode(texts, batch=8), atol=1e-3)


def test_pretraining_hands_these_objectives_over_with_what_it_was_asked(base, tmp_path):
    asked = Pretraining(
        "polarity", start="continue", base=base, steps=4, checkpoints=1, batch=8, max_tokens=32, layers=1, learning_rate=2e-3
    )  # fmt: skip
    figures = pretrain.train(corpus(messages()), asked, tmp_path, Heard())
    facts = json.loads((tmp_path / bases.FACTS).read_text())
    assert figures["steps"] == 4 and facts["objective"] == "polarity"
    assert facts["params"]["layers"] == 1 and facts["params"]["learning_rate"] == 2e-3


def test_only_the_last_layers_learn(encoder):
    before = {name: p.clone() for name, p in encoder.model.named_parameters()}
    sentence_adapt.adapt(encoder, messages(), [], Adapting(steps=4, batch=8, layers=1, learning_rate=1e-3), report=Heard())
    changed = {name for name, p in encoder.model.named_parameters() if not p.equal(before[name])}
    assert changed and all("layer.1." in name for name in changed)


@pytest.mark.parametrize("objective", sentence_adapt.OBJECTIVES)
def test_a_run_that_was_stopped_goes_on_to_the_same_weights_bit_for_bit(base, objective, tmp_path):
    asked = Adapting(objective, base=base, steps=16, checkpoints=4, batch=8, max_tokens=32, layers=1, learning_rate=1e-3, report_s=0.0)
    texts = corpus(messages())
    whole, halves = Heard(), Heard(cancel_at=6)
    sentence_adapt.train(texts, asked, tmp_path / "whole", whole, checkpoint=tmp_path / "a")
    with pytest.raises(Cancelled):
        sentence_adapt.train(texts, asked, tmp_path / "halves", halves, checkpoint=tmp_path / "b")
    resumed = Heard()
    sentence_adapt.train(texts, asked, tmp_path / "halves", resumed, checkpoint=tmp_path / "b")
    assert min(step for step, _ in resumed.metrics) == 7
    assert losses(whole) == {**losses(halves), **losses(resumed)} and len(losses(whole)) == 16
    weights = [(tmp_path / name / bases.ENCODER / "model.safetensors").read_bytes() for name in ("whole", "halves")]
    counted = [json.loads((tmp_path / name / bases.FACTS).read_text())["n_tokens"] for name in ("whole", "halves")]
    assert weights[0] == weights[1] and counted[0] == counted[1]


KILLED = """
import sys
from pathlib import Path
from fmcore.training import sentence_adapt
from tests.training.test_sentence_adapt import Heard, asked_to_die, corpus, messages
base, folder = sys.argv[1], Path(sys.argv[2])
sentence_adapt.train(corpus(messages()), asked_to_die(base), folder / "out", Heard(), checkpoint=folder / "checkpoint")
"""


def asked_to_die(base):
    return Adapting("tsdae", base=base, steps=60, checkpoints=3, batch=8, max_tokens=32, layers=1, report_s=0.0, checkpoint_s=0.0)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_weights_bit_for_bit(base, tmp_path):
    work = subprocess.Popen([sys.executable, "-c", KILLED, base, str(tmp_path)], cwd=config.ROOT)
    deadline = time.monotonic() + 90
    while not (tmp_path / "checkpoint" / "checkpoint.json").is_file() and work.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    work.send_signal(signal.SIGKILL)
    assert work.wait() == -signal.SIGKILL and not (tmp_path / "out" / "MANIFEST.json").exists()
    resumed = Heard()
    for name, heard in (("whole", Heard()), ("out", resumed)):
        kept = tmp_path / ("checkpoint" if name == "out" else "whole-checkpoint")
        sentence_adapt.train(corpus(messages()), asked_to_die(base), tmp_path / name, heard, checkpoint=kept)
    weights = [(tmp_path / name / bases.ENCODER / "model.safetensors").read_bytes() for name in ("whole", "out")]
    assert weights[0] == weights[1] and min(step for step, _ in resumed.metrics) > 1


def losses(heard):
    return {step: values["loss"] for step, values in heard.metrics if "loss" in values}


def test_a_run_by_the_clock_ends_with_what_it_has(base, tmp_path):
    asked = Adapting(base=base, minutes=0.5 / 60, batch=8, max_tokens=32, layers=1)
    heard = Heard()
    figures = sentence_adapt.train(corpus(messages()), asked, tmp_path, heard)
    assert figures["steps"] >= 1 and (tmp_path / "MANIFEST.json").is_file()
    assert any(said.startswith("Step ") for said in heard.said) and not any("Epoch" in said for said in heard.said)


def test_a_loss_that_is_no_number_ends_the_run_with_the_reason(base, tmp_path):
    asked = Adapting(base=base, steps=40, batch=8, max_tokens=32, layers=1, learning_rate=1e30)
    with pytest.raises(loop.Diverged, match="loss became"):
        sentence_adapt.train(corpus(messages()), asked, tmp_path, Heard())
    assert not (tmp_path / "MANIFEST.json").exists()


def test_polarity_tells_what_points_up_from_what_points_down_whatever_it_is_about(encoder):
    told = [(f"{text} {word}", word) for text in messages(8, seed=5)[::2] for word in ("up", "down")]
    texts, ways = [text for text, _ in told], np.array([word for _, word in told])

    def apart():
        vectors = encoder.encode(texts, batch=32)
        similarity, same = vectors @ vectors.T, ways[:, None] == ways[None]
        return float(similarity[same].mean() - similarity[~same].mean())

    before = apart()
    asked = Adapting("polarity", steps=160, batch=8, learning_rate=3e-3, layers=1)
    sentence_adapt.adapt(encoder, messages(40), [], asked, report=Heard())
    assert before < 0.1 < 0.5 < apart()


def test_a_corpus_without_words_of_direction_is_refused_for_polarity(encoder):
    with pytest.raises(NotAdaptable, match="0 of 30 sentences point up or down") as refused:
        sentence_adapt.adapt(encoder, [f"card {i}" for i in range(30)], [], Adapting("polarity", steps=2), report=Heard())
    assert "simcse" in refused.value.hint


def test_too_few_sentences_and_a_start_from_nothing_are_refused_with_what_to_do(base, tmp_path):
    with pytest.raises(NotAdaptable, match="3 sentences") as refused:
        sentence_adapt.train(corpus(["one", "two", "three"]), Adapting(base=base, steps=2, max_tokens=32), tmp_path, Heard())
    assert refused.value.hint
    with pytest.raises(NotAdaptable, match="needs a base"):
        sentence_adapt.train(corpus(messages()), SimpleNamespace(start="scratch", objective="simcse"), tmp_path, Heard())
