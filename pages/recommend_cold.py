"""The cold start: somebody without a past says what they like, and click by click the list moves from the sentence to the past.

Owns the sentence (kept in the visitor's session only) and the strip of steps. Draws answers; never makes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from fmcore.data import demo_shop
from fmcore.recommend.answering import sentence_share
from fmcore.recommend.current import TEXT
from fmcore.text import clean
from pages import figures, recommend_list, ui

COLD = 8
"""Items of a past up to which somebody who began here is still walked with."""
SENTENCE_CHARS = 500
EXAMPLES = (
    "I like slow science fiction",
    "Funny films for a family evening",
    "Dark crime stories with a detective",
    "True stories about music",
)
DEMO = "demo_shop"
SHOP_EXAMPLES = (
    "I want to start saving for a house",
    "How do I keep my card safe abroad?",
    "Climate change and what it does to markets",
    "I run a small bakery and do my own taxes",
)
STEPS = 10
"""Steps of the strip that are drawn: the last ones."""
MARGIN = {"l": 56, "r": 280, "t": 12, "b": 8, "pad": 4}
"""Of both figures, so that a step stands under itself."""
RANKS = 8
"""Places of each list that the strip draws."""


@dataclass(frozen=True)
class Step:
    """One list of the walk: what led to it, the items in order, how long the past was, and how much each part weighed."""

    label: str
    items: tuple[str, ...]
    n_history: int
    weights: Mapping[str, float]


def sentence_of(who: str) -> str | None:
    """What this person said of themselves in this session."""
    return st.session_state.get("recommend_sentences", {}).get(who)


def is_cold(who: str, past: Sequence[Any]) -> bool:
    """Whether the walk is shown: nobody knows this person, or they began here a few clicks ago."""
    began_here = who in st.session_state.get("recommend_walk", {}) or sentence_of(who) is not None
    return not past or (began_here and len(past) <= COLD)


def tastes(shelf: Any, who: str) -> tuple[str, ...]:
    """The topics that a simulated reader of the demo catalogue was given, the strongest first; none for everybody else."""
    if shelf.dataset != DEMO:
        return ()
    return tuple(demo_shop.TOPICS.get(topic, topic) for topic in _stated().get(who, ()))


@st.cache_data(show_spinner=False)
def _stated() -> dict[str, tuple[str, ...]]:
    return demo_shop.tastes()


# ---------------------------------------------------------------- the sentence


def start(desk: Any, shelf: Any, who: str) -> None:
    """The box for a sentence, with examples from what the catalogue holds."""
    with st.container(border=True):
        ui.card("Start from a sentence", "no past is needed: the text model reads it, and every click then counts more")
        if TEXT not in shelf.models:
            st.markdown("This version has no text model, so a sentence cannot be read. Open or like something instead.")
            return
        with st.form("recommend_form", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
            st.text_input("What do you like?", key="recommend_sentence", placeholder=examples(shelf)[0], max_chars=SENTENCE_CHARS)
            st.form_submit_button("Show me", type="primary", icon=":material/auto_awesome:", on_click=_said, args=(who,))
        st.pills(
            "Examples", examples(shelf), key="recommend_example", on_change=_picked, args=(who,), label_visibility="collapsed",
            format_func=lambda words: ui.esc(ui.short(words, 60)),
        )  # fmt: skip


def examples(shelf: Any) -> tuple[str, ...]:
    """Sentences to try: for the demo catalogue from its own topics, else about films."""
    return SHOP_EXAMPLES if shelf.dataset == DEMO else EXAMPLES


def _said(who: str) -> None:
    _keep(who, st.session_state.get("recommend_sentence", ""))
    st.session_state["recommend_example"] = None


def _picked(who: str) -> None:
    if example := st.session_state.get("recommend_example"):
        st.session_state["recommend_sentence"] = example
        _keep(who, example)


def _keep(who: str, raw: str) -> None:
    """A new sentence begins the walk anew; an empty one takes it back."""
    said = clean(raw, limit=SENTENCE_CHARS)[0].strip()
    sentences = st.session_state.setdefault("recommend_sentences", {})
    if said:
        sentences[who] = said
    else:
        sentences.pop(who, None)
    st.session_state.setdefault("recommend_walk", {})[who] = []
    st.session_state.pop("recommend_did", None)


# ---------------------------------------------------------------- the walk


def walk(shelf: Any, ask: Any, answer: Any, past: Sequence[Any]) -> None:
    """Remember this list as a step, and draw the steps so far."""
    steps = _with_step(ask, answer, past)
    if len(steps) < 2:
        return
    names = st.session_state.get("recommend_seen", {}).get("titles", {})
    told = ui.esc(members(shelf, answer))
    with st.container(border=True):
        ui.card("How the list moved", f"first {RANKS} places after each step; new ones in colour")
        ui.show(strip(steps, names), "recommend-walk", in_words(steps, names))
        if steps[-1].weights:
            ui.show(weights(steps), "recommend-weights", weights_in_words(steps))
            ui.note(f"How much of the list the sentence decides, and how much the past: the more you met, the less it says. {told}")
        elif told:
            ui.note(told)


def _with_step(ask: Any, answer: Any, past: Sequence[Any]) -> list[Step]:
    who = ask.who
    steps = st.session_state.setdefault("recommend_walk", {}).setdefault(who, [])
    order = tuple(found.item for found in answer.items)
    if not steps or (steps[-1].items, steps[-1].n_history) != (order, answer.n_history):
        steps.append(Step(_label(who, steps, past), order, answer.n_history, _weights(ask, answer)))
        del steps[:-STEPS]
    return steps


def _label(who: str, steps: Sequence[Step], past: Sequence[Any]) -> str:
    if not past:
        return "your sentence" if sentence_of(who) else "no past"
    if steps and steps[-1].n_history == len(past):
        return "another list"
    return ui.short(past[0].title, 24)


def _weights(ask: Any, answer: Any) -> dict[str, float]:
    """How much the sentence and the past decided of this list; empty where there is no sentence or it was left aside."""
    if not ask.sentence or TEXT not in answer.model.split(" + ") or answer.fallback:
        return {}
    alone = not answer.n_history or "+" not in answer.model
    said = 1.0 if alone else sentence_share(answer.n_history)
    return {"your sentence": said, "your past": 1.0 - said}


def members(shelf: Any, answer: Any) -> str:
    """Which models a hybrid hears at this length of past, as it learnt, in a sentence; "" where no hybrid answered. Plain text."""
    name = answer.model.split(" + ")[0]
    table = getattr(shelf.models.get(name), "weights", lambda: None)()
    if table is None or not len(table):
        return ""
    length = min(table["length"].unique(), key=lambda known: abs(known - answer.n_history))
    rows = table[(table["length"] == length) & (table["weight"] > 0.005)].sort_values("weight", ascending=False)
    told = ", ".join(
        f"{recommend_list.model_title(shelf, member)} {figures.probability(weight)}"
        for member, weight in zip(rows["member"], rows["weight"], strict=True)
    )
    n = int(rows["n"].max()) if len(rows) else 0
    on = f" (learnt on {n:,} people with a past of about {length})" if n else ""
    return f"Of the past, {recommend_list.model_title(shelf, name)} hears {told}{on}." if told else ""


def strip(steps: Sequence[Step], names: Mapping[str, str]) -> go.Figure:
    """Places over steps: a line an item as long as it stays, what is new in the last step in accent, names at the right end."""
    t = ui.tokens()
    fig = go.Figure()
    last = steps[-1].items[:RANKS]
    before = set(steps[-2].items[:RANKS]) if len(steps) > 1 else set()
    seen = dict.fromkeys(item for step in steps for item in step.items[:RANKS])
    for item in seen:
        places = [step.items.index(item) + 1 if item in step.items[:RANKS] else None for step in steps]
        fresh = item in last and item not in before
        color = t["accent"] if fresh else t["flat"] if item in last else ui.rgba(t["flat"], 0.4)
        name = figures.chart_text(ui.short(names.get(item, item), 38))
        fig.add_scatter(
            x=list(range(len(steps))), y=places, mode="lines+markers", line={"color": color, "width": 2 if item in last else 1.5},
            marker={"size": 7, "color": color}, hovertemplate=f"{name}: place %{{y}}<extra></extra>", cliponaxis=False,
        )  # fmt: skip
        if item in last:
            words = f"<b>{name}</b>" if fresh else name
            fig.add_annotation(
                x=len(steps) - 1, y=last.index(item) + 1, text=words, xanchor="left", xshift=12, showarrow=False,
                font={"size": 12, "color": t["accent"] if fresh else t["muted"]},
            )  # fmt: skip
    ui.desk(fig, 30 * RANKS + 60, hovermode="closest", showlegend=False, margin=MARGIN)
    _steps_below(fig, steps)
    fig.update_yaxes(autorange="reversed", tickvals=list(range(1, RANKS + 1)), showgrid=False, title_text="place", automargin=False)
    return fig


def in_words(steps: Sequence[Step], names: Mapping[str, str]) -> str:
    """The last step as a sentence."""
    changed = recommend_list.change(steps[-1].items[:RANKS], steps[-2].items[:RANKS], names)
    return f"After {len(steps)} steps: {changed}."


def weights(steps: Sequence[Step]) -> go.Figure:
    """The share of each part of the mixture over the steps, stacked to 100 %."""
    t = ui.tokens()
    fig = go.Figure()
    base = 0.0
    for name, color in zip(steps[-1].weights, (t["accent"], ui.rgba(t["flat"], 0.55)), strict=True):
        values = [100 * step.weights.get(name, 0.0) for step in steps]
        fig.add_bar(
            x=list(range(len(steps))), y=values, marker={"color": color, "line_width": 0}, width=0.12,
            hovertemplate=f"{name}: <b>%{{y:.0f}} %</b><extra></extra>",
        )  # fmt: skip
        words = f"{name} {figures.probability(steps[-1].weights[name])}"
        fig.add_annotation(
            x=len(steps) - 1, y=base + values[-1] / 2, text=words, xanchor="left", xshift=34, showarrow=False, font={"size": 12}
        )
        base += values[-1]
    ui.desk(fig, 150, barmode="stack", hovermode="closest", showlegend=False, margin=MARGIN)
    _steps_below(fig, steps)
    fig.update_yaxes(range=[0, 100], tickvals=[0, 50, 100], ticktext=["0%", "50%", "100%"], automargin=False)
    return fig


def _steps_below(fig: go.Figure, steps: Sequence[Step]) -> None:
    """The same axis under both figures: what each step was."""
    labels = [figures.chart_text(step.label) for step in steps]
    fig.update_xaxes(tickvals=list(range(len(steps))), ticktext=labels, range=[-0.2, len(steps) - 0.9])


def weights_in_words(steps: Sequence[Step]) -> str:
    """Who says how much now, and at the beginning."""
    now, then = steps[-1], steps[0]
    told = [f"{name} {100 * share:.0f} % (at first {100 * then.weights.get(name, 0.0):.0f} %)" for name, share in now.weights.items()]
    return f"With {now.n_history} items of the past: {', '.join(told)}."
