"""Counterfactuals: the fewest word edits, deletions or swaps, after which the model gives a text another label.

Every single edit is asked for before any pair, and pairs before triples, so that what comes back is short; which pairs and triples
are worth asking for is foretold from the single edits, whose effects nearly add up in log-probabilities. A flip is only returned
after its text was scored once more, by itself. Knows nothing of models but a scoring function, and of words to swap in but a
function that proposes some (models/masked_lm.py has one).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fmcore.explain.attributions import Progress, Score
from fmcore.explain.words import Words
from fmcore.nouns import Edit, Flip

Propose = Callable[[Words, int, int], list[str]]
"""(words, place, k) -> at most k words to try in that place."""

BUDGET = 600
"""Texts that the model is asked for at most, in all."""
KEPT_BACK = 24
"""Calls of the budget that only shortening and the last look at what was found may use."""
PROPOSALS = 64
"""Words that are asked for a place; EXPLORED of them are tried there at first, a word in SAME_WORD places at most, so that many
different words are; where none of that flips the text, EXPLOITED more swaps of the words that did most."""
EXPLORED = 8
SAME_WORD = 2
EXPLOITED = 96
MOST_SWAPPED = 24
"""Places where words are swapped: those whose deletion moves the model most."""
MOST_DELETED = 48
"""Places where words are deleted one by one; of a longer text the strongest, found by leaving out stretches of it."""
STRETCHES = 24
BEAM = 64
"""Partial edits that the next round builds on."""
BATCH = 32
LOOKED_AT = 8
"""Flips of a round that are scored again by themselves: next to all hold, but a quantised model may say otherwise of a close one."""

_State = tuple[tuple[int, str], ...]
"""Edits as (place, new word), by place; "" deletes."""


@dataclass(frozen=True)
class Found:
    """What a search came to: flips, the surest first; how many texts the model was asked for; what was tried, as plain sentences."""

    flips: tuple[Flip, ...]
    n_calls: int
    tried: str


def flips(
    score: Score,
    labels: Sequence[str],
    words: Words,
    *,
    label: str,
    propose: Propose | None = None,
    most_edits: int = 3,
    budget: int = BUDGET,
    k: int = 3,
    progress: Progress | None = None,
) -> Found:
    """At most k flips, all of the fewest edits found, at different places or to different labels; each text keeps a word.

    label is the model's answer to the text; labels is the order of the scores' columns. Without `propose`, words are only deleted.
    Asks for no more than `budget` texts, each once, but for those it returns, which are scored again one by one. Beyond single
    edits the search is greedy: it may miss a flip, and never returns one that is none. progress may raise to stop the search.
    Source: beam search over word edits as in the attacks of Jin et al. 2020 (arXiv:1907.11932), with the fewest edits as its aim.
    """
    if not len(words):
        return Found((), 0, "The text has no words to change.")
    asked = _Asked(score, tuple(labels), words, label, budget=budget, progress=progress)
    if asked.answer != label:
        return Found((), asked.n_calls, f"The model's answer to this text is {asked.answer}, not {label}.")
    layer = singles = _singles(asked, words, propose)
    chosen, depth = _verified(asked, layer, k), 1
    while not chosen and depth < min(most_edits, len(words)) and asked.left:
        depth += 1
        share = 1.0 if depth == most_edits else 0.5
        layer = _extended(asked, layer, singles, most=round(asked.left * share), enough=2 * k)
        chosen = _verified(asked, layer, k)
    return Found(tuple(chosen), asked.n_calls, _tried(asked, words, chosen, swaps=propose is not None))


@dataclass(frozen=True, eq=False)
class _Layer:
    """Edited texts and the model's answers to them: log-probabilities (n, labels), and by how much the best other label leads (n,)."""

    states: list[_State]
    logs: np.ndarray
    leads: np.ndarray

    @property
    def flipped(self) -> list[_State]:
        """The states with another label, those first that lead by most."""
        return [self.states[i] for i in np.argsort(-self.leads, kind="stable") if self.leads[i] > 0]


