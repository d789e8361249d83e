"""The frame in a real browser: a deep link first, every page, no traceback, no request that leaves the machine."""

import pytest

from pages.shell import PAGES
from tests.browser.conftest import free_port, start_server

pytestmark = [pytest.mark.slow, pytest.mark.browser]

TITLES = {("" if file == "home.py" else file.removesuffix(".py")): title for lines in PAGES.values() for file, title, _, _ in lines}


def settle(page):
    page.wait_for_selector("[data-testid=stMain] h1")
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")


def test_a_deep_link_is_the_first_request_and_passes_through_the_shell(server, page):
    page.goto(f"{server.url}/data?x=1")
    settle(page)
    assert page.locator("[data-testid=stMain] h1").inner_text() == "Data"
    assert page.locator("[data-testid=stSidebarNavLink]").count() == len(TITLES)
    assert page.locator("text=Page not found").count() == 0


@pytest.mark.parametrize("path", TITLES, ids=lambda path: path or "home")
def test_every_page_of_an_empty_desk_is_drawn_without_an_error_and_without_the_network(server, page, path):
    page.goto(f"{server.url}/{path}")
    settle(page)
    assert page.locator("[data-testid=stMain] h1").first.inner_text() == TITLES[path]
    assert page.locator("[data-testid=stException]").count() == 0
    assert page.locator("[data-testid=stAlertContentError]").count() == 0
    assert page.strangers == []


def test_no_page_scrolls_sideways_at_800_px(server, page):
    page.set_viewport_size({"width": 800, "height": 900})
    for path in ("", "data"):
        page.goto(f"{server.url}/{path}")
        settle(page)
        assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth <= document.querySelector('[data-testid=stMain]').clientWidth")


def test_a_csv_with_hostile_text_is_checked_and_shown_as_text(server, page):
    page.goto(f"{server.url}/data")
    settle(page)
    rows = "text,label\n" + "".join(f"<img src=x onerror=document.title='owned'> {i},:red[{label}]\n" for i in range(4) for label in "ab")
    page.set_input_files("[data-testid=stFileUploader] input[type=file]", {"name": "<b>x</b>.csv", "mimeType": "text/csv", "buffer": rows.encode()})
    page.wait_for_selector("text=A model can learn from this")
    assert page.locator("text=8 rows").count() == 1
    assert page.locator("text=<b>x</b>.csv").count() >= 1
    assert page.title() != "owned"


def test_the_theme_follows_the_reader(server, chromium):
    seen = {}
    for theme in ("light", "dark"):
        context = chromium.new_context(color_scheme=theme, viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.goto(server.url)
        settle(page)
        seen[theme] = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
        context.close()
    assert seen == {"light": "rgb(255, 255, 255)", "dark": "rgb(14, 17, 22)"}




@pytest.fixture
def guarded(tmp_path):
    """A desk that asks people to sign in with an OpenID provider on this machine."""
    provider = pytest.importorskip("oidc_provider_mock", reason="oidc-provider-mock is not installed")
    port = free_port()
    with provider.run_server_in_thread(user_claims=[provider.User(sub="ada", claims={"email": "ada@example.com"})]) as issuer:
        (tmp_path / "secrets.toml").write_text(
            f"""[auth]
redirect_uri = "http://127.0.0.1:{port}/oauth2callback"
cookie_secret = "a long random value for this test only"
client_id = "desk"
client_secret = "unused"
server_metadata_url = "http://127.0.0.1:{issuer.server_port}/.well-known/openid-configuration"
"""
        )
        running = start_server(tmp_path / "home", port=port, options=("--secrets.files", str(tmp_path / "secrets.toml")))
        yield running
        running.stop()


def test_a_deep_link_shows_nothing_before_the_sign_in_and_the_page_after_it(guarded, page):
    page.goto(f"{guarded.url}/models")
    settle(page)
    assert page.locator("[data-testid=stMain] h1").inner_text() == "FM Desk"
    assert page.locator("[data-testid=stSidebarNavLink]").count() == 0
    page.get_by_role("button", name="Sign in").click()
    page.locator("button[value=ada]").click()
    page.wait_for_selector("[data-testid=stSidebarNavLink]")
    page.locator("[data-testid=stSidebar]").get_by_text("example.com").wait_for()  # escaped, so an invisible joiner stands before the @
    page.get_by_role("button", name="Sign out").wait_for()
