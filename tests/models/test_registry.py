"""The registry: what exists, who serves, and what the gate says; on hand-made folders."""

import math
import os
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcore.models.card import card_markdown
from fmcore.models.registry import NotPossible, Registry, Tampered, UnknownModel, check_manifest
from fmcore.nouns import FMError
from fmcore.store.store import Store
from fmcore.tasks import UnknownTask
from tests import toy_models


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def registry(store):
    return Registry(store)


def promoted(registry, work, *, run_id="r1", **made):
    version = toy_models.adopt(registry, work, run_id=run_id, **made)
    registry.promote("intent", version.version, by="test", reason="to begin with")
    return version


# --- adopting


def test_an_adopted_folder_is_moved_in_and_verifies(registry, tmp_path):
    version = toy_models.adopt(registry, tmp_path, run_id="r1")
    assert not (tmp_path / "r1").exists()
    assert registry.verified(version) == version.path == registry.root / "intent" / version.version
    assert version.stage == "candidate" and version.run_id == "r1" and version.metrics["accuracy"]["value"] == 0.9
    assert registry.labels(version) == toy_models.LABELS


def test_the_same_run_adopts_once(registry, tmp_path):
    first = toy_models.adopt(registry, tmp_path, run_id="r1")
    again = registry.adopt(tmp_path / "r1", task="intent", recipe="linear", dataset="banking77", base="toy", metrics={}, run_id="r1")
    assert again == first and len(registry.versions()) == 1


def test_a_crash_between_the_move_and_the_row_is_made_good_by_the_next_call(registry, store, tmp_path):
    version = toy_models.adopt(registry, tmp_path, run_id="r1")
    with store.write() as tx:
        tx.execute("DELETE FROM model_versions")  # as if the process had died before the row
    assert registry.versions() == []
    again = registry.adopt(tmp_path / "r1", task="intent", recipe="linear", dataset="banking77", base="toy", metrics={}, run_id="r1")
    assert again.version == version.version and registry.verified(again)


def test_what_a_crash_left_behind_is_collected_and_nothing_else(registry, tmp_path):
    kept = toy_models.adopt(registry, tmp_path, run_id="r1")
    leftover = toy_models.folder(registry.root / "intent" / "half", finished=False)
    assert registry.collect_garbage() == []  # too young: its run may be about to write the row
    os.utime(leftover, (time.time() - 7200,) * 2)
    assert registry.collect_garbage() == ["intent/half"]
    assert not leftover.exists() and registry.verified(kept)


def test_a_model_for_an_unknown_task_is_refused(registry, tmp_path):
    with pytest.raises(UnknownTask):
        registry.adopt(tmp_path, task="../x", recipe="linear", dataset="demo", base="toy", metrics={}, run_id="r")


def test_a_data_set_that_is_a_path_never_becomes_one_in_the_version(registry, tmp_path):
    version = toy_models.adopt(registry, tmp_path, run_id="r1", dataset="/home/me/../Ärzte & Söhne.csv")
    assert version.path.parent == registry.root / "intent" and "/" not in version.version
    assert registry.get("intent", version.version).dataset == "/home/me/../Ärzte & Söhne.csv"


# --- names


@given(st.one_of(st.text(max_size=40), st.sampled_from(["..", "../../etc/passwd", "a/b", "a\\b", "C:", ".", "", "~", "a\x00b", "a" * 200, "\ud800"])))
def test_no_name_reaches_outside_the_folder(registry_for_names, name):
    with pytest.raises(UnknownModel):
        registry_for_names.get("intent", name)
    with pytest.raises(UnknownModel):
        registry_for_names.get(name, "v1")
    with pytest.raises(FMError):
        registry_for_names.resolve(name)
    with pytest.raises(FMError):
        registry_for_names.resolve(f"{name}@{name}")


@pytest.fixture(scope="module")
def registry_for_names(tmp_path_factory):
    opened = Store(tmp_path_factory.mktemp("names") / "home")
    yield Registry(opened)
    opened.close()


# --- who serves


def test_promotions_are_a_history_and_the_latest_row_wins(registry, tmp_path):
    a = promoted(registry, tmp_path, run_id="a")
    b = toy_models.adopt(registry, tmp_path, run_id="b")
    assert registry.champion("intent").version == a.version
    registry.promote("intent", b.version, by="ada", reason="better on our mails")
    stages = {v.version: v.stage for v in registry.versions("intent")}
    assert stages == {a.version: "retired", b.version: "champion"}
    newest = registry.promotions("intent")[0]
    assert (newest.by, newest.previous, newest.reason) == ("ada", a.version, "better on our mails")


