"""The REST face of the news room: documents in, trends and alerts out. Included by api.py under the same rules.

Owns the shape of these requests and answers. Never touches a table or a model itself.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pandas as pd
from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fmcore import runtime
from fmcore.nouns import Filters
from fmcore.sentiment import index
from fmcore.store.store import Store

router = APIRouter(tags=["news"])

# --- documents in (owner: the room data/)

# --- detection on any series (owner: sentiment/anomaly.py)

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
