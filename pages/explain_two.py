"""Two models: one text explained by both, word by word, and the test rows on which they do not say the same. A view of the Explain page.

Draws what fmcore.explain.asking and comparing find. A text lives in this session only: never in the address, a cache or the log.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore.explain import comparing, telling
from fmcore.explain.asking import NET, Question
from fmcore.nouns import Explanation, FMError, Prediction
from fmcore.tasks import SENTIMENTS
from fmcore.text import MAX_CHARS, clean
from pages import figures, ui, why

CHANGES = {
    "fixed": ("Fixed", "green", ":material/check_circle:", "wrong before, right now"),
    "broken": ("Broken", "red", ":material/cancel:", "right before, wrong now"),
    "changed": ("Changed", "gray", ":material/swap_horiz:", "wrong both times"),
}
"""change from the first version to the second -> word, badge colour, icon, what it means."""
COLUMNS = {"True label": "label", "First": "first", "Second": "second"}
PARTS = ("explanation", "trust")
N_BARS = 14
VISIBLE = 0.0005
"""A difference below this rounds to ±0.0 points, and has no bar."""
AT_ONCE = 200


def draw(desk: Any, task: str, version: str) -> None:
    """The second version, one text under both, and the test rows that changed."""
    others = [v.version for v in desk.registry.versions(task) if v.version != version]
    if not others:
        todo = "Two are needed: train another on the Training page; it need not go live."
        with ui.empty("There is only one version", todo, icon=":material/difference:"):
            st.page_link("training.py", label="Open Training", icon=":material/play_arrow:")
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"{ui.chip('First', 'blue')} {ui.esc(version)}", width="content")
        st.markdown(ui.chip("Second", "blue"), width="content")
        picked = st.selectbox("Second version", others, key="explain_other", bind="query-params", label_visibility="collapsed", width=300)
    other = picked if picked in others else others[0]
    _ask_card()
    text = st.session_state.get("explain_asked", "")
    if text:
        with ui.guarded():
            _one_text(desk, task, text, (version, other))
    _test_rows(desk, task, version, other)


# ---------------------------------------------------------------- one text


def _ask_card() -> None:
    """The text; what was asked on another view of the page stands in it already."""
    if "explain_two_text" not in st.session_state:
        st.session_state["explain_two_text"] = st.session_state.get("explain_asked", "")
    with st.container(border=True), st.form("explain_two_form", border=False):
        st.text_area("Text", key="explain_two_text", height=80, placeholder="Type a text, or take a test row from the list below")
        st.form_submit_button("Explain with both", type="primary", icon=":material/difference:", on_click=_asked)


def _asked() -> None:
    load(st.session_state.get("explain_two_text", ""))


def load(raw: str) -> None:
    """Put a text before both versions, and on the page's other views, at the next run; called in a click's callback."""
    cleaned, cut = clean(raw)
    text = cleaned.strip()
    st.session_state.update(explain_asked=text, explain_text=text, explain_two_text=text, explain_two_cut=cut)


def _one_text(desk: Any, task: str, text: str, versions: tuple[str, str]) -> None:
    """Both explanations of the same score, and what differs between them."""
    if st.session_state.get("explain_two_cut"):
        st.warning(f"The text was longer than {MAX_CHARS:,} characters; its beginning is explained.", icon=":material/content_cut:")
    try:
        with st.spinner("Asking both versions"):
            said = [desk.engine.predict(task, [text], version=version)[0] for version in versions]
    except FMError as error:
        ui.refusal(error)
        return
    target = _target(_shared(desk, task, versions), said)
    if target is None:
        ui.note("The answers are labels that only one of the two knows: each explains its own, and they cannot be set against each other.")
    found = []
    for cell, version, prediction in zip(ui.split(1, 1), versions, said, strict=True):
        with cell:
            ui.card(ui.esc(version), ui.esc(f"says {figures.label(prediction.label)}"))
            found.append(_explained(desk, Question(task, text, version=version, target=target, parts=PARTS)))
    if target is not None and all(found):
        with st.container(border=True):
            ui.card("What differs, word by word", f"second less first, in points of the score of {ui.esc(named(target))}")
            _word_by_word(*(answer.explanation for answer in found))


def _explained(desk: Any, question: Question) -> Any:
    """One side, drawn by the component's own parts; its answer, or None while there is none."""
    key = f"two-{question.version}"
    answer = why.answered(desk, question, key=key)
    if answer is not None:
        why.sentence(answer)
        why.chips(desk, answer)
        why.words(answer.explanation, question.text, key=key)
        why.facts(answer)
    return answer


