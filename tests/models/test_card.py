"""The card of a version of recommenders: stored facts only, and "unknown" for what was not stored."""

import dataclasses

import pytest

from fmcore import clock
from fmcore.models.card import UNKNOWN, card_markdown, card_of
from fmcore.nouns import ModelVersion, Promotion
from fmcore.run_facts import Parent, RunFacts


def figure(value, n=610):
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": n}


FACTS = {
    "serving": "ease", "hr": figure(0.3), "ndcg": figure(0.178), "mrr": figure(0.15), "coverage": figure(0.12), "n": 610,
    "n_users": 700, "n_items": 9742, "n_interactions": 100_836, "synthetic": False, "split_note": "Leave one out by time.",
    "better_than_popularity": figure(0.06), "left_out": {"text": "Text has nothing to read.", "als": "Matrix factorisation took too long."},
    "leaderboard": [
        {"model": "popularity", "title": "Popularity"},
        {"model": "ease", "title": "EASE", "slices": {
            "history cold": {"ndcg": figure(0.2)}, "item cold": {"ndcg": figure(0.01)}, "item warm": {"ndcg": None}}},
    ],
}  # fmt: skip


@pytest.fixture
def version(tmp_path):
    now = clock.now()
    return ModelVersion(
        task="recommend", version="shelf-x", path=tmp_path, sha256="ab", base="minilm", recipe="shelf", dataset="movielens", metrics={},
        verdict={"reason": "It is better."}, run_id="r1", created_at=now, stage="champion",
    )  # fmt: skip


def test_a_recommenders_card_tells_figures_people_split_models_and_what_was_left_out(version):
    promotion = Promotion("recommend", "shelf-x", None, "gate", "It is better.", clock.now())
    card = card_of(version, facts=FACTS, promotions=[promotion])
    figures, what, data = card["Figures on held-out rows"], card["What it is"], card["Data"]
    assert figures["HR@10"].startswith("0.300 (95 % interval 0.290 to 0.310, n 610")
    assert figures["NDCG@10"].startswith("0.178") and figures["MRR"].startswith("0.150") and figures["Coverage"].startswith("0.120")
    assert figures["People"] == "610" and "9,742 items" in figures["Ranking"]
    assert figures["NDCG@10 above popularity's on the same people"].startswith("0.060")
    assert what["Model that answers"] == "EASE" and what["Models on the shelf"] == "Popularity, EASE"
    assert what["Left out"] == "Text has nothing to read. Matrix factorisation took too long."
    assert data["Split"] == "Leave one out by time." and data["Interactions"] == "100,836" and data["Synthetic (demo) data"] == "no"
    assert card["Known limits"]["Weakest slices"].startswith("item cold: NDCG@10 0.010")
    assert "by gate: It is better." in card["Decisions"]["Served"]
    assert "Accuracy" not in str(card) and "HR@10" in card_markdown(card)


def test_what_was_not_stored_says_unknown(version):
    card = card_of(version, facts={}, promotions=[])
    figures = card["Figures on held-out rows"]
    assert {figures[name] for name in ("HR@10", "NDCG@10", "MRR", "Coverage", "People", "Ranking")} == {UNKNOWN}
    assert card["What it is"]["Left out"] == UNKNOWN and card["Decisions"]["Served"] == "never"


def test_a_classifier_keeps_its_own_card(version):
    card = card_of(dataclasses.replace(version, task="intent"), facts={"accuracy": figure(0.9)}, promotions=[])
    assert card["Figures on held-out rows"]["Accuracy"].startswith("0.900")


def made(**known):
    nothing = dict.fromkeys(("device", "machine", "cpu_count", "seconds", "peak_rss_mb", "energy_j"))
    empty = {"params": {}, "result": {}, "figures": {}, "code": {}, "data": {}, "libraries": {}, "artefacts": (), "parents": (), "notes": ()}
    return RunFacts(**{"run_id": "r1", "job": "finetune", "state": "succeeded", "energy_note": "Not readable here: why.", **nothing, **empty, **known})


def test_what_a_model_was_made_with_comes_from_its_runs_facts(version):
    run = made(
        code={"commit": "c0ffee" * 7, "dirty": True}, libraries={"torch": "2.13.0", "pandas": "3.1.1"}, data={"hash": "h1"}, device="CPU",
        machine="Xeon, Linux", cpu_count=2, seconds=1234.5, peak_rss_mb=801.2, energy_j=5000.0, energy_note="By RAPL.",
        parents=(Parent("base:minilm", "started from"), Parent("intent@full-1", "made from")),
    )  # fmt: skip
    for task in ("intent", "recommend"):
        section = card_of(dataclasses.replace(version, task=task), facts={}, promotions=[], run=run)["How it was made"]
        assert section == {
            "Code": "commit c0ffeec0ffee, with uncommitted changes", "Libraries": "torch 2.13.0", "Data hash": "h1", "Device": "CPU",
            "Machine": "Xeon, Linux, 2 processors", "Time": "1,234.5 s", "Peak memory": "801 MB", "Energy": "5,000 J. By RAPL.",
            "Line": "started from base:minilm; made from intent@full-1",
        }  # fmt: skip


def test_a_fact_that_nobody_measured_is_unknown_with_the_reason_where_there_is_one(version):
    section = card_of(version, facts={}, promotions=[], run=made())["How it was made"]
    assert section.pop("Energy") == "unknown. Not readable here: why." and set(section.values()) == {UNKNOWN}
    without = card_of(version, facts={}, promotions=[])["How it was made"]
    assert set(without) == {*section, "Energy"} and set(without.values()) == {UNKNOWN}
