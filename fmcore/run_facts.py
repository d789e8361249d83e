"""Facts of a run: what it was made of, where it ran, what it cost and what it left, so that a figure can be traced and repeated.

Owns the table run_facts: rows are added, never changed, and the last row of a run holds all that is known of it. A fact is what the run's
own process or its runner measured; what nobody could measure is None and is shown as unknown. Facts are never a reason for a run to
fail: whoever gathers them catches what goes wrong (jobs/record.py, jobs/child.py). Holds no text of people: names, numbers and digests.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fmcore
from fmcore import clock, config
from fmcore.nouns import Run
from fmcore.runs import UnknownRun
from fmcore.store.store import Store, to_json
from fmcore.text import clean, is_name

LIBRARIES = (
    "torch", "transformers", "tokenizers", "sentence-transformers", "peft", "onnxruntime", "onnx", "scikit-learn", "scipy", "numpy",
    "pandas", "pyarrow", "duckdb", "safetensors", "implicit", "stable-baselines3", "model2vec", "streamlit",
)  # fmt: skip
"""Whose versions are noted with a run, where they are installed."""
NOT_MADE = ("spec.json", "result.json", "result.json.part", "log.txt", "log.1.txt", "checkpoint", "checkpoint.part", "settings.json")
"""Files and folders at the top of a run's folder that are neither its data nor what it made."""
HASH_KEYS = ("split_hash", "corpus_hash", "data_hash")
MAX_FILES, MAX_HASHED_BYTES, MAX_JSON_BYTES = 120, 2_000_000_000, 16_000_000
MANIFEST = "MANIFEST.json"
MADE_FROM = "made from"
"""How a compressed version's run names its teacher."""


