"""The only shared drawing code: colours, the chart template, safe text, cards, states, downloads.

Owns how things look and how a refusal reads. Never touches the store, never computes a figure, never draws raw HTML.
The visual language and its measurements are in docs/architecture.md, "The look".
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import re
import zoneinfo
from collections.abc import Iterator
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from streamlit.errors import FragmentHandledException, StreamlitSecretNotFoundError

from fmcore import clock, text
from fmcore.nouns import FMError

log = logging.getLogger("fm.pages")

HEIGHT = {"strip": 84, "small": 176, "medium": 264, "large": 380}

TOKENS: dict[str, dict[str, Any]] = {
    "light": {
        "bg": "#FFFFFF", "panel": "#F3F5F8", "ink": "#1B2430", "muted": "#566072",
        "up": "#0F766E", "down": "#C2410C", "flat": "#8A94A3", "total": "#4A5568", "accent": "#3454D1", "alert": "#8E2A86",
        "cat": ["#3454D1", "#C08A00", "#2A9FD0", "#7B1E5A", "#D9679B"],
        "seq": ["#F0F3FD", "#C3CFF5", "#869BE8", "#4C67D7", "#2843A8", "#1D317C"],
        "signed": ["#8A2F09", "#C2410C", "#DE7A4C", "#EFB08F", "#F8DFD2", "#F1F3F6", "#D7ECE9", "#9FD1CB", "#5BADA4", "#0F766E", "#0A524C"],
        "severity": {"high": "#C2410C", "medium": "#EBA56F", "low": "#C9D0DA"},
    },
    "dark": {
        "bg": "#0E1116", "panel": "#191E26", "ink": "#E6E9EE", "muted": "#9AA4B2",
        "up": "#35C7B4", "down": "#FF8A5C", "flat": "#6B7686", "total": "#C3CAD5", "accent": "#7C9BFF", "alert": "#E08AD8",
        "cat": ["#7C9BFF", "#E0B341", "#5CCBF2", "#C95FA4", "#F5B5D3"],
        "seq": ["#161C2B", "#24345F", "#38549F", "#5B7DDB", "#A5B9FF", "#D3DCFF"],
        "signed": ["#FFB394", "#FF8A5C", "#C9663F", "#8A452A", "#46291D", "#1A1F27", "#17332F", "#1F5A53", "#268C80", "#35C7B4", "#8CE6DA"],
        "severity": {"high": "#FF8A5C", "medium": "#9A5634", "low": "#3E4856"},
    },
}  # fmt: skip

FONT = '"Source Sans", "Source Sans 3", "Segoe UI", system-ui, sans-serif'
NEUTRAL, GRID = "rgba(128,138,152,.45)", "rgba(128,138,152,.17)"
"""Zero lines and grid: grey that reads on both themes, so it is never stale after a switch."""


# ---------------------------------------------------------------- charts


def mode() -> str:
    """The reader's theme."""
    return "dark" if st.context.theme.type == "dark" else "light"


def tokens() -> dict[str, Any]:
    """Colours of the reader's theme. up, down and signedscale are for signs only, alert for alerts; cat is for categories, at most five."""
    t = dict(TOKENS[mode()])
    for name in ("seq", "signed"):
        t[f"{name}scale"] = [[i / (len(t[name]) - 1), color] for i, color in enumerate(t[name])]
    return t


def rgba(hex_color: str, alpha: float) -> str:
    """A token with transparency, as Plotly reads it."""
    h = hex_color.lstrip("#")
    return f"rgba({int(h[:2], 16)},{int(h[2:4], 16)},{int(h[4:], 16)},{alpha})"


