"""What is watched for, and what is kept quiet: the rows of alert_rules and silences. The last row of an id is what holds.

Owns who may ask for what, and the words of a refusal. Never evaluates a rule: that is alerts.py.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import secrets
from typing import Any

from fmcore import clock
from fmcore.nouns import FMError, Rule, Silence
from fmcore.store.store import Store, Transaction
from fmcore.text import clean, is_name

DIMENSIONS = ("all", "sector", "topic", "ticker", "source")
KINDS = ("surge", "shift", "flood", "dead feed", "no data")
FEED_KINDS = ("dead feed", "no data")
SEVERITIES = ("low", "medium", "high")
BUCKETS_S = (300, 900, 3600, 6 * 3600, 86_400)
LONGEST_SILENCE = dt.timedelta(days=366)
MAX_RULES = 200

DEFAULTS = (
    Rule("market-surge", "Bad news across the market", "all", (), ("surge",), "high", 3600, 0.5, 5, 1, 3),
    Rule("sector-surge", "Bad news about a sector", "sector", (), ("surge",), "high", 3600, 0.5, 5, 1, 3),
    Rule("topic-surge", "Bad news about a topic", "topic", (), ("surge",), "medium", 3600, 0.5, 5, 1, 3),
    Rule("ticker-surge", "Bad news about a company", "ticker", (), ("surge",), "medium", 3600, 0.5, 5, 1, 3),
    Rule("topic-shift", "The index of a topic has fallen", "topic", (), ("shift",), "medium", 3600, 0.5, 5, 2, 24),
    Rule("ticker-shift", "The index of a company has fallen", "ticker", (), ("shift",), "medium", 3600, 0.5, 5, 2, 24),
    Rule("one-source-flood", "One source floods a company", "ticker", (), ("flood",), "low", 3600, 0.5, 5, 1, 3),
    Rule("dead-feed", "A feed is dead, or no news comes at all", "source", (), FEED_KINDS, "high", 3600, 0.5, 1, 1, 1),
)
"""What a new desk watches. Rules of one bucket, sensitivity and floor share one pass of the detector."""

_LAST = "SELECT * FROM {table} QUALIFY row_number() OVER (PARTITION BY id ORDER BY n DESC) = 1"


class BadRule(FMError):
    """A rule that cannot be saved as it was described."""


class UnknownRule(FMError):
    """There is no rule of that id."""


class BadSilence(FMError):
    """A silence that cannot be saved as it was described."""


class UnknownSilence(FMError):
    """There is no silence of that id."""


def rules(store: Store) -> list[Rule]:
    """All rules in the order they were first made, the default ones included; switched-off rules too."""
    rows = store.rows(_LAST.format(table="alert_rules"))
    saved = {row["id"]: _rule(row) for row in sorted(rows, key=lambda row: row["n"])}
    own = [rule for id, rule in saved.items() if id not in {r.id for r in DEFAULTS}]
    return [saved.get(rule.id, rule) for rule in DEFAULTS] + own


def rule(store: Store, id: str) -> Rule:
    """One rule. Raises UnknownRule."""
    found = next((r for r in rules(store) if r.id == id), None)
    if found is None:
        raise UnknownRule(f"There is no rule {clean(id, limit=80)[0]!r}.", "See the rules on the Alerts page.")
    return found


def save_rule(store: Store, rule: Rule, *, by: str, now: dt.datetime | None = None) -> Rule:
    """Save a rule, new or changed; what it has raised so far stays. Raises BadRule, with the fault named."""
    checked = _checked_rule(rule)
    columns = dataclasses.asdict(checked) | {"keys": list(checked.keys), "kinds": list(checked.kinds)}
    with store.write() as tx:
        known = {id for (id,) in tx.execute("SELECT DISTINCT id FROM alert_rules")} | {r.id for r in DEFAULTS}
        was = tx.execute("SELECT dimension FROM alert_rules WHERE id = ? ORDER BY n DESC LIMIT 1", [checked.id])
        before = was[0][0] if was else next((r.dimension for r in DEFAULTS if r.id == checked.id), checked.dimension)
        if before != checked.dimension:
            raise BadRule(f"This rule is about each {before}; that cannot change.", "Make another rule, and switch this one off.")
        if checked.id not in known and len(known) >= MAX_RULES:
            raise BadRule(f"There are {MAX_RULES} rules already.", "Change one of them.")
        _append(tx, "alert_rules", columns, by=by, now=now)
    return checked


def switch(store: Store, id: str, *, on: bool, by: str, now: dt.datetime | None = None) -> Rule:
    """Switch a rule on or off. What a rule that is off holds open is resolved at the next evaluation. Raises UnknownRule."""
    return save_rule(store, dataclasses.replace(rule(store, id), enabled=on), by=by, now=now)


def rule_history(store: Store, id: str) -> list[dict[str, Any]]:
    """Every version of a rule, newest first: its columns, who saved it (`who`) and when (`noted_at`, aware UTC)."""
    rows = store.rows("SELECT * EXCLUDE (n) FROM alert_rules WHERE id = ? ORDER BY n DESC", id)
    return [row | {"noted_at": clock.from_store(row["noted_at"])} for row in rows]


# --- silences


def silences(store: Store, *, expired: bool = True) -> list[Silence]:
    """All silences, the ones that end last first; expired=False leaves out those that are over by now."""
    rows = store.rows(f"{_LAST.format(table='silences')} ORDER BY ends_at DESC, n DESC")
    found = [_silence(row) for row in rows]
    return found if expired else [s for s in found if s.ends_at > clock.now()]


def silence(
    store: Store, *, starts_at: dt.datetime, ends_at: dt.datetime, by: str, reason: str, rule_id: str = "", dimension: str = "",
    key: str = "", now: dt.datetime | None = None,
) -> Silence:
    """Keep matching alerts quiet from starts_at until just before ends_at; an empty matcher matches everything. Raises BadSilence."""
    made = Silence(secrets.token_hex(6), rule_id, dimension, key, starts_at, ends_at, by, reason)
    return _save_silence(store, made, now=now)


def change_silence(store: Store, silence: Silence, *, by: str, now: dt.datetime | None = None) -> Silence:
    """Save a silence that is there in another form; it holds from this moment. Raises UnknownSilence, BadSilence."""
    if not any(s.id == silence.id for s in silences(store)):
        raise UnknownSilence(f"There is no silence {clean(silence.id, limit=80)[0]!r}.", "See the silences on the Alerts page.")
    return _save_silence(store, dataclasses.replace(silence, by=by), now=now)


def end_silence(store: Store, id: str, *, by: str, now: dt.datetime | None = None) -> Silence:
    """End a silence at this moment; one that has not begun never will. Raises UnknownSilence."""
    moment = now or clock.now()
    found = next((s for s in silences(store) if s.id == id), None)
    if found is None:
        raise UnknownSilence(f"There is no silence {clean(id, limit=80)[0]!r}.", "See the silences on the Alerts page.")
    over = dataclasses.replace(found, ends_at=min(found.ends_at, moment), starts_at=min(found.starts_at, moment), by=by)
    with store.write() as tx:
        _append(tx, "silences", _silence_columns(over), by=by, now=now)
    return over


def matches(silence: Silence, *, rule_id: str, dimension: str, key: str) -> bool:
    """Whether a silence is about an alert, whenever that is; key is compared without regard to case."""
    return (
        silence.rule_id in ("", rule_id)
        and silence.dimension in ("", dimension)
        and (not silence.key or silence.key.casefold() == key.casefold())
    )


def holds(silence: Silence, at: dt.datetime) -> bool:
    """Whether a silence is in force at a moment: from its start, that included, to its end, that excluded."""
    return silence.starts_at <= at < silence.ends_at


# --- rows


def _append(tx: Transaction, table: str, columns: dict[str, Any], *, by: str, now: dt.datetime | None) -> None:
    """A row with the next number: what is last does not hang on a clock that may step back."""
    who = clean(by, limit=80)[0].strip() or "unknown"
    ((n,),) = tx.execute(f"SELECT coalesce(max(n), 0) + 1 FROM {table}")
    row = {"n": n, **{k: v for k, v in columns.items() if k != "by"}, "who": who, "noted_at": clock.to_store(now or clock.now())}
    tx.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))


def _rule(row: dict[str, Any]) -> Rule:
    values = {f.name: row[f.name] for f in dataclasses.fields(Rule)}
    return Rule(**values | {"keys": tuple(row["keys"]), "kinds": tuple(row["kinds"])})


def _silence(row: dict[str, Any]) -> Silence:
    return Silence(
        row["id"], row["rule_id"], row["dimension"], row["key"], clock.from_store(row["starts_at"]), clock.from_store(row["ends_at"]),
        row["who"], row["reason"],
    )


def _silence_columns(silence: Silence) -> dict[str, Any]:
    return dataclasses.asdict(silence) | {"starts_at": clock.to_store(silence.starts_at), "ends_at": clock.to_store(silence.ends_at)}


def _save_silence(store: Store, silence: Silence, *, now: dt.datetime | None) -> Silence:
    checked = checked_silence(silence)
    with store.write() as tx:
        _append(tx, "silences", _silence_columns(checked), by=checked.by, now=now)
    return checked


def _checked_rule(rule: Rule) -> Rule:
    """The rule as it is kept. Raises BadRule."""
    title = clean(rule.title, limit=120)[0].strip()
    keys = tuple(dict.fromkeys(clean(key, limit=80)[0].strip() for key in rule.keys))
    faults = [
        ("its id must be letters, digits, dots, - and _", is_name(rule.id)),
        ("it needs a title", bool(title)),
        (f"its dimension must be one of {', '.join(DIMENSIONS)}", rule.dimension in DIMENSIONS),
        (f"its kinds must be of {', '.join(KINDS)}", bool(rule.kinds) and set(rule.kinds) <= set(KINDS)),
        ("dead feeds and missing data are watched by source, the rest is not",
         all((kind in FEED_KINDS) == (rule.dimension == "source") for kind in rule.kinds)),
        (f"its severity must be one of {', '.join(SEVERITIES)}", rule.severity in SEVERITIES),
        (f"its bucket must be one of {', '.join(map(str, BUCKETS_S))} seconds", rule.bucket_s in BUCKETS_S),
        ("its sensitivity must be from 0 to 1", 0 <= rule.sensitivity <= 1),  # NaN is not
        ("its floor must be from 1 to 10,000 negative stories", 1 <= rule.floor <= 10_000),
        ("it must wait for 1 to 100 buckets and hold for 1 to 100",
         1 <= rule.for_buckets <= 100 and 1 <= rule.keep_firing_buckets <= 100),
        ("it can name at most 500 keys, none of them empty", len(keys) <= 500 and all(keys)),
    ]
    wrong = [said for said, holds_true in faults if not holds_true]
    if wrong:
        raise BadRule(f"This rule cannot be saved: {'; '.join(wrong)}.", "Change it and save it again.")
    return dataclasses.replace(rule, title=title, keys=keys, kinds=tuple(dict.fromkeys(rule.kinds)))


def checked_silence(silence: Silence) -> Silence:
    """The silence as it is kept. Raises BadSilence."""
    faults = [
        ("its times need a zone", silence.starts_at.tzinfo is not None and silence.ends_at.tzinfo is not None),
        (f"its dimension must be empty or one of {', '.join(DIMENSIONS)}", silence.dimension in ("", *DIMENSIONS)),
        ("it needs a reason", bool(silence.reason.strip())),
        ("it needs a name of who wants it", bool(silence.by.strip())),
    ]
    if not any("zone" in said for said, ok in faults if not ok):
        faults.append(("it must end after it starts", silence.ends_at > silence.starts_at))
        faults.append(("it may last a year at most", silence.ends_at - silence.starts_at <= LONGEST_SILENCE))
    wrong = [said for said, ok in faults if not ok]
    if wrong:
        raise BadSilence(f"This silence cannot be saved: {'; '.join(wrong)}.", "Change it and save it again.")
    words = {name: clean(getattr(silence, name), limit=size)[0].strip() for name, size in
             (("rule_id", 80), ("key", 80), ("by", 80), ("reason", 300))}
    return dataclasses.replace(silence, **words)
