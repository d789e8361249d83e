"""A store, its runs over the toy jobs, and a runner whose children are toys.py."""

import time

import pytest
from toys import COMMAND, JOBS

from fmcore.runs import Runs
from fmcore.store.store import Store
from jobs.place import LocalProcess
from jobs.runner import Runner


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def runs(store):
    return Runs(store, JOBS)


@pytest.fixture
def runner(runs):
    made = Runner(runs, place=LocalProcess(command=COMMAND), grace_s=1.0)
    yield made
    made.stop()


@pytest.fixture
def wait():
    """wait(condition): its first true value, or a failure after 30 s."""

    def until(condition, *, for_s: float = 90.0):
        deadline = time.monotonic() + for_s
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"nothing came of it in {for_s:.0f} s")

    return until
