"""The gate of recommenders, through the registry: who passes, who does not, and what is said; on hand-made held-out ranks."""

import json

import numpy as np
import pandas as pd
import pytest

from fmcore.models.registry import Registry, write_manifest
from fmcore.store.store import Store

N = 400
DAY = "2026-01-{:02d}T00:00:00+00:00"


@pytest.fixture
def registry(tmp_path):
    store = Store(tmp_path / "home")
    yield Registry(store)
    store.close()


def held(ranks, *, popularity=60, moved=0, champion=None, tag="", history="warm", item="hot"):
    """Held-out rows of N people; the first `moved` of them have a last item named `tag`."""
    n = len(ranks)
    old = np.full(n, np.nan)
    if champion is not None:
        old[:moved] = champion
    return pd.DataFrame({
        "user_hash": [f"u{i}" for i in range(n)],
        "row_hash": [f"u{i}-{tag if i < moved else ''}" for i in range(n)],
        "history": history, "item": item, "rank": ranks, "popularity_rank": popularity, "champion_rank": old,
    })  # fmt: skip


def some(n_hits, n=N, *, at=1):
    """Ranks of which the first n_hits are `at` and the rest far down."""
    return np.where(np.arange(n) < n_hits, at, 500)


def adopt(registry, work, run_id, rows, *, dataset="movielens", synthetic=False, split="s1", day=1, n_interactions=1000, against="", figures=None):
    folder = work / run_id
    folder.mkdir()
    rows.to_parquet(folder / "heldout.parquet")
    (folder / "model.json").write_text(json.dumps({"format": 1, "task": "recommend"}))
    write_manifest(folder)
    value = {"value": 0.2, "low": 0.15, "high": 0.25, "n": N}
    facts = {
        "ndcg": value, "hr": value, "split_hash": split, "synthetic": synthetic, "trained_up_to": DAY.format(day),
        "n_interactions": n_interactions, "measured_against": against, **(figures or {}),
    }  # fmt: skip
    return registry.adopt(folder, task="recommend", recipe="shelf", dataset=dataset, base="", metrics=facts, run_id=run_id)


def reigning(registry, work, rows, **facts):
    version = adopt(registry, work, "champion", rows, **facts)
    registry.promote("recommend", version.version, by="test", reason="to begin with")
    return version


def check(verdict, name):
    return next(c for c in verdict["checks"] if c["name"] == name)


def test_the_first_sound_version_passes(registry, tmp_path):
    verdict = registry.gate(adopt(registry, tmp_path, "a", held(some(100))))
    assert verdict["passed"] and "first version" in verdict["reason"] and verdict["compared_with"] is None


@pytest.mark.parametrize("wrong", [{"ndcg": None}, {"hr": {"value": float("nan"), "low": 0, "high": 1}}, {"ndcg": {"value": 0.1}}, {"hr": "0.3"}])
def test_figures_that_are_missing_or_no_numbers_are_refused(registry, tmp_path, wrong):
    verdict = registry.gate(adopt(registry, tmp_path, "a", held(some(100)), figures=wrong))
    assert not verdict["passed"] and "not fit to serve" in verdict["reason"]


@pytest.mark.parametrize("ranks", [some(100).astype(float) * np.nan, np.zeros(N), np.zeros(0)])
def test_ranks_that_are_none_are_refused(registry, tmp_path, ranks):
    assert not registry.gate(adopt(registry, tmp_path, "a", held(ranks)))["passed"]


def test_a_version_that_popularity_matches_is_not_fit_to_serve(registry, tmp_path):
    ranks = some(100)
    verdict = registry.gate(adopt(registry, tmp_path, "a", held(ranks, popularity=ranks)))
    assert not verdict["passed"] and not check(verdict, "beats popularity")["passed"]


def test_demo_data_gives_way_to_real_data_and_never_the_other_way_round(registry, tmp_path):
    demo = reigning(registry, tmp_path, held(some(300)), dataset="demo_shop", synthetic=True)
    real = adopt(registry, tmp_path, "a", held(some(100)))
    assert registry.gate(real)["passed"] and registry.gate(real)["compared_with"] == demo.version
    registry.promote("recommend", real.version, by="test", reason="better data")
    back = registry.gate(adopt(registry, tmp_path, "b", held(some(390)), dataset="demo_shop", synthetic=True))
    assert not back["passed"] and "person has to decide" in back["reason"]


