"""Sentiment: how the news reads, of what and since when; what moved, which alerts stand, and the stories behind every point.

Draws what fmcore.sentiment knows. Filters live in the address (keys sent_...), so that a view can be sent to somebody; each is checked
against what there is before it is used. New articles appear by themselves unless the page is paused or somebody reads in the drawer.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from fmcore import clock, runtime
from fmcore.nouns import Filters
from fmcore.sentiment import index
from pages import sentiment_charts as charts
from pages import sentiment_data as data
from pages import sentiment_facts as facts
from pages import sentiment_headline as headline
from pages import sentiment_stories as stories
from pages import ui

RANGES = {"24 h": 1, "7 d": 7, "30 d": 30, "90 d": 90, "All": 0}
"""Range -> days; 0 is everything there is."""
AUTOMATIC = {"24 h": "1h", "7 d": "6h", "30 d": "1d", "90 d": "1d", "All": "1d"}
AUTO = "auto bucket"
SIDES = {"topics": ("sent_topic", "All topics"), "tickers": ("sent_ticker", "All tickers"), "sources": ("sent_source", "All sources")}
"""Side of Filters -> (its key in the address, what an empty choice means)."""
HEAT_BY = {"24 h": ("1h", "6h"), "7 d": ("6h", "1d")}
"""Range -> buckets of the heat map, finest first; others are drawn by day."""
N_TOPICS = 12
N_MOVERS = 8
N_STORIES = 8
POLL_S = 3.0


@dataclass(frozen=True)
class View:
    """What is looked at: the filters, the same for the window before, the range's name and the bucket."""

    filters: Filters
    before: Filters | None
    range: str
    bucket: str


def page() -> None:
    """The whole page."""
    desk = runtime.current()
    if desk is None:
        ui.no_server()
        return
    at = data.stamp(desk.store)
    there = data.options(desk.store, at)
    place = st.container()
    if not there.sources:
        with place:
            ui.header("Sentiment", "No article was scored yet")
        facts.nothing_yet(desk)
        return
    view = _filters(desk, there)
    # at the first visit only: at a later run the old numbers stay until the new ones are there, and nothing jumps
    with contextlib.nullcontext() if "sent_seen" in st.session_state else st.skeleton(height=900):
        now = data.overall(desk.store, at, view.filters)
        before = data.overall(desk.store, at, view.before) if view.before else None
        line = data.series(desk.store, at, view.filters, view.bucket) if now.n_articles else None
    with place:
        _header(desk, at, view, now, line)
    if line is None:
        _nothing_matches(desk, at, view)
        return
    headline.draw(desk, at, view, now, before, line)
    left, right = ui.split(2, 1)
    with left, ui.guarded():
        _index(desk, at, view, line)
    with right, ui.guarded():
        _topics(desk, at, view)
    with st.container(border=True), ui.guarded():
        _movers(desk, at, view)
    left, right = ui.split(2, 1)
    with left, ui.guarded():
        _stories(desk, at, view)
    with right, ui.guarded():
        facts.draw(desk, at)
    stories.drawer(desk)


# ---------------------------------------------------------------- filters


