"""The run state machine: who may queue, what is retried and when, and that nothing is ever shown as running for ever."""

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from fmcore import clock
from fmcore.nouns import FMError, Job
from fmcore.runs import AlreadyQueued, BadParams, NotPossible, Runs, UnknownJob, UnknownRun
from fmcore.store.store import Store


class Form(BaseModel, extra="forbid"):
    epochs: int = 3
    rate: float = 0.1
    note: str = ""


JOBS = {
    "toy": Job("toy", "Toy", "", kind="light", params=Form),
    "big": Job("big", "Big", "", kind="heavy", params=Form, max_attempts=4),
    "daily": Job("daily", "Daily", "", kind="light", params=Form, schedule="0 3 * * *"),
}


class Clock:
    """Wall clock and monotonic clock, moved by hand."""

    def __init__(self):
        self.at, self.mono = dt.datetime(2026, 3, 1, 12, tzinfo=clock.UTC), 0.0

    def now(self):
        return self.at

    def monotonic(self):
        return self.mono

    def pass_s(self, seconds):
        self.at += dt.timedelta(seconds=seconds)
        self.mono += seconds


@pytest.fixture
def time():
    return Clock()


@pytest.fixture
def runs(tmp_path, time):
    store = Store(tmp_path / "home")
    yield Runs(store, JOBS, now=time.now, monotonic=time.monotonic)
    store.close()


def test_a_request_is_queued_with_its_defaults_filled_in(runs):
    run = runs.request("toy", {"epochs": 5}, trigger="api")
    assert (run.state, run.trigger, run.attempt) == ("queued", "api", 1)
    assert run.params == {"epochs": 5, "rate": 0.1, "note": ""}
    assert runs.get(run.id) == run == runs.history()[0]


def test_one_run_runs_and_one_waits_at_most(runs):
    first = runs.request("toy")
    with pytest.raises(AlreadyQueued) as refused:
        runs.request("toy")
    assert refused.value.run == first and "cancel" in refused.value.hint
    assert runs.claim("light").id == first.id
    second = runs.request("toy")
    assert runs.claim("light") is None, "the second waits for the first"
    with pytest.raises(AlreadyQueued):
        runs.request("toy")
    runs.finish(first.id, "succeeded", result={"n": 1})
    assert runs.claim("light").id == second.id


def test_fifty_requests_at_once_make_one_run(runs):
    start = threading.Barrier(50)

    def ask(_):
        start.wait()
        try:
            return runs.request("toy").id
        except AlreadyQueued as refused:
            return refused.run

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    made = [a for a in answers if isinstance(a, str)]
    assert len(made) == 1 and len(runs.history()) == 1
    assert all(a.id == made[0] for a in answers if not isinstance(a, str))


def test_two_lanes_never_claim_the_same_run(runs):
    runs.request("toy")
    runs.request("daily")
    with ThreadPoolExecutor(8) as pool:
        claimed = [run.id for run in pool.map(lambda _: runs.claim("light"), range(8)) if run]
    assert len(claimed) == len(set(claimed)) == 2


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"epochs": "many"}, "epochs"), ({"x; drop table runs": 1}, "drop table"), ({"rate": float("nan")}, "stored"),
        ({"note": "\ud800"}, "stored|Unicode|unicode"), ({"note": "x" * 200_000}, "long"), (["epochs"], "names with values"), ("--epochs", "names"),
    ],
)
def test_parameters_that_do_not_fit_the_form_are_refused_in_words(runs, params, said):
    with pytest.raises(BadParams, match=said) as refused:
        runs.request("toy", params)
    assert refused.value.hint and len(str(refused.value)) < 2000
    assert runs.history() == []


def test_unknown_names_are_refused_in_words(runs):
    for ask, error in [
        (lambda: runs.request("nope"), UnknownJob), (lambda: runs.get("nope"), UnknownRun), (lambda: runs.cancel("nope", by="me"), UnknownRun),
        (lambda: runs.folder("../../etc"), UnknownRun), (lambda: runs.log_tail("a/b"), UnknownRun), (lambda: runs.resume("nope", by="me"), UnknownRun),
    ]:
        with pytest.raises(error):
            ask()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(), st.sampled_from(["'; drop table runs; --", "$$", "\x00", "x" * 100_000, "--help", "$(reboot)", "\ud800"])))
