"""Canonical links: one form for one address, and only addresses that a browser may follow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcore.data import links


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://WWW.Example.com:80/a//b/?utm_source=x&b=2&a=1#frag", "http://www.example.com/a/b/?a=1&b=2"),
        ("https://example.com", "https://example.com/"),
        ("https://example.com./a", "https://example.com/a"),
        ("https://example.com/a?fbclid=1&gclid=2&mc_cid=3&ref=tw&cmpid=z&at_medium=RSS&id=5", "https://example.com/a?id=5"),
        ("https://example.com/watch?v=abc&p=9&tag=x", "https://example.com/watch?p=9&tag=x&v=abc"),
        ("https://example.com:8443/a", "https://example.com:8443/a"),
        ("https://bücher.example/ä", "https://xn--bcher-kva.example/%C3%A4"),
        ("https://example.com/app#!/story/1", "https://example.com/app#!/story/1"),
        (" https://example.com/a\n", "https://example.com/a"),
    ],
)
def test_decoration_goes_and_what_is_read_stays(url, expected):
    assert links.canonical(url) == expected
    assert links.canonical(expected) == expected


@pytest.mark.parametrize("url", ["javascript:alert(1)", "JAVA\nSCRIPT:x", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "ftp://x.example/", "mailto:a@b.c", "//x.example/a", "x.example/a", "about:blank", "\u2028javascript:x"])  # fmt: skip
def test_only_web_addresses_are_links(url):
    with pytest.raises(links.BadLink, match=links.NOT_WEB):
        links.canonical(url)


@pytest.mark.parametrize("url", ["https:///a", "https://example.com:99999/", "https://[::1/", "https://./"])
def test_an_address_without_a_place_is_refused(url):
    with pytest.raises(links.BadLink):
        links.canonical(url)


def test_a_page_is_the_same_with_and_without_www_encryption_and_a_closing_slash():
    same = ["https://www.example.com/a/", "http://example.com/a", "https://example.com/a"]
    assert len({links.identity(links.canonical(url)) for url in same}) == 1
    assert links.identity("https://example.com/a?id=1") != links.identity("https://example.com/a?id=2")


@given(
    st.one_of(
        st.text(max_size=100), st.text(alphabet="ahtps:/?#&=%@[].;1é\ud800", max_size=60).map(lambda tail: "https://h.example/" + tail)
    )
)
def test_canonical_is_a_web_address_and_settles_at_once(url):
    try:
        once = links.canonical(url)
    except links.BadLink:
        return
    assert once.startswith(("http://", "https://")) and len(once) <= links.MAX_CHARS
    assert links.canonical(once) == once
