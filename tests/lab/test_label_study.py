"""The label study: its order, its budget, what it keeps of a cell, and that its figures mean what they say."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fmcore.lab import label_methods, label_study
from fmcore.lab.label_methods import ALL, METHODS, Method, Trained
from fmcore.lab.label_methods import test_rows as rows_of_test
from fmcore.lab.label_study import Asked, NothingToStudy
from fmcore.nouns import Cancelled
from tests.lab import planted
from tests.tiny_encoder import TOPICS, save_tiny_encoder

LABELS = sorted(TOPICS)


@pytest.fixture
def base(tmp_path):
    return save_tiny_encoder(tmp_path / "base")


def asked(base, **changed):
    usual = {"methods": ("zero_shot", "frozen", "lora"), "shots": (0, 2, 4, ALL), "seeds": 2, "max_tokens": 32, "resamples": 100}
    return Asked(task="intent", base=base, present="frozen", device="cpu", **{**usual, **changed})


class Clock:
    """Time that only training takes."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    perf_counter = monotonic


@pytest.fixture
def toys(monkeypatch):
    """Methods that take stated seconds and are right the more often the more rows there are; what each was given is kept."""
    clock, given = Clock(), []

    def toy(name, seconds):
        def train(bench, learnt, shots, seed, report):
            report.progress(0.0)
            given.append((name, shots, seed, tuple(learnt.train["text"])))
            clock.now += seconds(shots)
            chance = np.random.default_rng((seed, max(shots, 0), len(name)))
            wrong = chance.random(len(bench.truth)) > min(0.9, 0.4 + 0.02 * len(learnt.train))
            return Trained(lambda texts: np.where(wrong, (bench.truth + 1) % len(bench.labels), bench.truth), 7)

        free = name in ("zero_shot", "frozen")
        return replace(METHODS[name], train=train, passes=lambda asked, rows, shots: 0 if free else rows)

    costs = {"zero_shot": lambda shots: 0.1, "frozen": lambda shots: 1.0, "lora": lambda shots: 10.0 * (20 if shots == ALL else shots)}
    costs["full"] = costs["lora"]
    monkeypatch.setattr(label_study, "METHODS", {name: toy(name, cost) for name, cost in costs.items()})
    monkeypatch.setattr(label_study, "time", clock)
    monkeypatch.setattr(label_methods.Bench, "prepare", lambda self, name: None)
    return given


def test_the_same_seed_gives_every_method_the_same_rows_and_each_seed_others(toys, base, tmp_path):
    label_study.run(planted.data(), asked(base, methods=("frozen", "lora", "full")), tmp_path / "ck", planted.Quiet())
    drawn = {}
    for _, shots, seed, texts in toys:
        drawn.setdefault((shots, seed), set()).add(texts)
    assert all(len(each) == 1 for each in drawn.values())
    assert drawn[2, 0] != drawn[2, 1] and len(next(iter(drawn[4, 0]))) == 4 * len(LABELS)


def test_points_hold_what_their_cells_say_and_a_method_without_luck_is_made_once(toys, base, tmp_path):
    found = label_study.run(planted.data(), asked(base, seeds=3), tmp_path / "ck", planted.Quiet())
    points, cells = pd.DataFrame(found["points"]), pd.DataFrame(found["cells"])
    assert set(points.columns) >= {"method", "title", "shots", "mean", "low", "high", "n_seeds", "n_test", "trainable", "seconds", "rss_mb"}
    means = cells.groupby(["method", "shots"])["accuracy"].mean()
    for p in points.itertuples():
        assert p.mean == pytest.approx(means[p.method, p.shots], abs=1e-4) and p.low <= p.mean <= p.high and p.rss_mb > 0
    sizes = points.set_index(["method", "shots"])["n_seeds"].to_dict()
    assert sizes["zero_shot", 0] == sizes["frozen", ALL] == 1 and sizes["frozen", 2] == sizes["lora", ALL] == 3
    assert not found["left_out"] and [a["shots"] for a in found["advice"]] == [0, 2, 4, ALL]
    json.dumps(found, allow_nan=False)


def test_progress_names_the_cell_and_the_curve_grows(toys, base, tmp_path):
    report = planted.Quiet()
    label_study.run(planted.data(), asked(base), tmp_path / "ck", report)
    assert "cell 2 of 12: Frozen + linear, 4 per class, seed 1 of 2" in report.said
    assert report.fractions == sorted(report.fractions) and report.fractions[-1] == 1.0
    assert {name for _, values in report.points for name in values} == {"zero_shot_accuracy", "frozen_accuracy", "lora_accuracy"}
    assert [step for step, values in report.points if "lora_accuracy" in values] == [4, 2, 20]