def test_rolling_back_twice_walks_back_and_does_not_swing(registry, tmp_path):
    names = [promoted(registry, tmp_path, run_id=run).version for run in ("a", "b", "c")]
    registry.rollback("intent", by="ada", reason="complaints")
    assert registry.champion("intent").version == names[1]
    registry.rollback("intent", by="ada", reason="still")
    assert registry.champion("intent").version == names[0]
    with pytest.raises(NotPossible, match="no earlier champion"):
        registry.rollback("intent", by="ada", reason="again")
    assert len(registry.promotions("intent")) == 5


def test_a_change_of_champion_needs_a_reason_and_leaves_an_audit_row(registry, store, tmp_path):
    version = toy_models.adopt(registry, tmp_path, run_id="a")
    for reason in ("", "   ", "\x00\x01", None):
        with pytest.raises(NotPossible, match="reason"):
            registry.promote("intent", version.version, by="ada", reason=reason)
    registry.promote("intent", version.version, by="ada", reason="first")
    with pytest.raises(NotPossible, match="champion already"):
        registry.promote("intent", version.version, by="ada", reason="twice")
    assert [(r["who"], r["what"]) for r in store.rows("SELECT * FROM audit")] == [("ada", "promote")]


def test_a_second_registry_of_the_store_sees_a_promotion_at_once(registry, store, tmp_path):
    a = promoted(registry, tmp_path, run_id="a")
    assert registry.champion("intent").version == a.version
    b = promoted(Registry(store), tmp_path, run_id="b")
    assert registry.champion("intent").version == b.version


def test_a_name_resolves_to_the_champion_a_version_or_a_data_set(registry, tmp_path):
    with pytest.raises(UnknownModel, match="No model serves intent yet"):
        registry.resolve("intent")
    bank_old = promoted(registry, tmp_path, run_id="a", dataset="banking77")
    bank_new = toy_models.adopt(registry, tmp_path, run_id="b", dataset="banking77")
    clinc = [toy_models.adopt(registry, tmp_path, run_id=run, dataset="clinc150") for run in ("c", "d")]
    assert registry.resolve("intent").version == bank_old.version
    assert registry.resolve(f"intent@{bank_new.version}").version == bank_new.version
    assert registry.resolve("banking77").version == bank_old.version  # the champion, though another is newer
    assert registry.resolve("clinc150").version == clinc[-1].version
    with pytest.raises(UnknownModel) as raised:
        registry.resolve("nonesuch")
    assert "banking77" in raised.value.hint


def test_the_card_says_unknown_where_nothing_was_stored(registry, tmp_path):
    version = promoted(registry, tmp_path)
    card = registry.card(registry.get("intent", version.version))
    assert card["What it is"]["Stage"] == "champion"
    assert card["Data"]["Licence"] == "unknown" and card["Figures on held-out rows"]["Macro F1"] == "unknown"
    assert card["Figures on held-out rows"]["Accuracy"].startswith("0.900 (95 % interval 0.870 to 0.930")
    assert "to begin with" in card["Decisions"]["Served"]


def test_the_card_as_markdown_draws_no_one_elses_markup():
    text = card_markdown({"What it is": {"Data set": "![x](http://evil) <b>"}})
    assert "![x]" not in text and "<b>" not in text and "evil" in text


# --- the gate


def gate_of(registry, tmp_path, champion: dict, candidate: dict):
    promoted(registry, tmp_path, run_id="old", **champion)
    return registry.gate(toy_models.adopt(registry, tmp_path, run_id="new", **candidate))


def test_the_first_sound_model_passes_and_its_verdict_is_kept(registry, tmp_path):
    version = toy_models.adopt(registry, tmp_path, run_id="a")
    verdict = registry.gate(version)
    assert verdict["passed"] and "first model" in verdict["reason"]
    assert registry.get("intent", version.version).verdict == verdict


@pytest.mark.parametrize("accuracy", [float("nan"), float("inf"), None])
def test_a_model_whose_accuracy_is_no_number_never_passes(registry, tmp_path, accuracy):
    facts = toy_models.metrics() | {"accuracy": {"value": accuracy, "low": 0.9, "high": 0.95}}
    verdict = registry.gate(toy_models.adopt(registry, tmp_path, run_id="a", facts=facts))
    assert not verdict["passed"] and "not a finite number" in verdict["reason"]


