"""Anomalies in any series of timestamps and values, strictly streaming: a row's score uses that row and earlier ones only.

One set of parameters for all series; nothing is tuned to a file. Each row is compared with what the hour of the day and the weekday
let expect. How far the deviation is from the usual, over this row and over the means of the last rows, is measured by its own tail:
the largest deviations so far follow a Pareto law (peaks over threshold with Hill's estimator, Hill 1975), which gives the improbability
of the present one. The mean of these surprises, in powers of ten, less what many looks must find by chance, is the raw score. What was
found before has to be surpassed: an anomaly is reported when it begins, not as long as it lasts.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

WARM_UP, WARM_UP_OF_A_DAY = 150, 750
"""So many values are only learnt from: no row before fires. As long as less than a day was seen, so many."""
SMALLEST, LARGEST = 1e-150, 1e150
"""Between these the squares of values are numbers."""
WIDTHS = (1, 12, 48)
"""Deviations are averaged over so many rows: a peak, a bump, another level."""
FLAT_ROWS, FLAT_WEIGHT = 24, 0.3
"""A series that stops moving for so many rows is odd too; that counts for less than a deviation."""
SLOTS_A_DAY, HOURS_A_WEEK = 48, 168
SLOT_RATE = 0.1
WEEK_RATE, WEEKS_PRIOR = 0.5, 5.0
"""What an hour of the week adds to its hour of the day: this share of the last week's, believed like so many weeks without it."""
TAIL_SHARE, TAIL_MIN, TAIL_MAX = 0.02, 20, 400
"""The tail is this share of all values so far, within these bounds."""
LEARN_DECADES = 3.0
"""A value so many powers of ten rarer than the tail's threshold is learnt as if it were no rarer: one wild value does not blind."""
CHANCE_SLOPE, CHANCE_FROM = 0.5, 4000
"""The more rows were looked at, the rarer a find must be: by the root of their number against so many."""
FORGET_ROWS, SURPASS, REMEMBERED = 300, 1.15, 8.0
"""What was found has half its weight after so many rows; the next find must be this many times what is left of it. No find is
remembered as larger than the last."""
USUAL = 1.8
"""The raw score that is an anomaly: score 0.5."""
REPORTED = 0.4
"""Rows of what was reported already keep this share of their score: visible in a chart, below 0.5."""
GAP_STEPS = 20
"""A pause of so many usual steps is a gap: means do not reach over it."""


class Point(NamedTuple):
    """What a row is: the value to be expected (NaN as long as nothing is known), a score in [0, 1], and whether it is an anomaly."""

    expected: float
    anomaly_score: float
    is_anomaly: bool


class _Tail:
    """The upper tail of one positive feature over all that was seen of it: how surprising is the next value?"""

    __slots__ = ("_logs", "_n")

    def __init__(self) -> None:
        self._logs: list[float] = []  # minus the logarithms of the largest values, ascending: the largest value first
        self._n = 0

    def surprise(self, value: float) -> float:
        """-log10 of the chance of so large a value, and the value into the tail. O(log n) as a rule: the tail is bounded."""
        logs, n = self._logs, self._n
        negative = -round(math.log(value), 9)  # equal but for rounding is equal
        place = bisect_left(logs, negative)  # where it stands among the largest, before its equals
        found = 0.0
        if n >= WARM_UP // 3:
            k = min(len(logs), max(TAIL_MIN, min(TAIL_MAX, int(TAIL_SHARE * n))))
            threshold = logs[k - 1]
            if negative < threshold:
                spread = max(threshold - sum(logs[:k]) / k, 0.02)
                found = math.log10(n / k) + (threshold - negative) / spread / math.log(10)
                negative = max(negative, threshold - LEARN_DECADES * math.log(10) * spread)
                place = bisect_left(logs, negative)
            else:
                rank = place
                while rank < len(logs) and logs[rank] == negative:
                    rank += 1
                found = math.log10((n + 1) / (rank + 1)) if rank < len(logs) else 0.0
        if len(logs) < TAIL_MAX + TAIL_MIN or place < len(logs):
            logs.insert(place, negative)
            if len(logs) > max(2 * TAIL_MIN, min(TAIL_MAX, int(2 * TAIL_SHARE * n)) + TAIL_MIN):
                logs.pop()
        self._n = n + 1
        return found


