"""The REST face: what the pages serve, for programs. app.py mounts `api` at /api; documentation at /api/docs, offline too.

Owns the shape of requests and answers, which is a contract. Every refusal is {"error", "hint"} with a 4xx or 503; no route waits
for something to happen (a request under way holds up the server's shutdown). Never touches a table or a model itself.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import swagger_ui_bundle
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from fmcore import api_explain, api_news, api_recommend, api_runs, clock, config, runtime
from fmcore.comparing_runs import BadComparison
from fmcore.data import catalogue, sources
from fmcore.explain import asking, reviews
from fmcore.explain.attributions import NotExplained
from fmcore.models import registry
from fmcore.models.card import card_markdown
from fmcore.nouns import FMError, ModelVersion, Prediction
from fmcore.recommend import asking as recommending
from fmcore.recommend import versions
from fmcore.runs import AlreadyQueued, BadParams, UnknownJob, UnknownRun
from fmcore.runs import NotPossible as RunNotPossible
from fmcore.sentiment import alerts, backtest, channels, notify
from fmcore.serving import access, assess
from fmcore.serving.batcher import Overloaded, Stopping
from fmcore.serving.engine import Refused
from fmcore.serving.replies import best_replies
from fmcore.store.store import StoreError
from fmcore.tasks import RECOMMEND, SERVED, TASKS, UnknownTask, task
from fmcore.text import clean, storable

MAX_TEXTS = 256
MAX_ROWS = 20_000
MAX_CHARS = 2_000_000
LATE_S = 120.0
STATUS = (
    (
        (
            UnknownTask,
            UnknownRun,
            UnknownJob,
            registry.UnknownModel,
            catalogue.UnknownDataset,
            *alerts.UNKNOWN,
            channels.UnknownChannel,
            sources.UnknownSource,
            reviews.UnknownReview,
            recommending.UnknownItem,
        ),
        404,
    ),
    (
        (
            AlreadyQueued, RunNotPossible, registry.NotPossible, registry.Tampered, alerts.NotPossible, notify.NotPossible, sources.NotOn,
            reviews.NotOpen,
        ),
        409,
    ),
    (
        (
            BadParams, assess.WrongLabels, *alerts.BAD, *backtest.BAD, channels.BadChannel, sources.SourceError, asking.BadQuestion,
            NotExplained, reviews.BadReview, recommending.BadAsk, BadComparison,
        ),
        422,
    ),
    ((Overloaded, Stopping, Refused, versions.Refused, StoreError, asking.TookTooLong), 503),
)


class Starting(FMError):
    """The desk is not up yet, or is going down."""


Text = Annotated[str, BeforeValidator(storable), Field(max_length=MAX_CHARS)]
Name = Annotated[str, BeforeValidator(storable), Field(max_length=120)]
Reason = Annotated[str, BeforeValidator(storable), Field(min_length=1, max_length=500, description="Why; kept with the change.")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PredictBody(_Body):
    task: Name = Field("intent", description="A task, task@version, or the name of the data set it was trained on.")
    texts: list[Text] = Field(min_length=1, max_length=MAX_TEXTS)
    version: Name | None = Field(None, description="A version instead of the champion.")


class ReplyBody(_Body):
    task: Name = "intent"
    text: Text


class Row(_Body):
    text: Text
    label: Annotated[str, BeforeValidator(storable), Field(max_length=200)]


class EvaluateBody(_Body):
    task: Name = "intent"
    rows: list[Row] = Field(min_length=1, max_length=MAX_ROWS, description='Rows with the label "oos" are out of scope.')


class RunBody(_Body):
    job: Name
    params: dict[str, Any] = Field(default_factory=dict)


class ReasonBody(_Body):
    reason: Reason


api = FastAPI(title="FM Desk", version="0.1.0", summary="Foundation models at work and under watch.", docs_url=None, redoc_url=None)
_hosts: set[str] = set()


def allow_hosts(names: list[str]) -> None:
    """Answer to these host names too: what server.allowedHosts says to the pages, app.py says to the API."""
    access.allow_hosts(_hosts, names)


def _token() -> str | None:
    desk = runtime.current()
    held = (desk.settings if desk else config.settings()).secret_api_token
    return held.get_secret_value() if held else None


api.add_middleware(access.Gatekeeper, token=_token, hosts=_hosts)
api.include_router(api_news.router)
api.include_router(api_explain.router)
api.include_router(api_recommend.router)
api.include_router(api_runs.router)
api.mount("/docs/assets", StaticFiles(directory=str(swagger_ui_bundle.swagger_ui_path)), name="docs assets")


@api.get("/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """Swagger UI from the installed package: nothing is loaded from another server."""
    root = request.scope.get("root_path", "")
    return get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="FM Desk API",
        swagger_js_url=f"{root}/docs/assets/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/docs/assets/swagger-ui.css",
        swagger_favicon_url=f"{root}/docs/assets/favicon-32x32.png",
    )


# --- asking a model


@api.post("/predict")
def predict(body: PredictBody) -> JSONResponse:
    """Answers to up to 256 texts, all from one version."""
    desk = _desk()
    name, version = _served(desk, body.task, body.version)
    answers = desk.engine.predict(name, body.texts, version=version, source="api")
    return JSONResponse({"task": name, "version": answers[0].version, "predictions": [_prediction(p) for p in answers]})


@api.post("/reply")
def reply(body: ReplyBody) -> JSONResponse:
    """The stored replies that fit a message best; a hand-over when it is out of scope."""
    desk = _desk()
    name, version = _served(desk, body.task, None)
    answer = desk.engine.predict(name, [body.text], version=version, source="api")[0]
    found = best_replies(desk.engine, name, body.text, answer)
    return JSONResponse({"prediction": _prediction(answer), "replies": [dataclasses.asdict(r) for r in found]})


@api.post("/evaluate")
def evaluate(body: EvaluateBody) -> JSONResponse:
    """A version measured on labelled rows, each figure with its 95 % bootstrap interval."""
    desk = _desk()
    name, pinned = _served(desk, body.task, None)
    texts, labels = [row.text for row in body.rows], [row.label for row in body.rows]
    version = pinned or desk.registry.resolve(name).version
    known = {v.version: desk.registry.labels(v) for v in desk.registry.versions(name)}
    assess.labels_fit(labels, version=version, known=known)
    answers = desk.engine.predict(name, texts, version=version, source="api evaluate")
    return JSONResponse(assess.figures(labels, answers, task=name, version=version))


@api.get("/tasks")
def list_tasks() -> JSONResponse:
    """The tasks, their data sets, and what serves each."""
    desk = _desk()
    rows = [{"name": t.name, "title": t.title, "datasets": list(t.datasets), **desk.engine.info(t.name)} for t in TASKS.values()]
    return JSONResponse({"tasks": rows})


# --- jobs and runs


@api.get("/jobs")
def list_jobs() -> JSONResponse:
    """The jobs with the JSON schema of their parameters and their next slot."""
    desk = _desk()
    slots = {s.job: s for s in desk.runs.schedules()}
    rows = [
        {
            "name": job.name,
            "title": job.title,
            "summary": job.summary,
            "kind": job.kind,
            "params": job.params.model_json_schema(),
            "schedule": _plain(dataclasses.asdict(slots[job.name])) if job.name in slots else None,
        }
        for job in desk.jobs.values()
    ]
    return JSONResponse({"jobs": rows})


@api.get("/runs")
def list_runs(job: Annotated[str | None, Query(max_length=120)] = None, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> JSONResponse:
    """The newest runs."""
    return JSONResponse({"runs": [_plain(dataclasses.asdict(r)) for r in _desk().runs.history(job=job, limit=limit)]})


@api.post("/runs", status_code=201)
def start_run(body: RunBody) -> JSONResponse:
    """Queue a run of a job."""
    return _run(_desk().runs.request(body.job, body.params, trigger="api"), status=201)


@api.get("/runs/{run_id}")
def get_run(run_id: str) -> JSONResponse:
    """One run."""
    return _run(_desk().runs.get(run_id))


@api.get("/runs/{run_id}/metrics")
def run_metrics(run_id: str) -> JSONResponse:
    """What a run measured on its way, in order."""
    desk = _desk()
    frame = desk.runs.metrics(desk.runs.get(run_id).id)
    times = [clock.from_store(at.to_pydatetime()).isoformat() for at in frame["noted_at"]]
    columns = zip(frame["step"].tolist(), frame["name"].tolist(), frame["value"].tolist(), times, strict=True)
    rows = [{"step": step, "name": name, "value": value, "noted_at": at} for step, name, value, at in columns]
    return JSONResponse({"run": run_id, "metrics": rows})


@api.post("/runs/{run_id}/cancel")
def cancel_run(run_id: str) -> JSONResponse:
    """Ask a run to stop; one that waits ends at once."""
    return _run(_desk().runs.cancel(run_id, by="api"))


@api.post("/runs/{run_id}/resume", status_code=201)
def resume_run(run_id: str) -> JSONResponse:
    """Queue a run that goes on from the checkpoint of one that ended early."""
    return _run(_desk().runs.resume(run_id, by="api"), status=201)


# --- models


@api.get("/models")
def list_models(task_name: Annotated[str | None, Query(alias="task", max_length=120)] = None) -> JSONResponse:
    """Every version with its labels and main figures, newest first."""
    desk = _desk()
    found = desk.registry.versions(task_name if task_name in SERVED or not task_name else task(task_name).name)
    return JSONResponse({"models": [_model(desk, v) for v in found]})


@api.get("/resolve")
def resolve(name: Annotated[str, Query(max_length=120)]) -> JSONResponse:
    """The version that a task, task@version or data set name means now."""
    desk = _desk()
    return JSONResponse(_model(desk, desk.registry.resolve(name)))


@api.get("/models/{task_name}/{version}")
def get_model(task_name: str, version: str) -> JSONResponse:
    """One version with all its metrics, its verdict and its card."""
    desk = _desk()
    found = desk.registry.get(task_name, version)
    card = desk.registry.card(found)
    more = {"metrics": dict(found.metrics), "verdict": dict(found.verdict), "card": card, "card_markdown": card_markdown(card)}
    return JSONResponse(_plain({**_model(desk, found), **more}))


@api.post("/models/{task_name}/{version}/promote")
def promote(task_name: str, version: str, body: ReasonBody) -> JSONResponse:
    """Make a version the champion."""
    change = _desk().registry.promote(task_name, version, by="api", reason=body.reason)
    return JSONResponse(_plain(dataclasses.asdict(change)))


@api.post("/models/{task_name}/rollback")
def rollback(task_name: str, body: ReasonBody) -> JSONResponse:
    """Make the champion before this one serve again."""
    change = _desk().registry.rollback(task_name, by="api", reason=body.reason)
    return JSONResponse(_plain(dataclasses.asdict(change)))


# --- data and health


@api.get("/data")
def list_data() -> JSONResponse:
    """The catalogue: what each data set is, its licence, and whether it is here."""
    rows = [{k: v for k, v in dataclasses.asdict(d).items() if k != "path"} for d in catalogue.datasets()]
    return JSONResponse({"datasets": _plain(rows)})


@api.get("/health")
def health() -> JSONResponse:
    """How the parts are: store, scheduler, models; 503 where the store does not answer."""
    desk = _desk()
    desk.store.rows("SELECT 1")
    late = clock.now() - dt.timedelta(seconds=LATE_S)
    slots = desk.runs.schedules()
    overdue = [s.job for s in slots if s.next_at is not None and s.next_at < late]
    planned = [s.next_at for s in slots if s.next_at is not None]
    scheduler = {"ok": bool(planned) and not overdue, "overdue": overdue, "next_at": min(planned, default=None)}
    models = {name: desk.engine.info(name) for name in TASKS} | {RECOMMEND.name: desk.recommend.info()}
    answering = any(m["champion"] for m in models.values()) and not any(m["warning"] for m in models.values())
    well = scheduler["ok"] and answering  # a task that nobody has trained a model for is no fault
    probes = {name: dict(probe()) for name, probe in desk.probes.items()}
    parts = {"store": {"ok": True, "n_commits": desk.store.n_commits}, "scheduler": scheduler, "models": models, **probes}
    return JSONResponse(_plain({"status": "ok" if well else "degraded", "started_at": desk.started_at, **parts}))


# --- shapes


def _desk() -> runtime.Runtime:
    desk = runtime.current()
    if desk is None:
        raise Starting("The desk is not up yet.", "Try again in a moment.")
    return desk


def _served(desk: runtime.Runtime, name: str, version: str | None) -> tuple[str, str | None]:
    """(task, pinned version) of what was asked for; None leaves the choice to the champion, at the moment of answering."""
    if name in TASKS:
        return name, version
    found = desk.registry.resolve(name)
    return found.task, version or found.version


def _prediction(p: Prediction) -> dict[str, Any]:
    return {field.name: getattr(p, field.name) for field in dataclasses.fields(p)}


def _run(run: Any, *, status: int = 200) -> JSONResponse:
    return JSONResponse(_plain(dataclasses.asdict(run)), status_code=status)


def _model(desk: runtime.Runtime, v: ModelVersion) -> dict[str, Any]:
    names = ("n", "serving", "hr", "ndcg", "coverage") if v.task == RECOMMEND.name else ("n", "accuracy", "macro_f1", "ece", "oos")
    main = {name: v.metrics.get(name) for name in names}
    kept = {f.name: getattr(v, f.name) for f in dataclasses.fields(v) if f.name not in ("path", "metrics", "verdict")}
    return _plain({**kept, "labels": desk.registry.labels(v), "figures": main})


def _plain(value: Any) -> Any:
    """Dataclass contents as JSON: times in ISO 8601, paths as text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value


# --- refusals


@api.exception_handler(FMError)
def _refused(_request: Request, error: FMError) -> JSONResponse:
    status = next((code for kinds, code in STATUS if isinstance(error, kinds)), 503 if isinstance(error, Starting) else 400)
    return JSONResponse({"error": storable(error.message), "hint": storable(error.hint)}, status_code=status)


@api.exception_handler(RequestValidationError)
def _malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
    """What is wrong and where, without giving the input back."""
    faults = [f"{'.'.join(str(part) for part in fault['loc'][1:]) or 'body'}: {fault['msg']}" for fault in error.errors()[:5]]
    said = {"error": clean("; ".join(faults), limit=2000)[0], "hint": "See /api/docs for the shape of this request."}
    return JSONResponse(said, status_code=422)


@api.exception_handler(HTTPException)
def _http(_request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": str(error.detail), "hint": "See /api/docs."}, status_code=error.status_code, headers=error.headers)


@api.exception_handler(Exception)
def _broken(_request: Request, error: Exception) -> JSONResponse:
    """The log has the traceback; the caller has a sentence."""
    return JSONResponse({"error": f"The desk could not answer ({type(error).__name__}).", "hint": "See logs/desk.log."}, status_code=500)
