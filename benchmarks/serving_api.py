"""A warm Intent prediction through the API of a real server: latency beside a busy core, and whether 50 callers are all answered.

    python -m benchmarks.serving_api [--home FOLDER]

Starts the desk itself (streamlit run app.py) on a free port; a home without a model first trains on the demo data, as a first launch does.
Bars: p95 <= 60 ms for one caller beside a busy core; 50 concurrent callers, no error.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import multiprocessing
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
MESSAGES = (
    "I lost my card on the way home, what now?",
    "why was i charged twice for the same order",
    "Could you tell me when my parcel will arrive?",
    "hi, i cannot log in since the update",
    "What is the weather like in Lisbon",
)
P95_BAR_MS = 60.0
CALLERS = 50


def measure(home: Path | None = None, *, n_single: int = 300, n_each: int = 10) -> dict[str, Any]:
    """{"single": ms of one caller beside a busy core, "concurrent": of 50 callers, "bars"}."""
    with contextlib.ExitStack() as held:
        home = home or Path(held.enter_context(tempfile.TemporaryDirectory()))
        url = held.enter_context(server(home))
        with httpx.Client(base_url=url, trust_env=False) as client:
            status, _, version = _post(client, 0)
            if status != 200:
                raise RuntimeError(f"the desk does not answer: {client.get('/api/health').text}")
        with _busy_core(), httpx.Client(base_url=url, trust_env=False) as client:
            for i in range(20):
                _post(client, i)
            single = [_post(client, i) for i in range(n_single)]
        concurrent = _callers(url, n_each)
    result = {
        "single": _figures([ms for _, ms, _ in single]),
        "single_errors": sum(status != 200 for status, _, _ in single),
        "concurrent": _figures([ms for _, ms, _ in concurrent]),
        "concurrent_errors": sum(status != 200 for status, _, _ in concurrent),
        "callers": CALLERS,
        "version": version,
        "cores": os.cpu_count(),
        "load_average_before": round(os.getloadavg()[2], 2),
        "machine": platform.machine(),
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    result["bars"] = {
        "p95_ms": {"bar": P95_BAR_MS, "reached": result["single"]["p95_ms"], "ok": result["single"]["p95_ms"] <= P95_BAR_MS},
        "errors": {"bar": 0, "reached": result["concurrent_errors"], "ok": result["concurrent_errors"] == 0},
    }
    return result


@contextlib.contextmanager
def server(home: Path) -> Iterator[str]:
    """The desk on a free port, once a champion serves; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port), "--server.address", "127.0.0.1"]
    env = {**os.environ, "FM_HOME": str(home), "FM_BOOTSTRAP": "true"}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(httpx.HTTPError, ValueError):
                if "intent" in httpx.get(f"{url}/readyz", timeout=5, trust_env=False).json().get("models", ()):
                    break
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"no model served within {300} s (exit code {process.poll()})")
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _post(client: httpx.Client, i: int) -> tuple[int, float, str]:
    """(status, milliseconds, version) of one prediction."""
    started = time.perf_counter()
    said = client.post("/api/predict", json={"task": "intent", "texts": [f"{MESSAGES[i % len(MESSAGES)]} ({i})"]}, timeout=30)
    ms = (time.perf_counter() - started) * 1000
    return said.status_code, ms, said.json().get("version", "")


def _callers(url: str, n_each: int) -> list[tuple[int, float, str]]:
    def call(caller: int) -> list[tuple[int, float, str]]:
        with httpx.Client(base_url=url, trust_env=False) as client:
            return [_post(client, caller * n_each + i) for i in range(n_each)]

    with ThreadPoolExecutor(CALLERS) as pool:
        return [one for many in pool.map(call, range(CALLERS)) for one in many]


def _spin() -> None:
    while True:
        pass


@contextlib.contextmanager
def _busy_core() -> Iterator[None]:
    """A process that keeps one core busy, as a training run does."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _figures(ms: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(ms, n=100)
    named = {"p50_ms": cuts[49], "p95_ms": cuts[94], "p99_ms": cuts[98], "max_ms": max(ms)}
    return {"n": len(ms), **{name: round(value, 1) for name, value in named.items()}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="an FM_HOME with a champion; without it one is trained on the demo data")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    given = parser.parse_args()
    reached = json.dumps(measure(given.home), indent=1)
    print(reached)
    if given.out:
        given.out.write_text(reached + "\n")
