"""Recipe "auto": a study's choice for the task, never over what a person named, and the reason goes along to the card."""

import json

import pytest

from fmcore import tasks
from fmcore.lab import defaults
from fmcore.lab.defaults import Choice
from fmcore.models import bases
from fmcore.models.registry import Registry
from fmcore.store.store import Store
from jobs import finetune
from tests import toy_models
from tests.tiny_encoder import frame

REASON = "LoRA is better than Full tuning with all labels of messages: +2.0 points."


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def prepared(store, tmp_path):
    path = tmp_path / "messages.csv"
    frame(40, seed=5).drop_duplicates("text").to_csv(path, index=False)

    def make(name, **params):
        folder = store.home / "runs" / name
        folder.mkdir(parents=True)
        finetune.prepare(store, finetune.Params(task="intent", dataset=str(path), **params), folder)
        return json.loads((folder / "settings.json").read_text())

    return make


def choose(store, recipe="lora", **changed):
    return defaults.choose(store, "intent", Choice(recipe, **changed), study_id="labels-r1", reason=REASON, by="label study")


def test_without_a_study_auto_is_the_tasks_own_recipe(prepared):
    made = prepared("r1")
    assert made["params"]["recipe"] == tasks.task("intent").recipe and "no study" in made["recipe_reason"]


def test_auto_is_what_a_study_chose_with_its_reason(store, prepared):
    choose(store, options={"epochs": 2})
    made = prepared("r1")
    assert (made["params"]["recipe"], made["params"]["epochs"]) == ("lora", 2)
    assert made["recipe_reason"] == f"{REASON} (study labels-r1)"


def test_what_a_person_named_is_never_overridden(store, prepared):
    choose(store, base="elsewhere", options={"epochs": 2, "dropout": 0.3})
    named = prepared("r1", recipe="linear")
    assert named["params"]["recipe"] == "linear" and named["params"]["base"] == "" and named["params"]["epochs"] == 0
    assert named["recipe_reason"] == "Asked for when the run was started."
    part = prepared("r2", epochs=5, base="minilm")
    assert (part["params"]["recipe"], part["params"]["epochs"], part["base"], part["params"]["dropout"]) == ("lora", 5, "minilm", 0.3)


def test_a_chosen_base_is_taken_while_it_is_on_the_shelf(store, prepared, monkeypatch):
    choose(store, "linear", base="base:finance")
    monkeypatch.setattr(bases, "exists", lambda home, name: name == "finance")
    assert prepared("r1")["base"] == "base:finance"
    monkeypatch.setattr(bases, "exists", lambda home, name: False)
    gone = prepared("r2")
    assert gone["params"]["base"] == "" and gone["params"]["recipe"] == tasks.task("intent").recipe and "no study" in gone["recipe_reason"]


def test_a_reset_goes_back_to_the_usual_recipe(store, prepared):
    choose(store)
    defaults.reset(store, "intent", by="a person")
    assert prepared("r1")["params"]["recipe"] == tasks.task("intent").recipe


def test_an_option_that_the_job_does_not_have_is_passed_over(store, prepared):
    choose(store, options={"no_such_knob": 1})
    assert prepared("r1")["params"]["recipe"] == "lora"


def test_the_card_says_why_a_version_has_its_recipe(store, tmp_path):
    registry = Registry(store)
    told = toy_models.adopt(registry, tmp_path, run_id="a", facts={**toy_models.metrics(), "recipe_reason": REASON})
    silent = toy_models.adopt(registry, tmp_path, run_id="b")
    assert registry.card(told)["What it is"]["Why this recipe"] == REASON
    assert registry.card(silent)["What it is"]["Why this recipe"] == "unknown"
