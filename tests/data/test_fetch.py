"""Downloads against a server on this machine: whole, cut, slow, lying, redirecting, and into forbidden places."""

import contextlib
import gzip
import hashlib
import json
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from fmcore import config
from fmcore.data import catalogue, fetch, outbound
from fmcore.data.catalogue import RemoteFile
from fmcore.nouns import Cancelled, FMError

BODY = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Site:
    """A web server on a free port of this machine: path -> function(handler). Keeps the headers of every request."""

    def __init__(self):
        self.paths, self.asked, self.stop = {}, [], threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                site.asked.append((self.path, dict(self.headers)))
                self.close_connection = True
                with contextlib.suppress(OSError):  # the client may go away first: that is what is tested
                    site.paths.get(self.path, lambda handler: answer(handler, b"", code=404))(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()


def answer(handler, body, *, code=200, length=True, sent=None, **headers):
    """Send a body (only its first `sent` bytes), its length said or not."""
    handler.send_response(code)
    if length:
        handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body[:sent])


def with_ranges(body, *, etag='"v1"', cut_first_at=None):
    """A server that knows Range and If-Range, and breaks off its first answer."""
    n_answers = []

    def send(handler):
        n_answers.append(1)
        cut = cut_first_at if len(n_answers) == 1 else None
        wanted = handler.headers.get("Range")
        if wanted and handler.headers.get("If-Range", etag) == etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            return answer(handler, body[start:], code=206, ETag=etag, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")
        return answer(handler, body, ETag=etag, sent=cut)

    return send


@pytest.fixture
def site():
    site = Site()
    yield site
    site.close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "in" / "file.bin"


def get(url, target, **options):
    return fetch.download(url, target, **{"max_bytes": 1_000_000, "allow_private": True} | options)


def left(target):
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def test_a_file_arrives_whole_with_its_progress(site, target):
    site.paths["/f"] = lambda h: answer(h, BODY)
    said = []
    assert get(site.url + "/f", target, sha256=SHA256, progress=lambda *it: said.append(it)) == SHA256
    assert target.read_bytes() == BODY and left(target) == ["file.bin"]
    assert said == sorted(said) and said[-1] == (len(BODY), len(BODY))


def test_a_download_that_is_cut_goes_on_where_it_stopped(site, target):
    site.paths["/f"] = with_ranges(BODY, cut_first_at=200_000)
    get(site.url + "/f", target, sha256=SHA256)
    assert target.read_bytes() == BODY
    assert [headers.get("Range") for _, headers in site.asked] == [None, "bytes=200000-"]


def test_a_cancelled_download_is_resumed_by_the_next_call(site, target):
    site.paths["/f"] = with_ranges(BODY)

    def cancel(done, _total):
        if done > 100_000:
            raise Cancelled

    with pytest.raises(Cancelled):
        get(site.url + "/f", target, progress=cancel)
    assert not target.exists() and 0 < target.with_name("file.bin.part").stat().st_size < len(BODY)
    get(site.url + "/f", target, sha256=SHA256)
    assert target.read_bytes() == BODY and site.asked[-1][1]["Range"].startswith("bytes=")


def test_a_server_that_ignores_ranges_is_read_from_the_start(site, target):
    tries = []

    def send(handler):
        tries.append(1)
        answer(handler, BODY, ETag='"v1"', sent=70_000 if len(tries) == 1 else None)

    site.paths["/f"] = send
    get(site.url + "/f", target, sha256=SHA256)
    assert target.read_bytes() == BODY and "Range" in site.asked[1][1]


def test_a_file_that_changed_in_between_is_not_patched_together(site, target):
    site.paths["/f"] = with_ranges(b"old" * 100_000, etag='"old"', cut_first_at=90_000)

    def stop(done, _total):
        if done > 50_000:
            raise Cancelled

    with pytest.raises(Cancelled):
        get(site.url + "/f", target, progress=stop)
    site.paths["/f"] = with_ranges(BODY, etag='"new"')
    assert get(site.url + "/f", target) == SHA256


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_etag_nothing_is_resumed(site, target, etag):
    tries = []

    def send(handler):
        tries.append(1)
        answer(handler, BODY, sent=70_000 if len(tries) == 1 else None, **({"ETag": etag} if etag else {}))

    site.paths["/f"] = send
    get(site.url + "/f", target, sha256=SHA256)
    assert target.read_bytes() == BODY and not any("Range" in headers for _, headers in site.asked)


def test_a_part_that_the_server_does_not_know_is_dropped(site, target):
    target.parent.mkdir()
    target.with_name("file.bin.part").write_bytes(b"x" * 999_999)
    target.with_name("file.bin.part.json").write_text(json.dumps({"url": site.url + "/f", "etag": '"v1"'}))
    site.paths["/f"] = lambda h: answer(h, b"", code=416) if h.headers.get("Range") else answer(h, BODY)
    assert get(site.url + "/f", target) == SHA256


def test_a_wrong_checksum_keeps_nothing_and_leaves_the_old_file(site, target):
    target.parent.mkdir()
    target.write_bytes(b"old")
    site.paths["/f"] = lambda h: answer(h, BODY[::-1])
    with pytest.raises(fetch.ChecksumMismatch, match="nothing was kept"):
        get(site.url + "/f", target, sha256=SHA256)
    assert left(target) == ["file.bin"] and target.read_bytes() == b"old"


@pytest.mark.parametrize("length", [True, False])
def test_more_bytes_than_allowed_are_refused(site, target, length):
    site.paths["/f"] = lambda h: answer(h, BODY, length=length)
    with pytest.raises(fetch.TooLarge, match="larger than the 0.1 MB"):
        get(site.url + "/f", target, max_bytes=100_000)
    assert not target.exists() and (not length or left(target) == [])


def test_a_missing_file_is_said_at_once(site, target):
    with pytest.raises(fetch.Refused, match="answered 404 for /gone"):
        get(site.url + "/gone", target)
    assert len(site.asked) == 1 and left(target) == []


def test_a_server_that_stumbles_is_asked_again(site, target):
    tries = []
    site.paths["/f"] = lambda h: (tries.append(1), answer(h, BODY if len(tries) == 3 else b"", code=200 if len(tries) == 3 else 503))
    assert get(site.url + "/f", target) == SHA256
    site.paths["/f"] = lambda h: answer(h, b"", code=503)
    with pytest.raises(outbound.Offline, match="answered 503"):
        get(site.url + "/f", target)


def test_a_gzip_bomb_is_not_unpacked(site, target):
    bomb = gzip.compress(b"\0" * 20_000_000)
    site.paths["/f"] = lambda h: answer(h, bomb, Content_Encoding="gzip")
    with pytest.raises(fetch.Refused, match="compressed"):
        get(site.url + "/f", target)
    assert left(target) == [] and site.asked[0][1]["Accept-Encoding"] == "identity"


def test_redirects_are_followed_three_times_and_no_more(site, target):
    for n in range(6):
        site.paths[f"/{n}"] = lambda h, n=n: answer(h, b"", code=302, Location=f"/{n + 1}")
    site.paths["/3"] = lambda h: answer(h, BODY)
    assert get(site.url + "/0", target) == SHA256
    site.paths["/loop"] = lambda h: answer(h, b"", code=301, Location="/loop")
    with pytest.raises(fetch.Refused, match="redirects more than 3 times"):
        get(site.url + "/loop", target)
    assert [path for path, _ in site.asked].count("/loop") == 4


@pytest.mark.parametrize("to", ["file:///etc/passwd", "gopher://127.0.0.1/", "http://user:secret@127.0.0.1/", "http://[::bad"])
def test_redirects_to_other_kinds_of_address_are_refused(site, target, to):
    site.paths["/f"] = lambda h: answer(h, b"", code=302, Location=to)
    with pytest.raises(fetch.FetchError):
        get(site.url + "/f", target)
    assert left(target) == []


def test_a_server_that_stalls_is_given_up(site, target):
    def stall(handler):
        answer(handler, BODY, sent=1000, ETag='"v1"')
        handler.wfile.flush()
        site.stop.wait(20)

    site.paths["/f"] = stall
    with pytest.raises(outbound.Offline):
        get(site.url + "/f", target, stall_s=0.2)
    assert not target.exists()


@pytest.mark.parametrize("slow", ["body", "endless body", "headers"])
def test_a_server_that_drips_is_cut_off_at_the_deadline(site, target, slow):
    def drip(handler):
        start = b"HTTP/1.1 200 OK\r\n" + (b"" if slow == "headers" else b"\r\n" if slow == "endless body" else b"Content-Length: 5000\r\n\r\n")
        handler.wfile.write(start)
        while not site.stop.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    site.paths["/f"] = drip
    with pytest.raises(outbound.Offline, match="did not deliver within"):
        get(site.url + "/f", target, stall_s=10, deadline_s=0.5)
    assert not target.exists()


def test_nobody_listening_is_said_with_what_to_do(target):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/f"
    with pytest.raises(outbound.Offline, match="cannot be reached") as caught:
        get(url, target)
    assert "FM_DATA_DIR" in caught.value.hint


def test_a_disk_that_takes_nothing_is_said(site, tmp_path):
    (tmp_path / "file").write_text("")
    site.paths["/f"] = lambda h: answer(h, BODY)
    with pytest.raises(fetch.NotStored):
        get(site.url + "/f", tmp_path / "file" / "below.bin")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1"],
)
def test_addresses_that_are_not_on_the_open_internet(address):
    assert not outbound.is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::"])
