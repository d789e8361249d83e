"""The surge detector: counts of negative stories of many keys against what was to be expected, and level shifts of their index.

Owns the expectation, the test and the sentence that says why. Strictly streaming and deterministic: a reading uses its own bucket and
earlier ones only. Never touches the store, a clock or the disk: who wants the state back replays the last weeks.

Expected negatives of a key = its usual negatives per expected market story, times the market's profile (hour of the day, weekday),
times its exposure: how many of its stories that are NOT negative came, against the usual, shrunk toward the whole market's activity.
More news of all kinds is therefore no surge; many negative stories without the others are. Counts are negative binomial: Poisson
noise, what is not known of rate and exposure (Gamma-Poisson), and a learnt overdispersion. Sums over 1 bucket to 6 h are tested.
A shift is a fall of the mean net score over 1 to 4 days below the key's usual mean (a likelihood ratio over window starts; Lai 1995).
Benjamini-Hochberg over all keys of a bucket, at a level that is a budget of false alarms per hour of market time.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmcore.clock import duration
from fmcore.nouns import Counts, FMError, Reading

MARKET = "all:"
"""The key of the whole market; without it, the sum of all keys stands for the market."""

COUNT_WINDOWS_S = (0, 3 * 3600, 6 * 3600)
"""Negative stories are summed over one bucket (0), 3 h and 6 h: a surge is sudden, or it trickles in."""
SHIFT_WINDOWS_S = (86_400, 2 * 86_400, 4 * 86_400)
MIN_SHIFT_STORIES = 20
MIN_SHIFT = 0.15
"""A fall of the mean net score below this is no alert, however sure."""

EXPOSURE_PRIOR_STORIES = 2.0
"""So many stories pull a key's exposure toward that of its last hours, that toward the market's, and the market's toward its profile."""
DISPERSION_PRIOR = 0.2
"""Squared coefficient of variation of a rate between buckets, before anything is learnt of it."""
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
    memory_s: int = 14 * 86_400

    def __post_init__(self) -> None:
        if not 0 <= self.sensitivity <= 1 or self.floor < 1 or self.for_buckets < 1 or not 60 <= self.bucket_s <= 86_400:
            raise BadCounts("The detector's settings are out of range.", "Sensitivity 0 to 1, floor and buckets at least 1, 60 s to 1 day.")

    @property
    def level(self) -> float:
        """The false discovery rate a bucket is tested at."""
        return min(0.1, 10.0 ** (4 * self.sensitivity - 5) * self.bucket_s / 3600)


class _Profile:
    """Expected stories of the whole market in a bucket: hour of the day times weekday, learnt from clipped counts."""

    def __init__(self, decay: float):
        self.decay = decay
        self.hours, self.hours_of = np.zeros(24), np.zeros(24)
        self.days, self.days_of = np.zeros(7), np.zeros(7)

    def expected(self, at: dt.datetime) -> float:
        """Stories expected in the bucket that starts then; 0 where nothing was learnt."""
        return self._hour(at.hour) * self._day(at.weekday())

    def learn(self, at: dt.datetime, n_stories: float) -> None:
        hour, day = at.hour, at.weekday()
        expected = self.expected(at)
        if expected > 0:
            spread = math.sqrt(expected + (0.3 * expected) ** 2) + 1
            n_stories = min(n_stories, expected + USUAL_CLIP * spread)
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


