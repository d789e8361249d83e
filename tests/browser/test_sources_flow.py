"""A person adds a source on the Data page and sees what it brings, in a real browser."""

import httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.browser]


def test_a_source_is_added_looked_at_and_removed(server, page):
    page.goto(f"{server.url}/data?data_view=Sources")
    page.get_by_text("No sources yet").wait_for()
    page.get_by_role("spinbutton", name="History (days)").fill("2")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Add the source").click()
    page.get_by_role("button", name="Look now").click()
    page.locator("[data-testid=stPlotlyChart]").first.wait_for()  # its documents a day: the view drew itself again after the look
    sources = httpx.get(f"{server.url}/api/sources", trust_env=False).json()["sources"]
    assert [(s["name"], s["settings"]["history_days"], s["health"]["state"]) for s in sources] == [("demo", 2, "well")]
    assert sources[0]["health"]["n_new"] > 100
    page.get_by_role("button", name="Remove").first.click()
    page.get_by_role("button", name="Remove this source").click()
    page.get_by_text("No sources yet").wait_for()
    assert httpx.get(f"{server.url}/api/sources", trust_env=False).json() == {"sources": []}
    assert page.strangers == []
