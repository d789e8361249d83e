"""The regularisation study: planted regularisers that help, harm and do nothing, what is said of them, the budget, and going on after a stop."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fmcore.lab import ablation, ablation_cells
from fmcore.lab.ablation_cells import Ablation, Cell, Regulariser
from fmcore.nouns import Cancelled
from fmcore.training import augment, loop
from fmcore.training.checkpoint import CheckpointNotSaved
from tests.tiny_encoder import save_tiny_encoder, tiny_data

ROOT = Path(__file__).resolve().parents[2]
N = 200
GAINS = {"plain": 0.0, "weight_decay_0": 0.0, "label_smoothing": 0.15, "r_drop": 0.1, "dropout_0.3": -0.15}
"""Planted: how much more often each is right than the plain recipe, which is right on 60 of 100 rows."""


class Quiet:
    def __init__(self, cancel_at=None):
        self.cancel_at, self.fractions, self.messages, self.metrics = cancel_at, [], [], []

    def progress(self, fraction, message=""):
        self.fractions.append(fraction)
        self.messages.append(message)

    def metric(self, step, **values):
        self.metrics.append((step, values))
        if self.cancel_at is not None and step >= self.cancel_at:
            raise Cancelled

    def device(self, name):
        pass


@pytest.fixture
def planted(monkeypatch):
    """Cells with planted answers instead of training: the names of those that were made, in their order."""
    made = []

    def trained(data, each, seed, params, report):
        made.append((each.name, seed))
        report.progress(0.5)
        gain = GAINS.get(each.name, 0.0)
        plain = np.random.default_rng((seed, 1)).random(N) < 0.6
        turned = np.random.default_rng((seed, 2)).random(N) < abs(gain) * 2
        right = np.where(turned, gain > 0, plain)
        return Cell(each.name, seed, right.astype(np.int8), right[::-1].astype(np.int8), 60.0)

    monkeypatch.setattr(ablation_cells, "trained", trained)
    return made


def study(folder, names=tuple(GAINS), report=None, **changed):
    params = Ablation(names=names, shots=4, seeds=3, resamples=300, **changed)
    return ablation.run(tiny_data(), params, report or Quiet(), folder=folder)


def by_name(content):
    return {row["name"]: row for row in content["rows"]}


# ---------------------------------------------------------------- what is said


def test_one_that_must_help_helps_one_that_must_harm_harms_and_one_that_does_nothing_is_not_said_to_do_either(planted, tmp_path):
    content = study(tmp_path)
    rows = by_name(content)
    assert {name: row["verdict"] for name, row in rows.items() if name != "together"} == {
        "plain": "the yardstick", "weight_decay_0": "no difference shown", "dropout_0.3": "harms", "label_smoothing": "helps", "r_drop": "helps",
    }  # fmt: skip
    for name, row in rows.items():
        assert row["low"] <= row["mean"] <= row["high"] and row["n_seeds"] == 3 and row["n_test"] == N and row["seconds"] == 60.0
        if name != "plain":
            assert row["over_low"] <= row["over"] <= row["over_high"] and row["over"] == pytest.approx(row["mean"] - rows["plain"]["mean"])
    assert rows["weight_decay_0"]["over"] == 0 and rows["plain"]["over"] is None
    assert content["rows"][0]["name"] == "plain"
    assert "shown to help: Label smoothing 0.1, R-Drop" in content["sentence"] and "shown to harm: Dropout 0.3" in content["sentence"]
    assert "no difference shown for No weight decay" in content["sentence"] and "4 rows a label" in content["sentence"]
    json.dumps(content, allow_nan=False)


def test_the_winner_carries_its_options_and_the_task_s_own_r_drop_is_switched_off_where_it_was_not_part_of_it(planted, tmp_path):
    content = study(tmp_path, names=("weight_decay_0", "label_smoothing"))
    assert content["winner"] == "label_smoothing" and content["adoptable"]
    assert content["options"] == {"weight_decay": 0.01, "dropout": 0.1, "label_smoothing": 0.1, "consistency": 0.0, "augmentation": ""}
    assert "+1" in content["why"] and content["left_out"]["together"].endswith("only Label smoothing 0.1 did.")


def test_nothing_wins_where_nothing_helps(planted, tmp_path):
    content = study(tmp_path, names=("weight_decay_0", "dropout_0.3"))
    assert content["winner"] is None and content["options"] == {} and not content["adoptable"]
    assert "none is chosen" in content["sentence"] and content["left_out"]["together"].endswith("none did.")


def test_a_winner_on_validation_rows_that_test_rows_do_not_confirm_does_not_win(planted, tmp_path, monkeypatch):
    inner = ablation_cells.trained

    def lucky(data, each, seed, params, report):
        cell = inner(data, each, seed, params, report)
        return replace(cell, test=inner(data, replace(each, name="plain"), seed, params, report).test)

    monkeypatch.setattr(ablation_cells, "trained", lucky)
    content = study(tmp_path, names=("label_smoothing",))
    assert content["winner"] is None and not content["adoptable"]
    assert "test rows do not confirm it" in content["sentence"] and by_name(content)["label_smoothing"]["validation_over_low"] > 0


def test_a_winner_must_also_beat_what_the_task_is_trained_with_now(planted, tmp_path):
    behind = study(tmp_path / "a", names=("label_smoothing", "r_drop"), present={"label_smoothing": 0.1})
    assert behind["present"] == "label_smoothing"
    assert behind["winner"] != "label_smoothing" or behind["why"] == "The task is trained with the winner already."
    own = study(tmp_path / "b", names=("r_drop",), present={"label_smoothing": 0.05})
    assert own["present"] == "present" and by_name(own)["present"]["title"] == "As the task is trained now"
    assert own["winner"] == "r_drop" and own["adoptable"]  # what serves now is planted as no better than the plain recipe


def test_all_that_helped_is_tried_together_with_the_better_of_two_that_set_the_same_knob():
    rows = [Regulariser("plain", "Plain"), Regulariser("a", "A", {"dropout": 0.0}), Regulariser("b", "B", {"dropout": 0.3}),
            Regulariser("c", "C", {"augmentation": "synonym"}), Regulariser("d", "D", {"augmentation": "token_dropout"}),
            Regulariser("e", "E", {"label_smoothing": 0.1})]  # fmt: skip
    found = [{"name": each.name, "title": each.title, "over": gain, "verdict": "helps" if gain > 0 else "harms"}
             for each, gain in zip(rows, (0.0, 0.02, 0.01, 0.03, 0.04, -0.1), strict=True)]  # fmt: skip
    together = ablation.combined(rows, found)
    assert together.name == "together" and together.options == {"dropout": 0.0, "augmentation": "synonym,token_dropout"}
    assert together.title == "All that helped together: D, C, A, B"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"over": None, "n_seeds": 3}, "the yardstick"),
        ({"over": 0.1, "over_low": 0.05, "over_high": 0.2, "n_seeds": 1}, "1 seed only, no verdict"),
        ({"over": 0.1, "over_low": 0.0, "over_high": 0.2, "n_seeds": 5}, "no difference shown"),
        ({"over": 0.1, "over_low": 0.001, "over_high": 0.2, "n_seeds": 5}, "helps"),
        ({"over": -0.1, "over_low": -0.2, "over_high": -0.001, "n_seeds": 5}, "harms"),
    ],
)
def test_a_verdict_says_what_its_interval_allows(row, words):
    assert ablation.verdict(row) == words


def test_a_row_to_which_nothing_was_added_in_any_cell_is_left_out_with_the_reason(planted, tmp_path, monkeypatch):
    inner = ablation_cells.trained

    def trained(data, each, seed, params, report):
        told = {"synonym": ["Only 3 could be judged."], "token_dropout": ["" if seed == 0 else "Only 3 could be judged."]}
        return replace(inner(data, each, seed, params, report), told=tuple({"refused": why} for why in told.get(each.name, ())))

    monkeypatch.setattr(ablation_cells, "trained", trained)
    monkeypatch.setattr(ablation, "preservation", lambda *given: ([], {}))
    content = study(tmp_path, names=("synonym", "token_dropout"))
    assert "synonym" not in by_name(content) and content["left_out"]["synonym"] == "in every cell: Only 3 could be judged."
    assert "token_dropout" in by_name(content) and any("Words left out: with 2 of 3 seeds" in note for note in content["notes"])


@pytest.mark.slow
def test_an_augmentation_that_flips_labels_is_not_trained_and_the_study_says_why(planted, tmp_path, monkeypatch):
    twisted = {"card": "refund", "refund": "card", "travel": "login", "login": "travel"}

    def flip(text, rng):
        return " ".join(twisted.get(word, word) for word in text.split())

    base = save_tiny_encoder(tmp_path / "base")
    monkeypatch.setattr(augment, "AUGMENTATIONS", {**augment.AUGMENTATIONS, "synonym": flip})
    content = study(tmp_path / "cells", names=("synonym",), base=base)
    assert "synonym" in content["left_out"] and "not used" in content["left_out"]["synonym"] and "synonym" not in by_name(content)
    assert not [name for name, _ in planted if name == "synonym"]
    [told] = content["augmentations"]
    assert told["refused"] and told["kept_share"] < 0.9 and any(not each["kept"] for each in told["examples"])


# ---------------------------------------------------------------- cells, budget, going on


def test_every_row_has_the_same_seeds_and_progress_goes_by_cells(planted, tmp_path):
    report = Quiet()
    study(tmp_path, names=("weight_decay_0", "dropout_0.3"), report=report)
    assert planted == [(name, seed) for seed in range(3) for name in ("plain", "weight_decay_0", "dropout_0.3")]
    assert report.fractions == sorted(report.fractions) and report.fractions[-1] == 1.0
    assert any("Dropout 0.3, seed 2 of 3: cell 6 of 12, about" in message for message in report.messages)
    assert [step for step, _ in report.metrics] == list(range(1, 10)) and all(0 <= v["val_accuracy"] <= 1 for _, v in report.metrics)


def test_a_budget_cuts_whole_cells_names_what_it_cut_and_keeps_room_for_the_combination(planted, tmp_path):
    content = study(tmp_path, names=("label_smoothing", "r_drop"), minutes=10.0)  # a minute a cell: 8 singles and 2 combined
    rows = by_name(content)
    assert {name: row["n_seeds"] for name, row in rows.items()} == {"plain": 3, "label_smoothing": 3, "r_drop": 2, "together": 2}
    assert content["left_out"]["r_drop"] == "2 of 3 seeds trained: the budget of 10 minutes was spent."
    small = study(tmp_path / "small", names=("label_smoothing", "r_drop"), minutes=0.5)
    assert [row["name"] for row in small["rows"]] == ["plain"] and "not trained" in small["left_out"]["r_drop"]
    assert small["winner"] is None and small["sentence"].startswith("With 4 rows a label nothing can be said")


def test_a_regulariser_whose_loss_is_no_number_is_left_out_and_the_others_go_on(planted, tmp_path, monkeypatch):
    inner = ablation_cells.trained

    def trained(data, each, seed, params, report):
        if each.name == "dropout_0.3":
            raise loop.Diverged("The loss is nan at step 3.", "Lower the learning rate.")
        return inner(data, each, seed, params, report)

    monkeypatch.setattr(ablation_cells, "trained", trained)
    content = study(tmp_path, names=("dropout_0.3", "label_smoothing"))
    assert "nan at step 3" in content["left_out"]["dropout_0.3"] and content["winner"] == "label_smoothing"


def test_a_stopped_study_goes_on_behind_its_finished_cells_to_the_same_content(planted, tmp_path):
    whole = study(tmp_path / "whole")
    first = list(planted)
    planted.clear()
    with pytest.raises(Cancelled):
        study(tmp_path / "cut", report=Quiet(cancel_at=7))
    torn = sorted((tmp_path / "cut").glob("*.json"))[0]
    torn.write_text(torn.read_text()[:40])
    assert study(tmp_path / "cut") == whole
    assert len(planted) == len(first) + 1  # only the torn cell was made twice


def test_a_disk_that_takes_no_more_stops_the_study_in_words_and_leaves_the_finished_cells_whole(planted, tmp_path):
    (tmp_path / "label_smoothing-0.part").mkdir()  # nothing can be written there
    with pytest.raises(CheckpointNotSaved, match="label_smoothing with seed 0 could not be kept"):
        study(tmp_path, names=("label_smoothing",))
    (tmp_path / "label_smoothing-0.part").rmdir()
    assert study(tmp_path, names=("label_smoothing",))["winner"] == "label_smoothing"
    assert planted.count(("plain", 0)) == 1


def test_cells_of_another_study_are_not_taken_up(planted, tmp_path):
    study(tmp_path, names=("r_drop",))
    n = len(planted)
    study(tmp_path, names=("r_drop",), epochs=9)
    assert len(planted) == 2 * n


def test_rows_to_stop_by_are_taken_from_the_row_s_own():
    rows = tiny_data(n_train=10).train
    learnt, stop = ablation_cells.held_back(rows, seed=3)
    assert len(learnt) == 32 and stop["label"].value_counts().tolist() == [2] * 4
    assert sorted([*learnt["text"], *stop["text"]]) == sorted(rows["text"])
    few_learnt, few_stop = ablation_cells.held_back(tiny_data(n_train=1).train, seed=3)
    assert len(few_learnt) == 4 and few_stop.empty


# ---------------------------------------------------------------- really trained


def really(base, folder, report=None, **changed):
    params = Ablation(
        base=base, names=("weight_decay_0",), shots=12, seeds=2, epochs=6, batch=16, learning_rate=3e-3, max_tokens=32, resamples=200,
        device="cpu", **changed,
    )  # fmt: skip
    return ablation.run(tiny_data(n_train=30), params, report or Quiet(), folder=folder)


@pytest.mark.slow
def test_a_decay_that_must_help_helps_taking_it_away_harms_and_the_same_decay_makes_no_difference(tmp_path, monkeypatch):
    """The labels hang on words, and the base's layers are random, so they only scramble them: a decay that takes the layers away helps."""
    base = save_tiny_encoder(tmp_path / "base")
    found = {}
    for case, plain, decay in (("helps", 0.0, 60.0), ("harms", 60.0, 0.0), ("no difference shown", 60.0, 60.0)):
        monkeypatch.setitem(ablation_cells.PLAIN, "weight_decay", plain)
        other = Regulariser("weight_decay_0", "Another decay", {"weight_decay": decay})
        monkeypatch.setattr(ablation, "REGULARISERS", (ablation.REGULARISERS[0], other))
        found[case] = by_name(really(base, tmp_path / case.replace(" ", "_")))["weight_decay_0"]
    assert {case: row["verdict"] for case, row in found.items()} == {case: case for case in found}
    assert found["helps"]["over"] == -found["harms"]["over"] > 0.05 and found["no difference shown"]["over"] == 0


CHILD = """
import sys
from pathlib import Path
from tests.lab.test_ablation import Quiet, really
really(sys.argv[1], Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_study_killed_at_any_moment_goes_on_to_the_bit_equal_answers(tmp_path):
    base = save_tiny_encoder(tmp_path / "base")
    child = subprocess.Popen([sys.executable, "-c", CHILD, base, str(tmp_path / "cut")], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    until = time.monotonic() + 120
    while not list((tmp_path / "cut").glob("*.json")) and child.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert list((tmp_path / "cut").glob("*.json"))
    really(base, tmp_path / "cut")
    really(base, tmp_path / "whole")

    def answers(folder):
        return {path.name: [json.loads(path.read_text())[part] for part in ("validation", "test")] for path in folder.glob("*.json")}

    assert answers(tmp_path / "cut") == answers(tmp_path / "whole") and len(answers(tmp_path / "cut")) == 4
