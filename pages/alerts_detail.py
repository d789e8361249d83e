"""One alert: why it fired, split exactly; the points that did; the stories that speak for it; what happened to it; acknowledge and silence.

Draws what fmcore.sentiment.alerts knows of it; an acknowledgement or a silence is written by its functions, under the name of who asks.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from fmcore import clock
from fmcore.data import tickers as companies
from fmcore.nouns import Alert, Filters, FMError, Rule, Silence
from fmcore.sentiment import alerts
from pages import alert_charts, ui
from pages import sentiment_charts as charts
from pages import sentiment_data as data
from pages import sentiment_stories as stories

STATES = {
    "firing": ("New", "blue", ":material/fiber_manual_record:"),
    "pending": ("Pending", "gray", ":material/hourglass_empty:"),
    "resolved": ("Resolved", "green", ":material/check_circle:"),
    "no data": ("No data", "orange", ":material/signal_disconnected:"),
    "error": ("Error", "red", ":material/error:"),
}
SPLITS = {"by_story": "Story", "by_source": "Source", "by_ticker": "Ticker", "by_topic": "Topic", "by_term": "Term"}
QUIET_FOR = {"1 h": 1, "4 h": 4, "24 h": 24, "7 d": 168}
"""How long to silence -> hours."""
UNTIL_MORNING = "Until 09:00"
PREVIEW_DAYS = 30
N_PARTS = 8


def state_chip(alert: Alert) -> str:
    """How an alert stands: who has it, or what keeps it quiet, before the plain state."""
    if alert.state == "firing" and alert.acked_by:
        return ui.chip("Acknowledged", "gray", ":material/check:")
    if alert.state == "firing" and alert.silenced_by:
        return ui.chip("Silenced", "gray", ":material/notifications_off:")
    if alert.state == "firing" and alert.inhibited_by:
        return ui.chip("Part of a larger one", "gray", ":material/account_tree:")
    return ui.chip(*STATES.get(alert.state, (alert.state, "gray", ":material/help:")))


def draw(desk: Any, at: data.Stamp, alert: Alert, together: tuple[Alert, ...]) -> None:
    """The whole of one alert."""
    why = alerts.explain(desk.store, alert.id) if alert.state != "pending" else alert.why
    rule = next((r for r in alerts.rules(desk.store) if r.id == alert.rule_id), None)
    _head(alert, rule, why)
    _actions(desk, alert, rule)
    if len(together) > 1:
        _others(alert, together)
    if why:
        _figures(alert, why)
        _why(alert.id, why)
    if alert.kind in ("surge", "shift", "flood") and rule is not None:
        with ui.guarded():
            _chart(desk, at, alert, rule)
    if why:
        _stories(desk, alert.id, why)
    _timeline(desk, alert)
    if st.session_state.get("alerts_silence") == alert.id:
        _silence_dialog(desk, alert, rule)


def _head(alert: Alert, rule: Rule | None, why: Mapping[str, Any]) -> None:
    st.markdown(f"**{ui.esc(data.title_of(alert))}**")
    st.markdown(ui.esc(why.get("sentence") or alert.reason))
    word, color, icon = ui.SEVERITY.get(alert.severity, ui.SEVERITY["low"])
    began = f"{clock.ago(alert.starts_at)}, {ui.local(alert.starts_at)}"
    ended = f" · over since {ui.local(alert.ends_at)}" if alert.ends_at else ""
    facts = f"rule {rule.title if rule else alert.rule_id} · began {began}{ended}"
    chips = [ui.chip(word, color, icon), state_chip(alert)]
    if alert.key:
        chips.append(ui.chip(alert.key))
    st.markdown(f"{' '.join(chips)} :small[:gray[{ui.esc(facts)}]]")
    if alert.acked_by:
        ui.note(f"{ui.esc(alert.acked_by)} has it since {ui.esc(ui.local(alert.acked_at))}; it ends by itself when the alert does.")
    if alert.inhibited_by:
        ui.note("It is not sent: a larger alert of the same kind stands for it.")


# ---------------------------------------------------------------- what a person does


def _actions(desk: Any, alert: Alert, rule: Rule | None) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if alert.state != "resolved" and alert.state != "pending":
            if not alert.acked_by and st.button("Acknowledge", key=f"ack-{alert.id}", type="primary", icon=":material/check:"):
                _ack(desk, alert)
            st.menu_button(
                "Silence", [*QUIET_FOR, UNTIL_MORNING], key=f"silence-{alert.id}", icon=":material/notifications_off:",
                on_click=_ask_silence, args=(alert.id,),
            )  # fmt: skip
        if alert.dimension in ("all", "topic", "ticker"):
            query = {"sent_range": "7 d"} | ({f"sent_{alert.dimension}": alert.key} if alert.key else {})
            st.page_link("sentiment.py", label="Open stories", icon=":material/article:", query_params=query)
        elif alert.kind in ("dead feed", "no data"):
            st.page_link("data.py", label="Open sources", icon=":material/rss_feed:")


def _ack(desk: Any, alert: Alert) -> None:
    try:
        alerts.ack(desk.store, alert.id, by=ui.who())
    except FMError as error:
        ui.refusal(error)
        return
    st.query_params["alert"] = alert.id
    st.toast("Acknowledged. It ends by itself when the alert does.", icon=":material/check:")
    st.rerun()


def _ask_silence(alert_id: str) -> None:
    st.session_state["alerts_silence"] = alert_id
    st.session_state["alerts_quiet_for"] = st.session_state.get(f"silence-{alert_id}") or "4 h"
    st.query_params["alert"] = alert_id


def is_silencing() -> bool:
    """Whether somebody is about to silence: the page is not drawn anew under them."""
    return "alerts_silence" in st.session_state


def _done_silencing() -> None:
    st.session_state.pop("alerts_silence", None)


def _silence_dialog(desk: Any, alert: Alert, rule: Rule | None) -> None:
    st.dialog("Silence", width="medium", icon=":material/notifications_off:", on_dismiss=_done_silencing)(_silencing)(desk, alert, rule)


def _silencing(desk: Any, alert: Alert, rule: Rule | None) -> None:
    """What to keep quiet, until when, why; and what that would have muted in the last days."""
    scopes = {
        "this": f"{alert.key or 'All news'}, this rule",
        "key": f"{alert.key or 'All news'}, every rule",
        "rule": "everything of this rule",
    }
    if not alert.key:
        del scopes["key"]
    scope = st.segmented_control("Keep quiet", list(scopes), key="alerts_scope", default="this", required=True, format_func=scopes.get)
    length = st.segmented_control("How long", [*QUIET_FOR, UNTIL_MORNING], key="alerts_quiet_for", required=True)
    now = clock.now()
    until = ends_at(length, now, ui.zone())
    reason = st.text_input("Why", key="alerts_quiet_why", placeholder="What is known about it", max_chars=300)
    silence = Silence(
        "", "" if scope == "key" else alert.rule_id, "" if scope == "rule" else alert.dimension, "" if scope == "rule" else alert.key,
        now, until, ui.who(), reason.strip() or "preview",
    )  # fmt: skip
    ui.note(f"From now until {ui.esc(ui.local(until))} ({ui.esc(ui.zone())}). Alerts are still recorded; they are not sent.")
    _preview(desk, silence)
    if st.button("Silence", key="alerts_silence_now", type="primary", icon=":material/notifications_off:"):
        if not reason.strip():
            st.error("Say why: the next person will ask.", icon=":material/error:")
            return
        try:
            alerts.silence(
                desk.store, starts_at=now, ends_at=until, by=ui.who(), reason=reason, rule_id=silence.rule_id, dimension=silence.dimension,
                key=silence.key,
            )  # fmt: skip
        except FMError as error:
            ui.refusal(error)
            return
        _done_silencing()
        st.rerun()


def ends_at(length: str | None, now: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    """When a silence of that length ends; the morning is the next 09:00 of the viewer."""
    if length == UNTIL_MORNING:
        there = now.astimezone(zone)
        morning = dt.datetime.combine(there.date(), dt.time(9), tzinfo=zone)
        if morning <= now:
            morning = dt.datetime.combine(there.date() + dt.timedelta(days=1), dt.time(9), tzinfo=zone)
        return morning.astimezone(clock.UTC)
    return now + dt.timedelta(hours=QUIET_FOR.get(length or "", 4))


def _preview(desk: Any, silence: Silence) -> None:
    """What this silence would have muted: the alerts of the last days that were sent and that it matches."""
    try:
        muted = alerts.preview_silence(desk.store, silence, days=PREVIEW_DAYS)
    except FMError as error:
        ui.refusal(error)
        return
    if not muted:
        st.markdown(f"In the last {PREVIEW_DAYS} days it would have muted **nothing** that was sent.")
        return
    st.markdown(f"In the last {PREVIEW_DAYS} days it would have muted **{len(muted):,}** that {'was' if len(muted) == 1 else 'were'} sent:")
    rows = [{"Began": ui.local(a.starts_at), "Alert": data.title_of(a), "Severity": ui.SEVERITY[a.severity][0]} for a in muted[:50]]
    st.dataframe(pd.DataFrame(rows), hide_index=True, row_height=34, alt="Alerts that it would have muted")


def _others(alert: Alert, together: tuple[Alert, ...]) -> None:
    """The alerts that began in the same bucket by the same rule: one notification, each with its own cause."""
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
        ui.note("Fired together:")
        for other in together[:10]:
            st.button(
                ui.esc(other.key or "All news"), key=f"sibling-{other.id}", type="secondary" if other.id == alert.id else "tertiary",
                on_click=_show, args=(other.id,),
            )  # fmt: skip


def _show(alert_id: str) -> None:
    st.query_params["alert"] = alert_id


# ---------------------------------------------------------------- why


def _figures(alert: Alert, why: Mapping[str, Any]) -> None:
    of_index = why["unit"] == "index"
    with st.grid(3, min_column_width=150, gap="small"):
        value = ui.signed(why["value"], 2) if of_index else f"{why['value']:.0f}"
        expected = ui.signed(why["expected"], 2) if of_index else f"{why['expected']:.1f}"
        ui.kpi(
            "Index, vs expected" if of_index else "Negative stories, vs expected", value, why["excess"], digits=2 if of_index else 1,
            good="up" if of_index else "down", vs=f"vs {expected}",
        )  # fmt: skip
        start, end = (dt.datetime.fromisoformat(moment) for moment in why["window"])
        ui.kpi("Window", clock.duration((end - start).total_seconds()), words=ui.local(start), vs=f"to {_until(start, end)}")
        share = why["n_negative"] / why["n_stories"] if why["n_stories"] else 0.0
        ui.kpi("Stories", f"{why['n_stories']:,}", words=f"{share:.0%} negative")


def _until(start: dt.datetime, end: dt.datetime) -> str:
    """The end of a window, with its day where that is another one."""
    zone = ui.zone()
    return ui.local(end, day=start.astimezone(zone).date() != end.astimezone(zone).date())


@st.fragment
def _why(alert_id: str, why: Mapping[str, Any]) -> None:
    """The split by story, source, ticker, topic or term as a waterfall; whichever is chosen, its parts add up to the same excess."""
    of_index = why["unit"] == "index"
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        total = ui.signed(why["excess"], 2 if of_index else 1)
        with st.container(width="content"):
            ui.card("Why it fired", f"parts add up to {total} {ui.esc(why['unit'] if not of_index else 'points')} over what was expected")
        by = st.segmented_control(
            "Split by", list(SPLITS), key=f"split-{alert_id}", default="by_source", required=True, format_func=SPLITS.get,
            label_visibility="collapsed",
        )  # fmt: skip
    parts = folded(why.get(by if by in SPLITS else "by_source") or [])
    if not parts:
        st.markdown("There is nothing to split: no story stands in the window.")
        return
    fig = alert_charts.waterfall(parts, expected=why["expected"], value=why["value"], of_index=of_index)
    told = "; ".join(f"{part.get('label') or part['name']} {ui.signed(part['part'], 2)}" for part in parts)
    ui.show(fig, f"why-{alert_id}-{by}", f"From {why['expected']:.2f} expected to {why['value']:.2f}: {told}.")


def folded(parts: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """At most N_PARTS bars; the smallest stand together, so that the sum stays exactly the same."""
    if len(parts) <= N_PARTS:
        return list(parts)
    ranked = sorted(parts, key=lambda part: -abs(part["part"]))
    rest = ranked[N_PARTS - 1 :]
    return [*ranked[: N_PARTS - 1], {"name": "rest", "label": f"{len(rest)} smaller parts", "part": sum(p["part"] for p in rest), "n": 0}]


def _chart(desk: Any, at: data.Stamp, alert: Alert, rule: Rule) -> None:
    """The key's own history around the alert, the buckets that fired marked."""
    of_index = alert.kind == "shift"
    over = alert.ends_at or clock.now()
    own = next((name for name, seconds in charts.SPAN.items() if seconds == rule.bucket_s), "1h")
    for bucket in (own, "6h", "1d") if of_index else (own,):  # an index needs buckets with enough news for a line
        around = dt.timedelta(seconds=60 * max(rule.bucket_s, charts.SPAN[bucket] / 2))
        end = min(data.now(), over + around / 4)
        longest = dt.timedelta(seconds=900 * charts.SPAN[bucket])
        filters = filters_of(alert, start=max(alert.starts_at - around, end - longest), end=end)
        series = data.series(desk.store, at, filters, bucket)
        if len(series) and series["enough"].mean() >= 0.6:
            break
    if not len(series):
        return
    unit = "net score" if of_index else "negative stories"
    ui.card("Points that fired", f"{unit} by {bucket} · diamonds: out of the ordinary · tint: the time it stood open")
    points = alerts.points(desk.store, alert.id)
    fig = alert_charts.history(
        series, points, bucket=bucket, zone=ui.zone(), of_index=of_index, starts_at=alert.starts_at, ends_at=min(over, end)
    )
    ui.show(fig, f"history-{alert.id}", f"{unit} by {bucket} around the alert; {len(points)} buckets fired.")


