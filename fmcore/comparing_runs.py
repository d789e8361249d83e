"""Runs side by side, and where a model comes from: what differs between runs, how far each is from the baseline, and the line of descent.

Reads stored rows only: runs, their facts and curves, versions, promotions. Owns no table; the pinned baseline is a row of the audit, since
pinning is an act of a person, and the newest one of a job and task holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fmcore import clock, run_facts
from fmcore.models.registry import Registry, UnknownModel
from fmcore.nouns import FMError, ModelVersion
from fmcore.run_facts import MADE_FROM, RunFacts
from fmcore.runs import UnknownRun
from fmcore.store.store import Store, to_json
from fmcore.text import clean

if TYPE_CHECKING:
    import pandas as pd

PINNED, UNPINNED = "pin a baseline", "unpin a baseline"
MAX_RUNS = 50
MAX_ATTEMPTS = 20
COSTS = ("seconds", "peak_rss_mb", "energy_j")
LOWER_IS_BETTER = ("loss", "ece", "error", "perplexity", "seconds", "rss_mb", "energy_j", "_ms", "mb", "lost")
OF_OTHERS = ("baseline", "majority", "lexicon", "against_baseline")
"""Figures of what a model was held against: neither end of them is the better one."""
NO_DIRECTION = ("n", "threshold", "temperature", "step", "epoch", "lr")


class BadComparison(FMError):
    """Too few or too many runs to be held against each other."""


@dataclass(frozen=True)
class Delta:
    """How far a run's figure is from the baseline's. low and high: 95 % interval, None where a figure came without one.

    verdict: "better", "worse", "no clear difference" (the interval holds 0) or "" (no interval, or no direction is the better one).
    """

    value: float
    low: float | None = None
    high: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Differing:
    """A parameter or fact that is not the same in all runs. values: run id -> value, None where a run has none."""

    part: str
    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """A figure of the runs. values: run id -> number or Estimate as a dict; deltas: run id -> against the baseline, where both have it."""

    name: str
    values: Mapping[str, Any]
    deltas: Mapping[str, Delta]


@dataclass(frozen=True)
class Comparison:
    """Runs against a baseline. runs: their facts, the baseline first. curves: name -> frame, index step, a column a run id."""

    baseline: str
    pinned: bool
    runs: tuple[RunFacts, ...]
    params: tuple[Differing, ...]
    metrics: tuple[Measured, ...]
    curves: Mapping[str, pd.DataFrame] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Node:
    """A thing in a line of descent. kind: data, base, run, version or champion; asked: it is what was asked for."""

    kind: str
    id: str
    title: str
    detail: Mapping[str, Any]
    asked: bool = False
    children: tuple[Node, ...] = ()


# --- the baseline


def pin(store: Store, run_id: str, *, by: str) -> str:
    """Make a run the baseline of its job and task, until another is pinned. Returns what it is the baseline of. Raises UnknownRun."""
    scope = _scope(run_facts.of(store, run_id))
    _audit(store, PINNED, {"run": run_id, "of": scope}, by=by)
    return scope


def unpin(store: Store, run_id: str, *, by: str) -> None:
    """No run is the baseline of that run's job and task any more. Raises UnknownRun."""
    _audit(store, UNPINNED, {"run": run_id, "of": _scope(run_facts.of(store, run_id))}, by=by)


def pinned(store: Store, run_id: str) -> str | None:
    """The run that is pinned for the job and task of this one, as long as it is there. Raises UnknownRun."""
    scope = _scope(run_facts.of(store, run_id))
    rows = store.rows("SELECT what, detail FROM audit WHERE what IN (?, ?) ORDER BY noted_at DESC, rowid DESC", PINNED, UNPINNED)
    for row in rows:
        detail = json.loads(row["detail"])
        if detail.get("of") == scope:
            found = run_facts.if_known(store, detail["run"]) if row["what"] == PINNED else None
            return found.run_id if found else None
    return None


