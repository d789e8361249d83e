"""The REST face of the news room: documents in, trends and alerts out. Included by api.py under the same rules.

Owns the shape of these requests and answers. Never touches a table or a model itself.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Annotated, Any, Literal

import pandas as pd
from fastapi import APIRouter, Query
from fastapi.encoders import jsonable_encoder
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from fmcore import clock, config, runtime
from fmcore.data import looks
from fmcore.data.documents import RawItem
from fmcore.data.series import as_series
from fmcore.data.sources import Sources
from fmcore.nouns import Filters, Rule, Silence
from fmcore.sentiment import alerts, anomaly, backtest, channels, index, notify, sending
from fmcore.store.store import Store

router = APIRouter(tags=["news"])

# --- documents in (owner: the room data/)

MAX_DOCUMENTS = 1_000


class PushedDocument(BaseModel):
    """A document as a program has it. What cannot be used is refused one by one, so no value here is refused by its type."""

    model_config = ConfigDict(extra="forbid")

    title: Any = ""
    body: Any = ""
    url: Any = ""
    published_at: Any = Field(None, description="ISO 8601 or RFC 2822 with its time zone; left out: when it is received.")
    tickers: list[Any] = Field(default=[], max_length=100)
    id: Any = Field("", description="The sender's own name for it; tells documents without a url apart.")

    def item(self) -> RawItem:
        url, title, body, key = ("" if value is None else str(value) for value in (self.url, self.title, self.body, self.id))
        return RawItem(url, title, body, self.published_at, tuple(map(str, self.tickers)), key)


class PushBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    source: str = Field("push", max_length=80, description="The source they count under; added where there is none of that name.")
    documents: list[PushedDocument] = Field(min_length=1, max_length=MAX_DOCUMENTS)


@router.post("/documents")
def push_documents(body: PushBody) -> Response:
    """Up to 1,000 documents in; sending them again adds nothing. Says what became of them, and why each refused one was."""
    came = looks.receive(_store(), body.source, [document.item() for document in body.documents])
    counts = {name: value for name, value in dataclasses.asdict(came).items() if name.startswith("n_")}
    refused = [{"index": n, "reason": reason} for n, reason in came.refused]
    return JSONResponse({"source": body.source, **counts, "refusals": came.refusals, "refused": refused})


@router.get("/sources")
def list_sources() -> Response:
    """Every source with its state and health, as on the Data page."""
    held = Sources(_store())
    healths = held.healths()
    rows = [{**dataclasses.asdict(source), "health": dataclasses.asdict(healths[source.name])} for source in held.all()]
    return JSONResponse(jsonable_encoder({"sources": rows}))


# --- detection on any series (owner: sentiment/anomaly.py)

MAX_SERIES_ROWS = 50_000


class DetectBody(BaseModel):
    """A series, in the order of its time. A value may be null: missing."""

    model_config = ConfigDict(extra="forbid")

    timestamps: list[str | None] = Field(min_length=1, max_length=MAX_SERIES_ROWS)
    values: list[float | None] = Field(min_length=1, max_length=MAX_SERIES_ROWS)


@router.post("/detect")
def detect_anomalies(body: DetectBody) -> Response:
    """What is expected of each row, its score in [0, 1] and whether it is an anomaly; a row's score uses no later row."""
    if len(body.timestamps) != len(body.values):
        raise HTTPException(422, f"There are {len(body.timestamps)} timestamps and {len(body.values)} values.")
    series = as_series(body.timestamps, body.values)
    scored = anomaly.score(series.frame)
    expected = [None if e != e else e for e in scored["expected"].tolist()]
    bad = [{"row": n, "reason": why} for n, why in series.bad]
    columns = {name: scored[name].tolist() for name in ("anomaly_score", "is_anomaly")}
    return JSONResponse({"expected": expected, **columns, "bad": bad})


# --- trends (owner: sentiment/index.py)


class Over(BaseModel):
    """What a trend is taken over; a name may be given several times. Moments need a zone; an open end is the end of the news."""

    model_config = ConfigDict(extra="forbid")

    topic: list[str] = Field(default=[], max_length=100)
    ticker: list[str] = Field(default=[], max_length=100)
    source: list[str] = Field(default=[], max_length=100)
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None

    def filters(self) -> Filters:
        return Filters(tuple(self.topic), tuple(self.ticker), tuple(self.source), self.start, self.end)


