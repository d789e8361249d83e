"""The rows of schedules and missed_slots: when a job fires next, and at which moments it should have run but did not.

Owned together with fmcore/runs.py, which writes them in the same transaction as the run that a slot becomes. Knows no
cron arithmetic: that is the scheduler's part (jobs/scheduler.py).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

from fmcore import clock
from fmcore.nouns import Job, MissedSlot, Schedule
from fmcore.store.store import Store, Transaction


def schedules(store: Store, jobs: Mapping[str, Job]) -> list[Schedule]:
    """Every job with a schedule: its next slot, its last one and how that ended ("missed", or the run's state)."""
    rows = {row["job"]: row for row in store.rows("SELECT * FROM schedules")}
    sql = "SELECT job, max(slot_at) AS slot_at, arg_max(state, slot_at) AS state FROM runs WHERE slot_at IS NOT NULL GROUP BY job"
    ran = {row["job"]: row for row in store.rows(sql)}
    lost = {row["job"]: row for row in store.rows("SELECT job, max(slot_at) AS slot_at, count(*) AS n FROM missed_slots GROUP BY job")}
    found = []
    for job in jobs.values():
        if job.schedule is None:
            continue
        row, run, miss = rows.get(job.name, {}), ran.get(job.name), lost.get(job.name)
        last_at, state = (run["slot_at"], run["state"]) if run else (None, "")
        if miss and (last_at is None or miss["slot_at"] > last_at):
            last_at, state = miss["slot_at"], "missed"
        next_at = clock.from_store(row["next_at"]) if row.get("cron") == job.schedule else None
        found.append(Schedule(job.name, job.schedule, next_at, clock.from_store(last_at), state, miss["n"] if miss else 0))
    return found


def missed(store: Store, limit: int) -> list[MissedSlot]:
    """The newest missed slots first."""
    rows = store.rows("SELECT * FROM missed_slots ORDER BY slot_at DESC, job LIMIT ?", int(limit))
    return [MissedSlot(r["job"], clock.from_store(r["slot_at"]), r["reason"], clock.from_store(r["noted_at"])) for r in rows]


def planned(store: Store) -> dict[str, tuple[str, dt.datetime]]:
    """(cron line, next slot) of each job, as last set."""
    return {row["job"]: (row["cron"], clock.from_store(row["next_at"])) for row in store.rows("SELECT job, cron, next_at FROM schedules")}


def set_next(tx: Transaction, job: str, cron: str, next_at: dt.datetime, *, fired: dt.datetime | None = None) -> None:
    """Store when a job fires next and, given `fired`, which slot was its last."""
    row = [cron, clock.to_store(next_at), clock.to_store(fired), job]
    if tx.execute("SELECT 1 FROM schedules WHERE job = ?", [job]):
        tx.execute("UPDATE schedules SET cron = ?, next_at = ?, last_at = coalesce(?, last_at) WHERE job = ?", row)
    else:
        tx.execute("INSERT INTO schedules (cron, next_at, last_at, job) VALUES (?, ?, ?, ?)", row)


def taken(tx: Transaction, job: str, slots: Iterable[dt.datetime]) -> set[dt.datetime]:
    """Those of the slots that have a run or a missed row already."""
    wanted = list(slots)
    if not wanted:
        return set()
    span = [job, clock.to_store(min(wanted)), clock.to_store(max(wanted))]
    rows = tx.execute("SELECT slot_at FROM runs WHERE job = ? AND slot_at BETWEEN ? AND ?", span)
    rows += tx.execute("SELECT slot_at FROM missed_slots WHERE job = ? AND slot_at BETWEEN ? AND ?", span)
    return {clock.from_store(row[0]) for row in rows} & set(wanted)


def record_missed(tx: Transaction, job: str, lost: Iterable[tuple[dt.datetime, str]], *, at: dt.datetime) -> None:
    """Write down (slot, reason) pairs."""
    rows = [[job, clock.to_store(slot), why[:300], clock.to_store(at)] for slot, why in lost]
    tx.executemany("INSERT INTO missed_slots VALUES (?, ?, ?, ?)", rows)
