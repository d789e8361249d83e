"""A process to be killed while it explains. Reads "HOME<tab>FIRST" lines; for each a fork opens that desk and explains for ever,
from question FIRST on; says "acked N" after each answer. Forks, so that a new victim costs no imports."""

import itertools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import onnxruntime  # noqa: F401 - before the fork, not once a victim
import sklearn.linear_model  # noqa: F401

from fmcore.explain.asking import Explain, Question
from fmcore.models.registry import Registry
from fmcore.serving.engine import Engine
from fmcore.store.store import Store

WORDS = ["card", "refund", "travel", "stolen", "abroad", "pin", "money", "trip", "please", "my"]


def text_of(number):
    """Question `number`: ten words, another order for each number."""
    order = next(itertools.islice(itertools.permutations(WORDS), number * 977, None))
    return " ".join(order)


def question(number):
    return Question("intent", text_of(number), parts=("explanation", "trust"))


def say(text):
    os.write(1, f"{text}\n".encode())


def explain(home, first):
    store = Store(home, wait_s=0)
    engine = Engine(Registry(store))
    desk = Explain(engine, store, store.home)
    say("open")
    for number in itertools.count(first):
        desk.answer(question(number), timeout_s=60, who="victim")
        say(f"acked {number}")


if __name__ == "__main__":
    for line in sys.stdin:
        place, start = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            explain(place, int(start))
            os._exit(0)
        say(f"pid {pid}")
        os.waitpid(pid, 0)
        say("over")