class _Season:
    """What the time of day and the hour of the week let expect. One value moves it by four usual deviations at most."""

    __slots__ = ("_day", "_level", "_n", "_usual", "_week", "_weeks")

    def __init__(self) -> None:
        self._day: list[float | None] = [None] * SLOTS_A_DAY
        self._week, self._weeks = [0.0] * HOURS_A_WEEK, [0.0] * HOURS_A_WEEK
        self._level, self._usual, self._n = math.nan, 0.0, 0

    def expected(self, seconds: float) -> float:
        """The value to be expected then; NaN before the first."""
        slot, hour = self._places(seconds)
        base = self._day[slot]
        sure = self._weeks[hour] / (self._weeks[hour] + WEEKS_PRIOR)
        return (self._level if base is None else base) + self._week[hour] * sure

    def learn(self, seconds: float, value: float, deviation: float, *, an_hour: float) -> None:
        """A value that deviated so much from what was expected of it; an_hour: so many values come in an hour."""
        slot, hour = self._places(seconds)
        self._n += 1
        bound = 4 * self._usual if self._n > WARM_UP else math.inf
        cut = max(-bound, min(bound, deviation))
        self._usual += ((abs(cut) if self._usual else abs(deviation)) - self._usual) * max(0.01, 1 / self._n)
        base = self._day[slot]
        if base is None:
            self._day[slot] = value
        else:
            base += SLOT_RATE * cut
            self._day[slot] = base
            rate = 1 - (1 - WEEK_RATE) ** (1 / an_hour)
            self._week[hour] += rate * (max(-bound, min(bound, value - base)) - self._week[hour])
            self._weeks[hour] += 1 / an_hour
        self._level = value if self._n == 1 else self._level + 0.01 * (value - self._level)

    @staticmethod
    def _places(seconds: float) -> tuple[int, int]:
        return int(seconds % 86_400 * SLOTS_A_DAY / 86_400), int(seconds // 3600 % HOURS_A_WEEK)


class Detector:
    """One series, row by row. The state is bounded: a row costs the same after a million rows."""

    def __init__(self) -> None:
        self._season = _Season()
        self._deviations, self._tails = [deque[float](maxlen=w) for w in WIDTHS], [_Tail() for _ in WIDTHS]
        self._flat = _Flatness()
        self._n, self._found, self._size = 0, 0.0, 0.0
        self._at, self._step, self._from = math.nan, math.nan, math.inf

    def update(self, seconds: float, value: float) -> Point:
        """The next row: its time in seconds since 1970 and its value. What is not finite scores 0 and teaches nothing."""
        if not (math.isfinite(seconds) and math.isfinite(value)):
            return Point(self._season.expected(seconds) if math.isfinite(seconds) else math.nan, 0.0, False)
        value = max(-LARGEST, min(LARGEST, value))
        self._pause(seconds)
        self._n += 1
        expected = self._season.expected(seconds)
        deviation = value - expected if self._n > 1 else 0.0
        self._size += 0.01 * (min(abs(value), 10 * self._size or abs(value)) - self._size)
        least = 1e-9 * self._size + SMALLEST  # below it lie rounding errors
        surprise = 0.0
        for last, tail in zip(self._deviations, self._tails, strict=True):
            last.append(deviation)
            size = abs(math.fsum(last)) / len(last)
            surprise += tail.surprise(size if size > least else SMALLEST)
        surprise += FLAT_WEIGHT * self._flat.surprise(value, least)
        self._season.learn(seconds, value, deviation, an_hour=max(1.0, 3600 / self._step) if self._step > 0 else 1.0)
        raw = surprise / (len(WIDTHS) + FLAT_WEIGHT) - CHANCE_SLOPE * math.log10(max(self._n, 200) / CHANCE_FROM)
        return Point(expected, *self._reported(raw))

    def score(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame with the columns expected, anomaly_score and is_anomaly; columns timestamp (or an index of times) and value in.

        Goes on where the rows before it ended: the scores of a series do not depend on how it is cut. Rows whose time or value is
        missing score 0. Keeps order, number and all other columns.
        """
        import pandas as pd

        points = [self.update(s, v) for s, v in zip(_seconds(frame), pd.to_numeric(frame["value"], errors="coerce"), strict=True)]
        return frame.assign(
            expected=pd.Series([p.expected for p in points], index=frame.index, dtype="float64"),
            anomaly_score=pd.Series([p.anomaly_score for p in points], index=frame.index, dtype="float64"),
            is_anomaly=pd.Series([p.is_anomaly for p in points], index=frame.index, dtype="bool"),
        )

    def _pause(self, seconds: float) -> None:
        """Means do not reach over a gap. A time that repeats or goes back is no gap."""
        step, self._at = seconds - self._at, seconds
        self._from = min(self._from, seconds)
        if not step > 0:
            return
        if step > GAP_STEPS * self._step:
            for last in (*self._deviations, self._flat.last):
                last.clear()
        else:
            self._step = step if math.isnan(self._step) else self._step + 0.05 * (step - self._step)

    def _reported(self, raw: float) -> tuple[float, bool]:
        """Score and verdict: what was found before has to be surpassed."""
        self._found *= 0.5 ** (1 / FORGET_ROWS)
        if raw <= 0 or self._n <= (WARM_UP if self._at - self._from >= 86_400 else WARM_UP_OF_A_DAY):
            return 0.0, False
        score = raw / (raw + USUAL)
        if raw <= self._found * SURPASS:
            return REPORTED * score, False
        self._found = min(raw, REMEMBERED)
        return score, score >= 0.5


class _Flatness:
    """How little the last rows move, against how much the series usually lies apart from its mean."""

    __slots__ = ("_mean", "_n", "_tail", "_usual", "last")

    def __init__(self) -> None:
        self.last, self._tail = deque[float](maxlen=FLAT_ROWS), _Tail()
        self._n, self._mean, self._usual = 0, 0.0, 0.0

    def surprise(self, value: float, least: float) -> float:
        self._n += 1
        apart, rate = value - self._mean, max(0.001, 1 / self._n)
        if self._n > WARM_UP:
            apart = max(-10 * self._usual, min(10 * self._usual, apart))
        self._mean += rate * apart
        self._usual += rate * (abs(apart) - self._usual)
        self.last.append(value)
        if len(self.last) < FLAT_ROWS:
            return 0.0
        centre = math.fsum(self.last) / FLAT_ROWS
        moved = math.sqrt(math.fsum((v - centre) ** 2 for v in self.last) / FLAT_ROWS)
        if self._usual <= least:
            return 0.0
        return self._tail.surprise(self._usual / (moved + 0.02 * self._usual))


def score(frame: pd.DataFrame) -> pd.DataFrame:
    """A whole series: the frame with the columns expected, anomaly_score in [0, 1] and is_anomaly. See Detector.score."""
    return Detector().score(frame)


def _seconds(frame: pd.DataFrame) -> Iterable[float]:
    """Seconds since 1970 of each row, NaN where the time cannot be read; a time without a zone is taken as it stands."""
    import numpy as np
    import pandas as pd

    column = frame["timestamp"] if "timestamp" in frame else frame.index.to_series()
    if not isinstance(column.dtype, pd.DatetimeTZDtype) and not pd.api.types.is_datetime64_dtype(column):
        column = pd.to_datetime(column, utc=True, errors="coerce", format="mixed")
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    whole = column.to_numpy().astype("datetime64[us]").astype(np.int64)
    return np.where(column.isna(), np.nan, whole / 1e6).tolist()
