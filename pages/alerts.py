"""Alerts: what fired, the most severe first; why, with the exact split; acknowledge, silence, rules with their backtest, delivery.

Draws what fmcore.sentiment.alerts knows. The open alert and the view are in the address: a notification's link opens its alert.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import streamlit as st

from fmcore import clock, runtime
from fmcore.nouns import Alert, FMError
from fmcore.sentiment import alerts, pulse
from pages import alert_charts, alerts_detail, alerts_rules, channels, ui
from pages import sentiment_data as data

VIEWS = ("Inbox", "Rules", "Silences", "Delivery")
SHOWN = ("Open", "Acknowledged", "Silenced", "Resolved")
DAYS = 90
N_ROWS = 15
LIST_ROWS, LIST_PX = 6, 640
"""A longer list scrolls in a box of its own, that high."""
LATE = dt.timedelta(minutes=15)
"""The rules are looked at every 5 minutes; three times that is late."""


def page() -> None:
    """The whole page."""
    desk = runtime.current()
    if desk is None:
        ui.no_server()
        return
    at = data.stamp(desk.store)
    counts = alerts.summary(desk.store)
    n_open = sum(counts[severity] for severity in ui.SEVERITY)
    checked = last_checked(desk)
    told = f"rules checked {clock.ago(checked)}" if checked else "rules not checked yet"
    standing = f"{n_open:,} open, {counts['unacknowledged']:,} of them nobody has" if n_open else "nothing is open"
    sub = f"{standing} · {ui.esc(told)} · times in {ui.esc(ui.zone())}"
    with ui.header("Alerts", sub):
        _ticker(desk, at)
        view = st.segmented_control(
            "View", VIEWS, key="alerts_view", default=VIEWS[0], required=True, bind="query-params", label_visibility="collapsed"
        )
    _late(desk, checked)
    if view == "Rules":
        alerts_rules.draw(desk, at)
    elif view == "Silences":
        alerts_rules.silences(desk)
    elif view == "Delivery":
        channels.draw(desk)
    else:
        _inbox(desk, at)


@st.fragment(run_every=5.0)
def _ticker(desk: Any, drawn: data.Stamp) -> None:
    """Draws the page again when an alert began, ended or was taken by somebody."""
    if data.stamp(desk.store) != drawn and not alerts_detail.is_silencing():
        st.rerun()


def last_checked(desk: Any) -> dt.datetime | None:
    """When the rules were last looked at, by their schedule or by hand; None when they never were."""
    done = [run.finished_at for run in desk.runs.history(job="alerts", limit=10) if run.state == "succeeded"]
    return max((moment for moment in (*done, pulse.last_evaluated(desk.store)) if moment), default=None)


def _late(desk: Any, checked: dt.datetime | None) -> None:
    """Says so when nobody looks at the rules: a quiet inbox is then no good sign."""
    if "alerts" not in desk.jobs:
        return
    if checked is not None and clock.now() - checked > LATE:
        st.warning(
            f"**The rules were last checked {clock.ago(checked)}.** They should be every 5 minutes: what you see may be old. "
            "The Training page, Schedules, tells what the job does.", icon=":material/schedule:",
        )  # fmt: skip


# ---------------------------------------------------------------- inbox


def _inbox(desk: Any, at: data.Stamp) -> None:
    since = data.now() - dt.timedelta(days=DAYS)
    fired = data.fired(desk.store, at, since)
    with st.container(border=True), ui.guarded():
        ui.card(f"Last {DAYS} days", "alerts a UTC day by severity")
        ui.show(alert_charts.strip(fired, days=DAYS, today=clock.now().date()), "alerts_strip", alert_charts.strip_words(fired, DAYS))
    shown = st.segmented_control(
        "Show", SHOWN, key="alerts_show", default=SHOWN[0], required=True, bind="query-params", label_visibility="collapsed"
    )
    groups = chosen(desk, shown if shown in SHOWN else SHOWN[0], since)
    pending = [a for a in alerts.inbox(desk.store, states=("pending",))] if shown == "Open" else []
    asked = _asked(desk)
    if not groups and asked is None:
        _nothing(desk, shown, len(fired), pending)
        return
    left, right = ui.split(1, 2, border=False)
    with left:
        tall = {"height": LIST_PX, "border": False} if len(groups) > LIST_ROWS else {}  # on a narrow page the open one stands below
        with st.container(**tall):
            for group in groups[:N_ROWS]:
                _row(group, is_open=asked is not None and asked.id in {a.id for a in group.members})
        if len(groups) > N_ROWS:
            ui.note(f"{len(groups) - N_ROWS:,} more lines; acknowledge or silence some of these first.")
        _pending(pending)
    with right, st.container(border=True), ui.guarded():
        alerts_detail.draw(desk, at, asked or groups[0].lead, _siblings(groups, asked))


def chosen(desk: Any, shown: str, since: dt.datetime) -> list[alerts.Group]:
    """The lines of the inbox in one of SHOWN."""
    if shown == "Resolved":
        return alerts.groups(desk.store, states=("resolved",), since=since)
    found = alerts.groups(desk.store, states=alerts.OPEN)
    keep = {
        "Open": lambda a: not a.acked_by and not a.silenced_by and not a.inhibited_by,
        "Acknowledged": lambda a: bool(a.acked_by),
        "Silenced": lambda a: bool(a.silenced_by or a.inhibited_by),
    }[shown]
    return [group for group in found if any(keep(alert) for alert in group.members)]


def _asked(desk: Any) -> Alert | None:
    """The alert that the address names; None for none, or one that is not there."""
    id = st.query_params.get("alert", "")
    if not id:
        return None
    try:
        return alerts.alert(desk.store, id)
    except FMError as error:
        ui.refusal(error)
        return None


def _siblings(groups: list[alerts.Group], asked: Alert | None) -> tuple[Alert, ...]:
    """The alerts that began together with the open one."""
    if asked is None:
        return groups[0].members
    return next((group.members for group in groups if asked.id in {a.id for a in group.members}), (asked,))


def _open(id: str) -> None:
    st.query_params["alert"] = id


def _row(group: alerts.Group, *, is_open: bool) -> None:
    """One line of the inbox: severity, state, age, title, Open."""
    lead = group.lead
    with st.container(border=True, gap="xsmall"):
        more = f" {ui.chip(f'{group.n} together', icon=':material/stacks:')}" if group.n > 1 else ""
        age = f":small[:gray[{ui.esc(clock.ago(group.fired_at))}]]"
        st.markdown(f"{severity_chip(group.severity)} {alerts_detail.state_chip(lead)}{more} {age}")
        with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
            title = ui.esc(ui.short(title_of(group), 110))
            st.markdown(f"**{title}**" if not lead.acked_by and lead.state != "resolved" else title, width="stretch")
            st.button(
                "Open", key=f"open-{lead.id}", type="secondary" if is_open else "tertiary", icon=":material/chevron_right:",
                icon_position="right", on_click=_open, args=(lead.id,),
            )  # fmt: skip


def title_of(group: alerts.Group) -> str:
    """What a line of the inbox is about; several keys are named, the largest first."""
    if group.n == 1:
        return data.title_of(group.lead)
    names = [a.key or "All news" for a in group.members[:3]]
    rest = f" and {group.n - len(names)} more" if group.n > len(names) else ""
    return f"{group.title}: {', '.join(names)}{rest}"


def severity_chip(severity: str) -> str:
    return ui.chip(*ui.SEVERITY.get(severity, ui.SEVERITY["low"]))


def _pending(pending: list[Alert]) -> None:
    """What is out of the ordinary, but not for long enough."""
    if pending:
        with st.container(border=True, gap="xsmall"):
            names = "  \n".join(ui.esc(data.title_of(alert)) for alert in pending[:8])
            st.markdown(f"**Pending** :small[:gray[out of the ordinary, not for long enough yet]]  \n{names}")


def _nothing(desk: Any, shown: str | None, n_fired: int, pending: list[Alert]) -> None:
    """Why the list is empty: nothing was ever watched, nothing fires, or nothing is in this state."""
    checked = last_checked(desk)
    if checked is None:
        n_rules = len(alerts.rules(desk.store))
        words = f"{n_rules} rules watch the news; the first look is within 5 minutes of the first scored articles."
        ui.empty("Nothing was checked yet", words, icon=":material/hourglass_empty:", height=300)
    elif shown == "Open":
        past = f"{n_fired:,} fired in the last {DAYS} days." if n_fired else f"None fired in the last {DAYS} days."
        ui.empty("Nothing is firing", f"Rules last checked {clock.ago(checked)}. {past}", icon=":material/notifications_off:", height=300)
    else:
        ui.empty(f"No alert is {str(shown).lower()}", f"Rules last checked {clock.ago(checked)}.", icon=":material/inbox:", height=300)
    _pending(pending)


if __name__ == "__main__":
    page()
