"""The contest: agents against each other in the simulator on the same visits, and what logged data say of them. Owns the table contests.

One call from a model and a log to a `Contest`. A finished agent is kept in the run's checkpoint, so that a run that died goes on after it.
Never trains a recommender and promotes nothing: what is worth showing to people is a person's decision.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fmcore import clock
from fmcore.data.interactions import Interactions
from fmcore.nouns import Report
from fmcore.recommend import agents, logged, off_policy, simulator, standings
from fmcore.recommend.agents import AGENTS, BASELINES
from fmcore.recommend.counting import Popularity
from fmcore.recommend.off_policy import Value
from fmcore.recommend.recommender import Items, Recommender, Scorer
from fmcore.recommend.simulator import Session
from fmcore.store.store import Store, to_json

if TYPE_CHECKING:
    from fmcore.recommend.groups import Groups
    from fmcore.recommend.shelf import Shelf

FRAMES = ("returns", "curves", "table", "off_policy", "estimators")
OFF_POLICY = ("agent", "source", "estimator", "value", "low", "high", "ess", "n", "truth", "note")
LEARNERS = tuple(name for name in AGENTS if AGENTS[name].learns)
POINTS = 40
"""Points of a live return curve an agent and seed."""
SMOOTHED = 50
"""Visits that a point of a return curve is the mean of."""


@dataclass(frozen=True)
class Plan:
    """How long. steps: of training an agent and seed; visits: on which all are judged, a twelfth of the steps unless said."""

    steps: int
    seeds: int = 5
    visits: int = 0
    seed: int = 0

    @property
    def n_visits(self) -> int:
        return self.visits or int(np.clip(self.steps // 12, 40, 1000))

    @property
    def n_logged(self) -> int:
        """Rows of a log for the off-policy estimates."""
        return max(2 * self.n_visits, 600)


@dataclass(frozen=True, eq=False)
class Contest:
    """What came of it.

    returns (agent, seed, episode, return): likes of each judged visit. curves (agent, seed, step, return): while training. table:
    standings.COLUMNS. off_policy (OFF_POLICY): source "simulator" (truth known), "log" (real, policy estimated) or "live" (agent
    "learner" or "even"); value None where it is refused, note says why. estimators: off_policy.repeated's columns. ranker: the title of
    the model that ranks inside the groups and that greedy follows; sentence: the outcome in words.
    """

    version: str
    dataset: str
    synthetic: bool
    ranker: str
    plan: Plan
    returns: pd.DataFrame
    curves: pd.DataFrame
    table: pd.DataFrame
    off_policy: pd.DataFrame
    estimators: pd.DataFrame
    assumptions: tuple[str, ...]
    sentence: str
    seconds: float
    made_at: dt.datetime


def rankers_of(shelf: Shelf) -> tuple[Recommender, Recommender | None]:
    """(the model that serves, on which agents build, the sequence model where the shelf has one and another one serves)."""
    return shelf.models[shelf.serving], None if shelf.serving == "sasrec" else shelf.models.get("sasrec")


def aligned(data: Interactions, items: Items) -> Interactions:
    """The log in a model's numbers: its items in the model's order, rows of items that the model does not know left out."""
    numbers = {item: number for number, item in enumerate(items.ids)}
    where = np.array([numbers.get(item, -1) for item in data.items], dtype=np.int32)
    rows = data.rows.assign(item=where[data.rows["item"].to_numpy()])
    rows = rows[rows["item"] >= 0].reset_index(drop=True)
    return Interactions(data.name, data.users, items.ids, items.titles, items.texts, rows, data.synthetic, data.licence, data.notes)


def run(
    data: Interactions, model: Scorer, groups: Groups, *, plan: Plan, ranker: str, version: str = "", events: pd.DataFrame | None = None,
    sequence: Scorer | None = None, learners: Sequence[str] = LEARNERS, checkpoint: Path | None = None, report: Report,
) -> Contest:  # fmt: skip
    """All agents in a simulator fitted to a log in the model's numbers (`aligned`), then the off-policy estimates.

    groups: of the model's items. ranker: the model's title. events: of the live learner, as live_bandit.beliefs takes them. sequence: a
    second model, SASRec, to follow greedily for comparison. learners: who takes part beside the baselines. checkpoint: a folder for
    finished agents. Raises simulator.TooThin, and Cancelled.
    """
    started, baselines = time.monotonic(), [name for name in BASELINES if name != "sasrec" or sequence is not None]
    names = [name for name in AGENTS if name in baselines or name in learners]
    report.progress(0.0, "fitting the simulator")
    world = simulator.fit(data, groups, seed=plan.seed)
    popularity = Popularity().fit(data.histories(), Items(data.items, data.titles, data.texts))
    arena = _Arena(world, {"model": model, "popularity": popularity, "sasrec": sequence}, plan, report, learners=learners)
    _same_contest(checkpoint, [data.split_hash, version, ranker, plan.n_visits, asdict(plan), world.assumptions])
    report.progress(0.02, "what the log says")
    situations = logged.met_in(arena.session("model", "judging"), n=plan.n_visits, seed=plan.seed)
    log = logged.of_people(data, arena.session("model", "judging"), n=plan.n_logged, seed=plan.seed)
    observations = situations.observations if isinstance(log, str) else np.concatenate([situations.observations, log.observations])
    done = {name: [arena.outcome(name, seed, observations, checkpoint) for seed in range(plan.seeds)] for name in names}
    returns = {name: np.array([one["returns"] for one in found]) for name, found in done.items()}
    report.progress(0.94, "off-policy estimates")
    decisions = {name: np.array(found[0]["decisions"]) for name, found in done.items()}
    estimated = [*_simulated(situations, decisions, plan), *_real(log, decisions, len(situations.chances)), *_lived(events, groups)]
    report.progress(0.96, "how far the estimates can be trusted")
    table = standings.table(returns, ranker=ranker, seed=plan.seed)
    contest = Contest(
        version=version, dataset=data.name, synthetic=data.synthetic, ranker=ranker, plan=plan, returns=_long(returns),
        curves=_curves(done), table=table, off_policy=pd.DataFrame(estimated, columns=list(OFF_POLICY)),
        estimators=_trusted(situations, decisions["greedy"], plan), assumptions=(*world.assumptions, *_stated(plan, ranker, log)),
        sentence=standings.verdict(table), seconds=round(time.monotonic() - started, 1), made_at=clock.now(),
    )  # fmt: skip
    report.progress(1.0, contest.sentence)
    return contest


class _Arena:
    """The sessions of a contest, and one agent's way through it."""

    def __init__(
        self, world: simulator.World, rankers: Mapping[str, Scorer | None], plan: Plan, report: Report, *, learners: Sequence[str]
    ):
        self._world, self._rankers, self._plan, self._report = world, rankers, plan, report
        self._learners = [name for name in LEARNERS if name in learners]
        self.session: Callable[[str, str], Session] = functools.cache(self._session)

    def _session(self, by: str, part: str) -> Session:
        return Session(self._world, self._rankers[by].scores, part=part)

    def outcome(self, name: str, seed: int, observations: np.ndarray, checkpoint: Path | None) -> dict[str, Any]:
        """{"returns": of each judged visit, "decisions": on the observations, "curve": [(step, return)]}; kept ones are read."""
        kept = checkpoint / f"{name}-{seed}.json" if checkpoint else None
        if kept and kept.exists():
            return json.loads(kept.read_text(encoding="utf-8"))
        before = self._learners.index(name) * self._plan.seeds + seed if name in self._learners else 0
        agent, curve = AGENTS[name], _Curve(name, seed, self._plan, self._report, done=before, of=len(self._learners) * self._plan.seeds)
        act = agents.train(name, self.session(agent.by, "training"), steps=self._plan.steps, seed=seed, hear=curve.hear)
        curve.tell("judging")
        played = agents.play(act, self.session(agent.by, "judging"), range(self._plan.n_visits))
        found = {"returns": played.astype(int).tolist(), "decisions": [act(o) for o in observations], "curve": curve.points}
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            half = kept.with_suffix(".part")
            half.write_text(json.dumps(found), encoding="utf-8")
            half.replace(kept)
        return found


