"""A small desk to be killed: `python desk.py HOME` runs one long toy job and says its child's pid."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "jobs"))

from toys import COMMAND, JOBS

from fmcore.runs import Runs
from fmcore.store.store import Store
from jobs.place import LocalProcess
from jobs.runner import Runner

if __name__ == "__main__":
    runs = Runs(Store(sys.argv[1]), JOBS)
    Runner(runs, place=LocalProcess(command=COMMAND)).start()
    run = runs.request("heavy", {"do": sys.argv[2], "steps": 60, "delay_s": 0.05})
    while runs.get(run.id).pid is None:
        time.sleep(0.02)
    print(run.id, runs.get(run.id).pid, flush=True)
    time.sleep(600)