def _scope(facts: RunFacts) -> str:
    """What runs are alike enough to share a baseline: the job, and the task where it has one."""
    task = facts.params.get("task")
    return f"{facts.job} {task}" if isinstance(task, str) and task else facts.job


def _audit(store: Store, what: str, detail: Mapping[str, Any], *, by: str) -> None:
    with store.write() as tx:
        row = [clean(by, limit=80)[0] or "unknown", what, to_json(dict(detail)), clock.to_store(clock.now())]
        tx.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", row)


# --- comparing


def compare(store: Store, run_ids: Sequence[str], *, baseline: str | None = None) -> Comparison:
    """Runs against the named baseline, else the pinned one of the first run's job and task, else the first run.

    Raises UnknownRun, and BadComparison for fewer than two runs with the baseline, or more than 50.
    """
    asked = list(dict.fromkeys(run_ids))
    if not asked or len(asked) > MAX_RUNS:
        raise BadComparison(f"{len(asked)} runs cannot be compared.", f"Name two or more, at most {MAX_RUNS}.")
    kept = pinned(store, asked[0])
    first = baseline or kept or asked[0]
    ids = [first, *(run_id for run_id in asked if run_id != first)]
    if len(ids) < 2:
        raise BadComparison("One run alone has nothing to be compared with.", "Name another run, or pin a baseline.")
    runs = tuple(run_facts.of(store, run_id) for run_id in ids)
    versions = {run.run_id: _version_of(store, run.run_id) for run in runs}
    curves = {run.run_id: _curve(store, run.run_id) for run in runs}
    measured = {run.run_id: _figures(run, versions[run.run_id], curves[run.run_id]) for run in runs}
    return Comparison(
        baseline=first, pinned=first == kept, runs=runs, params=tuple(_differing(runs)),
        metrics=tuple(_measured(measured, first)), curves=_aligned(curves),
    )  # fmt: skip


def as_json(compared: Comparison) -> dict[str, Any]:
    """The comparison as JSON data; curves as {name: {"step": [...], run id: [...]}}, null where a run has no point."""
    curves = {}
    for name, frame in compared.curves.items():
        points = {str(run_id): [None if v != v else float(v) for v in frame[run_id]] for run_id in frame}  # NaN is not itself
        curves[name] = {"step": [int(step) for step in frame.index], **points}
    return {
        "baseline": compared.baseline, "pinned": compared.pinned, "runs": [_told(run) for run in compared.runs],
        "params": [asdict(row) for row in compared.params], "metrics": [asdict(row) for row in compared.metrics], "curves": curves,
    }  # fmt: skip


def _told(run: RunFacts) -> dict[str, Any]:
    return {**asdict(run), "code_words": run.code_words}


def _differing(runs: Sequence[RunFacts]) -> Iterable[Differing]:
    parts = {run.run_id: {"parameter": _flat(run.params), "fact": _plain_facts(run)} for run in runs}
    for part in ("parameter", "fact"):
        for name in dict.fromkeys(name for run in runs for name in parts[run.run_id][part]):
            values = {run.run_id: parts[run.run_id][part].get(name) for run in runs}
            if len({to_json(value) for value in values.values()}) > 1:
                yield Differing(part, name, values)


def _plain_facts(run: RunFacts) -> dict[str, Any]:
    named = {
        "job": run.job, "state": run.state, "code": run.code_words, "data": run.data.get("name"), "data hash": run.data.get("hash"),
        "device": run.device, "machine": run.machine, "processors": run.cpu_count,
    }  # fmt: skip
    return {**named, **{f"version of {name}": version for name, version in run.libraries.items()}}


