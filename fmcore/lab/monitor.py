"""The pretraining monitor: what can be watched, its curves, and what the fixed sentences' masks were filled with at each checkpoint.

Owns how a run at work and a base on the shelf are looked at alike. Starts and stops nothing; what a run wrote while it works is read as
far as it is whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fmcore import run_facts
from fmcore.models import bases
from fmcore.models.bases import FILLED_COLUMNS, Base
from fmcore.nouns import Run
from fmcore.run_facts import RunFacts
from fmcore.runs import Runs

JOB = "pretrain"
LIVE_FILLS = Path("checkpoint") / "fills.jsonl"
"""Where a run at work keeps what its checkpoints put behind the masks, in its folder."""
LONGEST = 50


@dataclass(frozen=True)
class Watched:
    """Something to look at: a run that is not on the shelf yet or never will be, or a base. key: run:ID or base:NAME."""

    key: str
    run: Run | None
    base: Base | None

    @property
    def at_work(self) -> bool:
        return self.run is not None and not self.run.is_over

    @property
    def about(self) -> Mapping[str, Any]:
        """objective, start, corpus and the like: a base's facts, else what the run was asked for."""
        return self.base.facts if self.base is not None else self.run.params


def watchable(runs: Runs, home: Path) -> list[Watched]:
    """Runs at work first, then bases, the newest first, then runs that ended without leaving a base."""
    found = runs.history(job=JOB, limit=LONGEST) if JOB in runs.jobs else []
    shelf = bases.listed(home)
    on_shelf = {base.name for base in shelf}
    made = {run.result.get("name"): run for run in found if run.state == "succeeded"}
    working = [Watched(f"run:{run.id}", run, None) for run in found if not run.is_over]
    kept = [Watched(f"base:{base.name}", made.get(base.name), base) for base in shelf]
    ended = [Watched(f"run:{run.id}", run, None) for run in found if run.is_over and run.result.get("name") not in on_shelf]
    return [*working, *kept, *ended]


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
    path = run_dir / LIVE_FILLS
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
            rows.append([row[name] for name in FILLED_COLUMNS])
        except (ValueError, KeyError, TypeError):
            continue
    return pd.DataFrame(rows, columns=list(FILLED_COLUMNS))


def facts(runs: Runs, watched: Watched) -> RunFacts | None:
    """What the run cost and where it ran; None for a base that was made elsewhere."""
    return run_facts.if_known(runs.store, watched.run.id if watched.run is not None else None)


def progress(base: Base) -> pd.DataFrame:
    """A base's curve for a comparison: columns step, tokens, and the figures it has, tokens 0 where it does not know them."""
    curve = base.curve()
    return curve.assign(tokens=curve.get("tokens", 0))
