"""How long rows of the tables that only grow are kept. Owns no table: it deletes by age, and nothing else."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping

from fmcore import clock
from fmcore.store.store import Store

AGE_COLUMN = {
    "run_metrics": "noted_at",
    "predictions": "noted_at",
    "missed_slots": "noted_at",
    "source_checks": "checked_at",
    "outbox": "created_at",
    "bundles": "made_at",
    "deliveries": "tried_at",
    "explanations": "noted_at",
    "interactions": "noted_at",
    "catalogue_items": "noted_at",
    "recommend_folds": "noted_at",
    "contests": "noted_at",
}
"""The tables that may be pruned, and the column that says how old a row is. Runs, models and the audit are kept for good."""
NEWEST_STAYS = {
    "source_checks": "source",
    "interactions": "dataset, who, item, kind",
    "catalogue_items": "dataset, item",
    "recommend_folds": "version",
    "contests": "version",
}
"""Tables whose newest row of each such thing is kept however old: the last look at a source says where the next one goes on, and a past
that a person has, or took something out of, must not change because time went by."""


def prune(store: Store, keep_days: Mapping[str, float]) -> dict[str, int]:
    """Delete rows older than so many days; returns how many went, by table. Raises KeyError on a table that is kept for good."""
    gone = {}
    for table, days in keep_days.items():
        before = clock.to_store(clock.now() - dt.timedelta(days=days))
        age, of = AGE_COLUMN[table], NEWEST_STAYS.get(table)
        kept = f"AND rowid NOT IN (SELECT arg_max(rowid, {{'at': {age}, 'row': rowid}}) FROM {table} GROUP BY {of})" if of else ""
        with store.write() as tx:
            gone[table] = tx.execute(f"DELETE FROM {table} WHERE {age} < ? {kept}", [before])[0][0]
    return gone


def forget_runs(store: Store, jobs: Collection[str], *, before: dt.datetime) -> int:
    """Delete the runs of these jobs that went well and ended before a moment, and their facts; returns how many. A job's newest stays."""
    marks = ", ".join("?" * len(jobs)) or "''"
    sql = f"""DELETE FROM runs WHERE job IN ({marks}) AND state = 'succeeded' AND finished_at < ?
              AND id NOT IN (SELECT arg_max(id, requested_at) FROM runs GROUP BY job)"""
    with store.write() as tx:
        gone = tx.execute(sql, [*jobs, clock.to_store(before)])[0][0]
        tx.execute("DELETE FROM run_facts WHERE run_id NOT IN (SELECT id FROM runs)")
        return gone
