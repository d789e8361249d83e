"""A process to be killed while it recommends. Reads tab-separated commands on standard input; forks for each, so that a new victim costs
no imports.

    note HOME FIRST      notes three events at a time for ever, batch FIRST on; says "acked N" after each batch
    work RUN_DIR CALL    does the work of a recommend run and dies at call CALL of its report; says "worked CALLS" where it lives
    contest RUN_DIR CALL the same of a reinforce run
    land HOME STEP       lands the run `run-1` and dies right after statement STEP; says "landed" where it lives
"""

import itertools
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import implicit.als  # noqa: F401 - before the fork, not once a victim
import scipy.sparse.linalg  # noqa: F401
import torch

from fmcore.models.registry import Registry
from fmcore.recommend.service import Event, Recommend
from fmcore.store import store as store_module
from jobs import recommend, reinforce

N_ITEMS = 30


def batch(number):
    """Three events of one person each; the items and people come round again."""
    who = f"person {number % 7}"
    return [Event(who, f"item-{(number * 5 + part) % N_ITEMS}", "click", id=f"{number}-{part}") for part in range(3)]


def say(text):
    os.write(1, f"{text}\n".encode())


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Fatal:
    """A report whose call number `at` is its process's last."""

    def __init__(self, at):
        self.at, self.n = at, 0

    def progress(self, fraction, message=""):
        self.n += 1
        if self.n == self.at:
            die()

    def metric(self, step, **values):
        self.progress(0.0)

    def device(self, name):
        self.progress(0.0)


def note(home, first):
    store = store_module.Store(home, wait_s=0)
    desk = Recommend(Registry(store), store)
    say("open")
    for number in itertools.count(int(first)):
        noted = desk.note(batch(number))
        assert noted.stored + noted.known == 3
        say(f"acked {number}")


def work(run_dir, call):
    report = Fatal(int(call))
    recommend.work(Path(run_dir), report)
    say(f"worked {report.n}")


def contest(run_dir, call):
    torch.set_num_threads(1)
    report = Fatal(int(call))
    reinforce.work(Path(run_dir), report)
    say(f"worked {report.n}")


def land(home, step):
    store, left, execute = store_module.Store(home, wait_s=0), [int(step)], store_module.Transaction.execute

    def counted(self, sql, params=()):
        found = execute(self, sql, params)
        left[0] -= 1
        if left[0] < 0:
            die()
        return found

    store_module.Transaction.execute = counted
    recommend.land(store, store.home / "runs" / "run-1")
    say("landed")


if __name__ == "__main__":
    for line in sys.stdin:
        command, place, number = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            {"note": note, "work": work, "contest": contest, "land": land}[command](place, number)
            os._exit(0)
        say(f"pid {pid}")
        os.waitpid(pid, 0)
        say("over")
