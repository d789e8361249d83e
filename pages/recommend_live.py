"""For one person: what they met on the left, what comes next on the right, and a list that moves with every click.

Draws what desk.recommend answers and sends it what people do. Who is looked at is in the address only where the data set names them; a
sentence and an invented name stay in the visitor's session and in the store.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

import streamlit as st

from fmcore import clock, runtime
from fmcore.nouns import FMError
from fmcore.recommend.events import Event
from fmcore.recommend.service import Answer, Ask, Past
from pages import figures, recommend_bandit, recommend_cold, recommend_diversity, recommend_list, recommend_why, ui

SHOWN_PAST = 8
"""Newest items of a past that are drawn until somebody asks for all."""
MOST_PAST = 200
MOST_NAMES = 1_000
"""Names that the picker offers; any other one can be typed."""
OPENED_CHARS = 600
"""Characters of the text of what was opened."""
TWICE_S = 0.3
"""A second click on the same word within this time is half of a double click: the list under it has moved, it was not meant for that."""
KS = (5, 10, 20)
SERVED = "served model"
LEARNERS = {"Off": None, "Thompson sampling": "thompson", "LinUCB": "linucb"}

MET = {"view": "viewed", "click": "opened", "like": "liked", "rate": "rated"}
SOURCES = {"data": "from the data set", "page": "here", "api": "by the API", "bandit": "here"}
DID = {"click": "you opened", "like": "you liked", "skip": "you skipped", "forget": "you removed", "keep": "you put back"}
"""Kind of event -> how a past item, its source, and what was just done are told."""


def draw(desk: Any) -> None:
    """The whole view. One fragment: a click redraws these lists and nothing else of the page."""
    st.fragment(_person_view)(desk)


def _person_view(desk: Any) -> None:
    with ui.guarded():
        shelf = desk.recommend.shelf()
        with st.container(border=True):
            who = _bar(desk, shelf)
            if who:
                _about_person(shelf, who)
        if not who:
            ui.empty("Nobody is chosen", "Pick somebody above, type any name, or start with a new person.", icon=":material/person_search:")
            return
        _lists(desk, shelf, who)


# ---------------------------------------------------------------- who, and how


def _bar(desk: Any, shelf: Any) -> str:
    """Person, model, length, learner on one line; returns the person, "" for nobody."""
    names = desk.recommend.users(limit=MOST_NAMES)
    if "recommend_who" not in st.session_state:
        asked = st.query_params.get("who", "")
        kept = st.session_state.get("recommend_person")  # another view was looked at meanwhile, and the picker's own memory is gone
        st.session_state["recommend_who"] = asked if asked in shelf.users else kept or next(iter(shelf.users), None)
    chosen = st.session_state["recommend_who"]
    if chosen and chosen not in names:
        names = [chosen, *names]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        who = st.selectbox(
            "Person", names, key="recommend_who", accept_new_options=True, placeholder="Pick or type a name", on_change=_other_person,
            width=230,
            help=f"Type to search. The first {MOST_NAMES:,} names are listed, any other can be typed; a new one starts without a past.",
        )  # fmt: skip
        st.button("New person", icon=":material/person_add:", on_click=_new_person)
        titles = {name: recommend_list.model_title(shelf, name) for name in shelf.models}
        titles[SERVED] = f"{titles[shelf.serving]} · served"
        st.selectbox(
            "Model", [SERVED, *shelf.models], key="recommend_model", width=260, bind="query-params",
            format_func=lambda name: titles.get(name, name),
        )  # fmt: skip
        st.selectbox("Items", KS, index=1, key="recommend_k", width=86, bind="query-params")
        st.segmented_control(
            "Let a bandit choose", list(LEARNERS), default="Off", key="recommend_learner", required=True,
            help="A bandit picks groups of items by what you like, and learns from every click.",
        )  # fmt: skip
    st.session_state["recommend_person"] = who
    _address(shelf, who or "")
    return who or ""


def _address(shelf: Any, who: str) -> None:
    """Only a name that the data set knows may stand in the address."""
    if who in shelf.users:
        st.query_params["who"] = who
    elif "who" in st.query_params:
        del st.query_params["who"]


def _other_person() -> None:
    for name in ("recommend_seen", "recommend_answer", "recommend_did", "recommend_open", "recommend_refused"):
        st.session_state.pop(name, None)


def _new_person() -> None:
    _other_person()
    st.session_state["recommend_who"] = f"guest {secrets.token_hex(2)}"


def _about_person(shelf: Any, who: str) -> None:
    """What is known of somebody before the lists: for the demo, the taste that its author gave them."""
    liked = recommend_cold.tastes(shelf, who)
    if liked:
        topics = " ".join(ui.chip(topic) for topic in liked)
        st.markdown(f"{ui.synthetic_mark()} :small[{ui.esc(who)} does not exist: a simulated reader, made with a taste for] {topics}")


# ---------------------------------------------------------------- the lists


def _ask(shelf: Any, who: str) -> Ask:
    """The question that the controls stand for."""
    state = st.session_state
    model = state.get("recommend_model", SERVED)
    return Ask(
        who=who,
        sentence=recommend_cold.sentence_of(who),
        k=state.get("recommend_k", 10),
        model=None if model not in shelf.models else model,
        diversity=recommend_diversity.chosen(),
        learner=LEARNERS.get(state.get("recommend_learner", "Off")),
    )


def _lists(desk: Any, shelf: Any, who: str) -> None:
    past = desk.recommend.history(who)
    cold = recommend_cold.is_cold(who, past)
    if cold:
        recommend_cold.start(desk, shelf, who)
    grid = st.grid(3, min_column_width=290, gap="small", border=True, dense=True)
    left, right, under = grid.cell(), grid.cell(column_span=2, row_span=2), grid.cell()
    with left:
        _history(who, past)
    with under, ui.guarded():
        recommend_diversity.draw(desk)
    ask = _ask(shelf, who)
    with right:
        answer = _answered(desk, ask, past)
        if answer is not None:
            _list(desk, shelf, ask, answer)
    if answer is None:
        return
    if cold:
        recommend_cold.walk(shelf, ask, answer, past)
    if ask.learner:
        with st.container(border=True), ui.guarded():
            recommend_bandit.draw(desk, ask.learner)
    recommend_why.drawers(desk, ask, answer, on_forget=_forget)


def _answered(desk: Any, ask: Ask, past: Sequence[Past]) -> Answer | None:
    """The answer to a question, asked once: opening a drawer must not make a learner draw again. A refusal is drawn, None returned."""
    version = desk.recommend.info()["version"]
    key = (ask, version, tuple((met.item, met.kind) for met in past), st.session_state.get("recommend_serial", 0))
    held = st.session_state.get("recommend_answer")
    if held is None or held[0] != key:
        try:
            held = (key, desk.recommend.recommend(ask))
        except FMError as error:
            ui.card("Next for you")
            ui.refusal(error)
            st.button("Try again", icon=":material/refresh:", key="recommend_again", on_click=_again)
            return None
        st.session_state["recommend_answer"] = held
        _remember(ask.who or "", held[1])
    return held[1]


def _again() -> None:
    st.session_state["recommend_serial"] = st.session_state.get("recommend_serial", 0) + 1


def _remember(who: str, answer: Answer) -> None:
    """Keep this list, the one before it and what led from that to this, so that what moved can be marked."""
    order = tuple(found.item for found in answer.items)
    seen = st.session_state.get("recommend_seen")
    names = {**(seen["titles"] if seen else {}), **recommend_list.titles(answer)}
    before = seen["order"] if seen and seen["who"] == who else None
    did = st.session_state.pop("recommend_did", None)  # nothing was done: the settings changed
    st.session_state["recommend_seen"] = {"who": who, "order": order, "before": before, "titles": names, "did": did}


def _list(desk: Any, shelf: Any, ask: Ask, answer: Answer) -> None:
    chips = ui.chip("Fallback: popularity", "orange", ":material/alt_route:") if answer.fallback else ""
    chips += f" {ui.synthetic_mark()}" if shelf.synthetic else ""
    ui.card("Next for you", _how(shelf, ask, answer), chips.strip())
    with st.container(gap="xsmall"):  # always there, so that the rows below keep their place and do not jump while they are drawn anew
        _notes(answer)
        _what_happened(desk)
    if not answer.items:
        ui.empty("Nothing left to show", answer.note, icon=":material/done_all:")
        return
    seen = st.session_state.get("recommend_seen", {})
    recommend_list.rows(
        answer, key="rec", before=seen.get("before"), sentence=bool(ask.sentence), act=_act, why=_why,
        groups=recommend_bandit.group_names(desk, [found.item for found in answer.items]) if ask.learner else None,
    )  # fmt: skip
    causes = " Carries: how much of the score goes when that item is taken out of your past, measured for each row."
    named = any(one.because for one in answer.items)
    ui.note(f"Bar: score against the top one.{causes if named else ''} {_fresh(desk, shelf, answer)}.")


def _notes(answer: Answer) -> None:
    """What else is to be said of a list: why a fallback answered, what the catalogue does not have, why it is short."""
    if answer.fallback:
        st.markdown(f":small[{ui.esc(answer.fallback)}]")
    if answer.unknown:
        n = len(answer.unknown)
        names = ", ".join(ui.esc(ui.short(item, 40)) for item in answer.unknown[:3])
        ui.note(f"{n} item{'s' if n > 1 else ''} of the past {'are' if n > 1 else 'is'} not in this version's catalogue: {names}")
    if answer.items and answer.note:
        ui.note(ui.esc(answer.note))


def _how(shelf: Any, ask: Ask, answer: Answer) -> str:
    """Who answered, how fast, on how much."""
    n = answer.n_history
    on = f"on {n:,} item{'' if n == 1 else 's'} of the past" if n else "on your sentence" if ask.sentence else "without a past"
    return f"answered in {_ms(answer.ms)} by {ui.esc(recommend_list.model_title(shelf, answer.model))}, {on}"


def _ms(ms: float) -> str:
    return f"{ms:.1f}\u00a0ms" if ms < 10 else f"{ms:,.0f}\u00a0ms"


def _what_happened(desk: Any) -> None:
    """The last thing that was done, what it changed, and the way back."""
    for refused in st.session_state.get("recommend_refused", ()):
        st.warning(ui.esc(refused), icon=":material/warning:")
    seen = st.session_state.get("recommend_seen")
    if not seen or seen["before"] is None:
        return
    kind, item, title = seen["did"] or ("", "", "")
    changed = ui.esc(recommend_list.change(seen["order"], seen["before"], seen["titles"], besides=item))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        done = f"{DID[kind]} **{ui.esc(ui.short(title, 60))}**" if kind else "the change of settings"
        st.markdown(f":small[:material/update: After {done}: {changed}.]", width="content")
        if kind in ("forget", "skip"):
            told = ("keep", item, title)
            st.button("Put it back", key="recommend_undo", type="tertiary", icon=":material/undo:", on_click=_act, args=told)
    if kind == "click":
        now = desk.recommend.current()
        number = now.numbers.get(item)
        if number is not None and now.items.texts[number]:
            ui.note(ui.esc(ui.short(now.items.texts[number], OPENED_CHARS)))


# ---------------------------------------------------------------- the past


def _history(who: str, past: Sequence[Past]) -> None:
    ui.card("Your past", f"{len(past):,} item{'' if len(past) == 1 else 's'}, newest first" if past else "")
    removed = st.session_state.get("recommend_removed", {}).get(who, {})
    if not past:
        st.markdown(":small[Nothing yet. Open or like something on the right, or write a sentence above.]")
    few = max(SHOWN_PAST, st.session_state.get("recommend_k", 10))  # about as long as the list beside it
    with st.container(gap="xsmall"):
        for place, met in enumerate(past[: MOST_PAST if st.session_state.get("recommend_all_past") else few], start=1):
            _met(met, place)
    if len(past) > few:
        st.toggle(f"Show {'all' if len(past) <= MOST_PAST else f'{MOST_PAST} of'} {len(past):,}", key="recommend_all_past")
    for place, (item, title) in enumerate(removed.items(), start=1):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", gap="small", wrap=False):
            st.markdown(f":small[:gray[Removed: ~~{ui.esc(ui.short(title, 50))}~~]]")
            label = ":small[Put back]"
            st.button(label, key=f"rec-keep-{place}", type="tertiary", on_click=_act, args=("keep", item, title))


def _met(met: Past, place: int) -> None:
    """One item of the past: what, how, when, and what it does to the list."""
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", wrap=False):
        st.markdown(f"{ui.esc(ui.short(met.title, 60))}  \n:small[:gray[{_how_met(met)}]]", width="stretch")
        st.button(
            ":small[Without it?]", key=f"rec-if-{place}", type="tertiary", on_click=_without, args=(met.item, met.title),
            help="What would change on your list", wrap=False,
        )  # fmt: skip
        st.button(
            "", key=f"rec-forget-{place}", type="tertiary", icon=":material/close:", on_click=_act,
            args=("forget", met.item, met.title), help="Remove this from my history",
        )  # fmt: skip


def _how_met(met: Past) -> str:
    """What kind of meeting, where it is known from, and when, as far as anybody knows. Markdown."""
    source = SOURCES.get(met.source, ui.esc(met.source))
    parts = [f"{MET[met.kind]} {source}" if met.kind in MET else source]
    if met.happened_at is not None:
        recent = (clock.now() - met.happened_at).days < 2
        parts.append(clock.ago(met.happened_at) if recent else f"{met.happened_at.day} {met.happened_at:%b %Y}")
    return " · ".join(parts)


# ---------------------------------------------------------------- what a person does


def _act(kind: str, item: str, title: str) -> None:
    """Send one event; the next drawing shows what it changed. A refusal is said, nothing is lost."""
    desk, who = runtime.current(), st.session_state.get("recommend_who") or ""
    before, now = st.session_state.get("recommend_clicked", ("", 0.0)), time.monotonic()
    st.session_state["recommend_clicked"] = (kind, now)
    if desk is None or not who or (kind == before[0] and now - before[1] < TWICE_S):
        return
    try:
        noted = desk.recommend.note([Event(who=who, item=item, kind=kind)])
    except FMError as error:
        st.session_state["recommend_refused"] = (str(error),)
        return
    st.session_state["recommend_refused"] = tuple(f"Not stored: {reason}" for _, reason in noted.refused)
    if noted.refused:
        return
    st.session_state["recommend_did"] = (kind, item, title)
    removed = st.session_state.setdefault("recommend_removed", {}).setdefault(who, {})
    if kind == "forget":
        removed[item] = title
    elif kind == "keep":
        removed.pop(item, None)
    _again()


def _forget(item: str, title: str) -> None:
    _act("forget", item, title)
    st.session_state.pop("recommend_open", None)


def _why(item: str, title: str) -> None:
    st.session_state["recommend_open"] = ("why", item, title)


def _without(item: str, title: str) -> None:
    st.session_state["recommend_open"] = ("without", item, title)


# ---------------------------------------------------------------- facts


def facts(desk: Any) -> str:
    """The line under the page's title: version, data, quality. Markdown."""
    name = desk.recommend.info()["version"] or ""
    version = next((v for v in desk.registry.versions("recommend") if v.version == name), None)
    if version is None:
        return ui.esc(name)
    synthetic = " (synthetic)" if version.metrics.get("synthetic") else ""
    hit = f"next item among ten: {figures.full(figures.at(version.metrics, 'hr'))}"
    return " · ".join([f"{'Live' if version.stage == 'champion' else 'Serving'}: {ui.esc(name)}", ui.esc(version.dataset) + synthetic, hit])


def _fresh(desk: Any, shelf: Any, answer: Answer) -> str:
    """How new what answered is, and on how much it was made. Markdown."""
    n = shelf.facts.get("n_interactions")
    version = desk.registry.get("recommend", answer.version)
    parts = [
        f"Version {ui.esc(answer.version)}, trained {clock.ago(version.created_at)}"
        + (f" on {n:,} interactions of {len(shelf.users):,} people" if n else "")
    ]
    folded = next((run for run in desk.runs.history(job="fold_in", limit=5) if run.state == "succeeded"), None)
    if folded is not None:
        parts.append(f"later ones counted {clock.ago(folded.finished_at)}")
    return "; ".join(parts)