class Surge:
    """The detector of one rule. Feed it every bucket in order; it answers for every key it has ever seen."""

    FIELDS = ("seen_s", "neg", "exposure", "other", "other_of", "over", "over_of", "net", "net_n", "net_sq", "streak")
    SERIES = ("x", "mu", "var", "net", "n", "n_true", "usual")

    def __init__(self, settings: SurgeSettings | None = None):
        self.settings = settings or SurgeSettings()
        bucket = self.settings.bucket_s
        self._decay = 0.5 ** (bucket / self.settings.memory_s)
        counted = sorted({max(1, math.ceil(s / bucket)) for s in COUNT_WINDOWS_S})
        shifted = sorted({max(2, math.ceil(s / bucket)) for s in SHIFT_WINDOWS_S})
        self._n_counted, self._windows = len(counted), counted + shifted
        self._reach = self._windows[-1]
        self._profile = _Profile(self._decay)
        self._slots: dict[str, int] = {}
        self._last: dt.datetime | None = None
        self._market_s = 0.0
        self._sources: dict[str, float] = {}
        self._recent: deque[Mapping[str, Counts]] = deque(maxlen=self._reach)
        self._at = 0
        self._inflation = np.ones(len(self._windows))
        self._shift_of, self._shift_sq = np.full(len(shifted), 20.0), np.full(len(shifted), 20.0)
        self._seen_of, self._seen_sq = np.full(len(self._windows), 50.0), np.full(len(self._windows), 50.0)
        self._room(16)

    def update(self, bucket_at: dt.datetime, counts: Mapping[str, Counts]) -> dict[str, Reading]:
        """Readings of all keys for the bucket that starts at bucket_at (aware). A key left out of counts was silent.

        No counts at all, or a silent market where stories were to be expected, is a gap: nothing is learnt and nothing fires.
        Raises BadCounts on a naive, repeated or earlier bucket and on counts that are negative or not finite.
        """
        self._check(bucket_at, counts)
        self._skip_to(bucket_at)
        self._admit(counts)
        x, n, net = self._columns(counts)
        market = counts.get(MARKET)
        n_market = market.n_stories if market else float(n.sum())
        expected_market = self._profile.expected(bucket_at)
        if not counts or (n_market == 0 and math.exp(-expected_market) < DEAD_FEED):
            self._push(np.zeros((len(self.SERIES), len(x))), {})
            self._part("streak")[:] = 0
            return self._nothing_known()
        other_rate, _, rate = self._rates()
        usual = other_rate * expected_market
        mu, exposure, var = self._expectation(n - x, usual, expected_market)
        weight = np.minimum(n, np.maximum(3.0, 2 * rate * expected_market))  # one burst of stories is no level
        self._push(np.stack([x, mu, var, net * weight / np.maximum(n, 1), weight, n, usual]), counts)
        readings, flagged = self._judge(x, mu)
        self._learn(x, n, net, mu, exposure, var, expected_market, flagged)
        self._profile.learn(bucket_at, n_market)
        self._learn_sources(counts)
        self._market_s += self.settings.bucket_s
        return readings

    # --- state

    def _room(self, size: int) -> None:
        """Columns for so many keys; what is there is kept."""
        fields, series = np.zeros((len(self.FIELDS), size)), np.zeros((len(self.SERIES), size, 2 * self._reach))
        sums = np.zeros((len(self.SERIES), len(self._windows), size))
        if self._slots:
            have = self._fields.shape[1]
            fields[:, :have], series[:, :have], sums[:, :, :have] = self._fields, self._series, self._sums
        self._fields, self._series, self._sums = fields, series, sums

    def _part(self, name: str) -> np.ndarray:
        return self._fields[self.FIELDS.index(name), : len(self._slots)]

    def _summed(self, name: str) -> np.ndarray:
        return self._sums[self.SERIES.index(name), :, : len(self._slots)]

    def _admit(self, counts: Mapping[str, Counts]) -> None:
        for key in counts:
            if key not in self._slots:
                if len(self._slots) == self._fields.shape[1]:
                    self._room(2 * len(self._slots))
                self._slots[key] = len(self._slots)

    def _columns(self, counts: Mapping[str, Counts]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        table = np.zeros((3, len(self._slots)))
        for key, c in counts.items():
            table[:, self._slots[key]] = c.n_negative, c.n_stories, c.sum_net
        return table[0], table[1], table[2]

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
            for _ in range(min(missed, self._reach)):
                self._push(np.zeros((len(self.SERIES), len(self._slots))), {})
            if missed > 0:
                self._part("streak")[:] = 0
        self._last = bucket_at

    def _push(self, column: np.ndarray, counts: Mapping[str, Counts]) -> None:
        """One more bucket into every window sum, the one that leaves it out of it."""
        if self._at == 2 * self._reach:
            self._series[:, :, : self._reach] = self._series[:, :, self._reach :]
            self._at = self._reach
        n = column.shape[1]
        for i, width in enumerate(self._windows):
            self._sums[:, i, :n] += column
            if self._at >= width:
                self._sums[:, i, :n] -= self._series[:, :n, self._at - width]
        self._series[:, :n, self._at] = column
        self._at += 1
        self._recent.append(counts)

    # --- the expectation

    def _rates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per expected market story: other stories, negative stories at usual exposure, all stories. Shrunk toward the market's odds."""
        other = (self._part("other") + 0.5) / (self._part("other_of") + 0.5 / self._pooled_rate())
        odds = (self._part("neg").sum() + 1.0) / (self._part("other").sum() + 3.0)
        negative = (self._part("neg") + 1.0) / (self._part("exposure") + 1.0 / (odds * other))
        return other, negative, other + negative

    def _pooled_rate(self) -> float:
        return float((self._part("other").sum() + 0.1) / (self._part("other_of").sum() + 1.0))

    def _expectation(self, other: np.ndarray, usual: np.ndarray, expected_market: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Expected negatives, exposure (expected market stories times activity) and the variance beyond Poisson, by key."""
        window = self._n_counted - 1
        recent = self._summed("n_true")[window] - self._summed("x")[window], self._summed("usual")[window]
        market = self._slots.get(MARKET)
        whole = [float(part.sum() if market is None else part[market]) for part in (other, usual, *recent)]
        activity = _activity(other, usual, *recent, toward=_activity(*whole, toward=1.0))
        exposure = expected_market * activity
        mu = self._rates()[1] * exposure
        return mu, exposure, mu**2 * (self._dispersion() + 1.0 / (other + EXPOSURE_PRIOR_STORIES))

    def _dispersion(self) -> np.ndarray:
        """Squared coefficient of variation between buckets, each key's own shrunk toward that of all."""
        over, over_of = self._part("over"), self._part("over_of")
        pooled = max(0.02, (over.sum() + DISPERSION_PRIOR * 5) / (over_of.sum() + 5))
        return np.clip((over + pooled * 5) / (over_of + 5), 0.02, 4.0)

    # --- the verdict

    def _judge(self, x: np.ndarray, mu: np.ndarray) -> tuple[dict[str, Reading], np.ndarray]:
        """All readings of this bucket, and which keys are out of the ordinary."""
        counted = slice(0, self._n_counted)
        p_count = self._count_tails(self._summed("x"), self._summed("mu"), self._summed("var"))
        p_shift = self._shift_tails()
        enough = self._summed("x")[counted] >= self.settings.floor
        p_counted = np.where(enough, p_count[counted], 1.0)
        best = p_counted.argmin(axis=0)
        p_surge = np.minimum(1.0, p_counted.min(axis=0) * self._n_counted)
        p_low = np.minimum(1.0, p_shift.min(axis=0) * len(p_shift))
        p = np.minimum(1.0, 2 * np.minimum(p_surge, p_low))
        warm = (self._part("seen_s") >= self.settings.warmup_s) & (self._market_s >= self.settings.warmup_s)
        p = np.where(warm, p, 1.0)
        q = _benjamini_hochberg(p)
        flagged = q <= self.settings.level
        streak = self._part("streak")
        streak[:] = np.where(flagged, streak + 1, 0)
        out: dict[str, Reading] = {}
        for key, slot in self._slots.items():
            if not flagged[slot]:
                out[key] = self._quiet(float(x[slot]), float(mu[slot]), float(p[slot]), float(q[slot]))
            elif p_surge[slot] <= p_low[slot]:
                out[key] = self._surge_reading(key, slot, int(best[slot]), float(p[slot]), float(q[slot]))
            else:
                window = int(p_shift[:, slot].argmin()) + self._n_counted
                out[key] = self._shift_reading(key, slot, window, float(p[slot]), float(q[slot]))
        return out, flagged

    def _count_tails(self, x: np.ndarray, mu: np.ndarray, var: np.ndarray) -> np.ndarray:
        """P(X >= x) by window and key: negative binomial with the windows' expectation and variance."""
        from scipy.special import betainc

        mu = np.maximum(mu, 1e-6)
        beyond = np.maximum(var, 0.0) * self._inflation[:, None] + mu**2 / (self._part("neg") + 1.0)
        size = np.maximum(mu**2 / np.maximum(beyond, 1e-12), 1e-3)
        return np.where(x > 0, betainc(np.maximum(x, 1e-9), size, mu / (size + mu)), 1.0)

    def _shift_tails(self) -> np.ndarray:
        """Tail of the mean net score by long window and key; 1 where it fell by little or over few stories."""
        from scipy.special import ndtr

        net, n = self._summed("net")[self._n_counted :], np.maximum(self._summed("n")[self._n_counted :], 1e-9)
        usual, spread = self._usual_net()
        fall = usual - net / n
        noise = spread * np.sqrt(self._inflation[self._n_counted :, None] / n + 1.0 / (self._part("net_n") + 10.0))
        return np.where((n >= max(MIN_SHIFT_STORIES, self.settings.floor)) & (fall >= MIN_SHIFT), ndtr(-fall / noise), 1.0)

    def _usual_net(self) -> tuple[np.ndarray, np.ndarray]:
        n = self._part("net_n")
        pooled = self._part("net").sum() / max(n.sum(), 1.0)
        return (self._part("net") + 10 * pooled) / (n + 10), np.sqrt((self._part("net_sq") + 10 * 0.4) / (n + 10))

    def _learn(
        self,
        x: np.ndarray,
        n: np.ndarray,
        net: np.ndarray,
        mu: np.ndarray,
        exposure: np.ndarray,
        var: np.ndarray,
        expected_market: float,
        flagged: np.ndarray,
    ) -> None:
        clip = np.where(flagged, FLAGGED_CLIP, USUAL_CLIP)
        usual_net, spread = self._usual_net()
        learnt = np.minimum(x, mu + clip * np.sqrt(mu + var + 0.1) + (~flagged))
        self._fields[1:-1, : len(x)] *= self._decay
        ever = (self._part("seen_s") > 0) | (n > 0)
        self._part("seen_s")[:] += np.where(ever, self.settings.bucket_s, 0)
        self._part("neg")[:] += learnt
        self._part("exposure")[:] += np.where(ever, exposure, 0)
        self._part("other")[:] += np.minimum(n - x, 4 * self._rates()[0] * expected_market + 4)
        self._part("other_of")[:] += np.where(ever, expected_market, 0)
        settled = (self._part("seen_s") >= self.settings.warmup_s) & ~flagged
        self._learn_inflation(settled)
        self._part("over")[:] += np.where(settled, (learnt - mu) ** 2 - mu, 0)
        self._part("over_of")[:] += np.where(settled, mu**2, 0)
        resid = np.clip(net - n * usual_net, -clip * spread * np.sqrt(n), clip * spread * np.sqrt(n))
        self._part("net")[:] += n * usual_net + resid
        self._part("net_n")[:] += n
        self._part("net_sq")[:] += resid**2

    def _learn_inflation(self, settled: np.ndarray) -> None:
        """How much more the window sums vary than buckets that knew nothing of each other would: news comes in trains."""
        x, mu, var = self._summed("x"), np.maximum(self._summed("mu"), 1e-6), np.maximum(self._summed("var"), 1e-6)
        unknown = mu**2 / (self._part("neg") + 1.0)
        squared = np.minimum((x - mu) ** 2, 9 * (mu + var + unknown)) - mu - unknown
        self._seen_sq = self._seen_sq * self._decay + np.where(settled, squared, 0).sum(axis=1)
        self._seen_of = self._seen_of * self._decay + np.where(settled, var, 0).sum(axis=1)
        net, n = self._summed("net")[self._n_counted :], self._summed("n")[self._n_counted :]
        usual, spread = self._usual_net()
        z2 = np.minimum((net - n * usual) ** 2 / (spread**2 * (n + n**2 / (self._part("net_n") + 10)) + 1e-9), 9.0)
        counts = settled & (n >= MIN_SHIFT_STORIES)
        self._shift_sq = self._shift_sq * self._decay + np.where(counts, z2, 0).sum(axis=1)
        self._shift_of = self._shift_of * self._decay + counts.sum(axis=1)
        self._inflation[: self._n_counted] = np.clip(self._seen_sq / self._seen_of, 1.0, 10.0)[: self._n_counted]
        self._inflation[self._n_counted :] = np.clip(self._shift_sq / self._shift_of, 1.0, 10.0)

    def _learn_sources(self, counts: Mapping[str, Counts]) -> None:
        """How often each source brings a negative story; one burst counts for little."""
        total = sum(self._sources.values())
        seen: dict[str, int] = {}
        for c in [counts[MARKET]] if MARKET in counts else counts.values():
            for source, k in c.by_source.items():
                seen[source] = seen.get(source, 0) + k
        n = sum(seen.values())
        for source in self._sources.keys() | seen.keys():
            had, k = self._sources.get(source, 0.0), seen.get(source, 0)
            usual = n * (had + 0.5) / (total + 5)
            self._sources[source] = had * self._decay + min(k, usual + 2 * math.sqrt(usual) + 1)

    # --- in words

    def _quiet(self, x: float, mu: float, p: float, q: float) -> Reading:
        return Reading("", False, x, mu, x - mu, p, q, self._score(q), "")

    def _nothing_known(self) -> dict[str, Reading]:
        gap = Reading("", False, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, "No news of any kind in this bucket: unknown, not zero.")
        return dict.fromkeys(self._slots, gap)

    def _score(self, q: float) -> float:
        """0.5 where it begins to be out of the ordinary, toward 1 with certainty."""
        strength, needed = -math.log10(max(q, 1e-300)), -math.log10(self.settings.level)
        return strength / (strength + needed) if strength > 0 else 0.0

    def _surge_reading(self, key: str, slot: int, window: int, p: float, q: float) -> Reading:
        x, mu = float(self._summed("x")[window, slot]), float(self._summed("mu")[window, slot])
        span = duration(self._windows[window] * self.settings.bucket_s)
        n = self._summed("n_true")[window, slot]
        source, k, is_flood = self._top_source(key, slot, window, x, mu)
        said = f"{x:.0f} negative of {n:.0f} stories within {span} where {mu:.1f} negative ones were to be expected"
        odds = f"; by chance about once in {_large(1 / max(p, 1e-15))} such buckets"
        if is_flood:
            return self._reading("flood", slot, x, mu, p, q, f"{said}, but {k} of them are from one source, {source}{odds}.", window)
        return self._reading("surge", slot, x, mu, p, q, f"{said}{odds}.", window)

    def _shift_reading(self, key: str, slot: int, window: int, p: float, q: float) -> Reading:
        net, n = float(self._summed("net")[window, slot]), float(self._summed("n")[window, slot])
        usual = float(self._usual_net()[0][slot])
        x, mu = float(self._summed("x")[window, slot]), float(self._summed("mu")[window, slot])
        source, k, is_flood = self._top_source(key, slot, window, x, mu)
        span = duration(self._windows[window] * self.settings.bucket_s)
        said = (
            f"The index has stood at {net / n:+.2f} for {span} where {usual:+.2f} is usual, over "
            f"{self._summed('n_true')[window, slot]:.0f} stories"
        )
        odds = f"; by chance about once in {_large(1 / max(p, 1e-15))} such buckets"
        if is_flood:
            said = f"{said}; but {k} of {x:.0f} negative ones are from one source, {source}"
            return self._reading("flood", slot, net / n, usual, p, q, f"{said}{odds}.", window)
        return self._reading("shift", slot, net / n, usual, p, q, f"{said}{odds}.", window)

    def _reading(self, kind: str, slot: int, value: float, expected: float, p: float, q: float, reason: str, window: int) -> Reading:
        fires = bool(self._part("streak")[slot] >= self.settings.for_buckets)
        seconds = self._windows[window] * self.settings.bucket_s
        return Reading(kind, fires, value, expected, value - expected, p, q, self._score(q), reason, seconds)

    def _top_source(self, key: str, slot: int, window: int, x: float, mu: float) -> tuple[str, int, bool]:
        """The source of most negative stories of the window, how many, and whether the excess is that source's alone."""
        from scipy.special import betainc

        by_source: dict[str, int] = {}
        for counts in list(self._recent)[-self._windows[window] :]:
            if key in counts:
                for source, k in counts[key].by_source.items():
                    by_source[source] = by_source.get(source, 0) + k
        if not by_source:
            return "", 0, False
        source, k = max(by_source.items(), key=lambda item: (item[1], item[0]))
        total = sum(self._sources.values())
        share = min(0.95, (self._sources.get(source, 0.0) + 0.5) / (total + 5))
        concentrated = float(betainc(k, x - k + 1, share)) if x >= k else 1.0
        rest = self._count_tails(
            np.full((len(self._windows), len(self._slots)), x - k), self._summed("mu") * (1 - share), self._summed("var") * (1 - share) ** 2
        )[window, slot]
        return source, k, concentrated < FLOOD_CONCENTRATION and float(rest) > FLOOD_REST


def _activity(other: Any, usual: Any, recent: Any, recent_usual: Any, *, toward: Any) -> Any:
    """How many times the usual news that is not negative came: this bucket's, shrunk toward the last hours', and that toward a mean."""
    last_hours = (recent + EXPOSURE_PRIOR_STORIES * toward) / (recent_usual + EXPOSURE_PRIOR_STORIES)
    return (other + EXPOSURE_PRIOR_STORIES * last_hours) / (usual + EXPOSURE_PRIOR_STORIES)


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
