"""The pretraining monitor: what can be watched, its curves, and what the fixed sentences' masks were filled with at each checkpoint.

Owns how a run at work and a base on the shelf are looked at alike. Starts and stops nothing; what a run wrote while it works is read as
far as it is whole.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fmcore import run_facts
from fmcore.data import catalogue
from fmcore.models import bases
from fmcore.models.bases import FILLED_COLUMNS, Base
from fmcore.models.manifest import MANIFEST
from fmcore.nouns import Run
from fmcore.run_facts import RunFacts
from fmcore.runs import Runs

JOB = "pretrain"
LIVE_FILLS, LIVE_CURVE = Path("checkpoint") / "fills.jsonl", Path("checkpoint") / "curve.jsonl"
"""Where a run at work keeps what its checkpoints put behind the masks and what they were measured at, in its folder."""
SETTINGS = "settings.json"
"""What the job froze for a run, in its folder."""
SMALL_SETS, SMALL_MINUTES = ("twitter_financial_topic", "financial_phrasebank"), 5.0
"""What a small run reads where it is on this machine (a minute's reading is saved by leaving the large sets out), and how long it takes."""
LONGEST, ENDED = 50, 8
"""Runs that are looked through; of those that left no base, how many are shown."""


@dataclass(frozen=True)
class Watched:
    """Something to look at: a run that is not on the shelf yet or never will be, or a base. key: run:ID or base:NAME; about: objective,
    start, corpus and the like, of a base's facts, else of what the run was asked for."""

    key: str
    run: Run | None
    base: Base | None
    about: Mapping[str, Any]

    @property
    def at_work(self) -> bool:
        return self.run is not None and not self.run.is_over


def watchable(runs: Runs, home: Path) -> list[Watched]:
    """Runs at work first, then bases, the newest first, then the last runs that ended without leaving a base."""
    found = runs.history(job=JOB, limit=LONGEST) if JOB in runs.jobs else []
    shelf = bases.listed(home)
    on_shelf = {base.name for base in shelf}
    working = [_of_run(runs, run) for run in found if not run.is_over]
    made = {_base_of(run): run for run in found}
    kept = [Watched(f"base:{base.name}", made.get(base.name), base, base.facts) for base in shelf]
    ended = [run for run in found if run.is_over and _base_of(run) not in on_shelf]
    return [*working, *kept, *(_of_run(runs, run) for run in ended[:ENDED])]


def small_run() -> dict[str, Any]:
    """Parameters of a run that is over in minutes: a tiny model from scratch on the small finance sets, or what is here without them."""
    there = [name for name in SMALL_SETS if catalogue.dataset(name).state != "missing"]
    return {"objective": "mlm", "start": "scratch", "size": "tiny", "corpus": ",".join(there), "minutes": SMALL_MINUTES}


def can_keep(runs: Runs, watched: Watched) -> bool:
    """Whether a run that stopped, since its loss was no number any more, left a good checkpoint that may go on the shelf."""
    ended_early = watched.base is None and watched.run is not None and watched.run.state == "failed"
    return ended_early and (runs.folder(watched.run.id) / "model" / MANIFEST).is_file()


def _base_of(run: Run) -> str:
    return str(run.result.get("base", "")).removeprefix(bases.PREFIX)


def _of_run(runs: Runs, run: Run) -> Watched:
    """A run with the corpus that was frozen for it, where it got so far."""
    about = dict(run.params)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        about["corpus"] = json.loads((runs.folder(run.id) / SETTINGS).read_text(encoding="utf-8"))["corpus"]["names"]
    return Watched(f"run:{run.id}", run, None, about)


def curves(runs: Runs, watched: Watched) -> pd.DataFrame:
    """Columns step, name, value: what a run told of itself, else what the base kept at its checkpoints."""
    told = runs.metrics(watched.run.id)[["step", "name", "value"]] if watched.run is not None else pd.DataFrame()
    if len(told) or watched.base is None:
        return told if len(told) else pd.DataFrame(columns=["step", "name", "value"])
    return watched.base.curve().melt(id_vars="step", var_name="name", value_name="value").dropna()


def fills(runs: Runs, watched: Watched) -> pd.DataFrame:
    """FILLED_COLUMNS: the words behind the masks of the fixed sentences, by checkpoint; empty where there is none yet."""
    if watched.base is not None:
        return watched.base.filled()
    return live_fills(runs.folder(watched.run.id))


def live_fills(run_dir: Path) -> pd.DataFrame:
    """What a run at work has written so far. A line that is not whole, the last one of a run that was killed, is left out."""
    rows = [row for row in _lines(run_dir / LIVE_FILLS) if row.keys() >= set(FILLED_COLUMNS)]
    return pd.DataFrame(rows, columns=list(FILLED_COLUMNS))


def tokens(runs: Runs, watched: Watched) -> int | None:
    """How many tokens a run had read at its last checkpoint; None where it left no note of it."""
    if watched.run is None:
        return None
    noted = [row["tokens"] for row in _lines(runs.folder(watched.run.id) / LIVE_CURVE) if isinstance(row.get("tokens"), int)]
    return noted[-1] if noted else None


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON lines file that are whole; none where there is no file."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            found += [row] if isinstance(row, dict) else []
    return found


def facts(runs: Runs, watched: Watched) -> RunFacts | None:
    """What the run cost and where it ran; None for a base that was made elsewhere."""
    return run_facts.if_known(runs.store, watched.run.id if watched.run is not None else None)
