"""A real server on a free loopback port with its own FM_HOME, and a Chromium page to look at it with."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LAUNCH = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


@dataclass
class Server:
    """A running desk: where it is, where it keeps things, and its process."""

    url: str
    home: Path
    process: subprocess.Popen
    log: Path

    def stop(self, timeout_s: float = 20) -> int:
        """SIGTERM, then wait; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"the server did not stop in {timeout_s} s:\n{self.log.read_text()[-3000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(home: Path, *, wait_s: float = 60, port: int = 0, options: tuple[str, ...] = (), **environment: str) -> Server:
    """`streamlit run app.py` as a person starts it, until it says where it listens."""
    port = port or free_port()
    log = home.parent / f"{home.name}.log"
    given = {"FM_HOME": str(home), "FM_PROFILE": "tiny", "FM_BOOTSTRAP": "false", "FM_THREADS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FM_", "STREAMLIT_"))}
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port), *options]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**kept, **given, **environment}, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the server ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        try:
            said = json.loads((home / "server.json").read_text())
        except (OSError, ValueError):
            time.sleep(0.1)
            continue
        return Server(said["url"], home, process, log)
    process.kill()
    pytest.fail(f"the server did not answer within {wait_s} s:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An empty desk without first-launch training, one a module."""
    running = start_server(tmp_path_factory.mktemp("desk") / "home")
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture(scope="module")
def bootstrapped(tmp_path_factory):
    """A desk that trains its first model on the demo data when it starts, one a module."""
    running = start_server(tmp_path_factory.mktemp("desk") / "home", FM_BOOTSTRAP="true")
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium; tests that need it skip where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    with sync_api.sync_playwright() as play:
        try:
            browser = play.chromium.launch(executable_path=found, args=LAUNCH)
        except sync_api.Error as error:
            pytest.skip(f"no Chromium on this machine: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A fresh page, 1440 px wide, in the light theme. `page.strangers` lists requests that left this machine."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    opened.strangers = []
    opened.on("request", lambda r: None if r.url.startswith(("http://127.0.0.1:", "data:", "blob:")) else opened.strangers.append(r.url))
    yield opened
    context.close()
