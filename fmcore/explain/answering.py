"""Answering: one answer to "why?", part by part, each from the store where it fits and else from the model.

Owns how the model is asked (its own threads, outside the micro-batches: a probe is no prediction and is not journalled), how far it
reads, and what goes with an explanation. Who may ask what, and when, is asking.py's; the methods are attributions.py's, gradients.py's
and their neighbours'. No text of a question reaches a log, an error or a table.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore import clock
from fmcore.explain import attributions, kept, telling, words
from fmcore.explain.kept import Content, Kept, Place
from fmcore.explain.tickets import Step, TookTooLong
from fmcore.nouns import Explanation, Flip, FMError, Neighbour, Prediction, Trust
from fmcore.serving.engine import Engine

if TYPE_CHECKING:
    from fmcore.models.classifier import Classifier

PARTS = ("explanation", "trust", "flips", "neighbours")
NET = "net"
SEEDED = ("fast", "shap", "lime")
"""Methods that draw at random: trust asks them again under SEEDS."""
SEEDS = (1, 2)
NEIGHBOURS = 6
BATCH_CHARS = 100_000
"""Characters of one batch at most, of texts of the same length: a batch is not stopped in its middle."""
MAX_NEARBY = 256
"""Answers of "neighbours" held in memory: they show texts of the training data, which do not belong into the table."""
SHARES = {"explanation": 3.0, "trust": 4.0, "flips": 4.0, "neighbours": 0.5}
"""How long the parts take, one against another: for the bar."""


@dataclass(frozen=True)
class Answer:
    """Everything from one version. trust, flips and neighbours are None where they were not asked for, or could not be had; `missing`
    says by part what could not be had, and why. sentence is plain text; tried says what the search for flips tried."""

    explanation: Explanation = field(repr=False)
    prediction: Prediction
    sentence: str = field(repr=False)
    trust: Trust | None = None
    flips: tuple[Flip, ...] | None = field(default=None, repr=False)
    tried: str = ""
    neighbours: tuple[Neighbour, ...] | None = field(default=None, repr=False)
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A question that was checked. text is clean; n_beyond are the characters cleaning cut off; version is the one that answers, and
    pinned says that no other may."""

    task: str
    text: str = field(repr=False)
    n_beyond: int
    digest: str
    version: str
    pinned: bool
    method: str
    budget: int
    target: str | None
    parts: tuple[str, ...]


class Sources:
    """What answers are made of, beside the model: what is stored, model folders, known examples, words to swap in."""

    def __init__(self, engine: Engine, kept: Kept, home: Path):
        self._engine, self._kept, self._home = engine, kept, home
        self._nearby: OrderedDict[tuple, tuple[tuple[Neighbour, ...], str]] = OrderedDict()
        self._lock = threading.Lock()

    def found(self, asked: Asked) -> dict[Place, Content]:
        """Everything that is stored of a text and a version."""
        return self._kept.found(asked.digest, task=asked.task, version=asked.version)

    def nearest(self, asked: Asked, label: str, *, may_compute: bool) -> tuple[tuple[Neighbour, ...], str] | None:
        """(the nearest known examples, what was left out and why), held in memory for the last askers; None where they are not and may
        not be computed."""
        key = (asked.digest, asked.task, asked.version, label)
        with self._lock:
            if key in self._nearby:
                self._nearby.move_to_end(key)
                return self._nearby[key]
        if not may_compute:
            return None
        from fmcore.explain import neighbours

        found = neighbours.nearest(self._engine, asked.task, asked.text, version=asked.version, k=NEIGHBOURS)
        with self._lock:
            self._nearby[key] = found.neighbours, found.note
            while len(self._nearby) > MAX_NEARBY:
                self._nearby.popitem(last=False)
            return self._nearby[key]

    def keep(self, asked: Asked, place: Place, content: Content) -> None:
        """Store one part, where the store takes it."""
        self._kept.keep(asked.digest, place, content, task=asked.task, version=asked.version)

    def folder(self, asked: Asked) -> Path:
        """The folder of the version that answers."""
        return self._engine.registry.get(asked.task, asked.version).path

    def proposer(self) -> Any:
        """What proposes words to swap in, or None; loads it."""
        from fmcore.models import masked_lm

        return masked_lm.load(self._home)

    def can_swap(self) -> bool:
        """Whether there is something that proposes words; loads nothing."""
        from fmcore.models import masked_lm

        return masked_lm.exists(self._home)


class NotStored(Exception):
    """A part has to be computed, and there is nothing to compute it with."""