@dataclass(frozen=True)
class Artefact:
    """A file that a run made. sha256 is the manifest's; None where the file stands under none."""

    name: str
    bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class Parent:
    """What a run came from. id: a run's id, "task@version", "base:NAME" or "data:NAME"; how: in words, to be read before it."""

    id: str
    how: str


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run. None and empty mean unknown.

    code: {"commit", "dirty", "package"}; data: {"name", "hash", "of", "files"}; figures: name -> number or Estimate as a dict, of the
    run's result; seconds of work; peak_rss_mb of the run's own process (light jobs have none); energy_j with energy_note, which says
    what it is of, or why there is none. notes: sentences for a person, such as a mirror that could not write.
    """

    run_id: str
    job: str
    state: str
    params: Mapping[str, Any]
    result: Mapping[str, Any]
    figures: Mapping[str, Any]
    code: Mapping[str, Any]
    data: Mapping[str, Any]
    device: str | None
    machine: str | None
    cpu_count: int | None
    libraries: Mapping[str, str]
    seconds: float | None
    peak_rss_mb: float | None
    energy_j: float | None
    energy_note: str
    artefacts: tuple[Artefact, ...]
    parents: tuple[Parent, ...]
    notes: tuple[str, ...]

    @property
    def code_words(self) -> str | None:
        """The code's version for a person: "commit 1a2b3c4d5e6f, with uncommitted changes", or the package's version."""
        commit, dirty = self.code.get("commit"), self.code.get("dirty")
        if commit:
            return f"commit {commit[:12]}" + {True: ", with uncommitted changes", False: ""}.get(dirty, ", changes unknown")
        return self.code.get("package")


def note(store: Store, run_id: str, facts: Mapping[str, Any]) -> None:
    """Add to what is known of a run: a name that was noted before is replaced, notes and parents are added to.

    Raises StoreError: NotFinite for a number that is not, or what a full disk gives.
    """
    with store.write() as tx:
        found = tx.execute("SELECT facts FROM run_facts WHERE run_id = ? ORDER BY noted_at DESC, rowid DESC LIMIT 1", [run_id])
        known = json.loads(found[0][0]) if found else {}
        merged = {**known, **facts}
        for name in ("notes", "parents"):
            more = [entry for entry in facts.get(name, ()) if entry not in known.get(name, [])]
            merged[name] = [*known.get(name, []), *more][:MAX_FILES]
        tx.execute("INSERT INTO run_facts VALUES (?, ?, ?)", [run_id, to_json(merged), clock.to_store(clock.now())])


def of(store: Store, run_id: str) -> RunFacts:
    """All that is known of a run, from stored rows only. Raises UnknownRun."""
    rows = store.rows("SELECT * FROM runs WHERE id = ?", clean(run_id, limit=200)[0])
    if not rows:
        raise UnknownRun(f"There is no run {clean(run_id, limit=80)[0]!r}.", "See the history on the Training page.")
    return _facts(rows[0], _noted(store, rows[0]["id"]))


def if_known(store: Store, run_id: str | None) -> RunFacts | None:
    """The same, or None for no run or one that is not there any more."""
    with contextlib.suppress(UnknownRun):
        return of(store, run_id) if run_id else None
    return None


def notes(store: Store, run_id: str) -> tuple[str, ...]:
    """What a person should know of a run beside its state: the sentences noted with it."""
    return tuple(str(sentence) for sentence in _noted(store, run_id).get("notes", ()))


def _noted(store: Store, run_id: str) -> dict[str, Any]:
    found = store.rows("SELECT facts FROM run_facts WHERE run_id = ? ORDER BY noted_at DESC, rowid DESC LIMIT 1", run_id)
    return json.loads(found[0]["facts"]) if found else {}


def _facts(row: Mapping[str, Any], noted: Mapping[str, Any]) -> RunFacts:
    params, result = json.loads(row["params"]), json.loads(row["result"])
    data = dict(noted.get("data") or {})
    learnt_from = [entry["id"] for entry in noted.get("parents", ()) if entry["id"].startswith("data:")]
    named = ", ".join(name.removeprefix("data:") for name in learnt_from) or ", ".join(_data_names({**params, **result}))
    return RunFacts(
        run_id=row["id"], job=row["job"], state=row["state"], params=params, result=result, figures=figures(result),
        code=noted.get("code") or {},
        data={**data, **({"name": named} if named else {})}, device=row["device"] or None,
        machine=noted.get("machine"), cpu_count=noted.get("cpu_count"), libraries=noted.get("libraries") or {},
        seconds=noted.get("seconds", _seconds(row)), peak_rss_mb=noted.get("peak_rss_mb"), energy_j=noted.get("energy_j"),
        energy_note=noted.get("energy_note") or "Not noted: the run is not over, or the desk ended before it did.",
        artefacts=tuple(Artefact(**entry) for entry in noted.get("artefacts", ())),
        parents=tuple(Parent(**entry) for entry in noted.get("parents", ())), notes=tuple(noted.get("notes", ())),
    )  # fmt: skip


def _seconds(row: Mapping[str, Any]) -> float | None:
    """From start to end by the rows; of a run whose desk died, to its last sign of life: when it was closed says nothing."""
    end = row["beat_at"] if row["state"] in ("interrupted", "crashed") else row["finished_at"]
    return (end - row["started_at"]).total_seconds() if end is not None and row["started_at"] is not None else None


def figures(result: Mapping[str, Any], *, at: str = "") -> dict[str, Any]:
    """The numbers of a result, flat ("oos.recall"): plain ones, and Estimates as dicts {"value", "low", "high"[, "n"]}."""
    found: dict[str, Any] = {}
    for name, value in result.items():
        path = f"{at}{name}"
        if is_estimate(value):
            found[path] = {key: value[key] for key in ("value", "low", "high", "n") if value.get(key) is not None}
        elif isinstance(value, Mapping):
            found.update(figures(value, at=f"{path}."))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[path] = value
    return found


def is_estimate(value: Any) -> bool:
    """Whether it is a figure with its interval, as JSON has it."""
    return isinstance(value, Mapping) and all(isinstance(value.get(key), int | float) for key in ("value", "low", "high"))


# --- what a process knows of itself


def of_process() -> dict[str, Any]:
    """Code, libraries and machine of this process. Imports none of the libraries."""
    return {"code": dict(code_version()), "libraries": dict(_libraries()), "machine": _machine(), "cpu_count": os.cpu_count()}


@functools.lru_cache(maxsize=1)
def code_version() -> Mapping[str, Any]:
    """{"commit", "dirty", "package"} of the code that this process runs; asked once a process, since later changes are not what it loaded.

    commit is read from .git without starting anything; dirty (a changed file that git knows) needs git itself, and is None without it.
    """
    commit = commit_of(config.ROOT / ".git")
    return {"commit": commit, "dirty": _is_dirty(config.ROOT) if commit else None, "package": f"fm-desk {fmcore.__version__}"}


def commit_of(git: Path) -> str | None:
    """The commit that a .git folder (or a worktree's .git file) has checked out; None where there is none."""
    try:
        if git.is_file():
            git = (git.parent / git.read_text(encoding="utf-8").partition("gitdir:")[2].strip()).resolve()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref:"):
            return _hex(head)
        ref, shared = head.removeprefix("ref:").strip(), git
        if (git / "commondir").is_file():
            shared = (git / (git / "commondir").read_text(encoding="utf-8").strip()).resolve()
        for root in (git, shared):
            if (root / ref).is_file():
                return _hex((root / ref).read_text(encoding="utf-8").strip())
        packed = (shared / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next((_hex(line.split()[0]) for line in packed if line.endswith(f" {ref}")), None)
    except (OSError, ValueError):
        return None


def _hex(text: str) -> str | None:
    return text if len(text) in (40, 64) and all(c in "0123456789abcdef" for c in text) else None


def _is_dirty(root: Path) -> bool | None:
    command = ["git", "--no-optional-locks", "-C", str(root), "status", "--porcelain", "--untracked-files=no"]
    try:
        said = subprocess.run(command, capture_output=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bool(said.stdout.strip()) if said.returncode == 0 else None


@functools.lru_cache(maxsize=1)
def _libraries() -> Mapping[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.lru_cache(maxsize=1)
def _machine() -> str:
    """The processor's name and the system's."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # Linux only
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return f"{cpu}, {platform.system()} {platform.release()}"


def peak_rss_mb() -> float:
    """The most memory this process has held so far, MB.

    VmHWM belongs to this program alone; getrusage's figure also counts what the parent held when it started us.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


# --- what stands in a run's folder


def frozen(run_dir: Path) -> dict[str, Any]:
    """{"hash", "of", "files"}: what `prepare` froze as the run's data. Files too many or too large to be read are listed without a hash.

    hash is the data's own where it has one (the split's or the corpus'), else one over the files' hashes; None where neither is known.
    """
    listed, room = [], MAX_HASHED_BYTES
    for name, path in _made(run_dir):
        size = path.stat().st_size
        room -= size
        listed.append({"name": name, "bytes": size, "sha256": _sha256(path) if room >= 0 else None})
    own = next(_own_hashes(run_dir), None)
    if own:
        return {"hash": own[0], "of": own[1], "files": listed[:MAX_FILES]}
    whole = bool(listed) and all(entry["sha256"] for entry in listed)
    lines = "".join(f"{entry['sha256']} {entry['name']}\n" for entry in listed)
    return {
        "hash": hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest() if whole else None,
        "of": f"{len(listed)} files" if listed else "no files", "files": listed[:MAX_FILES],
    }  # fmt: skip


def artefacts(run_dir: Path, *, before: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the run made: its files but for those that were frozen `before` it; at most MAX_FILES, the largest first."""
    old = {entry["name"] for entry in before.get("files", ())}
    made = [{"name": name, "bytes": path.stat().st_size, "sha256": _listed_sha256(run_dir, path)} for name, path in _made(run_dir)]
    fresh = sorted((entry for entry in made if entry["name"] not in old), key=lambda entry: -entry["bytes"])
    return fresh[:MAX_FILES]


def parents(run: Run, result: Mapping[str, Any], frozen_settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """What a run came from, as {"id", "how"}: by the conventions of the jobs' parameters, frozen settings and results."""
    found = []
    if run.retry_of:
        found.append({"id": run.retry_of, "how": {"resume": "resumed from"}.get(run.trigger, "tried again after")})
    given: dict[str, Any] = {}
    for part in (run.params, _inner(frozen_settings, "params"), frozen_settings):  # what came later is closer to what was done
        given |= {name: value for name, value in part.items() if value not in (None, "")}
    said = {**given, **{name: value for name, value in result.items() if value not in (None, "")}}
    for name in _data_names(said):
        found.append({"id": f"data:{name}", "how": "learnt from"})
    if is_one(given.get("base")) and given.get("start") != "scratch":
        found.append({"id": f"base:{given['base'].removeprefix('base:')}", "how": "started from"})
    task = said.get("task")
    teacher = said.get("teacher")
    named = {MADE_FROM: _inner(said, "teacher").get("version", teacher), "compared with": _inner(result, "verdict").get("compared_with")}
    for how, name in named.items():
        if is_one(name) and is_one(task):
            found.append({"id": name if "@" in name else f"{task}@{name}", "how": how})
    return found


def _data_names(said: Mapping[str, Any]) -> list[str]:
    """The data sets that a run names: one, or a corpus of several."""
    named = said.get("dataset") or _inner(said, "corpus").get("names", said.get("corpus"))
    parts = named.split(",") if isinstance(named, str) else named if isinstance(named, list | tuple) else ()
    return [part.strip() for part in parts if is_one(part) and part.strip()]


def is_one(value: Any) -> bool:
    """Whether it names something: a short name or path, not empty."""
    return isinstance(value, str) and 0 < len(value) <= 300


def _inner(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}


def _made(run_dir: Path) -> Iterator[tuple[str, Path]]:
    """Every plain file of a run's folder by its name in it, sorted; no link is followed."""
    for folder, folders, names in os.walk(run_dir, followlinks=False):
        top = Path(folder) == run_dir
        folders[:] = sorted(name for name in folders if not (top and name in NOT_MADE))
        for name in sorted(names):
            path = Path(folder) / name
            if not (top and name in NOT_MADE) and path.is_file() and not path.is_symlink():
                yield clean(path.relative_to(run_dir).as_posix(), limit=200)[0], path


def _own_hashes(run_dir: Path) -> Iterator[tuple[str, str]]:
    """(hash, where it stands) of data that carry their own: a split's, a corpus'."""
    for path in [*sorted(run_dir.glob("*.json")), *sorted(run_dir.glob("*/*.json"))]:
        if path.parent.name in NOT_MADE or path.name in ("spec.json", "result.json") or path.stat().st_size > MAX_JSON_BYTES:
            continue
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_text(encoding="utf-8"))
            place = path.relative_to(run_dir).as_posix()
            for part, keys in ((found, HASH_KEYS), (found.get("corpus"), ("hash",))) if isinstance(found, dict) else ():
                for key in keys if isinstance(part, dict) else ():
                    if isinstance(part.get(key), str) and is_name(part[key]):
                        yield part[key], f"{'corpus ' * (part is not found)}{key} in {place}"


def _listed_sha256(run_dir: Path, path: Path) -> str | None:
    """What the nearest manifest above a file says of it."""
    for folder in path.parents:
        manifest = folder / MANIFEST
        if manifest.is_file():
            try:
                return json.loads(manifest.read_text(encoding="utf-8"))["files"][path.relative_to(folder).as_posix()]["sha256"]
            except (OSError, ValueError, KeyError, TypeError):
                return None
        if folder == run_dir:
            break
    return None


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:  # it went, or may not be read
        return None
