"""Intent: what a customer wants, how sure the model is, and what to answer. One message, many messages, or a new intent.

Draws predictions of the engine. A message lives in this session only: never in the address, a shared cache or the log.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from typing import Any

import streamlit as st

from fmcore import clock, runtime
from fmcore.data import catalogue
from fmcore.nouns import FMError, ModelVersion, Prediction
from fmcore.serving import replies
from fmcore.text import MAX_CHARS, clean
from pages import answers, figures, intent_batch, intent_teach, live, ui, why

TASK = "intent"
TOP = 5
VIEWS = ("One message", "Many messages", "Teach an intent")
FOLLOW = "live version"


def page() -> None:
    """The whole page: an empty state that waits for a first model, or the three views."""
    desk = runtime.current()
    if desk is None:
        ui.no_server()
        return
    versions = desk.registry.versions(TASK)
    champion = desk.registry.champion(TASK)
    if champion is None:
        _no_model(desk, len(versions))
        return
    chosen, other = _toolbar({v.version: v for v in versions}, champion, desk)
    view = st.segmented_control(
        "View", VIEWS, key="view", default=VIEWS[0], required=True, bind="query-params", label_visibility="collapsed"
    )
    if view == "Many messages":
        intent_batch.draw(desk, chosen)
    elif view == "Teach an intent":
        intent_teach.draw(desk, chosen)
    else:
        _one_message(desk, chosen, other)


def _about(desk: Any, version: ModelVersion) -> str:
    """The line under the title: which version, on which data, how good, how fresh."""
    state = "Live" if version.stage == "champion" else "Not live"
    parts = [f"{state}: {ui.esc(version.version)}", f"data set {ui.esc(version.dataset)}"]
    if desk.registry.facts(version).get("synthetic"):
        parts[-1] += " (synthetic)"
    parts.append(f"accuracy {figures.full(figures.at(version.metrics, 'accuracy'))}")
    parts.append(f"trained {clock.ago(version.created_at)}")
    return " · ".join(parts)


def _toolbar(named: Mapping[str, ModelVersion], champion: ModelVersion, desk: Any) -> tuple[ModelVersion, ModelVersion | None]:
    """Title and choice of versions: (the one that answers, the one beside it or None).

    "live version" follows the champion: a promotion shows at the next answer.
    """
    chosen = named.get(st.session_state.get("version", ""), champion)
    with ui.header("Intent", _about(desk, chosen)):
        name = st.selectbox("Model version", [FOLLOW, *named], key="version", bind="query-params", label_visibility="collapsed", width=240)
        chosen, other = named.get(name, champion), None
        if st.session_state.get("view", VIEWS[0]) != VIEWS[0]:
            return chosen, None
        rest = [v for v in named if v != chosen.version]
        if rest and st.session_state.get("compare"):
            picked = st.selectbox("Compare with", rest, key="against_version", bind="query-params", label_visibility="collapsed", width=240)
            other = named.get(picked, named[rest[0]])
        why = None if rest else "Needs two versions: start a run on the Training page."
        compare = st.toggle("Compare two models", key="compare", bind="query-params", disabled=not rest, help=why)
        if compare and rest and other is None:
            other = named[rest[0]]
    return chosen, other


@st.fragment(run_every=2.0)
def _no_model(desk: Any, n_versions: int) -> None:
    """Nothing is live yet: the first training run's progress, and the page opens by itself when it ends."""
    if desk.registry.champion(TASK) is not None:
        st.rerun()
    ui.header("Intent", "No model is live yet")
    training = live.training(desk, TASK)
    if training:
        with st.container(border=True):
            ui.card("The first model is being trained", "this page opens by itself when it is live")
            live.strip(training[0], desk.runs.metrics(training[0].id))
        return
    if n_versions:
        with ui.empty(
            "No version is live", f"{n_versions} trained, none promoted. Promote one on the Models page.", icon=":material/verified:"
        ):
            st.page_link("models.py", label="Open Models", icon=":material/deployed_code:")
        return
    last = next((run for run in desk.runs.history(job="finetune", limit=20) if run.params.get("task") == TASK), None)
    why = "Train one on the demo data on the Training page: a minute or two on two cores."
    if last and last.error:
        why = f"The last run ended early: {ui.short(last.error, 200)}"
    with ui.empty("No model yet", why, icon=":material/model_training:"):
        st.page_link("training.py", label="Open Training", icon=":material/play_arrow:")


