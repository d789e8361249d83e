"""The label study's job: what it freezes, that it lands once, and when a winner becomes the task's default."""

import json

import pytest
from pydantic import ValidationError

from fmcore import config
from fmcore.data import catalogue
from fmcore.lab import defaults, studies
from fmcore.lab.defaults import Choice
from fmcore.models import bases
from fmcore.store.store import Store
from jobs import label_study as job
from tests.lab import planted


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def messages(tmp_path):
    from tests.tiny_encoder import frame

    path = tmp_path / "messages.csv"
    frame(40, seed=5).drop_duplicates("text").to_csv(path, index=False)
    return str(path)


def run_dir(store, name, **params):
    folder = store.home / "runs" / name
    folder.mkdir(parents=True)
    job.prepare(store, job.Params(**params), folder)
    return folder


def settings_of(folder):
    return json.loads((folder / "settings.json").read_text())


@pytest.mark.parametrize("wrong", [{"shots": "1,many"}, {"shots": " , "}, {"shots": "20000"}, {"methods": "magic"}, {"adopt_at": "most"}, {"seeds": 0}])
def test_a_form_that_makes_no_sense_is_refused_in_words(wrong):
    with pytest.raises(ValidationError):
        job.Params(**wrong)


def test_numbers_of_examples_are_read_once_each():
    assert job.numbers("0, 1 8,all,8") == (0, 1, 8, -1)


def test_the_data_of_another_task_is_refused_before_any_work(store, tmp_path):
    with pytest.raises(Exception, match="is for"):
        job.prepare(store, job.Params(task="sentiment", dataset="demo_topic"), tmp_path)
    with pytest.raises(catalogue.UnknownDataset):
        job.prepare(store, job.Params(dataset="no-such-set"), tmp_path)


def test_the_present_method_is_what_auto_trains_now(store, messages):
    assert settings_of(run_dir(store, "r1"))["present"] == "full"
    assert settings_of(run_dir(store, "r2", task="intent", dataset=messages))["present"] == "frozen"
    defaults.choose(store, "intent", Choice("contrast"), study_id="s", reason="better", by="x")
    assert settings_of(run_dir(store, "r3", task="intent", dataset=messages))["present"] == "setfit"
    defaults.choose(store, "intent", Choice("full", base="base:elsewhere"), study_id="s2", reason="better", by="x")
    assert settings_of(run_dir(store, "r4", task="intent", dataset=messages))["present"] == ""


def test_the_newest_fitting_base_of_the_shelf_is_taken_and_else_the_reason_said(store, messages, monkeypatch):
    assert "run the job pretrain" in settings_of(run_dir(store, "r1", dataset=""))["no_adapted"]
    made = [
        bases.Base("other", store.home, {"start": "continue", "base": "elsewhere"}, None),
        bases.Base("toy", store.home, {"start": "continue", "base": "minilm", "synthetic": True}, None),
        bases.Base("new", store.home, {"start": "continue", "base": "minilm", "synthetic": False}, None),
        bases.Base("old", store.home, {"start": "continue", "base": "minilm", "synthetic": False}, None),
    ]
    monkeypatch.setattr(bases, "listed", lambda home: made)
    assert settings_of(run_dir(store, "r2", task="intent", dataset=messages))["adapted"] == "base:new"
    monkeypatch.setattr(bases, "listed", lambda home: made[:2])
    assert "made-up" in settings_of(run_dir(store, "r3", task="intent", dataset=messages))["no_adapted"]


# ---------------------------------------------------------------- landing


def landed_folder(store, name, *, clear=True, adopt="gate", method="lora", recipe="lora", task="intent"):
    """A run folder as `work` leaves it."""
    folder = store.home / "runs" / name
    (folder / "checkpoint").mkdir(parents=True)
    winner = {"method": method, "recipe": recipe, "shots": -1, "clear": clear, "reason": f"{method} is better by 3 points."}
    content = {"points": [], "cells": [], "advice": [], "sentence": "Use LoRA.", "left_out": {}, "notes": [], "winner": winner}
    params = job.Params(task=task, adopt=adopt).model_dump()
    (folder / "settings.json").write_text(json.dumps({"params": params, "base": "minilm", "adapted": "base:new"}))
    (folder / "study.json").write_text(json.dumps({"task": task, "dataset": "messages", "content": content}))
    return folder


def test_a_clear_winner_becomes_the_default_once_and_a_person_s_reset_stays(store):
    folder = landed_folder(store, "r1")
    first = job.land(store, folder)
    assert first["adopted"] and not (folder / "checkpoint").exists()
    found = defaults.chosen(store, "intent")
    assert (found.recipe, found.base, found.study_id, found.reason) == ("lora", "", first["study"], "lora is better by 3 points.")
    defaults.reset(store, "intent", by="a person")
    assert job.land(store, folder) == first and defaults.chosen(store, "intent") is None
    assert len(studies.listed(store, kind="labels")) == 1


@pytest.mark.parametrize("changed", [{"clear": False}, {"adopt": "never"}])
def test_no_default_is_made_of_what_is_not_clear_or_was_not_asked_for(store, changed):
    assert not job.land(store, landed_folder(store, "r1", **changed))["adopted"]
    assert defaults.chosen(store, "intent") is None


def test_a_winning_further_pretrained_base_comes_with_its_name(store):
    job.land(store, landed_folder(store, "r1", method="adapted", recipe="linear"))
    assert defaults.chosen(store, "intent").base == "base:new" and defaults.chosen(store, "intent").recipe == "linear"


@pytest.mark.slow
def test_a_run_ends_in_a_study_that_a_page_can_draw(store, messages, tmp_path, monkeypatch):
    monkeypatch.setenv("FM_BASE_MODEL", planted.save_knowing_encoder(tmp_path / "base"))
    monkeypatch.setenv("FM_THREADS", "1")
    config.settings.cache_clear()
    folder = run_dir(store, "r1", task="intent", dataset=messages, methods="zero_shot,frozen,lora,adapted", shots="0,2,all", seeds=2, minutes=0)
    report = planted.Quiet()
    told = job.work(folder, report)
    landed = job.land(store, folder)
    assert landed == job.land(store, folder) and told["n_points"] == 5 and told["n_left_out"] == 1
    study = studies.latest(store, kind="labels", task="intent")
    assert study.dataset == "messages" and study.run_id == "r1" and set(study.table("points")["shots"]) == {0, 2, -1}
    assert study.content["advice"][0]["sentence"].startswith("Without labels use") and study.content["majority"]["accuracy"]["value"] > 0
    assert any("no base on the shelf" in why.lower() for why in study.content["left_out"].values())
