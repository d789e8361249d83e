"""The server: what it is reached by, what it refuses, what every answer carries, and how it starts and stops."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import httpx
import pytest
import streamlit as st
from starlette.testclient import TestClient

import app
from fmcore import config, runtime
from fmcore.config import settings
from fmcore.tasks import TASKS
from jobs import JOBS

ROOT = Path(app.__file__).resolve().parent
CONFIG = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())


def flat(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("server.address", "127.0.0.1"),
        ("server.allowedHosts", ["localhost", "127.0.0.1"]),
        ("server.enableCORS", True),
        ("server.enableXsrfProtection", True),
        ("server.enableStaticServing", False),
        ("server.enableAgentApi", False),
        ("server.maxUploadSize", 5),
        ("server.maxMessageSize", 50),
        ("server.maxWidgetStateSize", 5),
        ("server.disconnectedSessionTTL", 60),
        ("server.fileWatcherType", "none"),
        ("server.headless", True),
        ("browser.gatherUsageStats", False),
        ("client.showErrorDetails", "none"),
        ("client.showErrorLinks", False),
        ("client.toolbarMode", "minimal"),
        ("client.disableDataExport", True),
        ("runner.magicEnabled", False),
        ("logger.hideWelcomeMessage", True),
    ],
)
def test_the_secure_defaults_are_set(option, value):
    assert dict(flat(CONFIG))[option] == value


def test_streamlit_knows_every_option_in_the_file():
    known = st.config.get_config_options()
    assert [option for option, _ in flat(CONFIG) if option not in known] == []


def test_both_themes_set_the_same_colours():
    light, dark = (dict(flat(CONFIG["theme"][mode])) for mode in ("light", "dark"))
    assert light.keys() == dark.keys()


# ---------------------------------------------------------------- who may reach it


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "unix:///tmp/desk.sock"])
def test_loopback_needs_no_sign_in(address):
    assert app.open_address_refusal(address, settings()) == ""


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "192.168.1.5", "desk.example", "fe80::1%eth0", "127.0.0.1.example"])
def test_any_other_address_is_refused_with_what_is_missing(address):
    said = app.open_address_refusal(address, settings())
    assert ".streamlit/secrets.toml" in said
    assert "FM_SECRET_API_TOKEN" in said


def test_a_token_alone_does_not_open_the_pages_to_everyone(monkeypatch):
    monkeypatch.setenv("FM_SECRET_API_TOKEN", "s3cret")
    config.settings.cache_clear()
    said = app.open_address_refusal("0.0.0.0", settings())
    assert "sign-in" in said
    assert "FM_SECRET_API_TOKEN" not in said
    assert "s3cret" not in said


# ---------------------------------------------------------------- the parts, in this process


@pytest.fixture
def desk():
    """A started desk, without a server in front."""
    started = app.Desk(settings())
    yield started
    started.stop()
    assert runtime.current() is None


def test_the_schedule_is_kept_from_the_start_and_stopping_lets_everything_go(desk):
    assert runtime.current() is desk.runtime
    assert {row.job for row in desk.runtime.runs.schedules() if row.next_at} == {job.name for job in JOBS.values() if job.schedule}


def test_it_is_ready_while_its_store_answers(desk):
    answer = app.readyz(None)
    assert (answer.status_code, json.loads(answer.body)) == (200, {"status": "ready", "models": []})


def test_it_is_not_ready_before_it_stands_nor_when_its_store_fails():
    assert app.readyz(None).status_code == 503
    started = runtime.start(settings(), JOBS)
    try:
        started.store.close()
        answer = app.readyz(None)
        assert answer.status_code == 503
        assert "Traceback" not in answer.body.decode()
    finally:
        runtime.stop()


def test_an_answer_that_sets_a_header_itself_keeps_its_own():
    async def own(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"DENY")]})
        await send({"type": "http.response.body", "body": b""})

    headers = TestClient(app.SecurityHeaders(own)).get("/").headers
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"


def test_a_desk_without_models_asks_for_its_first_one_once(monkeypatch):
    monkeypatch.setenv("FM_BOOTSTRAP", "true")
    config.settings.cache_clear()
    desk = runtime.start(settings(), JOBS)
    try:
        assert app.first_launch(desk) == ("sentiment", "topic")
        assert app.first_launch(desk) == ("sentiment", "topic")
        (run,) = desk.runs.active()
        assert (run.job, run.trigger, run.params["dataset"], run.params["recipe"]) == ("finetune", "first launch", "demo", "linear")
    finally:
        runtime.stop()


def test_the_first_models_of_the_other_tasks_are_asked_for_as_the_queue_empties(monkeypatch):
    monkeypatch.setenv("FM_BOOTSTRAP", "true")
    config.settings.cache_clear()
    desk = runtime.start(settings(), JOBS)
    try:
        waiting, asked = app.first_launch(desk), []
        for _ in TASKS:
            (run,) = desk.runs.active()
            asked.append((run.params["task"], run.params["dataset"]))
            desk.runs.cancel(run.id, by="a test")
            waiting = app.first_launch(desk, waiting)
        assert asked == [("intent", "demo"), ("sentiment", "demo_sentiment"), ("topic", "demo_topic")]
        assert waiting == () and desk.runs.active() == []
    finally:
        runtime.stop()


def test_a_desk_that_cannot_swap_words_asks_once_for_what_can(monkeypatch):
    monkeypatch.setenv("FM_BOOTSTRAP", "true")
    config.settings.cache_clear()
    desk = runtime.start(settings(), JOBS)
    try:
        app.first_words(desk)
        app.first_words(desk)
        (run,) = desk.runs.active()
        assert (run.job, run.trigger) == ("masked_lm", "first launch")
        desk.runs.cancel(run.id, by="a test")
        place = settings().home / "masked_lm"
        place.mkdir()
        (place / "current.json").write_text("{}")
        app.first_words(desk)
        assert desk.runs.active() == []
    finally:
        runtime.stop()


def test_a_desk_without_recommendations_asks_once_for_those_of_the_demo_shop(monkeypatch):
    monkeypatch.setenv("FM_BOOTSTRAP", "true")
    config.settings.cache_clear()
    desk = runtime.start(settings(), JOBS)
    try:
        app.first_shelf(desk)
        app.first_shelf(desk)
        (run,) = desk.runs.active()
        assert (run.job, run.trigger, run.params["dataset"], run.params["promote"]) == ("recommend", "first launch", "", "gate")
    finally:
        runtime.stop()


def test_no_first_run_where_it_was_switched_off():
    desk = runtime.start(settings(), JOBS)
    try:
        app.first_launch(desk)
        app.first_shelf(desk)
        app.first_words(desk)
        assert desk.runs.active() == []
    finally:
        runtime.stop()


# ---------------------------------------------------------------- real processes


def launch(home, *command, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FM_", "STREAMLIT_"))}
    given = {"FM_HOME": str(home), "FM_PROFILE": "tiny", "FM_BOOTSTRAP": "false", "OMP_NUM_THREADS": "1"}
    command = command or ("streamlit", "run", "app.py", "--server.port", str(free_port()))
    return subprocess.Popen(
        [sys.executable, "-m", *command], cwd=ROOT, env={**kept, **given, **environment}, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until_it_listens(process, home):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"it ended with {process.returncode}: {process.communicate()[1][-2000:]}")
        try:
            return json.loads((home / "server.json").read_text())
        except (OSError, ValueError):
            time.sleep(0.05)
    process.kill()
    pytest.fail("it did not listen within 60 s")


def refused(process):
    """The sentence of a server that would not start: exit code 2, no traceback."""
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert "Traceback" not in said
    assert "FM Desk cannot start: " in said
    return said.split("FM Desk cannot start: ")[1]


def web_socket_answer(url, *, host, origin=""):
    """The status with which the pages' web socket answers a browser that came by another name."""
    headers = {
        "Host": host, "Origin": origin or f"http://{host}", "Connection": "Upgrade", "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip
    return httpx.get(f"{url}/_stcore/stream", headers=headers, timeout=10).status_code


@pytest.mark.slow
def test_a_server_says_where_it_is_guards_its_store_and_leaves_nothing_behind(tmp_path):
    home = tmp_path / "home"
    first = launch(home)
    try:
        said = until_it_listens(first, home)
        assert said["pid"] == first.pid
        assert stat.S_IMODE((home / "server.json").stat().st_mode) == 0o600
        assert httpx.get(said["url"] + "/healthz").json() == {"status": "ok"}
        for path in ("/", "/healthz", "/api/nothing", "/_stcore/health", "/nothing", "/media/nothing"):
            headers = httpx.get(said["url"] + path).headers
            assert headers["x-content-type-options"] == "nosniff", path
            assert headers["x-frame-options"] == "SAMEORIGIN", path
            assert "frame-ancestors 'self'" in headers["content-security-policy"], path
            assert headers["referrer-policy"] == "same-origin", path
        assert web_socket_answer(said["url"], host="rebind.example") == 403
        assert web_socket_answer(said["url"], host="127.0.0.1", origin="http://evil.example") == 403
        assert str(first.pid) in refused(launch(home))  # a second server on the same store names the first
        assert json.loads((home / "server.json").read_text())["pid"] == first.pid
    finally:
        first.send_signal(signal.SIGTERM)
        out, err = first.communicate(timeout=30)
    assert f"FM Desk: {said['url']}" in out
    assert "Traceback" not in err
    assert not (home / "server.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "environment", "expected"),
    [
        (("streamlit", "run", "app.py", "--server.address", "0.0.0.0"), {}, "FM_SECRET_API_TOKEN"),
        (("uvicorn", "app:app", "--host", "0.0.0.0", "--port", "0"), {}, "FM_SECRET_API_TOKEN"),
        (None, {"FM_THREADS": "many"}, "FM_THREADS"),
        (None, {"FM_HOME": "/proc/nothing"}, "FM_HOME"),
    ],
    ids=["an open address", "an open address chosen by uvicorn", "a setting that cannot be read", "a home that cannot be written"],
)
def test_it_refuses_to_start_in_one_sentence(tmp_path, command, environment, expected):
    assert expected in refused(launch(tmp_path / "home", *(command or ()), **environment))


@pytest.mark.slow
def test_uvicorn_serves_the_same_desk(tmp_path):
    process = launch(tmp_path, "uvicorn", "app:app", "--port", str(free_port()), "--no-access-log")
    try:
        said = until_it_listens(process, tmp_path)
        assert httpx.get(said["url"] + "/readyz").status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_the_watcher_of_the_address_sees_a_socket_of_this_process():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert listener.getsockname() in app.listening_on()
