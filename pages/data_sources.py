"""Sources, a view of the Data page: where news comes from, how each source is, and what can be done with it.

Draws what fmcore.data.sources knows. A look is a run of the ingest job, asked for here; only an uploaded file is read here, in memory.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore import clock, config
from fmcore.data import looks, prices, tables, uploads
from fmcore.data.documents import Intake
from fmcore.data.sources import KINDS, Health, Source, Sources, note
from fmcore.nouns import FMError
from pages import forms, ui

STATES = {
    "well": ("Well", "green", ":material/check_circle:"),
    "new": ("New", "blue", ":material/fiber_manual_record:"),
    "late": ("Late", "orange", ":material/schedule:"),
    "failing": ("Failing", "red", ":material/error:"),
    "paused": ("Paused", "gray", ":material/pause_circle:"),
    "done": ("Played to the end", "gray", ":material/check:"),
}
N_LOOKS = 8
NONE = "–"
ADDED = {"rss": "feed", "push": "push", "upload": "files", "replay": "replay", "demo": "demo", "prices": "prices"}
"""What a new source of a kind is called unless a person says otherwise."""


def draw(desk: Any) -> None:
    """The whole view: the list, one source in full, a form for another."""
    held = Sources(desk.store)
    _ticker(held, held.stamp())
    present, healths = held.all(), held.healths()
    if not present:
        ui.empty("No sources yet", "Add the first one below: the demo stream needs nothing but a click.", icon=":material/rss_feed:")
    else:
        with ui.guarded():
            chosen = _list(present, healths)
        with st.container(border=True), ui.guarded():
            _detail(desk, held, chosen, healths[chosen.name])
    with st.container(border=True), ui.guarded():
        _add(desk, held, is_first=not present)


@st.fragment(run_every=5.0)
def _ticker(held: Sources, drawn: tuple) -> None:
    """Draws the view again when a source was looked at or changed."""
    if held.stamp() != drawn:
        st.rerun()


def words(present: list[Source], healths: Mapping[str, Health]) -> str:
    """The list in one line, for the page's header."""
    counts = {state: sum(health.state == state for health in healths.values()) for state in STATES}
    wrong = [f"{counts[state]} {STATES[state][0].lower()}" for state in ("failing", "late") if counts[state]]
    return " · ".join([f"{len(present)} source{'s' if len(present) != 1 else ''}", *(wrong or ["none failing"] if present else [])])


# ---------------------------------------------------------------- the list


def _list(present: list[Source], healths: Mapping[str, Health]) -> Source:
    """The table of sources; returns the one that is chosen, the first that needs a person where none is."""
    with st.container(border=True):
        ui.card("Sources", "counts of the last 7 days · copies repeat a story that was told before · choose a row for more")
        rows = [row(source, healths[source.name]) for source in present]
        states = list(STATES.values())
        picked = st.dataframe(
            pd.DataFrame(rows),
            hide_index=True,
            row_height=34,
            height=min(38 + 34 * len(rows), 360),
            key="sources_table",
            on_select="rerun",
            selection_mode="single-row",
            placeholder=NONE,
            alt="Sources with state, last item, lag, errors, share of copies and next look",
            column_config={
                "Last item": st.column_config.TextColumn(width=115),
                "State": st.column_config.MultiselectColumn(options=[s[0] for s in states], color=[s[1] for s in states]),
                "A day": st.column_config.NumberColumn(format="localized", help="Documents a day, over the seven days before the newest."),
                "Copies, %": st.column_config.NumberColumn(format="%.0f", help="Share of its scored articles that repeat a story."),
                "Lag": st.column_config.TextColumn(help="Median time from publication to here, since the source was added."),
                "Failed looks": st.column_config.TextColumn(help="Of all looks in seven days."),
                "Refused": st.column_config.NumberColumn(format="localized"),
            },
        )
        at = picked.selection.rows[0] if picked.selection.rows else None
    if at is not None and at < len(present):
        st.session_state["source_open"] = present[at].name
    wanted = st.session_state.get("source_open")
    ill = [source for source in present if healths[source.name].state in ("failing", "late")]
    return next((source for source in present if source.name == wanted), (ill or present)[0])