def test_a_model_whose_answers_hold_nan_never_passes(registry, tmp_path):
    rows = toy_models.heldout(right=0.99)
    rows.loc[3, "novelty"] = math.nan
    verdict = registry.gate(toy_models.adopt(registry, tmp_path, run_id="a", rows=rows))
    assert not verdict["passed"] and "not finite" in verdict["reason"]


def test_a_model_that_does_not_beat_the_most_frequent_label_never_passes(registry, tmp_path):
    rows = toy_models.heldout()
    rows.loc[rows["label"] != "oos", "label"] = np.where(np.arange(300) < 270, "card", "loan")
    verdict = registry.gate(toy_models.adopt(registry, tmp_path, run_id="a", rows=rows))
    assert not verdict["passed"] and "most frequent label gets 90.0 %" in verdict["reason"]


def test_a_better_model_passes_with_the_difference_stated(registry, tmp_path):
    verdict = gate_of(registry, tmp_path, {"rows": toy_models.heldout(right=0.8)}, {"rows": toy_models.heldout(right=0.9)})
    assert verdict["passed"], verdict
    assert verdict["difference"]["value"] == pytest.approx(0.1) and verdict["difference"]["low"] > 0 and verdict["difference"]["n"] == 300
    assert "90.0 % against 80.0 %" in verdict["reason"] and "+10.0 points" in verdict["reason"]


@pytest.mark.parametrize(("right", "word"), [(0.8, "not proved better"), (0.803, "not proved better"), (0.7, "worse")])
def test_an_equal_a_hardly_better_or_a_worse_model_never_passes(registry, tmp_path, right, word):
    verdict = gate_of(registry, tmp_path, {"rows": toy_models.heldout(right=0.8)}, {"rows": toy_models.heldout(right=right)})
    assert not verdict["passed"] and word in verdict["reason"]


def test_a_model_that_fails_one_label_never_passes_however_good_it_is_elsewhere(registry, tmp_path):
    better = toy_models.heldout(right=0.99)
    better.loc[better["label"] == "rate", "predicted"] = "loan"
    verdict = gate_of(registry, tmp_path, {"rows": toy_models.heldout(right=0.5)}, {"rows": better})
    assert not verdict["passed"] and "label rate" in verdict["reason"] and verdict["difference"]["low"] > 0


def test_a_model_that_no_longer_sees_what_is_out_of_scope_never_passes(registry, tmp_path):
    verdict = gate_of(registry, tmp_path, {"rows": toy_models.heldout(right=0.8)}, {"rows": toy_models.heldout(right=0.9, caught=0.5)})
    assert not verdict["passed"] and "out-of-scope recall" in verdict["reason"]


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        ({"dataset": "clinc150"}, "trained on clinc150"),
        ({"facts": toy_models.metrics(split="s2")}, "split differently"),
        ({"labels": ("card", "loan", "fee")}, "not the same ones"),
    ],
)
def test_what_cannot_be_compared_is_left_to_a_person(registry, tmp_path, candidate, why):
    verdict = gate_of(registry, tmp_path, {}, candidate)
    assert not verdict["passed"] and why in verdict["reason"] and "A person has to decide" in verdict["reason"]


def test_a_model_of_real_data_takes_the_place_of_the_demo_model(registry, tmp_path):
    demo = {"dataset": "demo", "facts": toy_models.metrics(synthetic=True, accuracy=0.97)}
    verdict = gate_of(registry, tmp_path, demo, {"dataset": "banking77"})
    assert verdict["passed"] and "demo data" in verdict["reason"]


def test_a_demo_model_never_takes_the_place_of_a_real_one(registry, tmp_path):
    verdict = gate_of(registry, tmp_path, {}, {"dataset": "demo", "facts": toy_models.metrics(synthetic=True, accuracy=0.99)})
    assert not verdict["passed"]


def test_the_gate_refuses_a_folder_that_was_changed(registry, tmp_path):
    version = toy_models.adopt(registry, tmp_path, run_id="a")
    (version.path / "model.json").write_text("{}")
    verdict = registry.gate(version)
    assert not verdict["passed"] and "model.json" in verdict["reason"]
    with pytest.raises(Tampered):
        registry.promote("intent", version.version, by="ada", reason="anyway")
    assert registry.champion("intent") is None


def test_an_unfinished_folder_is_no_model(registry, tmp_path):
    half = toy_models.folder(tmp_path / "half", finished=False)
    with pytest.raises(Tampered, match="never finished"):
        check_manifest(half)
    with pytest.raises(Tampered):
        registry.adopt(half, task="intent", recipe="linear", dataset="demo", base="toy", metrics={}, run_id="r")
    assert registry.versions() == []
