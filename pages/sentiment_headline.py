"""The headline of the Sentiment page: net sentiment, articles, negative stories, alerts; each with its sparkline, n, and against what."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import streamlit as st

from fmcore.sentiment import index
from pages import sentiment_data as data
from pages import ui


def draw(desk: Any, at: data.Stamp, view: Any, now: index.Overall, before: index.Overall | None, line: pd.DataFrame) -> None:
    """Four figures over the window that is looked at, each against the window before it."""
    against = f"vs {view.range} before" if before else "over all time"
    with st.grid(4, min_column_width=215, gap="small"):
        points = line.loc[line["enough"], "index"]
        ui.kpi(
            "Net sentiment, −1 to +1", "not enough news" if now.index is None else ui.signed(now.index), now.change,
            words="" if now.change is not None else "nothing before", vs=_versus(now.change, against, f"n = {now.n_stories:,}"),
            chart_data=points.tail(60).tolist() if len(points) > 1 else None,
            help=_interval(now), icon=":material/mood:",
        )  # fmt: skip
        _counted("Articles", now.n_articles, before.n_articles if before else None, against, line["n_articles"], ":material/article:",
                 extra=f"{now.n_stories:,} stories")  # fmt: skip
        _share(now, before, against, line)
        _alerts_kpi(desk, at, view)


def _versus(change: float | None, against: str, n: str) -> str:
    """What a figure is compared with, and over how many; the latter alone where there is nothing to compare with."""
    return n if change is None else f"{against} · {n}"


def _interval(now: index.Overall) -> str | None:
    if now.index is None:
        return f"{now.n_stories} stories; from {index.MIN_STORIES} on there is a figure."
    return f"95 % bootstrap interval {ui.signed(now.low)} to {ui.signed(now.high)}, over {now.n_stories:,} stories."


def _counted(label: str, n: int, n_before: int | None, against: str, counts: pd.Series, icon: str, *, extra: str) -> None:
    change = None if not n_before else (n - n_before) / n_before
    words = "" if change is None else f"{'+' if change > 0 else '−' if change < 0 else '±'}{abs(100 * change):.0f} %"
    ui.kpi(
        label, f"{n:,}", change, words=words or "nothing before", vs=_versus(change, against, extra), good="none", icon=icon,
        chart_data=counts.tail(40).tolist(), chart_type="bar",
    )  # fmt: skip


def _share(now: index.Overall, before: index.Overall | None, against: str, line: pd.DataFrame) -> None:
    """Negative stories, and their share against the share before: a busy week alone is no bad week."""
    share = now.n_negative / now.n_stories if now.n_stories else 0.0
    change = share - before.n_negative / before.n_stories if before and before.n_stories else None
    words = "nothing before" if change is None else f"{ui.signed(100 * change, 1)} points"
    ui.kpi(
        "Negative stories", f"{now.n_negative:,} · {share:.0%}", change, words=words, good="down", vs=against if change is not None else "",
        chart_data=line["n_negative"].tail(40).tolist(), chart_type="bar", icon=":material/thumb_down:",
    )  # fmt: skip


def _alerts_kpi(desk: Any, at: data.Stamp, view: Any) -> None:
    fired = data.fired(desk.store, at, view.filters.end - dt.timedelta(days=30))
    n_open = int((fired["state"] != "resolved").sum())
    n_high = int(((fired["state"] != "resolved") & (fired["severity"] == "high")).sum())
    days = pd.date_range(view.filters.end.date() - dt.timedelta(days=29), periods=30, freq="D")
    daily = fired["at"].dt.tz_convert("UTC").dt.tz_localize(None).dt.normalize().value_counts() if len(fired) else pd.Series(dtype=int)
    ui.kpi(
        "Alerts firing", f"{n_open:,}", words=f"{n_high} high", vs=f"all news · {len(fired):,} in 30 d", icon=":material/notifications:",
        chart_data=daily.reindex(days, fill_value=0).tolist(), chart_type="bar",
    )  # fmt: skip
