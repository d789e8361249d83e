"""One text, a view of the Explain page: why the model said so, whether to believe it, what would change its answer, what it learnt from.

Draws what desk.explain answers. The text lives in this session only, until somebody sends it for review: that is said beside the button.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from fmcore.data import catalogue
from fmcore.explain import telling
from fmcore.explain.answering import Answer
from fmcore.explain.asking import Question
from fmcore.nouns import FMError, Prediction
from fmcore.tasks import TASKS
from fmcore.text import MAX_CHARS, clean
from pages import answers, explain_changes, explain_known, figures, ui, why
from pages import explain_charts as charts

OWN = "the model's answer"
"""The target where nobody chose one."""
TOP = 5
N_EXAMPLES = 4

METHODS = {
    "fast": ("a surrogate learnt from a few dozen masked texts; its Shapley values add up", (20, 40, 80, 160)),
    "exact": ("every subset of the words: the yardstick, for texts of up to 10 words", (1024,)),
    "shap": ("random orders of the words, walked both ways; steady from some hundred texts on", (50, 100, 200, 500)),
    "lime": ("a line fitted to random subsets near the text; does not have to add up", (100, 200, 500)),
    "gradients": ("the slope of the PyTorch model from an empty text to this one; its steps count, not its texts", (16, 32, 64)),
    "occlusion": ("each word left out once; quick, but blind to words that do the same job", (40, 80, 160)),
}
"""Method -> what it does and where it is weak, in a sentence; the budgets that can be chosen."""
USUAL = 0
"""The budget that the method takes by itself; fast takes more for longer texts."""


@dataclass(frozen=True)
class _Choice:
    """How the text is explained: method, the texts it may ask for, and the target (None: the model's answer); no budget: the usual one."""

    method: str
    budget: int | None
    target: str | None


def draw(desk: Any, task: str, version: str) -> None:
    """The text box, and below it everything about the text that was asked last."""
    choice, place = _ask_card(desk, task, version)
    try:
        _answered(desk, task, version, choice)
    finally:  # last, since the labels to choose from may have come with the answer
        _target_box(task, place)


def _answered(desk: Any, task: str, version: str, choice: _Choice) -> None:
    """Everything below the card, about the text that was asked last."""
    asked_version = None if (live := desk.registry.champion(task)) and live.version == version else version
    text = st.session_state.get("explain_asked")
    if text is None:
        words = "Type one, or pick an example above. It stays in this browser session."
        ui.empty("Which answer shall be explained?", words, icon=":material/troubleshoot:")
        return
    if st.session_state.get("explain_cut"):
        st.warning(f"The text was longer than {MAX_CHARS:,} characters; its beginning is explained.", icon=":material/content_cut:")
    question = Question(
        task=task, text=text, version=asked_version, method=choice.method, budget=choice.budget, target=choice.target
    )
    answer = _explained(desk, question)
    if answer is None:
        return
    _trusted(desk, question, answer)
    for part in (explain_changes.flips, explain_changes.compare, explain_known.draw):
        with ui.guarded():
            part(desk, question, answer)


# ---------------------------------------------------------------- asking


def _ask_card(desk: Any, task: str, version: str) -> tuple[_Choice, DeltaGenerator]:
    """Text, examples, and how it is explained; with the place that is kept for the box of targets."""
    with st.container(border=True):
        form = st.form("explain_form", border=False)
        with form, st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            hint = "A message, a headline, an article"
            st.text_area("Text", key="explain_text", height=76, placeholder=hint, label_visibility="collapsed", persist_state="session")
            st.form_submit_button("Explain", type="primary", icon=":material/troubleshoot:", on_click=_asked)
        examples = _examples(desk.registry.get(task, version).dataset)
        if examples:
            st.pills(
                "Examples", list(examples), key=f"explain_example_{task}", on_change=_picked, args=(task,), format_func=_shortened,
                label_visibility="collapsed",
            )  # fmt: skip
        return _choice(task)


def _choice(task: str) -> tuple[_Choice, DeltaGenerator]:
    """Method, budget and target, with a sentence on what they cost; and the place of the box in which the target is chosen."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        method = st.selectbox(
            "Method", list(METHODS), key="explain_method", format_func=why.METHODS.get, width=210, persist_state="session"
        )
        said, budgets = METHODS[method]
        unit = "Steps" if method == "gradients" else "Texts it may ask the model for"
        budget = st.selectbox(
            unit, (USUAL, *budgets), key=f"explain_budget_{method}", format_func=lambda n: f"{n:,}" if n else "as usual", width=210,
            disabled=len(budgets) == 1, persist_state="session",
        )  # fmt: skip
        place = st.container(width=240)
    options = _targets(task)
    target = st.session_state.get(f"explain_target_{task}", options[0])
    ui.note(f"{ui.esc(why.METHODS[method])}: {ui.esc(said)}. The text stays in this browser session.")
    return _Choice(method, int(budget) or None, None if target == OWN else target), place


def _target_box(task: str, place: DeltaGenerator) -> None:
    """Which score is explained. A run of the page over again for new labels would do too, but the text box then loses what another page
    put into it: of two runs in one breath Streamlit sends the browser only the second, in which the text is no news any more."""
    options = _targets(task)
    if (chosen := st.session_state.get(f"explain_target_{task}", OWN)) not in options:
        options.append(chosen)  # it was explained just now, though the new text's answer ranks other labels first
    with place:
        st.selectbox("What is explained", options, key=f"explain_target_{task}", format_func=_target_name, width=240)


def _targets(task: str) -> list[str]:
    """What can be explained: the net score first where the task has one, for there ▲ means good news as on every other page; the model's
    own answer; and its likeliest labels."""
    seen: Prediction | None = st.session_state.get("explain_seen", {}).get(task)
    labels = list(seen.scores)[:TOP] if seen else list(TASKS[task].labels)
    return [*(["net"] if set(TASKS[task].labels) >= {"positive", "negative"} else []), OWN, *labels]


def _target_name(target: str) -> str:
    if target == "net":
        return "net score (positive less negative)"
    return target if target == OWN else figures.label(target)


def _shortened(text: str) -> str:
    return ui.esc(ui.short(text, 42))


def _asked() -> None:
    """Explain: the box's text becomes the question."""
    _ask(st.session_state.get("explain_text", ""))


def _picked(task: str) -> None:
    """An example chip: its text goes into the box and is asked."""
    if example := st.session_state.get(f"explain_example_{task}"):
        st.session_state["explain_text"] = example
        _ask(example)


def _ask(raw: str) -> None:
    text, cut = clean(raw)
    st.session_state.update(explain_asked=text.strip(), explain_cut=cut)


@st.cache_data(show_spinner=False, ttl=600)
def _examples(dataset: str) -> tuple[str, ...]:
    """A few held-out rows of different labels and lengths; none where the data set is not here."""
    try:
        test = catalogue.load(dataset).test
    except FMError:
        return ()
    fit = test[test["text"].str.len().between(25, 140)]
    inside = fit[fit["label"] != catalogue.OOS]
    one_each = inside.drop_duplicates("label")
    rows = one_each if len(one_each) >= N_EXAMPLES else inside.groupby("label").head(2)
    return tuple(rows.iloc[:: max(1, len(rows) // N_EXAMPLES)]["text"].head(N_EXAMPLES))


# ---------------------------------------------------------------- the answer


def _explained(desk: Any, question: Question) -> Answer | None:
    """The words in reading order and the strongest ones."""
    left, right = ui.split(2, 1)
    with left:
        place = st.container()
        answer = why.answered(desk, question, key="explain-one", doing="Asking the model")
        with place:
            _heading(desk, answer)
        if answer is not None:
            why.sentence(answer)
            why.words(answer.explanation, question.text, key="explain-one")
            if answer.explanation.tokens:
                alt = f"Every word in reading order. {charts.in_words(answer.explanation)}"
                ui.show(charts.reading_strip(answer.explanation), "explain-strip", alt)
            why.numbers(answer.explanation, key="explain-one")
            why.facts(answer)
    with right:
        net = answer is not None and answer.explanation.target == "net"
        ui.card("Strongest words", "points of net score" if net else "points of its probability")
        if answer is not None:
            why.strongest(answer.explanation, key="explain-one")
        else:
            st.markdown("The bars come with the answer.")
    if answer is not None:
        st.session_state.setdefault("explain_seen", {})[question.task] = answer.prediction
    return answer


def _heading(desk: Any, answer: Answer | None) -> None:
    if answer is None:
        ui.card("Word by word")
        return
    shown = [why.answer_chip(answer.explanation)]
    if not answer.prediction.in_scope:
        shown.append(ui.chip(*answers.verdict(answer.prediction)))
    shown.append(why.mark(desk, answer.explanation.task, answer.explanation.version))
    ui.card("Word by word", "", " ".join(part for part in shown if part))


def _trusted(desk: Any, question: Question, answer: Answer) -> None:
    """The verdict with its checks, and the curves with the agreement of methods. Asked for on its own: the words do not wait for it."""
    left, right = ui.split(1, 1)
    with left, ui.guarded():
        place = st.container()
        checked = why.answered(desk, dataclasses.replace(question, parts=("trust",)), key="explain-trust")
        trust = checked.trust if checked is not None else None
        with place:
            ui.card("Can you trust this?", "", why.verdict_chip(trust) if trust is not None else "")
        if trust is not None:
            st.markdown(why.told(telling.verdict(trust)))
            why.checks(trust)
            ui.note(f"{trust.n_calls:,} texts were asked of the model to check.")
        elif checked is not None:
            st.markdown(f"It could not be checked. {ui.esc(checked.missing.get('trust', ''))}")
    with right, ui.guarded():
        target = answer.explanation.target
        what = "net score" if target == "net" else f"“{ui.esc(figures.label(target))}”"
        ui.card("Deletion and insertion", f"{what} as words go, or come back")
        if trust is None:
            st.markdown("The curves come with the checks.")
        elif trust.deletion is None and trust.insertion is None:
            st.markdown("Too few words to take away or bring back.")
        else:
            ui.show(charts.curves(trust), "explain-curves", charts.curves_in_words(trust))
        if trust is not None and trust.agreement:
            ui.note("Do other methods rank the words alike? 1 is the same order, 0 is chance")
            st.table(why.agreement(trust.agreement), border="horizontal", hide_index=True)
