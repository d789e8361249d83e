"""The news room in a real browser: filters in the address, a click to the stories, a new item by itself, an alert taken and silenced."""

import datetime as dt
import re
from types import SimpleNamespace

import httpx
import pandas as pd
import pytest

from fmcore import clock
from fmcore.models.registry import Registry
from fmcore.sentiment import alerts
from fmcore.store.store import Store
from tests.browser.conftest import start_server
from tests.pages import tiny_model, toy_news
from tests.pages.test_alerts_page import Eager

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A desk with ten days of news, a small model of sentiment and one alert that fires."""
    folder = tmp_path_factory.mktemp("news")
    store = Store(folder / "home")
    now = clock.now()
    frame = toy_news.rows(now, days=10)
    at = now.replace(minute=0, second=0, microsecond=0) - dt.timedelta(minutes=40)
    bad = pd.DataFrame(
        [{"published_at": at - dt.timedelta(seconds=30 * i), "topic": "Fraud", "ticker": "AAA", "net": -0.9, "source": "wire",
          "title": f"AAA is fined again, number {i}", "url": f"https://news.example.com/fine/{i}"} for i in range(8)]
    )  # fmt: skip
    frame = pd.concat([frame, bad, frame.tail(1).assign(published_at=now - dt.timedelta(seconds=30))], ignore_index=True)
    frame["story"] = [f"d{i}" for i in range(len(frame))]
    toy_news.write(store, frame)
    alerts.evaluate(store, now=now + dt.timedelta(minutes=5), detector=Eager)
    tiny_model.adopt(SimpleNamespace(registry=Registry(store)), folder / "m", task="sentiment", dataset="demo_sentiment")
    store.close()
    running = start_server(folder / "home")
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture
def quiet(page):
    """The page, with what its console complained about (the 404s of Streamlit's probing of deep links aside)."""
    page.complaints = []
    page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" and "404" not in m.text else None)
    page.on("pageerror", lambda e: page.complaints.append(str(e)))
    yield page
    assert page.complaints == []
    assert page.strangers == []


def settle(page):
    page.wait_for_selector("[data-testid=stMain] h1")
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")
    page.wait_for_timeout(500)


def articles(page):
    """The second figure of the headline."""
    return page.locator("[data-testid=stMetricValue]").nth(1).inner_text().strip()


def test_filters_survive_a_reload(server, quiet):
    page = quiet
    page.goto(f"{server.url}/sentiment")
    settle(page)
    page.get_by_role("radio", name="24 h").click()
    page.get_by_text("vs 24 h before").first.wait_for()
    all_topics = articles(page)
    page.get_by_role("combobox", name="Topics").click()
    page.get_by_role("option", name="Fraud").click()
    page.keyboard.press("Escape")
    page.wait_for_url(re.compile("sent_topic=Fraud"))
    assert "sent_range=24" in page.url
    page.wait_for_function("was => document.querySelectorAll('[data-testid=stMetricValue]')[1]?.innerText.trim() !== was", arg=all_topics)
    shown = articles(page)
    page.reload()
    page.get_by_text("vs 24 h before").first.wait_for()
    settle(page)
    assert articles(page) == shown


def test_a_click_on_the_line_opens_the_stories_of_that_bucket_and_their_words(server, quiet):
    page = quiet
    page.goto(f"{server.url}/sentiment")
    settle(page)
    chart = page.locator("[class*=st-key-sent_index]")
    chart.locator(".main-svg").first.wait_for()
    box = chart.bounding_box()
    for share in (0.5, 0.52, 0.54, 0.56, 0.58):  # a click between two points is none: go on until one is hit
        x, y = box["x"] + share * box["width"], box["y"] + 0.4 * box["height"]
        page.mouse.move(x, y)
        page.wait_for_timeout(400)
        page.mouse.click(x, y)
        page.wait_for_timeout(1500)
        if page.get_by_role("dialog").count():
            break
    drawer = page.get_by_role("dialog")
    drawer.get_by_text("times in").wait_for()
    assert drawer.get_by_role("button", name="Why?").count() >= 1
    drawer.get_by_role("button", name="Why?").first.click()
    drawer.get_by_text("with a net score (positive less negative)").first.wait_for()
    page.keyboard.press("Escape")
    drawer.wait_for(state="detached")
    assert page.locator("[data-testid=stException]").count() == 0


def test_a_new_item_appears_without_a_reload(server, quiet):
    page = quiet
    page.goto(f"{server.url}/sentiment")
    settle(page)
    page.evaluate("window.stillHere = true")
    title = "BBB announces record profit in a test"
    item = {"url": "https://news.example.com/new", "title": title, "published_at": clock.now().isoformat(), "tickers": ["BBB"]}
    answer = httpx.post(f"{server.url}/api/documents", json={"source": "pushed", "documents": [item]}, timeout=30)
    assert answer.status_code < 300, answer.text
    page.get_by_text(title).first.wait_for(timeout=120_000)  # the scoring job's next minute, then the page's own look
    assert page.evaluate("window.stillHere === true")


def test_an_alert_is_taken_and_a_silence_shows_what_it_would_have_muted(server, quiet):
    page = quiet
    page.goto(f"{server.url}/alerts")
    settle(page)
    page.get_by_text("Why it fired").wait_for()
    page.get_by_role("button", name="Acknowledge").click()
    page.get_by_text("local user has it since").wait_for()
    page.get_by_role("button", name="Silence", exact=True).click()
    page.get_by_text("24 h", exact=True).last.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("it would have muted").wait_for()
    dialog.get_by_label("Why").fill("planned")
    dialog.get_by_label("Why").press("Tab")
    dialog.get_by_role("button", name="Silence").last.click()
    dialog.wait_for(state="detached")
    page.get_by_role("radio", name="Silences").click()
    page.get_by_text("1 in force").wait_for()
    assert page.locator("[data-testid=stException]").count() == 0


@pytest.mark.parametrize("path", ["sentiment", "alerts", ""])
def test_the_news_pages_fit_800_px(server, quiet, path):
    page = quiet
    page.set_viewport_size({"width": 800, "height": 900})
    page.goto(f"{server.url}/{path}")
    settle(page)
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth <= document.querySelector('[data-testid=stMain]').clientWidth")