# --- one message


def _one_message(desk: Any, chosen: ModelVersion, other: ModelVersion | None) -> None:
    _ask_card(chosen)
    message = st.session_state.get("intent_asked")
    if not message:
        ui.empty("Ask about a message", "Type one, or pick an example above. It stays in this browser session.", icon=":material/chat:")
        return
    if st.session_state.get("intent_cut"):
        st.warning(f"The message was longer than {MAX_CHARS:,} characters; its beginning is classified.", icon=":material/content_cut:")
    try:
        found = [_named(desk, version, *_answer(desk, message, version)) for version in (chosen, other) if version]
    except FMError as error:
        ui.refusal(error)
        return
    if len(found) == 2:
        for cell, (version, prediction, took), series in zip(ui.split(1, 1), found, (0, 1), strict=True):
            with cell:
                _answer_card(desk, version, prediction, took, series)
        _whys(desk, message, [version for version, _, _ in found])
        left, right = ui.split(2, 1)
        with right:
            _agreement(found[0][1], found[1][1])
    else:
        left, right = ui.split(2, 1)
        version, prediction, took = found[0]
        with left:
            _answer_card(desk, version, prediction, took, 0)
        with right:
            _certainty(version, prediction)
        _whys(desk, message, [version])
        left = st.container(border=True)
    with left:
        _reply(desk, message, found[0][1])
    _as_curl(message, found[0][1].version, token=desk.settings.secret_api_token is not None)


def _named(desk: Any, asked: ModelVersion, prediction: Prediction, took: str) -> tuple[ModelVersion, Prediction, str]:
    """The answer under the version that gave it: not always the one that was asked."""
    if prediction.version == asked.version:
        return asked, prediction, took
    warning = desk.engine.info(TASK)["warning"] or f"{asked.version} does not answer."
    st.warning(f"{ui.esc(warning)} {ui.esc(prediction.version)} answers instead.", icon=":material/warning:")
    return desk.registry.get(TASK, prediction.version), prediction, took


