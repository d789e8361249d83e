"""Processes that wait to be told what to do, do it, and are killed on the way."""

import subprocess
import sys


class Victims:
    """A process that is to be killed, by its script, and the lines it says."""

    def __init__(self, script, *, environment=None):
        self.process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
        )

    def start(self, command, home, number):
        self.process.stdin.write(f"{command}\t{home}\t{number}\n")
        return int(self.process.stdout.readline().split()[1])

    def until(self, *words):
        """The lines up to and with the first that is one of `words` (or "over")."""
        lines = []
        while not lines or lines[-1].split()[0] not in {*words, "over"}:
            lines.append(self.process.stdout.readline().strip())
        return lines

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()
