"""What was to be expected of every key: learnt from the buckets so far, cut where they were out of the ordinary.

Owns the market's profile (hour of the day, weekday), each key's rates, and sums over any recent stretch. Pure and streaming: what
is asked of a bucket uses that bucket's other stories and earlier buckets only. Never judges: that is `surge.py`.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fmcore.nouns import Counts

MARKET = "all:"
"""The key of the whole market; without it, the sum of all keys stands for the market."""
EXPOSURE_PRIOR_STORIES = 4.0
"""So many stories pull a key's exposure toward that of its last hours, that toward the market's, and the market's toward its profile."""
DISPERSION_PRIOR = 0.2
"""Squared coefficient of variation of a rate between buckets, before anything is learnt of it."""
NET_PRIOR_STORIES, NET_PRIOR_VARIANCE = 10.0, 0.4


class Profile:
    """Expected stories of the whole market in a bucket: hour of the day times weekday, learnt from clipped counts."""

    def __init__(self, decay: float):
        self.decay = decay
        self.hours, self.hours_of = np.zeros(24), np.zeros(24)
        self.days, self.days_of = np.zeros(7), np.zeros(7)

    def expected(self, at: dt.datetime) -> float:
        """Stories expected in the bucket that starts then; 0 where nothing was learnt."""
        return self._hour(at.hour) * self._day(at.weekday())

    def learn(self, at: dt.datetime, n_stories: float) -> None:
        """One bucket more. A burst counts for little: cut three deviations above what was expected."""
        hour, day = at.hour, at.weekday()
        expected = self.expected(at)
        if expected > 0:
            n_stories = min(n_stories, expected + 3 * (math.sqrt(expected + (0.3 * expected) ** 2) + 1))
        for part in (self.hours, self.hours_of, self.days, self.days_of):
            part *= self.decay
        self.days[day] += n_stories
        self.days_of[day] += self._hour(hour)
        self.hours[hour] += n_stories
        self.hours_of[hour] += self._day(day)

    def _hour(self, hour: int) -> float:
        mean = self.hours.sum() / max(self.hours_of.sum(), 1e-9)
        return float((self.hours[hour] + mean) / (self.hours_of[hour] + 1.0))

    def _day(self, day: int) -> float:
        usual = max(self.hours.sum() / max(self.hours_of.sum(), 1e-9), 1e-9) * 6  # six hours' worth of stories pull toward 1
        return float((self.days[day] + usual) / (self.days_of[day] + usual))


class Columns:
    """Named numbers of every key, and sums of named series over any stretch of the last `reach` buckets.

    The series are kept as running totals, so that the sum of a stretch is one subtraction; one array for all, grown as keys come.
    """

    FIELDS = ("seen_s", "neg", "exposure", "other", "other_of", "over", "over_of", "net", "net_n", "net_sq", "streak")
    FADING = slice(1, 10)
    SERIES = (
        "x", "exposure", "varies", "stories", "usual", "learnt",
        "level_x", "level_of", "level_sq", "level_other", "level_usual", "net", "n",
    )  # fmt: skip

    def __init__(self, reach: int):
        self.reach = reach
        self.slots: dict[str, int] = {}
        self._at = reach  # the column of the latest totals; the reach columns before it are the past, zero at first
        self._fields = np.zeros((len(self.FIELDS), 16))
        self._totals = np.zeros((len(self.SERIES), 16, 2 * reach + 1))

    def admit(self, keys: Sequence[str]) -> None:
        """Room for keys that are new."""
        for key in keys:
            if key not in self.slots:
                if len(self.slots) == self._fields.shape[1]:
                    self._fields = np.concatenate([self._fields, np.zeros_like(self._fields)], axis=1)
                    self._totals = np.concatenate([self._totals, np.zeros_like(self._totals)], axis=1)
                self.slots[key] = len(self.slots)

    def __getitem__(self, name: str) -> np.ndarray:
        """One number a key, writable."""
        return self._fields[self.FIELDS.index(name), : len(self.slots)]

    def fade(self, decay: float) -> None:
        """What was learnt loses weight."""
        self._fields[self.FADING, : len(self.slots)] *= decay

    def push(self, **series: np.ndarray) -> None:
        """One bucket further; a series that is left out adds nothing."""
        if self._at == 2 * self.reach:
            self._totals[:, :, : self.reach + 1] = self._totals[:, :, self.reach :]
            self._at = self.reach
        self._totals[:, :, self._at + 1] = self._totals[:, :, self._at]
        self._at += 1
        for name, column in series.items():
            self.add(name, column)

    def add(self, name: str, column: np.ndarray) -> None:
        """To the latest bucket's value of a series."""
        self._totals[self.SERIES.index(name), : len(self.slots), self._at] += column

    def back(self, name: str, widths: Sequence[int]) -> np.ndarray:
        """(widths, keys): sums over so many latest buckets."""
        totals = self._totals[self.SERIES.index(name), : len(self.slots)]
        return (totals[:, self._at, None] - totals[:, [self._at - w for w in widths]]).T


