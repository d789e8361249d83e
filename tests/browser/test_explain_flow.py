"""Why, in a real browser: from an answer to its explanation, stopped on the way, hostile text as text, a disagreement into the queue."""

import re

import numpy as np
import pytest

from fmcore import runtime
from fmcore.config import Settings
from tests.browser.conftest import start_server
from tests.pages import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.browser]

HOSTILE = "my bill <img src=x onerror=document.title='owned'> <script>owned</script> <b>bold</b> $x^2$ :red[hi]"
N_SLOW, WIDE = 16, 8192
"""Products with a wide unit matrix and back in the encoder, some 50 ms a text on a quiet core: an explanation takes seconds wherever it is
made, so that it can be stopped on the way."""


def slowed(folder, texts, *, seed):
    """The tiny encoder with the same answers, later."""
    import onnx
    from onnx import helper, numpy_helper

    ENCODER(folder, texts, seed=seed)
    model = onnx.load(folder / "encoder.onnx")
    graph = model.graph
    place = next(i for i, node in enumerate(graph.node) if "words" in node.output)
    there = np.eye(tiny_model.DIM, WIDE, dtype=np.float32)
    graph.initializer.extend([numpy_helper.from_array(there, "there"), numpy_helper.from_array(np.ascontiguousarray(there.T), "back")])
    graph.node[place].output[0] = "words0"
    names = [f"words{i}" for i in range(2 * N_SLOW)] + ["words"]
    for i, (before, after) in enumerate(zip(names, names[1:], strict=False)):
        graph.node.insert(place + 1 + i, helper.make_node("MatMul", [before, "back" if i % 2 else "there"], [after]))
    onnx.save(model, folder / "encoder.onnx")


ENCODER = tiny_model.encoder


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A server with a live version for intents, and one for sentiment that takes its time."""
    folder = tmp_path_factory.mktemp("why")
    runtime.stop()
    made = runtime.start(Settings(home=folder / "home"), {})
    tiny_model.adopt(made, folder / "m", seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_model, "encoder", slowed)
        tiny_model.adopt(made, folder / "s", task="sentiment", dataset="demo_sentiment")
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
    shown = page.locator("[data-testid=stMain]").inner_text()
    assert "<b>bold</b> note" in shown and "<script>" in shown
    is_text_only(page)
    assert page.locator("[data-testid=stException]").count() == 0
    assert page.complaints == []
    assert page.strangers == []


def test_a_long_explanation_is_stopped_and_asked_again(desk, quiet):
    page = quiet
    page.goto(desk.url)
    settle(page)
    go(page, "Explain")
    page.get_by_role("combobox", name=re.compile("Task")).fill("sentiment")
    page.keyboard.press("Enter")
    page.locator("[data-testid=stMain]", has_text="demo_sentiment").wait_for()
    settle(page)
    explain(page, "my bill is much higher than last month and nobody told me why before it was sent to my old address")
    page.get_by_role("progressbar").first.wait_for()
    page.get_by_role("button", name="Cancel").first.click()
    page.get_by_text("Stopped before it was done. Nothing was stored.").wait_for()
    page.get_by_role("button", name="Try again").click()
    card(page, r"Can you trust this\?").wait_for(timeout=120_000)
    page.wait_for_function("!document.querySelector('[data-testid=stProgress]')", timeout=120_000)
    is_text_only(page)
    assert page.complaints == []
    log = desk.log.read_text()
    assert not re.search("bill|owned|bold", log), "no text of anybody is in the log"
