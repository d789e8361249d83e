"""What was computed for a text, kept so that asking twice costs nothing. Owns the table `explanations` and the key of its digests.

A row holds numbers, places and labels, never words of the text: those come back from the text of whoever asks again. The digest that
finds a row is keyed with a secret of this desk (<home>/explain.key, mode 0600, outside the database and its backups), so that nobody
who reads the table can try out what was asked. A row that does not fit the asker's text is passed over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmcore import clock
from fmcore.explain.words import Words
from fmcore.nouns import Curve, Edit, Explanation, Flip, Prediction, Trust
from fmcore.store.store import Store, StoreError, to_json

log = logging.getLogger("fm.explain")

KEY_FILE = "explain.key"
KEY_BYTES = 32
FORMAT = 1
"""Rows of another format are passed over: they are computed anew."""

Place = tuple[str, str, int, str]
"""(part, method, budget, target): what a row is of, beside its text and version."""
Content = Mapping[str, Any]


class Unfit(Exception):
    """A stored row that does not belong to this text, or that cannot be read."""


class Kept:
    """The stored answers of a desk. A failing store keeps nothing and finds nothing; an answer never fails on it."""

    def __init__(self, store: Store, home: Path):
        self._store, self._path = store, Path(home) / KEY_FILE
        self._lock = threading.Lock()
        self._key: bytes | None = None

    def digest(self, text: str) -> str:
        """HMAC-SHA256 of a cleaned text, in hex."""
        with self._lock:
            self._key = self._key or _secret(self._path)
        return hmac.new(self._key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def found(self, digest: str, *, task: str, version: str) -> dict[Place, Content]:
        """Everything that is stored of a text and a version, the last row of each kind."""
        sql = """SELECT part, method, budget, target, content FROM explanations WHERE digest = ? AND task = ? AND version = ?
                 ORDER BY noted_at, rowid"""
        try:
            rows = self._store.rows(sql, digest, task, version)
        except StoreError as error:
            log.warning("stored explanations cannot be read: %s", error.message)
            return {}
        found: dict[Place, Content] = {}
        for row in rows:
            with contextlib.suppress(ValueError):  # a row that is no JSON is computed anew
                content = json.loads(row["content"])
                if isinstance(content, dict) and content.get("format") == FORMAT:
                    found[row["part"], row["method"], row["budget"], row["target"]] = content
        return found

    def keep(self, digest: str, place: Place, content: Content, *, task: str, version: str) -> bool:
        """Store a row; False where the store refuses."""
        part, method, budget, target = place
        try:
            row = [digest, task, version, method, budget, target, part, to_json({"format": FORMAT, **content}), clock.to_store(clock.now())]
            with self._store.write() as tx:
                tx.execute("INSERT INTO explanations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        except StoreError as error:
            log.warning("an explanation was not stored: %s", error.message)
            return False
        return True


# --- what a row holds, and back


def from_prediction(made: Prediction) -> Content:
    """A prediction as stored."""
    return dataclasses.asdict(made)


def to_prediction(content: Content) -> Prediction:
    """Raises Unfit."""
    with _fitting():
        values = {f.name: content[f.name] for f in dataclasses.fields(Prediction)}
        scores = dict(sorted(content["scores"].items(), key=lambda pair: (pair[0] != content["label"], -pair[1])))
        return Prediction(**{**values, "scores": scores, "candidates": tuple(content["candidates"])})


_NUMBERS = ("label", "score", "base_value", "values", "spans", "n_calls", "additivity_error", "seconds")


def from_explanation(made: Explanation, text: str) -> Content:
    """An explanation as stored: everything but the words."""
    return {name: getattr(made, name) for name in _NUMBERS} | {"n_chars": len(text), "made_at": made.made_at.isoformat()}


def to_explanation(content: Content, text: str, *, task: str, version: str, place: Place, n_unread: int) -> Explanation:
    """The explanation, with the words of the asker's own text. Raises Unfit."""
    with _fitting():
        _part, method, budget, target = place
        spans = _spans(content, text)
        values = tuple(float(value) for value in content["values"])
        if len(values) != len(spans):
            raise Unfit
        numbers = {name: content[name] for name in ("label", "score", "base_value", "n_calls", "additivity_error", "seconds")}
        return Explanation(
            **numbers, task=task, version=version, target=target, method=method, budget=budget,
            tokens=Words(text, spans).tokens, spans=spans, values=values, n_unread=n_unread, stored=True,
            made_at=dt.datetime.fromisoformat(content["made_at"]),
        )  # fmt: skip


def from_trust(made: Trust) -> Content:
    """A measure of trust as stored."""
    return dataclasses.asdict(made)


def to_trust(content: Content) -> Trust:
    """Raises Unfit."""
    with _fitting():
        values = {f.name: content[f.name] for f in dataclasses.fields(Trust)}
        curves = {name: _curve(content[name]) for name in ("deletion", "insertion")}
        return Trust(**{**values, **curves, "checks": tuple((name, bool(passed), said) for name, passed, said in content["checks"])})


def from_flips(flips: tuple[Flip, ...], tried: str, read: Words, text: str) -> Content:
    """Flips of the part of a text that the model reads, as stored: places and new words."""
    rows = [
        {"edits": [[edit.place, edit.new] for edit in flip.edits],
         **{name: getattr(flip, name) for name in ("label", "score", "old_label", "old_score")}}
        for flip in flips
    ]  # fmt: skip
    return {"n_chars": len(text), "read_to": len(read.text), "spans": read.spans, "flips": rows, "tried": tried}


def to_flips(content: Content, text: str) -> tuple[tuple[Flip, ...], str]:
    """(flips, what was tried), edited in the asker's own text. Raises Unfit."""
    with _fitting():
        words = Words(text[: int(content["read_to"])], _spans(content, text))
        flips = []
        for row in content["flips"]:
            edits = tuple(Edit(place, words.tokens[place], new) for place, new in row["edits"])
            new = {edit.place: edit.new for edit in edits}
            edited = words.edited([new.get(place, token) for place, token in enumerate(words.tokens)])
            flips.append(Flip(edits, edited, row["label"], row["score"], row["old_label"], row["old_score"]))
        return tuple(flips), content["tried"]


def _spans(content: Content, text: str) -> tuple[tuple[int, int], ...]:
    spans = tuple((int(start), int(end)) for start, end in content["spans"])
    at = 0
    for start, end in spans:
        if not at <= start < end <= len(text):
            raise Unfit
        at = end
    if content["n_chars"] != len(text):
        raise Unfit
    return spans


def _curve(content: Content | None) -> Curve | None:
    if content is None:
        return None
    rows = {name: tuple(content[name]) for name in ("shares", "scores", "random")}
    return Curve(**rows, **{name: content[name] for name in ("area", "random_area", "low", "high")})


@contextlib.contextmanager
def _fitting():
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise Unfit from None


def _secret(path: Path) -> bytes:
    """The key of this desk, made at the first use. One that is damaged is replaced: what was stored under it is computed anew."""
    with contextlib.suppress(OSError):
        held = path.read_bytes()
        if len(held) == KEY_BYTES:
            return held
    key = secrets.token_bytes(KEY_BYTES)
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o600)
        part.replace(path)
    except OSError as error:  # a full disk: answers are given all the same, and found again until the desk stops
        log.warning("%s cannot be written (%s)", path.name, error.strerror)
    return key