def filters_of(alert: Alert, *, start: dt.datetime, end: dt.datetime) -> Filters:
    """The news that an alert is about."""
    if alert.dimension == "topic":
        return Filters(topics=(alert.key,), start=start, end=end)
    if alert.dimension == "ticker":
        return Filters(tickers=(alert.key,), start=start, end=end)
    if alert.dimension == "source":
        return Filters(sources=(alert.key,), start=start, end=end)
    if alert.dimension == "sector":
        members = tuple(sorted(t for t, sector in companies.book().sectors.items() if sector == alert.key))
        return Filters(tickers=members, start=start, end=end)
    return Filters(start=start, end=end)


def _stories(desk: Any, alert_id: str, why: Mapping[str, Any]) -> None:
    """The stories with their part of the alert; why the model read one as it did opens under it."""
    top = why.get("top") or []
    if not top:
        return
    ui.card("Stories that speak for it", "largest first")
    of_index = why["unit"] == "index"
    opened: set[str] = st.session_state.setdefault("alerts_opened", set())
    for story in top[:5]:
        key, published_at = f"{alert_id}-{story['document_id']}", dt.datetime.fromisoformat(story["published_at"])
        when = ui.local(published_at)
        copies = f" · +{story['n_articles'] - 1:,} copies" if story["n_articles"] > 1 else ""
        part = f"{ui.signed(story['part'], 2)} of the {'index' if of_index else 'excess'}"
        about = " · ".join(filter(None, [" ".join(story["tickers"][:4]), story["topic"]]))
        facts = " · ".join([part, ui.esc(story["source"]), ui.esc(when) + copies, ui.esc(about), ui.link(story["url"]) or "no link"])
        with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
            st.markdown(f"**{ui.esc(ui.short(story['title'], 160)) or 'No title'}**  \n:small[:gray[{facts}]]", width="stretch")
            st.button(
                "Why?", key=f"why-{key}", type="tertiary", icon=":material/expand_less:" if key in opened else ":material/expand_more:",
                on_click=_toggle, args=(key,), help="The words that drove the story's score",
            )  # fmt: skip
        if key in opened:
            with st.container(border=True, gap="xsmall"):
                stories.explain(desk, story["document_id"], published_at=published_at, title=story["title"], key=f"words-{key}")


def _toggle(key: str) -> None:
    st.session_state.setdefault("alerts_opened", set()).symmetric_difference_update({key})


def _timeline(desk: Any, alert: Alert) -> None:
    """What happened to it, oldest first; made when opened."""
    if alert.state == "pending":
        return
    place = st.expander("What happened to it", icon=":material/history:", on_change="rerun", key=f"timeline-{alert.id}")
    if not place.open:
        return
    with place:
        for row in alerts.history(desk.store, alert.id):
            sent = " · sent" if row["sent"] else f" · not sent: {row['muted']}" if row["muted"] else ""
            by = f" by {row['by']}" if row["by"] else ""
            head = f"{ui.esc(ui.local(row['at']))} · **{ui.esc(row['what'])}**{ui.esc(by + sent)}"
            st.markdown(f"{head}  \n:small[:gray[{ui.esc(row['detail'])}]]")
