"""T1 and T2 for the news room's routine jobs: both nights of summer time in two zones, and a clock that is set back or ahead."""

import collections
import dataclasses
import datetime as dt
import time

import pytest

from fmcore import clock
from fmcore.runs import Runs
from fmcore.store.store import Store
from jobs import JOBS
from jobs.scheduler import Scheduler

pytestmark = pytest.mark.slow
ROUTINE = {name: job for name, job in JOBS.items() if job.routine}
MINUTE, HOUR = dt.timedelta(minutes=1), dt.timedelta(hours=1)
NIGHTS = [
    ("Europe/Berlin", dt.datetime(2026, 3, 29, 1, 0, tzinfo=clock.UTC)),
    ("Europe/Berlin", dt.datetime(2026, 10, 25, 1, 0, tzinfo=clock.UTC)),
    ("America/New_York", dt.datetime(2026, 3, 8, 7, 0, tzinfo=clock.UTC)),
    ("America/New_York", dt.datetime(2026, 11, 1, 6, 0, tzinfo=clock.UTC)),
]
"""A zone and the moment at which its clocks change."""


class Desk:
    """The routine jobs' schedules over a clock that is moved by hand; each run ends at once."""

    def __init__(self, home, at):
        self.store, self.at = Store(home), at
        idle = {name: dataclasses.replace(job, run=lambda *_: {}) for name, job in ROUTINE.items()}
        self.runs = Runs(self.store, idle, now=lambda: self.at)
        self.scheduler = Scheduler(self.runs, now=lambda: self.at)
        self.fired = collections.defaultdict(list)
        self.tick()

    def tick(self, step=dt.timedelta(0)):
        self.at += step
        for run in self.scheduler.tick():
            self.fired[run.job].append((self.at, run.slot_at))
        while (run := self.runs.claim("light")) is not None:
            self.runs.finish(run.id, "succeeded")


@pytest.fixture
def desk(tmp_path):
    made = []

    def start(at):
        made.append(Desk(tmp_path / f"home{len(made)}", at))
        return made[-1]

    yield start
    for one in made:
        one.store.close()


@pytest.fixture
def zone(monkeypatch):
    """zone(name) sets the machine's own time zone."""

    def change(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield change
    monkeypatch.undo()
    time.tzset()


def test_the_news_room_runs_by_itself():
    assert {"ingest", "score", "deliver", "alerts"} <= set(ROUTINE)


@pytest.mark.parametrize(("name", "changes_at"), NIGHTS, ids=[f"{name}-{at:%m-%d}" for name, at in NIGHTS])
def test_a_night_on_which_the_clocks_change_has_every_slot_once(desk, zone, name, changes_at):
    zone(name)
    night = desk(changes_at - 20 * MINUTE - dt.timedelta(seconds=30))
    for _ in range(40):
        night.tick(MINUTE)
    for job, fired in night.fired.items():
        every = MINUTE if ROUTINE[job].schedule == "* * * * *" else 5 * MINUTE
        slots = [slot for _, slot in fired]
        assert slots == [slots[0] + i * every for i in range(len(slots))], f"{job} left a slot out or ran one twice"
        assert len(slots) == 40 * MINUTE // every
    assert set(night.fired) == set(ROUTINE) and night.runs.missed() == []


@pytest.mark.parametrize("step", [-HOUR, -dt.timedelta(days=1), dt.timedelta(days=1), HOUR], ids=["-1h", "-1d", "+1d", "+1h"])
def test_a_clock_that_is_set_stops_no_routine_job(desk, step):
    """Within two of its own intervals each job runs again, whichever way the clock went; nothing is taken for crashed."""
    one = desk(dt.datetime(2026, 11, 24, 9, 0, 30, tzinfo=clock.UTC))
    for _ in range(70):
        one.tick(MINUTE)
    one.fired.clear()
    one.tick(step)
    for _ in range(12):
        one.tick(MINUTE)
    for job in ROUTINE.values():
        assert len(one.fired[job.name]) >= (10 if job.schedule == "* * * * *" else 2), f"{job.name} stood still"
    assert {run.state for run in one.runs.history(limit=500)} <= {"succeeded"}