def test_on_the_same_rows_better_must_be_proved(registry, tmp_path):
    reigning(registry, tmp_path, held(some(100)))
    same = registry.gate(adopt(registry, tmp_path, "a", held(some(100))))
    more = registry.gate(adopt(registry, tmp_path, "b", held(some(160))))
    less = registry.gate(adopt(registry, tmp_path, "c", held(some(60))))
    assert (same["passed"], more["passed"], less["passed"]) == (False, True, False)
    assert "not proved better" in same["reason"] and "It is worse than" in less["reason"]
    assert more["difference"]["low"] > 0 and more["difference"]["n"] == N


def test_a_slice_that_pays_for_the_rest_is_named(registry, tmp_path):
    slices = np.where(np.arange(N) < 60, "cold", "warm")
    reigning(registry, tmp_path, held(some(100), history=slices))
    ranks = some(300)
    ranks[:60] = 500  # everybody with a short past is lost
    verdict = registry.gate(adopt(registry, tmp_path, "a", held(ranks, history=slices)))
    assert not verdict["passed"] and "cold pasts" in verdict["reason"] and verdict["difference"]["low"] > 0


def test_a_nightly_refit_that_is_as_good_and_knows_more_passes(registry, tmp_path):
    champion = reigning(registry, tmp_path, held(some(100)))
    grown = held(some(100), moved=50, champion=1, tag="new")
    verdict = registry.gate(adopt(registry, tmp_path, "a", grown, split="s2", day=2, n_interactions=1050, against=champion.version))
    assert verdict["passed"] and "50 newer interactions" in verdict["reason"]
    assert verdict["difference"]["n"] == N  # the moved rows too, by the champion's own ranks


def test_newer_data_does_not_excuse_a_worse_version(registry, tmp_path):
    champion = reigning(registry, tmp_path, held(some(100)))
    grown = held(some(60), moved=50, champion=1, tag="new")
    verdict = registry.gate(adopt(registry, tmp_path, "a", grown, split="s2", day=2, n_interactions=1050, against=champion.version))
    assert not verdict["passed"] and "worse than" in verdict["reason"]


def test_a_loss_within_noise_beyond_the_slack_is_no_excuse_either(registry, tmp_path):
    ranks = np.where(np.arange(N) % 2 == 0, 1, 4)
    worse = np.where(np.arange(N) % 2 == 0, 4, 1)
    worse[:10] = 500
    champion = reigning(registry, tmp_path, held(ranks))
    grown = held(worse, moved=1, champion=1, tag="new")
    verdict = registry.gate(adopt(registry, tmp_path, "a", grown, split="s2", day=2, n_interactions=1001, against=champion.version))
    assert verdict["difference"]["high"] >= 0 and not verdict["passed"]


def test_older_data_has_to_be_better(registry, tmp_path):
    champion = reigning(registry, tmp_path, held(some(100)), day=5)
    older = held(some(100), moved=50, champion=1, tag="old")
    verdict = registry.gate(adopt(registry, tmp_path, "a", older, split="s0", day=2, n_interactions=900, against=champion.version))
    assert not verdict["passed"] and "not proved better" in verdict["reason"]


def test_ranks_of_another_champion_are_not_taken_for_this_one_s(registry, tmp_path):
    reigning(registry, tmp_path, held(some(100)))
    grown = held(some(100), moved=N, champion=500, tag="new")
    verdict = registry.gate(adopt(registry, tmp_path, "a", grown, split="s2", day=2, n_interactions=2000, against="somebody else"))
    assert not verdict["passed"] and "Not comparable" in verdict["reason"]


def test_a_damaged_folder_is_refused_in_words(registry, tmp_path):
    version = adopt(registry, tmp_path, "a", held(some(100)))
    (version.path / "heldout.parquet").write_bytes(b"torn")
    verdict = registry.gate(version)
    assert not verdict["passed"] and "not fit to serve" in verdict["reason"]
