"""Mirrors: the curves of a heavy run, copied as they come to TensorBoard, MLflow or Weights & Biases, where a setting asks for it.

Each by its maker's own client, whose package is installed by whoever wants it. A mirror gets numbers, names and digests: no text of people,
no log, no file. It has a thread of its own in the run's process and a bounded queue, so that it can neither slow a run nor end it: what
goes wrong is said once, in words, and that mirror is given up. Opens no connection of its own; MLflow's and W&B's clients connect to
the host that the setting names and to no other, and TensorBoard's files and everything local stay on this machine.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fmcore.config import Settings
from fmcore.log import redact
from fmcore.nouns import FMError
from fmcore.text import clean, is_name

PROJECT = "fm-desk"
QUEUED, BATCH, FLUSH_S, CLOSE_S = 4000, 500, 2.0, 30.0
NEVER = ("reason",)
"""Parameters that a person writes in their own words."""
PACKAGES = {"TensorBoard": "tensorboard==2.21.0", "MLflow": "mlflow-skinny==3.17.2 sqlalchemy alembic", "W&B": "wandb==0.31.0"}
ENDS = {"succeeded": "FINISHED", "cancelled": "KILLED"}


class BadMirror(FMError):
    """A mirror's setting does not say enough to write anywhere."""


@dataclass(frozen=True)
class Mirrored:
    """What a mirror is told of a run. params: numbers, yes and no, and names; tags: names and digests."""

    run_id: str
    job: str
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """Values of a run's curves at a step; at is seconds since 1970."""

    step: int
    values: Mapping[str, float]
    at: float


class Mirror(Protocol):
    """One place that runs are copied to. Each method may raise whatever its client does, and is called from one thread only."""

    title: str

    def open(self, run: Mirrored) -> None: ...

    def write(self, points: Sequence[Point]) -> None: ...

    def close(self, state: str, figures: Mapping[str, float]) -> None: ...


def wanted(settings: Settings) -> list[Mirror]:
    """The mirrors that the settings ask for: none by default."""
    found: list[Mirror] = []
    if settings.tensorboard_dir not in (None, Path()):  # set, and not set to nothing
        found.append(TensorBoard(settings.tensorboard_dir))
    if settings.mlflow_uri:
        found.append(MLflow(settings.mlflow_uri))
    if settings.wandb_mode != "off":
        online = settings.wandb_mode == "online"
        found.append(WandB(settings.wandb_dir or settings.home / "wandb", host=settings.wandb_host, online=online))
    return found


def shareable(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that may leave the desk: numbers, yes and no, and plain names; no sentence, no path, nothing nested."""
    kept = {name: value for name, value in params.items() if name not in NEVER and value not in ("", None)}
    return {name: value for name, value in kept.items() if isinstance(value, bool | int | float) or is_name(value)}


class Mirrors:
    """A run's mirrors at work. `metric` returns at once; `close` waits a bounded time. Neither raises; `say` gets each trouble once."""

    def __init__(self, mirrors: Sequence[Mirror], run: Mirrored, *, say: Callable[[str], None]):
        self._lines = [_Line(mirror, run, say) for mirror in mirrors]

    def metric(self, step: int, values: Mapping[str, float | None]) -> None:
        """Points of curves; those that are not finite come as None and are left out."""
        point = Point(step, {name: value for name, value in values.items() if value is not None}, time.time())
        for line in self._lines:
            line.put(point)

    def close(self, state: str, figures: Mapping[str, Any], *, wait_s: float = CLOSE_S) -> bool:
        """Write what waits and the run's figures, all mirrors at once; False where one did not come back in time."""
        values = {name: float(v["value"] if isinstance(v, Mapping) else v) for name, v in figures.items()}
        for line in self._lines:
            line.end(state, values)
        deadline = time.monotonic() + wait_s
        return all([line.over(max(0.0, deadline - time.monotonic())) for line in self._lines])


class _Line:
    """One mirror, its queue and its thread."""

    def __init__(self, mirror: Mirror, run: Mirrored, say: Callable[[str], None]):
        self._mirror, self._run, self._say = mirror, run, say
        self._points: queue.Queue[Point] = queue.Queue(maxsize=QUEUED)
        self._dropped, self._given_up = 0, False
        self._ending: tuple[str, Mapping[str, float]] | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"fm-mirror-{mirror.title}")
        self._thread.start()

    def put(self, point: Point) -> None:
        if self._given_up:
            return
        try:
            self._points.put_nowait(point)
        except queue.Full:
            self._dropped += 1

    def end(self, state: str, figures: Mapping[str, float]) -> None:
        self._ending = (state, figures)
        self._end.set()

    def over(self, wait_s: float) -> bool:
        self._thread.join(wait_s)
        if self._thread.is_alive():
            self._tell("it did not answer in time, and its last points may be missing")
        elif self._dropped and not self._given_up:
            self._tell(f"it was too slow for {self._dropped:,} points, which are missing there")
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            self._mirror.open(self._run)
            while not self._end.wait(0 if self._points.qsize() >= BATCH else FLUSH_S):
                self._write_what_waits()
            while self._points.qsize():
                self._write_what_waits()
            self._mirror.close(*self._ending)
        except ImportError as error:
            package = PACKAGES[self._mirror.title]
            self._tell(f"{_words(error)}. Install its package: pip install {package}")
        except Exception as error:  # noqa: BLE001  a client may raise anything; the run goes on without it
            self._tell(_words(error))

    def _write_what_waits(self) -> None:
        points = [self._points.get_nowait() for _ in range(min(BATCH, self._points.qsize()))]
        if points:
            self._mirror.write(points)

    def _tell(self, why: str) -> None:
        self._given_up = True
        self._say(f"Not copied to {self._mirror.title}: {why}. The run itself is not affected.")


