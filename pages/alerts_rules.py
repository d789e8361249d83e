"""What is watched for: the rules, each with a slider that plays a sensitivity on the past and can save it; and the silences, over ones too.

Draws what fmcore.sentiment.alerts and backtest know. A change is saved by their functions under the name of who asks.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pandas as pd
import streamlit as st

from fmcore import clock
from fmcore.nouns import FMError, Rule, Silence
from fmcore.sentiment import alerts, backtest
from pages import alert_charts, ui
from pages import sentiment_data as data

BUCKETS = {300: "5 min", 900: "15 min", 3600: "1 h", 6 * 3600: "6 h", 86_400: "1 d"}
SPANS = {"28 d": 28, "60 d": 60, "120 d": 120}
EVERY = {"all": "all news", "sector": "every sector", "topic": "every topic", "ticker": "every ticker", "source": "every source"}


def draw(desk: Any, at: data.Stamp) -> None:
    """All rules as a table, then one of them closely."""
    rules = alerts.rules(desk.store)
    with st.container(border=True):
        ui.card("Rules", f"{sum(rule.enabled for rule in rules)} of {len(rules)} on · checked every 5 minutes")
        st.dataframe(
            pd.DataFrame([_row(rule) for rule in rules]), hide_index=True, row_height=34, alt="Alert rules with their settings",
            column_config={
                "State": st.column_config.MultiselectColumn(options=["On", "Off"], color=["green", "gray"]),
                "For": st.column_config.TextColumn(width=140),
                "Sensitivity": st.column_config.NumberColumn(format="%.2f", help="0 fires at the least, 1 at the most"),
                "Least stories": st.column_config.NumberColumn(help="Negative stories below which it never fires"),
                "Fires after": st.column_config.NumberColumn(format="%d in a row", help="Buckets out of the ordinary in a row"),
                "Holds": st.column_config.NumberColumn(format="%d calm", help="Calm buckets in a row until it is over"),
            },
        )  # fmt: skip
        titles = {rule.id: rule.title for rule in rules}
        id = st.selectbox("Look at rule", list(titles), key="alerts_rule", bind="query-params", format_func=titles.get, width=420)
    rule = next((rule for rule in rules if rule.id == id), rules[0])
    if set(rule.kinds) & {"dead feed", "no data"}:
        with st.container(border=True):
            _head(desk, rule)
            st.markdown("Dead feeds and missing news cannot be played back: they are judged by when somebody looked, not by the news.")
        return
    with st.container(border=True), ui.guarded():
        _head(desk, rule)
        _backtest(desk, at, rule)
    with st.container(border=True), ui.guarded():
        _settings(desk, rule)


def _row(rule: Rule) -> dict[str, Any]:
    return {
        "Rule": rule.title,
        "State": ["On" if rule.enabled else "Off"],
        "Watches": ", ".join(rule.keys[:4]) + (" …" if len(rule.keys) > 4 else "")
        if rule.keys
        else EVERY.get(rule.dimension, rule.dimension),
        "For": ", ".join(rule.kinds),
        "Severity": ui.SEVERITY[rule.severity][0],
        "Bucket": BUCKETS.get(rule.bucket_s, f"{rule.bucket_s} s"),
        "Sensitivity": rule.sensitivity,
        "Least stories": rule.floor,
        "Fires after": rule.for_buckets,
        "Holds": rule.keep_firing_buckets,
    }


def _head(desk: Any, rule: Rule) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        with st.container(width="content"):
            saved = alerts.rule_history(desk.store, rule.id)
            by = f"saved {clock.ago(saved[0]['noted_at'])} by {saved[0]['who']}" if saved else "as it came with the desk"
            ui.card(ui.esc(rule.title), ui.esc(by))
        word, icon = ("Switch off", ":material/toggle_off:") if rule.enabled else ("Switch on", ":material/toggle_on:")
        if st.button(word, key=f"switch-{rule.id}", icon=icon):
            _do(lambda: alerts.switch(desk.store, rule.id, on=not rule.enabled, by=ui.who()), "Saved.")


def _do(action: Any, said: str) -> None:
    """Carry out what a click asked for; a refusal becomes a sentence."""
    try:
        action()
    except FMError as error:
        ui.refusal(error)
        return
    st.toast(said, icon=":material/check:")
    st.rerun()


# ---------------------------------------------------------------- backtest


@st.cache_data(max_entries=32, show_spinner="Playing the rule on the past")
def _played(
    _store: Any, at: data.Stamp, rule: Rule, steps: tuple[float, ...], start: dt.datetime, end: dt.datetime
) -> list[backtest.Backtest]:
    labelled = backtest.incidents(_store, start, end)
    return backtest.sweep(_store, rule, steps, start, end, incidents=labelled)


@st.fragment
def _backtest(desk: Any, at: data.Stamp, rule: Rule) -> None:
    """The slider: at this sensitivity, alerts a week, hits and misses on what is labelled, median delay. Saved only when asked to."""
    span = backtest.span_of(desk.store)
    if span is None:
        st.markdown("There is no scored news yet to play the rule on.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        steps = tuple(sorted({*backtest.SENSITIVITIES, round(rule.sensitivity, 2)}))
        chosen = st.select_slider(
            "Sensitivity", steps, value=round(rule.sensitivity, 2), key=f"sensitivity-{rule.id}", width=420,
            format_func=lambda step: f"{step:.2f}", help="0 fires at the least, 1 at the most; the engine runs the same detector.",
        )  # fmt: skip
        length = st.segmented_control("Played on the last", list(SPANS), default="60 d", required=True, key="alerts_span")
    end = min(span[1], data.now())
    start = max(span[0], end - dt.timedelta(days=SPANS.get(length, 60)))
    tests = _played(desk.store, at, rule, steps, start, end)
    test = next((t for t in tests if t.rule.sensitivity == chosen), tests[0])
    _result(test)
    left, right = ui.split(1, 1, border=False)
    with left:
        ui.show(alert_charts.trade_off(tests, chosen), f"trade-{rule.id}", alert_charts.trade_off_words(tests))
        ui.note("Left to right: more sensitive. Diamond: this setting.")
    with right:
        _incidents(test)
    if chosen != round(rule.sensitivity, 2):
        if st.button(f"Save sensitivity {chosen:.2f}", key=f"save-{rule.id}", type="primary", icon=":material/save:"):
            changed = dataclasses.replace(rule, sensitivity=chosen)
            _do(lambda: alerts.save_rule(desk.store, changed, by=ui.who()), f"Sensitivity {chosen:.2f} is saved.")
    else:
        ui.note("This is the setting in force. Move the slider to see what another one would have done.")


def _result(test: backtest.Backtest) -> None:
    n = len(test.hits) + len(test.misses)
    days = (test.end - test.start).total_seconds() / 86_400
    with st.grid(4, min_column_width=170, gap="small"):
        ui.kpi("Alerts a week", f"{test.per_week:.1f}", words=f"{len(test.raised):,}", vs=f"in {days:.0f} days")
        ui.kpi(
            "Labelled events found",
            f"{len(test.hits)} of {n}" if n else "none labelled",
            words=f"{len(test.misses)} missed" if n else "",
            vs="of those it watches for" if n else "",
        )
        delay = clock.duration(test.median_delay_s) if test.median_delay_s is not None else "no hit"
        ui.kpi("Median delay", delay, words="from the start of the event", vs="")
        ui.kpi(
            "About no event",
            f"{test.n_false:,}" if n else "not known",
            words="alerts",
            vs="of no labelled event" if n else "nothing is labelled",
        )


def _incidents(test: backtest.Backtest) -> None:
    """Each labelled event that the rule watches for: found, and how late, or missed."""
    rows = [
        {"Event": h.incident.title, "From": ui.local(h.incident.starts_at), "Result": ["Found"], "Delay": clock.duration(h.delay_s)}
        for h in test.hits
    ] + [{"Event": i.title, "From": ui.local(i.starts_at), "Result": ["Missed"], "Delay": ""} for i in test.misses]
    if not rows:
        st.markdown("No event that this rule watches for is labelled in this time.")
        return
    st.dataframe(
        pd.DataFrame(rows), hide_index=True, row_height=34,
        alt="Labelled events and whether they were found",
        column_config={"Result": st.column_config.MultiselectColumn(options=["Found", "Missed"], color=["green", "orange"])},
    )  # fmt: skip


# ---------------------------------------------------------------- settings


def _settings(desk: Any, rule: Rule) -> None:
    """What else a rule asks before it fires."""
    ui.card("Settings", "take effect at the next evaluation; what it has raised so far stays")
    with st.form(f"rule-{rule.id}", border=False):
        with st.grid(3, min_column_width=230, gap="small"):
            severity = st.selectbox("Severity", list(ui.SEVERITY), index=list(ui.SEVERITY).index(rule.severity), format_func=str.capitalize)
            floor = st.number_input("At least so many negative stories", 1, 10_000, rule.floor)
            bucket = st.selectbox("Bucket", list(BUCKETS), index=list(BUCKETS).index(rule.bucket_s), format_func=BUCKETS.get)
            after = st.number_input("Fires after so many buckets in a row", 1, 100, rule.for_buckets)
            hold = st.number_input("Holds until so many calm buckets in a row", 1, 100, rule.keep_firing_buckets)
            title = st.text_input("Title", rule.title, max_chars=120)
        if st.form_submit_button("Save settings", icon=":material/save:"):
            changed = dataclasses.replace(
                rule,
                title=title,
                severity=severity,
                floor=int(floor),
                bucket_s=bucket,
                for_buckets=int(after),
                keep_firing_buckets=int(hold),
            )
            _do(lambda: alerts.save_rule(desk.store, changed, by=ui.who()), "The rule is saved.")


# ---------------------------------------------------------------- silences


def silences(desk: Any) -> None:
    """All silences, those in force first, over ones too: who wanted each, why, and until when in the viewer's zone."""
    found = alerts.silences(desk.store)
    now = clock.now()
    active = [s for s in found if s.starts_at <= now < s.ends_at]
    with st.container(border=True):
        ui.card("Silences", f"{len(active)} in force · {len(found) - len(active)} over or to come · times in {ui.esc(ui.zone())}")
        if not found:
            st.markdown("Nothing was silenced yet. Open an alert and choose Silence: it shows what it would have muted before it is saved.")
            return
        for silence in active:
            _active(desk, silence)
        rest = [s for s in found if s not in active]
        if rest:
            table = pd.DataFrame([_silence_row(s, now) for s in rest[:200]])
            st.dataframe(table, hide_index=True, row_height=34, alt="Silences that are over or to come")