class Model:
    """The model as the methods ask it. Every batch begins with a look at whether somebody still waits."""

    def __init__(self, classifier: Classifier, step: Step):
        self.classifier, self._step = classifier, step
        self._at, self._message = 0.0, "reading"
        self._known: dict[str, np.ndarray] = {}

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """(n, labels) probabilities, as served. Raises NotExplained where the model gives numbers that are none."""
        c, out = self.classifier, []
        size = min(attributions.BATCH, max(1, BATCH_CHARS // max([1, *map(len, texts)])))
        for at in range(0, len(texts), size):
            self._step(self._at, self._message)
            out.append(c.probabilities_of(list(texts[at : at + size])))
            if not np.isfinite(out[-1]).all():
                raise attributions.NotExplained(f"{c.version} gives scores that are not finite numbers.", "Roll back to another version.")
        return np.concatenate(out) if out else np.zeros((0, len(c.labels)))

    def remembered(self, texts: Sequence[str]) -> np.ndarray:
        """The same, but a text is asked for once: the methods that trust compares ask for many texts in common."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        self._known.update(zip(new, self.score(new), strict=True))
        return np.array([self._known[text] for text in texts]).reshape(-1, len(self.classifier.labels))

    def stage(self, low: float, high: float, message: str) -> Callable[[float], None]:
        """Say what comes now; gives the progress of it, from 0 to 1, as that of the whole."""

        def progress(fraction: float) -> None:
            self._at = low + (high - low) * min(1.0, max(0.0, fraction))
            self._step(self._at, self._message)

        self._message = message
        progress(0.0)
        return progress


class Making:
    """One answer in the making: each part from the store where it fits, else from the model."""

    def __init__(self, sources: Sources, asked: Asked, found: Mapping[Place, Content], model: Model | None):
        self._sources, self._asked, self._found, self._model = sources, asked, found, model
        self._missing: dict[str, str] = {}
        self._attribution: attributions.Attribution | None = None

    def answer(self) -> Answer:
        """The whole of it. Raises NotStored, Cancelled, and what the methods raise about the text itself."""
        asked = self._asked
        prediction = self._part(("prediction", "", 0, ""), kept.to_prediction, self._predicted, kept.from_prediction)
        place = ("explanation", asked.method, asked.budget, asked.target or prediction.label)
        explanation, _ = self._part(
            place,
            lambda content: (self._explanation(content, place), content),
            lambda: self._explained(place, prediction),
            lambda made: made[1],
        )
        parts = {
            "trust": lambda: self._trust(explanation, prediction),
            "flips": lambda: self._flips(prediction.label),
            "neighbours": lambda: self._neighbours(prediction.label),
        }
        made = {name: self._or_why(name, parts[name]) for name in asked.parts if name != "explanation"}
        flips, tried = made.get("flips") or (None, "")
        trust = made.get("trust")
        return Answer(
            explanation, prediction, telling.sentence(explanation, trust=trust), trust=trust, flips=flips, tried=tried,
            neighbours=made.get("neighbours"), missing=self._missing,
        )  # fmt: skip

    def _part(self, place: Place, read: Callable[[Content], Any], make: Callable[[], Any], write: Callable[[Any], Content]) -> Any:
        """What is stored at a place, else what the model gives, stored then."""
        if place in self._found:
            with suppress(kept.Unfit):
                return read(self._found[place])
        if self._model is None:
            raise NotStored
        made = make()
        self._sources.keep(self._asked, place, write(made))
        return made

    def _or_why(self, name: str, make: Callable[[], Any]) -> Any:
        """A part that goes with the explanation; where it cannot be had, the answer says why and stands all the same."""
        try:
            return make()
        except TookTooLong:
            raise
        except FMError as error:
            self._missing[name] = str(error)
            return None

    def _stage(self, part: str, message: str) -> Callable[[float], None]:
        total = sum(SHARES[name] for name in self._asked.parts)
        low = sum(SHARES[name] for name in self._asked.parts[: self._asked.parts.index(part)])
        return self._model.stage(low / total, (low + SHARES[part]) / total, message)

    # --- the parts

    def _predicted(self) -> Prediction:
        self._model.stage(0.0, 0.0, "reading")
        return self._model.classifier.predict([self._asked.text])[0]

    def _explained(self, place: Place, prediction: Prediction) -> tuple[Explanation, Content]:
        asked, c = self._asked, self._model.classifier
        progress = self._stage("explanation", "asking the model about parts of the text")
        started = time.monotonic()
        read_to = c.read_to(asked.text)
        read = self._read(read_to)
        target = self._target(place[3])
        if asked.method == "gradients":
            from fmcore.explain import gradients

            pieces = read
            found = gradients.integrated(self._sources.folder(asked), c, read, target=target, steps=asked.budget, progress=progress)
        else:
            pieces = attributions.pieces(read, method=asked.method, budget=asked.budget)
            found = attributions.attribute(
                self._model.remembered, pieces, target=target, method=asked.method, budget=asked.budget, progress=progress
            )
        self._attribution = found
        made = Explanation(
            task=asked.task, version=asked.version, label=prediction.label, target=place[3], score=found.score, base_value=found.base_value,
            tokens=pieces.tokens, spans=pieces.spans, values=tuple(found.values.tolist()), method=asked.method, budget=asked.budget,
            n_calls=found.n_calls, additivity_error=found.additivity_error, seconds=time.monotonic() - started, made_at=clock.now(),
            n_unread=self._unread(read_to),
        )  # fmt: skip
        return made, {**kept.from_explanation(made, asked.text), "read_to": read_to}

    def _explanation(self, content: Content, place: Place) -> Explanation:
        asked = self._asked
        if not isinstance(content.get("read_to"), int):
            raise kept.Unfit
        made = kept.to_explanation(
            content, asked.text, task=asked.task, version=asked.version, place=place, n_unread=self._unread(content["read_to"])
        )
        self._attribution = attributions.Attribution(np.array(made.values, dtype=np.float64), made.base_value, made.score, made.n_calls)
        return made

    def _trust(self, explanation: Explanation, prediction: Prediction) -> Trust:
        place = ("trust", explanation.method, explanation.budget, explanation.target)

        def make() -> Trust:
            from fmcore.explain import faithfulness

            progress = self._stage("trust", "checking it against the model")
            said = words.Words(self._read_text(explanation), explanation.spans)
            target = self._target(explanation.target)
            others, again = self._compared(said, explanation, target)
            return faithfulness.trust(
                self._model.remembered, said, self._attribution, target=target, others=others, again=again,
                familiar=(prediction.novelty, prediction.threshold), progress=progress,
            )  # fmt: skip

        return self._part(place, kept.to_trust, make, kept.from_trust)

    def _compared(self, said: words.Words, made: Explanation, target: np.ndarray) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        """(values of other methods by name, values of the same method under other seeds), on the same pieces of the text."""

        def values(method: str, budget: int, seed: int = 0) -> np.ndarray:
            found = attributions.attribute(self._model.remembered, said, target=target, method=method, budget=budget, seed=seed)
            return found.values

        budgets = {"occlusion": len(said) + 2, "lime": max(64, 2 * len(said) + 2)}
        others = {method: values(method, budget) for method, budget in budgets.items() if method != made.method and len(said) > 1}
        again = [values(made.method, made.budget, seed) for seed in SEEDS] if made.method in SEEDED and len(said) > 1 else []
        return others, again

    def _flips(self, label: str) -> tuple[tuple[Flip, ...], str]:
        from fmcore.explain import counterfactual

        asked = self._asked
        wanted = _flips_place(label, counterfactual.BUDGET, swaps=self._sources.can_swap())
        if wanted in self._found:
            with suppress(kept.Unfit):
                return kept.to_flips(self._found[wanted], asked.text)
        if self._model is None:
            raise NotStored
        progress = self._stage("flips", "looking for the fewest edits that change the answer")
        proposer, c = self._sources.proposer(), self._model.classifier
        read = self._read(c.read_to(asked.text))
        found = counterfactual.flips(
            self._model.score, c.labels, read, label=label, propose=None if proposer is None else proposer.propose, progress=progress
        )
        place = _flips_place(label, counterfactual.BUDGET, swaps=proposer is not None)
        self._sources.keep(asked, place, kept.from_flips(found.flips, found.tried, read, asked.text))
        return found.flips, found.tried

    def _neighbours(self, label: str) -> tuple[Neighbour, ...]:
        if self._model is not None:
            self._stage("neighbours", "finding the nearest known examples")
        found = self._sources.nearest(self._asked, label, may_compute=self._model is not None)
        if found is None:
            raise NotStored
        rows, note = found
        if note:
            self._missing["neighbours"] = note
        return rows

    # --- how far the model reads

    def _read(self, read_to: int) -> words.Words:
        """The words that the model reads, in the text up to the last of them: what follows cannot move into its sight."""
        text = self._asked.text
        found = words.split(text)
        if read_to >= len(text):
            return found
        spans = tuple(span for span in found.spans if span[0] < read_to)
        return words.Words(text[: spans[-1][1] if spans else 0], spans)

    def _read_text(self, explanation: Explanation) -> str:
        """The text whose parts the explanation is about."""
        if explanation.n_unread > self._asked.n_beyond:
            return self._asked.text[: explanation.spans[-1][1] if explanation.spans else 0]
        return self._asked.text

    def _unread(self, read_to: int) -> int:
        return len(self._asked.text) - min(read_to, len(self._asked.text)) + self._asked.n_beyond

    def _target(self, name: str) -> np.ndarray:
        """float (labels,): 1 at a label; 1 at positive and -1 at negative for "net"."""
        labels = self._model.classifier.labels
        if name == NET and NET not in labels:
            return np.array([{"positive": 1.0, "negative": -1.0}.get(label, 0.0) for label in labels])
        return np.array([float(label == name) for label in labels])


def _flips_place(label: str, budget: int, *, swaps: bool) -> Place:
    """Where flips are stored: what was found without words to swap in is not the answer once there are some."""
    return "flips", "delete and swap" if swaps else "delete", budget, label