def _filters(desk: Any, there: Any) -> View:
    """The row of filters; what it returns holds only what there is, whatever stands in the address."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        range_ = st.segmented_control(
            "Range", list(RANGES), key="sent_range", default="7 d", required=True, bind="query-params", label_visibility="collapsed"
        )
        chosen = {}
        for side, (key, placeholder) in SIDES.items():
            chosen[side] = st.multiselect(
                side.capitalize(), getattr(there, side), key=key, bind="query-params", placeholder=placeholder,
                label_visibility="collapsed", width=170,
            )  # fmt: skip
        bucket = st.selectbox(
            "Bucket", [AUTO, *(f"by {name}" for name in index.BUCKETS)], key="sent_bucket", bind="query-params",
            label_visibility="collapsed", width=130,
        ).removeprefix("by ")  # fmt: skip
        if any(chosen.values()) or bucket != AUTO:
            st.button("Clear", key="sent_clear", type="tertiary", icon=":material/filter_alt_off:", on_click=_clear)
    range_ = range_ if range_ in RANGES else "7 d"
    kept = {side: tuple(name for name in names if name in getattr(there, side)) for side, names in chosen.items()}
    end, days = data.now(), RANGES[range_]
    start = end - dt.timedelta(days=days) if days else None
    filters = Filters(**kept, start=start, end=end)
    before = Filters(**kept, start=start - dt.timedelta(days=days), end=start) if start else None
    possible = index.buckets_for(desk.store, filters)
    wanted = AUTOMATIC[range_] if bucket not in index.BUCKETS else bucket
    if wanted not in possible:
        ui.note(f"A window of {ui.esc(range_)} is too long for buckets of {ui.esc(wanted)}; it is drawn by {ui.esc(possible[0])}.")
    return View(filters, before, range_, wanted if wanted in possible else possible[0])


def _clear() -> None:
    """Every filter but the range is taken away."""
    for key, _ in SIDES.values():
        st.session_state[key] = []
    st.session_state["sent_bucket"] = AUTO


def in_words(view: View) -> str:
    """The filters in plain words."""
    parts = [", ".join(names) for side in SIDES if (names := getattr(view.filters, side))]
    return " · ".join(parts) or "all topics, tickers and sources"


def _nothing_matches(desk: Any, at: data.Stamp, view: View) -> None:
    """No article in the window: what the widest filter that has data is, and one button that goes there."""
    everywhen = Filters(topics=view.filters.topics, tickers=view.filters.tickers, sources=view.filters.sources, end=view.filters.end)
    n_ever = data.overall(desk.store, at, everywhen).n_articles
    same_window = data.overall(desk.store, at, Filters(start=view.filters.start, end=view.filters.end)).n_articles
    hint = f"These filters have {n_ever:,} articles over all time; all news of the last {view.range} has {same_window:,}."
    waiting = data.backlog(desk.store).n_unscored
    if waiting:
        hint += f" {waiting:,} articles wait to be scored, the oldest first; they appear by themselves."
    with ui.empty(f"No article in the last {view.range} for {in_words(view)}", hint, icon=":material/filter_alt_off:", height=340):
        if n_ever:
            st.button("Show all time", type="primary", on_click=lambda: st.session_state.update(sent_range="All"))
        if any(getattr(view.filters, side) for side in SIDES):
            st.button("Clear filters", on_click=_clear, type="tertiary" if n_ever else "primary", key="sent_clear_2")


# ---------------------------------------------------------------- header


def _header(desk: Any, at: data.Stamp, view: View, now: index.Overall, line: pd.DataFrame | None) -> None:
    newest = data.freshness(desk.store, at).newest_at
    sub = f"Newest article {ui.esc(clock.ago(newest))} · {ui.esc(stories.window(view.filters))} · times in {ui.esc(ui.zone())}, kept in UTC"
    with ui.header("Sentiment", sub):
        _ticker(desk, at)
        if line is not None:
            facts.exports(desk, at, view, now, line)


@st.fragment(run_every=POLL_S)
def _ticker(desk: Any, drawn: data.Stamp) -> None:
    """Looks every few seconds whether anything was scored; when it was, the page is drawn again with it."""
    seen = st.session_state.get("sent_seen")
    if seen is None or seen[0] != drawn:
        seen = st.session_state["sent_seen"] = (drawn, clock.now())
    with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
        ui.note(f"updated {(clock.now() - seen[1]).total_seconds():.0f} s ago")
        live = st.toggle("Live", value=True, key="sent_live", help="New articles appear by themselves; off: the page stands still.")
    if live and not stories.is_open() and data.stamp(desk.store) != drawn:
        st.rerun()


# ---------------------------------------------------------------- charts


def _index(desk: Any, at: data.Stamp, view: View, line: pd.DataFrame) -> None:
    synthetic = data.synthetic(desk.store, at)
    ui.card("Sentiment index", f"net score, −1 to +1 · band: 95 % interval · by {view.bucket}", ui.synthetic_mark() if synthetic else "")
    line, since = _from_first_news(line)
    marked = _marks(data.fired(desk.store, at, line["bucket"].iloc[0].to_pydatetime()), view, line)
    ticker = view.filters.tickers[0] if len(view.filters.tickers) == 1 else ""
    begins = line["bucket"].iloc[0].to_pydatetime()
    prices = data.prices(desk.store, at, ticker, begins, view.filters.end) if ticker else None
    fig = charts.index_chart(line, bucket=view.bucket, zone=ui.zone(), alerts=marked, prices=prices)
    key = f"sent_index_{st.session_state.get('sent_clicks', 0)}"
    ui.show(
        fig, key, _index_alt(line, marked), selection_mode="points",
        on_select=lambda: _clicked_point(key, line, view),
    )  # fmt: skip
    thin = int((~line["enough"] & (line["n_stories"] > 0)).sum())
    grey = f" Grey ticks: not enough news (under {index.MIN_STORIES} stories)." if thin else ""
    price = " Grey line: closing price." if prices is not None and len(prices) else f" No prices for {ui.esc(ticker)}." if ticker else ""
    ui.note(f"Click a point for the stories behind it.{since}{grey}{price}")


def _from_first_news(line: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The series from its first bucket with an article on, and what that leaves out in words: no chart of empty months."""
    first = int((line["n_articles"].to_numpy() > 0).argmax())
    if first < len(line) / 10:
        return line, ""
    return line.iloc[first:].reset_index(drop=True), f" The news begins {ui.esc(ui.local(line['bucket'].iloc[first].to_pydatetime()))}."