def _words(error: BaseException) -> str:
    """An error in one line, without credentials."""
    if isinstance(error, FMError):
        return str(error).rstrip(".")
    said = clean(" ".join(str(error).split()), limit=300)[0]
    return redact(f"{type(error).__name__}: {said}").rstrip(".")


class TensorBoard:
    """Event files under <folder>/<job>/<run id>, by the record writer of the package tensorboard; every batch is on disk when written."""

    title = "TensorBoard"

    def __init__(self, folder: Path):
        self._root = folder

    def open(self, run: Mirrored) -> None:
        """Make the file, with the parameters for TensorBoard's HParams tab. Raises OSError, ImportError."""
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary, self._step = event_pb2.Event, summary_pb2.Summary, 0
        folder = self._root / run.job / run.run_id
        folder.mkdir(parents=True, exist_ok=True)
        at = time.time()
        self._file = (folder / f"events.out.tfevents.{int(at)}.desk").open("ab")
        self._records = RecordWriter(self._file)
        self._put(self._event(wall_time=at, file_version="brain.Event:2"))
        known = {name: value if isinstance(value, bool | float | str) else float(value) for name, value in run.params.items()}
        self._put(self._event(wall_time=at, summary=summary_v2.hparams_pb({**known, **run.tags}, trial_id=run.run_id)))
        self._records.flush()

    def write(self, points: Sequence[Point]) -> None:
        """Append scalars. Raises OSError: a full disk."""
        for point in points:
            self._step = max(self._step, point.step)
            self._scalars(point)
        self._records.flush()

    def close(self, state: str, figures: Mapping[str, float]) -> None:
        """Append the run's figures as result/<name> and close the file."""
        self._scalars(Point(self._step, {f"result/{name}": value for name, value in figures.items()}, time.time()))
        self._records.flush()
        self._file.close()

    def _scalars(self, point: Point) -> None:
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
        if values:
            self._put(self._event(wall_time=point.at, step=point.step, summary=self._summary(value=values)))

    def _put(self, event: Any) -> None:
        self._records.write(event.SerializeToString())


class MLflow:
    """A run of the experiment "fm-desk", by MLflow's client. uri: http(s)://host, sqlite:///file, or a folder (then a database in it)."""

    title = "MLflow"

    def __init__(self, uri: str):
        self._uri = uri

    def open(self, run: Mirrored) -> None:
        """Raises ImportError, OSError, and what the client does: a server that is away, a database that cannot be written."""
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric, self._client = Metric, MlflowClient(tracking_uri=self._address())
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        started = self._client.create_run(experiment, run_name=run.run_id, tags={"job": run.job, **run.tags})
        self._id = started.info.run_id
        self._client.log_batch(self._id, params=[Param(name, str(value)) for name, value in run.params.items()])

    def write(self, points: Sequence[Point]) -> None:
        """Send points, at most 1,000 a request, which is what MLflow takes."""
        flat = [(name, value, point) for point in points for name, value in point.values.items()]
        for start in range(0, len(flat), 1000):
            batch = [self._metric(name, value, int(point.at * 1000), point.step) for name, value, point in flat[start : start + 1000]]
            self._client.log_batch(self._id, metrics=batch)

    def close(self, state: str, figures: Mapping[str, float]) -> None:
        """Send the figures as result.<name> and end the run."""
        self.write([Point(0, {f"result.{name}": value for name, value in figures.items()}, time.time())])
        self._client.set_terminated(self._id, ENDS.get(state, "FAILED"))

    def _address(self) -> str:
        if "://" not in self._uri:  # MLflow's own store of files is at its end: a folder gets a database
            folder = Path(self._uri).expanduser().absolute()
            folder.mkdir(parents=True, exist_ok=True)
            return f"sqlite:///{folder / 'mlflow.db'}"
        return self._uri


class WandB:
    """A run of the project "fm-desk", by W&B's client: offline into a folder (`wandb sync` sends it later), or online to a named host."""

    title = "W&B"

    def __init__(self, folder: Path, *, host: str = "", online: bool = False):
        self._folder, self._host, self._online = folder, host, online

    def open(self, run: Mirrored) -> None:
        """Raises ImportError, OSError, BadMirror without a host to be online with, and what the client does."""
        if self._online and not self._host.startswith(("https://", "http://")):
            raise BadMirror("FM_WANDB_MODE is online and names no server.", "Set FM_WANDB_HOST, for example https://api.wandb.ai.")
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / ".writable").touch()  # else the client goes to a temporary folder, where nobody would look
        where = {"base_url": self._host} if self._host else {}
        settings = wandb.Settings(
            mode="online" if self._online else "offline", root_dir=str(self._folder), console="off", silent=True, init_timeout=20,
            disable_git=True, disable_code=True, save_code=False, x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
            **where,
        )  # fmt: skip
        tags = dict(run.tags)
        self._run = wandb.init(
            project=PROJECT, id=run.run_id, name=run.run_id, job_type=run.job, config={**run.params, **tags}, settings=settings
        )
        self._run.define_metric("*", step_metric="step")  # ours may come in any order, its own counter only rises

    def write(self, points: Sequence[Point]) -> None:
        """Hand the points to W&B's own process."""
        for point in points:
            self._run.log({**point.values, "step": point.step})

    def close(self, state: str, figures: Mapping[str, float]) -> None:
        """Add the figures to the run's summary and end it."""
        self._run.summary.update({f"result/{name}": value for name, value in figures.items()})
        self._run.finish(exit_code=0 if state == "succeeded" else 1)
