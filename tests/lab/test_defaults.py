"""What "auto" means for a task: a study's choice with its reason, kept, taken back, and never without a reason."""

import pytest

from fmcore.lab import defaults
from fmcore.lab.defaults import BadChoice, Choice
from fmcore.store.store import Store
from fmcore.tasks import UnknownTask


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "home")
    yield made
    made.close()


def choose(store, recipe="lora", study="labels-r1", **changed):
    return defaults.choose(store, "sentiment", Choice(recipe, **changed), study_id=study, reason="It is better by 2 points.", by="a study")


def test_nothing_is_chosen_until_a_study_chooses(store):
    assert defaults.chosen(store, "sentiment") is None
    assert "full" in defaults.told(store, "sentiment") and "no study" in defaults.told(store, "sentiment")


def test_the_last_choice_holds_with_its_study_and_reason(store):
    choose(store)
    made = choose(store, "full", study="labels-r2", base="base:finance", options={"epochs": 2})
    assert (made.recipe, made.base, made.options) == ("full", "base:finance", {"epochs": 2})
    assert (made.study_id, made.reason, made.by) == ("labels-r2", "It is better by 2 points.", "a study") and made.at is not None
    assert defaults.chosen(store, "sentiment") == made and defaults.chosen(store, "topic") is None
    assert "base:finance" in defaults.told(store, "sentiment") and "2 points" in defaults.told(store, "sentiment")


def test_the_same_choice_of_the_same_study_is_one_row(store):
    assert choose(store) == choose(store)
    assert len(store.rows("SELECT * FROM task_defaults")) == 1


def test_a_reset_goes_back_to_the_usual_recipe_and_a_later_study_may_choose_again(store):
    choose(store)
    for _ in range(2):
        defaults.reset(store, "sentiment", by="a person")
        assert defaults.chosen(store, "sentiment") is None
    assert len(store.rows("SELECT * FROM task_defaults")) == 2
    assert choose(store).recipe == "lora"


def test_what_no_job_can_follow_and_what_has_no_reason_is_refused(store):
    with pytest.raises(BadChoice, match="scratch"):
        choose(store, "scratch")
    with pytest.raises(BadChoice, match="reason"):
        defaults.choose(store, "sentiment", Choice("full"), study_id="s", reason=" ", by="x")
    with pytest.raises(UnknownTask):
        defaults.choose(store, "weather", Choice("full"), study_id="s", reason="r", by="x")
    with pytest.raises(UnknownTask):
        defaults.reset(store, "weather", by="x")