def _template(t: dict[str, Any]) -> go.layout.Template:
    """Backgrounds and hover colours are left out on purpose: theme="streamlit" paints them in the browser, so they are
    right even when the reader switches theme and no script run follows."""
    title = {"font": {"size": 12}, "standoff": 8}
    axis = {"zeroline": False, "showline": False, "automargin": True, "tickfont": {"size": 12}, "title": title}
    x = {**axis, "showgrid": False, "ticks": "outside", "ticklen": 4, "tickcolor": NEUTRAL}
    y = {**axis, "showgrid": True, "nticks": 5}
    colors = {"colorway": t["cat"], "colorscale": {"sequential": t["seqscale"]}}
    return go.layout.Template(layout={**colors, "separators": ". ", "xaxis": x, "yaxis": y})


def desk(fig: go.Figure, height: str | int = "medium", **layout: Any) -> go.Figure:
    """Give a figure the house look: template, height, margins, unified hover, quiet axes. `layout` has the last word."""
    t = tokens()
    fig.update_layout(
        template=_template(t), height=HEIGHT.get(height, height), font={"family": FONT, "size": 13, "color": t["muted"]},
        margin={"l": 8, "r": 8, "t": 8, "b": 8, "pad": 4}, hovermode="x unified", dragmode=False, bargap=0.35,
        hoverlabel={"font": {"family": FONT, "size": 13}, "align": "left"},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
    )  # fmt: skip
    # Said again on the axes: theme="streamlit" overrides the template, not the figure, and its own tick grey is 3.7:1.
    small = {"size": 12, "color": t["muted"]}
    fig.update_xaxes(
        showgrid=False, zeroline=False, showline=False, ticks="outside", ticklen=4, tickcolor=NEUTRAL, gridcolor=GRID, tickfont=small,
        title_font=small, spikecolor=NEUTRAL, spikethickness=1, spikedash="solid", spikemode="across",
    )  # fmt: skip
    fig.update_yaxes(zeroline=False, showline=False, ticks="", automargin=True, gridcolor=GRID, tickfont=small, title_font=small)
    return fig.update_layout(**layout) if layout else fig


def show(fig: go.Figure, key: str, alt: str, **kw: Any) -> Any:
    """Draw a figure. `alt` says in words what it shows, for readers who do not see it."""
    config = {"displayModeBar": False, "scrollZoom": False, "doubleClick": "reset"}
    return st.plotly_chart(fig, key=key, alt=alt, theme="streamlit", width="stretch", config=config, **kw)


def bars(labels: list[str], values: list[float], *, unit: str, color: str = "", row_px: int = 24) -> go.Figure:
    """Horizontal bars, first label on top, each with its number. Labels are taken as literal text."""
    t = tokens()
    rows = [str(i) for i in range(len(labels))]
    literal = [label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for label in labels]
    fig = go.Figure(
        go.Bar(
            y=rows, x=values, orientation="h", width=0.62, marker={"color": color or t["accent"], "line_width": 0},
            text=[f"{v:,.0f}" for v in values], textposition="outside", textfont={"size": 12}, cliponaxis=False, customdata=literal,
            hovertemplate=f"%{{customdata}}: <b>%{{x:,.0f}}</b> {unit}<extra></extra>",
        )
    )  # fmt: skip
    desk(fig, row_px * len(labels) + 44, hovermode="closest")
    fig.update_xaxes(range=[0, max(values, default=1) * 1.14 or 1], nticks=5)
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=rows, ticktext=literal, nticks=len(rows) + 1)
    return fig


# ---------------------------------------------------------------- text

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&^=@/])")
# URLs, e-mails and arrows are rewritten after the escapes are read: a word joiner (zero width) keeps them plain.
_AUTOMATIC = re.compile(r"(?i)\b(?:https?|ftp)(?=:)|\bwww(?=\.)|(?<=\w)(?=@)|(?<=-)(?=[->])|(?<=<)(?=[-=])|(?<=[>~])(?==)")


def esc(value: object) -> str:
    """Any text as literal Streamlit markdown on one line: directives, links, LaTeX, html, arrows and icon codes stay inert."""
    plain = " ".join(text.clean(value)[0].split())
    return _MARKDOWN.sub(r"\\\1", _AUTOMATIC.sub(lambda m: m.group(0) + "\u2060", plain))


