"""The REST face of recommendations: lists with their reasons, what people did, and changes of the catalogue. Included by api.py.

Owns the shape of these requests and answers, under the same rules as the rest of the API. Ids are any text and come in a body, never in an
address. Never touches a table or a model itself.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from fmcore import runtime
from fmcore.recommend.service import Ask, Event, ItemChange, Noted
from fmcore.text import storable

router = APIRouter(tags=["recommendations"])

MOST_EVENTS = MOST_CHANGES = 1_000
MOST_HISTORY = 10_000
MAX_CHARS = 20_000

Said = Annotated[str, BeforeValidator(storable), Field(max_length=MAX_CHARS)]
Name = Annotated[str, BeforeValidator(storable), Field(max_length=120)]


class RecommendBody(BaseModel):
    """For whom: a user, a history of items, a sentence, or several of these; none of them gives what is popular."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"user": "ada", "k": 5},
                {"history": ["atlas-lamp", "slow-sci-fi-12"], "k": 10, "diversity": 0.3},
                {"sentence": "I like slow science fiction", "k": 10},
            ]
        },
    )

    user: Said | None = Field(None, description="Anybody's id, known or not: the past is what the data set and the stored events say.")
    history: list[Said] | None = Field(
        None, max_length=MOST_HISTORY, description="Ids of items, oldest first, in the place of the user's own past."
    )
    sentence: Said | None = Field(None, description="What somebody looks for, in their own words; weighed with the past.")
    k: int = Field(10, ge=1, le=500, description="How many items.")
    model: Name | None = Field(None, description="A model of the version; left out: the one that serves.")
    version: Name | None = Field(None, description="A version instead of the champion.")
    diversity: float = Field(0.0, ge=0, le=1, description="0: as scored; 1: as different from each other as can be.")
    reasons: bool = Field(True, description="Name the item of the past without which each score falls most.")
    without: list[Said] = Field(default_factory=list, max_length=MOST_HISTORY, description="Ids that are not to be on the list.")


class EventBody(BaseModel):
    """Something that a person did with an item. What makes no sense is refused by itself, with a reason; the rest is stored."""

    model_config = ConfigDict(extra="forbid")

    id: Said | None = Field(None, description="The sender's own id: an event that is sent twice is stored once.")
    user: Said
    item: Said
    kind: Said = Field(description="view, click, like, skip, rate, forget, keep or shown.")
    value: float | None = Field(None, description="The rating of a rate (3 and more: liked), the probability of a shown.")
    happened_at: Said | None = Field(None, description="ISO 8601 with a zone, such as 2026-01-31T12:00:00Z; left out: now.")


class InteractionsBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {"id": "web-1", "user": "ada", "item": "atlas-lamp", "kind": "click", "happened_at": "2026-01-31T12:00:00Z"},
                        {"user": "ada", "item": "slow-sci-fi-12", "kind": "rate", "value": 4.5},
                    ]
                }
            ]
        },
    )

    events: list[EventBody] = Field(min_length=1, max_length=MOST_EVENTS)


class ItemBody(BaseModel):
    """How an item is from now on. A new id is a new item, which lists reach through its text."""

    model_config = ConfigDict(extra="forbid")

    item: Said
    title: Said = ""
    text: Said = ""
    state: Literal["live", "removed"] = Field("live", description="removed: not on any list from now on.")


class ItemsBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {"item": "desk-plant", "title": "A plant for the desk", "text": "Green, patient, needs little light."},
                        {"item": "atlas-lamp", "state": "removed"},
                    ]
                }
            ]
        },
    )

    items: list[ItemBody] = Field(min_length=1, max_length=MOST_CHANGES)


@router.post("/recommend")
def recommend(body: RecommendBody) -> Response:
    """A list from one version, each item with the cause that was checked; `fallback` says why popularity answered, when it did."""
    ask = Ask(
        who=body.user or None,
        history=None if body.history is None else tuple(body.history),
        sentence=body.sentence,
        k=body.k,
        model=body.model,
        version=body.version,
        diversity=body.diversity,
        reasons=body.reasons,
        without=tuple(body.without),
    )
    answer = _desk().recommend.recommend(ask)
    items = [
        {
            "item": one.item,
            "title": one.title,
            "score": one.score,
            "because": dataclasses.asdict(one.because) if one.because else None,
        }
        for one in answer.items
    ]
    told = {name: getattr(answer, name) for name in ("model", "version", "dataset", "fallback", "note", "n_history")}
    return JSONResponse({"items": items, **told, "unknown": list(answer.unknown), "ms": round(answer.ms, 2)})


@router.post("/interactions")
def note_interactions(body: InteractionsBody) -> Response:
    """Store what people did, each event once; the next list knows it."""
    said, unread = [], {}
    for place, event in enumerate(body.events):
        try:
            at = dt.datetime.fromisoformat(event.happened_at) if event.happened_at is not None else None
        except ValueError:
            unread[place] = "The moment cannot be read; write it as 2026-01-31T12:00:00Z."
            continue
        said.append((place, Event(event.user, event.item, event.kind, event.value, at, event.id, source="api")))
    noted = _desk().recommend.note([event for _, event in said])
    refused = unread | {said[at][0]: reason for at, reason in noted.refused}
    return JSONResponse(_noted(noted, refused))


@router.post("/items")
def change_items(body: ItemsBody) -> Response:
    """Let items come, go, or be called something else; the next list knows it."""
    noted = _desk().recommend.change_items([ItemChange(**item.model_dump()) for item in body.items])
    return JSONResponse(_noted(noted, dict(noted.refused)))


def _noted(noted: Noted, refused: dict[int, str]) -> dict[str, Any]:
    reasons = [{"index": place, "reason": storable(reason)} for place, reason in sorted(refused.items())]
    return {"stored": noted.stored, "known": noted.known, "refused": reasons}


def _desk() -> runtime.Runtime:
    desk = runtime.current()
    if desk is None:
        raise HTTPException(503, "The desk is not up yet.")
    return desk
