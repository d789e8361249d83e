"""The built-in demo catalogue: 240 articles and products of a made-up bank, broker and news house, and 400 made-up readers.

Synthetic throughout. The texts were written for FM Desk; a reader is a name and one to three stated tastes (users.csv, the first
counts most), and what they read is drawn from these by the process below, the same for everybody who asks with the same seed. Since
the truth is known, a page can put "stated taste" beside what a model made of somebody, and a test can ask whether it was found.

What a reader opens next:
- a series that was begun is followed: with probability SERIES the next part of what was read last;
- else, with probability NOISE, anything, by popularity alone;
- else with probability STAY something of the same topic as before, or a topic drawn from the tastes (SHARES);
- within a topic by popularity (a fixed Zipf law a topic), and by depth: who has read n things of a topic looks for level
  1 + n * CURIOSITY, up to 3, so that beginners' guides come before research notes; a later part of a series whose earlier part is
  unread is rarely opened.
Readers come in sittings of a few minutes between items, days apart, within the year 2024. Nothing is read twice. The 12 items marked
new came out after the log ends: nobody has met them.
"""

from __future__ import annotations

import datetime as dt
import functools

import numpy as np
import pandas as pd

from fmcore import clock
from fmcore.data import demo
from fmcore.data.interactions import Interactions, build

FOLDER = demo.FOLDER / "shop"
LICENCE = "Part of FM Desk"
TOPICS = {
    "saving": "Saving", "mortgages": "Mortgages", "investing": "Investing for beginners", "options": "Options",
    "climate": "Climate and money", "tax": "Tax", "retirement": "Retirement", "travel": "Travel and cards",
    "business": "Small business", "crypto": "Crypto", "safety": "Fraud safety", "economy": "Economics news",
}  # fmt: skip
SHARES = {1: (1.0,), 2: (0.65, 0.35), 3: (0.5, 0.3, 0.2)}
"""How much each taste counts of somebody who states one, two or three."""
SERIES, NOISE, STAY = 0.55, 0.08, 0.45
CURIOSITY = 0.35
ORIGIN = dt.datetime(2024, 1, 1, tzinfo=clock.UTC)
DAYS = 300


def load(*, seed: int = 0) -> Interactions:
    """The log of all readers, with every item of the catalogue, also those that nobody has met. Synthetic."""
    note = "Synthetic: made-up readers with stated tastes; no person clicked on any of it."
    rows = pd.DataFrame(_log(seed), columns=["user", "item", "at"])
    return build(rows, name="demo_shop", items=items(), synthetic=True, licence=LICENCE, notes=(note,))


def items() -> pd.DataFrame:
    """The catalogue: item, title, text, kind, topic, level (1 for beginners to 3), series, part (0 outside of a series), new (bool)."""
    frame = pd.read_csv(FOLDER / "items.csv", dtype=str, keep_default_na=False)
    return frame.assign(level=frame["level"].astype(int), part=frame["part"].replace("", "0").astype(int), new=frame["new"] == "yes")


def tastes() -> dict[str, tuple[str, ...]]:
    """Reader -> the topics that they say they like, the strongest first (keys of TOPICS)."""
    frame = pd.read_csv(FOLDER / "users.csv", dtype=str, keep_default_na=False)
    return {user: tuple(stated.split("|")) for user, stated in zip(frame["user"], frame["topics"], strict=True)}


@functools.lru_cache(maxsize=4)
def _log(seed: int) -> tuple[tuple[str, str, int], ...]:
    """(user, item, seconds since 1970) of every reader, drawn from (seed, reader), so that one reader's log depends on no other's."""
    shelf = _Shelf(items(), np.random.default_rng(seed))
    rows: list[tuple[str, str, int]] = []
    for number, (user, stated) in enumerate(tastes().items()):
        rng = np.random.default_rng((seed, number))
        read = shelf.read_by(stated, rng)
        at = ORIGIN.timestamp() + rng.uniform(0, DAYS * 0.5) * 86_400
        pause = DAYS * 86_400 / len(read)
        for item in read:
            rows.append((user, shelf.ids[item], int(at)))
            at += rng.exponential(240) + 20 if rng.random() < 0.7 else rng.uniform(0.5, 2.0) * pause
    return tuple(rows)


class _Shelf:
    """The catalogue as arrays, and how a reader walks along it."""

    def __init__(self, frame: pd.DataFrame, rng: np.random.Generator) -> None:
        self.ids = frame["item"].tolist()
        self.level = frame["level"].to_numpy(dtype=float)
        names = list(TOPICS)
        self.topic = np.array([names.index(topic) for topic in frame["topic"]])
        place = {(series, part): at for at, (series, part) in enumerate(zip(frame["series"], frame["part"], strict=True)) if series}
        keys = list(zip(frame["series"], frame["part"], strict=True))
        self.following = np.array([place.get((series, part + 1), -1) for series, part in keys])
        self.before = np.array([place.get((series, part - 1), -1) for series, part in keys])
        self.liked = np.zeros(len(frame))
        self.members = [np.flatnonzero(self.topic == topic) for topic in range(len(names))]
        for members in self.members:
            self.liked[members] = 1 / (1 + rng.permutation(len(members))) ** 0.8
        self.liked[frame["new"].to_numpy()] = 0.0

    def read_by(self, stated: tuple[str, ...], rng: np.random.Generator) -> list[int]:
        """The items that one reader opens, in order."""
        wanted = int(np.clip(np.round(rng.lognormal(2.9, 0.55)), 4, 60))
        shares = np.zeros(len(TOPICS))
        for topic, share in zip(stated, SHARES[len(stated)], strict=True):
            shares[list(TOPICS).index(topic)] = share
        unread = self.liked > 0
        n_read = np.zeros(len(TOPICS))
        read: list[int] = []
        while len(read) < wanted:
            item = self._next(read[-1] if read else -1, shares, unread, n_read, rng)
            read.append(item)
            unread[item] = False
            n_read[self.topic[item]] += 1
        return read

    def _next(self, last: int, shares: np.ndarray, unread: np.ndarray, n_read: np.ndarray, rng: np.random.Generator) -> int:
        following = self.following[last] if last >= 0 else -1
        if following >= 0 and unread[following] and rng.random() < SERIES:
            return int(following)
        if rng.random() >= NOISE:
            stays = last >= 0 and rng.random() < STAY
            topic = int(self.topic[last]) if stays else _drawn(shares, rng)
            inside = self.members[topic]
            depth = min(3.0, 1.0 + n_read[topic] * CURIOSITY)
            fit = np.exp(-1.2 * np.abs(self.level[inside] - depth))
            fit[(self.before[inside] >= 0) & unread[self.before[inside]]] *= 0.1
            weights = self.liked[inside] * unread[inside] * fit
            if weights.any():
                return int(inside[_drawn(weights, rng)])
        return _drawn(self.liked * unread, rng)


def _drawn(weights: np.ndarray, rng: np.random.Generator) -> int:
    """A place, with a probability in proportion to its weight."""
    up_to = weights.cumsum()
    return int(np.searchsorted(up_to, rng.random() * up_to[-1], side="right"))
