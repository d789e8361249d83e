"""Feeds: every dialect read, every trap refused before a parser sees it, bytes only."""

import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.data import feeds
from fmcore.data.feeds import BadFeed, parse

RSS = b"""<?xml version="1.0" encoding="utf-8"?>
<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/"><channel><title>News &amp; more</title><link>https://n.example/</link>
<item><title>First &lt;b&gt;bold&lt;/b&gt;</title><link>/first?utm_source=rss</link><guid isPermaLink="false">g1</guid>
<pubDate>Tue, 24 Nov 2026 07:00:00 GMT</pubDate><description>Short.</description><content:encoded><![CDATA[<p>The longer text.</p>]]></content:encoded></item>
<item><title>No zone</title><link>https://n.example/2</link><pubDate>Tue, 24 Nov 2026 07:00:00</pubDate></item>
<item><title>Bad link</title><link>javascript:alert(1)</link></item>
</channel></rss>"""
ATOM = b"""<feed xmlns="http://www.w3.org/2005/Atom"><title>A</title><entry><id>https://n.example/e1</id><title type="html">One &amp;amp; two</title>
<updated>2026-11-24T07:00:00Z</updated><summary>s</summary></entry></feed>"""
RDF = b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/"><channel><title>R</title></channel>
<item><title>Old way</title><link>https://n.example/r</link></item></rdf:RDF>"""


def test_rss_items_come_as_they_are_written():
    feed = parse(RSS, url="https://n.example/feed.xml")
    assert (feed.title, feed.n_items, feed.well_formed) == ("News & more", 3, True)
    first, second, third = feed.items
    assert (first.url, first.title, first.body, first.key) == (
        "https://n.example/first?utm_source=rss",
        "First <b>bold</b>",
        "<p>The longer text.</p>",
        "g1",
    )
    assert first.published == "Tue, 24 Nov 2026 07:00:00 GMT"
    assert second.published == "Tue, 24 Nov 2026 07:00:00"  # not taken for UTC: documents.py refuses it
    assert third.url == "javascript:alert(1)" and third.published is None


@pytest.mark.parametrize(("raw", "title"), [(ATOM, "One &amp; two"), (RDF, "Old way"), (RSS.decode().replace("utf-8", "utf-16").encode("utf-16"), None), (RSS.decode().replace("utf-8", "iso-8859-1").replace("Short", "Bücher").encode("latin-1"), None), (b"\xef\xbb\xbf" + RSS, None)])  # fmt: skip
def test_other_dialects_and_encodings_are_read(raw, title):
    feed = parse(raw)
    assert feed.items and (title is None or feed.items[0].title == title)


def test_an_atom_entry_without_a_link_is_found_by_its_id():
    assert parse(ATOM).items[0].url == "https://n.example/e1"


@pytest.mark.parametrize("what", ["/etc/passwd", "http://127.0.0.1/feed", RSS.decode(), None, 5])
def test_only_bytes_reach_the_parser(what):
    with pytest.raises(TypeError):
        parse(what)


def test_a_path_as_bytes_opens_no_file(tmp_path):
    (tmp_path / "feed.xml").write_bytes(RSS)
    with pytest.raises(BadFeed):
        parse(str(tmp_path / "feed.xml").encode())


BOMB = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
TRAPS = {
    "billion laughs": f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "ha">{BOMB}]><rss><channel><title>&l9;</title></channel></rss>',
    "quadratic blow-up": f'<!DOCTYPE x [<!ENTITY a "{"a" * 50_000}">]><rss><channel><title>{"&a;" * 5_000}</title></channel></rss>',
    "external entity": '<!DOCTYPE x [<!ENTITY xxe SYSTEM "file://{canary}">]><rss><channel><title>&xxe;</title></channel></rss>',
    "external entity over http": '<!DOCTYPE x [<!ENTITY xxe SYSTEM "{url}">]><rss><channel><title>&xxe;</title></channel></rss>',
    "external document type": '<!DOCTYPE rss SYSTEM "{url}"><rss><channel/></rss>',
    "parameter entity": '<!DOCTYPE x [<!ENTITY % p SYSTEM "{url}"> %p;]><rss><channel/></rss>',
    "lower case, blanks": '<?xml version="1.0"?>\n<!-- a --> <! doctype x [<! entity a "b">]><rss/>',
    "XInclude": '<rss xmlns:xi="http://www.w3.org/2001/XInclude"><channel><item><title><xi:include href="{url}" parse="text"/></title></item></channel></rss>',
}


