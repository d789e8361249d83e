"""The shelf: how a version is made of a log, and how its folder is read back or refused."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from fmcore.data.labelled import BadData
from fmcore.evaluation import ranking
from fmcore.models.manifest import check_manifest
from fmcore.nouns import Cancelled
from fmcore.recommend import shelf, turns
from fmcore.recommend.offers import UnknownRecommender
from fmcore.recommend.recommender import BadRecommender
from fmcore.recommend.shelf import Shelf
from tests.recommend import toy_shelf


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, metrics, log) of a fitted shelf; nobody changes it."""
    out, data = tmp_path_factory.mktemp("made") / "version", toy_shelf.shop()
    return out, toy_shelf.folder(out, data=data), data


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "copy")
    return tmp_path / "copy"


# ---------------------------------------------------------------- what is made


def test_popularity_is_the_first_row_and_the_model_that_sees_the_order_serves(made):
    _, metrics, _ = made
    assert [row["model"] for row in metrics["leaderboard"]] == ["popularity", "transitions"]
    assert metrics["serving"] == "transitions" and metrics["better_than_popularity"]["low"] > 0


def test_figures_are_of_the_test_items_with_intervals_and_slices(made):
    _, metrics, data = made
    best = metrics["leaderboard"][1]
    assert metrics["ndcg"] == best["ndcg"] and metrics["n"] == len(data.users)
    assert best["hr"]["low"] <= best["hr"]["value"] <= best["hr"]["high"] and best["hr"]["n"] == len(data.users)
    assert {"mrr", "coverage", "novelty", "popularity_bias", "seconds"} <= best.keys()
    assert best["slices"]["history cold"]["hr"]["n"] == len(data.users) and best["slices"]["history hot"]["hr"] is None


def test_the_folder_is_whole_and_the_facts_of_the_card_stand_in_it(made):
    out, metrics, data = made
    check_manifest(out)
    facts = json.loads((out / "model.json").read_text())
    assert facts["dataset"] == "toy" and facts["synthetic"] is True and facts["licence"] == "made up"
    assert (facts["n_users"], facts["n_items"], facts["n_interactions"]) == (80, 30, len(data.rows))
    assert facts["split_hash"] == data.split_hash and "Leave one out" in facts["split_note"] and facts["trained_up_to"].startswith("2023-")
    assert facts["code"] and facts["ndcg"] == metrics["ndcg"]


def test_a_shelf_reads_back_what_was_fitted(made):
    out, _, data = made
    read = Shelf.load(out, version="v1")
    assert (read.version, read.dataset, read.synthetic, read.serving) == ("v1", "toy", True, "transitions")
    assert read.users == data.users and read.items.titles == data.titles and set(read.models) == {"popularity", "transitions"}
    assert all(np.array_equal(read.past(user), past) for user, past in zip(data.users, data.histories(), strict=True))
    assert len(read.past("nobody")) == 0
    assert len(read.groups.of) == len(read.items) and read.groups.names


def test_the_served_models_have_learnt_from_every_row(made):
    out, _, data = made
    read = Shelf.load(out, version="v1")
    assert read.models["popularity"].scores([data.histories()[0]])[0].sum() == len(data.rows)


def test_the_figures_are_those_of_models_that_had_not_seen_the_test_item(made, tmp_path):
    """An item that is somebody's last and nobody's else is unknown when it is measured, and known when it is served."""
    data = toy_shelf.shop()
    rows = data.rows.copy()
    last = rows.groupby("user").tail(1).index[0]
    rows.loc[last, "item"] = 29
    rows = rows[(rows["item"] != 29) | (rows.index == last)].reset_index(drop=True)
    lonely = type(data)(data.name, data.users, data.items, data.titles, data.texts, rows, True, "made up")
    toy_shelf.folder(tmp_path / "v", data=lonely)
    held = pd.read_parquet(tmp_path / "v" / "heldout.parquet")
    assert (held["item"] == "cold").sum() == 1 and held.loc[held["item"] == "cold", "rank"].item() > 10
    assert Shelf.load(tmp_path / "v", version="v").models["popularity"].scores([data.histories()[0]])[0][29] == 1


