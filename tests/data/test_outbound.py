"""The one way out: any method, any answer, bounded in bytes and time, and never to a private address."""

import gzip
import socket
import threading
import time

import pytest

from fmcore.data import fetch, outbound
from fmcore.data.outbound import exchange
from tests.data.web import Site, answer

HOW = {"max_bytes": 100_000, "deadline_s": 5, "allow_private": True}


@pytest.fixture
def site():
    held = Site()
    yield held
    held.close()


def test_an_answer_is_given_whole_whatever_its_status(site):
    site.paths["/x"] = lambda h: answer(h, b"no", code=422, X_Why="because")
    said = exchange("POST", site.url + "/x", content=b"{}", headers={"Content-Type": "application/json"}, **HOW)
    assert (said.status, said.body, said.headers["x-why"], said.url) == (422, b"no", "because", site.url + "/x")
    method, headers, body = site.asked[0][0], site.asked[0][2], site.asked[0][3]
    assert (method, headers["Content-Type"], body, headers.get("Cookie")) == ("POST", "application/json", b"{}", None)


def test_a_redirect_is_followed_for_get_and_is_the_answer_otherwise(site):
    site.paths["/a"] = lambda h: answer(h, b"", code=302, Location="/b")
    site.paths["/b"] = lambda h: answer(h, b"there")
    assert exchange("GET", site.url + "/a", **HOW).body == b"there"
    assert exchange("POST", site.url + "/a", content=b"", **HOW).status == 302
    assert exchange("GET", site.url + "/a", max_redirects=0, **HOW).status == 302


def test_a_redirect_to_itself_ends(site):
    site.paths["/a"] = lambda h: answer(h, b"", code=302, Location="/a")
    with pytest.raises(outbound.Refused, match="more than 3 times"):
        exchange("GET", site.url + "/a", **HOW)
    assert len(site.asked) == 4


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://[::1]/", "http://10.0.0.1/", "http://169.254.169.254/", "http://0x7f000001/", "http://localhost/", "file:///etc/passwd", "gopher://x.example/", "http://u:p@x.example/", "http://8.8.8.8:22/", "http:///", "nonsense"])  # fmt: skip
def test_private_addresses_and_other_ways_are_refused_before_a_connection(url):
    with pytest.raises(outbound.Refused):
        exchange("GET", url, max_bytes=10, deadline_s=2)


