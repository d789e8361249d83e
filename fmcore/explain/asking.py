"""Asking why: a question about one text in, its explanation and what goes with it out.

Owns what may be asked, in words when it may not, and from which version the whole answer comes. The line that questions wait in is
tickets.py's, what is stored is kept.py's, the answer itself answering.py's. A question shows no text when printed, and no error quotes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmcore import tasks
from fmcore.explain import attributions, words
from fmcore.explain.answering import NET, PARTS, Answer, Asked, Making, Model, NotStored, Sources
from fmcore.explain.gradients import STEPS
from fmcore.explain.kept import Content, Kept, Place
from fmcore.explain.tickets import PATIENCE_S, Line, Step, Ticket, TookTooLong
from fmcore.models.registry import Tampered
from fmcore.nouns import Explanation, FMError, Trust
from fmcore.serving.engine import Engine, Refused
from fmcore.store.store import Store
from fmcore.text import MAX_CHARS, clean

if TYPE_CHECKING:
    from fmcore.models.classifier import Classifier

__all__ = ["METHODS", "NET", "PARTS", "Answer", "BadQuestion", "Explain", "Question", "Ticket", "TookTooLong", "told"]

METHODS = (*attributions.METHODS, "gradients")
ALIASES = {"ig": "gradients"}
"""Names of methods at the command line and the API, beside their own."""
LEAST, MOST = 8, 2_000
MOST_STEPS = 256


class BadQuestion(FMError):
    """A question that cannot be asked."""


@dataclass(frozen=True)
class Question:
    """version None: the champion. budget None: the method's usual one. target: a label, "net" where the labels are negative, neutral and
    positive, or None for the model's own answer. "explanation" is among the parts whatever they are. The text does not show when printed.
    """

    task: str
    text: str = field(repr=False)
    version: str | None = None
    method: str = "fast"
    budget: int | None = None
    target: str | None = None
    parts: Sequence[str] = ("explanation",)


class Explain:
    """Answers of a desk to "why?", each question computed once; safe from any number of threads."""

    def __init__(self, engine: Engine, store: Store, home: Path):
        self._engine, self._kept = engine, Kept(store, Path(home))
        self._sources = Sources(engine, self._kept, Path(home))
        self._line = Line(self._worked)

    def ask(self, question: Question, *, who: str) -> Ticket:
        """A ticket; done at once where everything is stored. Raises BadQuestion, UnknownTask, UnknownModel, Overloaded, Stopping."""
        asked = self._checked(question)
        answer = self._assembled(asked, self._sources.found(asked), None)
        return self._line.join(asked, key=asked, who=who) if answer is None else self._line.over(answer, who=who)

    def answer(self, question: Question, *, timeout_s: float = PATIENCE_S, who: str, gone: Callable[[], bool] | None = None) -> Answer:
        """The answer itself. `gone` is asked twice a second whether the asker has left; then, and after timeout_s, the slot is free again.

        Raises what `ask` raises, the ticket's own error, and TookTooLong.
        """
        ticket = self.ask(question, who=who)
        until = time.monotonic() + timeout_s
        try:
            while not ticket.wait(min(0.5, max(0.0, until - time.monotonic()))):
                if time.monotonic() >= until:
                    raise TookTooLong(f"No answer within {timeout_s:.0f} s.", "Ask with a smaller budget, or again in a while.")
                if gone is not None and gone():
                    raise TookTooLong("The asker has left.")
        finally:
            ticket.cancel()
        if ticket.state == "done":
            return ticket.answer
        raise ticket.error or TookTooLong("The explanation was cancelled.", "Ask again.")

    def close(self) -> None:
        """End what waits and what is under way, and the threads; safe to repeat."""
        self._line.close()

    # --- what may be asked

    def _checked(self, question: Question) -> Asked:
        method = ALIASES.get(question.method, question.method)
        if method not in METHODS:
            raise BadQuestion("There is no such method.", f"Methods: {', '.join(METHODS)}.")
        text, _ = clean(question.text)
        steps = method == "gradients"
        usual, most = (STEPS, MOST_STEPS) if steps else (attributions.usual_budget(method, len(words.split(text))), MOST)
        budget = usual if question.budget is None else question.budget
        if isinstance(budget, bool) or not isinstance(budget, int) or not LEAST <= budget <= most:
            raise BadQuestion(f"The budget of {method} must be a whole number from {LEAST} to {most:,}.", f"{usual} is the usual one.")
        if not set(question.parts) <= set(PARTS):
            raise BadQuestion("There is no such part of an answer.", f"Parts: {', '.join(PARTS)}.")
        task = tasks.task(question.task).name
        version = self._version(task, question.version)
        self._check_target(task, version, question.target)
        n_beyond = max(0, len(str(question.text or "")) - MAX_CHARS)
        parts = tuple(part for part in PARTS if part == "explanation" or part in question.parts)
        digest = self._kept.digest(text)
        return Asked(task, text, n_beyond, digest, version, question.version is not None, method, budget, question.target, parts)

    def _version(self, task: str, version: str | None) -> str:
        """The version asked for, or the one that serves at this moment. Raises UnknownModel."""
        registry = self._engine.registry
        if version is not None:
            return registry.get(task, version).version
        told = self._engine.info(task)
        return (told["serving"] if told["warning"] else None) or registry.resolve(task).version

    def _check_target(self, task: str, version: str, target: str | None) -> None:
        if target is None:
            return
        registry = self._engine.registry
        labels = registry.labels(registry.get(task, version))
        if target in labels or (target == NET and set(labels) == set(tasks.SENTIMENTS)):
            return
        shown = ", ".join([*labels[:5], *(["..."] if len(labels) > 5 else []), *([NET] if set(labels) == set(tasks.SENTIMENTS) else [])])
        raise BadQuestion(f"{version} has no such label to explain.", f"Labels: {shown}. Leave the target out for the model's own answer.")

    # --- one answer

    def _worked(self, asked: Asked, step: Step) -> Answer:
        """On a thread of the line: what is not stored comes from the model, one and the same from beginning to end."""
        with ExitStack() as stack:
            classifier = self._leased(asked, stack)
            if classifier.version != asked.version:
                asked = replace(asked, version=classifier.version)
                self._check_target(asked.task, asked.version, asked.target)
            return self._assembled(asked, self._sources.found(asked), Model(classifier, step))

    def _leased(self, asked: Asked, stack: ExitStack) -> Classifier:
        """The version that was serving when the question came, else (its folder is refused) the one that serves in its stead."""
        lease: Callable[..., AbstractContextManager[Classifier]] = self._engine.classifier
        if not asked.pinned:
            with suppress(Refused, Tampered):
                return stack.enter_context(lease(asked.task, version=asked.version))
            return stack.enter_context(lease(asked.task))
        return stack.enter_context(lease(asked.task, version=asked.version))

    def _assembled(self, asked: Asked, found: Mapping[Place, Content], model: Model | None) -> Answer | None:
        """An answer from what is stored and from the model; without a model None as soon as something is not stored."""
        making = Making(self._sources, asked, found, model)
        with suppress(NotStored):
            return making.answer()
        return None


# --- in JSON


def told(answer: Answer) -> dict[str, Any]:
    """An answer as the API and the command line give it: base_value + sum(values) = score, up to additivity_error.

    label is the model's answer to the text, target what is explained. faithfulness and flips are null where they were not
    asked for or could not be had; missing says then why.
    """
    made, said = answer.explanation, answer.prediction
    return {
        **_explained(made), "sentence": answer.sentence, "faithfulness": None if answer.trust is None else _faithfulness(answer.trust),
        "flips": None if answer.flips is None else [asdict(flip) for flip in answer.flips], "tried": answer.tried,
        "prediction": {name: getattr(said, name) for name in ("label", "score", "in_scope", "novelty", "threshold", "truncated")},
        "missing": dict(answer.missing),
    }  # fmt: skip


def _explained(made: Explanation) -> dict[str, Any]:
    names = ("base_value", "label", "score", "additivity_error", "target", "task", "version", "method", "budget", "n_calls", "n_unread")
    lists = {"tokens": list(made.tokens), "values": list(made.values), "spans": [list(span) for span in made.spans]}
    return {**lists, **{name: getattr(made, name) for name in names}, "made_at": made.made_at.isoformat(), "stored": made.stored}


def _faithfulness(trust: Trust) -> dict[str, Any]:
    checks = [{"name": name, "passed": passed, "sentence": said} for name, passed, said in trust.checks]
    curves = {
        name: None if curve is None else {"area": curve.area, "random_area": curve.random_area, "low": curve.low, "high": curve.high}
        for name, curve in (("deletion", trust.deletion), ("insertion", trust.insertion))
    }
    names = ("verdict", "comprehensiveness", "sufficiency", "stability", "n_calls")
    return {**{name: getattr(trust, name) for name in names}, "agreement": dict(trust.agreement), **curves, "checks": checks}