def test_a_budget_takes_what_is_cheap_first_over_the_whole_curve_and_names_the_rest(toys, base, tmp_path):
    found = label_study.run(planted.data(), asked(base, minutes=2.5), tmp_path / "ck", planted.Quiet())
    points = {(p["method"], p["shots"]): p["n_seeds"] for p in found["points"]}
    assert {key for key in points if key[0] != "lora"} == {("zero_shot", 0), ("frozen", 2), ("frozen", 4), ("frozen", ALL)}
    assert points["lora", 4] == points["lora", 2] == 2 and ("lora", ALL) not in points
    assert "2.5 minutes" in found["left_out"]["LoRA, all labels"] and "one seed takes about" in found["left_out"]["LoRA, all labels"]


def test_a_group_that_does_not_fit_whole_gets_the_seeds_that_fit_at_the_end(toys, base, tmp_path):
    found = label_study.run(planted.data(), asked(base, minutes=6.0), tmp_path / "ck", planted.Quiet())
    points = {(p["method"], p["shots"]): p["n_seeds"] for p in found["points"]}
    assert points["lora", ALL] == 1 and "LoRA, all labels, 1 of 2 seeds" in found["left_out"]


def test_no_time_at_all_leaves_a_study_without_points_that_says_so(toys, base, tmp_path):
    found = label_study.run(planted.data(), asked(base, minutes=1e-9, methods=("lora",)), tmp_path / "ck", planted.Quiet())
    assert [p["shots"] for p in found["points"]] in ([], [4]) and len(found["left_out"]) >= 2


def test_a_cancelled_study_goes_on_behind_its_finished_cells_to_the_same_content(toys, base, tmp_path):
    data, what = planted.data(), asked(base)
    whole = label_study.run(data, what, tmp_path / "whole", planted.Quiet())
    toys.clear()
    with pytest.raises(Cancelled):
        label_study.run(data, what, tmp_path / "cut", planted.Quiet(cancel_at="LoRA, 2 per class, seed 2"))
    made = len(toys)
    resumed = label_study.run(data, what, tmp_path / "cut", planted.Quiet())
    assert len(toys) == 12 and made == 9  # each once
    assert told(resumed) == told(whole)


def told(content):
    """The content without what a clock or the machine says."""
    free = ("seconds", "rss_mb")
    return {
        "points": [{k: v for k, v in p.items() if k not in free} for p in content["points"]],
        "cells": [{k: v for k, v in c.items() if k not in free} for c in content["cells"]],
        "left_out": content["left_out"],
    }  # fmt: skip


def test_cells_of_other_rows_or_settings_are_not_taken_up_and_a_torn_one_is_made_again(toys, base, tmp_path):
    label_study.run(planted.data(), asked(base, methods=("frozen",), shots=(2,)), tmp_path / "ck", planted.Quiet())
    toys.clear()
    label_study.run(planted.data(n_train=12), asked(base, methods=("frozen",), shots=(2,)), tmp_path / "ck", planted.Quiet())
    assert len(toys) == 2
    for path in (tmp_path / "ck").rglob("frozen.2.0.json"):
        path.write_text(path.read_text()[:40])
    toys.clear()
    label_study.run(planted.data(), asked(base, methods=("frozen",), shots=(2,)), tmp_path / "ck", planted.Quiet())
    assert [(shots, seed) for _, shots, seed, _ in toys] == [(2, 0)]


def test_numbers_that_a_label_has_too_few_rows_for_are_left_out_in_words(toys, base, tmp_path):
    found = label_study.run(planted.data(n_train=5), asked(base, shots=(2, 8, ALL), methods=("frozen",)), tmp_path / "ck", planted.Quiet())
    assert {p["shots"] for p in found["points"]} == {2, ALL}
    assert "fewer than 8 training rows" in found["left_out"]["every method, 8 per class"]
    with pytest.raises(NothingToStudy, match="fewer than 8"):
        label_study.run(planted.data(n_train=5), asked(base, shots=(8,), methods=("frozen",)), tmp_path / "ck", planted.Quiet())


def test_what_is_cheap_comes_first_over_the_whole_curve_then_tuning_from_its_middle():
    groups, _ = label_study.planned(planted.data(), asked("x", methods=tuple(METHODS), shots=(0, 1, 2, 4, ALL), adapted="base:x"))
    order = [(g.method.name, g.shots) for g in groups]
    cheap = [("zero_shot", 0)] + [(name, n) for name in ("frozen", "adapted") for n in (2, 1, 4, ALL)] + [("scratch", n) for n in (2, 1, 4)]
    tuned = [(name, n) for n in (2, 1, 4) for name in ("lora", "full", "setfit")]
    assert order == [*cheap, *tuned, ("scratch", ALL), ("lora", ALL), ("full", ALL), ("setfit", ALL)]


