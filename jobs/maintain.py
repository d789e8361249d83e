"""The daily job that keeps the desk well: a backup that is proven to restore, old files and rows away, a compact database.

Never deletes a run's row, a model, or the newest sound backup.
"""

from __future__ import annotations

import datetime as dt
import logging
import shutil
import time
from typing import Any

from pydantic import BaseModel, Field

from fmcore import clock
from fmcore.nouns import Job, Report
from fmcore.runs import Runs
from fmcore.store import backup, retention
from fmcore.store.store import Store

log = logging.getLogger("fm.jobs")

ROUTINE_KEPT = dt.timedelta(days=1)
"""How long the good runs of jobs that run every few minutes are kept; the others stay for good."""


class Maintain(BaseModel, extra="forbid"):
    """How much is kept."""

    keep_backups: int = Field(7, ge=1, le=1000, description="Newest backups kept")
    keep_run_files_days: float = Field(30, ge=1, description="Days that a run's folder (log, checkpoint) and cached embeddings are kept")
    keep_rows_days: float = Field(365, ge=1, description="Days that metrics, the prediction log, stored explanations and repeated interactions are kept")  # noqa: E501  # fmt: skip


def run(store: Store, params: Maintain, report: Report) -> dict[str, Any]:
    """Back up, prove it, prune, checkpoint. Raises BackupDamaged when the backup does not restore; nothing is pruned then."""
    report.progress(0.1, "backing up")
    folder = backup.backup(store)
    report.progress(0.4, "restoring the backup into a temporary database")
    try:
        proof = backup.drill(store, folder)
    except backup.BackupDamaged:
        folder.rename(folder.with_name(f"{folder.name}.part"))  # not a backup any more, but kept to be looked at
        raise
    report.progress(0.7, "clearing away what is old")
    from jobs import JOBS  # not above: that list holds this job

    routine = [job.name for job in JOBS.values() if job.routine]
    n_routine = retention.forget_runs(store, routine, before=clock.now() - ROUTINE_KEPT)
    n_folders = _prune_run_files(store, older_than_s=params.keep_run_files_days * 86400)
    n_cached = _prune_cache(store, older_than_s=params.keep_run_files_days * 86400)
    rows = retention.prune(store, {table: params.keep_rows_days for table in retention.AGE_COLUMN})
    for old in backup.backups(store.home)[params.keep_backups:]:
        shutil.rmtree(old, ignore_errors=True)
    report.progress(0.9, "compacting the database")
    store.checkpoint()
    kept = backup.backups(store.home)
    return {"backup": folder.name, "drill": proof, "backups_kept": len(kept), "run_folders_removed": n_folders,
            "cached_files_removed": n_cached, "routine_runs_removed": n_routine, "rows_removed": rows}


def _prune_run_files(store: Store, *, older_than_s: float) -> int:
    """Remove the folders of runs that ended long ago, and the checkpoints of runs that succeeded: nobody resumes those."""
    runs, home, removed = Runs(store, {}), store.home / "runs", 0
    active = {run.id for run in runs.active()} | {run.retry_of for run in runs.active()}
    done = {row["id"] for row in store.rows("SELECT id FROM runs WHERE state = 'succeeded'")}
    for folder in sorted(home.iterdir()) if home.is_dir() else []:
        if folder.name in active or folder.is_symlink() or not folder.is_dir():
            continue
        if time.time() - folder.stat().st_mtime > older_than_s:
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
        elif folder.name in done:
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return removed


def _prune_cache(store: Store, *, older_than_s: float) -> int:
    """Remove cached embeddings that were made long ago: they can be made again, and nothing else bounds them."""
    stale = [f for f in (store.home / "cache").rglob("*.safetensors") if time.time() - f.stat().st_mtime > older_than_s]
    for file in stale:
        file.unlink(missing_ok=True)
    return len(stale)


JOB = Job(
    name="maintain",
    title="Backup and upkeep",
    summary="Backs up every table, proves the backup by restoring it, and clears away old run files and rows.",
    kind="light",
    params=Maintain,
    run=run,
    schedule="30 2 * * *",
    timeout_s=3600,
    grace_s=23 * 3600,  # a machine that sleeps at night still gets its daily backup
)