def test_addresses_that_are(address):
    assert outbound.is_public(address)


@pytest.fixture
def internet(site, monkeypatch):
    """An internet of our own: names resolve as told, 93.184.216.34 is the local server, and every other connection is noted."""
    names, connected = {"files.example": [["93.184.216.34"]]}, []
    real_resolve, real_connect = socket.getaddrinfo, socket.create_connection

    def resolve(host, port, *rest, **more):
        name = host.decode() if isinstance(host, bytes) else host
        if name not in names:
            return real_resolve(host, port, *rest, **more)
        answers = names[name].pop(0) if len(names[name]) > 1 else names[name][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in answers]

    def connect(address, *rest, **more):
        connected.append(address[0])
        if address[0] != "93.184.216.34":
            raise OSError("not for tests")
        return real_connect(("127.0.0.1", site.port), *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    site.names, site.connected = names, connected
    return site


def test_the_vetted_address_gets_the_request_under_its_own_name(internet, target):
    internet.paths["/f"] = lambda h: answer(h, BODY, Set_Cookie="a=b")
    fetch.download("http://files.example/f", target, max_bytes=1_000_000, sha256=SHA256)
    assert internet.connected == ["93.184.216.34"] and internet.asked[0][1]["Host"] == "files.example"


def test_a_name_that_changes_its_address_gets_no_second_look(internet, target):
    internet.names["files.example"] = [["93.184.216.34"], ["127.0.0.1"]]
    internet.paths["/f"] = lambda h: answer(h, BODY)
    fetch.download("http://files.example/f", target, max_bytes=1_000_000)
    assert internet.connected == ["93.184.216.34"] and internet.names["files.example"] == [["127.0.0.1"]]


@pytest.mark.parametrize("to", ["http://169.254.169.254/latest/meta-data", "http://inside.example/", "http://127.1/", "http://files.example:22/"])
def test_a_redirect_into_a_private_place_is_refused_before_any_connection(internet, target, to):
    internet.names["inside.example"] = [["93.184.216.34", "10.0.0.7"]]
    internet.paths["/f"] = lambda h: answer(h, b"", code=302, Location=to)
    with pytest.raises(fetch.Refused):
        fetch.download("http://files.example/f", target, max_bytes=1000)
    assert internet.connected == ["93.184.216.34"] and left(target) == []


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://①②⑦.0.0.1/", "http://localhost/", "http://localhost./", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://169.254.169.254/", "http://100.64.0.1/", "http://10.1.1.1:443/", "http://0/", "http://files.example:22/", "http://files.example:8080/", "http://user@files.example/", "file:///etc/passwd", "gopher://files.example/", "ftp://files.example/", "//files.example/", "files.example", "http://", "http://[", "javascript:alert(1)"],
)
def test_forbidden_addresses_are_never_connected_to(internet, target, url):
    with pytest.raises(FMError):
        fetch.download(url, target, max_bytes=1000)
    assert internet.connected == [] and internet.asked == [] and left(target) == []


