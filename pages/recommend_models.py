"""Models, a view of the Recommend page: the leaderboard, the models beside each other for one person, and what diversity costs.

Draws what the serving version stores and what desk.recommend answers; computes nothing. Who is looked at is in the address only where the
data set names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore.nouns import FMError
from fmcore.recommend.service import Answer, Ask
from pages import figures, heat, leaderboard, recommend_diversity, ui

MOST_BESIDE = 4
MOST_NAMES = 1_000
"""Names that the picker offers; any other one can be typed."""
KS = (5, 10, 20)
TITLE_CHARS = 64
LATEST = 4
"""Items of a past that are named."""


def draw(desk: Any) -> None:
    """The whole view."""
    shelf = desk.recommend.shelf()
    version = desk.registry.get("recommend", shelf.version)
    facts = {**shelf.facts, **version.metrics, "serving": shelf.serving}
    with ui.guarded():
        chosen = leaderboard.board(facts, measured_at=version.created_at)
        left, right = ui.split(2, 1)
        with left, ui.guarded():
            leaderboard.slices(facts, chosen)
        with right, ui.guarded():
            leaderboard.serving(facts)
    st.fragment(_beside)(desk, shelf, facts)
    with st.grid(2, min_column_width=400, gap="small", border=True) as grid:
        with grid.cell(), ui.guarded():
            _frontier(desk)
        with grid.cell(), ui.guarded():
            _weights(shelf)


# ---------------------------------------------------------------- side by side


def _beside(desk: Any, shelf: Any, facts: Mapping[str, Any]) -> None:
    """One person's lists by several models in columns, and how much they have in common."""
    with ui.guarded(), st.container(border=True):
        ui.card("Models side by side", "the same person asked of each; what several models agree on is marked")
        who, names, k = _question(desk, shelf, facts)
        if not who or not names:
            st.markdown("Pick a person and at least one model.")
            return
        try:
            beside = desk.recommend.side_by_side(Ask(who=who, k=k, reasons=False), names)
            past = desk.recommend.history(who)
        except FMError as error:
            ui.refusal(error)
            return
        latest = ", ".join(f"*{ui.esc(ui.short(met.title, 40))}*" for met in past[:LATEST])
        known = f"{len(past):,} item{'' if len(past) == 1 else 's'} in the past, the latest: {latest}" if past else "no past yet"
        ui.note(f"{ui.esc(ui.short(who, 40))}: {known}")
        with st.grid(len(names), min_column_width=220, gap="medium") as grid:
            for name, answer in beside.lists.items():
                with grid.cell():
                    _list(shelf, name, answer, beside.lists)
        if len(names) > 1:
            _overlap(beside, k)


def _question(desk: Any, shelf: Any, facts: Mapping[str, Any]) -> tuple[str, list[str], int]:
    """(person, models, length of the lists) as chosen."""
    people = desk.recommend.users(limit=MOST_NAMES)
    if "beside_who" not in st.session_state:
        st.session_state["beside_who"] = _current(shelf) or next(iter(people), None)
    chosen = st.session_state["beside_who"]
    if chosen and chosen not in people:
        people = [chosen, *people]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        who = st.selectbox(
            "Person", people, key="beside_who", accept_new_options=True, placeholder="Pick or type a name", width=230,
            format_func=lambda name: ui.short(name, 40), help="The one that the other view shows, until you pick another.",
        )  # fmt: skip
        names = st.multiselect(
            f"Models, {MOST_BESIDE} at most", list(shelf.models), default=usual(facts, list(shelf.models)), max_selections=MOST_BESIDE,
            format_func=leaderboard.title_of, key="beside_models", width=620,
        )  # fmt: skip
        k = st.selectbox("Items", KS, index=1, key="beside_k", width=86)
    if who in shelf.users:
        st.query_params["who"] = who
    elif "who" in st.query_params:  # a name that somebody made up stays out of the address
        del st.query_params["who"]
    return who or "", names, k


def _current(shelf: Any) -> str:
    """Whom the other view shows: by the address, else whoever's list it drew last."""
    asked = st.query_params.get("who", "")
    return asked if asked in shelf.users else str(st.session_state.get("recommend_seen", {}).get("who", ""))


def usual(facts: Mapping[str, Any], there: Sequence[str]) -> list[str]:
    """Whom to put side by side unasked: the one that serves, popularity, and the best of the others."""
    by_quality = [row["model"] for row in leaderboard.ranked(facts.get("leaderboard") or ())]
    wanted = dict.fromkeys([facts["serving"], *by_quality, *there])  # by_quality begins with popularity
    return [name for name in wanted if name in there][:MOST_BESIDE]


