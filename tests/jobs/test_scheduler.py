"""The scheduler against an oracle: every slot has a run or a missed row, and none has two. The clock is moved by hand."""

import datetime as dt
import random

import pytest
from pydantic import BaseModel

from fmcore import clock
from fmcore.nouns import Job
from fmcore.runs import Runs
from fmcore.store import retention
from jobs import JOBS
from jobs.scheduler import BadSchedule, Scheduler, next_slot

START = dt.datetime(2026, 3, 1, 0, 0, 30, tzinfo=clock.UTC)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


class Form(BaseModel, extra="forbid"):
    n: int = 1


def desk(store, at, **crons):
    """(clock, runs, scheduler) with a light job for each cron line; the clock is a one-item list."""
    jobs = {name: Job(name, name, "", kind="light", params=Form, schedule=cron, scheduled_params={"n": 2}) for name, cron in crons.items()}
    hand = [at]
    runs = Runs(store, jobs, now=lambda: hand[0])
    return hand, runs, Scheduler(runs, now=lambda: hand[0])


def finish_all(runs):
    while (run := runs.claim("light")) is not None:
        runs.finish(run.id, "succeeded")


def test_a_slot_becomes_a_run_with_the_declared_parameters(store):
    hand, runs, scheduler = desk(store, START, hourly="0 * * * *")
    assert scheduler.tick() == [] and runs.schedules()[0].next_at == START.replace(hour=1, second=0)
    hand[0] += HOUR
    [run] = scheduler.tick()
    assert (run.trigger, run.slot_at, run.params["n"]) == ("schedule", START.replace(hour=1, second=0), 2)
    assert scheduler.tick() == []
    assert runs.schedules()[0].next_at == START.replace(hour=2, second=0)


def test_a_long_sleep_is_caught_up_once_and_the_rest_recorded(store):
    hand, runs, scheduler = desk(store, START, hourly="0 * * * *")
    scheduler.tick()
    hand[0] += 6 * HOUR
    [run] = scheduler.tick()
    assert run.slot_at == START.replace(hour=6, second=0)
    assert sorted(m.slot_at.hour for m in runs.missed()) == [1, 2, 3, 4, 5] and all("06:00" in m.reason for m in runs.missed())


def test_a_slot_too_long_ago_is_missed_not_run(store):
    hand, runs, scheduler = desk(store, START, nightly="0 3 * * *")
    scheduler.tick()
    hand[0] += 9 * HOUR
    assert scheduler.tick() == [] and f"within {clock.duration(3600)}" in runs.missed()[0].reason
    assert runs.schedules()[0].next_at == (START + DAY).replace(hour=3, second=0)


def test_a_slot_refused_because_a_run_waits_is_missed_with_the_reason(store):
    hand, runs, scheduler = desk(store, START, hourly="0 * * * *")
    scheduler.tick()
    waiting = runs.request("hourly")
    hand[0] += HOUR
    assert scheduler.tick() == [] and waiting.id in runs.missed()[0].reason


def test_a_changed_schedule_starts_afresh(store):
    hand, runs, scheduler = desk(store, START, job="0 * * * *")
    scheduler.tick()
    hand[0] += 3 * HOUR
    _, runs, scheduler = desk(store, hand[0], job="30 12 * * *")
    assert scheduler.tick() == [] and runs.missed() == [] and runs.schedules()[0].next_at.hour == 12


def test_a_clock_set_back_neither_repeats_a_slot_nor_stops_the_schedule(store):
    hand, runs, scheduler = desk(store, START, hourly="0 * * * *")
    slots = []
    for hour in (0, 1, 2, 3, 1, 2, 3, 4, 5):
        hand[0] = START + hour * HOUR
        slots += [run.slot_at.hour for run in scheduler.tick()]
        finish_all(runs)
    assert slots == [1, 2, 3, 4, 5] and runs.missed() == []


def test_summer_time_changes_nothing(store):
    hand, runs, scheduler = desk(store, dt.datetime(2026, 3, 28, 12, tzinfo=clock.UTC), nightly="30 2 * * *")
    fired = []
    for _ in range(4 * 24):
        fired += [run.slot_at for run in scheduler.tick()]
        finish_all(runs)
        hand[0] += HOUR
    assert fired == [dt.datetime(2026, 3, day, 2, 30, tzinfo=clock.UTC) for day in (29, 30, 31)] + [dt.datetime(2026, 4, 1, 2, 30, tzinfo=clock.UTC)]
    assert runs.missed() == []