@pytest.fixture
def canary():
    """A web server on this machine that should never be asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    server.asked = asked
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("trap", TRAPS)
def test_document_types_and_entities_are_refused_unread(trap, encoding, canary, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("the-canary-text")
    written = TRAPS[trap].replace("{url}", f"http://127.0.0.1:{canary.server_port}/x").replace("{canary}", str(secret))
    try:
        found = parse(written.encode(encoding))
    except BadFeed as refused:
        assert trap == "XInclude" or "document type" in refused.message or "not a feed" in refused.message
    else:
        assert trap == "XInclude" and "canary" not in str(found)
    assert canary.asked == []


def test_a_document_type_cannot_hide_behind_an_encoding():
    hidden = b'<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-DOCTYPE x+AD4-<rss><channel/></rss>'
    with pytest.raises(BadFeed, match="'utf-7', which is not read"):
        parse(hidden)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b" \n\x00", "empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"<?xml version='1.0'?><!-- x --><html xmlns='http://www.w3.org/1999/xhtml'/>", "web page"),
        (b'{"version": "https://jsonfeed.org/version/1"}', "not a feed"),
        (b"<channel/>", "no RSS or Atom feed that is known"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "begins with <svg>"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"x" * (feeds.MAX_BYTES + 1), "larger than 5 MB"),
        (b"<rss><channel>" + b"<a>" * 100 + b"</a>" * 100 + b"</channel></rss>", "too deep"),
        (b"<rss><channel>" + b"<a/>" * (feeds.MAX_ELEMENTS + 1) + b"</channel></rss>", "too many elements"),
        (b"<rss><channel>" + b"<item><title>a & b</title>" * 20_000, "too large to be repaired"),
    ],
)
def test_what_is_no_feed_is_refused_in_words(raw, words):
    with pytest.raises(BadFeed) as refused:
        parse(raw)
    assert words in refused.value.message and refused.value.hint


def test_a_web_page_names_the_feed_it_belongs_to():
    page = b'<!doctype html><html><head><link rel="alternate" type="application/rss+xml" href="/feed.xml"></head></html>'
    with pytest.raises(BadFeed) as refused:
        parse(page, url="https://n.example/news")
    assert refused.value.hint == "The page names this feed: https://n.example/feed.xml"


def test_a_small_feed_that_is_broken_gives_what_can_be_read():
    feed = parse(b"<rss version='2.0'><channel><item><title>Q&A: a & b</title><link>https://n.example/q</link></item>")
    assert not feed.well_formed and [item.url for item in feed.items] == ["https://n.example/q"]


def test_more_items_than_are_kept_are_counted():
    many = b"<rss version='2.0'><channel>" + b"".join(b"<item><title>%d</title></item>" % n for n in range(30)) + b"</channel></rss>"
    feed = parse(many, max_items=10)
    assert (len(feed.items), feed.n_items) == (10, 30)


@settings(max_examples=80, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.text(alphabet="<>/!&;=\"' rsitemchanl\x00é", max_size=200).map(lambda t: b"<rss version='2.0'><channel><item>" + t.encode()), st.integers(0, 10**9)))  # fmt: skip
def test_any_bytes_are_a_feed_or_refused(raw):
    if isinstance(raw, int):  # a good feed with a few bytes changed
        dice = random.Random(raw)
        changed = bytearray(dice.choice([RSS, ATOM, RDF]))
        for _ in range(dice.randint(1, 12)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        raw = bytes(changed)
    try:
        feed = parse(raw, url="https://n.example/feed")
    except BadFeed as refused:
        assert refused.message
    else:
        assert all(isinstance(part, str) for item in feed.items for part in (item.url, item.title, item.body, item.key))