def _when(moment: dt.datetime | None) -> str:
    """How long ago, or the day where that is long ago."""
    if moment is None:
        return NONE
    old = (clock.now() - moment).days > 60
    return f"{moment.day} {moment:%b %Y}" if old else clock.ago(moment)


def row(source: Source, health: Health) -> dict[str, Any]:
    """A source as a line of the table."""
    copies = None if health.share_copies is None else 100 * health.share_copies
    return {
        "Source": source.name,
        "Kind": KINDS[source.kind].title,
        "State": [STATES[health.state][0]],
        "Last item": _when(health.last_item_at),
        "Lag": clock.duration(health.lag_s) if health.lag_s is not None else NONE,
        "Failed looks": f"{health.n_errors} of {health.n_looks}",
        "A day": round(health.per_day),
        "Copies, %": copies,
        "Refused": health.n_refused,
        "Next look": clock.ago(health.next_at) if health.next_at else NONE,
        "Licence": source.licence,
    }


# ---------------------------------------------------------------- one source


def _detail(desk: Any, held: Sources, source: Source, health: Health) -> None:
    ui.card(ui.esc(source.name), ui.esc(f"{KINDS[source.kind].title} · added {clock.ago(source.added_at)}"), _chips(source, health))
    _actions(desk, held, source)
    if health.error:
        again = f"It is looked at again {clock.ago(health.next_at)}." if health.next_at else "It is not looked at again by itself."
        st.error(f"**The last look failed.** {ui.esc(health.error)} {ui.esc(again)}", icon=":material/error:")
    if source.kind in ("upload", "prices") and source.state == "on":
        _upload(desk, source)
    if source.kind == "push":
        _how_to_push(source)
    left, right = ui.split(2, 1, border=False)
    with left, ui.guarded():
        _arrivals(held, source)
    with right:
        st.markdown("  \n".join(facts(source, health)))
    with st.expander("Refused items and the last looks", icon=":material/list:"):
        _record(held, source, health)


def _chips(source: Source, health: Health) -> str:
    chips = [ui.chip(*STATES[health.state]), ui.chip(source.licence, icon=":material/license:")]
    return " ".join([*chips, ui.synthetic_mark()] if source.kind == "demo" else chips)


def _actions(desk: Any, held: Sources, source: Source) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        can_look = KINDS[source.kind].is_looked_at and source.state == "on" and "ingest" in desk.jobs
        if can_look and st.button("Look now", key="source_look", icon=":material/refresh:", type="primary"):
            _do(lambda: desk.runs.request("ingest", {"source": source.name}), "Asked for; it takes a moment.")
        word, icon, act = ("Pause", "pause", held.pause) if source.state == "on" else ("Resume", "play_arrow", held.resume)
        if st.button(word, key="source_turn", icon=f":material/{icon}:"):
            _do(lambda: act(source.name, ui.who()), f"{word}d.")
        with st.popover("Remove", icon=":material/delete:"):
            st.markdown("It is looked at no more and leaves this list. Its documents and what was made of them stay.")
            if st.button("Remove this source", key="source_remove", type="primary"):
                _do(lambda: held.remove(source.name, ui.who()), "Removed; its documents stay.")


def _do(act: Callable[[], Any], said: str) -> None:
    try:
        act()
    except FMError as error:
        ui.refusal(error)
        return
    st.toast(said)
    st.rerun()


