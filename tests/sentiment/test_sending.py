"""Sending to real receivers on this machine: what each answer means, what is signed, and what no address can make the desk do."""

import datetime as dt
import email
import email.policy
import hashlib
import hmac
import json
import logging
import socket
import time

import pytest

from fmcore import clock
from fmcore.nouns import Channel
from fmcore.sentiment import apprise_child, channels, guard, sending
from fmcore.sentiment.channels import Credentials
from fmcore.sentiment.messages import Message
from tests.sentiment.collector import Collector, MailServer

SECRET = "s3cret-" * 5
EVENT = {
    "key": "k1", "alert_id": "a1", "fingerprint": "f1", "transition": "firing", "severity": "high", "title": "Surge in Banks",
    "reason": "12 negative stories, 3 expected.", "url_path": "/alerts", "starts_at": "2026-11-24T09:00:00+00:00", "ends_at": None, "why": {},
}  # fmt: skip
MESSAGE = Message("k1", "alert", (EVENT,))


@pytest.fixture
def collector():
    made = []

    def start(*args, **more):
        made.append(Collector(*args, **more))
        return made[-1]

    yield start
    for one in made:
        one.close()


def post(receiver, **more):
    return sending.post(Credentials(receiver.url("/hook/T0KEN"), SECRET), MESSAGE, **{"allow_private": True, "timeout_s": 1.0, **more})


# ---------------------------------------------------------------- webhooks


def test_a_webhook_gets_the_message_its_key_and_a_signature_that_a_receiver_can_check(collector):
    receiver = collector()
    assert post(receiver) == sending.Outcome(True)
    got = receiver.requests[0]
    assert got.content == {"version": 1, "sender": "FM Desk", "kind": "alert", "key": "k1", "notifications": [EVENT]}
    stamp = got.headers["x-fmdesk-timestamp"]
    mac = hmac.new(SECRET.encode(), f"{stamp}.".encode() + got.body, hashlib.sha256).hexdigest()
    assert got.headers["x-fmdesk-signature"] == f"sha256={mac}"
    assert got.key == "k1" and abs(int(stamp) - clock.now().timestamp()) < 60
    assert got.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 301])
def test_an_answer_that_another_try_would_not_change_is_permanent(collector, status):
    outcome = post(collector(status))
    assert not outcome.ok and outcome.permanent and str(status) in outcome.reason


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_answer_that_may_change_is_not(collector, status):
    outcome = post(collector(status))
    assert not outcome.ok and not outcome.permanent and outcome.reason == f"It answered {status}."


@pytest.mark.parametrize(
    ("value", "expected"), [("120", 120), ("99999999999", 86_400), ("soon", 0), ("-5", 0), ("", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)]
)
def test_retry_after_in_seconds_is_read_and_bounded(collector, value, expected):
    assert post(collector(429, retry_after=value)).retry_after_s == expected


def test_retry_after_as_a_date_is_seconds_from_now(collector):
    assert 290 < post(collector(503, retry_after=clock.now() + dt.timedelta(minutes=5))).retry_after_s <= 300


@pytest.mark.parametrize("mode", ["hang", "drip", "closes early"])
def test_a_receiver_that_hangs_drips_or_breaks_off_costs_the_time_allowed_and_is_tried_again(collector, mode):
    began = time.monotonic()
    outcome = post(collector(mode))
    assert not outcome.ok and not outcome.permanent and outcome.reason
    assert time.monotonic() - began < 10  # the drip alone would take 26 s


def test_an_answer_without_end_is_cut(collector):
    outcome = post(collector("endless"), timeout_s=10.0)
    assert outcome.permanent and "larger than" in outcome.reason


def test_a_redirect_is_not_followed_and_says_so(collector):
    canary = collector()
    outcome = post(collector("redirect", target=canary.url()))
    assert outcome.permanent and "redirects" in outcome.reason
    assert canary.requests == []


def test_nobody_listening_is_tried_again_and_the_reason_holds_no_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    held = Credentials(f"http://127.0.0.1:{port}/T0KEN-in-the-path?token=T0KEN", SECRET)
    outcome = sending.post(held, MESSAGE, allow_private=True, timeout_s=1.0)
    assert not outcome.ok and not outcome.permanent and "T0KEN" not in outcome.reason


def test_nothing_of_the_environment_goes_along(collector, monkeypatch, tmp_path):
    """N4: a proxy is not asked, .netrc is not read."""
    proxy, receiver = collector(), collector()
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url(""))
    assert post(receiver).ok
    with apprise(f"json://127.0.0.1:{receiver.port}/x") as send:
        assert send(MESSAGE).ok
    assert proxy.requests == [] and len(receiver.requests) == 2
    assert not any("authorization" in r.headers or "cookie" in r.headers for r in receiver.requests)