class _Curve:
    """A live return curve: the mean of the latest visits' returns, told now and then; progress with it."""

    def __init__(self, name: str, seed: int, plan: Plan, report: Report, *, done: int, of: int):
        self._name, self._seed, self._plan, self._report = name, seed, plan, report
        self._returns: list[float] = []
        self._next = plan.steps // POINTS  # a mean of the first visit alone would be no point of a curve
        self.points: list[tuple[int, float]] = []
        self._before, self._of = done, of

    def hear(self, step: int, total: float) -> None:
        """Raises Cancelled when the run was asked to stop."""
        self._returns.append(total)
        if step < self._next:
            return
        self._next = step + self._plan.steps // POINTS
        mean = float(np.mean(self._returns[-SMOOTHED:]))
        self.points.append((step, round(mean, 4)))
        self._report.metric(self._seed * self._plan.steps + step, **{f"return_{self._name}": mean})
        self.tell("training", share=min(step / self._plan.steps, 1.0))

    def tell(self, what: str, *, share: float = 1.0) -> None:
        """Progress, by the share of this agent's training that is done; baselines come first and count as nothing."""
        done = (self._before + share * (self._name in LEARNERS)) / max(self._of, 1)
        message = f"{AGENTS[self._name].title}, seed {self._seed + 1} of {self._plan.seeds}: {what}"
        self._report.progress(0.05 + 0.88 * done, message)


