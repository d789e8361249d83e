"""A process to be killed. Reads commands on standard input; forks for each, so that a new victim costs no imports.

    write HOME FIRST    commits three rows at a time for ever, from number FIRST on; says "acked N" after each commit
    migrate HOME STEP   opens a new store and dies right after statement STEP of its migrations
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fmcore.store import store as store_module


def say(text):
    os.write(1, f"{text}\n".encode())


def write(home, first):
    store = store_module.Store(home, wait_s=0)
    say("open")
    number = int(first)
    while True:
        with store.write() as tx:
            for part in range(3):
                tx.execute("INSERT INTO audit VALUES (?, ?, ?, now()::TIMESTAMP)", [str(number), str(part), "x" * 200])
            if number % 7 == 0:
                tx.execute("UPDATE audit SET detail = 'changed' WHERE who = ?", [str(number)])
        say(f"acked {number}")
        number += 1
        if number % 11 == 0:
            store.checkpoint()


def migrate(home, step):
    left = [int(step)]
    execute = store_module.Transaction.execute

    def counted(self, sql, params=()):
        found = execute(self, sql, params)
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    store_module.Transaction.execute = counted
    store_module.Store(home, wait_s=0)
    say("migrated")


if __name__ == "__main__":
    for line in sys.stdin:
        command, home, number = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            {"write": write, "migrate": migrate}[command](home, number)
            os._exit(0)
        say(f"pid {pid}")
        os.waitpid(pid, 0)
        say("over")