def test_hostile_text_changes_nothing_but_its_own_row(runs, text):
    tables = runs.store.rows("SELECT table_name FROM duckdb_tables() ORDER BY 1")
    for ask in (lambda: runs.request(text), lambda: runs.get(text), lambda: runs.history(job=text), lambda: runs.cancel(text, by=text)):
        try:
            ask()
        except FMError:
            continue
    try:
        run = runs.request("toy", {"note": text}, trigger=text)
        assert run.params["note"] == text
        runs.cancel(run.id, by=text)
    except BadParams:
        assert len(text) > 60_000 or any(0xD800 <= ord(c) < 0xE000 for c in text)
    assert runs.active() == []
    assert runs.store.rows("SELECT table_name FROM duckdb_tables() ORDER BY 1") == tables


def test_a_crash_is_tried_again_after_one_four_and_sixteen_minutes_then_no_more(runs, time):
    runs.request("big")
    waits = []
    for attempt in range(1, 5):
        run = runs.claim("heavy")
        assert run.attempt == attempt
        retry = runs.finish(run.id, "crashed", error="killed")
        if retry is None:
            break
        waits.append((retry.not_before_at - time.at).total_seconds())
        assert retry.retry_of == run.id and runs.claim("heavy") is None, "not before its time"
        time.pass_s(waits[-1])
    assert waits == [60, 240, 960] and attempt == 4
    assert "not tried again" in runs.get(run.id).error and runs.active() == []


@pytest.mark.parametrize(("state", "tried_again"), [("crashed", True), ("interrupted", True), ("failed", False), ("cancelled", False), ("timed_out", False)])
def test_only_what_may_go_better_next_time_is_tried_again(runs, state, tried_again):
    run = runs.start_now("toy")
    assert (runs.finish(run.id, state, error="x") is not None) is tried_again


def test_a_retry_gives_way_to_a_run_that_waits_already_and_says_so(runs):
    run = runs.start_now("toy")
    waiting = runs.request("toy", {"epochs": 9})
    assert runs.finish(run.id, "crashed", error="killed.") is None
    assert waiting.id in runs.get(run.id).error
    assert [r.id for r in runs.active()] == [waiting.id]


def test_the_end_of_a_run_is_written_once(runs):
    run = runs.start_now("toy")
    runs.finish(run.id, "succeeded", result={"n": 1})
    assert runs.finish(run.id, "crashed", error="too late") is None
    over = runs.get(run.id)
    assert (over.state, over.error, over.progress, dict(over.result)) == ("succeeded", "", 1.0, {"n": 1})


def test_cancelling_ends_what_waits_and_asks_what_runs(runs):
    waiting = runs.request("toy")
    assert runs.cancel(waiting.id, by="ann").state == "cancelled"
    running = runs.start_now("toy")
    assert not runs.cancel_asked(running.id)
    assert runs.cancel(running.id, by="ann").state == "running" and runs.cancel_asked(running.id)
    runs.cancel(running.id, by="ann")
    runs.finish(running.id, "cancelled")
    with pytest.raises(NotPossible):
        runs.cancel(running.id, by="ann")
    assert [row["who"] for row in runs.store.rows("SELECT who FROM audit")] == ["ann"] * 3


def test_resuming_makes_a_new_run_of_the_same_form(runs):
    old = runs.start_now("toy", {"epochs": 7})
    with pytest.raises(NotPossible):
        runs.resume(old.id, by="ann")
    runs.finish(old.id, "failed", error="x")
    new = runs.resume(old.id, by="ann")
    assert (new.state, new.retry_of, new.params["epochs"], new.attempt) == ("queued", old.id, 7, 1)


def test_at_boot_nothing_runs_and_each_lost_run_is_queued_once(runs):
    lost = runs.start_now("big")
    closed = runs.reap()
    assert [r.id for r in closed] == [lost.id] and runs.get(lost.id).state == "interrupted"
    assert runs.reap() == [] and [r.retry_of for r in runs.active()] == [lost.id]