def short(value: object, limit: int = 160) -> str:
    """The start of a text, cut at a word, for places with one line. Not escaped."""
    plain = " ".join(text.clean(value)[0].split())
    return plain if len(plain) <= limit else plain[:limit].rsplit(" ", 1)[0] + " …"


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, and a real minus; what rounds to nothing reads ±0."""
    shown = round(value, digits)
    return f"{'+' if shown > 0 else '−' if shown < 0 else '±'}{abs(shown):.{digits}f}"


def link(url: object) -> str:
    """A link as markdown, its host shown; "" for anything but http and https. Nothing in the address can end the link early."""
    found = text.web_address(url)
    return f"[{esc(found[1])}]({found[0]})" if found else ""


def note(words: str) -> None:
    """A quiet line under something. `words` is markdown: escape what comes from outside."""
    st.markdown(f":small[:gray[{words}]]")


def fresh(moment: dt.datetime | None) -> str:
    """A moment for a note: "4 min ago (20:31 UTC)", with the day when it was not today; "never" for None."""
    if moment is None:
        return "never"
    day = "" if moment.date() == clock.now().date() else f"{moment.day} {moment:%b} "
    return f"{clock.ago(moment)} ({day}{moment:%H:%M} UTC)"


def zone() -> dt.tzinfo:
    """The viewer's time zone, UTC where the browser did not say or named none that we know."""
    try:
        return zoneinfo.ZoneInfo(st.context.timezone or "UTC")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return dt.UTC


def local(moment: dt.datetime, *, day: bool = True) -> str:
    """A moment in the viewer's zone: "23 Nov 14:05"; the time alone with day=False."""
    there = moment.astimezone(zone())
    return f"{there.day} {there:%b %H:%M}" if day else f"{there:%H:%M}"


def chip(words: str, color: str = "gray", icon: str = "") -> str:
    """A badge as markdown; the words are escaped."""
    return f":{color}-badge[{icon + ' ' if icon else ''}{esc(words)}]"


def synthetic_mark() -> str:
    """The mark that stands wherever data written for this demo, or a model trained on it, is shown."""
    return chip("Demo data", "violet", ":material/science:")


SEVERITY = {
    "high": ("High", "red", ":material/priority_high:"),
    "medium": ("Medium", "orange", ":material/warning:"),
    "low": ("Low", "gray", ":material/info:"),
}
"""severity -> word, badge colour, icon."""

SIGNS = {"negative": ("▼", "red"), "neutral": ("●", "gray"), "positive": ("▲", "green")}
"""sentiment label -> glyph, badge colour: a sign is never told by colour alone."""


def score_chip(label: str, net: float) -> str:
    """A sentiment with its net score in [-1, 1] as a badge: "▼ Negative −0.82"."""
    glyph, color = SIGNS.get(label, SIGNS["neutral"])
    return chip(f"{glyph} {label.capitalize()} {signed(net)}", color)


def sign_of(net: float, *, even: float = 0.05) -> str:
    """The sentiment label that a net score leans to; "neutral" within `even` of zero."""
    return "positive" if net >= even else "negative" if net <= -even else "neutral"


# ---------------------------------------------------------------- layout


def header(title: str, sub: str = "") -> Any:
    """Page title left, toolbar right; returns the toolbar. One row at 1440 px, two at 800. `sub` is markdown."""
    row = st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute", gap="small")
    with row.container(width="content", gap=None):
        st.title(title, anchor=False)
        if sub:
            note(sub)
    return row.container(horizontal=True, vertical_alignment="center", width="content", gap="small")