def _marks(fired: pd.DataFrame, view: View, line: pd.DataFrame) -> pd.DataFrame:
    """The alerts that are about what is looked at: about all news, or about a topic or ticker that is filtered on."""
    sides = {"topic": view.filters.topics, "ticker": view.filters.tickers}
    if any(sides.values()):
        mine = np.array([key in sides.get(dimension, ()) for dimension, key in zip(fired["dimension"], fired["key"], strict=True)], bool)
    else:
        mine = (fired["dimension"] == "all") | (fired["severity"] == "high")
    kept = fired[mine & (fired["at"] >= line["bucket"].iloc[0])] if len(fired) else fired
    return kept.rename(columns={"title": "words"}).sort_values("at")


def _index_alt(line: pd.DataFrame, marked: pd.DataFrame) -> str:
    known = line[line["enough"]]
    if not len(known):
        return "Sentiment index: no bucket holds enough news."
    last = known.iloc[-1]
    return (
        f"Sentiment index over {len(line)} buckets, {len(known)} with enough news; the last is {ui.signed(last['index'])} "
        f"({ui.signed(last['low'])} to {ui.signed(last['high'])}) over {last['n_stories']} stories; {len(marked)} alerts."
    )


def _clicked_point(key: str, line: pd.DataFrame, view: View) -> None:
    """A click on the line: the drawer with the stories of that bucket."""
    at = clicked(st.session_state.get(key), line["bucket"])
    if at is not None:
        bucket_s = charts.SPAN[view.bucket]
        title = charts.told(pd.Series([at]), bucket_s, ui.zone())[0]
        stories.open_drawer(title, stories.around(at.to_pydatetime(), bucket_s, view.filters))


def clicked(event: Any, buckets: pd.Series) -> pd.Timestamp | None:
    """The bucket of a click on the index: the one that holds the clicked moment; None for no click, or one outside."""
    points = (event or {}).get("selection", {}).get("points", [])
    moments = [pd.to_datetime(point.get("x"), utc=True, errors="coerce") for point in points]
    for moment in moments:
        before = buckets[buckets <= moment] if not pd.isna(moment) else buckets[:0]
        if len(before):
            return before.iloc[-1]
    return None