# ---------------------------------------------------------------- apprise


def apprise(address, *, allow_private=True, timeout_s=5.0):
    channel = Channel("ops", "apprise", "", "each", "low", 30)
    return sending.sender(channel, Credentials(address, SECRET), allow_private=allow_private, timeout_s=timeout_s)


def test_an_apprise_channel_gets_the_text_and_later_messages_use_the_same_process(collector):
    receiver = collector()
    with apprise(f"json://127.0.0.1:{receiver.port}/x") as send:
        assert send(MESSAGE) == sending.Outcome(True) and send(MESSAGE).ok
    content = json.loads(receiver.requests[0].body)
    assert "Firing: Surge in Banks" in content["title"] and "12 negative stories" in content["message"] and "k1" in content["message"]
    assert len(receiver.requests) == 2


def test_a_text_that_is_too_long_for_a_service_comes_in_parts(collector):
    receiver = collector()
    long = Message("k", "group", tuple({**EVENT, "alert_id": f"a{i}", "reason": "x" * 400} for i in range(20)))
    with apprise(f"mmost://127.0.0.1:{receiver.port}/" + "a" * 24) as send:
        assert send(long).ok
    assert len(receiver.requests) > 1 and all(len(r.body) < 5000 for r in receiver.requests)


def test_a_mail_is_sent_under_the_same_guard():
    server = MailServer()
    with apprise(f"mailto://127.0.0.1:{server.port}?from=desk@example.com&to=ann@example.com&mode=insecure") as send:
        assert send(MESSAGE) == sending.Outcome(True)
    server.close()
    mail = email.message_from_string(server.messages[0], policy=email.policy.default)
    assert mail["To"] == "ann@example.com" and mail["Subject"] == "▲ Firing: Surge in Banks"
    assert "12 negative stories, 3 expected." in mail.get_content() and "Key: k1" in mail.get_content()


def test_what_a_service_answers_decides_whether_it_is_tried_again(collector):
    receiver = collector([404, 500, 200])
    with apprise(f"json://127.0.0.1:{receiver.port}/x") as send:
        first, second, third = send(MESSAGE), send(MESSAGE), send(MESSAGE)
    assert (first.permanent, first.reason) == (True, "It answered 404.")
    assert (second.permanent, second.reason) == (False, "It answered 500.")
    assert third.ok


def test_a_service_that_drips_is_cut_off_and_the_next_message_still_goes(collector):
    receiver = collector(["drip", 200])
    began = time.monotonic()
    with apprise(f"json://127.0.0.1:{receiver.port}/x", timeout_s=1.0) as send:
        assert "within 1 s" in send(MESSAGE).reason
        assert send(MESSAGE).ok
    assert time.monotonic() - began < 20


def test_a_service_that_redirects_is_not_followed(collector):
    canary = collector()
    receiver = collector("redirect", target=canary.url())
    with apprise(f"json://127.0.0.1:{receiver.port}/x") as send:
        outcome = send(MESSAGE)
    assert outcome.permanent and canary.requests == []


@pytest.mark.parametrize(
    "address",
    ["dbus://", "qt://", "gnome://", "macosx://", "windows://", "syslog://", "rsyslog://127.0.0.1", "file:///etc/passwd", "mqtt://127.0.0.1",
     "xmpp://u:p@127.0.0.1", "smpp://u:p@127.0.0.1/1/2", "growl://127.0.0.1", "aprs://u:p@127.0.0.1", "irc://127.0.0.1/x", "fcm://a/b/c",
     "vapid://a@b.example", "blink1://", "http://127.0.0.1/cfg", "https://127.0.0.1/cfg", "config://x", "custom://x", "apprise://127.0.0.1/x",
     "amqp://127.0.0.1", "", "nonsense", "json://", "slack://", "javascript:alert(1)"],
)  # fmt: skip
def test_services_that_are_not_spoken_to_over_the_web_or_mail_are_refused(address):
    assert apprise_child.scheme_of(address) not in apprise_child.SCHEMES or address in ("json://", "slack://")


@pytest.mark.parametrize("address", ["dbus://", "file:///etc/passwd", "json://", "slack://onlyone", "http://127.0.0.1/config.yml"])
def test_an_address_is_refused_in_words_before_it_is_saved(address):
    with pytest.raises(channels.BadChannel, match="cannot be used"):
        sending.check_address("apprise", address, allow_private=False)


def test_an_address_that_a_service_takes_is_named():
    assert sending.check_address("apprise", "tgram://123456789:abcdefg_hijklmnop/12315544/", allow_private=False) == "Telegram"