def _flat(value: Mapping[str, Any], *, at: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found.update(_flat(inner, at=f"{at}{name}.") if isinstance(inner, Mapping) and inner else {f"{at}{name}": inner})
    return found


def _figures(run: RunFacts, version: ModelVersion | None, curve: pd.DataFrame) -> dict[str, Any]:
    """The result's figures, what its version was measured at (figures with intervals), what it cost, and where its curves ended."""
    found = {name: value for name, value in run.figures.items() if not name.startswith(("verdict.", "seconds"))}
    stored = run_facts.figures(version.metrics) if version else {}
    found |= {name: value for name, value in stored.items() if isinstance(value, Mapping) and name.count(".") < 2 and name not in found}
    last = curve.drop_duplicates("name", keep="last") if len(curve) else curve
    found |= {f"last {name}": float(value) for name, value in zip(last["name"], last["value"], strict=True)}
    return found | {name: getattr(run, name) for name in COSTS if getattr(run, name) is not None}


def _measured(measured: Mapping[str, Mapping[str, Any]], baseline: str) -> Iterable[Measured]:
    for name in dict.fromkeys(name for figures in measured.values() for name in figures):
        values = {run_id: figures[name] for run_id, figures in measured.items() if name in figures}
        against = values.get(baseline)
        deltas = {
            run_id: delta(value, against, name=name) for run_id, value in values.items() if run_id != baseline and against is not None
        }
        yield Measured(name, values, deltas)


def delta(value: Any, baseline: Any, *, name: str = "") -> Delta:
    """value - baseline, each a number or an Estimate as a dict.

    The interval is that of two independent samples by the square-and-add method (Zou and Donner 2008), which takes the two intervals as
    they are, lopsided or not. On the same held-out rows it is wider than a paired one: what it tells apart is apart.
    """
    ours, theirs = _value(value), _value(baseline)
    d = ours - theirs
    if not (run_facts.is_estimate(value) and run_facts.is_estimate(baseline)):
        return Delta(d)
    low = d - math.hypot(ours - value["low"], baseline["high"] - theirs)
    high = d + math.hypot(value["high"] - ours, theirs - baseline["low"])
    return Delta(d, low, high, _verdict(low, high, name))


def _verdict(low: float, high: float, name: str) -> str:
    last = name.rpartition(".")[2]
    if last in NO_DIRECTION or last.startswith("n_") or name.partition(".")[0] in OF_OTHERS:
        return ""
    if low <= 0 <= high:
        return "no clear difference"
    lower = any(last == word or last.endswith(word) for word in LOWER_IS_BETTER)
    return "better" if (high < 0) == lower else "worse"


def _value(figure: Any) -> float:
    return float(figure["value"] if isinstance(figure, Mapping) else figure)


def _curve(store: Store, run_id: str) -> pd.DataFrame:
    """Columns step, name, value: the run's points, before them those of the attempts that it went on from, in order of step."""
    import pandas as pd

    parts, goes_on_at = [], math.inf
    for attempt in reversed(_attempts(store, run_id)):
        own = store.frame("SELECT step, name, value FROM run_metrics WHERE run_id = ? ORDER BY name, step, noted_at", attempt)
        own = own.drop_duplicates(["name", "step"], keep="last")
        parts.append(own[own["step"] < goes_on_at])
        goes_on_at = min(goes_on_at, own["step"].min()) if len(own) else goes_on_at
    return pd.concat(parts[::-1], ignore_index=True).sort_values(["name", "step"], ignore_index=True)


def _aligned(curves: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    import pandas as pd

    names = dict.fromkeys(name for curve in curves.values() for name in curve["name"])
    columns = {name: {run: c[c["name"] == name].set_index("step")["value"] for run, c in curves.items()} for name in names}
    return {name: pd.DataFrame({run: c for run, c in runs.items() if len(c)}).sort_index() for name, runs in columns.items()}


# --- where it comes from


def lineage(store: Store, asked: str) -> Node:
    """The line of descent through a run or a version (its name, "task@version", or a task for what serves it).

    data set -> base -> run (an attempt under the one before) -> version -> when it served, and the runs and versions made from it. A base
    that is one of this desk's names the run that made it; asked for that run, the line goes on from it to the base and what stands on it.
    Raises UnknownRun for what is neither.
    """
    registry = Registry(store)
    version, run_id = _meant(store, registry, asked)
    facts = run_facts.of(store, run_id) if version is None else None
    if facts is not None:  # a run that made no version may still have been given one to work on
        version = _taught_by(registry, facts)
    if version is None:
        attempts = _attempts(store, run_id)
        known = [facts, *(run_facts.of(store, attempt) for attempt in attempts[::-1])]
        name, hashed = (next((f.data[key] for f in known if f.data.get(key)), None) for key in ("name", "hash"))
        base = next((base for f in known if (base := _base_of(f))), None)
        return _rooted(store, name, hashed, base, _Line(store, registry, run_id).run(attempts[0]))
    root = _root(registry, version)
    line = _Line(store, registry, run_id or f"{version.task}@{version.version}", failed=facts)
    return _rooted(store, root.dataset, registry.facts(root).get("split_hash"), root.base, line.led_to(root))


def _meant(store: Store, registry: Registry, asked: str) -> tuple[ModelVersion | None, str]:
    """(the version that is meant or that the run made, or None; the run's id, or "")."""
    rows = store.rows("SELECT id FROM runs WHERE id = ?", clean(asked, limit=200)[0])
    if rows:
        return _version_of(store, rows[0]["id"]), rows[0]["id"]
    named = [version for version in registry.versions() if version.version == asked]
    if named:
        return named[0], ""
    try:
        return registry.resolve(asked), ""
    except FMError as unknown:
        raise UnknownRun(f"{clean(asked, limit=80)[0]!r} is neither a run nor a version.", unknown.hint) from None


def _root(registry: Registry, version: ModelVersion) -> ModelVersion:
    """The version at the start of the line of teachers, as far as they are there."""
    seen = {version.version}
    while (name := _teacher(version)) and name not in seen:
        seen.add(name)
        try:
            version = registry.get(version.task, name)
        except UnknownModel:  # it was never here: a version brought in from elsewhere
            break
    return version


def _teacher(version: ModelVersion) -> str:
    """The name of the version that this one was made from; "" for one that was trained on data."""
    compressed = version.metrics.get("compressed")
    named = compressed.get("teacher") if isinstance(compressed, Mapping) else None
    return str(named).rpartition("@")[2] if named else ""


def _taught_by(registry: Registry, facts: RunFacts) -> ModelVersion | None:
    named = next((parent.id for parent in facts.parents if parent.how == MADE_FROM), "")
    task, _, version = named.partition("@")
    return next((v for v in registry.versions(task) if v.version == version), None) if named else None


class _Line:
    """Builds the nodes below a start; no run and no version stands twice. `failed`: a run that made nothing of the version it was given."""

    def __init__(self, store: Store, registry: Registry, asked: str, *, failed: RunFacts | None = None):
        self._store, self._registry, self._asked, self._failed = store, registry, asked, failed
        self._seen: set[str] = set()

    def run(self, run_id: str) -> Node:
        """A run with the attempts after it, or what it made."""
        self._seen.add(run_id)
        later = self._store.rows("SELECT id FROM runs WHERE retry_of = ? ORDER BY requested_at, id", run_id)
        children = [self.run(row["id"]) for row in later if row["id"] not in self._seen]
        made = _version_of(self._store, run_id)
        if made is not None and made.version not in self._seen:
            children.append(self.version(made))
        facts = run_facts.of(self._store, run_id)
        if facts.job == "pretrain" and (base := facts.result.get("base")):
            children.append(self.base(str(base).removeprefix("base:")))
        detail = {
            "state": facts.state, "seconds": facts.seconds, "device": facts.device, "code": facts.code_words,
            "data_hash": facts.data.get("hash"), "energy_j": facts.energy_j, "parents": [asdict(parent) for parent in facts.parents],
        }  # fmt: skip
        return Node("run", run_id, f"{facts.job}: {facts.state}", detail, asked=run_id == self._asked, children=tuple(children))

    def base(self, name: str) -> Node:
        """A base that a run made, with the versions that were trained on it, the oldest first."""
        on_it = [v for v in reversed(self._registry.versions()) if v.base == f"base:{name}" and not _teacher(v)]
        return Node("base", f"base:{name}", name, {}, children=tuple(self.led_to(v) for v in on_it if v.version not in self._seen))

    def led_to(self, version: ModelVersion) -> Node:
        """A version under the runs that led to it, as far as they are kept."""
        known = version.run_id and run_facts.if_known(self._store, version.run_id)
        return self.run(_attempts(self._store, version.run_id)[0]) if known else self.version(version)

    def version(self, version: ModelVersion) -> Node:
        """A version with the times at which it served and what was made from it, the oldest first."""
        self._seen.add(version.version)
        name = f"{version.task}@{version.version}"
        children = [
            Node("champion", name, f"serves since {p.at:%Y-%m-%d %H:%M} UTC", {"by": p.by, "reason": p.reason, "at": p.at.isoformat()})
            for p in reversed(self._registry.promotions(version.task)) if p.version == version.version
        ]  # fmt: skip
        for student in reversed(self._registry.versions(version.task)):
            if _teacher(student) == version.version and student.version not in self._seen:
                children.append(self.led_to(student))
        if self._failed is not None and _taught_by(self._registry, self._failed) == version and self._failed.run_id not in self._seen:
            children.append(self.run(_attempts(self._store, self._failed.run_id)[0]))
        compressed = version.metrics.get("compressed")
        detail = {
            "recipe": version.recipe, "stage": version.stage, "sha256": version.sha256, "made_at": version.created_at.isoformat(),
            "accuracy": version.metrics.get("accuracy"),
            **({key: compressed.get(key) for key in ("method", "lost", "speedup")} if isinstance(compressed, Mapping) else {}),
        }  # fmt: skip
        return Node("version", name, version.version, detail, asked=name == self._asked, children=tuple(children))


def _rooted(store: Store, dataset: str | None, hashed: str | None, base: str | None, below: Node) -> Node:
    name = (base or "").removeprefix("base:")
    on = Node("base", f"base:{name}" if name else "", name or "unknown base", _base_facts(store, name), children=(below,))
    return Node("data", f"data:{dataset}" if dataset else "", dataset or "unknown data", {"hash": hashed}, children=(on,))


def _base_facts(store: Store, name: str) -> dict[str, Any]:
    """Which run made a base and from what, where it was one of this desk's."""
    for row in store.rows("SELECT id, result FROM runs WHERE job = 'pretrain' AND state = 'succeeded' ORDER BY requested_at DESC"):
        if name and json.loads(row["result"]).get("base") == f"base:{name}":
            facts = run_facts.of(store, row["id"])
            return {"made_by": row["id"], "data": dict(facts.data), "parents": [asdict(parent) for parent in facts.parents]}
    return {}


def _attempts(store: Store, run_id: str) -> list[str]:
    """The runs that this one went on from, as far as they are kept: the first attempt first, itself last."""
    line = [run_id]
    while len(line) < MAX_ATTEMPTS:
        rows = store.rows("SELECT b.id FROM runs a JOIN runs b ON b.id = a.retry_of WHERE a.id = ?", line[0])
        if not rows or rows[0]["id"] in line:
            break
        line.insert(0, rows[0]["id"])
    return line


def _version_of(store: Store, run_id: str) -> ModelVersion | None:
    rows = store.rows("SELECT task, version FROM model_versions WHERE run_id = ? LIMIT 1", run_id)
    return Registry(store).get(rows[0]["task"], rows[0]["version"]) if rows else None


def _base_of(facts: RunFacts) -> str | None:
    named = next((parent.id for parent in facts.parents if parent.id.startswith("base:")), None)
    return named.removeprefix("base:") if named else None
