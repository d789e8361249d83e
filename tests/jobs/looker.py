"""A process whose children are to be killed. Reads a home a line; forks a child that looks at its sources, forty items at a time."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fmcore.data import documents, looks, news_demo, replay  # noqa: F401  imported once, before the forks
from fmcore.store.store import Store


def say(words):
    os.write(1, f"{words}\n".encode())


if __name__ == "__main__":
    documents.BATCH = replay.BATCH = 40
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            store = Store(line.strip(), wait_s=0)
            say(f"open {os.getpid()}")
            looks.look_around(store, budget_s=60)
            os._exit(0)
        os.waitpid(child, 0)
        say("over")