@pytest.mark.slow
def test_every_service_on_the_list_is_a_plug_in_that_speaks_http_or_mail_only():
    """The plug-ins' own sources: no sockets of their own, no programs, no desktop, no protocol beside HTTP and SMTP."""
    import ast
    import importlib
    import inspect

    from apprise.manager_plugins import NotificationManager

    known, manager = {"smtplib", "ssl", "threading", "os"}, NotificationManager()
    odd = {"socket", "subprocess", "ctypes", "dbus", "gi", "paho", "slixmpp", "smpplib", "gntp", "asyncio", "syslog", "win32api", "tempfile", "multiprocessing"}
    for scheme in apprise_child.SCHEMES:
        assert scheme in manager, scheme
        tree = ast.parse(inspect.getsource(importlib.import_module(manager[scheme].__module__)))
        names = {a.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        names |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module and not node.level}
        assert not names & odd, (scheme, names & odd)
        assert "requests" in names or names & known or scheme in ("guilded",), scheme


def test_no_secret_is_in_the_command_line_or_environment_of_the_process(collector):
    """P1: `ps` and /proc show nothing; the address goes in through a pipe."""
    receiver = collector()
    child = sending._Child(f"json://user:hunter2hunter2@127.0.0.1:{receiver.port}/x", allow_private=True, timeout_s=5.0)
    try:
        assert child.start() == "JSON"
        for name in ("cmdline", "environ"):
            with open(f"/proc/{child._process.pid}/{name}", "rb") as file:
                assert b"hunter2" not in file.read()
    finally:
        child.stop()


# ---------------------------------------------------------------- where no message goes (N1 to N3)

PRIVATE = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "①②⑦.0.0.1", "localhost", "LOCALHOST",
    "0", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    "[2002:a00:1::]", "[64:ff9b::a00:1]", "[fe80::1]", "[fc00::1]", "[fd12:3456::1]", "[ff02::1]", "[2001::1]", "[100::1]",
    "169.254.169.254", "169.254.0.1", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255",
    "100.64.0.1", "100.127.255.255", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255", "0x0a000001", "167772161", "10.1",
]  # fmt: skip


@pytest.fixture
def canary():
    """A listener on every address of this machine; `hits` tells how many connections it saw."""
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", 0))
    listener.listen()
    listener.settimeout(0)

    def hits():
        n = 0
        while True:
            try:
                listener.accept()[0].close()
                n += 1
            except BlockingIOError:
                return n

    yield listener.getsockname()[1], hits
    listener.close()


@pytest.mark.parametrize("host", PRIVATE)
def test_no_way_of_writing_a_private_address_reaches_it(canary, host):
    port, hits = canary
    for address in (f"http://{host}:{port}/x", f"https://{host}/x"):
        outcome = sending.post(Credentials(address, SECRET), MESSAGE, allow_private=False, timeout_s=2.0)
        assert not outcome.ok and outcome.permanent, outcome
        with pytest.raises(channels.BadChannel):
            sending.check_address("webhook", address, allow_private=False)
    assert hits() == 0


@pytest.mark.parametrize(
    "address",
    ["file:///etc/passwd", "gopher://127.0.0.1:70/x", "ftp://127.0.0.1/x", "dict://127.0.0.1:11211/x", "http://user@127.0.0.1/", "http://a:b@example.com/",
     "https://example.com:22/", "https://example.com:25/", "http://example.com:6379/", "https://", "http:///x", "//127.0.0.1/x", "127.0.0.1", "", "https://[::1",
     "https://example.com:99999/", "https://example.com/\r\nX: y", "ldap://127.0.0.1", "jar:http://127.0.0.1!/"],
)  # fmt: skip
def test_what_is_not_a_plain_web_address_is_refused(address):
    with pytest.raises(channels.BadChannel) as refusal:
        sending.check_address("webhook", address, allow_private=False)
    assert refusal.value.hint
    outcome = sending.post(Credentials(address, SECRET), MESSAGE, allow_private=False, timeout_s=2.0)
    assert not outcome.ok and outcome.permanent


def test_an_address_with_a_blank_or_without_end_is_refused():
    for address in ("https://exa mple.com/", " https://example.com", "https://example.com/" + "x" * 2000, "slack://a b"):
        with pytest.raises(channels.BadChannel, match="not an address"):
            sending.check_address("webhook", address, allow_private=False)


