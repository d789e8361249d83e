"""Recommendations in a real browser: pick somebody, like something, the list moves; take it back; a stranger gets the fallback's badge."""

import dataclasses
import re

import pytest

from tests.browser.conftest import start_server
from tests.recommend import toy_service

pytestmark = [pytest.mark.slow, pytest.mark.browser]

HOSTILE = "<img src=x onerror=document.title='owned'> <b>bold</b> $x^2$ :red[hi]"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A server with a live version; one of its titles tries to be more than text."""
    folder = tmp_path_factory.mktemp("recommend")
    data = toy_service.shop()
    data = dataclasses.replace(data, titles=(HOSTILE, *data.titles[1:]))
    server = start_server(toy_service.served(folder / "home", folder, data=data))
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


def open_page(page, url):
    page.goto(url)  # not a deep link: Streamlit probes those paths first and Chromium logs the 404s
    page.wait_for_selector("[data-testid=stMain] h1")
    page.locator("[data-testid=stSidebarNavLink]", has_text=re.compile("Recommend$")).click()
    page.wait_for_function("document.querySelector('[data-testid=stMain] h1')?.innerText === 'Recommend'")
    page.locator("[data-testid=stMain] h2", has_text="Next for you").wait_for(timeout=60_000)
    still(page)


LISTED = """() => [...document.querySelectorAll('[data-testid=stMain] button')].filter(b => b.innerText.trim() === 'Like')
    .map(b => b.closest('[data-testid=stHorizontalBlock]').parentElement.closest('[data-testid=stHorizontalBlock]'))
    .map(row => row?.querySelector('strong')?.innerText)"""
"""Titles of the list, as they stand on the page at this moment."""


def still(page):
    """Wait until the list is drawn whole and nothing of it is waiting to be drawn anew."""
    page.wait_for_function(
        f"() => ({LISTED})().length === 10 && ({LISTED})().every(Boolean) && !document.querySelector('[data-stale=true]')"
        " && !document.querySelector('[data-testid=stStatusWidget]')",
        timeout=60_000,
    )
    main(page).get_by_text("Bar: score against the top one").wait_for(timeout=60_000)


def like(page, place):
    """Like the item at a place of the list; gives its title."""
    still(page)
    title = page.evaluate(LISTED)[place]
    main(page).get_by_role("button", name="Like", exact=True).nth(place).click()
    return title


def said(page, words, title):
    """Wait until the page says what was done with an item; a long title is cut there."""
    main(page).get_by_text(f"{words} {title[:24]}").wait_for(timeout=60_000)


def test_a_list_follows_likes_and_regrets_and_a_stranger_gets_the_fallback(desk, quiet):
    page = quiet
    open_page(page, desk.url)
    page.wait_for_url(re.compile("who=user-0"))
    main(page).get_by_text("because you met").first.wait_for()
    assert main(page).get_by_text("Fallback: popularity").count() == 0

    liked = like(page, 2)
    said(page, "After you liked", liked)
    main(page).get_by_text("liked here").first.wait_for()
    page.wait_for_function(f"title => !({LISTED})().includes(title)", arg=liked)

    main(page).get_by_role("button", name="Without it?").first.click()
    drawer = page.get_by_role("dialog")
    drawer.get_by_text("Nothing is changed yet").wait_for(timeout=60_000)
    drawer.get_by_role("button", name="Remove this from my history").click()
    drawer.wait_for(state="detached")
    said(page, "After you removed", liked)
    main(page).get_by_role("button", name="Put it back").click()
    said(page, "After you put back", liked)

    main(page).get_by_role("button", name="Why?").first.click()
    page.get_by_role("dialog").get_by_text("causes hold").wait_for(timeout=60_000)
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")

    main(page).get_by_role("button", name="New person").click()
    main(page).get_by_text("Fallback: popularity").wait_for(timeout=60_000)
    page.wait_for_function("() => !location.search.includes('who=')")
    main(page).get_by_text("Nothing is known of").wait_for()
    said(page, "After you liked", like(page, 0))
    main(page).get_by_text("Fallback: popularity").wait_for(state="detached")
    main(page).get_by_text("How the list moved").wait_for()

    assert page.title() != "owned"
    assert page.evaluate("[...document.querySelectorAll('[data-testid=stMain] img, [data-testid=stMain] b')].length") == 0
    assert main(page).locator(".katex").count() == 0
    assert page.locator("[data-testid=stException]").count() == 0
    assert page.complaints == []
    assert page.strangers == []