def _topics(desk: Any, at: data.Stamp, view: View) -> None:
    """Topics against time, at most 30 days of them: more columns could not be told apart."""
    start = max(view.filters.start or view.filters.end - dt.timedelta(days=30), view.filters.end - dt.timedelta(days=30))
    filters = Filters(view.filters.topics, view.filters.tickers, view.filters.sources, start, view.filters.end)
    bucket, heat = _filled(desk, at, filters, HEAT_BY.get(view.range, ("1d",)))
    heat = heat[heat.groupby("key")["enough"].transform("any")]
    n_all = heat["key"].nunique()
    top = heat.groupby("key")["n_stories"].sum().nlargest(N_TOPICS).index
    kept = f" · the {N_TOPICS} most told of {n_all}" if n_all > N_TOPICS else ""
    ui.card("Topics", f"net score by {bucket}{' · last 30 d' if view.range in ('90 d', 'All') else ''}{kept}")
    heat = heat[heat["key"].isin(top)]
    if not len(heat):
        st.markdown("No topic has enough news in this window.")
        return
    heat = heat.assign(key=pd.Categorical(heat["key"], sorted(top, key=str.casefold), ordered=True)).sort_values(["key", "bucket"])
    key = f"sent_heat_{st.session_state.get('sent_clicks', 0)}"
    fig = charts.heat_chart(heat.astype({"key": str}), bucket=bucket, zone=ui.zone(), start=start, end=view.filters.end)
    alt = f"Net score of {len(top)} topics by {bucket}: each cell's stories are behind it."
    ui.show(fig, key, alt, selection_mode="points", on_select=lambda: _clicked_cell(key, bucket, filters, set(top)))
    ui.note("Click a cell for its stories. Blank: not enough news.")


def _filled(desk: Any, at: data.Stamp, filters: Filters, buckets: tuple[str, ...]) -> tuple[str, pd.DataFrame]:
    """The finest of these buckets in which most cells with news have enough of it for a colour, else the longest."""
    for bucket in buckets:
        heat = data.heat(desk.store, at, filters, bucket, "topic")
        if bucket == buckets[-1] or heat["enough"].mean() >= 0.7:
            break
    return bucket, heat


def _clicked_cell(key: str, bucket: str, filters: Filters, topics: set[str]) -> None:
    cell = clicked_cell(st.session_state.get(key), topics)
    if cell is not None:
        topic, at = cell
        title = f"{topic}, {charts.told(pd.Series([at]), charts.SPAN[bucket], ui.zone())[0]}"
        stories.open_drawer(title, stories.around(at.to_pydatetime(), charts.SPAN[bucket], filters, topics=(topic,)))


def clicked_cell(event: Any, keys: set[str]) -> tuple[str, pd.Timestamp] | None:
    """(key, bucket) of a click on the heat map; None for no click or one on something that is not there."""
    for point in (event or {}).get("selection", {}).get("points", []):
        told = point.get("customdata") or []
        if len(told) >= 2 and told[0] in keys:
            at = pd.to_datetime(told[1], utc=True, errors="coerce")
            if not pd.isna(at):
                return told[0], at
    return None


# ---------------------------------------------------------------- movers