def test_proxies_of_the_environment_are_ignored(internet, target, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    internet.paths["/f"] = lambda h: answer(h, BODY)
    fetch.download("http://files.example/f", target, max_bytes=1_000_000)
    assert internet.connected == ["93.184.216.34"]


def test_tls_is_asked_for_the_hosts_name_and_a_stranger_is_not_trusted(internet, target, monkeypatch):
    asked = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    internet.server.socket = context.wrap_socket(internet.server.socket, server_side=True, do_handshake_on_connect=True)
    monkeypatch.setattr(internet.server, "handle_error", lambda *_: None)
    with pytest.raises(outbound.Offline):
        fetch.download("https://files.example/f", target, max_bytes=1000)
    assert asked and set(asked) == {"files.example"} and internet.asked == []


# ---------------------------------------------------------------- whole data sets


@pytest.fixture
def mirror(site, public_data, monkeypatch):
    """Banking77 at a server here: the publisher's files, and made-up test rows in the published number."""
    labels = json.loads((public_data / "banking77" / "categories.json").read_text())
    rows = pd.DataFrame({"text": [f"made-up question {n}" for n in range(3_080)], "category": [labels[n % 77] for n in range(3_080)]})
    bodies = {
        "train.csv": (public_data / "banking77" / "train.csv").read_bytes(),
        "test.csv": rows.to_csv(index=False).encode(),
        "categories.json": (public_data / "banking77" / "categories.json").read_bytes(),
    }
    for name, body in bodies.items():
        site.paths["/" + name] = with_ranges(body)
    monkeypatch.delenv("FM_DATA_DIR")
    config.settings.cache_clear()
    site.files = tuple(RemoteFile(name, f"{site.url}/{name}", hashlib.sha256(body).hexdigest(), 10_000_000) for name, body in bodies.items())
    return site


def fetch_banking(mirror, **options):
    return fetch.fetch_dataset(catalogue.dataset("banking77"), config.settings().home, files=mirror.files, allow_private=True, **options)


def test_a_fetched_set_is_in_the_catalogue_and_fetched_once_only(mirror):
    said = []
    result = fetch_banking(mirror, progress=lambda *it: said.append(it))
    entry = catalogue.dataset("banking77")
    assert entry.state == "downloaded" and str(entry.path) == result["path"] and result["dataset"] == "banking77"
    assert result["sha256"] == {file.name: file.sha256 for file in mirror.files}
    assert result["bytes"] == sum((entry.path / file.name).stat().st_size for file in mirror.files)
    fractions = [fraction for fraction, _ in said]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    data = catalogue.load("banking77")
    assert data.test_is_publishers and len(data.test) == 3_080 and len(data.labels) == 77
    n_asked = len(mirror.asked)
    assert fetch_banking(mirror) == result and len(mirror.asked) == n_asked


def test_a_file_that_was_damaged_is_fetched_again(mirror):
    path = config.settings().home / "data" / "banking77" / "test.csv"
    fetch_banking(mirror)
    path.write_bytes(b"text,category\n")
    fetch_banking(mirror)
    assert [path for path, _ in mirror.asked].count("/test.csv") == 2 and len(catalogue.load("banking77").test) == 3_080


def test_a_cancelled_fetch_leaves_the_set_missing(mirror):
    def cancel(fraction, _message):
        if fraction > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        fetch_banking(mirror, progress=cancel)
    assert catalogue.dataset("banking77").state == "missing"
    fetch_banking(mirror)
    assert catalogue.dataset("banking77").state == "downloaded"


def test_files_with_other_rows_than_published_are_not_taken_in(mirror):
    body = b"text,category\nwhere is my card?,card_arrival\n"
    mirror.paths["/test.csv"] = with_ranges(body)
    name = mirror.files[1]
    mirror.files = (mirror.files[0], RemoteFile(name.name, name.url, hashlib.sha256(body).hexdigest(), 1000), mirror.files[2])
    with pytest.raises(catalogue.BadData, match=r"test\.csv of banking77 has other rows than published: {'test.csv': 1}"):
        fetch_banking(mirror)
    assert catalogue.dataset("banking77").state == "missing"


def test_two_fetches_of_one_set_do_not_mix(mirror):
    second = []

    def meanwhile(*_):
        if not second:
            with pytest.raises(fetch.Refused, match="being fetched already") as caught:
                fetch_banking(mirror)
            second.append(caught.value)

    fetch_banking(mirror, progress=meanwhile)
    assert second and catalogue.dataset("banking77").state == "downloaded"


def test_the_built_in_set_is_not_downloaded():
    with pytest.raises(fetch.Refused, match="built in"):
        fetch.fetch_dataset(catalogue.dataset("demo"), config.settings().home)