def matched(silence: Silence) -> str:
    """What a silence is about, in words."""
    what = silence.key or (EVERY.get(silence.dimension, silence.dimension) if silence.dimension else "everything")
    return f"{what} ({silence.dimension})" if silence.key and silence.dimension else what


def _active(desk: Any, silence: Silence) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
        rule = f" · rule {silence.rule_id}" if silence.rule_id else ""
        left = clock.duration((silence.ends_at - clock.now()).total_seconds())
        facts = f"until {ui.local(silence.ends_at)}, {left} left · by {silence.by}: {silence.reason}"
        st.markdown(
            f"{ui.chip('In force', 'blue', ':material/notifications_off:')} **{ui.esc(matched(silence))}**{ui.esc(rule)}  \n"
            f":small[:gray[{ui.esc(facts)}]]",
            width="stretch",
        )
        if st.button("End now", key=f"end-{silence.id}", type="tertiary", icon=":material/notifications_active:"):
            _do(lambda: alerts.end_silence(desk.store, silence.id, by=ui.who()), "The silence is over.")


def _silence_row(silence: Silence, now: dt.datetime) -> dict[str, Any]:
    return {
        "About": matched(silence), "Rule": silence.rule_id or "every rule", "From": ui.local(silence.starts_at),
        "Until": ui.local(silence.ends_at), "State": "over" if silence.ends_at <= now else "to come", "By": silence.by,
        "Reason": silence.reason,
    }  # fmt: skip
