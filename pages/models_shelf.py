"""Versions of recommenders, a part of the Models page: their figures beside each other, one closely, and its leaderboard.

Draws what the registry stores; promotion, card and history are the page's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from fmcore.nouns import ModelVersion
from pages import figures, leaderboard, ui
from pages.ranking_figures import MEASURES


def row(version: ModelVersion, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A version's line of the table."""
    ndcg, hr, coverage = (figures.at(facts, name) for name in ("ndcg", "hr", "coverage"))
    rows = facts.get("leaderboard") or ()
    return {
        "NDCG@10": ndcg["value"] if ndcg else None,
        "95 % interval": MEASURES["ndcg"].span(ndcg) or figures.NONE,
        "HR@10, %": 100 * hr["value"] if hr else None,
        "Coverage, %": 100 * coverage["value"] if coverage else None,
        "Answers": leaderboard.title_of(str(facts.get("serving", ""))),
        "Models": len(rows),
        "People": int(facts["n"]) if facts.get("n") else None,
    }


COLUMNS = {
    "NDCG@10": st.column_config.NumberColumn(format="%.3f"),
    "HR@10, %": st.column_config.NumberColumn(format="%.1f"),
    "Coverage, %": st.column_config.NumberColumn(format="%.1f"),
}
"""How the numbers of `row` are written."""


def quality(facts: Mapping[str, Any], against: ModelVersion | None) -> None:
    """Every figure of the model that answers, with interval and n, the live version's beside it, and what it means."""
    here, there = answering(facts), answering(against.metrics) if against else {}
    rows = []
    for name, measure in MEASURES.items():
        mine = figures.at(here, name)
        line = {"Figure": measure.title, "Value": measure.value(mine), "95 % interval": measure.span(mine)}
        if against:
            line["Live version"] = measure.value(figures.at(there, name))
        rows.append(line | {"n": f"{mine['n']:,}" if mine and mine.get("n") else "", "What it says": measure.words})
    st.table(pd.DataFrame(rows).set_index("Figure"), border="horizontal")


def answering(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures of the model that answers for a version: its row of the leaderboard, else what is stored of the version."""
    return next((row for row in facts.get("leaderboard") or () if row.get("model") == facts.get("serving")), facts)


def details(version: ModelVersion, facts: Mapping[str, Any]) -> None:
    """The version's leaderboard, its slices, who answers and what was left out."""
    if not facts.get("leaderboard") or "serving" not in facts:
        with st.container(border=True):
            ui.card("Leaderboard")
            st.markdown(f"Nothing is stored of the models beside it: {figures.NONE}.")
        return
    chosen = leaderboard.board(facts, measured_at=version.created_at)
    left, right = ui.split(2, 1)
    with left, ui.guarded():
        leaderboard.slices(facts, chosen)
    with right, ui.guarded():
        leaderboard.serving(facts)


def full(figure: Mapping[str, Any] | None) -> str:
    """A version's NDCG@10 with interval and n."""
    return MEASURES["ndcg"].full(figure)