class SeriesQuery(Over):
    bucket: Literal["5min", "15min", "1h", "6h", "1d"] = "1d"


class StoriesQuery(Over):
    limit: int = Field(50, ge=1, le=500)
    order: Literal["newest", "negative", "articles"] = "newest"


class MoversQuery(Over):
    by: Literal["topic", "ticker", "source"] = "topic"
    days: int = Field(7, ge=1, le=365)


@router.get("/sentiment/index")
def sentiment_index(query: Annotated[SeriesQuery, Query()]) -> Response:
    """The index over stories beside the heat of articles, a row a bucket; null where there is not enough news."""
    return _table("points", index.series(_store(), query.filters(), query.bucket), bucket=query.bucket, least_stories=index.MIN_STORIES)


@router.get("/sentiment/stories")
def sentiment_stories(query: Annotated[StoriesQuery, Query()]) -> Response:
    """The stories behind it, each at its leading article, with the number of its copies."""
    return _table("stories", index.stories(_store(), query.filters(), limit=query.limit, order=query.order), order=query.order)


@router.get("/sentiment/movers")
def sentiment_movers(query: Annotated[MoversQuery, Query()]) -> Response:
    """What changed most in the last days against as many before, with the change's 95 % interval."""
    return _table("movers", index.movers(_store(), query.filters(), by=query.by, days=query.days), by=query.by, days=query.days)


def _table(name: str, frame: pd.DataFrame, **facts: Any) -> Response:
    """A table as JSON: moments in ISO 8601, what is not a number as null."""
    rows = frame.to_json(orient="records", date_format="iso", double_precision=6, force_ascii=False)
    stated = "".join(f"{json.dumps(key)}: {json.dumps(value)}, " for key, value in facts.items())
    return Response(f'{{{stated}"{name}": {rows}}}', media_type="application/json")


def _store() -> Store:
    desk = runtime.current()
    if desk is None:
        raise HTTPException(503, "The desk is not up yet.")
    return desk.store


# --- alerts (owner: sentiment/alerts.py)


class AckBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    by: str = Field("api", min_length=1, max_length=80, description="Who is at it.")
    note: str = Field("", max_length=300)


class SilenceBody(BaseModel):
    """An empty matcher matches everything. starts_at <= t < ends_at, both with a zone."""

    model_config = ConfigDict(extra="forbid")

    rule_id: str = Field("", max_length=80)
    dimension: str = Field("", max_length=20)
    key: str = Field("", max_length=80)
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    by: str = Field("api", min_length=1, max_length=80)
    reason: str = Field(min_length=1, max_length=300)


class RuleBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(max_length=80)
    title: str = Field(max_length=120)
    dimension: str = Field(max_length=20)
    keys: list[str] = Field(default=[], max_length=500)
    kinds: list[str] = Field(max_length=5)
    severity: str = Field(max_length=20)
    bucket_s: int = 3600
    sensitivity: float = 0.5
    floor: int = 5
    for_buckets: int = 1
    keep_firing_buckets: int = 3
    enabled: bool = True


MAX_BACKTEST = dt.timedelta(days=200)
State = Literal["pending", "firing", "resolved", "no data", "error"]