def facts(source: Source, health: Health) -> list[str]:
    """What is known of a source beside its chart, a line a fact, as markdown."""
    lag = clock.duration(health.lag_s) if health.lag_s is not None else "nothing published since it was added"
    copies = f"{100 * health.share_copies:.0f} %" if health.share_copies is not None else "nothing scored yet"
    lines = [
        ("Newest item", ui.fresh(health.last_item_at)),
        ("Last look", ui.fresh(health.last_look_at)),
        ("Next look", ui.fresh(health.next_at) if health.next_at else "not by itself"),
        ("From publication to here", lag),
        ("Repeats a known story", copies),
        ("In 7 days", f"{health.n_seen:,} seen, {health.n_new:,} new, {health.n_known:,} known already, {health.n_refused:,} refused"),
    ]
    titles = {field.name: field.title for field in forms.fields(KINDS[source.kind].settings)}
    lines += [(titles.get(name, name), value) for name, value in source.settings.items() if value not in ("", None)]
    if health.outlets and health.outlets != (source.name,):
        lines.append(("Publishers", ", ".join(health.outlets[:8]) + (" …" if len(health.outlets) > 8 else "")))
    return [f":small[:gray[{ui.esc(name)}:] {ui.esc(ui.short(value, 200))}]" for name, value in lines]


def _arrivals(held: Sources, source: Source) -> None:
    days = held.daily(source.name)
    st.markdown("**Documents a day** :small[:gray[by date of publication, UTC, the 30 days up to the newest]]")
    if not days:
        ui.note("Nothing has come yet." if source.kind != "prices" else "Prices are no documents; see the table below.")
        return
    ui.show(arrivals_chart(days), f"arrivals-{source.name}", arrivals_words(days))


def arrivals_chart(days: list[tuple[Any, int]]) -> go.Figure:
    """Documents a day as bars."""
    fig = go.Figure(go.Bar(x=[day for day, _ in days], y=[n for _, n in days], marker={"color": ui.tokens()["accent"], "line_width": 0},
                           hovertemplate="%{x|%a %d %b %Y}: <b>%{y:,}</b><extra></extra>"))  # fmt: skip
    ui.desk(fig, "small", hovermode="closest", bargap=0.3)
    fig.update_xaxes(tickformat="%d %b", nticks=6)
    fig.update_yaxes(rangemode="tozero", nticks=4)
    return fig


def arrivals_words(days: list[tuple[Any, int]]) -> str:
    """The chart in words."""
    most = max(days, key=lambda day: day[1])
    return f"{sum(n for _, n in days):,} documents in {len(days)} days up to {days[-1][0]}; most on {most[0]}: {most[1]:,}."


def _record(held: Sources, source: Source, health: Health) -> None:
    if health.refusals:
        reasons = pd.DataFrame([{"Refused because": reason, "Items": n} for reason, n in health.refusals.items()])
        st.dataframe(reasons, hide_index=True, row_height=34, width=520, alt="Refused items of seven days by reason")
    else:
        ui.note("Nothing was refused in seven days.")
    found = held.looks(source.name, limit=N_LOOKS)
    if not found:
        ui.note("It was not looked at yet.")
        return
    counts = {"Seen": "n_seen", "New": "n_new", "Known": "n_known", "Refused": "n_refused"}
    rows = [
        {"Look (your time)": ui.local(look["checked_at"]), "Went": "well" if look["ok"] else "wrong"}
        | {label: look[name] for label, name in counts.items()}
        | {"Why it failed": look["error"]}
        for look in found
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, row_height=34, alt=f"The last {len(rows)} looks")


# ---------------------------------------------------------------- uploads and pushes


def _upload(desk: Any, source: Source) -> None:
    is_price = source.kind == "prices"
    wanted = (
        "CSV file with the columns ticker, date, close"
        if is_price
        else "CSV or JSON lines with title or text, published_at, url, tickers, source"
    )
    file = st.file_uploader(wanted, type=["csv", "tsv"] if is_price else ["csv", "tsv", "json", "jsonl"], key=f"upload-{source.name}")
    if file is None:
        ui.note(f"Up to {uploads.MAX_BYTES / 1e6:.0f} MB. Items that were taken in before are known again and not doubled.")
        return
    if st.session_state.get("upload_done", (None, None))[0] != file.file_id:
        try:
            with st.spinner("Reading the file"):
                st.session_state["upload_done"] = (file.file_id, _take(desk, source, file.getvalue()))
        except FMError as error:
            ui.refusal(error)
            return
        st.rerun()  # the list above counts what came
    _told(st.session_state["upload_done"][1])


