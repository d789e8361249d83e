"""A desk to be killed around a delivery. Reads commands on standard input; forks for each, so that a new victim costs no imports.

    half HOME N        queues alert N and dies before the transaction ends
    transition HOME N  queues alert N beside the alert's own row, in one transaction, and dies right after it
    unnoted HOME N     the same, then delivers, and dies between the first sending and its note
    round HOME -       delivers once, to its end
"""

import datetime as dt
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fmcore import clock
from fmcore.sentiment import notify, outbox, sending  # noqa: F401
from fmcore.store.store import Store


def say(text):
    os.write(1, f"{text}\n".encode())


def die(*_args, **_more):
    os.kill(os.getpid(), signal.SIGKILL)


def queue(store, number, *, then):
    starts_at = dt.datetime(2026, 11, 24, 9, 0, tzinfo=clock.UTC)
    event = {
        "alert_id": f"a{number}", "fingerprint": "f", "transition": "firing", "severity": "high", "title": f"Alert {number}",
        "reason": "So many.", "url_path": "/alerts", "starts_at": starts_at, "ends_at": None, "why": {},
    }  # fmt: skip
    with store.write() as tx:
        tx.execute("INSERT INTO audit VALUES ('alert', ?, 'firing', now()::TIMESTAMP)", [f"a{number}"])
        notify.enqueue(tx, event, now=clock.now())
        then()


def act(command, home, number):
    store = Store(home, wait_s=5)
    if command == "half":
        queue(store, number, then=die)
    elif command == "transition":
        queue(store, number, then=lambda: None)
        die()
    elif command == "unnoted":
        queue(store, number, then=lambda: None)
        outbox.record = die
        notify.deliver(store)
    else:
        done = notify.deliver(store)
        say(f"done {done.n_sent} {done.n_failed}")
        store.close()


if __name__ == "__main__":
    for line in sys.stdin:
        command, home, number = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            act(command, home, number)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        say(f"over {status}")
