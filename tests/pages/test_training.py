"""The Training page: starting, watching, cancelling, resuming and comparing runs; schedules in words."""

import datetime as dt
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field
from streamlit.testing.v1 import AppTest

from fmcore import clock, run_facts, runtime
from fmcore.lab import defaults
from fmcore.nouns import Job
from pages import training
from tests.pages import toy_desk

SHELL = str(Path(__file__).resolve().parents[2] / "pages" / "shell.py")
HOSTILE = "<b>x</b> **y** $z$ :red[w] \u202e [l](http://e.com)\x00 😀"


class Train(BaseModel):
    model_config = ConfigDict(extra="forbid")
    dataset: str = Field("demo", description="Name or **path**.")
    recipe: Literal["linear", "full"] = "linear"
    epochs: int = Field(3, ge=1, le=9)


class Sweep(BaseModel):
    days: int = 3


JOBS = {
    "train": Job("train", "Train <it>", "Trains.", "heavy", Train),
    "sweep": Job("sweep", "Sweep", "Sweeps *all*.", "light", Sweep, schedule="30 3 * * 1"),
}


@pytest.fixture
def desk():
    yield toy_desk.start(JOBS)
    runtime.stop()


def opened(**query) -> AppTest:
    at = AppTest.from_file(SHELL, default_timeout=60)
    for name, value in query.items():
        at.query_params[name] = value
    at.switch_page("training.py").run()
    return sound(at)


def sound(at: AppTest) -> AppTest:
    assert not at.exception
    assert not [e.value for e in at.error if "could not be drawn" in e.value]
    return at


def words(at: AppTest) -> str:
    return "\n".join(m.value for m in at.markdown)


def press(at: AppTest, label: str) -> AppTest:
    return sound(next(b for b in at.button if b.label == label).click().run())


def test_an_empty_desk_offers_a_form_and_no_phantom_run(desk):
    at = opened()
    assert "Nothing is running" in words(at)
    assert "No runs yet" in words(at)
    assert at.selectbox(key="job").value == "train"
    assert not at.progress


def test_starting_a_run_queues_it_with_the_forms_values(desk):
    at = opened()
    at.selectbox(key="start-train.recipe").set_value("full")
    at.number_input(key="start-train.epochs").set_value(5)
    press(at, "Start the run")
    (run,) = desk.runs.history()
    assert (run.state, run.params) == ("queued", {"dataset": "demo", "recipe": "full", "epochs": 5})
    assert any("Waiting for its turn" in p.text for p in at.progress)
    press(at, "Start the run")
    assert "is waiting" in at.error[0].value or "waits" in at.error[0].value
    assert len(desk.runs.history()) == 1


def test_a_running_run_shows_progress_device_and_curves_and_can_be_cancelled(desk):
    run = desk.runs.start_now("train", {"recipe": "full"})
    points = [(s, "loss", 2.0 / s) for s in range(1, 30)] + [(10, "val_accuracy", 0.5), (20, "val_accuracy", 0.7), (20, "rss_mb", 812.0)]
    desk.runs.note(run.id, progress=0.4, message=HOSTILE, device="CPU, 1 thread", metrics=points)
    at = opened()
    assert at.progress[0].value == 40
    text = words(at)
    assert "CPU" in text and "812 MB" in text
    assert len(at.get("plotly_chart")) == 1
    assert ":red[w]" not in at.progress[0].text and "<b>" not in at.progress[0].text
    press(at, "Cancel")
    assert desk.runs.cancel_asked(run.id)


@pytest.mark.parametrize("state", ["succeeded", "failed", "crashed", "cancelled", "timed_out", "interrupted"])
def test_a_run_that_is_over_is_never_shown_as_running(desk, state):
    run = desk.runs.start_now("train", {})
    desk.runs.note(run.id, progress=0.5, metrics=[(1, "odd <name>", 1.0)])
    desk.runs.finish(run.id, state, error=HOSTILE)
    for waiting in desk.runs.active():
        desk.runs.cancel(waiting.id, by="a test")
    at = opened(run=run.id)
    rows = next(d.value for d in at.dataframe if "State" in d.value)
    assert "Running" not in {s for states in rows["State"] for s in states}
    assert "Nothing is running" in words(at)
    assert any(b.label == "Resume" for b in at.button) == (state != "succeeded")


def test_resuming_queues_a_run_that_continues(desk):
    run = desk.runs.start_now("train", {"epochs": 7})
    desk.runs.finish(run.id, "failed", error="no")
    at = opened(run=run.id)
    press(at, "Resume")
    assert [(r.retry_of, r.params["epochs"]) for r in desk.runs.active()] == [(run.id, 7)]


def test_two_runs_show_only_what_differs(desk):
    ids = []
    for recipe, accuracy in (("linear", 0.9), ("full", 0.94)):
        run = desk.runs.start_now("train", {"recipe": recipe})
        desk.runs.finish(run.id, "succeeded", result={"same": 1, "accuracy": {"value": accuracy, "low": 0.8, "high": 0.99, "n": 50}})
        ids.append(run.id)
    at = opened(run=ids[1], against=ids[0])
    table = next(d.value for d in at.dataframe if "Part" in d.value)
    assert table["Name"].tolist() == ["recipe", "accuracy"]
    assert table[ids[1]].tolist()[0] == "full" and table[ids[0]].tolist()[0] == "linear"


def test_an_unknown_run_in_the_address_falls_back(desk):
    desk.runs.start_now("sweep", {})
    at = opened(run="../../etc/passwd", job="nothing")
    assert at.selectbox(key="job").value == "train"


