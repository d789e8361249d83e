"""Shared drawing code: hostile text stays literal, signs and states read right, failures become sentences."""

import datetime as dt
import html
import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from markdown_it import MarkdownIt
from streamlit.testing.v1 import AppTest

from fmcore import clock
from pages import ui

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](http://evil.example/p.png)",
    "https://evil.example/path?q=1",
    "www.evil.example",
    "someone@evil.example",
    "mailto:someone@evil.example",
    "<http://evil.example>",
    ":red[red] :material/bolt: :smile:",
    ':color[x]{background="red"}',
    ":red-badge[x]",
    "$\\frac{1}{2}$ and $$x$$",
    "# heading",
    "- list\n- list",
    "1. list",
    "> quote",
    "```\ncode\n```",
    "`code`",
    "**bold** _it_ ~~gone~~",
    "a | b\n--|--\n1 | 2",
    "a -> b <- c => d <= e >= f == g -- h",
    "&lt;b&gt; &amp; &#60;",
    "line one  \nline two",
    "back\\slash \\* star",
    "[ref]: http://evil.example",
    "[^1] footnote",
    "\x00\x07 control",
    "\ud800 lone surrogate",
    "\u202eright to left",
    "]} unbalanced [{",
]


def rendered(markdown: str) -> str:
    """What a CommonMark reader makes of it, with tables, strike-through: an HTML fragment."""
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown).strip()


def shown(fragment: str) -> str:
    body = re.fullmatch(r"<p>(.*)</p>", fragment, re.DOTALL)
    assert body, f"more than one plain paragraph: {fragment}"
    assert "<" not in body[1], f"markup came out: {fragment}"
    return html.unescape(body[1]).replace("\u2060", "")


def plain(value: str) -> str:
    """The text that a person should see: one line, no control characters, surrogates replaced."""
    return " ".join(ui.text.clean(value)[0].split())


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_text_is_shown_literally(value):
    assert shown(rendered("x " + ui.esc(value))) == "x " + plain(value)


