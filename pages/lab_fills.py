"""Fixed sentences with a hidden word, and what each checkpoint put there: how a model learns, read off the screen.

Draws the table of fills (fmcore.lab.monitor); the sentences are the job's own, and are taken as any other text.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore.lab.monitor import Watched
from fmcore.models.fill_mask import MASK
from pages import figures, heat, ui

OTHERS = 3
"""Further words that are named."""
COLUMNS = 7
"""Checkpoints across the film strip at most; the first and the last are always among them."""


def draw(fills: pd.DataFrame, watched: Watched) -> None:
    """The sentences at one checkpoint, and the likeliest words of all of them."""
    ui.card("Masked words", "the same sentences at every checkpoint; the stronger the tint, the surer")
    steps = sorted(fills["step"].unique().tolist())
    if not steps:
        words = "The first checkpoint fills them in." if watched.at_work else "This objective has no head that names words."
        st.markdown(words)
        return
    step = _step(steps, watched)
    first = steps[0]
    for number, sentence in enumerate(dict.fromkeys(fills["sentence"]), start=1):
        rows = fills[fills["sentence"] == sentence]
        with st.container(gap=None):
            st.markdown(f":gray[{number}]\u2002{_filled(sentence, rows[rows['step'] == step])}")
            ui.note(f"\u2003{_told(rows, step, first)}")
    if len(steps) > 1:
        st.markdown("**All checkpoints** :small[:gray[likeliest word of each sentence, by training step]]")
        fig, words = strip(fills, steps)
        ui.show(fig, f"strip-{watched.key}", words)


def _step(steps: list[int], watched: Watched) -> int:
    """The checkpoint that is looked at: the newest while a run is followed, else the slider's."""
    if len(steps) < 2:
        ui.note(f"Checkpoint at step {steps[0]:,}, the only one so far.")
        return steps[0]
    follow = watched.at_work and st.toggle("Follow the newest checkpoint", value=True, key=f"follow-{watched.key}")
    if follow:
        ui.note(f"Checkpoint at step {steps[-1]:,}, the newest of {len(steps)}.")
        return steps[-1]
    return st.select_slider("Checkpoint, training step", steps, value=steps[-1], key=f"step-{watched.key}", format_func=lambda s: f"{s:,}")


def _tops(rows: pd.DataFrame) -> pd.DataFrame:
    """The likeliest word of each mask."""
    return rows.sort_values("rank").groupby("mask", as_index=False).first()


def _filled(sentence: str, rows: pd.DataFrame) -> str:
    """The sentence as markdown, each mask filled with its likeliest word."""
    t, pieces = ui.tokens(), sentence.split(MASK)
    tops = {row.mask: row for row in _tops(rows).itertuples()} if len(rows) else {}
    said = [ui.esc(pieces[0])]
    for mask, piece in enumerate(pieces[1:], start=min(tops, default=0)):
        row = tops.get(mask)
        if row is None:
            said.append(ui.chip("no word"))
        else:
            tint = ui.rgba(t["accent"], round(0.10 + 0.38 * float(row.probability), 2))
            said.append(f':color[**{ui.esc(row.token)}**]{{background="{tint}"}}')
        said.append(ui.esc(piece))
    return " ".join(said)


def _told(rows: pd.DataFrame, step: int, first: int) -> str:
    """The words of the first mask with their probabilities, and what stood there first. Markdown."""
    mask = rows["mask"].min()
    at = rows[(rows["mask"] == mask) & (rows["step"] == step)].sort_values("rank").head(OTHERS + 1)
    listed = ", ".join(f"{ui.esc(row.token)} {figures.probability(row.probability)}" for row in at.itertuples())
    before = rows[(rows["mask"] == mask) & (rows["step"] == first)].sort_values("rank").head(1)
    if step == first or not len(before):
        return listed
    return f"{listed} · at step {first:,}: {ui.esc(before['token'].iloc[0])} {figures.probability(before['probability'].iloc[0])}"


def strip(fills: pd.DataFrame, steps: list[int]) -> tuple[go.Figure, str]:
    """(figure, in words): sentences down by their number, checkpoints across, the likeliest word of the first mask on each cell."""
    shown = [steps[i] for i in sorted(set(np.linspace(0, len(steps) - 1, min(COLUMNS, len(steps))).round().astype(int).tolist()))]
    sentences = list(dict.fromkeys(fills["sentence"]))
    first = fills[(fills["mask"] == fills["mask"].min())].sort_values("rank").groupby(["sentence", "step"], as_index=False).first()
    cells = {(row.sentence, row.step): row for row in first.itertuples()}
    rows = [[cells.get((sentence, step)) for step in shown] for sentence in sentences]
    z = [[None if cell is None else 100 * float(cell.probability) for cell in line] for line in rows]
    text = [["" if cell is None else figures.chart_text(ui.short(cell.token, 14)) for cell in line] for line in rows]
    told = [["" if cell is None else f"{figures.chart_text(cell.token)}: {100 * cell.probability:.1f} %" for cell in line] for line in rows]
    fig = go.Figure()
    heat.add(fig, x=list(range(len(shown))), z=z, text=text, top=100, told=told)
    ui.desk(fig, 30 * len(sentences) + 44, hovermode="closest", showlegend=False)
    fig.update_xaxes(side="top", ticks="", tickvals=list(range(len(shown))), ticktext=[f"{step:,}" for step in shown])
    places = list(range(len(sentences)))
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=places, ticktext=[str(i + 1) for i in places], nticks=len(places) + 1)
    ends = "; ".join(f"sentence {i + 1}: {line[0]} to {line[-1]}" for i, line in enumerate(text) if line[0] or line[-1])
    return fig, f"Likeliest words from step {shown[0]:,} to step {shown[-1]:,}. {ends}."
