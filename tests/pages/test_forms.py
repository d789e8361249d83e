"""The form on the Training page, made from any pydantic model."""

import datetime as dt
import enum
import json
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field
from streamlit.testing.v1 import AppTest

from pages import forms


class Speed(enum.StrEnum):
    slow = "slow"
    fast = "fast"


class Part(BaseModel):
    depth: int = 1


class Everything(BaseModel):
    """One field of each shape that a job may ask for."""

    model_config = ConfigDict(extra="forbid")
    recipe: Literal["linear", "full"] = Field("linear", description="How to **train** <b>it</b>.")
    speed: Speed = Speed.fast
    epochs: int = Field(3, ge=1, le=50)
    rate: float = Field(2e-5, gt=0, lt=1)
    shots: int | None = Field(None, ge=1)
    dry: bool = False
    maybe: bool | None = None
    name: str = "demo"
    source: str = ""
    required_name: str
    limit: Annotated[int, Field(gt=0)] = 5
    seeds: list[int] = [1, 2]
    part: Part = Part()
    size: Literal[1, 2, 4] = 2
    huge: int = Field(10**30, ge=0)
    either: int | str = 3
    mark: Literal["only"] = "only"
    day: dt.date = dt.date(2026, 1, 2)


def script():
    import streamlit as st

    from pages import forms
    from tests.pages.test_forms import Everything

    with st.form("f"):
        values, slots = forms.draw(Everything, key="f", suggestions={"name": ["demo", "banking77"], "source": ["here", "there"]})
        sent = st.form_submit_button("Go")
    if sent:
        params, errors = forms.checked(Everything, values)
        st.session_state["params"], st.session_state["errors"] = params, errors
        forms.show_errors(errors, slots)


def drawn() -> AppTest:
    at = AppTest.from_function(script, default_timeout=20).run()
    assert not at.exception
    return at


def test_a_suggested_field_that_is_empty_by_default_stays_empty_until_something_is_chosen():
    at = drawn()
    assert at.selectbox(key="f.source").value is None
    at.text_input(key="f.required_name").set_value("x")
    at.button[0].click().run()
    assert at.session_state["params"]["source"] == ""
    at.selectbox(key="f.source").set_value("there")
    at.button[0].click().run()
    assert at.session_state["params"]["source"] == "there"


def test_every_field_gets_a_widget_of_its_kind():
    at = drawn()
    labels = {kind: {w.label for w in at.get(kind)} for kind in ("selectbox", "number_input", "toggle", "text_input", "text_area")}
    assert {"Recipe", "Speed", "Size", "Name", "Mark"} <= labels["selectbox"]
    assert {"Epochs", "Rate", "Shots (optional)", "Limit", "Huge"} <= labels["number_input"]
    assert labels["toggle"] == {"Dry"}
    assert {"Required name", "Day"} <= labels["text_input"]
    assert {"Seeds", "Part", "Either", "Maybe (optional)"} <= labels["text_area"]
    drawn_fields = {w.key.removeprefix("f.") for kind in labels for w in at.get(kind)}
    assert drawn_fields == set(Everything.model_fields)


def test_bounds_and_descriptions_reach_the_widget():
    at = drawn()
    epochs, limit, recipe = at.number_input(key="f.epochs"), at.number_input(key="f.limit"), at.selectbox(key="f.recipe")
    assert (epochs.min, epochs.max, epochs.value) == (1, 50, 3)
    assert limit.min == 1
    assert "\\*\\*train\\*\\*" in recipe.help and "\\<b\\>" in recipe.help
    assert at.number_input(key="f.rate").step == pytest.approx(1e-6)


def test_what_is_wrong_is_said_beside_its_field():
    at = drawn()
    at.form_submit_button[0].click().run()
    assert at.session_state["params"] is None
    assert set(at.session_state["errors"]) == {"required_name"}
    assert any("Field required" in m.value for m in at.markdown)
    assert "required_name" in at.error[0].value.replace("\\", "")


def test_a_filled_form_is_the_model_itself():
    at = drawn()
    at.text_input(key="f.required_name").set_value("x")
    assert at.number_input(key="f.huge").value is None, "no browser holds 10**30: the box stays empty and the default counts"
    at.number_input(key="f.rate").set_value(1e-3)
    at.selectbox(key="f.recipe").set_value("full")
    at.selectbox(key="f.size").set_value(4)
    at.text_area(key="f.seeds").set_value("3\n 4 \n")
    at.text_area(key="f.part").set_value('{"depth": 9}')
    at.text_area(key="f.maybe").set_value("true")
    at.form_submit_button[0].click().run()
    assert not at.session_state["errors"]
    got = Everything.model_validate(at.session_state["params"])
    assert (got.recipe, got.size, got.seeds, got.part.depth, got.maybe, got.rate, got.shots) == ("full", 4, [3, 4], 9, True, 1e-3, None)
    json.dumps(at.session_state["params"])


@pytest.mark.parametrize("bad", ["{", "[1,", "\x00", "nul", "😀", "\u202e{}"])
def test_broken_json_is_refused_beside_the_field(bad):
    params, errors = forms.checked(Everything, {"required_name": "x", "huge": 1, "part": bad})
    assert params is None
    assert errors == {"part": "This is not valid JSON."}


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "**x** $\\frac{1}{2}$ :red[y]", "a" * 1_000_000, "\u202e!dlrow", "😀", "a\x00b"]
)
def test_hostile_text_in_a_field_is_taken_as_text(hostile):
    params, errors = forms.checked(Everything, {"required_name": hostile, "huge": 1})
    assert not errors
    assert params["required_name"] == hostile


def test_a_model_without_fields_has_an_empty_form():
    class Nothing(BaseModel):
        pass

    assert forms.fields(Nothing) == []
    assert forms.checked(Nothing, {}) == ({}, {})


def test_a_title_given_by_the_model_is_kept_and_a_made_one_is_in_sentence_case():
    class Form(BaseModel):
        learning_rate: float = 0.1
        epochs: int = Field(0, title="Epochs (0: automatic)")

    assert [field.title for field in forms.fields(Form)] == ["Learning rate", "Epochs (0: automatic)"]