def card(title: str, words: str = "", chips: str = "") -> None:
    """Card heading: a real h2 with chips and a quiet note on the same line. `words` and `chips` are markdown."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.header(title, anchor=False, width="content")
        if chips:
            st.markdown(chips, width="content")
        if words:
            st.markdown(f":small[:gray[{words}]]", width="content")


def kpi(
    label: str, value: str, change: float | None = None, *, digits: int = 2, words: str = "", vs: str = "", good: str = "up", **kw: Any
) -> None:
    """One figure with its change and what it is compared with. good: "up", "down" or "none" (no judgement, grey).

    Arrow and colour are always ours: st.metric reads a real minus as a rise and "0%" as a gain.
    """
    frame = {"delta_description": vs or None, "border": True, "height": "stretch", **kw}
    if change is None:
        st.metric(label, value, words or None, delta_color="off", delta_arrow="off", **frame)
        return
    change = round(change, digits)  # what is shown as no change has no direction
    color = "gray" if good == "none" or change == 0 else ("green" if (change > 0) == (good == "up") else "red")
    arrow = "up" if change > 0 else "down" if change < 0 else "off"
    st.metric(label, value, words or signed(change, digits), delta_color=color, delta_arrow=arrow, **frame)


def split(left: int = 2, right: int = 1, border: bool = True) -> tuple[Any, Any]:
    """Two cards side by side, 2:1, 1:2 or 1:1, of one height, that stack on a narrow page. The cells are the cards.

    st.columns stacks only below 640 px of window; with the sidebar open, 800 px leaves two crushed cards.
    """
    n = left + right
    grid = st.grid(n, min_column_width=290 if n == 3 else 400, gap="small", border=border)
    return grid.cell(column_span=left), grid.cell(column_span=right)


# ---------------------------------------------------------------- states


def empty(title: str, words: str = "", *, icon: str = ":material/inbox:", height: int = 220) -> Any:
    """Nothing to show yet, and what to do about it. Returns the place for one button. Both texts are plain."""
    with st.container(border=True, height=height, horizontal_alignment="center", vertical_alignment="center", gap="small"):
        st.markdown(f":gray[{icon}]", width="content")
        st.markdown(f"**{esc(title)}**", width="content")
        if words:
            st.markdown(f":small[:gray[{esc(words)}]]", width="content")
        return st.container(horizontal=True, horizontal_alignment="center", width="content")


def refusal(error: FMError) -> None:
    """A refusal in its two sentences: what is, and what to do."""
    st.error(f"**{esc(error.message)}** {esc(error.hint)}".strip(), icon=":material/error:")


def failure(error: BaseException) -> None:
    """What a person reads when something broke: a refusal's own words, else one sentence; the traceback goes to the log."""
    if isinstance(error, FMError):
        refusal(error)
        return
    log.error("a page failed", exc_info=error)
    st.error(
        "**This part of the page could not be drawn.** The reason is in logs/desk.log; nothing stored is lost. Reload to try again.",
        icon=":material/error:",
    )


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Turn any failure inside into words on the page. Streamlit's own control flow (stop, rerun) passes through."""
    try:
        yield
    except FragmentHandledException:  # drawn already, where the fragment stands
        raise
    except Exception as error:  # noqa: BLE001  the page's last line: whatever broke, a person reads a sentence
        failure(error)


def no_server() -> None:
    """The page is drawn, but no desk runs behind it."""
    header("FM Desk is not running", "Pages are drawn, but nothing answers behind them")
    empty(
        "No desk behind this page",
        "Start it with make run, or with: .venv/bin/streamlit run app.py. It tells its address; open that one.",
        icon=":material/power_off:",
    )


def who() -> str:
    """Who is asking, for the record of promotions and runs: the signed-in address, else "local user"."""
    if st.user.get("is_logged_in"):
        return str(st.user.get("email") or st.user.get("name") or "a signed-in person")
    return "local user"


def download(label: str, frame: pd.DataFrame, file_name: str, *, key: str, **kw: Any) -> None:
    """A CSV download that no spreadsheet runs as a formula; the file is made only when asked for."""
    from fmcore.data import uploads

    st.download_button(
        label, lambda: uploads.to_csv(frame), file_name, "text/csv", key=key, on_click="ignore", icon=":material/download:", **kw
    )


def sign_in_is_configured() -> bool:
    """Whether people must sign in: there is an [auth] section in .streamlit/secrets.toml (see st.login)."""
    try:
        return "auth" in st.secrets
    except StreamlitSecretNotFoundError:
        return False
