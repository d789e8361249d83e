"""The surge detector: counts of negative stories of many keys against what was to be expected, and level shifts of their index.

Owns the tests and the sentence that says why. Strictly streaming and deterministic: a reading uses its own bucket and earlier ones
only. Never touches the store, a clock or the disk: who wants the state back replays the last weeks.

Expected negatives of a key = its usual negatives per expected market story, times the market's profile (hour of the day, weekday),
times its exposure: how many of its stories that are NOT negative came, against the usual, shrunk toward the whole market's activity.
More news of all kinds is therefore no surge; many negative stories without the others are. Counts are negative binomial: Poisson
noise, what is not known of rate and exposure (Gamma-Poisson), and a learnt overdispersion. Sums over 1 bucket, 3 h and 6 h are tested.
A shift is tested over 2 to 4 days against all that came before them (a likelihood ratio over starts; Lai 1995, JRSS B 57): more
negative stories, or a lower mean net score, and still so without the strongest 24 h of it, so that no burst passes for a level.
Benjamini-Hochberg over all keys of a bucket, at a level that is a budget of false alarms per hour of market time.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fmcore.clock import duration
from fmcore.nouns import Counts, FMError, Reading
from fmcore.sentiment.expectation import MARKET, Columns, Expectation, Sources, tail
from fmcore.sentiment.levels import BLOCK_S, SHIFT_BLOCKS, shift_tails

COUNT_WINDOWS_S = (0, 3 * 3600, 6 * 3600)
"""Negative stories are summed over one bucket (0), 3 h and 6 h: a surge is sudden, or it trickles in."""
SURGE_PAYS, SHIFT_PAYS = 3.0, 1.5
"""The two kinds of test share the budget: a third of it for surges, of which there are many more looks, two thirds for shifts."""
NAMED = 1e-4
"""Buckets in which a key's counts are this improbable are a burst, and left out of its level."""
USUAL_CLIP, FLAGGED_CLIP = 3.0, 1.0
"""What is learnt of a bucket is cut at so many standard deviations above the expectation: an incident hardly moves it."""
FLOOD_CONCENTRATION, FLOOD_REST = 1e-3, 1e-2
"""A flood: the top source's share is this improbable, and the rest of the stories is no more improbable than that."""
DEAD_FEED = 1e-2
"""A silent market is silence when its chance is above this, else a gap: unknown, not zero."""


class BadCounts(FMError):
    """Counts that are no counts, or a bucket that is not later than the last one."""


@dataclass(frozen=True)
class SurgeSettings:
    """What the detector is asked for.

    sensitivity: 0 to 1; the budget of false alarms per hour over all keys is 10 ** (4 * sensitivity - 5): 0.5 gives 0.001.
    floor: fewer negative stories than this never fire. for_buckets: out of the ordinary for so many buckets in a row before it
    fires. bucket_s: seconds a bucket. warmup_s: market time before anything fires, for the market and for each key after its
    first story. memory_s: half-life of what was learnt.
    """

    sensitivity: float = 0.5
    floor: int = 4
    for_buckets: int = 1
    bucket_s: int = 3600
    warmup_s: int = 3 * 86_400
    memory_s: int = 21 * 86_400

    def __post_init__(self) -> None:
        if not 0 <= self.sensitivity <= 1 or self.floor < 1 or self.for_buckets < 1 or not 60 <= self.bucket_s <= 86_400:
            raise BadCounts("The detector's settings are out of range.", "Sensitivity 0 to 1, floor and buckets at least 1, 60 s to 1 day.")

    @property
    def level(self) -> float:
        """The false discovery rate a bucket is tested at."""
        return min(0.1, 10.0 ** (4 * self.sensitivity - 5) * self.bucket_s / 3600)


@dataclass(frozen=True)
class _Verdict:
    """What the tests say of all keys: p by window and key, counts and shifts apart."""

    counted: np.ndarray
    shifted: np.ndarray
    p: np.ndarray
    q: np.ndarray
    flagged: np.ndarray