def _take(desk: Any, source: Source, raw: bytes) -> Intake:
    if source.kind == "upload":
        return looks.receive(desk.store, source.name, tables.read_documents(raw), kind="upload", by=ui.who())
    at, memory = clock.now(), Sources(desk.store).memory(source)
    return prices.take_in(
        desk.store, raw, source=source.name, now=at, also=lambda tx, came: note(tx, source.name, now=at, intake=came, memory=memory)
    )


def _told(came: Intake) -> None:
    """What became of a file's rows."""
    line = f"{came.n_seen:,} rows: {came.n_new:,} new, {came.n_known:,} known already, {came.n_refused:,} refused"
    line += f"; {came.n_undated:,} had no date and count from now" if came.n_undated else ""
    (st.warning if came.n_refused else st.success)(f"**Taken in.** {ui.esc(line)}.", icon=":material/upload_file:")
    for n, reason in came.refused[:5]:
        ui.note(f"Row {n + 1}: {ui.esc(reason)}")


def _how_to_push(source: Source) -> None:
    token = ' -H "Authorization: Bearer $FM_SECRET_API_TOKEN"' if config.settings().secret_api_token else ""
    st.markdown("**Send documents** :small[:gray[up to 1,000 at once; sending them again adds nothing]]")
    st.code(
        f'curl -X POST http://127.0.0.1:8501/api/documents -H "Content-Type: application/json"{token} \\\n'
        f"  -d '{{\"source\": \"{source.name}\", \"documents\": [{{\"title\": \"...\", \"url\": \"https://...\", "
        f"\"published_at\": \"2026-01-05T08:00:00Z\"}}]}}'",
        language="bash",
    )  # fmt: skip


# ---------------------------------------------------------------- another one


def _add(desk: Any, held: Sources, *, is_first: bool) -> None:
    ui.card("Add a source", "nothing is asked of anybody before you do")
    kind = st.segmented_control(
        "Kind", list(KINDS), default="demo" if is_first else "rss", required=True, format_func=lambda k: KINDS[k].title, key="source_kind"
    )
    ui.note(ui.esc(KINDS[kind].summary))
    with st.form(f"add-{kind}", border=False):
        with st.grid(3, min_column_width=220, gap="small") as grid:
            with grid.cell():
                name = st.text_input(
                    "Name",
                    _free(ADDED[kind], {s.name for s in held.all()}),
                    key=f"source_name-{kind}",
                    help="Letters, digits, dots and dashes.",
                )
            with grid.cell(column_span=2):
                licence = st.text_input(
                    "Licence note", key=f"source_licence-{kind}", placeholder="What its texts may be used for, and where that is said"
                )
        values, slots = forms.draw(KINDS[kind].settings, key=f"source-{kind}")
        sent = st.form_submit_button("Add the source", icon=":material/add:", type="primary")
    if not sent:
        return
    settings, errors = forms.checked(KINDS[kind].settings, values)
    if settings is None:
        forms.show_errors(errors, slots)
        return
    try:
        added = held.add(name.strip(), kind, settings, licence, by=ui.who())
    except FMError as error:
        ui.refusal(error)
        return
    st.session_state["source_open"] = added.name
    st.toast(f"{added.name} was added.")
    st.rerun()


def _free(name: str, taken: set[str]) -> str:
    """A name that no source has yet."""
    return next(candidate for candidate in (name, *(f"{name}-{n}" for n in range(2, len(taken) + 3))) if candidate not in taken)
