"""Figures in words: a stored metric with its interval and the rows behind it, always with its unit.

Owns how a number reads; never makes one. A figure that was not measured reads "not measured".
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from fmcore.data.labelled import OOS

NONE = "not measured"
NBSP = "\u00a0"
"""Between a number and its unit, so that a line never ends between them."""
DASH = "\u2060–\u2060"
"""Between the ends of an interval, for the same reason."""

NAMES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "ece": "Calibration error (ECE)",
    "oos.auroc": "Out-of-scope AUROC",
    "oos.recall": "Out-of-scope recall",
    "oos.in_scope_accuracy": "Accuracy after the scope decision",
    "coverage.measured": "Answer-set coverage",
}
"""Stored figure -> the words a person reads; AUROC is the only one here that is no percentage."""

IN_WORDS = {
    "accuracy": "in-scope messages whose first label is right, before the scope decision",
    "macro_f1": "mean F1 over the labels: rare ones count as much as common ones",
    "ece": "how far stated probabilities lie from how often they are right; lower is better",
    "oos.auroc": "chance that an out-of-scope message looks stranger than an in-scope one",
    "oos.recall": "out-of-scope messages caught at the served threshold",
    "oos.in_scope_accuracy": "in-scope messages accepted and labelled right at the served threshold",
    "coverage.measured": "in-scope messages whose answer set holds the true label",
}


def at(metrics: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    """The figure {"value", "low", "high", "n"} under a dotted name, None where it is missing or has no number."""
    found: Any = metrics
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found if is_figure(found) else None


def is_figure(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("value"), (int, float))


def points(value: float, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage with its unit; 1 and 0 lose the decimals that say nothing."""
    return f"{100 * value:.{digits}f}{NBSP}%"


def probability(value: float) -> str:
    """A probability as whole percent; never a false 0 or 100."""
    if 0.995 <= value < 1:
        return f">99{NBSP}%"
    return f"<1{NBSP}%" if 0 < value < 0.005 else points(value, 0)


def signed_points(value: float, digits: int = 1) -> str:
    """A change of a share, in points, with a real minus; what rounds to nothing reads ±0."""
    shown = round(100 * value, digits)
    return f"{'+' if shown > 0 else '−' if shown < 0 else '±'}{abs(shown):.{digits}f}{NBSP}points"


def value(figure: Mapping[str, Any] | None, name: str = "") -> str:
    """The figure's value with its unit."""
    if figure is None:
        return NONE
    return f"{figure['value']:.3f}" if name.endswith("auroc") else points(figure["value"])


def span(figure: Mapping[str, Any] | None, name: str = "") -> str:
    """The 95 % interval with its unit: "90.1–93.8 %"; "" where there is none."""
    if figure is None or figure.get("low") is None or figure.get("high") is None:
        return ""
    low, high = figure["low"], figure["high"]
    return f"{low:.3f}{DASH}{high:.3f}" if name.endswith("auroc") else f"{100 * low:.1f}{DASH}{100 * high:.1f}{NBSP}%"


def interval(figure: Mapping[str, Any] | None, name: str = "") -> str:
    """The 95 % interval and n: "90.1–93.8 %, n = 412"; "" without a figure."""
    n = f"n{NBSP}={NBSP}{figure['n']:,}" if figure and figure.get("n") else ""
    return ", ".join(part for part in (span(figure, name), n) if part)


def full(figure: Mapping[str, Any] | None, name: str = "") -> str:
    """Value and interval: "92.4 % (90.1–93.8 %, n = 412)"."""
    around = interval(figure, name)
    return f"{value(figure, name)} ({around})" if around else value(figure, name)


def plain(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, words) of every leaf of a nested result; lists are counted, figures read with their interval."""
    for key, item in tree.items():
        name = f"{prefix}{key}"
        if is_figure(item):
            around = f" ({item['low']:.4g} to {item['high']:.4g}, n = {item.get('n', '?')})" if "low" in item else ""
            yield name, f"{item['value']:.4g}{around}"
        elif isinstance(item, Mapping):
            yield from plain(item, f"{name}.")
        elif isinstance(item, (list, tuple)):
            long = len(item) > 6 or any(isinstance(part, (Mapping, list)) for part in item)
            yield name, f"{len(item)} entries" if long else ", ".join(map(str, item))
        elif isinstance(item, float):
            yield name, f"{item:.6g}"
        else:
            yield name, "none" if item is None else str(item)


def ordered(words: Mapping[str, str], other: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(name, here, there) for the names whose words differ, in the first's order, then what only the second has."""
    names = [*words, *(name for name in other if name not in words)]
    rows = [(name, words.get(name, "not there"), other.get(name, "not there")) for name in names]
    return [row for row in rows if row[1] != row[2]]


def label(name: str) -> str:
    """A class name as words: underscores and dashes become blanks, doubled ones one."""
    return " ".join(name.replace("_", " ").split()) or "(no name)"


def answer(name: str) -> str:
    """A label as an answer: "oos" in words."""
    return "out of scope" if name == OOS else label(name)


def chart_text(text: str) -> str:
    """Any text as literal Plotly text, which reads a few HTML tags and, between dollars, LaTeX."""
    return html.escape(text if len(text) <= 40 else text[:38] + "...").replace("$", "&#36;")
