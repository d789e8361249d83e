"""The shelf: the recommenders of one version side by side, with what people met, in one folder that is read back whole or refused.

Owns the folder's format and how it is filled from a log of interactions: fitted on the past, chosen on what came next, measured once on
what came last, then fitted again on everything. Never touches the store, and reading a folder never imports torch.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

import fmcore
from fmcore.data.interactions import Interactions
from fmcore.data.labelled import BadData
from fmcore.evaluation import metrics, ranking
from fmcore.models.manifest import write_manifest
from fmcore.nouns import FMError, Report
from fmcore.recommend import diversity, heldout_ranks, measure, offers, turns
from fmcore.recommend.groups import Groups, groups
from fmcore.recommend.hybrid import Hybrid
from fmcore.recommend.measure import Budget, Part
from fmcore.recommend.offers import MODELS
from fmcore.recommend.recommender import BadRecommender, History, Items, Recommender
from fmcore.recommend.turns import Ground, Turn

FORMAT = 1
SPLIT = "Leave one out by time: a person's last item is the test, the one before it validation; ties in the file's order."
EMPTY = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, eq=False)
class Shelf:
    """A version as it is served. items and users as their owner writes them; models by name, `serving` the one that answers unasked.

    facts: model.json, the figures included. groups: of items, with a name each; one group where the version has none.
    """

    version: str
    items: Items
    users: tuple[str, ...]
    models: Mapping[str, Recommender]
    serving: str
    groups: Groups
    facts: Mapping[str, Any]
    pasts: Sequence[History] = field(repr=False)

    @property
    def dataset(self) -> str:
        return str(self.facts["dataset"])

    @property
    def synthetic(self) -> bool:
        return bool(self.facts["synthetic"])

    @cached_property
    def _places(self) -> dict[str, int]:
        return {user: place for place, user in enumerate(self.users)}

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each item by its id."""
        return {item: number for number, item in enumerate(self.items.ids)}

    def past(self, user: str) -> History:
        """What a user met before the version was trained, oldest first; empty for a stranger."""
        place = self._places.get(user)
        return EMPTY if place is None else self.pasts[place]

    @classmethod
    def load(cls, folder: Path, *, version: str) -> Self:
        """The shelf in a version's folder. Raises BadRecommender, whatever is wrong with it."""
        try:
            return cls._read(Path(folder), version)
        except BadRecommender:
            raise
        except Exception as error:  # a damaged file makes its reader raise anything at all, and all of it means the same
            raise BadRecommender(f"{version} cannot be read ({type(error).__name__}: {str(error)[:120]}).", "Train it again.") from error

    @classmethod
    def _read(cls, folder: Path, version: str) -> Self:
        facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if facts["format"] != FORMAT or facts["task"] != "recommend" or facts["serving"] not in facts["models"]:
            raise BadRecommender(f"{version} is no shelf of format {FORMAT}.", "Train it again.")
        items, of = read_items(folder)
        users, pasts = read_pasts(folder, n_items=len(items))
        unknown = sorted(set(facts["models"]) - MODELS.keys())
        if unknown:
            raise BadRecommender(f"{version} holds the model {unknown[0]!r}, which is not known here.", "Train it again.")
        models: dict[str, Recommender] = {}
        for name in facts["models"]:
            models[name] = offers.read(name, folder / name, items, beside=models)
        return cls(version, items, users, models, facts["serving"], Groups(of, tuple(facts["groups"])), facts, pasts)


def read_items(folder: Path) -> tuple[Items, np.ndarray]:
    """(the items, int32 the group of each) of a version's folder."""
    frame = pd.read_parquet(folder / "items.parquet", columns=["id", "title", "text", "group"])
    ids, titles, texts = (tuple(frame[column].astype(str)) for column in ("id", "title", "text"))
    return Items(ids, titles, texts), frame["group"].to_numpy(dtype=np.int32)


