"""Augmentations of texts: the same message in other words, and the check that its label is still the same.

Each is a pure function of (text, generator) and gives the text back where it finds nothing to do. Owns the rule that negations, words
of direction and polarity, and numbers with their signs survive (wordings.guards), and who may say that a label is kept: a judge that
never learnt from the row it judges. Knows no model; what is kept is trained on by finetune.py.

Sources: Wei and Zou 2019, "EDA" (synonyms, deletion); Iyyer et al. 2018 (rebuilding a sentence by template).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmcore.data.catalogue import folded
from fmcore.evaluation.metrics import figure, mean
from fmcore.models.heads import fit_logistic
from fmcore.nouns import FMError
from fmcore.text import text_hash
from fmcore.training import templates, wordings

Augment = Callable[[str, np.random.Generator], str]
Judge = Callable[[Sequence[str], Sequence[int]], Sequence[str]]
"""(texts, the row that each was made from) -> a label each, from a model that never learnt from that row."""
KEPT_FLOOR = 0.9
"""Least share of augmented texts whose label a judge keeps. Below it an augmentation would teach more wrong labels than it is worth."""
LEAST_JUDGED = 5
FOLDS = 5
SWAPPED, DROPPED = 0.3, 0.1
"""Share of the words that may be swapped that are, and of the words that may be dropped."""
N_EXAMPLES = 6


class UnknownAugmentation(FMError):
    """No augmentation has that name."""


_CHINESE = re.compile("|".join(sorted(map(re.escape, wordings.chinese()), key=len, reverse=True)))
_PARTICLES = re.compile(r"[的了呢吗啊吧呀]")
_TOKEN = re.compile(r"\S+\s*")


# --- other words


def synonym(text: str, rng: np.random.Generator) -> str:
    """Some words replaced by others of the tables that mean the same; words of the guard list never are."""
    english, chinese = wordings.synonyms(), wordings.chinese()
    places = [m for m in wordings.WORD.finditer(text) if m.group().casefold() in english and not wordings.guarded(m.group())]
    places += _CHINESE.finditer(text)
    if not places:
        return text
    n = max(1, round(SWAPPED * len(places)))
    for i in sorted(rng.choice(len(places), n, replace=False), key=lambda i: -places[i].start()):
        old = places[i].group()
        others = chinese.get(old) or english[old.casefold()]
        text = text[: places[i].start()] + _cased(others[rng.integers(len(others))], old) + text[places[i].end() :]
    return text


def token_dropout(text: str, rng: np.random.Generator) -> str:
    """A tenth of the words left out, at least one; never a guarded word, a number or what follows on one ("not", "more", "5"), nor of
    fewer than five words. In Chinese only particles go, since a word's signs carry its meaning together."""
    places = list(_PARTICLES.finditer(text))
    words = list(_TOKEN.finditer(text))
    if not places and len(words) >= 5:
        held = [bool(wordings.guards(word.group())) for word in words]
        places = [word for word, own, before in zip(words, held, [False, *held], strict=False) if not own and not before]
    if not places:
        return text
    gone = rng.random(len(places)) < DROPPED
    gone[rng.integers(len(places))] = True
    for place in [place for place, out in zip(places, gone, strict=True) if out][::-1]:
        text = text[: place.start()] + text[place.end() :]
    return " ".join(text.split())


def back_template(text: str, rng: np.random.Generator) -> str:
    """The sentence rebuilt by one of the templates that fit it: clause order, active or passive, verb or noun, form of a question."""
    fitting = templates.rebuilt(text)
    return fitting[rng.integers(len(fitting))] if fitting else text


def _cased(new: str, old: str) -> str:
    if len(old) > 1 and old.isupper() and old.isascii():
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


TITLES = {"synonym": "Synonyms", "back_template": "Sentences rebuilt by template", "token_dropout": "Words left out"}
AUGMENTATIONS: Mapping[str, Augment] = {"synonym": synonym, "back_template": back_template, "token_dropout": token_dropout}


def augmented(name: str, text: str, rng: np.random.Generator) -> str:
    """The text in other words, or as it was where nothing fits or anything of the guard list would be lost. Raises UnknownAugmentation."""
    return _safe(_named(name), text, rng)


def _named(name: str) -> Augment:
    if name not in AUGMENTATIONS:
        raise UnknownAugmentation(f"There is no augmentation {name[:80]!r}.", f"Augmentations: {', '.join(AUGMENTATIONS)}.")
    return AUGMENTATIONS[name]


def _safe(change: Augment, text: str, rng: np.random.Generator) -> str:
    made = change(text, rng)
    return made if made.strip() and wordings.guards(made) == wordings.guards(text) else text


# --- whether the label is kept