def _list(shelf: Any, name: str, answer: Answer, lists: Mapping[str, Answer]) -> None:
    """One model's list; an item that other lists have too says in how many."""
    chips = [ui.chip("Serves", "blue", ":material/verified:")] if name == shelf.serving else []
    if answer.fallback:
        chips.append(ui.chip("Fallback: popularity", "orange", ":material/alt_route:"))
    st.markdown(" ".join([f"**{ui.esc(leaderboard.title_of(name))}**", *chips]))
    if answer.fallback:
        ui.note(ui.esc(answer.fallback))
    if answer.note:
        ui.note(ui.esc(answer.note))
    shared = counts(lists)
    with st.container(gap="xsmall"):
        for place, found in enumerate(answer.items, start=1):
            n, title = shared[found.item], ui.esc(ui.short(found.title, TITLE_CHARS))
            mark = "" if len(lists) == 1 else ":small[:gray[only here]]" if n == 1 else _agreed(n, len(lists))
            st.markdown(f":gray[{place}]\u2002{f'**{title}**' if n > 1 else title} {mark}")


def _agreed(n: int, of: int) -> str:
    """In how many lists an item is, as a mark."""
    if n < of:
        return ui.chip(f"in {n} of {of}")
    return ui.chip("in both" if of == 2 else f"in all {of}", "blue", ":material/done_all:")


def counts(lists: Mapping[str, Answer]) -> dict[str, int]:
    """Item -> in how many of the lists it is."""
    found: dict[str, int] = {}
    for answer in lists.values():
        for one in {each.item for each in answer.items}:
            found[one] = found.get(one, 0) + 1
    return found