def test_held_out_rows_carry_no_names_and_agree_with_the_figures(made):
    out, metrics, data = made
    held = pd.read_parquet(out / "heldout.parquet")
    assert not set(held["user_hash"]) & set(data.users) and held["row_hash"].is_unique
    assert ranking.hits(held["rank"].to_numpy()).mean() == pytest.approx(metrics["hr"]["value"], abs=1e-4)


def test_the_same_seed_makes_the_same_version(tmp_path):
    figures = []
    for name in ("a", "b"):
        metrics = toy_shelf.folder(tmp_path / name)
        figures.append([(row["model"], row["hr"], row["ndcg"]) for row in metrics["leaderboard"]])
    assert figures[0] == figures[1]
    assert (tmp_path / "a" / "heldout.parquet").read_bytes() == (tmp_path / "b" / "heldout.parquet").read_bytes()


def test_items_that_nobody_met_yet_are_on_the_shelf(tmp_path):
    data = toy_shelf.shop()
    more = type(data)(data.name, data.users, (*data.items, "new"), (*data.titles, "New"), (*data.texts, ""), data.rows, True, "")
    toy_shelf.folder(tmp_path / "v", data=more)
    assert Shelf.load(tmp_path / "v", version="v").numbers["new"] == 30


# ---------------------------------------------------------------- what cannot be


def test_a_model_that_does_not_exist_is_refused_with_those_that_do(tmp_path):
    with pytest.raises(UnknownRecommender, match="transitions"):
        toy_shelf.folder(tmp_path / "v", names=["oracle"])


def test_a_log_in_which_nobody_came_back_is_refused(tmp_path):
    with pytest.raises(BadData, match="three interactions"):
        toy_shelf.folder(tmp_path / "v", data=toy_shelf.shop(length=2))


def test_one_item_is_a_catalogue_too(tmp_path):
    data = toy_shelf.shop(n_users=5, n_items=30, length=3)
    toy_shelf.folder(tmp_path / "v", data=data, names=["popularity"])
    assert Shelf.load(tmp_path / "v", version="v").serving == "popularity"


def test_what_does_not_fit_into_the_minutes_is_left_out_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(shelf.offers.COSTS, "ease", lambda shape: shelf.offers.Cost(1e6, 0))
    metrics = shelf.fit(toy_shelf.shop(), names=["transitions", "ease"], minutes=1, out=tmp_path / "v", report=toy_shelf.Quiet())
    assert "s of the time allowed are left" in metrics["left_out"]["ease"] and len(metrics["leaderboard"]) == 2


def test_what_does_not_fit_into_memory_is_left_out_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(shelf.offers.COSTS, "ease", lambda shape: shelf.offers.Cost(0, 1e18))
    metrics = toy_shelf.folder(tmp_path / "v", names=["transitions", "ease"])
    assert "GB" in metrics["left_out"]["ease"] and "ease" not in Shelf.load(tmp_path / "v", version="v").models


def test_a_budget_that_is_spent_keeps_the_fit_before_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(turns, "AGAIN", 1e9)
    metrics = shelf.fit(toy_shelf.shop(), names=["transitions"], minutes=1, out=tmp_path / "v", report=toy_shelf.Quiet())
    assert {row["learnt_from"] for row in metrics["leaderboard"]} == {"train"}


# ---------------------------------------------------------------- resuming


def test_a_cancel_arrives_and_the_next_attempt_does_not_fit_again_what_was_finished(tmp_path, monkeypatch):
    data, place = toy_shelf.shop(), tmp_path / "checkpoint"
    with pytest.raises(Cancelled):
        toy_shelf.folder(tmp_path / "v", data=data, report=toy_shelf.Quiet(stop_at=0.5), checkpoint=place)
    assert (place / "popularity" / turns.DONE).is_file() and not (place / "transitions" / turns.DONE).exists()
    fitted = []
    monkeypatch.setattr(shelf.offers.MODELS["popularity"], "save", lambda self, folder: fitted.append(folder))
    metrics = toy_shelf.folder(tmp_path / "v", data=data, checkpoint=place)
    assert not fitted
    assert [row["model"] for row in metrics["leaderboard"]] == ["popularity", "transitions"]