def test_a_name_that_is_public_when_looked_at_and_private_when_connected_to_is_not_reached(canary, monkeypatch):
    """N3: the resolver answers differently each time; only a vetted address is connected to."""
    port, hits = canary
    real, asked = socket.getaddrinfo, []

    def resolver(host, service, *args, **more):
        if host != "rebind.example":
            return real(host, service, *args, **more)
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, service or 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    assert sending.check_address("webhook", "https://rebind.example/x", allow_private=False) == "webhook"
    for _ in range(3):
        outcome = sending.post(Credentials("https://rebind.example/x", SECRET), MESSAGE, allow_private=False, timeout_s=1.0)
        assert not outcome.ok
    assert len(asked) == 4 and hits() == 0


@pytest.mark.slow
def test_no_apprise_channel_reaches_a_private_address_whatever_its_plug_in_does(canary):
    port, hits = canary
    for address in (f"json://127.0.0.1:{port}/x", f"xml://localhost:{port}/x", f"form://2130706433:{port}/x", f"ntfy://[::1]:{port}/topic"):
        with apprise(address, allow_private=False) as send:
            outcome = send(MESSAGE)
        assert not outcome.ok, address
    with apprise(f"mailto://user:pw@127.0.0.1:{port}?smtp=127.0.0.1&to=a@example.com&from=b@example.com", allow_private=False) as send:
        assert not send(MESSAGE).ok
    assert hits() == 0


# ---------------------------------------------------------------- the guard itself


def guarded(act, **more):
    with guard.Guard(**{"allow_private": False, **more}) as standing:
        with pytest.raises(guard.NotAllowed):
            act()
    return standing.refused


def test_the_guard_judges_the_address_at_the_socket_whatever_opens_it(canary, monkeypatch):
    port, hits = canary
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **m: real("127.0.0.1", *a, **m) if host == "rebind.example" else real(host, *a, **m))
    assert guarded(lambda: socket.create_connection(("rebind.example", port))) == ["127.0.0.1 is not on the open internet"]
    guarded(lambda: socket.socket().connect(("127.0.0.1", port)))
    guarded(lambda: socket.socket().connect_ex(("127.0.0.1", port)))
    guarded(lambda: socket.socket().connect(("localhost", port)))
    guarded(lambda: socket.socket(socket.AF_INET6).connect(("::1", port)))
    guarded(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port)))
    guarded(lambda: socket.socket(socket.AF_UNIX).connect("/tmp/nothing"))
    assert hits() == 0


def test_the_guard_stops_other_ports_programs_and_files(tmp_path):
    import subprocess

    assert guarded(lambda: socket.socket().connect(("8.8.8.8", 22)))[0].startswith("port 22")
    guarded(lambda: subprocess.run(["true"], check=False))
    (tmp_path / "secret").write_text("x")
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "file").write_text("x")
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "secret")
    more = {"read_only": (tmp_path / "allowed",)}
    guarded((tmp_path / "secret").read_text, **more)
    guarded((tmp_path / "allowed" / "link").read_text, **more)
    guarded(lambda: (tmp_path / "allowed" / "new").write_text("x"), **more)
    with guard.Guard(allow_private=False, **more):
        assert (tmp_path / "allowed" / "file").read_text() == "x"


def test_the_guard_stands_over_its_own_thread_only_and_is_gone_afterwards(canary):
    import threading

    port, hits = canary
    worked = []
    with guard.Guard(allow_private=False):
        other = threading.Thread(target=lambda: worked.append(socket.create_connection(("127.0.0.1", port))))
        other.start()
        other.join()
    socket.create_connection(("127.0.0.1", port)).close()
    assert len(worked) == 1
    worked[0].close()
    assert hits() == 2


@pytest.mark.slow
def test_no_credential_is_in_a_log_line_an_outcome_or_an_exception(collector, caplog):
    """P1: eight shapes of secrets through every failing way there is."""
    caplog.set_level(logging.DEBUG)
    receiver = collector(404)
    canaries = ["hunter2hunter2", "sk-CANARYCANARY1", "hf_CANARYCANARY", "ghp_CANARYCANARY22", "xoxb-CANARY-3-CANARY", "AKIACANARYCANARY", "CANARY.jwt.CANARY", "CANARYpw%21"]
    for secret in canaries:
        for address in (f"http://127.0.0.1:{receiver.port}/{secret}?token={secret}", f"http://127.0.0.1:9/{secret}", f"ftp://{secret}@127.0.0.1/"):
            outcome = sending.post(Credentials(address, SECRET), MESSAGE, allow_private=True, timeout_s=1.0)
            assert not outcome.ok and secret not in outcome.reason
    for address in (f"slack://{canaries[0]}", f"json://u:{canaries[1]}@", f"nothing://{canaries[2]}"):
        with pytest.raises(channels.BadChannel) as refusal:
            sending.check_address("apprise", address, allow_private=False)
        assert not any(c in str(refusal.value) for c in canaries)
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("fm")]
    assert not any(c in line for c in canaries for line in lines)
