"""Off-policy estimates: what another policy would have earned, from what was logged under the policy that was in charge.

Inverse propensity scoring (Horvitz & Thompson 1952), its self-normalised form (Swaminathan & Joachims 2015, NIPS) and the doubly robust
estimate (Dudík, Langford & Li 2011, arXiv:1103.4601), one step each, with the effective sample size of the weights (Kish 1965). Owns when
an estimate is refused. Knows no simulator and no store: it is given rewards, weights and probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

ESTIMATORS = ("ips", "snips", "dr")
CLIP = 50.0
"""No row weighs more than so many: less variance for a bias towards what was logged; how often it happened is said."""
FLOOR = 0.005
"""The least that an estimated propensity may be before the rows of it are made to add up to 1 again."""
LEAST_ESS = 30.0
"""Below so many effective rows nothing is estimated: the interval would rest on a handful of rows."""
RESAMPLES = 1000
RIDGE = 1.0
FOLDS = 2


@dataclass(frozen=True)
class Value:
    """An estimate of a policy's mean reward a row, with its 95 % bootstrap interval; value, low and high None where it is refused.

    ess: effective sample size (sum of weights)^2 / sum of squared weights; n: logged rows; note: why it is refused, or what was clipped.
    """

    estimator: str
    value: float | None
    low: float | None
    high: float | None
    ess: float
    n: int
    note: str


@dataclass(frozen=True, eq=False)
class Direct:
    """A reward model's word on the same rows: float64 (n,) of the logged action, and expected under the policy that is judged."""

    logged: np.ndarray
    expected: np.ndarray


def effective(weights: np.ndarray) -> float:
    """Kish's effective sample size; 0 where every weight is 0."""
    total = float((weights**2).sum())
    return float(weights.sum()) ** 2 / total if total else 0.0


def weights_of(target: np.ndarray, actions: np.ndarray, propensities: np.ndarray) -> np.ndarray:
    """float64 (n,): target (n, n_actions) over propensities (n,) of the logged actions, unclipped."""
    return target[np.arange(len(actions)), actions] / propensities


def estimates(
    rewards: np.ndarray, weights: np.ndarray, *, people: np.ndarray | None = None, direct: Direct | None = None, seed: int = 0
) -> list[Value]:
    """One Value an estimator, "dr" only with a reward model.

    rewards, weights: float (n,). people: (n,) rows of one person are drawn together in the bootstrap, since they are alike; None: each
    row for itself. Weights above CLIP are cut to it.
    """
    n, clipped = len(rewards), np.minimum(weights, CLIP)
    ess = effective(clipped) if n else 0.0
    names = [name for name in ESTIMATORS if direct is not None or name != "dr"]
    if ess < LEAST_ESS:
        why = f"Not estimated: {n:,} logged rows are worth {ess:.1f} for this policy, and {LEAST_ESS:.0f} are needed."
        return [Value(name, None, None, None, ess, n, why) for name in names]
    n_clipped = int((weights > CLIP).sum())
    note = f"Weights above {CLIP:.0f} were cut (rows: {n_clipped:,})." if n_clipped else ""
    ones, weighted = np.ones(n), clipped * rewards
    parts = {"ips": (weighted, ones), "snips": (weighted, clipped)}
    if direct is not None:
        parts["dr"] = (direct.expected + clipped * (rewards - direct.logged), ones)
    picks = _picks(n, people, seed)
    return [_value(name, *parts[name], picks=picks, ess=ess, note=note) for name in names]