def _shared(desk: Any, task: str, versions: tuple[str, str]) -> set[str]:
    """The labels that both versions know."""
    first, second = (set(desk.registry.labels(desk.registry.get(task, version))) for version in versions)
    return first & second


def _target(shared: set[str], said: list[Prediction]) -> str | None:
    """The one score that both explain: a difference of two different scores would say nothing. Asked for where there is a choice, None
    where there is no such score."""
    labels = [prediction.label for prediction in said if prediction.label in shared]
    choices = list(dict.fromkeys([*([NET] if shared == set(SENTIMENTS) else []), *labels]))
    if len(choices) < 2:
        return next(iter(choices), None)
    picked = st.segmented_control(
        "Explain the score of", choices, default=choices[0], required=True, key="explain_two_target", format_func=named
    )
    return picked if picked in choices else choices[0]


def named(target: str) -> str:
    """A score in words."""
    return "net sentiment" if target == NET else figures.label(target)


def _word_by_word(first: Explanation, second: Explanation) -> None:
    """Their difference in a sentence, as bars, and in numbers."""
    st.markdown(ui.esc(telling.compared(first, second)))
    if first.tokens != second.tokens:
        st.markdown("The two versions were asked about different pieces of this text, so their words cannot be set against each other.")
        return
    table = differences(first, second)
    differ = table[table["difference"].abs() >= VISIBLE]
    strongest = differ.loc[differ["difference"].abs().nlargest(N_BARS).index].sort_index()
    if len(strongest):
        told = "; ".join(f"{r.word} {figures.signed_points(r.difference)}" for r in strongest.itertuples(index=False))
        ui.show(differences_chart(strongest), "explain_two_words", f"Second version's values less the first's: {told}.")
    if 0 < len(strongest) < len(table):
        ui.note(f"The {len(strongest)} of {len(table)} that differ most, in the text's order; the rest differ less.")
    with st.expander("All words in numbers", icon=":material/table_rows:"):
        of = ("first", "second", "difference")
        shown = table.assign(**{name: 100 * table[name] for name in of})
        numbers = {name: st.column_config.NumberColumn(f"{name.capitalize()}, points", format="%+.2f") for name in of}
        st.dataframe(shown, hide_index=True, row_height=34, column_config={"word": "Word", **numbers}, alt="Both versions' values by word")


def differences(first: Explanation, second: Explanation) -> pd.DataFrame:
    """Columns word, first, second, difference (second less first), in the text's order; the row without words comes last."""
    rows = [*zip(first.tokens, first.values, second.values, strict=True), ("(no word)", first.base_value, second.base_value)]
    frame = pd.DataFrame(rows, columns=["word", "first", "second"])
    return frame.assign(difference=frame["second"] - frame["first"])


def differences_chart(table: pd.DataFrame) -> go.Figure:
    """Bars from zero: what a word says more (▲) or less (▼) for the score in the second version than in the first."""
    t = ui.tokens()
    at = [str(i) for i in range(len(table))]
    gap, *both = (100 * table[name].to_numpy(dtype=float) for name in ("difference", "first", "second"))
    glyphs = ["▲" if v > 0 else "▼" for v in gap]
    fig = go.Figure(
        go.Bar(
            y=at, x=gap, orientation="h", width=0.6, marker={"color": [t["up"] if v > 0 else t["down"] for v in gap], "line_width": 0},
            text=[f"{glyph} {ui.signed(v, 1)}" for glyph, v in zip(glyphs, gap, strict=True)], textposition="outside", cliponaxis=False,
            textfont={"size": 12}, customdata=np.column_stack(both),
            hovertemplate="first %{customdata[0]:+.1f}, second %{customdata[1]:+.1f}: <b>%{x:+.1f}</b> points<extra></extra>",
        )
    )  # fmt: skip
    ui.desk(fig, 28 * len(table) + 44, hovermode="closest")
    reach = 1.3 * float(np.abs(np.r_[gap, 0.1]).max())
    sides = ["▼ less in the second", "more in the second ▲"]
    fig.update_xaxes(range=[-reach, reach], tickvals=[-reach * 0.6, reach * 0.6], ticktext=sides, ticks="")
    names = [figures.chart_text(word) for word in table["word"]]
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=at, ticktext=names, nticks=len(at) + 1)
    return fig.add_vline(x=0, line={"color": ui.NEUTRAL, "width": 1})