@pytest.fixture
def internet(site, monkeypatch):
    """An internet of our own: names resolve as told, 93.184.216.34 is the local server, every other connection is noted and refused."""
    site.names, site.connected = {"feeds.example": [["93.184.216.34"]]}, []
    resolve_here, connect_here = socket.getaddrinfo, socket.create_connection

    def resolve(host, port, *rest, **more):
        if host not in site.names:
            return resolve_here(host, port, *rest, **more)
        answers = site.names[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in found]

    def connect(address, *rest, **more):
        site.connected.append(address[0])
        if address[0] != "93.184.216.34":
            raise OSError("not for tests")
        return connect_here(("127.0.0.1", site.port), *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    return site


@pytest.mark.parametrize("to", ["http://169.254.169.254/latest", "http://inside.example/", "http://127.1/", "http://[::1]/", "http://feeds.example:8080/", "file:///etc/passwd"])  # fmt: skip
def test_a_feed_that_redirects_into_a_private_place_is_refused_before_any_connection(internet, to):
    internet.names["inside.example"] = [["93.184.216.34", "10.0.0.7"]]
    internet.paths["/feed"] = lambda h: answer(h, b"", code=302, Location=to)
    with pytest.raises(outbound.Refused):
        fetch.fetch_feed("http://feeds.example/feed")
    assert internet.connected == ["93.184.216.34"] and len(internet.asked) == 1


def test_a_name_that_changes_its_address_between_look_up_and_connection_gets_no_second_look(internet):
    internet.names["feeds.example"] = [["93.184.216.34"], ["127.0.0.1"]]
    internet.paths["/feed"] = lambda h: answer(h, b"<rss/>", ETag='"1"', Set_Cookie="a=b")
    assert fetch.fetch_feed("http://feeds.example/feed").etag == '"1"'
    assert internet.connected == ["93.184.216.34"] and internet.asked[0][2]["Host"] == "feeds.example"


def test_a_feed_that_did_not_change_has_no_body_and_a_header_cannot_be_smuggled(internet):
    internet.paths["/feed"] = lambda h: answer(h, b"", code=304)
    got = fetch.fetch_feed("http://feeds.example/feed", etag='"1"', last_modified="x\r\nEvil: 1")
    assert got.body is None and got.etag == '"1"'
    assert internet.asked[0][2]["If-None-Match"] == '"1"' and "Evil" not in internet.asked[0][2]


@pytest.mark.parametrize(("code", "kind"), [(410, fetch.Gone), (429, fetch.Busy), (503, fetch.Busy), (404, outbound.Refused), (500, outbound.Refused), (204, outbound.Refused)])  # fmt: skip
def test_other_answers_than_a_feed_have_their_own_refusals(internet, code, kind):
    internet.paths["/feed"] = lambda h: answer(h, b"", code=code, Retry_After="60")
    with pytest.raises(kind) as refused:
        fetch.fetch_feed("http://feeds.example/feed")
    assert refused.value.hint and getattr(refused.value, "retry_after_s", 60) == 60


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("n_bytes", [100_000, 100_001])
def test_the_unpacked_body_is_what_is_bounded(site, packed, n_bytes):
    body = b"x" * n_bytes
    site.paths["/x"] = lambda h: answer(h, gzip.compress(body), Content_Encoding="gzip") if packed else answer(h, body, length=False)
    if n_bytes <= 100_000:
        assert exchange("GET", site.url + "/x", gzip=True, **HOW).body == body
    else:
        with pytest.raises(outbound.TooLarge, match=r"larger than the 0\.1 MB"):
            exchange("GET", site.url + "/x", gzip=True, **HOW)


@pytest.mark.parametrize(("encoding", "body"), [("br", b"x"), ("deflate", b"x"), ("gzip", b"not gzip"), ("gzip", gzip.compress(b"x" * 999)[:-9]), ("gzip, gzip", b"x")])  # fmt: skip
def test_a_body_packed_otherwise_or_badly_is_refused(site, encoding, body):
    site.paths["/x"] = lambda h: answer(h, body, Content_Encoding=encoding)
    with pytest.raises(outbound.Refused):
        exchange("GET", site.url + "/x", gzip=True, **HOW)


def test_retry_after_is_understood_in_both_its_forms(site):
    from email.utils import formatdate

    assert outbound.retry_after_s("120") == 120
    assert 50 < outbound.retry_after_s(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert outbound.retry_after_s(formatdate(time.time() - 60, usegmt=True)) == 0
    assert [outbound.retry_after_s(said) for said in ("", "soon", "-5", "1.5", "²")] == [None] * 5
    site.paths["/x"] = lambda h: answer(h, b"", code=429, Retry_After="7")
    assert exchange("GET", site.url + "/x", **HOW).retry_after_s == 7


def test_what_is_closed_or_too_slow_is_offline(site):
    def drip(handler):
        answer(handler, b"", length=False)
        while not site.stop.wait(0.05):
            handler.wfile.write(b"x")

    site.paths["/drip"] = drip
    site.paths["/hang"] = lambda h: site.stop.wait(20)
    for path in ("/drip", "/hang"):
        with pytest.raises(outbound.Offline, match="did not deliver within"):
            exchange("GET", site.url + path, **HOW | {"deadline_s": 0.5})
    with pytest.raises(outbound.Offline):
        exchange("GET", "http://127.0.0.1:1/", **HOW)


def test_proxies_of_the_environment_are_ignored(site, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    site.paths["/x"] = lambda h: answer(h, b"direct")
    assert exchange("GET", site.url + "/x", **HOW).body == b"direct"


def test_a_name_that_is_not_resolved_in_time_is_offline(monkeypatch):
    asked = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: [] if asked.wait(20) else [])
    with pytest.raises(outbound.Offline, match="not resolved in time|did not deliver"):
        exchange("GET", "http://slow.example/", max_bytes=10, deadline_s=0.3)
    asked.set()
