"""The pulse of the news room: whether anything that is drawn has changed, at the cost of a few counts. Reads only."""

from __future__ import annotations

import datetime as dt

from fmcore import clock
from fmcore.store.store import Store


def beat(store: Store) -> str:
    """A word that changes when news was scored, a price came, or an alert began, ended, was acknowledged or silenced, and at nothing else
    that is written (runs beat every few seconds)."""
    row = store.rows(
        """SELECT (SELECT count(*) FROM trend_facts) AS facts, (SELECT coalesce(max(batch), 0) FROM trend_facts) AS batch,
                  (SELECT count(*) FROM prices) AS prices, (SELECT coalesce(max(n), 0) FROM alert_events) AS events,
                  (SELECT count(*) FROM alert_acks) AS acks, (SELECT count(*) FROM silences) AS silences,
                  (SELECT count(*) FROM alert_rules) AS rules"""
    )[0]
    return ".".join(str(value) for value in row.values())


def last_evaluated(store: Store) -> dt.datetime | None:
    """When an evaluation last moved a rule's mark or noted its failure; None before the first."""
    return clock.from_store(store.rows("SELECT max(noted_at) AS at FROM alert_marks")[0]["at"])


def is_synthetic(store: Store) -> bool:
    """Whether any of the documents was made up for this demo."""
    return bool(store.rows("SELECT EXISTS (SELECT 1 FROM documents WHERE synthetic) AS made_up")[0]["made_up"])
