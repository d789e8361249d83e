"""The gate for compressed versions: what it lets through, what it bars from ever serving, and that nobody gets around it."""

import json

import pandas as pd
import pytest

from fmcore.models import efficiency_gate
from fmcore.models.registry import NotPossible, Registry
from fmcore.store.store import Store
from jobs.promoting import promotion
from tests import toy_models


@pytest.fixture
def registry(tmp_path):
    opened = Store(tmp_path / "home")
    yield Registry(opened)
    opened.close()


@pytest.fixture
def teacher(registry, tmp_path):
    version = toy_models.adopt(registry, tmp_path, run_id="teacher", rows=answers(0.9))
    registry.promote("intent", version.version, by="test", reason="to begin with")
    return version


def answers(right, **made):
    return toy_models.heldout(right=right, n=1200, **made)


def variant(registry, work, teacher, *, run_id="v", rows=None, recipe="distill", compressed=None, split="s1", labels=toy_models.LABELS, **facts):
    rows = answers(0.9) if rows is None else rows
    said = {"method": recipe, "teacher": teacher.version, "sha256": teacher.sha256, "speedup": 3.0, "lost": {"value": 0.0}, **(compressed or {})}
    metrics = {**toy_models.metrics(split=split, n=1200), "compressed": said, **facts}
    folder = toy_models.folder(work / run_id, rows=rows, labels=labels)
    return registry.adopt(folder, task="intent", recipe=recipe, dataset="banking77", base="toy", metrics=metrics, run_id=run_id)


def assert_barred(registry, version, why):
    """The gate, a person, promote=always and a rollback: nobody makes it serve."""
    before = registry.champion("intent")
    verdict = registry.gate(version)
    assert not verdict["passed"] and why in verdict["reason"], verdict["reason"]
    assert registry.barred(version)
    with pytest.raises(NotPossible, match="never serves|not fit to serve"):
        registry.promote("intent", version.version, by="a person", reason="I want it")
    with pytest.raises(NotPossible):
        promotion(registry, version, promote="always", reason="", by="job")
    assert not promotion(registry, version, promote="gate", reason="", by="job")[1]
    assert registry.champion("intent") == before


def test_a_fast_variant_that_lost_little_passes_and_may_serve(registry, teacher, tmp_path):
    version = variant(registry, tmp_path, teacher, rows=answers(0.898))
    verdict = registry.gate(version)
    assert verdict["passed"] and verdict["compared_with"] == teacher.version and registry.barred(version) == ""
    assert "0.2 points lost" in verdict["reason"] and "3.0 times as fast" in verdict["reason"]
    assert promotion(registry, version, promote="gate", reason="", by="compress")[1]
    assert registry.champion("intent").version == version.version


def test_a_variant_that_lost_more_than_its_method_may_never_serves(registry, teacher, tmp_path):
    assert_barred(registry, variant(registry, tmp_path, teacher, rows=answers(0.89)), "1.0 points lost")


@pytest.mark.parametrize(("recipe", "right"), [("cascade", 0.892), ("static", 0.85)])
def test_methods_that_are_far_faster_may_lose_more(registry, teacher, tmp_path, recipe, right):
    assert registry.gate(variant(registry, tmp_path, teacher, rows=answers(right), recipe=recipe))["passed"]


def test_what_a_version_says_of_its_own_loss_is_not_believed(registry, teacher, tmp_path):
    lies = {"lost": {"value": 0.0, "low": 0.0, "high": 0.0, "n": 1200}, "allowed_points": 50.0}
    assert_barred(registry, variant(registry, tmp_path, teacher, rows=answers(0.8), compressed=lies), "10.0 points lost")


def test_where_rows_are_too_few_to_tell_a_person_has_to_decide(registry, tmp_path):
    few = toy_models.heldout(right=0.9, n=120)
    known = toy_models.adopt(registry, tmp_path, run_id="t", rows=few)
    moved = few.copy()
    wrong, right = moved.index[(few["label"] != few["predicted"])][:6], moved.index[(few["label"] == few["predicted"]) & (few["label"] != "oos")][:6]
    moved.loc[wrong, "predicted"] = moved.loc[wrong, "label"]
    moved.loc[right, "predicted"] = ["card" if label != "card" else "loan" for label in moved.loc[right, "label"]]
    version = variant(registry, tmp_path, known, rows=moved)
    verdict = registry.gate(version)
    assert not verdict["passed"] and "0.0 points lost" in verdict["reason"] and verdict["reason"].endswith("A person has to decide.")
    assert not promotion(registry, version, promote="gate", reason="", by="compress")[1]
    assert registry.barred(version) == ""
    assert registry.promote("intent", version.version, by="a person", reason="the rows are few, the speed is worth it").by == "a person"