def _ask_card(version: ModelVersion) -> None:
    """The message box (Enter sends it) and example chips from the model's own data set."""
    with st.container(border=True):
        with st.form("intent_form", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
            st.text_input("Customer message", key="intent_message", placeholder="What does the customer write?")
            st.form_submit_button("Classify", type="primary", icon=":material/send:", on_click=_asked)
        examples = _examples(version.dataset)
        if examples:
            st.pills("Examples", examples, key="intent_example", on_change=_picked, format_func=shortened, label_visibility="collapsed")


def shortened(message: str) -> str:
    return ui.esc(message if len(message) <= 60 else message[:57] + "...")


def _asked() -> None:
    """Enter or Classify: the box's text becomes the question."""
    _ask(st.session_state.get("intent_message", ""))
    st.session_state["intent_example"] = None


def _picked() -> None:
    """An example chip: its text goes into the box and is asked."""
    if example := st.session_state.get("intent_example"):
        st.session_state["intent_message"] = example
        _ask(example)


def _ask(raw: str) -> None:
    message, cut = clean(raw)
    st.session_state.update(intent_asked=message.strip(), intent_cut=cut, intent_answers={}, intent_reply=0, intent_why=set())


@st.cache_data(show_spinner=False, ttl=600)
def _examples(dataset: str) -> list[str]:
    """Three held-out messages of different intents and one out-of-scope one; none where the data set is not here."""
    try:
        test = catalogue.load(dataset).test
    except FMError:
        return []
    short = test[test["text"].str.len().between(15, 60)]
    inside = short[short["label"] != catalogue.OOS].drop_duplicates("label")
    spread = inside.iloc[:: max(1, len(inside) // 3)][:3]["text"].tolist()
    return spread + short[short["label"] == catalogue.OOS]["text"].head(1).tolist()


def _answer(desk: Any, message: str, version: ModelVersion) -> tuple[Prediction, str]:
    """The engine's answer and in words how long it took here, kept in the session for this message and version only.

    The live version is asked for as such, not by name: where its files fail, the engine answers from the one before.
    """
    kept = st.session_state.setdefault("intent_answers", {})
    if version.version not in kept:
        cold = version.version not in desk.engine.info(TASK)["loaded"]
        with st.skeleton(height=300):
            began = time.perf_counter()
            named = None if version.stage == "champion" else version.version
            prediction = desk.engine.predict(TASK, [message], version=named)[0]
            took = f"{1000 * (time.perf_counter() - began):,.0f} ms{', loading the model included' if cold else ''}"
        kept[version.version] = (prediction, took)
    return kept[version.version]


def _answer_card(desk: Any, version: ModelVersion, prediction: Prediction, took: str, series: int) -> None:
    facts = desk.registry.facts(version)
    mark = f" {ui.synthetic_mark()}" if facts.get("synthetic") else ""
    ui.card(
        ui.esc(version.version),
        f"{took} · {ui.esc(version.recipe)} · {ui.esc(version.dataset)}",
        ui.chip(*answers.verdict(prediction)) + mark,
    )
    ranked = list(prediction.scores.items())[:TOP]
    least = facts.get("least_probability")
    fig = answers.bars(ranked, series, least)
    told = "; ".join(f"{figures.label(name)} {figures.probability(score)}" for name, score in ranked)
    ui.show(fig, f"bars-{series}", f"Probability of the {len(ranked)} likeliest intents: {told}.")
    ahead = ranked[0][1] - (ranked[1][1] if len(ranked) > 1 else 0.0)
    gap = f"The runner-up is {100 * ahead:.0f} points behind." if ahead > 0.2 else f"Only {100 * ahead:.0f} points ahead: ask the customer."
    gap = "The runner-up is far behind." if ahead > 0.985 else gap
    lead = "Answer" if prediction.in_scope else "Nearest intent"
    st.markdown(f"{lead}: **{ui.esc(figures.label(prediction.label))}**, {ui.esc(figures.probability(prediction.score))}. {gap}")
    dotted = f" Dotted: intents above {figures.points(least, 0)} enter the answer set." if least is not None else ""
    ui.note(ui.esc(prediction.reason.replace(" -", " −")) + dotted)
    if prediction.truncated:
        ui.note("The model read the beginning only: the message is longer than it can take in.")
    opened = version.version in st.session_state.get("intent_why", ())
    icon = ":material/expand_less:" if opened else ":material/expand_more:"
    st.button("Why?", key=f"intent-why-{series}", type="tertiary", icon=icon, on_click=_toggle_why, args=(version.version,))


def _toggle_why(version: str) -> None:
    st.session_state.setdefault("intent_why", set()).symmetric_difference_update({version})


def _whys(desk: Any, message: str, versions: list[ModelVersion]) -> None:
    """Why each version said what it said, for those of which it was asked: under their answers, side by side where both were asked."""
    opened = [version.version for version in versions if version.version in st.session_state.get("intent_why", ())]
    cells = ui.split(1, 1) if len(opened) == 2 else [st.container(border=True) for _ in opened]
    for cell, version in zip(cells, opened, strict=True):
        with cell, ui.guarded():
            ui.card("Why?", ui.esc(version))
            why.draw(desk, TASK, message, version=version, key=f"intent-{version}", compact=len(opened) == 2)


def _certainty(version: ModelVersion, prediction: Prediction) -> None:
    """How far to trust the answer: the answer set, and how unlike its training text the message is."""
    ui.card("How sure?", "")
    st.markdown(answers.answer_set(version.metrics, prediction))
    ui.show(
        answers.gauge(prediction),
        "novelty",
        f"Novelty {prediction.novelty:.2f} standard deviations; out of scope above {prediction.threshold:.2f}.",
    )
    recall = figures.at(version.metrics, "oos.recall")
    if recall:
        ui.note(f"The dotted line is the served threshold: at it, {figures.full(recall)} of out-of-scope test messages are caught.")


def _agreement(a: Prediction, b: Prediction) -> None:
    """Whether two versions say the same, and where each ranks the other's answer."""
    ui.card("Do the models agree?", "")
    if a.label == b.label and a.in_scope == b.in_scope:
        st.markdown(f"{ui.chip('They agree', 'green', ':material/check_circle:')} on the answer and on the scope.")
    elif a.label == b.label:
        st.markdown(f"{ui.chip('They differ', 'orange', ':material/compare_arrows:')} on the scope; the likeliest intent is the same.")
    else:
        ranks = [list(p.scores).index(q.label) + 1 if q.label in p.scores else None for p, q in ((a, b), (b, a))]
        where = " and ".join(f"number {rank}" if rank else "not at all" for rank in ranks)
        st.markdown(f"{ui.chip('They differ', 'orange', ':material/compare_arrows:')} on the answer: they rank the other's {where}.")
    rows = {
        "Answer": [ui.esc(figures.label(p.label)) for p in (a, b)],
        "Probability": [ui.esc(figures.probability(p.score)) for p in (a, b)],
        "Scope": [answers.verdict(p)[0] for p in (a, b)],
        "Answer set": [f"{len(p.candidates)} intents" if len(p.candidates) != 1 else "1 intent" for p in (a, b)],
    }
    table = {"": list(rows), "First": [r[0] for r in rows.values()], "Second": [r[1] for r in rows.values()]}
    st.table(table, border="horizontal", hide_index=True)


def _reply(desk: Any, message: str, prediction: Prediction) -> None:
    """The stored reply that fits best, and the next ones on request."""
    try:
        found = replies.best_replies(desk.engine, TASK, message, prediction)
    except FMError as error:
        ui.refusal(error)
        return
    if not found:
        ui.card("Best reply", "")
        st.markdown("This version stores no replies: its data set has none.")
        return
    place = st.session_state.get("intent_reply", 0) % len(found)
    reply = found[place]
    if prediction.in_scope:
        ui.card("Best reply", f"match {reply.score:.2f} of 1 · {ui.esc(reply.source)}", ui.chip(figures.label(reply.intent), "blue"))
    else:
        ui.card("Best reply", "no stored reply is offered out of scope", ui.chip("Hand-over", "orange", ":material/forward:"))
    with st.chat_message("assistant", avatar=":material/support_agent:"):
        st.markdown(ui.esc(reply.text))
    if len(found) > 1:
        label = f"Next reply ({place + 1} of {len(found)})"
        st.button(label, key="intent_next", type="tertiary", icon=":material/skip_next:", on_click=_next_reply)


def _next_reply() -> None:
    st.session_state["intent_reply"] = st.session_state.get("intent_reply", 0) + 1


def _as_curl(message: str, version: str, *, token: bool) -> None:
    """The same question as a call of the REST API, quoted for a shell; a token is named, never shown."""
    with st.expander("Copy as curl", icon=":material/terminal:"):
        origin = "/".join((st.context.url or "http://127.0.0.1:8501").split("/")[:3])
        body = shlex.quote(json.dumps({"task": TASK, "texts": [message], "version": version}, ensure_ascii=False))
        bearer = ' \\\n  -H "Authorization: Bearer $FM_SECRET_API_TOKEN"' if token else ""
        call = f"curl -s {shlex.quote(origin + '/api/predict')}{bearer} \\\n  -H 'Content-Type: application/json' \\\n  -d {body}"
        st.code(call, language="bash", wrap_lines=True)


if __name__ == "__main__":
    page()