# ---------------------------------------------------------------- the test rows


def _test_rows(desk: Any, task: str, first: str, second: str) -> None:
    """What the second version says otherwise on the held-out rows: counts, slices, and the rows themselves."""
    key = (task, first, second)
    done = st.session_state.get("explain_two_rows")
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(width="content"):
                ui.card("What changed between them on the test rows", "held-out rows of the first version")
            place = st.empty()
        if done is not None and done["key"] != key:
            done = None
        if done is None and st.session_state.get("explain_two_wish") == key:
            done = _compared(desk, key)
        if done is None or done["error"] is not None:
            place.button("Compare on the test rows", key="explain_two_compare", icon=":material/play_arrow:", on_click=_wish, args=(key,))
        if done is None:
            st.markdown("Both versions' answers to the rows that the first was measured on: what the second set right, broke, or changed.")
            return
        if done["error"] is not None:
            ui.refusal(done["error"])
            return
        _counts(done["found"])
    _by_slice(done["found"])
    _rows(done["found"])


def _wish(key: tuple[str, str, str]) -> None:
    """Remember that it was asked for: an explanation that is done at this moment draws the page anew, and a click would be lost."""
    st.session_state["explain_two_wish"] = key
    if (st.session_state.get("explain_two_rows") or {"error": None})["error"] is not None:
        del st.session_state["explain_two_rows"]


def _compared(desk: Any, key: tuple[str, str, str]) -> dict[str, Any]:
    """The comparison, kept in the session for these two versions; a refusal is kept in its words."""
    found = error = None
    try:
        with st.spinner("Comparing their answers to the held-out rows", show_time=True):
            found = comparing.flipped(desk.engine, *key)
    except FMError as refusal:
        error = refusal
    st.session_state["explain_two_rows"] = {"key": key, "found": found, "error": error}
    return st.session_state["explain_two_rows"]


def _counts(found: Any) -> None:
    n = found.rows["change"].value_counts()
    n_same = found.n - len(found.rows)
    with st.grid(4, min_column_width=190, gap="small"):
        ui.kpi("Same answer", f"{n_same:,}", words=figures.points(n_same / found.n if found.n else 0.0), vs=f"of {found.n:,} rows")
        for change, (word, color, icon, meaning) in CHANGES.items():
            share = figures.points(n.get(change, 0) / found.n if found.n else 0.0)
            ui.kpi(f":{color}[{icon}] {word}", f"{n.get(change, 0):,}", words=share, vs=meaning)
    if found.note:
        ui.note(ui.esc(found.note))


def _by_slice(found: Any) -> None:
    """Where the second version gained and where it lost."""
    if not found.slices[["n_fixed", "n_broken"]].to_numpy().any():
        return
    with st.container(border=True), ui.guarded():
        ways = list(dict.fromkeys(found.slices["by"]))
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(width="content"):
                ui.card("By slice", "rows fixed, to the right, and broken, to the left, of zero")
            by = st.segmented_control(
                "Slice by", ways, key="explain_two_by", default=ways[0], required=True, format_func=str.capitalize,
                label_visibility="collapsed",
            )  # fmt: skip
        rows = found.slices[found.slices["by"] == (by if by in ways else ways[0])].head(AT_ONCE)
        told = "; ".join(f"{r.slice}: {r.n_fixed} fixed, {r.n_broken} broken of {r.n}" for r in rows.itertuples(index=False))
        ui.show(slices_chart(rows.head(20)), "explain_two_slices", f"Rows fixed and broken by slice: {told}.")
        with st.expander("In numbers", icon=":material/table_rows:"):
            columns = {"slice": "Slice", "n": "Rows", "n_fixed": "Fixed", "n_broken": "Broken", "net": "Net"}
            shown = rows.assign(net=rows["n_fixed"] - rows["n_broken"])[list(columns)]
            st.dataframe(shown, hide_index=True, row_height=34, column_config=columns, alt="Rows fixed and broken by slice")


