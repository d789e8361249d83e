"""Who beats whom in a contest: means over seeds and visits with their intervals, paired differences, and the sentences that say so.

Every agent makes the same visits with every training seed, so both are resampled, crossed (Owen 2007, the pigeonhole bootstrap).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fmcore.nouns import Estimate
from fmcore.recommend.agents import AGENTS, BASELINES

RESAMPLES = 2000
OVER = tuple(f"over_{base}{end}" for base in BASELINES for end in ("", "_low", "_high"))
COLUMNS = ("agent", "title", "mean", "low", "high", "n_seeds", "n_visits", *OVER, "better_than_greedy", "sentence")


class Resamples:
    """The draws of seeds and visits, the same for all agents: counts (RESAMPLES, n_seeds) and (RESAMPLES, n_visits)."""

    def __init__(self, n_seeds: int, n_visits: int, *, seed: int = 0):
        rng = np.random.default_rng(seed)
        self._seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), RESAMPLES) / n_seeds
        self._visits = rng.multinomial(n_visits, np.full(n_visits, 1 / n_visits), RESAMPLES) / n_visits

    def mean(self, returns: np.ndarray) -> Estimate:
        """The mean of float (n_seeds, n_visits) returns with its 95 % interval over both."""
        drawn = ((self._seeds @ returns) * self._visits).sum(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        value = float(returns.mean())
        return Estimate(value, float(min(low, value)), float(max(high, value)), returns.size)


def table(returns: Mapping[str, np.ndarray], *, ranker: str, seed: int = 0) -> pd.DataFrame:
    """COLUMNS, an agent a row in the order of AGENTS. returns: float (n_seeds, n_visits) by agent. ranker: the model behind "greedy".

    over_X is the paired difference to a baseline, None for the baseline itself and where it took no part. better_than_greedy: whether the
    whole interval of the difference lies above 0, None for greedy.
    """
    shape = next(iter(returns.values())).shape
    resamples, rows = Resamples(*shape, seed=seed), []
    for name in (name for name in AGENTS if name in returns):
        mean = resamples.mean(returns[name])
        over = {b: None if b == name or b not in returns else resamples.mean(returns[name] - returns[b]) for b in BASELINES}
        better = None if name == "greedy" else over["greedy"].low > 0
        row = {"agent": name, "title": titled(name, ranker), "mean": mean.value, "low": mean.low, "high": mean.high}
        row |= {"n_seeds": shape[0], "n_visits": shape[1], "better_than_greedy": better}
        for base, found in over.items():
            ends = (None,) * 3 if found is None else (found.value, found.low, found.high)
            row |= dict(zip((f"over_{base}", f"over_{base}_low", f"over_{base}_high"), ends, strict=True))
        rows.append(row | {"sentence": _sentence(row, titled("greedy", ranker))})
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"better_than_greedy": object})


def titled(name: str, ranker: str) -> str:
    """An agent's title; the greedy one says which model it follows."""
    return f"Greedy {ranker}" if name == "greedy" else AGENTS[name].title


def _sentence(row: Mapping, greedy: str) -> str:
    said = f"{row['title']}: {row['mean']:.2f} likes a visit ({row['low']:.2f} to {row['high']:.2f})"
    if row["better_than_greedy"] is None:
        return f"{said}."
    difference = f"{row['over_greedy']:+.2f} ({row['over_greedy_low']:+.2f} to {row['over_greedy_high']:+.2f})"
    return f"{said}, {'better' if row['better_than_greedy'] else 'not better'} than {greedy}: {difference}."


def verdict(found: pd.DataFrame) -> str:
    """The contest in words: the best agent, who is better than greedy and who is not, and how the learners do against the others."""
    learners = found[[AGENTS[name].learns for name in found["agent"]]]
    if learners.empty:
        return "No agent that learns took part."
    best, titles = learners.loc[learners["mean"].idxmax()], found.set_index("agent")["title"]
    parts = [f"Most likes a visit of the agents that learn: {best['title']}, {best['mean']:.2f} ({best['low']:.2f} to {best['high']:.2f})."]
    for base in (base for base in ("greedy", "sasrec") if base in titles):
        better = learners[f"over_{base}_low"] > 0
        if better.any():
            parts.append(f"Better than {titles[base]}: {', '.join(learners.loc[better, 'title'])}.")
        if not better.all():
            parts.append(f"Not better than {titles[base]}: {', '.join(learners.loc[~better, 'title'])}.")
    for base in ("random", "popularity"):
        above = found.loc[found["agent"] == base, "high"].iloc[0]
        short = learners.loc[learners["low"] <= above, "title"]
        said = "every learner's interval lies above" if short.empty else f"the interval does not lie above for {', '.join(short)}"
        parts.append(f"Against {AGENTS[base].title.lower()}: {said}.")
    return " ".join(parts)
