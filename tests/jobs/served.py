"""A server without pages, for the command line to talk to: `python served.py HOME PORT`. Real runtime, runner and API."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from fmcore import runtime
from fmcore.api import api
from fmcore.config import settings
from jobs import JOBS
from jobs.runner import Runner

if __name__ == "__main__":
    home, port = Path(sys.argv[1]), int(sys.argv[2])
    desk = runtime.start(settings(), JOBS)
    Runner(desk.runs).start()
    (home / "server.json").write_text(json.dumps({"pid": os.getpid(), "url": f"http://127.0.0.1:{port}"}))
    uvicorn.run(Starlette(routes=[Mount("/api", api)]), host="127.0.0.1", port=port, log_level="warning")