@dataclass(frozen=True)
class Preservation:
    """What a judge says of an augmentation. n: augmented texts whose own row it reads rightly, so that it can judge them; kept_share: on
    how many of them it keeps the label, with its 95 % interval (None where n is 0). n_changed: texts that came out other than they went in.
    refused: why nothing of it is trained on; empty where it is. examples: [{before, after, label, said, kept}]."""

    name: str
    title: str
    kept_share: float | None
    low: float | None
    high: float | None
    n: int
    n_changed: int
    refused: str
    examples: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Added:
    """Texts to train on beside the rows they were made from: the row of each, whose label it has, and what the judge said."""

    texts: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    told: tuple[Preservation, ...] = ()

    def identity(self) -> str:
        """What tells one set of added texts from another; empty for none."""
        return f" {text_hash(json.dumps([self.texts, self.rows]))}" if self.texts else ""


def folds_judge(texts: Sequence[str], labels: Sequence[str], vectors: np.ndarray, embed: Callable[[Sequence[str]], np.ndarray]) -> Judge:
    """A judge made of the rows themselves: FOLDS logistic heads on vectors (n, dim), each answers for the rows it did not learn from.

    embed gives vectors of new texts; a row's own text has its vector. The same text is never learnt from in one fold and judged in it as
    another row.
    """
    names, classes = np.unique(np.asarray(labels, dtype=object), return_inverse=True)
    keys = [folded(text) for text in texts]
    fold_of = {key: i % FOLDS for i, key in enumerate(sorted(set(keys), key=lambda key: (classes[keys.index(key)], key)))}
    folds = np.array([fold_of[key] for key in keys])
    heads = {
        fold: fit_logistic(vectors[folds != fold], classes[folds != fold], n_classes=len(names))
        for fold in range(FOLDS) if (folds == fold).any() and (folds != fold).any()
    }  # fmt: skip

    def judge(made: Sequence[str], rows: Sequence[int]) -> list[str]:
        seen, said = vectors[list(rows)], np.full(len(made), "", dtype=object)
        fresh = [k for k, (text, row) in enumerate(zip(made, rows, strict=True)) if text != texts[row]]
        if fresh:
            seen[fresh] = embed([made[k] for k in fresh])
        which = folds[list(rows)]
        for fold, head in heads.items():
            mine = np.flatnonzero(which == fold)
            if len(mine):
                said[mine] = names[head.scores(seen[mine]).argmax(axis=1)]
        return said.tolist()

    return judge


def added(names: Sequence[str], texts: Sequence[str], labels: Sequence[str], judge: Judge, *, seed: int) -> Added:
    """One new text a row and augmentation, of those that change and whose label the judge keeps. Raises UnknownAugmentation.

    An augmentation that is refused adds nothing; `told` says why.
    """
    new, rows, told = [], [], []
    for name in names:
        kept, report = checked(name, _named(name), texts, labels, judge, seed=seed)
        told.append(report)
        if not report.refused:
            new += [text for _, text in kept]
            rows += [row for row, _ in kept]
    return Added(tuple(new), tuple(rows), tuple(told))


def checked(
    name: str, change: Augment, texts: Sequence[str], labels: Sequence[str], judge: Judge, *, seed: int, floor: float = KEPT_FLOOR
) -> tuple[list[tuple[int, str]], Preservation]:
    """([(row, new text) whose label is kept], what the judge says of them all). Each row's chance is its own: (seed, row).

    A text whose own row the judge misreads cannot be judged: it is left out of both.
    """
    made = [(i, new) for i, text in enumerate(texts) if (new := _safe(change, text, np.random.default_rng((seed, i)))) != text]
    rows = [i for i, _ in made]
    before = judge([texts[i] for i in rows], rows) if made else []
    after = judge([new for _, new in made], rows) if made else []
    readable = [k for k, i in enumerate(rows) if before[k] == labels[i]]
    kept = {k for k in readable if after[k] == labels[rows[k]]}
    share = figure(mean([k in kept for k in readable], seed=seed))
    shown = [k for k in readable if k not in kept][: N_EXAMPLES // 2]
    shown += [k for k in readable if k in kept][: N_EXAMPLES - len(shown)]
    examples = [
        {"before": texts[rows[k]], "after": made[k][1], "label": labels[rows[k]], "said": str(after[k]), "kept": k in kept} for k in shown
    ]
    title, ends = TITLES.get(name, name), [share[key] if share else None for key in ("value", "low", "high")]
    report = Preservation(name, title, *ends, len(readable), len(made), _refusal(title, share, floor), tuple(examples))
    return [made[k] for k in sorted(kept)], report


def _refusal(title: str, share: Mapping[str, Any] | None, floor: float) -> str:
    n = share["n"] if share else 0
    if n < LEAST_JUDGED:
        return f"{title}: not used. Only {n} of its texts could be judged, and {LEAST_JUDGED} are needed to say whether labels are kept."
    if share["value"] < floor:
        return f"{title}: not used. The label was kept on {share['value']:.0%} of its {n} judged texts, and {floor:.0%} are asked for."
    return ""