def read_pasts(folder: Path, *, n_items: int) -> tuple[tuple[str, ...], list[History]]:
    """(users, what each met, oldest first) of a version's folder. Raises BadRecommender where an item has no such number."""
    frame = pd.read_parquet(folder / "pasts.parquet", columns=["user", "items"])
    pasts = [np.asarray(past, dtype=np.int32) for past in frame["items"]]
    if any(len(past) and (past.min() < 0 or past.max() >= n_items) for past in pasts):
        raise BadRecommender("A past names an item that the version does not have.", "Train it again.")
    return tuple(frame["user"].astype(str)), pasts


def fit(
    data: Interactions, *, names: Sequence[str], minutes: float, out: Path, report: Report, seed: int = 0,
    checkpoint: Path | None = None, encoder: Path | str = "", champion: Shelf | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Fit the named models ("popularity" always) and write a version's folder, its manifest last. Returns its metrics.

    Each model is fitted on what came before the last two items of each person and chosen by the first of these; the test is looked at
    once. minutes: on the wall, 0 for as many as it takes; what does not fit in them or into memory is named in "left_out", with why.
    checkpoint: a folder in which finished models are kept, so that a run that died goes on after them. champion: the version before
    this one, whose ranks on test items that it has not learnt from are stored beside the new ones, for the gate.
    Raises BadData where nobody has three interactions, UnknownRecommender, and Cancelled.
    """
    budget, work = Budget(minutes), checkpoint or out.with_name(f".{out.name}-turns")
    on = turns.ground(data, seed=seed)
    measured = [len(on.validation), len(on.test)]
    _same_work(work, {"content": content_hash(data), "seed": seed, "encoder": str(encoder), "code": fmcore.__version__, "people": measured})
    if not len(on.test):
        raise BadData(f"Nobody in {data.name} has three interactions, so nothing can be held back.", "Bring a longer log.")
    taken, left_out = _turns(on, names, work=work, budget=budget, report=Part(report, 0.02, 0.85), encoder=str(encoder))
    serving = measure.chosen({turn.name: turn.validation for turn in taken})
    by_name = {turn.name: turn for turn in taken}
    before = Part(report, 0.85, 0.9, "the version before")
    held = heldout_ranks.frame(data, on, by_name[serving], by_name["popularity"], champion=champion, report=before)
    vectors = _vectors(on, by_name.get("text"), seed=seed)
    told = _told(data, on, taken, serving=serving, left_out=left_out, held=held, vectors=vectors)
    report.progress(0.92, "what diversity costs")
    needed = taken if serving == Hybrid.name else [by_name[serving]]
    as_measured = turns.loaded(needed, turns.MEASURED, on.items)[serving]
    frames = {"heldout": held, "frontier": diversity.frontier(as_measured, vectors, on.split, k=measure.K, seed=seed)}
    report.progress(0.97, "writing the version")
    told |= {"seconds": round(budget.spent_s, 1), "measured_against": champion.version if champion else ""}
    _write(out, data=data, on=on, taken=taken, told=told, frames=frames, grouped=groups(on.items, vectors))
    if checkpoint is None:
        shutil.rmtree(work)
    report.progress(1.0, f"{MODELS[serving].title} answers: NDCG@10 {told['ndcg']['value']:.3f} on {told['n']:,} people")
    return told


def content_hash(data: Interactions) -> str:
    """Names everything that a version learns from: the rows, and the items with their words."""
    digest = hashlib.sha256(data.split_hash.encode())
    for words in (data.items, data.titles, data.texts):
        digest.update("\0".join((*words, "")).encode())
    return digest.hexdigest()[:16]


def _turns(
    on: Ground, names: Sequence[str], *, work: Path, budget: Budget, report: Report, encoder: str
) -> tuple[list[Turn], dict[str, str]]:
    """(the finished turns from simple to elaborate, for each model that was left out the sentence why)."""
    ordered, taken, left_out, slowness = offers.ordered(names), [], {}, 1.0
    for place, name in enumerate(ordered):
        part = Part(report, place / len(ordered), (place + 1) / len(ordered), MODELS[name].title)
        part.progress(0.0)
        why = (
            "" if name == "popularity" else offers.refusal(name, on.shape, left_s=budget.left_s / slowness, free_bytes=offers.free_bytes())
        )
        if not why:
            try:
                if name == Hybrid.name:
                    taken.append(turns.take_hybrid(taken, on, folder=work / name, report=part))
                    continue
                taken.append(turns.take(name, on, folder=work / name, budget=budget, report=part, encoder=encoder))
                slowness = max(slowness, offers.slowness(name, on.shape, taken[-1].told["fit_seconds"]))
                continue
            except FMError as error:
                why = error.message
            except MemoryError:
                why = f"{MODELS[name].title} did not fit into memory."
        left_out[name] = why
    return taken, left_out


def _vectors(on: Ground, text: Turn | None, *, seed: int) -> np.ndarray:
    """What says which items are alike: their texts where the version reads them, else who met them."""
    if text is None:
        return diversity.likeness(on.before_test, n_items=len(on.items), seed=seed)
    return MODELS[text.name].load(text.folder / turns.MODEL, on.items).vectors


def _same_work(work: Path, what: Mapping[str, Any]) -> None:
    """Start from nothing where a checkpoint's folder holds turns on other data."""
    mark = work / "work.json"
    told = json.dumps(what, sort_keys=True)
    if not (mark.is_file() and mark.read_text(encoding="utf-8") == told):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        mark.write_text(told, encoding="utf-8")


def _told(
    data: Interactions, on: Ground, taken: Sequence[Turn], *, serving: str, left_out: Mapping[str, str], held: pd.DataFrame,
    vectors: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    """What is told of a version: its figures, its leaderboard, and the facts of its card."""
    rows = [turns.row(turn, on, title=MODELS[turn.name].title, vectors=vectors, k=measure.K) for turn in taken]
    best = next(row for row in rows if row["model"] == serving)
    better = ranking.paired(held["popularity_rank"], held["rank"], k=measure.K)
    up_to = dt.datetime.fromtimestamp(int(data.rows["at"].max()), dt.UTC)
    return {
        **{name: best[name] for name in ("hr", "ndcg", "mrr", "coverage")},
        "n": len(held), "serving": serving, "leaderboard": rows, "left_out": dict(left_out),
        "better_than_popularity": metrics.figure(better),
        "dataset": data.name, "synthetic": data.synthetic, "licence": data.licence, "split_note": SPLIT, "notes": list(data.notes),
        "split_hash": data.split_hash, "content_hash": content_hash(data), "n_users": len(data.users), "n_items": len(data.items),
        "n_interactions": len(data.rows), "trained_up_to": up_to.isoformat(), "code": fmcore.__version__, "seed": on.seed,
    }  # fmt: skip


def _write(
    out: Path, *, data: Interactions, on: Ground, taken: Sequence[Turn], told: Mapping[str, Any], frames: Mapping[str, pd.DataFrame],
    grouped: Groups,
) -> None:  # fmt: skip
    """A version's folder out of finished turns, its manifest last."""
    out.mkdir(parents=True)
    listed = {"id": on.items.ids, "title": on.items.titles, "text": on.items.texts, "group": grouped.of}
    pd.DataFrame(listed).to_parquet(out / "items.parquet", index=False)
    pd.DataFrame({"user": list(data.users), "items": on.everything}).to_parquet(out / "pasts.parquet", index=False)
    for name, frame in frames.items():
        frame.to_parquet(out / f"{name}.parquet", index=False)
    for turn in taken:
        turns.linked(turn.folder / turns.MODEL, out / turn.name)
    names = [turn.name for turn in taken]
    facts = {**told, "format": FORMAT, "task": "recommend", "models": names, "groups": list(grouped.names)}
    (out / "model.json").write_text(json.dumps(facts, allow_nan=False, ensure_ascii=False, indent=1), encoding="utf-8")
    write_manifest(out)
