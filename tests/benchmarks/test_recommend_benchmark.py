"""The benchmark of recommendations: its peers, its cold items and its clock, on a small log whose answer is known."""

import json

import numpy as np
import pytest

from benchmarks import recommend as benchmark
from fmcore.recommend.shelf import Shelf
from tests.recommend import toy_shelf


def test_peers_are_measured_on_the_last_item_of_each_person():
    found = benchmark.peers(toy_shelf.shop())
    assert set(found) == {"popularity", "EASE without recency", "implicit ALS (64 factors)"}
    assert all(row["hr@10"]["n"] == 80 and 0 <= row["ndcg@10"]["low"] <= row["ndcg@10"]["high"] <= 1 for row in found.values())


@pytest.mark.slow
def test_the_command_is_measured_on_the_same_rows_and_in_its_own_process(tmp_path):
    data = toy_shelf.shop(n_users=30)
    found = benchmark.two_minutes(data, tmp_path)
    assert found["n_users"] == 30 and found["n_unknown_items"] == 0


@pytest.mark.slow
def test_every_person_is_asked_about_a_cold_item_once():
    found = benchmark.cold(toy_shelf.shop(), parts=10)
    assert found["n_cold"] == 30 and found["hr@10"]["n"] == 80 and found["chance"] == pytest.approx(10 / (30 - 7), abs=0.02)


def test_latency_and_memory_are_told_a_model_and_a_file(tmp_path):
    toy_shelf.folder(tmp_path / "v")
    version = Shelf.load(tmp_path / "v", version="v")
    timed = benchmark.latency(version.models, version.pasts)
    assert timed["transitions"]["n"] == benchmark.CALLS and timed["transitions"]["p50_ms"] <= timed["transitions"]["p95_ms"]
    held = benchmark.memory(version, tmp_path / "v")
    assert held["bytes_a_user"] == 4 * 8 and held["disk_bytes"]["transitions"] > 0


def test_a_made_up_log_has_each_pair_once_and_enough_items():
    log = benchmark.made_up(500, n_users=50)
    assert len(log.items) == 500 and not log.rows.duplicated(["user", "item"]).any()
    assert np.all(np.diff(log.rows["user"]) >= 0)


def test_what_is_printed_names_every_model_and_the_bar(tmp_path):
    rows = toy_shelf.folder(tmp_path / "v")
    figure = {"value": 0.1, "low": 0.05, "high": 0.2, "n": 80}
    result = {
        "load": (0.5, 0.5, 0.5), "data": "toy", "n_users": 80, "n_items": 30, "n_interactions": 640, "peers": {"popularity": {"hr@10": figure, "ndcg@10": figure}},
        "leaderboard": {"rows": rows["leaderboard"], "serving": rows["serving"]},
        "two_minutes": {"model": "blend", "hr@10": figure, "ndcg@10": figure, "wall_s": 60.0},
        "cold": {"hr@10": figure, "times_chance": 12.0, "n_cold": 3},
        "latency": [{"data": "toy", "models": {"blend": {"p95_ms": 3.0}}}], "memory": {"bytes_a_user": 32.0, "mean_history": 8.0},
        "agents": {"sentence": "Not better than greedy."},
    }  # fmt: skip
    text = benchmark.table(json.loads(json.dumps(result)))
    assert "transitions *" in text and "2 minutes: blend" in text and "Not better than greedy." in text and "bar 20" in text