def test_a_queued_run_of_a_job_that_is_gone_does_not_wait_for_ever(runs):
    run = runs.request("toy")
    later = Runs(runs.store, {"big": JOBS["big"]})
    later.reap()
    assert later.get(run.id).state == "cancelled" and "no job" in later.get(run.id).error


def test_a_run_without_a_sign_of_life_is_closed_within_45_seconds(runs, time):
    beating, silent = runs.start_now("toy"), runs.start_now("big")  # the silent one died before its first beat
    seen = None
    for second in range(0, 60, 5):
        if second % 10 == 0:
            runs.beat(beating.id)
        if [r.id for r in runs.expire()] == [silent.id]:
            seen = second
        time.pass_s(5)
    assert seen is not None and seen <= 45
    assert runs.get(silent.id).state == "crashed" and runs.get(beating.id).state == "running"


def test_a_clock_that_is_set_kills_no_run(runs, time):
    run = runs.start_now("toy")
    for jump in (86_400, -3_600, 86_400 * 30):
        runs.expire()
        time.at += dt.timedelta(seconds=jump)
        time.mono += 5
        assert runs.expire() == []
        runs.beat(run.id)
    assert runs.get(run.id).state == "running"


def test_what_a_run_says_is_stored_and_bounded(runs):
    run = runs.start_now("toy")
    runs.note(run.id, progress=0.5, message="half", device="cpu", metrics=[(1, "loss", 0.7), (2, "loss", 0.5)])
    now = runs.get(run.id)
    assert (now.progress, now.message, now.device) == (0.5, "half", "cpu")
    assert runs.metrics(run.id)[["step", "name", "value"]].values.tolist() == [[1, "loss", 0.7], [2, "loss", 0.5]]
    assert runs.thin_metric(run.id, "loss", stride=2) == 1
    assert runs.log_tail(run.id) == ""
    folder = runs.folder(run.id)
    folder.mkdir(parents=True)
    (folder / "log.1.txt").write_text("older\n")
    (folder / "log.txt").write_bytes(b"token=abc123 \xff\x00\n" * 50_000)
    tail = runs.log_tail(run.id, lines=20)
    assert tail.count("\n") == 19 and "abc123" not in tail and "\x00" not in tail
    (folder / "log.txt").write_text("newer\n")
    assert runs.log_tail(run.id).splitlines() == ["older", "newer"]


def test_a_schedule_shows_its_next_slot_and_how_the_last_one_ended(runs, time):
    three = dt.datetime(2026, 3, 2, 3, tzinfo=clock.UTC)
    day = dt.timedelta(days=1)
    [shown] = runs.schedules()
    assert (shown.job, shown.next_at, shown.last_state) == ("daily", None, "")
    run = runs.fire("daily", slot_at=three, lost=[], cron="0 3 * * *", next_at=three + day)
    runs.claim("light")
    runs.finish(run.id, "succeeded")
    [shown] = runs.schedules()
    assert (shown.next_at, shown.last_at, shown.last_state, shown.missed) == (three + day, three, "succeeded", 0)
    runs.fire("daily", slot_at=None, lost=[(three + day, "the machine slept")], cron="0 3 * * *", next_at=three + 2 * day)
    [shown] = runs.schedules()
    assert (shown.last_state, shown.missed, runs.missed()[0].reason) == ("missed", 1, "the machine slept")


def test_a_slot_fires_once_and_a_refused_one_is_recorded(runs):
    three = dt.datetime(2026, 3, 2, 3, tzinfo=clock.UTC)
    day = dt.timedelta(days=1)
    assert runs.fire("daily", slot_at=three, lost=[], cron="c", next_at=three + day)
    assert runs.fire("daily", slot_at=three, lost=[(three, "again")], cron="c", next_at=three + day) is None
    assert runs.missed() == [] and len(runs.history()) == 1
    assert runs.fire("daily", slot_at=three + day, lost=[], cron="c", next_at=three + 2 * day) is None
    assert [(m.slot_at, "waiting" in m.reason) for m in runs.missed()] == [(three + day, True)]
