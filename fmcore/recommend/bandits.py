"""Contextual bandits for the simulator: LinUCB and linear Thompson sampling, one Bayesian linear model of the next like shared by the arms.

Owns what they see of a situation (`features`) and how a like moves them. They weigh the next step only: what a show does to later steps
they learn at most through what is seen of it. The live learner on the page is live_bandit.py.
"""

from __future__ import annotations

import abc

import numpy as np

PRECISION = 1.0
"""Ridge of the prior: the weights start at 0 with variance 1 / PRECISION times the noise."""
NOISE = 0.25
"""Variance of a like at most (a coin's); scales Thompson's draws and LinUCB's bound alike."""
ALPHA = 1.0
"""Standard deviations that LinUCB adds."""


def features(observation: np.ndarray) -> np.ndarray:
    """float64 (n_groups, n_groups + 7), a row an arm, from one observation of the simulator.

    Everything is multiplied by the chance that the place is looked at, since a like needs a look: the group itself, its best item's score,
    also squared, its recent shows alone and with the score, its share of the known past, its likes in this visit.
    """
    n = (len(observation) - 2) // 4
    best, shown, share, likes = observation[: 4 * n].astype(np.float64).reshape(4, n)
    own = np.stack([np.ones(n), best, best**2, shown, shown * best, share, likes], axis=1)
    return float(observation[4 * n]) * np.hstack([np.eye(n), own])


class LinearBandit(abc.ABC):
    """Bayesian linear regression of the like on the features, kept as the inverse of its precision and the sum of liked features."""

    def __init__(self, n_groups: int, *, seed: int = 0):
        self._covariance = np.eye(n_groups + 7) / PRECISION
        self._sum = np.zeros(n_groups + 7)
        self.weights = np.zeros(n_groups + 7)
        self._rng = np.random.default_rng([seed, 11])

    @abc.abstractmethod
    def explore(self, observation: np.ndarray) -> int:
        """The arm to try while learning."""

    def act(self, observation: np.ndarray) -> int:
        """The arm with the highest expected like, without exploring: how an agent is judged."""
        return int((features(observation) @ self.weights).argmax())

    def learn(self, observation: np.ndarray, arm: int, reward: float) -> None:
        """Take one step in (Sherman & Morrison's update of the inverse)."""
        x = features(observation)[arm]
        along = self._covariance @ x
        self._covariance -= np.outer(along, along) / (1 + x @ along)
        self._sum += reward * x
        self.weights = self._covariance @ self._sum


class LinUCB(LinearBandit):
    """The highest upper bound: expectation plus ALPHA deviations (Li et al. 2010, arXiv:1003.0146, with weights shared by the arms)."""

    def explore(self, observation: np.ndarray) -> int:
        x = features(observation)
        width = np.sqrt(NOISE * np.einsum("ij,jk,ik->i", x, self._covariance, x))
        return int((x @ self.weights + ALPHA * width).argmax())


class LinearThompson(LinearBandit):
    """The best arm under weights drawn from their posterior (Agrawal & Goyal 2013, arXiv:1209.3352)."""

    def explore(self, observation: np.ndarray) -> int:
        drawn = self._rng.multivariate_normal(self.weights, NOISE * self._covariance, method="cholesky")
        return int((features(observation) @ drawn).argmax())