def _picks(n: int, people: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(int (n,) the cluster of each row, int (RESAMPLES, n_clusters) which clusters a resample has)."""
    clusters = np.arange(n) if people is None else np.unique(people, return_inverse=True)[1]
    m = int(clusters.max()) + 1
    return clusters, np.random.default_rng(seed).integers(0, m, (RESAMPLES, m), dtype=np.int32)


def _value(
    name: str, above: np.ndarray, below: np.ndarray, *, picks: tuple[np.ndarray, np.ndarray], ess: float, note: str
) -> Value:
    """The ratio of two sums over rows, with its percentile interval over resampled clusters."""
    clusters, drawn = picks
    tops, bottoms = np.bincount(clusters, weights=above), np.bincount(clusters, weights=below)
    ratios = tops[drawn].sum(axis=1) / np.maximum(bottoms[drawn].sum(axis=1), 1e-12)
    value = float(above.sum() / below.sum())
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Value(name, value, float(min(low, value)), float(max(high, value)), ess, len(above), note)


def folds_of(people: np.ndarray) -> np.ndarray:
    """int (n,): a person's rows all in one of FOLDS folds, so that nothing is judged by what was learnt from the same person."""
    return np.unique(people, return_inverse=True)[1] % FOLDS


def reward_model(features: np.ndarray, actions: np.ndarray, rewards: np.ndarray, target: np.ndarray, folds: np.ndarray) -> Direct:
    """The reward model: ridge regression of the reward on the action's features, cross-fitted over the folds.

    features: float (n, n_actions, n_features) of every action in the row's situation. target: (n, n_actions) the judged policy.
    """
    rows = np.arange(len(actions))
    logged, expected = np.zeros(len(actions)), np.zeros(len(actions))
    for fold in np.unique(folds):
        learn, tell = folds != fold, folds == fold
        x = features[rows[learn], actions[learn]]
        weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ rewards[learn])
        told = features[tell] @ weights
        logged[tell] = told[np.arange(tell.sum()), actions[tell]]
        expected[tell] = (told * target[tell]).sum(axis=1)
    return Direct(logged, expected)


def logging_policy(states: np.ndarray, actions: np.ndarray, n_actions: int, folds: np.ndarray) -> np.ndarray:
    """float64 (n, n_actions): what the logs' own policy does in each state, estimated by multinomial logistic regression over the folds.

    states: float (n, n_features). No probability is below FLOOR before the rows are made to add up to 1.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = np.full((len(actions), n_actions), FLOOR)
    for fold in np.unique(folds):
        learn, tell = folds != fold, folds == fold
        if len(np.unique(actions[learn])) < 2:
            found[np.ix_(tell, np.unique(actions[learn]))] = 1.0
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300)).fit(states[learn], actions[learn])
        found[np.ix_(tell, model[-1].classes_)] = np.maximum(model.predict_proba(states[tell]), FLOOR)
    return found / found.sum(axis=1, keepdims=True)


def repeated(
    features: np.ndarray, chances: np.ndarray, logging: np.ndarray, target: np.ndarray, *, n: int, repeats: int, seed: int = 0
) -> pd.DataFrame:
    """How the estimators do where the truth is known: columns estimator, n, repeats, refused, coverage, relative_error, mean_ess.

    features: (m, n_actions, n_features), chances: (m, n_actions) the true P(reward), logging and target: (m, n_actions) policies, of m
    situations. Each repeat draws n situations, actions by `logging` and rewards by `chances`; coverage is the share of 95 % intervals with
    the truth in them, relative_error the root mean square of (estimate - truth) / truth.
    """
    rng, rows = np.random.default_rng(seed), []
    truth = float((target * chances).sum(axis=1).mean())
    cumulated = logging.cumsum(axis=1)
    for repeat in range(repeats):
        at = rng.integers(0, len(chances), n)
        actions = np.minimum((rng.random((n, 1)) > cumulated[at]).sum(axis=1), chances.shape[1] - 1)
        rewards = (rng.random(n) < chances[at, actions]).astype(np.float64)
        weights = weights_of(target[at], actions, logging[at, actions])
        told = reward_model(features[at], actions, rewards, target[at], np.arange(n) % FOLDS)
        rows += [(v.estimator, v.value, v.low, v.high, v.ess) for v in estimates(rewards, weights, direct=told, seed=seed + repeat)]
    return _tallied(rows, truth, n=n, repeats=repeats)


def _tallied(rows: Sequence[tuple], truth: float, *, n: int, repeats: int) -> pd.DataFrame:
    told = []
    frame = pd.DataFrame(rows, columns=["estimator", "value", "low", "high", "ess"])
    for name in ESTIMATORS:
        every = frame[frame["estimator"] == name]
        said = every.dropna(subset=["value"]).astype({"value": float, "low": float, "high": float})
        inside = (said["low"] <= truth) & (truth <= said["high"])
        error = float(np.sqrt((((said["value"] - truth) / truth) ** 2).mean())) if len(said) else None
        covered = float(inside.mean()) if len(said) else None
        told.append((name, n, repeats, len(every) - len(said), covered, error, float(every["ess"].mean())))
    return pd.DataFrame(told, columns=["estimator", "n", "repeats", "refused", "coverage", "relative_error", "mean_ess"])
