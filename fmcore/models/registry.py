"""The registry: which trained models exist, which one serves each task, and who decided that.

Owns the tables model_versions and promotions and the folders <home>/models/<task>/<version>/. A version is a verified folder plus
its row; a folder without a row does not exist. Promotions are append-only: the latest row names the champion, so that a rollback is
one more row. Never loads a model (that is models/classifier.py) and never trains one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import re
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmcore import clock, run_facts, tasks
from fmcore.models import efficiency_gate, ranking_gate
from fmcore.models.card import card_of
from fmcore.models.gate import Candidate, Verdict, judge, read_heldout, refused
from fmcore.models.manifest import Tampered, check_manifest, sync_folder, write_manifest
from fmcore.nouns import FMError, ModelVersion, Promotion
from fmcore.store.store import Store, to_json
from fmcore.text import clean, is_name

__all__ = ["NotPossible", "Registry", "Tampered", "UnknownModel", "Verdict", "check_manifest", "write_manifest"]

log = logging.getLogger("fm.registry")

ROLLED_BACK = "Rolled back: "
"""How the reason of a rollback begins; it is what tells a rollback from a promotion in the history."""
GARBAGE_AGE_S = 3600.0
_COLUMNS = "task, version, sha256, base, recipe, dataset, metrics, verdict, run_id, created_at"


class UnknownModel(FMError):
    """No version has that name, or the task has no champion; the hint names what exists."""


class NotPossible(FMError):
    """The change of champion cannot be made."""


class Registry:
    """The models of a store. Cheap to make; safe from several threads."""

    def __init__(self, store: Store):
        self.store = store
        self.root = store.home / "models"
        self._lock = threading.Lock()
        self._champions: tuple[int, dict[str, ModelVersion | None]] = (-1, {})

    # --- taking a model in

    def adopt(
        self, folder: Path, *, task: str, recipe: str, dataset: str, base: str, metrics: Mapping[str, Any], run_id: str | None = None
    ) -> ModelVersion:
        """Move a finished model folder in and write its row; the same run adopts once, however often it is asked.

        Raises Tampered when the folder is not finished or not what its manifest says. A crash after the move is made good by the
        next call for that run, or cleared away by collect_garbage.
        """
        if task not in tasks.SERVED:
            raise tasks.UnknownTask(f"There is no task {_shown(task)}.", f"Tasks: {', '.join(tasks.SERVED)}.")
        if run_id is not None and (known := self._rows("run_id = ?", run_id)):
            return known[0]
        folder = Path(folder)
        key = run_id or check_manifest(folder)
        version = f"{_slug(recipe, 24)}-{_slug(dataset, 32)}-{hashlib.blake2b(key.encode(), digest_size=4).hexdigest()}"
        digest = self._move_in(folder, self._path(task, version))
        facts = to_json(_finite(metrics))
        with self.store.write() as tx:
            if not tx.execute("SELECT 1 FROM model_versions WHERE task = ? AND version = ?", [task, version]):
                tx.execute(
                    f"INSERT INTO model_versions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, '{{}}', ?, ?)",
                    [task, version, digest, base, recipe, dataset, facts, run_id, clock.to_store(clock.now())],
                )
        log.info("model %s/%s adopted", task, version)
        return self.get(task, version)

    def _move_in(self, folder: Path, target: Path) -> str:
        """Move by rename, over an incomplete leftover if there is one. Returns the manifest's sha256."""
        if target.exists():
            with contextlib.suppress(Tampered):
                return check_manifest(target)  # moved before a crash: only its row is missing
            shutil.rmtree(target)
        digest = check_manifest(folder)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            part = target.with_name(f".incoming-{target.name}")  # another file system: copy beside the target, then rename
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(folder, part)
            check_manifest(part)
            part.rename(target)
        sync_folder(target.parent)
        return digest

    def collect_garbage(self, *, min_age_s: float = GARBAGE_AGE_S) -> list[str]:
        """Remove folders that have no row and have not changed for min_age_s: what a crash left behind. Returns their names."""
        known = {(row["task"], row["version"]) for row in self.store.rows("SELECT task, version FROM model_versions")}
        removed = []
        for folder in sorted(self.root.glob("*/*")):
            age_s = time.time() - folder.lstat().st_mtime
            if folder.is_symlink() or not folder.is_dir() or (folder.parent.name, folder.name) in known or age_s < min_age_s:
                continue
            shutil.rmtree(folder)
            removed.append(f"{folder.parent.name}/{folder.name}")
        return removed

    # --- what exists

    def versions(self, task: str | None = None) -> list[ModelVersion]:
        """Every version, newest first."""
        return self._rows("task = ?", task) if task else self._rows("true")

    def get(self, task: str, version: str) -> ModelVersion:
        """That version. Raises UnknownModel."""
        found = self._rows("task = ? AND version = ?", task, version) if is_name(task) and is_name(version) else []
        if not found:
            raise UnknownModel(f"There is no version {_shown(version)} of {_shown(task)}.", self._existing(task))
        return found[0]

    def champion(self, task: str) -> ModelVersion | None:
        """The version that serves a task, or None. Cheap: read again only after something was committed to the store."""
        seen = self.store.n_commits  # before the query: a commit in between makes the next call read again
        at, cached = self._champions
        if at == seen and task in cached:
            return cached[task]
        with self._lock:  # one caller reads, the others wait for what it finds
            seen = self.store.n_commits
            at, cached = self._champions
            if at != seen:
                cached = {}
            if task not in cached:
                stack = self._stack(task)
                found = self._rows("task = ? AND version = ?", task, stack[-1]) if stack else []
                cached = {**cached, task: found[0] if found else None}
                self._champions = (seen, cached)
            return cached[task]

    def resolve(self, name: str) -> ModelVersion:
        """The version a person means by "intent" (champion), "intent@version", or a data set name ("banking77").

        A data set means the champion if it was trained on it, else the newest version that was.
        """
        task, at, version = str(name).partition("@")
        if at:
            return self.get(task, version)
        if task in tasks.SERVED:
            if found := self.champion(task):
                return found
            raise UnknownModel(f"No model serves {task} yet.", "Train one on the Training page, or promote a version on the Models page.")
        trained = [v for v in self.versions() if v.dataset == task]
        if not trained:
            raise UnknownModel(f"No model was trained on {_shown(task)}, and no task has that name.", self._existing(None))
        return next((v for v in trained if v.stage == "champion"), trained[0])

    def verified(self, version: ModelVersion) -> Path:
        """The version's folder, after every file in it was hashed. Raises Tampered."""
        path = self._path(version.task, version.version)
        if self.root.is_symlink() or path.parent.is_symlink() or path.is_symlink():
            raise Tampered(f"{version.version}: its folder is a link to somewhere else.", "A model folder holds plain files only.")
        if check_manifest(path) != version.sha256:
            raise Tampered(f"{version.version}: its manifest is not the one that was registered.", "Train it again or promote another one.")
        return path

    def labels(self, version: ModelVersion) -> tuple[str, ...]:
        """The labels a version can answer with, from its model.json; none where that cannot be read."""
        return tuple(str(label) for label in self.facts(version).get("labels", ()))

    def facts(self, version: ModelVersion) -> dict[str, Any]:
        """model.json (its "info" laid flat) with the version's metrics over it: one place to look a stored fact up.

        A file that is missing or damaged gives fewer facts, never an error.
        """
        try:
            stored = json.loads((version.path / "model.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            stored = {}
        stored = stored if isinstance(stored, dict) else {}
        info = stored.get("info")
        return {**stored, **(info if isinstance(info, dict) else {}), **version.metrics}

    def card(self, version: ModelVersion) -> dict[str, dict[str, Any]]:
        """The model card as sections of stored facts; what is not known says "unknown"."""
        own = [p for p in self.promotions(version.task) if p.version == version.version]
        run = run_facts.if_known(self.store, version.run_id)
        return card_of(version, facts=self.facts(version), promotions=own, run=run)

    # --- who serves

    def gate(self, version: ModelVersion) -> Verdict:
        """The verdict on a version against the present champion (models/gate.py), recorded with the version."""
        champion = self.champion(version.task)
        if champion and champion.version == version.version:
            return dict(version.verdict) or refused(f"{version.version} is the champion already.", check="champion")
        verdict = self._judged(version, champion)
        update = "UPDATE model_versions SET verdict = ? WHERE task = ? AND version = ?"
        with self.store.write() as tx:
            tx.execute(update, [to_json(verdict), version.task, version.version])
        return verdict

    def _judged(self, version: ModelVersion, champion: ModelVersion | None) -> Verdict:
        against = champion.version if champion else None
        is_shelf = version.task == tasks.RECOMMEND.name
        judged, seen = (ranking_gate.judge, self._shelf) if is_shelf else (judge, self._candidate)
        try:
            candidate = seen(version)
        except (FMError, OSError, ValueError, KeyError) as error:
            return refused(f"{version.version} is not fit to serve: {_sentence(error)}", check="folder", compared_with=against)
        try:
            known = seen(champion) if champion else None
            if efficiency_gate.is_compressed(version):
                return efficiency_gate.judge(candidate, known, self._teacher(version))
            return judged(candidate, known)
        except (FMError, OSError, ValueError, KeyError) as error:
            reason = f"The champion {against} cannot be compared with: {_sentence(error)} A person has to decide."
            return refused(reason, check="champion", compared_with=against)

    def _candidate(self, version: ModelVersion) -> Candidate:
        folder, facts = self.verified(version), self.facts(version)
        return Candidate(
            version=version,
            labels=self.labels(version),
            split_hash=str(facts.get("split_hash") or ""),
            synthetic=bool(facts.get("synthetic", version.dataset == "demo")),
            heldout=read_heldout(folder),
        )

    def barred(self, version: ModelVersion) -> str:
        """Why a compressed version may never serve, as a sentence; "" for one that may, and for any other version."""
        if not efficiency_gate.is_compressed(version):
            return ""
        try:
            verdict = efficiency_gate.bar(self._candidate(version), self._teacher(version))
        except (FMError, OSError, ValueError, KeyError) as error:
            return f"{version.version} never serves: {_sentence(error)}"
        return "" if verdict["passed"] else verdict["reason"]

    def _teacher(self, version: ModelVersion) -> Candidate | None:
        """The version that a compressed one was made from; None where it is not here."""
        name = str(efficiency_gate.facts_of(version).get("teacher") or "")
        found = self._rows("task = ? AND version = ?", version.task, name)
        return self._candidate(found[0]) if found else None

    def _shelf(self, version: ModelVersion) -> ranking_gate.Candidate:
        return ranking_gate.candidate(version, folder=self.verified(version), facts=self.facts(version))

    def promote(self, task: str, version: str, *, by: str, reason: str) -> Promotion:
        """Make a version the champion: one row. Raises NotPossible without a reason and for a version that is barred, Tampered when its
        folder does not verify."""
        return self._crown(self.get(task, version), by=by, reason=_reason(reason), what="promote")

    def rollback(self, task: str, *, by: str, reason: str) -> Promotion:
        """Make the champion before this one serve again. Raises NotPossible when there was none."""
        reason = _reason(reason)
        stack = self._stack(task)
        if len(stack) < 2:
            raise NotPossible(f"{_shown(task)} has no earlier champion to go back to.", self._existing(task))
        return self._crown(self.get(task, stack[-2]), by=by, reason=ROLLED_BACK + reason, what="rollback")

    def _crown(self, version: ModelVersion, *, by: str, reason: str, what: str) -> Promotion:
        self.verified(version)
        if why := self.barred(version):
            raise NotPossible(why, "Compress it less (more layers, a larger share kept), or serve the model it was made from.")
        who = clean(by, limit=80)[0] or "unknown"
        with self.store.write() as tx:
            stack = self._stack(version.task)
            previous = stack[-1] if stack else None
            if previous == version.version:
                raise NotPossible(f"{version.version} is the champion already.", "")
            at = clock.now()
            row = [version.task, version.version, previous, who, reason, clock.to_store(at)]
            tx.execute("INSERT INTO promotions VALUES (?, ?, ?, ?, ?, ?)", row)
            detail = to_json({"task": version.task, "version": version.version, "previous": previous, "reason": reason})
            tx.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", [who, what, detail, clock.to_store(at)])
        log.info("%s: %s serves in place of %s", version.task, version.version, previous)
        return Promotion(version.task, version.version, previous, who, reason, at)

    def promotions(self, task: str) -> list[Promotion]:
        """Every change of champion, newest first."""
        rows = self.store.rows("SELECT * FROM promotions WHERE task = ? ORDER BY noted_at DESC, rowid DESC", task)
        return [Promotion(r["task"], r["version"], r["previous"], r["who"], r["reason"], clock.from_store(r["noted_at"])) for r in rows]

    def former_champions(self, task: str) -> list[str]:
        """The versions a rollback would go back to, the nearest first."""
        return self._stack(task)[-2::-1]

    # --- rows

    def _stack(self, task: str) -> list[str]:
        """The champions as a stack, the present one last: a promotion puts one on top, a rollback takes it off."""
        return _stacked(self.promotions(task))

    def _rows(self, where: str, *params: Any) -> list[ModelVersion]:
        rows = self.store.rows(f"SELECT {_COLUMNS} FROM model_versions WHERE {where} ORDER BY created_at DESC, rowid DESC", *params)
        history = {task: self.promotions(task) for task in {row["task"] for row in rows}}
        served = {task: {p.version for p in promotions} for task, promotions in history.items()}
        on_top = {task: (_stacked(promotions) or [None])[-1] for task, promotions in history.items()}
        return [self._version(row, champion=on_top[row["task"]], served=served[row["task"]]) for row in rows]

    def _version(self, row: Mapping[str, Any], *, champion: str | None, served: set[str]) -> ModelVersion:
        name = row["version"]
        return ModelVersion(
            task=row["task"],
            version=name,
            path=self._path(row["task"], name),
            sha256=row["sha256"],
            base=row["base"],
            recipe=row["recipe"],
            dataset=row["dataset"],
            metrics=json.loads(row["metrics"]),
            stage="champion" if name == champion else "retired" if name in served else "candidate",
            created_at=clock.from_store(row["created_at"]),
            run_id=row["run_id"],
            verdict=json.loads(row["verdict"]),
        )

    def _path(self, task: str, version: str) -> Path:
        """<root>/<task>/<version>; both are file names, never paths."""
        if not (is_name(task) and is_name(version)):
            raise UnknownModel(f"{_shown(task)}/{_shown(version)} is no name of a model.", "Names are letters, digits, '.', '_' and '-'.")
        return self.root / task / version

    def _existing(self, task: str | None) -> str:
        found = [v for v in self.versions() if task not in tasks.SERVED or v.task == task]
        if not found:
            return "There are no models yet: start a run on the Training page."
        names = ", ".join(f"{v.task}@{v.version} ({v.dataset})" for v in found[:8])
        return f"There is: {names}{' and more' if len(found) > 8 else ''}."


def _stacked(promotions: Sequence[Promotion]) -> list[str]:
    stack: list[str] = []
    for change in reversed(promotions):
        if change.reason.startswith(ROLLED_BACK) and len(stack) > 1 and stack[-2] == change.version:
            stack.pop()
        else:
            stack.append(change.version)
    return stack


def _reason(text: str) -> str:
    """A reason a person can read later. Raises NotPossible without one."""
    reason = clean(text, limit=500)[0].strip()
    if reason.startswith(ROLLED_BACK):
        reason = reason.removeprefix(ROLLED_BACK).strip()
    if not reason:
        raise NotPossible("A change of champion needs a reason.", "Say in a few words why this version should serve.")
    return reason


def _slug(name: str, limit: int) -> str:
    """A name as part of a file name: a data set that is a path gives its file's stem."""
    stem = Path(name).stem if "/" in name or name.endswith(".csv") else name
    return re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:limit].strip("-") or "x"


def _finite(value: Any) -> Any:
    """JSON data with None in the place of NaN and infinities, so that a failed training is stored as one and judged."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(name: object) -> str:
    return repr(clean(name, limit=80)[0])


def _sentence(error: Exception) -> str:
    return error.message if isinstance(error, FMError) else f"a file cannot be read ({type(error).__name__})."