@given(some.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_is_shown_literally(value):
    assert shown(rendered("x" + ui.esc(value))) == "x" + plain(value)


@given(some.text(alphabet=":[]{}$`<>@=-_*~/hpstw.", max_size=40))
@settings(max_examples=150, deadline=None)
def test_no_character_that_streamlit_reads_is_left_bare(value):
    bare = re.sub(r"\\.", "", ui.esc(value))
    assert not re.search(r"[:\[\]{}$`<>@*_~]", bare)


@pytest.mark.parametrize("value", ["https://x.example", "http://x.example", "www.x.example", "a@b.example", "a -> b", "<= x"])
def test_what_browsers_link_by_themselves_is_broken_by_a_word_joiner(value):
    assert "\u2060" in ui.esc(value)


def test_text_that_is_missing_or_not_text_is_shown_as_it_reads():
    assert ui.esc(None) == ""
    assert ui.esc(12) == "12"


def test_a_chip_keeps_its_words_inside_the_badge():
    assert ui.chip("a] :red[b", "blue") == ":blue-badge[a\\] \\:red\\[b]"


def test_signs_are_real_and_zero_has_no_direction():
    assert (ui.signed(0.5), ui.signed(-0.5), ui.signed(0.0, 1)) == ("+0.50", "−0.50", "±0.0")


def test_a_moment_reads_with_its_age_and_its_hour():
    assert ui.fresh(None) == "never"
    assert re.fullmatch(r"\d+ min ago \((\d+ \w+ )?\d\d:\d\d UTC\)", ui.fresh(clock.now() - dt.timedelta(minutes=20)))
    old = clock.now() - dt.timedelta(days=3)
    assert f"{old.day} {old:%b}" in ui.fresh(old)


def test_a_long_text_is_cut_at_a_word():
    assert ui.short("one two three four", 12) == "one two …"
    assert ui.short("one two", 12) == "one two"


def test_both_themes_have_the_same_tokens():
    assert set(ui.TOKENS["light"]) == set(ui.TOKENS["dark"])


def test_a_bar_chart_takes_labels_literally():
    fig = ui.bars(["<b>x</b>", "a & b"], [3, 1], unit="messages")
    assert list(fig.layout.yaxis.ticktext) == ["&lt;b&gt;x&lt;/b&gt;", "a &amp; b"]


def draw(what):
    """An AppTest of one drawing function."""
    return AppTest.from_function(what, default_timeout=20).run()


def test_a_refusal_is_two_sentences_and_no_traceback():
    def script():
        from fmcore.nouns import FMError
        from pages import ui

        with ui.guarded():
            raise FMError("The file is empty.", "Choose *another* one.")

    at = draw(script)
    assert [e.value for e in at.error] == ["**The file is empty\\.** Choose \\*another\\* one\\."]
    assert not at.exception


def test_an_unforeseen_failure_is_a_sentence_and_stays_out_of_the_browser():
    def script():
        from pages import ui

        with ui.guarded():
            raise RuntimeError("secret detail")

    at = draw(script)
    assert not at.exception
    assert "could not be drawn" in at.error[0].value
    assert "secret detail" not in at.error[0].value


def test_stopping_and_rerunning_pass_through_the_guard():
    def script():
        import streamlit as st

        from pages import ui

        with ui.guarded():
            if "again" not in st.session_state:
                st.session_state.again = True
                st.rerun()
            st.markdown("second run")
            st.stop()
        st.markdown("never")

    at = draw(script)
    assert [m.value for m in at.markdown] == ["second run"]


def test_a_change_gets_its_colour_from_its_sign_and_what_is_good():
    def script():
        from pages import ui

        ui.kpi("up", "1", 0.5)
        ui.kpi("down", "1", -0.5)
        ui.kpi("lower is better", "1", -0.5, good="down")
        ui.kpi("no judgement", "1", 0.5, good="none")

    metrics = draw(script).metric
    assert [m.delta for m in metrics] == ["+0.50", "−0.50", "−0.50", "+0.50"]
    colors = [m.proto.color for m in metrics]
    assert colors[0] == colors[2] != colors[1]
    assert colors[3] not in colors[:2]


def test_an_empty_state_says_what_to_do_and_offers_one_place_for_a_button():
    def script():
        from pages import ui

        with ui.empty("No runs yet", "Start one."):
            import streamlit as st

            st.button("Start")

    at = draw(script)
    assert any("No runs yet" in m.value for m in at.markdown)
    assert at.button[0].label == "Start"


def test_a_download_is_safe_in_a_spreadsheet():
    def script():
        import pandas as pd

        from pages import ui

        ui.download("Download", pd.DataFrame({"text": ["=1+1"], "n": [-5]}), "x.csv", key="d")

    at = draw(script)
    assert not at.exception
    from fmcore.data.uploads import to_csv

    assert b"'=1+1,-5" in to_csv(pd.DataFrame({"text": ["=1+1"], "n": [-5]}))


def test_the_one_who_asks_is_named_only_when_signed_in():
    def script():
        import streamlit as st

        from pages import ui

        st.markdown(ui.who())

    at = AppTest.from_function(script, default_timeout=20)
    at.user = {"is_logged_in": True, "email": "ada@example.com"}
    assert at.run().markdown[0].value == "ada@example.com"
    at = AppTest.from_function(script, default_timeout=20)
    at.user = {"is_logged_in": False}
    assert at.run().markdown[0].value == "local user"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://news.example.com/a?b=1&c=2", "[news\\.example\\.com](https://news.example.com/a?b=1&c=2)"),
        ("http://example.com/a) ![x](http://evil.test/p.png", "[example\\.com](http://example.com/a%29%20!%5Bx%5D%28http://evil.test/p.png)"),
        ("javascript:alert(1)", ""),
        ("data:text/html,x", ""),
        ("//example.com", ""),
        ("https://user:secret@example.com/", ""),
        ("http://[", ""),
        (None, ""),
    ],
)
def test_a_link_is_http_or_https_shows_its_host_and_cannot_end_early(url, shown):
    assert ui.link(url) == shown