def test_two_schedulers_on_one_store_fire_a_slot_once(store):
    hand, runs, one = desk(store, START, hourly="0 * * * *")
    two = Scheduler(runs, now=lambda: hand[0])
    one.tick()
    hand[0] += HOUR
    assert len(one.tick() + two.tick()) == 1 and len(runs.history()) == 1


@pytest.mark.slow
def test_thirty_days_of_crashes_and_sleeps_leave_no_slot_unaccounted_for(store):
    chance = random.Random(20261123)
    crons = {"often": "0 */6 * * *", "nightly": "30 2 * * *", "workdays": "15 9 * * mon-fri"}
    hand, runs, scheduler = desk(store, START, **crons)
    scheduler.tick()
    end, at_work = START + 30 * DAY, None
    while hand[0] < end:
        fate = chance.random()
        if fate < 0.06:  # the machine sleeps, then the desk starts anew
            hand[0] += dt.timedelta(minutes=chance.uniform(20, 900))
            hand, runs, scheduler = desk(store, hand[0], **crons)
            runs.reap()
        elif fate < 0.15:
            at_work = runs.claim("light") or at_work  # and is so still when the next slot comes, or when the desk crashes
        elif fate < 0.9:
            if at_work:
                runs.finish(at_work.id, "succeeded")
            finish_all(runs)
        hand[0] += dt.timedelta(minutes=chance.uniform(20, 200))
        scheduler.tick()
    for name, cron in crons.items():
        expected, slot = [], next_slot(cron, START)
        while slot <= hand[0]:
            expected.append(slot)
            slot = next_slot(cron, slot)
        ran = [clock.from_store(r["slot_at"]) for r in store.rows("SELECT slot_at FROM runs WHERE job = ? AND slot_at IS NOT NULL", name)]
        missed = [m.slot_at for m in runs.missed(10_000) if m.job == name]
        assert sorted(ran + missed) == expected
        assert len(ran) > len(expected) / 3 and (name != "often" or missed)


@pytest.mark.parametrize("cron", ["", "hourly", "* * * *", "61 * * * *", "0 0 31 2 *", "0 0 * * 1"])
def test_a_cron_line_that_cannot_be_meant_is_refused_at_start(store, cron):
    with pytest.raises(BadSchedule) as refused:
        desk(store, START, job=cron)
    assert refused.value.hint


def test_the_clock_runs_and_stops(store, wait):
    runs = Runs(store, JOBS)
    scheduler = Scheduler(runs)
    scheduler.stop()
    scheduler.start()
    scheduled = [job.name for job in JOBS.values() if job.schedule]
    assert "maintain" in scheduled and [s.job for s in runs.schedules() if s.next_at] == scheduled
    scheduler.stop()


def routine_desk(store):
    job = Job("often", "often", "", kind="light", params=Form, schedule="* * * * *", routine=True)
    hand = [START]
    runs = Runs(store, {"often": job}, now=lambda: hand[0])
    return hand, runs, Scheduler(runs, now=lambda: hand[0])


def test_a_night_of_a_job_that_runs_every_minute_is_one_gap(store):
    hand, runs, scheduler = routine_desk(store)
    scheduler.tick()
    hand[0] += 9 * HOUR
    [run] = scheduler.tick()
    [gap] = runs.missed()
    assert (run.slot_at, gap.slot_at) == (START.replace(hour=9, second=0), START.replace(minute=1, second=0))
    assert "538 slots after it, up to 2026-03-01 08:59 UTC" in gap.reason


def test_a_waiting_routine_run_stands_for_the_slots_after_it(store):
    hand, runs, scheduler = routine_desk(store)
    scheduler.tick()
    for _ in range(3):
        hand[0] += dt.timedelta(minutes=1)
        scheduler.tick()
    assert len(runs.active()) == 1 and not runs.missed()


def test_good_routine_runs_leave_the_history_and_are_forgotten_but_for_the_last(store):
    hand, runs, scheduler = routine_desk(store)
    scheduler.tick()
    for state in ("succeeded", "failed", "succeeded", "succeeded"):
        hand[0] += dt.timedelta(minutes=1)
        scheduler.tick()
        runs.finish(runs.claim("light").id, state)
    assert [run.state for run in runs.history()] == ["failed"] and len(runs.history(job="often")) == 4
    assert retention.forget_runs(store, ["often"], before=hand[0] + DAY) == 2
    assert [run.state for run in runs.history(job="often")] == ["succeeded", "failed"]
