"""The main job of the desk in a real browser: classify, start a fine-tune, watch it, promote it, classify again."""

import re

import pytest

from fmcore import runtime
from fmcore.config import Settings
from tests.browser.conftest import start_server
from tests.pages import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.browser]

MESSAGE = "my bill is much higher than last month"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A server whose desk has one live model already; (server, that version's name)."""
    folder = tmp_path_factory.mktemp("flow")
    runtime.stop()
    made = runtime.start(Settings(home=folder / "home"), {})
    live = tiny_model.adopt(made, folder / "m", seed=0)
    runtime.stop()
    server = start_server(folder / "home")
    yield server, live.version
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def quiet(page):
    """The page, with what its console complained about."""
    page.complaints = []
    page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: page.complaints.append(str(e)))
    return page


def settle(page):
    page.wait_for_selector("[data-testid=stMain] h1")
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")


def go(page, title):
    page.locator("[data-testid=stSidebarNavLink]", has_text=re.compile(f"{title}$")).click()
    page.wait_for_function("t => document.querySelector('[data-testid=stMain] h1')?.innerText === t", arg=title)
    settle(page)


def classify(page, version):
    page.get_by_label("Customer message").fill(MESSAGE)
    page.keyboard.press("Enter")
    page.locator("[data-testid=stMain] h2", has_text=version).wait_for()
    page.locator("text=/^(Answer|Nearest intent): /").wait_for()
    assert page.locator("text=/In scope|Out of scope|Close call/").count() >= 1


def start_fine_tune(page):
    go(page, "Training")
    page.get_by_text("More settings").click()
    page.get_by_role("spinbutton", name="Shots").fill("5")
    page.get_by_role("spinbutton", name="Seed").fill("7")
    page.get_by_text("Fast", exact=True).click()
    page.locator("[data-testid=stSelectbox]", has_text="Promote").locator("input").fill("never")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Start the run").click()


def test_a_message_is_classified_a_model_is_trained_watched_promoted_and_answers(desk, quiet):
    server, first = desk
    page = quiet
    page.goto(server.url)  # not a deep link: Streamlit probes those paths first and Chromium logs the 404s
    settle(page)
    go(page, "Intent")
    classify(page, first)
    assert "bill" not in page.url, "a message never reaches the address"

    start_fine_tune(page)
    page.locator("[data-testid=stProgress]").first.wait_for()
    page.locator("text=Running").first.wait_for(timeout=60_000)
    link = page.get_by_role("link", name="Look at version").first
    link.wait_for(timeout=240_000)
    page.locator("[data-testid=stMain]").get_by_text("Nothing is running").wait_for()  # the page drew itself again when the run ended

    link.click()
    page.wait_for_function("document.querySelector('[data-testid=stMain] h1')?.innerText === 'Models'")
    settle(page)
    second = re.search(r"[?&]model=([^&]+)", page.url)[1]
    page.get_by_label("Why promote it").fill("trained in this test")
    page.get_by_role("button", name="Promote").click()
    page.get_by_label("Why go back").wait_for()

    go(page, "Intent")
    assert second != first
    classify(page, second)
    assert page.locator("[data-testid=stException]").count() == 0
    assert page.complaints == []
    assert page.strangers == []


def test_an_answer_fits_an_800_px_page_and_hostile_text_stays_text(desk, quiet):
    server, _ = desk
    page = quiet
    page.set_viewport_size({"width": 800, "height": 900})
    page.goto(f"{server.url}/intent")
    settle(page)
    page.get_by_label("Customer message").fill("<img src=x onerror=document.title='owned'> $x$ :red[hi] https://example.com")
    page.keyboard.press("Enter")
    page.locator("text=/^(Answer|Nearest intent): /").wait_for()
    assert page.title() != "owned"
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth <= document.querySelector('[data-testid=stMain]').clientWidth")
    assert page.strangers == []