def test_a_variant_that_is_no_faster_than_its_teacher_is_for_nothing(registry, teacher, tmp_path):
    for i, speedup in enumerate((1.0, None, float("nan"), "fast")):
        assert_barred(registry, variant(registry, tmp_path, teacher, run_id=f"v{i}", compressed={"speedup": speedup}), "fast")


def test_one_slice_that_broke_down_bars_it(registry, teacher, tmp_path):
    rows = answers(0.9, caught=0.3)
    assert_barred(registry, variant(registry, tmp_path, teacher, rows=rows), "out-of-scope recall")


def test_a_model_that_answers_everything_alike_is_never_served(registry, teacher, tmp_path):
    rows = answers(0.9).assign(predicted="card")
    floor = {"accuracy": {"value": 0.33, "low": 0.3, "high": 0.36, "n": 1200}}
    assert_barred(registry, variant(registry, tmp_path, teacher, rows=rows, **floor), "most frequent label")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"compressed": {"teacher": "no-such-version"}}, "not here as it was"),
        ({"compressed": {"teacher": None}}, "names none"),
        ({"compressed": {"sha256": "0" * 64}}, "not here as it was"),
        ({"split": "another"}, "split differently"),
    ],
)
def test_a_variant_whose_teacher_is_not_here_or_not_comparable_is_barred(registry, teacher, tmp_path, change, why):
    assert_barred(registry, variant(registry, tmp_path, teacher, **change), why)


def test_a_variant_that_answered_other_rows_is_barred(registry, teacher, tmp_path):
    rows = answers(0.9)
    rows = pd.concat([rows.iloc[:600], rows.iloc[600:].assign(text_hash=lambda frame: "other" + frame["text_hash"])])
    assert_barred(registry, variant(registry, tmp_path, teacher, rows=rows), "not all of them")


def test_a_teacher_that_was_damaged_since_judges_nobody(registry, teacher, tmp_path):
    version = variant(registry, tmp_path, teacher)
    (teacher.path / "heldout.parquet").write_bytes(b"x")
    assert "heldout.parquet" in registry.barred(version)
    with pytest.raises(NotPossible):
        registry.promote("intent", version.version, by="a person", reason="I want it")


def test_a_damaged_variant_is_refused_with_its_file(registry, teacher, tmp_path):
    version = variant(registry, tmp_path, teacher)
    (version.path / "head.safetensors").write_bytes(b"x")
    assert not registry.gate(version)["passed"] and "head.safetensors" in registry.barred(version)


def test_between_two_variants_of_one_teacher_the_faster_one_serves(registry, teacher, tmp_path):
    slow = variant(registry, tmp_path, teacher, run_id="slow", compressed={"speedup": 2.0})
    fast = variant(registry, tmp_path, teacher, run_id="fast", compressed={"speedup": 4.0})
    registry.promote("intent", slow.version, by="test", reason="first")
    assert registry.gate(fast)["passed"]
    registry.promote("intent", fast.version, by="test", reason="faster")
    verdict = registry.gate(slow)
    assert not verdict["passed"] and verdict["compared_with"] == fast.version
    registry.promote("intent", slow.version, by="a person", reason="a slower one is worse, not barred")
    assert registry.rollback("intent", by="a person", reason="no").version == fast.version


def test_against_another_champion_it_has_to_be_better_like_any_other(registry, teacher, tmp_path):
    version = variant(registry, tmp_path, teacher)
    other = toy_models.adopt(registry, tmp_path, run_id="other", rows=answers(0.97))
    registry.promote("intent", other.version, by="test", reason="better")
    verdict = registry.gate(version)
    assert not verdict["passed"] and other.version in verdict["reason"] and registry.barred(version) == ""


def test_without_a_champion_a_variant_may_be_the_first(registry, tmp_path):
    known = toy_models.adopt(registry, tmp_path, run_id="t", rows=answers(0.9))
    assert registry.gate(variant(registry, tmp_path, known))["passed"]


def test_other_versions_are_not_judged_by_these_rules(registry, teacher):
    assert not efficiency_gate.is_compressed(teacher) and registry.barred(teacher) == ""


def test_the_card_says_what_it_was_made_from_and_what_it_lost(registry, teacher, tmp_path):
    facts = {"lost": {"value": 0.2, "low": -0.1, "high": 0.5, "n": 1200}, "speedup_pytorch": 9.5}
    card = registry.card(variant(registry, tmp_path, teacher, compressed=facts))
    made = card["Compression"]
    assert made["Made from"] == teacher.version and made["Method"] == "distill"
    assert made["Points of accuracy lost"] == "0.2 (95 % interval -0.1 to 0.5, n 1200)"
    assert made["Speed against it as served"] == "3.0 times" and made["Speed against PyTorch fp32"] == "9.5 times"
    assert "Compression" not in registry.card(teacher)
    bare = registry.card(variant(registry, tmp_path, teacher, run_id="bare", compressed={"lost": None, "speedup": None}))
    assert bare["Compression"]["Points of accuracy lost"] == "unknown"
    json.dumps(card)