def _same_contest(checkpoint: Path | None, facts: list[Any]) -> None:
    """Empty a checkpoint that belongs to another contest."""
    if checkpoint is None:
        return
    mark, digest = checkpoint / "contest.txt", hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    if not mark.exists() or mark.read_text(encoding="utf-8") != digest:
        shutil.rmtree(checkpoint, ignore_errors=True)
        checkpoint.mkdir(parents=True)
        mark.write_text(digest, encoding="utf-8")


# --- off-policy


def _target(name: str, decisions: np.ndarray, n_actions: int) -> np.ndarray:
    """float64 (n, n_actions): an agent's policy on some rows; random draws evenly, the others are sure."""
    return np.full((len(decisions), n_actions), 1 / n_actions) if name == "random" else np.eye(n_actions)[decisions]


def _comparable(decisions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without those that rank by another model: what they show is not one of the model's candidates."""
    return {name: found for name, found in decisions.items() if AGENTS[name].by == "model"}


def _simulated(situations: logged.Situations, decisions: Mapping[str, np.ndarray], plan: Plan) -> list[tuple]:
    at, log = logged.drawn(situations, n=plan.n_logged, seed=plan.seed)
    rows, n_actions = [], situations.chances.shape[1]
    for name, found in _comparable(decisions).items():
        target = _target(name, found[: len(situations.chances)], n_actions)
        truth = float((target * situations.chances).sum(axis=1).mean())
        rows += [_row(name, "simulator", value, truth) for value in logged.values(log, target[at])]
    return rows


def _real(log: logged.Log | str, decisions: Mapping[str, np.ndarray], before: int) -> list[tuple]:
    if isinstance(log, str):
        nothing = [Value(estimator, None, None, None, 0.0, 0, log) for estimator in off_policy.ESTIMATORS]
        return [_row(name, "log", value) for name in _comparable(decisions) for value in nothing]
    n_actions = log.propensities.shape[1]
    targets = {name: _target(name, found[before:], n_actions) for name, found in _comparable(decisions).items()}
    return [_row(name, "log", value) for name, target in targets.items() for value in logged.values(log, target)]


def _lived(events: pd.DataFrame | None, groups: Groups) -> list[tuple]:
    return [] if events is None else [_row(policy, "live", value) for policy, value in logged.live(events, groups)]


def _row(agent: str, source: str, value: Value, truth: float | None = None) -> tuple:
    return (agent, source, value.estimator, value.value, value.low, value.high, value.ess, value.n, truth, value.note)


def _trusted(situations: logged.Situations, decisions: np.ndarray, plan: Plan) -> pd.DataFrame:
    """How the estimators do for the greedy policy over repeated logs of the simulator."""
    features = np.stack([agents.bandits.features(observation) for observation in situations.observations])
    target = _target("greedy", decisions[: len(situations.chances)], situations.chances.shape[1])
    repeats, n = int(np.clip(plan.n_visits // 5, 10, 200)), plan.n_logged // 2
    return off_policy.repeated(features, situations.chances, situations.logging, target, n=n, repeats=repeats, seed=plan.seed)


def _stated(plan: Plan, ranker: str, log: logged.Log | str) -> tuple[str, ...]:
    return (
        f"Agents choose between the groups' best items by {ranker}, which has learnt from the whole log; the truth knows half its people.",
        f"Each agent that learns was trained with {plan.seeds} seeds, {plan.steps:,} steps each; all make the same {plan.n_visits:,} "
        "visits, by people who took no part in training. Intervals are over seeds and visits.",
        f"Off-policy estimates judge the first seed's agent one step ahead; weights are cut at {off_policy.CLIP:.0f}, and below "
        f"{off_policy.LEAST_ESS:.0f} effective rows nothing is said. In the simulator the logs prefer the model's best candidates.",
        log if isinstance(log, str) else log.how,
    )


# --- tables


def _long(returns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"agent": name, "seed": np.repeat(np.arange(len(r)), r.shape[1]), "episode": np.tile(np.arange(r.shape[1]), len(r)),
                      "return": r.reshape(-1)})
        for name, r in returns.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _curves(done: Mapping[str, list[dict[str, Any]]]) -> pd.DataFrame:
    rows = [(name, seed, step, mean) for name, found in done.items() for seed, one in enumerate(found) for step, mean in one["curve"]]
    return pd.DataFrame(rows, columns=["agent", "seed", "step", "return"])


# --- stored


def as_json(contest: Contest) -> str:
    """A contest as JSON text, `from_json`'s inverse. Returns are whole likes; numbers that are not there are null."""
    facts = {k: v for k, v in contest.__dict__.items() if k not in FRAMES}
    facts |= {"plan": asdict(contest.plan), "made_at": contest.made_at.isoformat()}
    frames = {name: _plain(getattr(contest, name)) for name in FRAMES}
    return to_json({**facts, **frames})


def figures(contest: Contest) -> dict[str, Any]:
    """The contest for a benchmark's file: the facts and the tables as rows, without the single returns and curves."""
    facts = json.loads(as_json(contest))
    for name in FRAMES:
        plain = facts.pop(name)
        if name not in ("returns", "curves"):
            facts[name] = _frame(plain).astype(object).where(lambda frame: frame.notna(), None).to_dict("records")
    return facts


def _plain(frame: pd.DataFrame) -> dict[str, list]:
    """A frame as its column names, in order, and their values; what is missing is None."""
    columns = [frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame.columns]
    return {"columns": list(frame.columns), "values": [[round(v, 6) if isinstance(v, float) else v for v in column] for column in columns]}


def _frame(plain: Mapping[str, list]) -> pd.DataFrame:
    return pd.DataFrame(dict(zip(plain["columns"], plain["values"], strict=True)), columns=plain["columns"])


def from_json(text: str) -> Contest:
    """The contest that `as_json` wrote."""
    facts = json.loads(text)
    frames = {name: _frame(facts.pop(name)) for name in FRAMES}
    plan, made_at = Plan(**facts.pop("plan")), dt.datetime.fromisoformat(facts.pop("made_at"))
    return Contest(**facts | {"assumptions": tuple(facts["assumptions"])}, **frames, plan=plan, made_at=made_at)


def save(store: Store, contest: Contest, *, run_id: str) -> None:
    """Store a contest; once a run, however often it is called."""
    with store.write() as tx:
        if not tx.execute("SELECT 1 FROM contests WHERE run_id = ?", [run_id]):
            row = [contest.version, run_id, as_json(contest), clock.to_store(contest.made_at)]
            tx.execute("INSERT INTO contests (version, run_id, content, noted_at) VALUES (?, ?, ?, ?)", row)


def latest(store: Store, version: str | None = None) -> Contest | None:
    """The latest contest of a version, of any version where none is named; None where there was none."""
    sql = "SELECT content FROM contests WHERE ? IS NULL OR version = ? ORDER BY noted_at DESC LIMIT 1"
    found = store.rows(sql, version, version)
    return from_json(found[0]["content"]) if found else None
