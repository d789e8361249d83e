"""The Lab in a real browser: a formula that fits, a word hidden and filled in by two checkpoints, a base's words by checkpoint."""

import re

import pytest

from tests.browser.conftest import start_server
from tests.lab import toy_bases

pytestmark = [pytest.mark.slow, pytest.mark.browser]

HOSTILE = "<img src=x onerror=document.title='owned'> <b>bold</b> $x^2$ :red[hi] [MASK]"
OVERHANG = """() => [...document.querySelectorAll('[data-testid=stMain] .katex-display')].map(formula => {
    const room = formula.closest('[data-testid=stMarkdownContainer]').getBoundingClientRect().right
    return Math.max(...[...formula.querySelectorAll('.base')].map(part => part.getBoundingClientRect().right)) - room })"""
"""By how many pixels each formula is wider than its card."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A server with two bases on its shelf."""
    folder = tmp_path_factory.mktemp("lab")
    toy_bases.shelve(folder / "home", folder)
    toy_bases.shelve(folder / "home", folder, name="onward", start="continue", synthetic=False)
    server = start_server(folder / "home")
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def quiet(page):
    """The page, with what its console complained about."""
    page.complaints = []
    page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: page.complaints.append(str(e)))
    return page


def main(page):
    return page.locator("[data-testid=stMain]")


def view(page, name):
    main(page).get_by_role("radio", name=name, exact=True).click()


def test_a_method_is_read_a_word_is_hidden_and_a_base_is_watched(desk, quiet):
    page = quiet
    page.goto(desk.url)  # not a deep link: Streamlit probes those paths first and Chromium logs the 404s
    page.wait_for_selector("[data-testid=stMain] h1")
    page.locator("[data-testid=stSidebarNavLink]", has_text=re.compile("Lab$")).click()
    main(page).get_by_role("heading", name="Masked language modelling (MLM)").wait_for(timeout=60_000)
    main(page).get_by_role("radio", name="To a task").click()
    main(page).get_by_role("heading", name="Full fine-tuning").wait_for()
    main(page).get_by_role("button", name="Next: LoRA").click()
    main(page).get_by_role("heading", name="LoRA: low-rank adaptation").wait_for()
    page.wait_for_url(re.compile("lab_method=lora"))
    main(page).get_by_text("95.8").wait_for()
    assert page.locator(".katex-error").count() == 0
    assert max(page.evaluate(OVERHANG)) <= 0

    view(page, "Fill the mask")
    main(page).get_by_role("heading", name="Mask 1").wait_for(timeout=60_000)
    main(page).get_by_role("button", name="Dividend").click()
    main(page).get_by_text("dividend comes 1st").first.wait_for()
    main(page).get_by_role("button", name="board", exact=True).click()
    main(page).get_by_role("heading", name="Mask 2").wait_for()
    main(page).locator("[data-testid=stPlotlyChart] .bars").first.wait_for(state="attached")
    box = main(page).get_by_role("textbox", name="Text")
    box.fill(HOSTILE)
    box.press("Control+Enter")
    main(page).get_by_role("heading", name="Mask 2").wait_for(state="detached")

    view(page, "Pretraining")
    main(page).get_by_text("Masked words", exact=True).first.wait_for(timeout=60_000)
    main(page).get_by_text("card 90").first.wait_for()
    main(page).get_by_role("slider").press("Home")
    main(page).get_by_text("the 10").first.wait_for()
    main(page).get_by_role("button", name="How it works: Masked words").click()
    main(page).get_by_role("heading", name="Masked language modelling (MLM)").wait_for()

    assert page.title() != "owned"
    assert page.locator("[data-testid=stException]").count() == 0
    assert page.complaints == []
    assert page.strangers == []
