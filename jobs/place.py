"""Where a run executes: a child process on this machine. Another place (a cluster) offers the same two methods and
the same JSON lines. Owns how a child is started and how it is killed; knows nothing of runs or the store.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from fmcore import config


class LocalProcess:
    """Starts `command RUN_DIR` in its own process group, without secrets, on `threads` CPU threads."""

    def __init__(self, *, threads: int = 1, command: Sequence[str] = (sys.executable, "-m", "jobs.child")):
        self._threads, self._command = threads, list(command)

    def start(self, run_dir: Path) -> subprocess.Popen:
        """The child: its standard input stays open while we live, its output carries JSON lines, its errors are its log."""
        environment = config.child_environment(
            OMP_NUM_THREADS=str(self._threads), MKL_NUM_THREADS=str(self._threads), TOKENIZERS_PARALLELISM="false",
            PYTHONUNBUFFERED="1", PYTHONFAULTHANDLER="1",
        )
        return subprocess.Popen(
            [*self._command, str(run_dir)], cwd=config.ROOT, env=environment, bufsize=0, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )

    def signal(self, process: subprocess.Popen, number: int) -> None:
        """Send a signal to the child's whole group; SIGKILL also reaches descendants that left the group."""
        strays = _descendants(process.pid) if number == signal.SIGKILL else []
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody left; macOS says "not permitted" of a zombie
            os.killpg(process.pid, number)
        for stray in strays:
            with contextlib.suppress(psutil.Error):
                stray.send_signal(number)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
