"""The clock: turns each job's cron line into runs. APScheduler keeps time; the store keeps what is due and what was done.

Every slot becomes a run or a missed row, and none becomes two: the slot, its run and the next slot are written in one
transaction. (Routine jobs, which run every few minutes: one row for a whole gap, and a run that waits stands for the slots
after it.) Slots missed while the desk was down or the machine slept: the last one is caught up within the job's grace, the
others are recorded with the reason. Times are UTC, so no slot is doubled or skipped by summer time.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Callable

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from fmcore import clock, schedules
from fmcore.nouns import FMError, Job, Run
from fmcore.runs import Runs

log = logging.getLogger("fm.jobs")

TICK_S = 10
MOST_SLOTS = 10_000
"""Missed slots recorded one by one in one catch-up; what lies further back is told in the first of them."""


class BadSchedule(FMError):
    """A cron line that cannot be read or never comes."""


class Scheduler:
    """Queues the runs that are due, from `start` to `stop`. `now` is the clock, for tests; `tick` is one look at it."""

    def __init__(self, runs: Runs, *, now: Callable[[], dt.datetime] = clock.now):
        self._runs, self._now = runs, now
        self._jobs = [job for job in runs.jobs.values() if job.schedule is not None]
        for job in self._jobs:
            next_slot(job.schedule, self._now())
        quiet = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._clock = BackgroundScheduler(timezone=clock.UTC, job_defaults=quiet)

    def start(self) -> None:
        """Catch up with what was missed, then look at the clock every few seconds.

        A short interval rather than a timer to the next slot: a machine that slept, or whose clock was set, is noticed.
        """
        self.tick()
        self._clock.add_job(self.tick, "interval", seconds=TICK_S)
        self._clock.start()

    def stop(self) -> None:
        """Queue nothing more."""
        if self._clock.running:
            self._clock.shutdown(wait=True)

    def tick(self) -> list[Run]:
        """Queue what is due; returns the new runs. A job in trouble does not keep the others waiting."""
        fired = []
        planned = schedules.planned(self._runs.store)
        for job in self._jobs:
            try:
                run = self._turn(job, planned.get(job.name), self._now())
            except FMError as error:
                log.error("the schedule of %s: %s", job.name, error)
                continue
            if run is not None:
                log.info("run %s of %s for its slot %s", run.id, job.name, run.slot_at)
                fired.append(run)
        return fired

    def _turn(self, job: Job, stored: tuple[str, dt.datetime] | None, at: dt.datetime) -> Run | None:
        upcoming = next_slot(job.schedule, at)
        if stored is None or stored[0] != job.schedule or stored[1] > upcoming:  # new, changed, or the clock was set back
            self._runs.plan(job.name, job.schedule, upcoming)
            return None
        if stored[1] > at:
            return None
        *before, last = _slots(job.schedule, stored[1], at)
        in_time = (at - last).total_seconds() <= job.grace_s
        down = "the desk or the machine was not running"
        reason = f"{down}; the run of {last:%Y-%m-%d %H:%M} UTC stands for it" if in_time else down
        lost = [(slot, reason) for slot in before]
        if lost and lost[0][0] > stored[1]:
            lost[0] = (lost[0][0], f"{down}; nor at the slots from {stored[1]:%Y-%m-%d %H:%M} UTC up to this one")
        if job.routine and len(lost) > 1:  # every minute of a night is one gap, not 600 rows
            lost = [(lost[0][0], f"{lost[0][1]}; nor at the {len(lost) - 1:,} slots after it, up to {lost[-1][0]:%Y-%m-%d %H:%M} UTC")]
        if not in_time:
            lost.append((last, f"{down} within {clock.duration(job.grace_s)} of it"))
        return self._runs.fire(job.name, slot_at=last if in_time else None, lost=lost, cron=job.schedule, next_at=upcoming)


def next_slot(cron: str, after: dt.datetime) -> dt.datetime:
    """The first moment after `after` that a cron line names. Raises BadSchedule."""
    found = _trigger(cron).get_next_fire_time(None, after + dt.timedelta(microseconds=1))
    if found is None:
        raise BadSchedule(f"The schedule {cron!r} never comes.", "Check its day and month.")
    return found


def _slots(cron: str, first: dt.datetime, until: dt.datetime) -> list[dt.datetime]:
    """The slots from `first` to `until`, both included; of very many, the newest."""
    slots, slot = [], first
    trigger = _trigger(cron)
    while slot is not None and slot <= until:
        slots.append(slot)
        slot = trigger.get_next_fire_time(slot, slot + dt.timedelta(microseconds=1))
    return slots[-(MOST_SLOTS + 1):]


def _trigger(cron: str) -> CronTrigger:
    fields = cron.split()
    if len(fields) == 5 and re.search(r"\d", fields[4]):
        hint = "Name them (mon-fri): cron and APScheduler count from different days."
        raise BadSchedule(f"The schedule {cron!r} numbers its weekdays.", hint)
    try:
        return CronTrigger.from_crontab(cron, timezone=clock.UTC)
    except ValueError as error:
        raise BadSchedule(f"The schedule {cron!r} cannot be read ({error}).", "Five fields: minute hour day month weekday.") from None