def test_a_resumed_run_comes_to_the_same_figures(made, tmp_path):
    place = tmp_path / "checkpoint"
    with pytest.raises(Cancelled):
        toy_shelf.folder(tmp_path / "v", report=toy_shelf.Quiet(stop_at=0.5), checkpoint=place)
    metrics = toy_shelf.folder(tmp_path / "v", checkpoint=place)
    assert [row["ndcg"] for row in metrics["leaderboard"]] == [row["ndcg"] for row in made[1]["leaderboard"]]


def test_a_checkpoint_of_other_data_is_not_taken_up(tmp_path):
    place = tmp_path / "checkpoint"
    first = toy_shelf.folder(tmp_path / "a", checkpoint=place)
    second = toy_shelf.folder(tmp_path / "b", data=toy_shelf.shop(seed=1), checkpoint=place)
    assert first["split_hash"] != second["split_hash"] and first["ndcg"] != second["ndcg"]


# ---------------------------------------------------------------- the version before


def test_the_version_before_is_asked_for_moved_rows_only(made, tmp_path):
    out, _, data = made
    champion = Shelf.load(out, version="before")
    grown = _grown(data, users=range(10))
    toy_shelf.folder(tmp_path / "v", data=grown, champion=champion)
    held, old = pd.read_parquet(tmp_path / "v" / "heldout.parquet"), pd.read_parquet(out / "heldout.parquet")
    asked = held["champion_rank"].notna()
    assert asked.tolist() == [True] * 10 + [False] * 70
    assert set(held.loc[~asked, "row_hash"]) <= set(old["row_hash"]) and not set(held.loc[asked, "row_hash"]) & set(old["row_hash"])
    facts = json.loads((tmp_path / "v" / "model.json").read_text())
    assert facts["measured_against"] == "before" and (held.loc[asked, "champion_rank"] >= 1).all()


def test_an_item_that_the_version_before_does_not_know_is_its_last_place(made, tmp_path):
    out, _, data = made
    grown = _grown(data, users=[0], item="brand new")
    toy_shelf.folder(tmp_path / "v", data=grown, champion=Shelf.load(out, version="before"))
    held = pd.read_parquet(tmp_path / "v" / "heldout.parquet")
    assert held["champion_rank"].dropna().tolist() == [31]


def _grown(data, *, users, item=None):
    """The log with one more item for some people: one they had not met."""
    items = data.items if item is None else (*data.items, item)
    rows = data.rows
    for user in users:
        new = len(items) - 1 if item else min(set(range(30)) - set(rows.loc[rows["user"] == user, "item"]))
        one = pd.DataFrame({"user": [user], "item": [new], "at": [1_800_000_000], "rating": [np.nan]}).astype(rows.dtypes.to_dict())
        rows = pd.concat([rows, one], ignore_index=True)
    rows = rows.sort_values(["user", "at"], kind="stable").reset_index(drop=True)
    titles = (*data.titles, "")[: len(items)]
    return type(data)(data.name, data.users, items, titles, titles, rows, data.synthetic, data.licence)


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("name", ["model.json", "items.parquet", "pasts.parquet", "transitions/rows.safetensors", "popularity/recommender.json"])
@pytest.mark.parametrize("how", ["gone", "torn", "empty"])
def test_a_damaged_folder_is_refused_in_words(copy, name, how):
    path = copy / name
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if how == "empty" else path.read_bytes()[:-40])
    with pytest.raises(BadRecommender):
        Shelf.load(copy, version="v1")


@pytest.mark.parametrize("change", [{"models": ["popularity", "oracle"]}, {"serving": "ease"}, {"format": 99}, {"task": "intent"}, {"groups": None}])
def test_facts_that_do_not_fit_are_refused(copy, change):
    facts = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(BadRecommender):
        Shelf.load(copy, version="v1")