def test_schedules_show_when_they_run_and_what_was_missed(desk):
    slot = clock.now() - dt.timedelta(days=1)
    desk.runs.fire("sweep", slot_at=None, lost=[(slot, "the desk was <off>")], cron="30 3 * * 1", next_at=clock.now() + dt.timedelta(days=2, hours=1))
    at = opened()
    table = next(d.value for d in at.dataframe if "Cron" in d.value)
    assert table["When"][0] == "every Monday at 03:30"
    assert list(table["Last"][0]) == ["Missed"] and table["Missed slots"][0] == 1
    assert "in 2 d" in table["Next run"][0]
    assert any("the desk was <off>" in str(d.value.get("Reason", "")) for d in at.dataframe)


def test_the_log_is_shown_as_text_and_bounded(desk):
    run = desk.runs.start_now("train", {})
    folder = desk.runs.folder(run.id)
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("x" * 1_000_000 + "\n" + "<b>last</b> line\n")
    desk.runs.finish(run.id, "failed", error="e" * 5000)
    at = opened(run=run.id)
    assert at.code[0].value.endswith("<b>last</b> line")
    assert len(at.code[0].value) < 300_000


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("30 3 * * *", "every day at 03:30"),
        ("*/15 * * * *", "every 15 minutes"),
        ("5 * * * *", "every hour at 5 past"),
        ("0 */6 * * *", "every 6 hours at 0 past"),
        ("0 4 1 * *", "on day 1 of each month at 04:00"),
        ("0 9 * * fri", "every Friday at 09:00"),
        ("0 9 * * 1-5", "0 9 * * 1-5"),
        ("nonsense", "nonsense"),
    ],
)
def test_cron_lines_are_said_in_words_or_left_as_they_are(cron, said):
    assert training.cron_words(cron) == said


@pytest.fixture
def real():
    """A desk with the jobs that there are."""
    from jobs import JOBS as EVERY

    yield toy_desk.start(EVERY)
    runtime.stop()


@pytest.mark.parametrize(("job", "field"), [("recommend", "minutes"), ("reinforce", "seeds")])
def test_the_forms_of_recommendations_offer_data_sets_of_interactions(real, job, field):
    at = opened(job=real.jobs[job].title)
    if at.selectbox(key="job").value != job:
        sound(at.selectbox(key="job").set_value(job).run())
    offered = at.selectbox(key=f"start-{job}.dataset").options
    assert "demo_shop" in offered and "demo" not in offered
    assert at.number_input(key=f"start-{job}.{field}").value > 0
    other = opened()
    sound(other.selectbox(key="job").set_value("finetune").run())
    assert "demo_shop" not in other.selectbox(key="start-finetune.dataset").options


def test_fine_tuning_is_the_first_job_of_the_form(real):
    assert opened().selectbox(key="job").value == "finetune"


def test_a_run_of_recommendations_is_told_by_its_settings_and_hr(real):
    figure = {"value": 0.305, "low": 0.29, "high": 0.32, "n": 610}
    run = real.runs.start_now("recommend", {"dataset": "movielens", "minutes": 2.0}, trigger="manual")
    real.runs.finish(run.id, "succeeded", result={"version": "shelf-x", "task": "recommend", "hr": figure})
    at = opened()
    row = next(d.value for d in at.dataframe if "Settings" in d.value).iloc[0]
    assert row["Quality"].replace("\u00a0", " ") == "30.5 % HR@10"
    assert "movielens" in row["Settings"] and "2 minutes" in row["Settings"] and "all models that fit" in row["Settings"]


def test_a_contest_leads_to_its_agents_and_draws_their_curves_by_name(real):
    run = real.runs.start_now("reinforce", {"steps": 100, "seeds": 2}, trigger="manual")
    real.runs.note(run.id, progress=0.5, message="", device="cpu", metrics=[(10, "return_dqn", 1.0), (20, "return_dqn", 1.5)])
    real.runs.finish(run.id, "succeeded", result={"version": "shelf-x", "sentence": "Not better than greedy."})
    at = opened()
    (chart,) = at.get("plotly_chart")
    assert "DQN" in chart.proto.spec and "return_dqn" not in chart.proto.spec
    links = [link.proto for link in at.get("page_link")]
    assert any(link.label == "Look at the agents" for link in links)
    assert "likes a visit" in words(at)


@pytest.mark.parametrize("over", [False, True])
def test_a_copy_that_could_not_be_written_is_said_on_the_run(desk, over):
    run = desk.runs.start_now("train", {})
    run_facts.note(desk.store, run.id, {"notes": [f"Not copied to TensorBoard: {HOSTILE}"]})
    if over:
        desk.runs.finish(run.id, "succeeded")
    at = opened(run=run.id)
    said = [w.value for w in at.warning if "Not copied to TensorBoard" in w.value]
    assert len(said) == 1 and "<b>" not in said[0] and ":red[w]" not in said[0]


def test_the_form_says_what_auto_means_and_why_and_a_choice_can_be_taken_back():
    from jobs import finetune

    desk = toy_desk.start({"finetune": finetune.JOB})
    try:
        assert "Recipe auto is" in words(opened()) and "full for News sentiment" in words(opened())
        reason = "LoRA is better than Full tuning: +2.0 points. <b>"
        defaults.choose(desk.store, "sentiment", defaults.Choice("lora"), study_id="labels-r1", reason=reason, by="label study")
        at = opened()
        assert "with the recipe lora" in words(at) and "LoRA is better than Full tuning" in words(at) and "<b>" not in words(at)
        press(at, "Back to the usual recipe")
        assert defaults.chosen(desk.store, "sentiment") is None and "full for News sentiment" in words(opened())
    finally:
        runtime.stop()