@router.get("/alerts")
def list_alerts(
    state: Annotated[list[State] | None, Query(max_length=5)] = None,
    rule: Annotated[str, Query(max_length=80)] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> dict[str, Any]:
    """The inbox: the most severe first, then the newest; open alerts where no state is asked for."""
    found = alerts.inbox(_store(), states=state or alerts.OPEN, rule_id=rule, limit=limit)
    return {"summary": alerts.summary(_store()), "alerts": [{k: v for k, v in _fields(a).items() if k != "why"} for a in found]}


@router.get("/alerts/{alert_id}")
def get_alert(alert_id: str) -> dict[str, Any]:
    """One alert with why it fired (the exact split of its excess), what happened to it, and the buckets that fired."""
    store = _store()
    found = alerts.alert(store, alert_id)
    marked = alerts.points(store, alert_id).to_dict("records")
    return {**_fields(found), "why": dict(alerts.explain(store, alert_id)), "history": alerts.history(store, alert_id), "points": marked}


@router.post("/alerts/{alert_id}/ack")
def ack_alert(alert_id: str, body: AckBody) -> dict[str, Any]:
    """Acknowledge an alert; it ends by itself when the alert does."""
    return _fields(alerts.ack(_store(), alert_id, by=body.by, note=body.note))


@router.get("/silences")
def list_silences() -> dict[str, Any]:
    """All silences, expired ones included."""
    return {"silences": [_fields(s) for s in alerts.silences(_store())]}


@router.post("/silences", status_code=201)
def add_silence(body: SilenceBody) -> dict[str, Any]:
    """Keep matching alerts quiet, from the start to just before the end."""
    return _fields(alerts.silence(_store(), **body.model_dump()))


@router.post("/silences/preview")
def preview_silence(body: SilenceBody) -> dict[str, Any]:
    """What a silence would have muted of the last 30 days' notifications; nothing is saved."""
    muted = alerts.preview_silence(_store(), Silence(id="", **body.model_dump()))
    return {"alerts": [{k: v for k, v in _fields(a).items() if k != "why"} for a in muted]}


@router.delete("/silences/{silence_id}")
def end_silence(silence_id: str) -> dict[str, Any]:
    """End a silence now."""
    return _fields(alerts.end_silence(_store(), silence_id, by="api"))


@router.get("/rules")
def list_rules() -> dict[str, Any]:
    """All rules, switched-off ones included."""
    return {"rules": [_fields(r) for r in alerts.rules(_store())]}


@router.post("/rules", status_code=201)
def save_rule(body: RuleBody) -> dict[str, Any]:
    """Save a rule, new or changed."""
    values = body.model_dump() | {"keys": tuple(body.keys), "kinds": tuple(body.kinds)}
    return _fields(alerts.save_rule(_store(), Rule(**values), by="api"))


class SpanQuery(BaseModel):
    """A piece of the past: start <= t < end, both with a zone; without them the last 60 days of news."""

    model_config = ConfigDict(extra="forbid")

    start: AwareDatetime | None = None
    end: AwareDatetime | None = None

    def of(self, store: Store) -> tuple[dt.datetime, dt.datetime]:
        known = backtest.span_of(store)
        end = self.end or (known[1] if known else clock.now())
        return self.start or end - dt.timedelta(days=60), end


class BacktestQuery(SpanQuery):
    sensitivity: float | None = Field(None, ge=0, le=1, description="Another one than the rule's.")


class IncidentBody(BaseModel):
    """Something that happened: starts_at <= t < ends_at. What it is about: a topic, tickers, or nothing in particular."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(min_length=1, max_length=120)
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    kind: Literal["", "surge", "shift", "flood"] = ""
    topic: str = Field("", max_length=80)
    tickers: list[str] = Field(default=[], max_length=100)
    note: str = Field("", max_length=300)
    by: str = Field("api", min_length=1, max_length=80)


@router.get("/rules/{rule_id}/backtest")
def backtest_rule(rule_id: str, query: Annotated[BacktestQuery, Query()]) -> dict[str, Any]:
    """What a rule would have raised on the stored news, and which labelled incidents it would have found."""
    store = _store()
    rule, (start, end) = alerts.rule(store, rule_id), query.of(store)
    if end - start > MAX_BACKTEST:
        raise HTTPException(422, f"At most {MAX_BACKTEST.days} days at once.")
    known = backtest.incidents(store, start, end)
    asked = rule.sensitivity if query.sensitivity is None else query.sensitivity
    [test] = backtest.sweep(store, rule, (asked,), start, end, incidents=known)
    return {**dataclasses.asdict(test), "sentence": test.sentence}


@router.get("/incidents")
def list_incidents(query: Annotated[SpanQuery, Query()]) -> dict[str, Any]:
    """What is labelled in a piece of the past, by people and by the demo stream's truth."""
    return {"incidents": [_fields(i) for i in backtest.incidents(_store(), *query.of(_store()))]}


@router.post("/incidents", status_code=201)
def label_incident(body: IncidentBody) -> dict[str, Any]:
    """Label a piece of the past: what backtests are measured on."""
    return _fields(backtest.label_incident(_store(), **body.model_dump()))


@router.delete("/incidents/{incident_id}")
def remove_incident(incident_id: str) -> dict[str, Any]:
    """Take a label back."""
    backtest.remove_incident(_store(), incident_id, by="api")
    return {"removed": incident_id}


def _fields(thing: Any) -> dict[str, Any]:
    return {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}


# --- channels and delivery (owner: sentiment/notify.py)


class ChannelBody(BaseModel):
    """kind "webhook": an https address; "apprise": an address of one of its services. min_severity "low" sends every alert."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=60)
    kind: Literal["webhook", "apprise"]
    address: SecretStr = Field(max_length=2000, description="Kept out of the database, the log and every answer.")
    mode: Literal["each", "digest", "dry run"] = "each"
    min_severity: Literal["low", "medium", "high"] = "low"
    per_minute: int = Field(30, ge=1, le=600)
    digest_s: int = Field(3600, ge=60, le=86_400)
    secret: SecretStr | None = Field(None, max_length=200, description="Signs webhooks; one is made when none is given.")


@router.get("/channels")
def list_channels() -> dict[str, Any]:
    """The channels, addresses redacted, each with how many notifications are queued, sent, dead or dry."""
    counts = notify.tally(_store())
    return {"channels": [{**_fields(c), "notifications": counts.get(c.name, {})} for c in channels.channels(_store())]}


@router.post("/channels", status_code=201)
def add_channel(body: ChannelBody) -> dict[str, Any]:
    """Add a channel. The secret made for a webhook is in this answer and in no other: give it to the receiver."""
    given = body.model_dump() | {"secret": body.secret.get_secret_value() if body.secret else "", "by": "api"}
    address = given.pop("address").get_secret_value()
    service = sending.check_address(body.kind, address, allow_private=config.settings().allow_private_targets)
    saved, secret = channels.add(_store(), given.pop("name"), given.pop("kind"), address, **given)
    shown = {"secret": secret} if body.kind == "webhook" and not body.secret else {}
    return {**_fields(saved), "service": service, **shown}


@router.post("/channels/{name}/pause")
def pause_channel(name: str) -> dict[str, Any]:
    """Take no new alerts and send nothing of what waits."""
    return _fields(channels.pause(_store(), name, by="api"))


@router.post("/channels/{name}/resume")
def resume_channel(name: str) -> dict[str, Any]:
    """Send again, what waits first."""
    return _fields(channels.resume(_store(), name, by="api"))


@router.delete("/channels/{name}", status_code=204)
def remove_channel(name: str) -> Response:
    """Forget a channel and its credentials; what waits for it becomes dead letters."""
    notify.remove_channel(_store(), name, by="api")
    return Response(status_code=204)


@router.post("/channels/{name}/test")
def test_channel(name: str) -> dict[str, Any]:
    """Send a test message now; takes five seconds at most."""
    outcome = notify.send_test(_store(), name, by="api")
    return {"ok": outcome.ok, "reason": outcome.reason}


@router.get("/deliveries")
def list_deliveries(
    channel: Annotated[str, Query(max_length=60)] = "",
    state: Literal["", "queued", "sent", "dead", "dry"] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Notifications, newest first: state, attempts, latency of the last try, and its error. "dead" are the dead letters."""
    return {"deliveries": [_fields(n) for n in notify.notifications(_store(), channel=channel, state=state, limit=limit)]}


@router.get("/deliveries/{notification_id}")
def get_delivery(notification_id: str) -> dict[str, Any]:
    """Every try of one notification, oldest first."""
    return {"id": notification_id, "tries": notify.tries(_store(), notification_id)}


@router.post("/deliveries/{notification_id}/retry")
def retry_delivery(notification_id: str) -> dict[str, Any]:
    """Queue a dead letter again, under its old key, with what else of its alert died there."""
    return {"queued": notify.retry(_store(), notification_id, by="api")}
