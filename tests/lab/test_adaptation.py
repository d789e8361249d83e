"""The adaptation study: same draws and rows for all, paired differences, who helped and in which words; and a field where it must help."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fmcore.data.catalogue import LabelledData, split_hash
from fmcore.lab import adaptation
from fmcore.lab.adaptation import Asked
from fmcore.models.encoder import load_encoder
from fmcore.nouns import Estimate
from fmcore.training.linear import TooFewExamples, few_shot
from tests.tiny_encoder import FILLER, TOPICS, frame, save_tiny_encoder

WAYS = {"positive": "up", "negative": "down", "neutral": "today"}


class Heard:
    def __init__(self):
        self.fractions, self.metrics = [], {}

    def progress(self, fraction, message=""):
        self.fractions.append(fraction)

    def metric(self, step, **values):
        self.metrics.update(values)

    def device(self, name): ...


def rows(n_each, seed):
    """Messages about anything; the label is which way they point."""
    texts = frame(n_each, seed=seed)["text"].tolist()
    labels = [list(WAYS)[i % 3] for i in range(len(texts))]
    return pd.DataFrame({"text": [f"{t} {WAYS[label]}" for t, label in zip(texts, labels, strict=True)], "label": labels})


def data():
    frames = {"train": rows(40, 1), "validation": rows(15, 2), "test": rows(15, 3)}
    return LabelledData(
        name="ways", labels=tuple(sorted(WAYS)), split_hash=split_hash(frames), split_note="made up", synthetic=True,
        test_is_publishers=False, **frames,
    )  # fmt: skip


def corpus(texts):
    parts = {"train": texts, "held_back": texts[:0]}
    return SimpleNamespace(
        documents=lambda part="train": iter([(t,) for t in parts[part]]),
        hash="abc", names=("ways",), licences={}, synthetic=True, notes=["A note."],
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


# ---------------------------------------------------------------- the verdict


def answers(shares, *, seeds=10, n=400, seed=0):
    """name -> what `answered` gives, right as often as said, on rows that are alike hard for all."""
    hard = np.random.default_rng(seed).random((1, n))
    wobble = np.random.default_rng(seed + 1).normal(0, 0.01, (seeds, n))
    return {name: {part: hard + wobble < share for part in adaptation.PARTS} for name, share in shares.items()}


def told(shares, **options):
    right = answers(shares, **options)
    return adaptation.content(right, {name: {"seconds": 1.0, "steps": 10} for name in right}, shots=16, resamples=500)


def test_who_helped_who_harmed_and_what_is_not_shown():
    content = told({"base": 0.6, "mlm": 0.5, "simcse": 0.601, "tsdae": 0.63, "polarity": 0.75})
    found = {row["name"]: row["helped"] for row in content["rows"]}
    assert found == {"base": None, "mlm": "no", "simcse": "not shown", "tsdae": "yes", "polarity": "yes"}
    assert content["best"] == "polarity"
    said = content["sentence"]
    assert said.startswith("With 16 labelled examples a class, over 10 draws and 400 test rows, the frozen base is right in")
    assert said.index("Helped: Polarity contrast") < said.index("TSDAE") < said.index("Made it worse: Continued masked words")
    assert "Not shown to help: SimCSE" in said and "No adaptation is shown" not in said


def test_intervals_apart_are_said_only_where_they_are():
    content = told({"base": 0.6, "tsdae": 0.63, "polarity": 0.75})
    apart = {row["name"]: row["apart"] for row in content["rows"]}
    assert apart == {"base": None, "tsdae": False, "polarity": True}
    assert content["sentence"].count("its interval apart from the base's") == 1
    by_name = {row["name"]: row for row in content["rows"]}
    assert by_name["polarity"]["low"] > by_name["base"]["high"] >= by_name["tsdae"]["low"]


def test_where_nothing_helped_it_is_said():
    content = told({"base": 0.6, "mlm": 0.5, "simcse": 0.6})
    assert content["best"] == "" and content["sentence"].endswith("No adaptation is shown to be better than the base here.")
    assert all(row["over"] <= 0 for row in content["rows"][1:])


def test_the_best_is_chosen_on_validation_rows_and_reported_on_test_rows():
    right = answers({"base": 0.5, "simcse": 0.7, "tsdae": 0.8})
    right["simcse"]["validation"] = right["tsdae"]["test"] | True
    content = adaptation.content(right, {name: {"seconds": 0.0, "steps": 0} for name in right}, shots=4, resamples=200)
    by_name = {row["name"]: row for row in content["rows"]}
    assert content["best"] == "simcse" and by_name["tsdae"]["mean"] > by_name["simcse"]["mean"]


def test_a_difference_is_paired_its_interval_narrower_than_two_separate_ones():
    row = told({"base": 0.6, "tsdae": 0.63})["rows"][1]
    assert row["over_high"] - row["over_low"] < row["high"] - row["low"]
    assert row["over_low"] <= row["over"] <= row["over_high"]


@pytest.mark.parametrize(("ends", "verdict"), [((0.001, 0.02), "yes"), ((-0.01, 0.0), "not shown"), ((-0.02, -0.001), "no")])
def test_the_whole_interval_decides(ends, verdict):
    assert adaptation.helped(Estimate(sum(ends) / 2, *ends, 100)) == verdict


def test_objectives_are_known_each_named_once_and_none_means_all():
    assert adaptation.objectives_of("simcse, tsdae simcse") == ("simcse", "tsdae")
    assert adaptation.objectives_of(" ") == adaptation.OBJECTIVES == ("mlm", "simcse", "tsdae", "polarity")
    with pytest.raises(adaptation.UnknownObjective, match="'clip'"):
        adaptation.objectives_of("clip")


# ---------------------------------------------------------------- a study


def test_every_encoder_gets_the_same_draws_and_answers_the_same_rows(base):
    made = data()
    shots = [few_shot(made, shots=4, seed=seed).train for seed in range(3)]
    right = adaptation.answered(load_encoder(base, max_tokens=32), made, shots, Heard())
    assert {part: found.shape for part, found in right.items()} == {"validation": (3, 60), "test": (3, 60)}
    again = adaptation.answered(load_encoder(base, max_tokens=32), made, shots, Heard())
    assert all((right[part] == again[part]).all() for part in right)


def test_in_a_field_of_directions_polarity_must_help_and_a_finished_arm_is_not_made_twice(base, tmp_path):
    made, heard = data(), Heard()
    about = corpus([t.removesuffix(" today") for t in made.train["text"]])
    asked = Asked(
        ("simcse", "polarity"), base=base, shots=8, seeds=4, steps=160, batch=8, max_tokens=32, resamples=200, learning_rate=3e-3
    )
    content = adaptation.run(made, about, asked, tmp_path, heard)
    by_name = {row["name"]: row for row in content["rows"]}
    assert by_name["polarity"]["helped"] == "yes" and content["best"] == "polarity" and by_name["polarity"]["steps"] == 160
    assert by_name["polarity"]["mean"] > by_name["base"]["mean"] + 0.2
    assert content["notes"][0] == "A note." and "without labels" in content["notes"][1]
    assert heard.fractions == sorted(heard.fractions) and "polarity_loss" in heard.metrics and "polarity_accuracy" in heard.metrics
    written = (tmp_path / "polarity" / "MANIFEST.json").stat().st_mtime_ns
    again = adaptation.run(made, about, asked, tmp_path, Heard())
    assert again == content and (tmp_path / "polarity" / "MANIFEST.json").stat().st_mtime_ns == written


def test_more_shots_than_rows_are_refused_before_anything_is_trained(base, tmp_path):
    with pytest.raises(TooFewExamples):
        adaptation.run(data(), corpus(FILLER), Asked(base=base, shots=1000, seeds=2), tmp_path, Heard())
    assert not any(tmp_path.iterdir()) and TOPICS
