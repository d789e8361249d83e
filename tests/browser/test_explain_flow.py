"""Why, in a real browser: from an answer to its explanation, hostile text as text, a disagreement into the queue."""

import re

import pytest

from fmcore import runtime
from fmcore.config import Settings
from tests.browser.conftest import start_server
from tests.pages import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.browser]

HOSTILE = "my bill <img src=x onerror=document.title='owned'> <script>owned</script> <b>bold</b> $x^2$ :red[hi]"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A server with a live version for intents."""
    folder = tmp_path_factory.mktemp("why")
    runtime.stop()
    made = runtime.start(Settings(home=folder / "home"), {})
    tiny_model.adopt(made, folder / "m", seed=0)
    runtime.stop()
    server = start_server(folder / "home")
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def quiet(page):
    """The page, with what its console complained about, every address it ever showed, and every address it asked for."""
    page.complaints, page.shown, page.asked = [], [], []
    page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: page.complaints.append(str(e)))
    page.on("framenavigated", lambda frame: page.shown.append(frame.url))
    page.on("request", lambda r: page.asked.append(r.url))
    return page


def settle(page):
    page.wait_for_selector("[data-testid=stMain] h1")
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")


def on(page, title):
    page.wait_for_function("t => document.querySelector('[data-testid=stMain] h1')?.innerText === t", arg=title)
    settle(page)


def go(page, title):
    page.locator("[data-testid=stSidebarNavLink]", has_text=re.compile(f"{title}$")).click()
    on(page, title)


def card(page, title):
    return page.locator("[data-testid=stMain] h2", has_text=re.compile(f"^{title}$"))


def explain(page, text):
    page.get_by_role("textbox", name="Text", exact=True).fill(text)
    page.get_by_role("button", name="Explain", exact=True).click()


def is_text_only(page):
    """Nothing that was typed became an element, ran, or is in an address."""
    made = "[...document.querySelectorAll('[data-testid=stMain] img, [data-testid=stMain] script, [data-testid=stMain] b')].map(e => e.outerHTML)"
    assert [html for html in page.evaluate(made) if 'src="x"' in html or "owned" in html or "bold" in html] == []
    assert page.locator("[data-testid=stMain] .katex").count() == 0
    assert page.title() != "owned"
    for address in [page.url, *page.shown, *page.asked]:
        assert not re.search("bill|owned|onerror|bold", address), address


def test_why_leads_to_the_explain_page_and_a_disagreement_to_the_queue(desk, quiet):
    page = quiet
    page.goto(desk.url)  # not a deep link: Streamlit probes those paths first and Chromium logs the 404s
    settle(page)
    go(page, "Intent")
    page.get_by_label("Customer message").fill(HOSTILE)
    page.keyboard.press("Enter")
    page.locator("text=/^(Answer|Nearest intent): /").wait_for()
    page.get_by_role("button", name="Why?").click()
    page.get_by_role("button", name="Open on Explain").click(timeout=60_000)

    on(page, "Explain")
    card(page, r"Can you trust this\?").wait_for(timeout=60_000)
    assert page.get_by_role("textbox", name="Text", exact=True).input_value() == HOSTILE
    assert "<b>bold</b>" in page.locator("[data-testid=stMain]").inner_text()
    is_text_only(page)

    page.get_by_label("Why (optional)").fill("<b>bold</b> note")
    page.get_by_role("button", name="Store and send for review").click()
    page.get_by_text("Sent for review").wait_for()
    page.get_by_role("radio", name="Review queue").or_(page.get_by_role("button", name="Review queue")).first.click()
    card(page, "To be reviewed").wait_for()
    page.locator("[data-testid=stMain]", has_text="1 open").wait_for()
    page.get_by_text("<b>bold</b> note").wait_for()  # the list is drawn after its heading
    settle(page)
    shown = page.locator("[data-testid=stMain]").inner_text()
    assert "<b>bold</b> note" in shown and "<script>" in shown
    is_text_only(page)
    assert page.locator("[data-testid=stException]").count() == 0
    assert page.complaints == []
    assert page.strangers == []
    assert not re.search("bill|owned|bold", desk.log.read_text()), "no text of anybody is in the log"