class Expectation:
    """Rates of every key per expected market story, and what follows for the bucket at hand."""

    def __init__(self, columns: Columns, *, bucket_s: int, memory_s: int, recent: int):
        self.decay = 0.5 ** (bucket_s / memory_s)
        self.profile = Profile(self.decay)
        self._columns, self._bucket_s, self._recent = columns, bucket_s, recent

    def other_rate(self) -> np.ndarray:
        """Stories that are not negative, per expected market story, shrunk toward the mean key's."""
        c = self._columns
        pooled = float((c["other"].sum() + 0.1) / (c["other_of"].sum() + 1.0))
        return (c["other"] + 0.5) / (c["other_of"] + 0.5 / pooled)

    def negative_rate(self, widths: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Negative stories per unit of exposure, and the stories it rests on. widths: one row each, as it was before so many buckets."""
        c = self._columns
        odds = (c["neg"].sum() + 1.0) / (c["other"].sum() + 3.0)
        prior = 1.0 / (odds * self.other_rate())
        negative, exposure = c["neg"], c["exposure"]
        if widths:
            faded = self.decay ** (np.array(widths)[:, None] / 2)
            negative = np.maximum(negative - faded * c.back("learnt", widths), 0.0)
            exposure = np.maximum(exposure - faded * c.back("exposure", widths), 0.0)
        return (negative + 1.0) / (exposure + prior), negative

    def usual_net(self, widths: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Mean net score of a key's stories, shrunk toward that of all, and the stories it rests on; widths as above."""
        c = self._columns
        net, n = c["net"], c["net_n"]
        pooled = net.sum() / max(n.sum(), 1.0)
        if widths:
            faded = self.decay ** (np.array(widths)[:, None] / 2)
            net, n = net - faded * c.back("net", widths), np.maximum(n - faded * c.back("n", widths), 0.0)
        return (net + NET_PRIOR_STORIES * pooled) / (n + NET_PRIOR_STORIES), n

    def net_variance(self) -> np.ndarray:
        """Variance of one story's net score, as the bucket means show it."""
        c = self._columns
        return (c["net_sq"] + NET_PRIOR_STORIES * NET_PRIOR_VARIANCE) / (c["net_n"] + NET_PRIOR_STORIES)

    def exposure(self, other: np.ndarray, usual: np.ndarray, expected_market: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Expected market stories times each key's activity, its squared coefficient of variation, and the market's activity.

        Activity: how many times the usual news that is not negative came. More news of all kinds raises what is to be expected.
        """
        c = self._columns
        recent = c.back("stories", [self._recent])[0] - c.back("x", [self._recent])[0], c.back("usual", [self._recent])[0]
        market = c.slots.get(MARKET)
        whole = [float(part.sum() if market is None else part[market]) for part in (other, usual, *recent)]
        of_market = _activity(*whole, toward=1.0)
        activity = _activity(other, usual, *recent, toward=of_market)
        return expected_market * activity, self.dispersion() + 1.0 / (other + EXPOSURE_PRIOR_STORIES), of_market

    def dispersion(self) -> np.ndarray:
        """Squared coefficient of variation between buckets, each key's own shrunk toward that of all."""
        over, over_of = self._columns["over"], self._columns["over_of"]
        pooled = max(0.02, (over.sum() + DISPERSION_PRIOR * 20) / (over_of.sum() + 20))
        return np.clip((over + pooled * 20) / (over_of + 20), 0.02, 4.0)

    def learn(
        self, x: np.ndarray, other: np.ndarray, learnt: np.ndarray, mu: np.ndarray, exposure: np.ndarray, usual: np.ndarray,
        expected_market: float, settled: np.ndarray,
    ) -> None:  # fmt: skip
        """One bucket into the rates. learnt: its negative stories, cut; settled: the keys whose scatter is worth learning."""
        c = self._columns
        ever = (c["seen_s"] > 0) | (x + other > 0)
        net, n = c.back("net", [1])[0], c.back("n", [1])[0]
        resid = net - n * self.usual_net()[0]
        c.fade(self.decay)
        c["seen_s"][:] += np.where(ever, self._bucket_s, 0)
        c["neg"][:] += learnt
        c["exposure"][:] += np.where(ever, exposure, 0)
        c["other"][:] += np.minimum(other, 4 * usual + 4)
        c["other_of"][:] += np.where(ever, expected_market, 0)
        c["over"][:] += np.where(settled, (learnt - mu) ** 2 - mu - mu**2 / (other + EXPOSURE_PRIOR_STORIES), 0)
        c["over_of"][:] += np.where(settled, mu**2, 0)
        c["net"][:] += net
        c["net_n"][:] += n
        c["net_sq"][:] += resid**2
        c.add("learnt", learnt)


class Sources:
    """How often each source brings a negative story; one burst counts for little."""

    def __init__(self, decay: float):
        self._decay, self._seen = decay, dict[str, float]()

    def share(self, source: str) -> float:
        """Its usual share of all negative stories."""
        return min(0.95, (self._seen.get(source, 0.0) + 0.5) / (sum(self._seen.values()) + 5))

    def learn(self, counts: Mapping[str, Counts]) -> None:
        """One bucket more."""
        total = sum(self._seen.values())
        came: dict[str, int] = {}
        for c in [counts[MARKET]] if MARKET in counts else counts.values():
            for source, k in c.by_source.items():
                came[source] = came.get(source, 0) + k
        n = sum(came.values())
        for source in self._seen.keys() | came.keys():
            had = self._seen.get(source, 0.0)
            usual = n * (had + 0.5) / (total + 5)
            self._seen[source] = had * self._decay + min(came.get(source, 0), usual + 2 * math.sqrt(usual) + 1)


def _activity(other: Any, usual: Any, recent: Any, recent_usual: Any, *, toward: Any) -> Any:
    """How many times the usual came: this bucket's, shrunk toward the last hours', and that toward a mean."""
    last_hours = (recent + EXPOSURE_PRIOR_STORIES * toward) / (recent_usual + EXPOSURE_PRIOR_STORIES)
    return (other + EXPOSURE_PRIOR_STORIES * last_hours) / (usual + EXPOSURE_PRIOR_STORIES)


def tail(x: np.ndarray, mu: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """P(X >= x) of a negative binomial with mean mu and variance mu + beyond."""
    from scipy.special import betainc

    mu = np.maximum(mu, 1e-6)
    size = np.maximum(mu**2 / np.maximum(beyond, 1e-12), 1e-3)
    return np.where(x > 0, betainc(np.maximum(x, 1e-9), size, mu / (size + mu)), 1.0)