def slices_chart(rows: pd.DataFrame) -> go.Figure:
    """Broken to the left, fixed to the right: teal and vermilion, each with its number and its side."""
    t = ui.tokens()
    at = [str(i) for i in range(len(rows))]
    fig = go.Figure()
    for name, sign, color, mark in (("n_broken", -1, t["down"], "✕"), ("n_fixed", 1, t["up"], "✓")):
        values = rows[name].to_numpy()
        fig.add_bar(
            y=at, x=sign * values, orientation="h", width=0.6, marker={"color": color, "line_width": 0}, cliponaxis=False,
            text=[f"{mark} {v:,}" if v else "" for v in values], textposition="outside", textfont={"size": 12}, customdata=values,
            hovertemplate=f"{name[2:]}: <b>%{{customdata:,}}</b> rows<extra></extra>",
        )  # fmt: skip
    ui.desk(fig, 28 * len(rows) + 44, hovermode="closest", showlegend=False, barmode="overlay")
    reach = 1.3 * max(1, int(rows[["n_fixed", "n_broken"]].to_numpy().max(initial=1)))
    fig.update_xaxes(range=[-reach, reach], tickvals=[-reach * 0.6, reach * 0.6], ticktext=["✕ broken", "fixed ✓"], ticks="")
    names = [f"{figures.chart_text(figures.label(str(r.slice)))} · n {r.n:,}" for r in rows.itertuples(index=False)]
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=at, ticktext=names, nticks=len(at) + 1)
    return fig.add_vline(x=0, line={"color": ui.NEUTRAL, "width": 1})


def _rows(found: Any) -> None:
    """The rows themselves; one can be taken up into the two explanations."""
    with st.container(border=True), ui.guarded():
        n = found.rows["change"].value_counts()
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(width="content"):
                ui.card("Rows whose answer changed", f"{len(found.rows):,} of {found.n:,}")
            shown = st.segmented_control(
                "Show", ["all", *CHANGES], key="explain_two_show", default="all", required=True, label_visibility="collapsed",
                format_func=lambda change: f"{CHANGES[change][0]} {n.get(change, 0):,}" if change in CHANGES else "All",
            )  # fmt: skip
        rows = found.rows if shown not in CHANGES else found.rows[found.rows["change"] == shown]
        if not len(rows):
            st.markdown("No row's answer changed." if shown not in CHANGES else f"No row was {CHANGES[shown][0].lower()}.")
            return
        rows = rows.head(AT_ONCE)
        table = pd.DataFrame(
            {
                "": ["Why?"] * len(rows),
                "Change": [[CHANGES[change][0]] for change in rows["change"]],
                "Text": rows["text"].to_numpy(),
                **{title: [figures.answer(v) for v in rows[name]] for title, name in COLUMNS.items()},
            }
        )
        words, colors = [c[0] for c in CHANGES.values()], [c[1] for c in CHANGES.values()]
        st.dataframe(
            table, hide_index=True, row_height=34, key="explain_two_table", alt=f"{len(rows)} rows whose answer changed",
            column_config={
                "Change": st.column_config.MultiselectColumn(options=words, color=colors, width="small"),
                "Text": st.column_config.TextColumn(width="large"),
                "": st.column_config.ButtonColumn(
                    "", key="explain_two_row", type="tertiary", on_click=_picked, args=(rows["text"].tolist(),), width="small"
                ),
            },
        )  # fmt: skip
        if len(found.rows) > AT_ONCE:
            ui.note(f"The first {AT_ONCE} are listed here.")
        ui.download("All as CSV", found.rows, "changed.csv", key="explain_two_csv", type="tertiary")


def _picked(texts: list[str]) -> None:
    row = st.session_state["explain_two_row"]["row"]
    if 0 <= row < len(texts):
        load(texts[row])
        st.toast("Explained with both, above.", icon=":material/difference:")