class _Asked:
    """The model as a function of edits; a text is asked for once, and never more than the budget has left."""

    def __init__(self, score: Score, labels: tuple[str, ...], words: Words, label: str, *, budget: int, progress: Progress | None):
        self._score, self.labels, self._words, self._budget, self._progress = score, labels, words, budget, progress
        self._own = labels.index(label)
        self._known: dict[str, np.ndarray] = {}
        self.tried: dict[str, int] = {}
        self.n_calls = 0
        self.whole = self.alone(words.text)
        self.answer = labels[int(self.whole.argmax())]

    @property
    def left(self) -> int:
        """Texts that the search may still ask for."""
        return max(0, self._budget - min(KEPT_BACK, self._budget // 4) - self.n_calls)

    @property
    def spent(self) -> bool:
        """Whether not even a single text may be asked for."""
        return self.n_calls >= self._budget

    def text(self, state: _State) -> str:
        """The text after these edits."""
        tokens = list(self._words.tokens)
        for place, new in state:
            tokens[place] = new
        return self._words.edited(tokens)

    def alone(self, text: str) -> np.ndarray:
        """(labels,) probabilities of one text in a call of its own: a quantised model's answer depends a little on its company."""
        return self._ask([text])[0]

    def flip(self, state: _State) -> Flip | None:
        """The flip that these edits make, if the text by itself gets another label; the call is not in `left`."""
        text = self.text(state)
        answer = self.alone(text)
        best = int(answer.argmax())
        if best == self._own:
            return None
        edits = tuple(Edit(place, self._words.tokens[place], new) for place, new in state)
        old = self.labels[self._own]
        return Flip(edits, text, self.labels[best], float(answer[best]), old, float(self.whole[self._own]))

    def layer(self, states: Sequence[_State], *, kind: str, last: bool = False) -> _Layer:
        """The answers to states, to the first of them only where the budget ends; states that leave no word are passed over.

        last: what was kept back of the budget may be used.
        """
        texts = [(state, text) for state in states if _says_something(text := self.text(state))]
        most = self._budget - self.n_calls if last else self.left
        new = list(dict.fromkeys(text for _, text in texts if text not in self._known))[:most]
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            self._known.update(zip(batch, np.log(np.maximum(self._ask(batch), 1e-12)), strict=True))
        answered = list(itertools.takewhile(lambda pair: pair[1] in self._known, texts))
        self.tried[kind] = self.tried.get(kind, 0) + len(answered)
        logs = np.array([self._known[text] for _, text in answered]).reshape(-1, len(self.labels))
        return _Layer([state for state, _ in answered], logs, self.lead(logs))

    def lead(self, logs: np.ndarray) -> np.ndarray:
        """How far the best other label is ahead of the text's own, in log-probabilities (..., labels) -> (...)."""
        if len(self.labels) < 2:
            return np.full(logs.shape[:-1], -np.inf)
        return np.delete(logs, self._own, axis=-1).max(axis=-1) - logs[..., self._own]

    def _ask(self, texts: Sequence[str]) -> np.ndarray:
        answers = np.asarray(self._score(texts), dtype=np.float64)
        self.n_calls += len(texts)
        if self._progress is not None:
            self._progress(min(1.0, self.n_calls / self._budget))
        return answers


def _says_something(text: str) -> bool:
    """Whether a letter or a digit is left: the model reads nothing in a text without one."""
    return any(c.isalnum() for c in text)


# --- the rounds


def _singles(asked: _Asked, words: Words, propose: Propose | None) -> _Layer:
    """Every deletion, then swaps at the places whose deletion moved the model most."""
    deleted = asked.layer([((place, ""),) for place in _strong_places(asked, words)], kind="deletions")
    if propose is None:
        return deleted
    moved = [deleted.states[i][0][0] for i in np.argsort(-deleted.leads, kind="stable")]
    places = [*moved, *(place for place in range(len(words)) if len(words) <= MOST_DELETED and place not in moved)][:MOST_SWAPPED]
    proposed = {place: _fresh(propose(words, place, PROPOSALS), words.tokens[place]) for place in places}
    tried: Counter[str] = Counter()
    swaps: list[_State] = []
    for place, news in proposed.items():
        chosen = [new for new in news if tried[_core(new)] < SAME_WORD][:EXPLORED]
        tried.update(map(_core, chosen))
        swaps += [((place, new),) for new in chosen]
    explored = _joined(deleted, asked.layer(swaps, kind="swaps"))
    if explored.flipped:
        return explored
    return _joined(explored, asked.layer(_promising(asked, explored, proposed), kind="swaps"))


def _promising(asked: _Asked, explored: _Layer, proposed: dict[int, list[str]]) -> list[_State]:
    """Swaps that were not tried, of words that were tried elsewhere: those first whose word did most there."""
    logs = {state[0]: answer for state, answer in zip(explored.states, explored.logs, strict=True)}
    added: dict[str, list[np.ndarray]] = {}
    for (place, new), answer in logs.items():
        if new and (place, "") in logs:
            added.setdefault(_core(new), []).append(answer - logs[place, ""])
    foretold = {
        ((place, new),): float(asked.lead(logs[place, ""] + np.mean(added[_core(new)], axis=0)))
        for place, news in proposed.items()
        for new in news
        if (place, "") in logs and (place, new) not in logs and _core(new) in added
    }
    return sorted(foretold, key=foretold.__getitem__, reverse=True)[:EXPLOITED]


def _joined(first: _Layer, second: _Layer) -> _Layer:
    return _Layer(first.states + second.states, np.concatenate([first.logs, second.logs]), np.concatenate([first.leads, second.leads]))


def _core(word: str) -> str:
    """A word without its punctuation and case."""
    return "".join(c for c in word if c.isalnum()).casefold()


def _fresh(proposed: Sequence[str], old: str) -> list[str]:
    """The proposed words that say something and are not the one that stands there."""
    return [new for new in dict.fromkeys(proposed) if _says_something(new) and new.casefold() != old.casefold()]


def _strong_places(asked: _Asked, words: Words) -> list[int]:
    """The places worth deleting one by one: all, or in a long text those in the stretches whose deletion moves the model most."""
    places = list(range(len(words)))
    while len(places) > MOST_DELETED:
        edges = np.linspace(0, len(places), STRETCHES + 1).astype(int)
        stretches = [places[a:b] for a, b in itertools.pairwise(edges)]
        layer = asked.layer([tuple((place, "") for place in stretch) for stretch in stretches], kind="deletions of stretches")
        best = [layer.states[i] for i in np.argsort(-layer.leads, kind="stable")[: STRETCHES // 3]]
        kept = sorted(place for state in best for place, _ in state)
        if not kept:
            return places[:MOST_DELETED]
        places = kept
    return places


def _extended(asked: _Asked, layer: _Layer, singles: _Layer, *, most: int, enough: int) -> _Layer:
    """States of one edit more, those first that the single edits foretell to lead by most; stops at `enough` flips or `most` texts."""
    effects = singles.logs - np.log(np.maximum(asked.whole, 1e-12))
    parents = np.argsort(-layer.leads, kind="stable")[:BEAM]
    foretold = asked.lead(layer.logs[parents][:, None, :] + effects[None, :, :])
    order = np.argsort(-foretold, axis=None, kind="stable")
    pairs = ((layer.states[parents[i // len(effects)]], singles.states[i % len(effects)][0]) for i in order)
    candidates = itertools.islice(_grown(pairs), most)
    kind = {2: "pairs of edits", 3: "triples of edits"}.get(len(layer.states[0]) + 1 if layer.states else 0, "longer edits")
    rounds: list[_Layer] = []
    while batch := list(itertools.islice(candidates, BATCH)):
        rounds.append(asked.layer(batch, kind=kind))
        if sum(len(each.flipped) for each in rounds) >= enough or not asked.left:
            break
    logs = [np.zeros((0, len(asked.labels))), *(each.logs for each in rounds)]
    return _Layer([s for each in rounds for s in each.states], np.concatenate(logs), np.concatenate([[], *(each.leads for each in rounds)]))


def _grown(pairs: Iterator[tuple[_State, tuple[int, str]]]) -> Iterator[_State]:
    """Each parent with its edit, once, where the place is still as it was."""
    seen: set[_State] = set()
    for parent, edit in pairs:
        if any(place == edit[0] for place, _ in parent):
            continue
        state = tuple(sorted((*parent, edit)))
        if state not in seen:
            seen.add(state)
            yield state


# --- what is returned


def _verified(asked: _Asked, layer: _Layer, k: int) -> list[Flip]:
    """At most k flips of the fewest edits, those to different labels at different places first; none that its own text belies."""
    labels = {state: asked.labels[int(logs.argmax())] for state, logs in zip(layer.states, layer.logs, strict=True)}
    chosen: dict[_State, Flip] = {}
    for state in _varied(layer.flipped, labels)[:LOOKED_AT]:
        if len(chosen) == k or asked.spent:
            break
        shortest = _shortest(asked, state)
        if shortest not in chosen and not asked.spent and (flip := asked.flip(shortest)):
            chosen[shortest] = flip
    fewest = min(map(len, chosen), default=0)
    return sorted((flip for flip in chosen.values() if len(flip.edits) == fewest), key=lambda flip: -flip.score)


def _varied(states: Sequence[_State], labels: dict[_State, str]) -> list[_State]:
    """The states in their order, but first those with a new label at new places, then those with one of the two new."""
    ordered: dict[_State, None] = {}
    seen_labels: set[str] = set()
    seen_places: set[tuple[int, ...]] = set()
    for needed in (2, 1):
        for state in states:
            places = tuple(place for place, _ in state)
            if state not in ordered and (labels[state] not in seen_labels) + (places not in seen_places) >= needed:
                ordered[state] = None
                seen_labels.add(labels[state])
                seen_places.add(places)
    return list(ordered)


def _shortest(asked: _Asked, state: _State) -> _State:
    """The state, or a part of it of two edits or more that flips the label as well; single edits were all asked for before."""
    for n in range(2, len(state)):
        if parts := asked.layer(list(itertools.combinations(state, n)), kind="parts", last=True).flipped:
            return parts[0]
    return state


def _tried(asked: _Asked, words: Words, chosen: Sequence[Flip], *, swaps: bool) -> str:
    """What was tried, in a sentence or two, with the numbers."""
    counts = [_counted(n, kind) for kind, n in asked.tried.items() if n and kind != "parts"]
    of = f"{len(words):,} word{'s' * (len(words) != 1)}"
    said = f"Tried {' and '.join(filter(None, (', '.join(counts[:-1]), *counts[-1:])))} on {of}." if counts else f"Nothing to try on {of}."
    if len(words) > MOST_DELETED:
        said += f" Only the places that move the model most were changed, {MOST_DELETED} at most."
    if not swaps:
        said += " Words were deleted only: there is no model yet that proposes others."
    if not chosen:
        said += " None gave the text another label."
    return said


def _counted(n: int, kind: str) -> str:
    """ "1 pair of edits", "2 pairs of edits"."""
    first, *rest = kind.split(" ")
    return " ".join([f"{n:,}", first.removesuffix("s") if n == 1 else first, *rest])
