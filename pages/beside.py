"""What stands beside a model: simpler means on the same rows, and for sentiment the failure suite with the lexicon's counts.

Draws stored metrics only; a version that was trained before these were taken says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from pages import figures, ui

MEANS = {"baseline": "against_baseline", "lexicon": "against_lexicon", "majority": ""}
"""Stored figure of a simpler means -> the stored paired difference to it, where one was taken."""


def rows(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row for each simpler means that was measured: its name, accuracy with interval, and how much the model is better."""
    found = []
    for key, against in MEANS.items():
        accuracy = figures.at(facts, f"{key}.accuracy")
        if accuracy is None:
            continue
        better = figures.at(facts, against) if against else None
        found.append(
            {
                "Simpler means": str(facts[key].get("name", key)),
                "Accuracy": figures.value(accuracy),
                "95 % interval": figures.span(accuracy),
                "This version is better by": _difference(better),
            }
        )
    return found


def _difference(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return ""
    low, high = (figures.signed_points(figure[end]) for end in ("low", "high"))
    return f"{figures.signed_points(figure['value'])} ({low} to {high})"


def simpler_means(facts: Mapping[str, Any]) -> None:
    """The same held-out rows answered by simpler means."""
    ui.card("Against simpler means", "accuracy on the same held-out rows · paired 95 % bootstrap interval of the difference")
    found = rows(facts)
    if not found:
        st.markdown(f"Not measured for this version: {figures.NONE}.")
        return
    st.table(pd.DataFrame(found).set_index("Simpler means"), border="horizontal")


def failure_suite(suite: Mapping[str, Any] | None) -> None:
    """The suite as a version's metrics keep it: counts by kind beside the lexicon's, and every sentence that failed."""
    ui.card("Failure suite", "sentences that trip sentiment models, written for FM Desk, never trained on · run at each training")
    if not suite:
        st.markdown("It was not run for this version: train it again to have it measured.")
        return
    lexicon = str(suite.get("lexicon", "lexicon"))
    passed, n = suite["n_passed"], suite["n"]
    st.markdown(f"**{passed} of {n}** passed, {n - passed} failed :small[:gray[{ui.esc(lexicon)}: {suite['n_lexicon']} of {n}]]")
    table = [
        {"Kind": kind["kind"].capitalize(), "Passed": kind["n_passed"], "Failed": kind["n"] - kind["n_passed"], lexicon: kind["n_lexicon"]}
        for kind in suite["kinds"]
    ]
    columns = {lexicon: st.column_config.NumberColumn(f"Passed by {lexicon}")}
    st.dataframe(pd.DataFrame(table), hide_index=True, row_height=34, column_config=columns, alt="Sentences passed and failed by kind")
    failures(suite["failures"])


def failures(failed: list[Mapping[str, str]]) -> None:
    """Every failed sentence with what was expected and what was said."""
    if not failed:
        return
    with st.expander(f"The {len(failed)} sentences that failed", icon=":material/rule:"):
        shown = [{"Kind": f["kind"], "Sentence": f["text"], "Expected": f["expected"], "Said": f["said"]} for f in failed]
        wide = {"Sentence": st.column_config.TextColumn(width="large")}
        st.dataframe(pd.DataFrame(shown), hide_index=True, row_height=34, column_config=wide, alt="Failed sentences of the suite")
