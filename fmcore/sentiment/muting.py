"""Who is not told of an alert, and why: what lies in the past, silences, inhibition, and what was told a moment ago.

Every alert is recorded all the same; this decides only about the notification. Inhibition: an alert of the whole market stands for
those of sectors and tickers, one of a sector for those of its tickers, of the same kind and while it fires itself.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from fmcore import clock
from fmcore.data.tickers import sector_of
from fmcore.nouns import Rule
from fmcore.sentiment.rules import holds, matches, silences
from fmcore.sentiment.states import Open, fingerprint, identity
from fmcore.store.store import Store

LATE = dt.timedelta(hours=1)
"""What was last out of the ordinary longer ago than this (and one bucket) is history: recorded, not told."""
REPEAT = dt.timedelta(hours=4)
"""An alert of the same fingerprint is told once in so long, however often it fires."""
ABOVE = {"sector": ("all",), "ticker": ("all", "sector")}


@dataclass(frozen=True)
class Muted:
    """Why an alert is not told: "past", "silence", "inhibited", "repeat", or "" when it is. With the silence and the alert that did it."""

    word: str = ""
    silenced_by: str = ""
    inhibited_by: str = ""


@dataclass(frozen=True)
class _Firing:
    """An alert that inhibits, from its firing to its end."""

    alert_id: str
    dimension: str
    key: str
    kind: str
    fired_at: dt.datetime
    ended_at: dt.datetime | None


class Muting:
    """What mutes the alerts of one rule at one moment. Made anew for every rule: the rules before it may inhibit."""

    def __init__(self, store: Store, rule: Rule, moment: dt.datetime):
        self._rule, self._moment = rule, moment
        self._silences = [s for s in silences(store) if holds(s, moment)]
        self._above = self._inhibitors(store)
        sql = """SELECT fingerprint, max(noted_at) AS at FROM alert_events
            WHERE rule_id = ? AND sent AND transition <> 'resolved' GROUP BY fingerprint"""
        self.told_at = {row["fingerprint"]: clock.from_store(row["at"]) for row in store.rows(sql, rule.id)}

    def of(self, held: Open, *, at: dt.datetime) -> Muted:
        """What keeps an alert from being told, given how it stands now and the end of the bucket it is judged for."""
        late = LATE + dt.timedelta(seconds=self._rule.bucket_s)
        dimension, key = identity(self._rule, held)
        silenced, inhibited = self.silence(dimension, key), self._inhibitor(held, at)
        told = self.told_at.get(fingerprint(self._rule.id, dimension, key))
        if held.until < self._moment - late:
            word = "past"
        elif silenced:
            word = "silence"
        elif inhibited:
            word = "inhibited"
        else:
            word = "repeat" if told is not None and abs(self._moment - told) < REPEAT else ""
        return Muted(word, silenced, inhibited)

    def silence(self, dimension: str, key: str) -> str:
        """The id of the silence in force for an alert of the rule, "" when there is none."""
        about = {"rule_id": self._rule.id, "dimension": dimension, "key": key}
        return next((s.id for s in self._silences if matches(s, **about)), "")

    def _inhibitors(self, store: Store) -> list[_Firing]:
        above = ABOVE.get(self._rule.dimension, ())
        if not above:
            return []
        sql = f"""SELECT alert_id, any_value(rule_id) AS rule_id, any_value(dimension) AS dimension, any_value(key) AS key,
                any_value(kind) AS kind, min(bucket_end_at) AS fired_at,
                max(bucket_end_at) FILTER (WHERE transition = 'resolved') AS ended_at
            FROM alert_events WHERE dimension IN ({', '.join('?' * len(above))}) AND kind IN ('surge', 'shift', 'flood')
            GROUP BY alert_id ORDER BY fired_at"""
        return [
            _Firing(r["alert_id"], r["dimension"], r["key"], r["kind"], clock.from_store(r["fired_at"]), clock.from_store(r["ended_at"]))
            for r in store.rows(sql, *above)
            if not any(matches(s, rule_id=r["rule_id"], dimension=r["dimension"], key=r["key"]) for s in self._silences)
        ]

    def _inhibitor(self, held: Open, at: dt.datetime) -> str:
        """The id of the alert that stands for this one at a moment: the widest first."""
        around = [f for f in self._above if f.kind == held.kind and f.fired_at <= at and (f.ended_at is None or f.ended_at > at)]
        for one in sorted(around, key=lambda f: f.dimension != "all"):
            if one.dimension == "all" or one.key == sector_of(held.key):
                return one.alert_id
        return ""