def test_without_a_further_pretrained_base_the_method_is_left_out_with_the_reason():
    groups, left_out = label_study.planned(planted.data(), asked("x", methods=("frozen", "adapted"), no_adapted="The shelf is empty."))
    assert left_out == {METHODS["adapted"].title: "The shelf is empty."} and {g.method.name for g in groups} == {"frozen"}
    groups, left_out = label_study.planned(planted.data(), asked("x", methods=("adapted",), adapted="base:finance"))
    assert not left_out and {g.method.name for g in groups} == {"adapted"}


@pytest.mark.parametrize(("values", "order"), [([], []), ([3], [3]), ([1, 2, 4, 8, 16, 32, 64], [8, 2, 32, 1, 4, 16, 64]), ([1, 2], [2, 1])])
def test_a_curve_is_walked_from_its_middle_outwards(values, order):
    assert label_study.outwards(values) == order


def test_a_sample_of_test_rows_is_the_same_for_everybody_and_out_of_scope_rows_are_none():
    data = planted.data()
    some = rows_of_test(data, 10)
    assert len(some) == 10 and some.equals(rows_of_test(data, 10))
    assert "oos" not in set(rows_of_test(data, 0)["label"]) and len(rows_of_test(data, 0)) == 48


def test_every_label_of_a_task_with_its_own_labels_is_described():
    from fmcore import tasks
    from fmcore.data import demo

    for task in tasks.TASKS.values():
        assert set(task.labels) <= set(label_methods.DESCRIPTIONS.get(task.name, {}))
    assert label_methods.described("sentiment", ["negative"])[0][0].startswith("Bad news")
    assert label_methods.described("intent", ["card_arrival"]) == [["card arrival"]]
    assert demo.OOS not in label_methods.DESCRIPTIONS["topic"]


def test_every_method_says_what_it_costs():
    for method in METHODS.values():
        assert isinstance(method, Method) and method.title
        assert method.passes(asked("x"), 24, 8) <= method.passes(asked("x"), 240, ALL)


# ---------------------------------------------------------------- real trainings of a tiny encoder


@pytest.mark.slow
def test_pretraining_shows_with_few_labels_and_names_alone_beat_chance(tmp_path):
    base = planted.save_knowing_encoder(tmp_path / "base")
    what = asked(base, methods=tuple(METHODS), shots=(0, 4), seeds=3, few_epochs=2, scratch_steps=20, adapted=base, learning_rate=1e-3)
    found = label_study.run(planted.data(), what, tmp_path / "ck", planted.Quiet())
    points = {p["method"]: p for p in found["points"]}
    assert set(points) == set(METHODS) and all(p["n_test"] == 48 for p in found["points"])
    assert points["zero_shot"]["low"] > 0.4 > 1 / len(LABELS)
    assert points["frozen"]["low"] > points["scratch"]["high"]
    assert points["adapted"]["mean"] == points["frozen"]["mean"]
    sizes = [points[name]["trainable"] for name in ("zero_shot", "frozen", "lora", "full")]
    assert sizes == sorted(sizes) and sizes[0] == 0 and sizes[1] == (32 + 1) * len(LABELS)
    assert "Pretraining pays" in found["sentence"] and "scratch" in found["sentence"]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.lab import planted
from tests.lab.test_label_study import asked
from fmcore.lab import label_study
class Killed(planted.Quiet):
    def progress(self, fraction, message=""):
        if {at!r} in message:
            os.kill(os.getpid(), signal.SIGKILL)
label_study.run(planted.data(), asked({base!r}, methods=("frozen", "full"), shots=(2,), few_epochs=1), Path({folder!r}), Killed())
"""


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on_to_the_bit_equal_answers(base, tmp_path):
    what = asked(base, methods=("frozen", "full"), shots=(2,), few_epochs=1)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    script = KILLED.format(root=root, at="Full tuning, 2 per class, seed 2", base=base, folder=str(tmp_path / "cut"))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, cwd=root)
    assert ended.returncode == -signal.SIGKILL, ended.stderr[-2000:]
    kept = {path: path.read_bytes() for path in (tmp_path / "cut").rglob("*.json")}
    assert len(kept) == 3
    resumed = label_study.run(planted.data(), what, tmp_path / "cut", planted.Quiet())
    assert all(path.read_bytes() == before for path, before in kept.items())
    assert told(resumed) == told(label_study.run(planted.data(), what, tmp_path / "whole", planted.Quiet()))
