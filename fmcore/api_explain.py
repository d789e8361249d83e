"""The REST face of explanations: a text in, why the model said so out; and the queue of reviews. Included by api.py under the same rules.

Owns the shape of these requests and answers; the command line prints the same. A text comes in a body, never in an address. Never
touches a table or a model itself.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import anyio.from_thread
from fastapi import APIRouter, Query, Request
from fastapi.encoders import jsonable_encoder
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from fmcore import runtime
from fmcore.explain import reviews
from fmcore.explain.asking import ALIASES, METHODS, Question, told
from fmcore.tasks import TASKS
from fmcore.text import storable

router = APIRouter(tags=["explanations"])

MAX_CHARS = 2_000_000
ANSWER_S = 50.0
"""Longest wait for an answer, in the line and at work: a request under way holds up the server's shutdown."""

Text = Annotated[str, BeforeValidator(storable), Field(max_length=MAX_CHARS)]
Name = Annotated[str, BeforeValidator(storable), Field(max_length=120)]
Label = Annotated[str, BeforeValidator(storable), Field(max_length=reviews.MAX_LABEL)]
Note = Annotated[str, BeforeValidator(storable), Field(max_length=reviews.MAX_NOTE)]
Method = Literal[(*METHODS, *ALIASES)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ExplainBody(_Body):
    task: Name = Field("intent", description="A task, task@version, or the name of the data set it was trained on.")
    text: Text
    version: Name | None = Field(None, description="A version instead of the champion.")
    method: Method = Field("fast", description="ig is gradients.")
    budget: int | None = Field(None, description="Texts that the model may be asked for, 8 to 2,000; left out: the method's usual number.")
    target: Label | None = Field(None, description='A label, or "net" for sentiment; left out: the model\'s own answer.')
    trust: bool = Field(True, description="Measure whether to believe it.")
    flips: bool = Field(False, description="Look for the fewest edits that change the answer.")


@router.post("/explain")
def explain(body: ExplainBody, request: Request) -> Response:
    """What each word adds to the score: base_value + sum(values) = score, up to additivity_error; and whether to believe it."""
    desk = _desk()
    task, version = _meant(desk, body.task, body.version)
    parts = [part for part, wanted in (("trust", body.trust), ("flips", body.flips)) if wanted]
    question = Question(task, body.text, version=version, method=body.method, budget=body.budget, target=body.target, parts=parts)
    answer = desk.explain.answer(question, timeout_s=ANSWER_S, who="api", gone=lambda: anyio.from_thread.run(request.is_disconnected))
    return JSONResponse(told(answer))


@router.get("/reviews")
def list_reviews(
    state: Literal["open", "agreed", "declined", "all"] = "open",
    task: Annotated[str | None, Query(max_length=120)] = None,
    limit: Annotated[int, Query(ge=1, le=reviews.MOST_LISTED)] = 100,
) -> Response:
    """Answers that somebody disagreed with: the open ones in the order they came, others newest first."""
    found = reviews.listed(_desk().store, state=None if state == "all" else state, task=task, limit=limit)
    return JSONResponse({"reviews": [_plain(review) for review in found]})


class SendBody(_Body):
    """What a person disagrees with. The text is stored: that is what sending it for review means."""

    task: Name
    version: Name
    text: Text
    predicted: Label
    score: float = Field(ge=0, le=1)
    suggested: Label = ""
    note: Note = ""


@router.post("/reviews", status_code=201)
def send_review(body: SendBody) -> Response:
    """Keep a disagreement, with its text, for a person to settle."""
    return JSONResponse(_plain(reviews.send(_desk().store, **body.model_dump(), who="api")), status_code=201)


class SettleBody(_Body):
    state: Literal["agreed", "declined"]
    reason: Note = Field(min_length=1)


@router.post("/reviews/{review_id}")
def settle_review(review_id: str, body: SettleBody) -> Response:
    """Say what came of an open review, with the reason."""
    return JSONResponse(_plain(reviews.settle(_desk().store, review_id, state=body.state, who="api", note=body.reason)))


def _desk() -> runtime.Runtime:
    desk = runtime.current()
    if desk is None:
        raise HTTPException(503, "The desk is not up yet.")
    return desk


def _meant(desk: runtime.Runtime, name: str, version: str | None) -> tuple[str, str | None]:
    """(task, pinned version) of what was asked for; None leaves the choice to the champion."""
    if name in TASKS:
        return name, version
    found = desk.registry.resolve(name)
    return found.task, version or found.version


def _plain(review: reviews.Review) -> dict[str, Any]:
    return jsonable_encoder(dataclasses.asdict(review))