def test_a_past_with_items_that_do_not_exist_is_refused(copy):
    pd.DataFrame({"user": ["a"], "items": [np.array([0, 99], np.int32)]}).to_parquet(copy / "pasts.parquet")
    with pytest.raises(BadRecommender, match="does not have"):
        Shelf.load(copy, version="v1")


def test_reading_a_shelf_imports_no_torch(made):
    code = f"import sys; from pathlib import Path; from fmcore.recommend.shelf import Shelf; Shelf.load(Path({str(made[0])!r}), version='v'); print('torch' in sys.modules)"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


# ---------------------------------------------------------------- the hybrid


def test_a_hybrid_is_made_of_the_models_beside_it_and_kept_without_them(tmp_path):
    metrics = toy_shelf.folder(tmp_path / "v", names=["popularity", "transitions", "knn", "hybrid"])
    read = Shelf.load(tmp_path / "v", version="v")
    assert [row["model"] for row in metrics["leaderboard"]] == ["popularity", "transitions", "knn", "hybrid"]
    assert all(member is read.models[member.name] for member in read.models["hybrid"].members)
    assert [path.name for path in (tmp_path / "v" / "hybrid").iterdir()] == ["recommender.json"]


def test_a_hybrid_is_judged_on_people_that_its_weights_were_not_learnt_from(tmp_path):
    seen = []

    class Spy(shelf.Hybrid):
        def learn(self, histories, held, *, seed=0):
            seen.append(np.asarray(held) >= 0)
            return super().learn(histories, held, seed=seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "Hybrid", Spy)
        toy_shelf.folder(tmp_path / "v", names=["popularity", "transitions", "hybrid"])
    first, second, whole = seen
    assert not (first & second).any() and (first | second).all() and whole.all()


def test_a_killed_run_takes_its_hybrid_up_again(tmp_path):
    names, place = ["popularity", "transitions", "hybrid"], tmp_path / "checkpoint"
    first = toy_shelf.folder(tmp_path / "a", names=names, checkpoint=place)
    again = toy_shelf.folder(tmp_path / "b", names=names, checkpoint=place)
    assert first["leaderboard"] == again["leaderboard"]


def test_an_unfinished_turn_leaves_nothing_in_the_way(tmp_path):
    names, place = ["popularity", "transitions"], tmp_path / "checkpoint"
    toy_shelf.folder(tmp_path / "a", names=names, checkpoint=place)
    (place / "transitions" / turns.DONE).unlink()  # as if the process had died before it
    metrics = toy_shelf.folder(tmp_path / "b", names=names, checkpoint=place)
    assert len(metrics["leaderboard"]) == 2


@pytest.mark.slow
def test_a_sequence_model_is_measured_as_it_was_and_then_learns_from_everything(tmp_path):
    metrics = shelf.fit(toy_shelf.shop(), names=["sasrec"], minutes=0, out=tmp_path / "v", report=toy_shelf.Quiet())
    row = metrics["leaderboard"][1]
    assert (row["measured_after"], row["learnt_from"]) == ("train", "everything")
    assert row["ndcg"]["value"] > metrics["leaderboard"][0]["ndcg"]["value"]


def test_a_huge_catalogue_is_measured_on_fewer_people_and_never_on_too_few(tmp_path, monkeypatch):
    assert shelf.measure.affordable(3_416) == shelf.measure.MEASURED and shelf.measure.affordable(200_000) == shelf.measure.ENOUGH
    monkeypatch.setattr(shelf.measure, "ENOUGH", 10)
    monkeypatch.setattr(shelf.measure, "RANKED", 30 * 20)
    assert toy_shelf.folder(tmp_path / "v")["n"] == 20


def test_a_machine_that_is_slow_just_now_leaves_more_out(tmp_path, monkeypatch):
    monkeypatch.setattr(shelf.offers, "slowness", lambda name, shape, fit_s: 1e6)
    metrics = shelf.fit(toy_shelf.shop(), names=["transitions", "ease"], minutes=1, out=tmp_path / "v", report=toy_shelf.Quiet())
    assert "of the time allowed" in metrics["left_out"]["ease"]