class Surge:
    """The detector of one rule. Feed it every bucket in order; it answers for every key it has ever seen."""

    def __init__(self, settings: SurgeSettings | None = None):
        self.settings = settings or SurgeSettings()
        bucket = self.settings.bucket_s
        self._counted = sorted({max(1, math.ceil(s / bucket)) for s in COUNT_WINDOWS_S})
        self._block = max(1, round(BLOCK_S / bucket))
        self._columns = Columns(self._block * SHIFT_BLOCKS[-1])
        self._expect = Expectation(self._columns, bucket_s=bucket, memory_s=self.settings.memory_s, recent=self._counted[-1])
        self._every = max(1, self._block // 4)  # a level of days needs no look more often than every 3 h
        self._shifted = np.ones((len(SHIFT_BLOCKS), 0))
        self._sources = Sources(self._expect.decay)
        self._recent: deque[Mapping[str, Counts]] = deque(maxlen=self._columns.reach)
        self._last: dt.datetime | None = None
        self._market_s = 0.0
        self._short: tuple[
            np.ndarray, ...
        ] = ()  # of the bucket at hand: counts, expectation, variance beyond Poisson, doubt about the rate
        self._train_sq, self._train_of = np.full(len(self._counted), 50.0), np.full(len(self._counted), 50.0)

    def update(self, bucket_at: dt.datetime, counts: Mapping[str, Counts]) -> dict[str, Reading]:
        """Readings of all keys for the bucket that starts at bucket_at (aware). A key left out of counts was silent.

        No counts at all, or a silent market where stories were to be expected, is a gap: nothing is learnt and nothing fires.
        Raises BadCounts on a naive, repeated or earlier bucket and on counts that are negative or not finite.
        """
        self._check(bucket_at, counts)
        self._skip_to(bucket_at)
        self._columns.admit(list(counts))
        x, n, net = self._table(counts)
        n_market = counts[MARKET].n_stories if MARKET in counts else float(n.sum())
        expected_market = self._expect.profile.expected(bucket_at)
        if not counts or (n_market == 0 and math.exp(-expected_market) < DEAD_FEED):
            self._push({})
            self._shifted = np.ones((len(SHIFT_BLOCKS), 0))
            self._columns["streak"][:] = 0
            return dict.fromkeys(self._columns.slots, _UNKNOWN)
        usual = self._expect.other_rate() * expected_market
        exposure, varies, market_activity = self._expect.exposure(n - x, usual, expected_market)
        mu = self._expect.negative_rate()[0] * exposure
        self._push(counts, x=x, exposure=exposure, varies=exposure**2 * varies, stories=n, usual=usual)
        counted = self._count_tails()
        calm = _best(counted) > NAMED  # a burst that has its own name is no part of a level
        weight = calm * np.minimum(n, np.maximum(3.0, 2 * (mu + usual)))
        market = calm * expected_market * market_activity
        level = {"level_x": calm * x, "level_of": market, "level_sq": market**2, "net": net * weight / np.maximum(n, 1), "n": weight}
        for name, column in {**level, "level_other": calm * (n - x), "level_usual": calm * usual * market_activity}.items():
            self._columns.add(name, column)
        verdict = self._judge(counted, int(bucket_at.timestamp()) // self.settings.bucket_s)
        readings = self._readings(verdict, x, mu)
        clip = np.where(verdict.flagged, FLAGGED_CLIP, USUAL_CLIP)
        learnt = np.minimum(x, mu + clip * np.sqrt(mu + mu**2 * varies + 0.1) + ~verdict.flagged)
        settled = (self._columns["seen_s"] >= self.settings.warmup_s) & ~verdict.flagged
        self._learn_trains(settled)
        self._expect.learn(x, n - x, learnt, mu, exposure, usual, expected_market, settled)
        self._expect.profile.learn(bucket_at, n_market)
        self._sources.learn(counts)
        self._market_s += self.settings.bucket_s
        return readings

    # --- buckets in

    def _check(self, bucket_at: dt.datetime, counts: Mapping[str, Counts]) -> None:
        if bucket_at.tzinfo is None or (self._last is not None and bucket_at <= self._last):
            raise BadCounts(f"The bucket {bucket_at} is not later than {self._last}.", "Feed aware times in order.")
        for key, c in counts.items():
            if not (math.isfinite(c.sum_net) and 0 <= c.n_negative <= c.n_stories < math.inf and abs(c.sum_net) <= c.n_stories + 1e-6):
                raise BadCounts(f"The counts of {key!r} at {bucket_at} are no counts: {c}.", "Count again from the stories.")

    def _skip_to(self, bucket_at: dt.datetime) -> None:
        """Buckets that never came are unknown: they add neither counts nor expectation to the windows."""
        if self._last is not None:
            missed = round((bucket_at - self._last).total_seconds() / self.settings.bucket_s) - 1
            for _ in range(min(missed, self._columns.reach)):
                self._push({})
            if missed > 0:
                self._columns["streak"][:] = 0
        self._last = bucket_at

    def _push(self, counts: Mapping[str, Counts], **series: np.ndarray) -> None:
        self._columns.push(**series)
        self._recent.append(counts)

    def _table(self, counts: Mapping[str, Counts]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        table = np.zeros((3, len(self._columns.slots)))
        for key, c in counts.items():
            table[:, self._columns.slots[key]] = c.n_negative, c.n_stories, c.sum_net
        return table[0], table[1], table[2]

    # --- the tests

    def _judge(self, counted: np.ndarray, number: int) -> _Verdict:
        if number % self._every == 0 or self._shifted.shape[1] != counted.shape[1]:
            self._shifted = shift_tails(
                self._columns,
                self._expect,
                block=self._block,
                bucket_s=self.settings.bucket_s,
                floor=self.settings.floor,
                warmup_s=self.settings.warmup_s,
            )
        shifted = self._shifted
        p_surge, p_shift = _best(counted), _best(shifted) / self._block  # a long stretch changes slowly: one look a block
        warm = (self._columns["seen_s"] >= self.settings.warmup_s) & (self._market_s >= self.settings.warmup_s)
        p = np.where(warm, np.minimum(1.0, np.minimum(SURGE_PAYS * p_surge, SHIFT_PAYS * p_shift)), 1.0)
        q = _benjamini_hochberg(p)
        flagged = q <= self.settings.level
        streak = self._columns["streak"]
        streak[:] = np.where(flagged, streak + 1, 0)
        return _Verdict(counted, shifted, p, q, flagged)

    def _count_tails(self) -> np.ndarray:
        """P(X >= x) by short window and key; 1 below the floor."""
        c = self._columns
        x, exposure, varies = (c.back(name, self._counted) for name in ("x", "exposure", "varies"))
        rate, known = self._expect.negative_rate(self._counted[-1:])
        mu, beyond = rate * exposure, rate**2 * varies
        unknown = mu**2 / (known + 1.0)
        self._short = x, mu, beyond, unknown
        return np.where(x >= self.settings.floor, tail(x, mu, beyond * self._trains()[:, None] + unknown), 1.0)

    def _trains(self) -> np.ndarray:
        """By short window: how much more sums vary than buckets that knew nothing of each other would. News comes in trains."""
        return np.clip(self._train_sq / self._train_of, 1.0, 10.0)

    def _learn_trains(self, settled: np.ndarray) -> None:
        x, mu, beyond, unknown = self._short
        squared = np.minimum((x - mu) ** 2, 9 * (mu + beyond + unknown)) - mu - unknown
        self._train_sq = self._train_sq * self._expect.decay + np.where(settled, squared, 0).sum(axis=1)
        self._train_of = self._train_of * self._expect.decay + np.where(settled, beyond, 0).sum(axis=1)

    # --- in words

    def _readings(self, verdict: _Verdict, x: np.ndarray, mu: np.ndarray) -> dict[str, Reading]:
        scores = self._scores(verdict.q)
        out: dict[str, Reading] = {}
        for key, slot in self._columns.slots.items():
            p, q, score = float(verdict.p[slot]), float(verdict.q[slot]), float(scores[slot])
            if not verdict.flagged[slot]:
                value, expected = float(x[slot]), float(mu[slot])
                out[key] = Reading("", False, value, expected, value - expected, p, q, score, "", self.settings.bucket_s)
                continue
            fires = bool(self._columns["streak"][slot] >= self.settings.for_buckets)
            short, long = verdict.counted[:, slot], verdict.shifted[:, slot]
            sudden = SURGE_PAYS * _best(short) <= SHIFT_PAYS * _best(long) / self._block
            width = self._counted[int(short.argmin())] if sudden else self._block * SHIFT_BLOCKS[int(long.argmin())]
            kind, value, expected, said = (self._said_of_surge if sudden else self._said_of_shift)(key, slot, width)
            reason = f"{said}; by chance about once in {_large(1 / max(p, 1e-15))} such buckets."
            out[key] = Reading(kind, fires, value, expected, value - expected, p, q, score, reason, width * self.settings.bucket_s)
        return out

    def _said_of_surge(self, key: str, slot: int, width: int) -> tuple[str, float, float, str]:
        x, mu, _, stories, span = self._stretch(slot, width)
        source, k, is_flood = self._top_source(key, slot, width)
        said = f"{x:.0f} negative of {stories:.0f} stories within {span} where {mu:.1f} negative ones were to be expected"
        if is_flood:
            return "flood", x, mu, f"{said}, but {k} of them are from one source, {source}"
        return "surge", x, mu, said

    def _said_of_shift(self, key: str, slot: int, width: int) -> tuple[str, float, float, str]:
        x, mu, net, stories, span = self._stretch(slot, width)
        usual = float(self._expect.usual_net([width])[0][0, slot])
        source, k, is_flood = self._top_source(key, slot, width)
        said = (
            f"The index has stood at {net:+.2f} for {span} where {usual:+.2f} is usual: {x:.0f} of {stories:.0f} stories are negative "
            f"where {mu:.1f} were to be expected"
        )
        if is_flood:
            return "flood", net, usual, f"{said}; but {k} of them are from one source, {source}"
        return "shift", net, usual, said

    def _stretch(self, slot: int, width: int) -> tuple[float, float, float, float, str]:
        """Of the last width buckets of a key: negatives, expected negatives, mean net score, stories, and the span in words."""
        c = self._columns
        x, exposure, net, n, stories = (float(c.back(name, [width])[0, slot]) for name in ("x", "exposure", "net", "n", "stories"))
        before = width if width > self._counted[-1] else self._counted[-1]
        mu = float(self._expect.negative_rate([before])[0][0, slot]) * exposure
        return x, mu, net / max(n, 1e-9), stories, duration(width * self.settings.bucket_s)

    def _top_source(self, key: str, slot: int, width: int) -> tuple[str, int, bool]:
        """The source of most negative stories of the stretch, how many, and whether the excess is that source's alone."""
        from scipy.special import betainc

        by_source: dict[str, int] = {}
        for counts in list(self._recent)[-width:]:
            if key in counts:
                for name, k in counts[key].by_source.items():
                    by_source[name] = by_source.get(name, 0) + k
        if not by_source:
            return "", 0, False
        source, k = max(by_source.items(), key=lambda item: (item[1], item[0]))
        share = self._sources.share(source)
        x, mu, *_ = self._stretch(slot, width)
        concentrated = float(betainc(k, x - k + 1, share)) if x >= k else 1.0
        mu *= 1 - share
        varies = float(self._columns.back("varies", [width])[0, slot] / max(self._columns.back("exposure", [width])[0, slot], 1e-9) ** 2)
        rest = float(tail(np.array(x - k), np.array(mu), np.array(mu**2 * varies)))
        return source, k, concentrated < FLOOD_CONCENTRATION and rest > FLOOD_REST

    def _scores(self, q: np.ndarray) -> np.ndarray:
        """0.5 where it begins to be out of the ordinary, toward 1 with certainty."""
        strength = -np.log10(np.maximum(q, 1e-300))
        return strength / (strength - math.log10(self.settings.level))


_UNKNOWN = Reading("", False, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, "No news of any kind in this bucket: unknown, not zero.")


def _best(p: np.ndarray) -> np.ndarray:
    """One p of several windows that hold each other: about the root of their number are tests of their own."""
    return np.minimum(1.0, p.min(axis=0) * math.sqrt(len(p)))


def _benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """q-values (Benjamini and Hochberg 1995): the false discovery rate at which each key would be named."""
    if not len(p):
        return p
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty_like(p)
    q[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return q


def _large(n: float) -> str:
    """A count in words a person reads: 12,000, 3 million, more than a billion."""
    if n >= 1e9:
        return "more than a billion"
    return f"{n / 1e6:.0f} million" if n >= 1e6 else f"{n:,.0f}"
