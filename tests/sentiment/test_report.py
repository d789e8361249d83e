"""The HTML report: the same bytes for the same inputs, outside text inert, links http or https only, nothing asked of a network."""

import datetime as dt
import html
import re
from html.parser import HTMLParser

import pandas as pd

from fmcore.sentiment import report

UTC = dt.UTC
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{ 7*7 }} {% raw %} & </table>"


def series(n=6, gap=2):
    rows = [
        (dt.datetime(2026, 11, 20, i, tzinfo=UTC), 5, 9, 2, 0.1 * i - 0.3, 0.1 * i - 0.5, 0.1 * i - 0.1, i != gap)
        for i in range(n)
    ]
    return pd.DataFrame(rows, columns=["bucket", "n_stories", "n_articles", "n_negative", "index", "low", "high", "enough"])


def stories(*urls, title=HOSTILE):
    rows = [(dt.datetime(2026, 11, 20, 5, tzinfo=UTC), title, url, HOSTILE, "negative", -0.5, 3) for url in urls]
    return pd.DataFrame(rows, columns=["published_at", "title", "url", "source", "sentiment", "net", "n_articles"])


MOVERS = pd.DataFrame([(HOSTILE, -0.4, 0.1, -0.5, 12)], columns=["key", "now", "before", "change", "n_stories"])
VIEW = report.View(
    title="Sentiment " + HOSTILE, window="20 Nov", filters="topic " + HOSTILE, bucket="1h", zone="UTC",
    headline=[report.Figure("Net sentiment", "−0.20", "vs " + HOSTILE)], models="sentiment v1", generated_at="2026-11-20 06:00 UTC", synthetic=True,
)  # fmt: skip


def made(urls=("https://example.com/a",), s=None):
    return report.html(VIEW, series=series() if s is None else s, stories=stories(*urls), movers=MOVERS, zone=UTC)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.values = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        self.values += [name for name, _ in attrs]


def parsed(page):
    found = Tags()
    found.feed(page)
    return found


def test_the_same_inputs_give_the_same_bytes():
    assert made() == made()


def test_outside_text_is_shown_and_runs_nothing():
    found = parsed(made())
    assert not {"script", "img", "iframe", "object", "form", "link"} & set(found.tags)
    assert not [name for name in found.values if name.startswith("on")]
    assert html.escape("<script>alert(1)</script>") in made()
    assert "{{ 7*7 }}" in made(), "a template in a title is text"


def test_only_web_links_with_their_host_and_no_other_request():
    urls = ["https://example.com/a?b=1", "javascript:alert(1)", "data:text/html,x", "//evil.test", "http://u@evil.test/", "ftp://x.test", "http://["]
    page = made(urls)
    assert parsed(page).links == ["https://example.com/a?b=1"]
    assert ">example.com</a>" in page
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\(", page)


def test_a_gap_in_the_news_is_a_gap_in_the_line_and_said_in_the_table():
    page = made()
    assert page.count("<polyline") == page.count("<polygon") == 2
    assert "not enough news" in page


def test_nothing_to_draw_is_said():
    page = made((), s=series(n=3).assign(enough=False))
    assert "<svg" not in page
    assert "No bucket holds enough news" in page
    assert "No story in this window." in page


def test_where_the_numbers_come_from_stands_below():
    page = made()
    assert "sentiment v1" in page and "Generated 2026-11-20 06:00 UTC" in page and "Demo data" in page