def _movers(desk: Any, at: data.Stamp, view: View) -> None:
    """What changed most, each with its line of 30 days and a way to its stories."""
    days = RANGES[view.range] or 30
    row = st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute")
    with row.container(width="content"):
        ui.card("Movers", f"largest change of the index, last {days} d against the {days} d before, by size over its error")
    by = row.segmented_control(
        "Movers by", ["ticker", "topic", "source"], default="ticker", required=True, key="sent_by", bind="query-params",
        format_func=lambda name: f"{name.capitalize()}s", label_visibility="collapsed",
    )  # fmt: skip
    by = by if by in index.BY else "ticker"
    found = data.movers(desk.store, at, view.filters, by, days)
    shown = found[found["enough"]].head(N_MOVERS)
    if not len(shown):
        st.markdown(f"Nothing to compare: no {by} has {index.MIN_STORIES} stories in both windows.")
        return
    keys = shown["key"].tolist()
    reach = max((abs(v) for line in shown["spark"] for v in line if v is not None), default=1.0)
    st.dataframe(
        movers_table(shown, by), hide_index=True, row_height=34, key=f"sent_movers_{by}", alt=f"The {len(shown)} {by}s that moved most",
        column_config={
            "30 days": st.column_config.LineChartColumn("30 days", y_min=-reach, y_max=reach, color="gray"),
            "Stories": st.column_config.NumberColumn(format="localized"), "Articles": st.column_config.NumberColumn(format="localized"),
            "": st.column_config.ButtonColumn(
                "", key="sent_mover", type="tertiary", on_click=_clicked_mover, args=(keys, by, days, view.filters)
            ),
        },
    )  # fmt: skip


def movers_table(shown: pd.DataFrame, by: str) -> Any:
    """The movers as a styled table: signs with a glyph and a real minus, colour on the change only."""
    glyphs = np.where(shown["change"] > 0, "▲ ", np.where(shown["change"] < 0, "▼ ", ""))
    table = pd.DataFrame(
        {
            by.capitalize(): shown["key"].to_numpy(),
            "Index": [ui.signed(v) for v in shown["index"]],
            "Before": [ui.signed(v) for v in shown["before"]],
            "Change": [f"{glyph}{ui.signed(v)}" for glyph, v in zip(glyphs, shown["change"], strict=True)],
            "95 % interval": [f"{ui.signed(a)} to {ui.signed(b)}" for a, b in zip(shown["low"], shown["high"], strict=True)],
            "30 days": [bridged(line) for line in shown["spark"]],
            "Stories": shown["n_stories"].to_numpy(),
            "Articles": shown["n_articles"].to_numpy(),
            "": ["Open"] * len(shown),
        }
    )
    t = ui.tokens()
    return table.style.map(lambda text: f"color: {t['up'] if '▲' in text else t['down'] if '▼' in text else t['muted']}", subset=["Change"])


def bridged(line: list[float | None]) -> list[float]:
    """A line of daily means from the first day with a story on, without holes: a day without one lies between its neighbours."""
    known = pd.Series(line, dtype=float)
    return known.loc[known.first_valid_index() :].interpolate().tolist() if known.notna().any() else []


def _clicked_mover(keys: list[str], by: str, days: int, filters: Filters) -> None:
    row = st.session_state["sent_mover"]["row"]
    if 0 <= row < len(keys):
        side = {"topics": filters.topics, "tickers": filters.tickers, "sources": filters.sources, f"{by}s": (keys[row],)}
        of = Filters(**side, start=filters.end - dt.timedelta(days=days), end=filters.end)
        stories.open_drawer(f"{keys[row]}, last {days} d", of, order="negative")


# ---------------------------------------------------------------- stories


def _stories(desk: Any, at: data.Stamp, view: View) -> None:
    row = st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute")
    with row.container(width="content"):
        ui.card("Stories", "each counts once; copies count for heat")
    order = row.segmented_control(
        "Order", list(stories.ORDERS), key="sent_order", default="newest", required=True, format_func=stories.ORDERS.get,
        bind="query-params", label_visibility="collapsed",
    )  # fmt: skip
    order = order if order in stories.ORDERS else "newest"
    n_shown = N_STORIES * (1 + st.session_state.get("sent_more", 0))
    found = data.stories(desk.store, at, view.filters, n_shown + 1, order)
    stories.draw(desk, found.head(n_shown), key="list")
    if len(found) > n_shown:
        st.button("Show more", key="sent_show_more", type="tertiary", icon=":material/expand_more:", on_click=_more)


def _more() -> None:
    st.session_state["sent_more"] = st.session_state.get("sent_more", 0) + 1


if __name__ == "__main__":
    page()
