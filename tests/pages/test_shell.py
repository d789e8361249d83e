"""The shell: navigation, the sign-in gate, the health strip, and a plain state for every way in which the desk can be absent."""

import datetime as dt
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from fmcore import clock, runtime
from fmcore.tasks import SERVED
from jobs import JOBS
from pages import shell
from tests.pages import toy_desk, toy_news

SHELL = str(Path(shell.__file__))
FILES = [file for lines in shell.PAGES.values() for file, *_ in lines]


@pytest.fixture
def desk():
    """An empty desk without runner and scheduler."""
    yield toy_desk.start(JOBS)
    runtime.stop()


def visit(file="home.py"):
    """The first request of a session: a deep link to that page."""
    at = AppTest.from_file(SHELL, default_timeout=30)
    return at.run() if file == "home.py" else at.switch_page(file).run()


def test_every_page_has_a_file_and_a_line_on_what_it_is_for():
    for lines in shell.PAGES.values():
        for file, title, _icon, purpose in lines:
            assert (Path(SHELL).parent / file).is_file()
            assert title
            assert purpose.endswith(".")


@pytest.mark.parametrize("file", FILES)
def test_a_page_says_so_when_no_desk_runs_behind_it(file):
    at = visit(file)
    assert not at.exception
    assert at.title[0].value == "FM Desk is not running"


@pytest.mark.parametrize("file", FILES)
def test_a_page_renders_on_an_empty_store(desk, file):
    at = visit(file)
    assert not at.exception
    assert not at.error
    assert at.title


@pytest.mark.parametrize("file", FILES)
def test_a_page_renders_on_a_full_store(desk, tmp_path, file):
    toy_desk.fill(desk, tmp_path, running="maintain")
    toy_news.fill(desk.store)
    at = visit(file)
    assert not at.exception
    assert not at.error
    assert at.title


@pytest.mark.parametrize("file", FILES)
def test_a_page_says_so_when_the_store_does_not_answer(desk, file):
    desk.store.close()
    at = visit(file)
    assert not at.exception
    assert at.error
    assert not any("Traceback" in e.value for e in at.error)


def test_the_strip_tells_what_is_live_and_what_comes_next(desk, tmp_path):
    before = " ".join(shell.health(desk))
    assert f"0 of {len(SERVED)} models live" in before
    assert "Nothing is running" in before
    toy_desk.fill(desk, tmp_path, running="maintain")
    desk.runs.plan("maintain", "30 2 * * *", clock.now() + dt.timedelta(minutes=30))
    after = " ".join(shell.health(desk))
    assert f"1 of {len(SERVED)} models live" in after
    assert "1 running or waiting" in after
    assert "Timed out" in after
    assert "Next job in 30 min" in after


def test_the_strip_says_when_the_schedule_stands_still(desk):
    desk.runs.plan("maintain", "30 2 * * *", clock.now() - dt.timedelta(minutes=10))
    assert any(line.startswith(":red[") and "late by 10 min" in line for line in shell.health(desk))


AUTH = {"redirect_uri": "http://localhost/oauth2callback", "cookie_secret": "x" * 32, "client_id": "a", "client_secret": "b"}


@pytest.mark.parametrize("file", ["home.py", "models.py"])
def test_nobody_sees_a_page_before_signing_in_not_even_by_a_deep_link(desk, file):
    at = AppTest.from_file(SHELL, default_timeout=30)
    at.secrets["auth"] = AUTH
    at.user = {"is_logged_in": False}
    at = at.run() if file == "home.py" else at.switch_page(file).run()
    assert [t.value for t in at.title] == ["FM Desk"]
    assert [b.label for b in at.button] == ["Sign in"]
    assert not at.sidebar.markdown


def test_who_signed_in_sees_the_page_and_can_sign_out(desk):
    at = AppTest.from_file(SHELL, default_timeout=30)
    at.secrets["auth"] = AUTH
    at.user = {"is_logged_in": True, "email": "ada@example.com"}
    at.run()
    assert at.title[0].value == "Home"
    assert any("ada" in m.value for m in at.sidebar.markdown)
    assert "Sign out" in [b.label for b in at.sidebar.button]
