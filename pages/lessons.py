"""The lab's explanations as data: what lessons.toml says, in the order in which it is read, and how one is found.

Owns reading and searching; draws nothing.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("lessons.toml")


@dataclass(frozen=True)
class Lesson:
    """One method. All texts are our own Markdown, the formula LaTeX; toy names its worked example in lab_toys.TOYS.

    studied: (kind of study, name of its row) where a study measures the method, else ().
    """

    key: str
    title: str
    short: str
    group: str
    sentence: str
    how: str
    formula: str
    symbols: str
    purpose: str
    costs: str
    fails: str
    reference: str
    toy: str = ""
    studied: tuple[str, ...] = ()

    @property
    def latex(self) -> str:
        """The formula as one, a line under the other where it has several: half a card is narrow."""
        lines = self.formula.strip().splitlines()
        return lines[0] if len(lines) == 1 else "\\begin{gathered} " + " \\\\[4pt] ".join(lines) + " \\end{gathered}"

    @property
    def words(self) -> str:
        """All that a search looks at."""
        return " ".join((self.key, self.title, self.sentence, self.how, self.purpose, self.costs, self.fails, self.reference)).casefold()


@functools.lru_cache(maxsize=1)
def lessons() -> dict[str, Lesson]:
    """Key -> lesson, in the order of the file."""
    told = tomllib.loads(FILE.read_text(encoding="utf-8"))["lesson"]
    return {one["key"]: Lesson(**{**one, "studied": tuple(one.get("studied", ()))}) for one in told}


def groups() -> list[str]:
    """The groups in their order."""
    return list(dict.fromkeys(lesson.group for lesson in lessons().values()))


def of_group(group: str) -> list[Lesson]:
    """A group's lessons."""
    return [lesson for lesson in lessons().values() if lesson.group == group]


def found(query: str) -> list[Lesson]:
    """Lessons that hold every word of the query; those with the query in their name first."""
    wanted = query.casefold().split()
    there = [lesson for lesson in lessons().values() if all(word in lesson.words for word in wanted)]
    return sorted(there, key=lambda lesson: query.casefold().strip() not in f"{lesson.key} {lesson.title} {lesson.short}".casefold())
