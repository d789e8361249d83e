"""Hostile feeds end to end: each is on its source's record with a reason, costs bounded time and memory, and delays no other source."""

import functools
import os
import re
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path

import pytest

from fmcore import clock, config
from fmcore.data import looks
from fmcore.data.sources import Sources
from fmcore.store.store import Store
from tests.data.web import Site, answer

pytestmark = pytest.mark.slow
MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """All the feeds here are one host's."""
    monkeypatch.setattr(looks, "HOST_GAP_S", 0.0)


@pytest.fixture
def store():
    held = Store(config.settings().home)
    yield held
    held.close()


@pytest.fixture
def site():
    held = Site()
    yield held
    held.close()


def feed(*titles):
    items = "".join(f"<item><title>{t}</title><link>https://n.example/{t}</link><pubDate>Tue, 24 Nov 2020 07:00:00 GMT</pubDate></item>" for t in titles)
    return f"<rss version='2.0'><channel><title>F</title>{items}</channel></rss>".encode()


def drips(site):
    def reply(handler):
        answer(handler, b"<rss version='2.0'>", length=False)
        while not site.stop.wait(0.05):
            handler.wfile.write(b" ")

    return reply


def never_ends(site):
    def reply(handler):
        answer(handler, b"<rss version='2.0'><channel>", length=False)
        while not site.stop.is_set():
            handler.wfile.write(b"<item><title>x</title></item>" * 2000)

    return reply


@functools.cache
def bomb():
    """A gigabyte of zeros as a megabyte of gzip."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(MEGABYTE)) for _ in range(1024)) + packer.flush()


FAULTS = {
    "drips": (drips, "did not deliver"),
    "never ends": (never_ends, "larger than"),
    "says more than it sends": (lambda _site: lambda h: answer(h, feed("a"), said_length=10 * MEGABYTE), "larger than|broke|closed|cannot be reached"),
    "says more than it sends, within bounds": (lambda _site: lambda h: answer(h, feed("a"), said_length=5000), "cannot be reached|breaks off|did not deliver"),
    "a gzip bomb": (lambda _site: lambda h: answer(h, bomb(), Content_Encoding="gzip"), "larger than"),
    "a gzip that is none": (lambda _site: lambda h: answer(h, b"<rss/>", Content_Encoding="gzip"), "not the gzip"),
    "a document type": (lambda _site: lambda h: answer(h, b"<!DOCTYPE rss [<!ENTITY a 'b'>]>" + feed("&a;")), "document type|entit"),
    "404": (lambda _site: lambda h: answer(h, b"", code=404), "404"),
    "500": (lambda _site: lambda h: answer(h, b"", code=500), "500"),
    "a web page": (lambda _site: lambda h: answer(h, b"<!doctype html><html><body>hello</body></html>", Content_Type="text/html"), "page|feed"),
    "redirects to itself": (lambda _site: lambda h: answer(h, b"", code=302, Location="/bad"), "redirects"),
    "nothing": (lambda _site: lambda h: answer(h, b""), "empty|feed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hostile_feed_is_on_record_with_its_reason_and_the_next_source_is_read(store, site, fault):
    make, words = FAULTS[fault]
    site.paths["/bad"], site.paths["/good"] = make(site), lambda h: answer(h, feed("fine"))
    for name in ("bad", "good"):
        Sources(store).add(name, "rss", {"url": f"{site.url}/{name}"}, "test")
    began = time.monotonic()
    came = looks.look_around(store, allow_private=True)
    took_s = time.monotonic() - began
    bad, good = Sources(store).health("bad"), Sources(store).health("good")
    assert bad.state == "failing" and bad.error, f"{fault}: {bad}"
    assert re.search(words, bad.error), bad.error
    assert bad.next_at > clock.now()
    assert came["good"].n_new == 1 and good.state == "well"
    assert store.rows("SELECT count(*) AS n FROM documents WHERE source = 'bad'")[0]["n"] == 0
    assert took_s < 40  # the time allowed to one feed, with room for a busy machine


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_gigabyte_in_a_megabyte_costs_no_memory(site, tmp_path):
    """F1: in a process of its own, whose peak memory before and after is compared."""
    packed = bomb()
    assert len(packed) < 1.2 * MEGABYTE
    site.paths["/bad"] = lambda h: answer(h, packed, Content_Encoding="gzip")
    site.paths["/warm"] = lambda h: answer(h, feed("fine"))
    script = textwrap.dedent(f"""
        import re
        from fmcore.data import looks
        from fmcore.data.sources import Sources
        from fmcore.store.store import Store
        import fmcore.data.fetch, feedparser, selectolax
        store = Store({str(tmp_path / "home")!r})
        Sources(store).add("warm", "rss", {{"url": "{site.url}/warm"}}, "test")
        looks.look_around(store, allow_private=True)
        peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
        before = peak()
        Sources(store).add("bad", "rss", {{"url": "{site.url}/bad"}}, "test")
        looks.HOST_GAP_S = 0.0
        looks.look_around(store, only="bad", allow_private=True)
        print(peak() - before, Sources(store).health("bad").error)
    """)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=True)
    grown_kb, error = done.stdout.split(" ", 1)
    print(f"peak memory grew by {int(grown_kb) / 1024:.1f} MB")
    assert "larger than" in error and int(grown_kb) <= 50 * 1024
