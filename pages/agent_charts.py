"""Figures of a contest of agents: what each earned a visit, how it learnt, and what logged rows say of it.

Draws the frames of a stored contest; computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fmcore.recommend.agents import AGENTS, BASELINES
from fmcore.recommend.contest import Contest
from fmcore.recommend.off_policy import ESTIMATORS
from pages import figures, ui

STEP = 0.24
"""Between the estimators of one agent, of the distance between two agents."""


def against(row: Mapping[str, Any]) -> str:
    """How an agent that learns does against greedy, in a word or two; "" for the others."""
    if row["agent"] in BASELINES or row["better_than_greedy"] is None:
        return ""
    return "better than greedy" if row["better_than_greedy"] else "not better"


def returns(found: Contest) -> go.Figure:
    """Mean likes a visit with the 95 % interval, an agent a row; the greedy one's value and interval run through all rows."""
    t = ui.tokens()
    table = found.table.reset_index(drop=True)
    greedy = table[table["agent"] == "greedy"]
    fig = go.Figure()
    if len(greedy):
        line = greedy.iloc[0]
        fig.add_vrect(x0=line["low"], x1=line["high"], fillcolor=ui.rgba(t["flat"], 0.14), line_width=0)
        fig.add_vline(x=line["mean"], line={"color": t["flat"], "width": 1.5, "dash": "dot"})
    colors = [t["flat"] if row.agent in BASELINES else t["accent"] for row in table.itertuples()]
    for place, (row, color) in enumerate(zip(table.itertuples(), colors, strict=True)):
        ends = [row.low, row.high]
        fig.add_scatter(x=ends, y=[place, place], mode="lines", line={"color": ui.rgba(color, 0.5), "width": 4}, hoverinfo="skip")
    titles = [figures.chart_text(title) for title in table["title"]]
    fig.add_scatter(
        x=table["mean"], y=list(range(len(table))), mode="markers", marker={"size": 11, "color": colors},
        customdata=list(zip(titles, table["low"], table["high"], strict=True)),
        hovertemplate="<b>%{customdata[0]}</b>: %{x:.2f} (%{customdata[1]:.2f} to %{customdata[2]:.2f})<extra></extra>",
    )  # fmt: skip
    for place, row in table.iterrows():
        words = f"<b>{row['mean']:.2f}</b>  {against(row)}"
        fig.add_annotation(x=1, xref="paper", y=place, text=words, showarrow=False, xanchor="left", xshift=10, font={"size": 12})
    ui.desk(fig, 34 * len(table) + 56, hovermode="closest", showlegend=False, margin={"l": 8, "r": 154, "t": 8, "b": 8, "pad": 6})
    shown = [name if row.agent in BASELINES else f"<b>{name}</b>" for name, row in zip(titles, table.itertuples(), strict=True)]
    fig.update_yaxes(
        range=[len(table) - 0.4, -0.6], showgrid=False, tickvals=list(range(len(table))), ticktext=shown, nticks=len(table) + 1
    )  # fmt: skip
    low, high = float(table["low"].min()), float(table["high"].max())
    pad = 0.06 * (high - low) or 0.1
    return fig.update_xaxes(title_text="likes a visit", range=[max(0.0, low - pad), high + pad], showgrid=True, nticks=6)


def curves(found: Contest) -> go.Figure:
    """A panel a learning agent: each seed's mean of its latest visits over its training; dotted where greedy and random were judged."""
    t = ui.tokens()
    names = [name for name in AGENTS if (found.curves["agent"] == name).any()]
    fig = make_subplots(1, len(names), subplot_titles=[AGENTS[name].title for name in names], shared_yaxes=True, horizontal_spacing=0.045)
    judged = found.table.set_index("agent")
    for column, name in enumerate(names, start=1):
        for seed, rows in found.curves[found.curves["agent"] == name].groupby("seed"):
            fig.add_scatter(
                x=rows["step"], y=rows["return"], mode="lines" if len(rows) > 1 else "markers", row=1, col=column,
                line={"color": ui.rgba(t["accent"], 0.75), "width": 1.5},
                hovertemplate=f"seed {int(seed) + 1}, step %{{x:,}}: <b>%{{y:.2f}}</b><extra></extra>",
            )  # fmt: skip
        for base in ("greedy", "random"):
            if base in judged.index:
                level = {"color": t["flat"], "width": 1.5, "dash": "dot"}
                fig.add_hline(y=judged.loc[base, "mean"], line=level, row=1, col=column)
    ui.desk(fig, 232, hovermode="closest", showlegend=False, margin={"l": 8, "r": 62, "t": 34, "b": 8})
    fig.update_annotations(font_size=13)
    for base in ("greedy", "random"):
        if base in judged.index:
            fig.add_annotation(
                x=1, xref="paper", y=judged.loc[base, "mean"], text=base, showarrow=False, xanchor="left", xshift=6, font={"size": 12}
            )
    fig.update_xaxes(range=[0, 1.02 * found.plan.steps], nticks=3)
    return fig.update_yaxes(title_text="likes a visit", col=1)


def estimates(rows: pd.DataFrame, titles: dict[str, str]) -> go.Figure:
    """Off-policy estimates of one source: per agent a dot with its interval an estimator; a tall mark where the truth is known."""
    t = ui.tokens()
    agents = list(dict.fromkeys(rows["agent"]))
    there = rows[rows["value"].notna()]
    fig = go.Figure()
    for place, name in enumerate(ESTIMATORS):
        part = there[there["estimator"] == name]
        if not len(part):
            continue
        at = [agents.index(agent) + (place - 1) * STEP for agent in part["agent"]]
        color = t["cat"][place]
        value, low, high = (part[column].astype(float) for column in ("value", "low", "high"))
        fig.add_scatter(
            x=value, y=at, mode="markers", name=name.upper(), marker={"size": 8, "color": color},
            error_x={"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low, "color": ui.rgba(color, 0.6),
                     "thickness": 2.5, "width": 0},
            customdata=list(zip(low, high, part["ess"], strict=True)),
            hovertemplate=f"{name.upper()}: <b>%{{x:.3f}}</b> (%{{customdata[0]:.3f}} to %{{customdata[1]:.3f}}), "
            "%{customdata[2]:,.0f} effective rows<extra></extra>",
        )  # fmt: skip
    truth = rows[rows["truth"].notna()].groupby("agent", sort=False)["truth"].first()
    if len(truth):
        fig.add_scatter(
            x=truth.astype(float), y=[agents.index(agent) for agent in truth.index], mode="markers", name="Truth",
            marker={"symbol": "line-ns", "size": 30, "color": t["ink"], "line": {"width": 2, "color": t["total"]}},
            hovertemplate="truth: <b>%{x:.3f}</b><extra></extra>",
        )  # fmt: skip
    ui.desk(fig, 52 * len(agents) + 84, hovermode="closest", margin={"l": 8, "r": 12, "t": 30, "b": 8, "pad": 6})
    names = [figures.chart_text(titles.get(agent, agent)) for agent in agents]
    fig.update_yaxes(
        range=[len(agents) - 0.4, -0.6], showgrid=False, tickvals=list(range(len(agents))), ticktext=names, nticks=len(agents) + 1
    )
    return fig.update_xaxes(title_text="likes an item shown", showgrid=True, nticks=6)