def _overlap(beside: Any, k: int) -> None:
    left, right = ui.split(2, 1, border=False)
    with left:
        st.markdown("**What they have in common** :small[:gray[of all items of two lists, the share that is on both, %]]")
        ui.show(overlap_chart(beside.overlap), "beside_overlap", f"Share of common items. {closest(beside.overlap)}")
    with right:
        st.markdown("**In words**")
        st.markdown(f":small[{ui.esc(closest(beside.overlap))}]")
        half = figures.probability((k // 2) / (2 * k - k // 2))
        ui.note(f"Two lists of {k} with {k // 2} items in common stand at {half}.")


def closest(overlap: pd.DataFrame) -> str:
    """The two lists most alike and the two least, in a sentence."""
    names = list(overlap.index)
    pairs = [(overlap.iloc[i, j], names[i], names[j]) for i in range(len(names)) for j in range(i + 1, len(names))]
    most, least = max(pairs, key=lambda pair: pair[0]), min(pairs, key=lambda pair: pair[0])
    if len(pairs) > 1 and most[0] == least[0]:
        return f"Every two of them have {figures.probability(most[0])} in common."
    said = [f"{leaderboard.title_of(a)} and {leaderboard.title_of(b)} ({figures.probability(share)})" for share, a, b in (most, least)]
    return f"In common: {said[0]}." if len(pairs) == 1 else f"Most alike: {said[0]}. Least alike: {said[1]}."


def overlap_chart(overlap: pd.DataFrame) -> go.Figure:
    """Lists against lists; a list against itself is left blank."""
    names = [figures.chart_text(leaderboard.title_of(name)) for name in overlap.index]
    z = [[None if i == j else 100 * overlap.iloc[i, j] for j in range(len(names))] for i in range(len(names))]
    text = [["" if value is None else f"{value:.0f}" for value in line] for line in z]
    fig = go.Figure()
    told = [[f"{name} and {other}: {text[i][j]} %" for j, other in enumerate(names)] for i, name in enumerate(names)]
    heat.add(fig, x=list(range(len(names))), z=z, text=text, top=100, told=told)
    ui.desk(fig, 34 * len(names) + 66, hovermode="closest", showlegend=False)
    at = list(range(len(names)))
    fig.update_yaxes(range=[len(names) - 0.5, -0.5], nticks=len(names) + 1, tickvals=at, ticktext=names, showgrid=False)
    heads = [name.replace(" ", "<br>", 1) for name in names]
    return fig.update_xaxes(side="top", ticks="", tickangle=0, range=[-0.5, len(names) - 0.5], tickvals=at, ticktext=heads)


# ---------------------------------------------------------------- what the serving version costs and mixes


def _frontier(desk: Any) -> None:
    """Accuracy against diversity of the model that serves, each measured place of the slider on it."""
    ui.card("Accuracy against diversity", "NDCG@10 against how unlike the ten items are")
    frame = desk.recommend.frontier()
    if frame is None or not len(frame):
        st.markdown(f"{figures.NONE.capitalize()} for this version.")
        return
    fig, words = recommend_diversity.frontier(frame, 0.0)
    rows = frame.sort_values("diversity")
    for place, row in enumerate(rows.itertuples()):
        above = 15 if place % 2 == 0 else -15  # neighbours may lie close together
        fig.add_annotation(x=row.ild, y=row.ndcg, text=f"{100 * row.diversity:.0f} %", showarrow=False, yshift=above, font={"size": 12})
    fig.update_layout(height=ui.HEIGHT["medium"])
    fig.update_xaxes(title_text="diversity of a list, 0 to 1")
    told = "; ".join(f"slider {100 * r.diversity:.0f} %: NDCG@10 {r.ndcg:.3f}, diversity {r.ild:.2f}" for r in rows.itertuples())
    ui.show(fig, "models_frontier", f"{words} All places: {told}.")
    first, last = rows.iloc[0], rows.iloc[-1]
    ui.note(
        f"Numbers: the slider; ring: as served without it. From 0 to 100 % diversity goes from {first['ild']:.2f} to {last['ild']:.2f}, "
        f"NDCG@10 from {first['ndcg']:.3f} to {last['ndcg']:.3f}, coverage from {figures.points(first['coverage'])} to "
        f"{figures.points(last['coverage'])}. Band: 95 % interval, {int(rows['n'].max()):,} people."
    )


def _weights(shelf: Any) -> None:
    """How much each member of the hybrid counts, by how much is known of a person."""
    hybrid = shelf.models.get("hybrid")
    weights = None if hybrid is None else hybrid.weights()
    ui.card("What the hybrid listens to", "share of each model, %, by the items in a past")
    if weights is None or not len(weights):
        st.markdown("This version has no hybrid.")
        return
    ui.show(weights_chart(weights), "hybrid_weights", f"Weights of the hybrid. {weights_told(weights)}")
    ui.note(
        "Learnt on validation; n: people behind a length, and with few it takes what all lengths share. Lengths between are mixed. "
        + ui.esc(weights_told(weights))
    )


def weights_chart(weights: pd.DataFrame) -> go.Figure:
    """Members down, the most heard on top; lengths of a past across."""
    table = weights.pivot(index="member", columns="length", values="weight")
    table = table.loc[table.mean(axis=1).sort_values(ascending=False).index]
    judged = weights.groupby("length")["n"].first()
    z = 100 * table.to_numpy(dtype=float)
    text = [[f"{value:.0f}" for value in line] for line in z]
    told = [[f"{value:.1f} %" for value in line] for line in z]
    fig = go.Figure()
    heat.add(fig, x=list(range(len(table.columns))), z=z.tolist(), text=text, top=max(50.0, float(z.max())), told=told)
    names = [figures.chart_text(leaderboard.title_of(str(name))) for name in table.index]
    ui.desk(fig, 30 * len(table) + 66, hovermode="closest", showlegend=False)
    places = list(range(len(table)))
    fig.update_yaxes(range=[len(table) - 0.5, -0.5], showgrid=False, tickvals=places, ticktext=names, nticks=len(table) + 1)
    lengths = list(table.columns)
    heads = [f"<b>{length}{'+' if length == lengths[-1] else ''}</b><br>n {int(judged[length]):,}" for length in lengths]
    return fig.update_xaxes(side="top", ticks="", tickvals=list(range(len(lengths))), ticktext=heads, range=[-0.5, len(lengths) - 0.5])


def weights_told(weights: pd.DataFrame) -> str:
    """The most heard member of the shortest and of the longest past, in a sentence. Plain text."""
    most = weights.sort_values("weight", ascending=False).groupby("length").first()
    said = [
        f"{length:,} item{'' if length == 1 else 's'}: {leaderboard.title_of(str(most.loc[length, 'member']))}, "
        f"{figures.probability(float(most.loc[length, 'weight']))}"
        for length in (most.index.min(), most.index.max())
    ]
    return f"Most heard, with {said[0]}; with {said[1]}."
