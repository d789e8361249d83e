"""Delivery under real faults: kill -9 around a sending, receivers that are down or hang, five thousand alerts at once."""

import collections
import datetime as dt
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmcore import clock, config
from fmcore.sentiment import channels, notify
from fmcore.store.store import Store
from tests.sentiment.collector import Collector

pytestmark = pytest.mark.slow
SENDER = Path(__file__).with_name("sender.py")
N_KILLS = 50
START = dt.datetime(2026, 11, 24, 9, 0, tzinfo=clock.UTC)


class Victims:
    """The sender process: do(command, number) runs one victim to its end and returns the signal that ended it, 0 for none."""

    def __init__(self, home):
        self.home = home
        more = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self.process = subprocess.Popen([sys.executable, SENDER], env={**os.environ, "FM_ALLOW_PRIVATE_TARGETS": "true"}, **more)

    def do(self, command, number="-"):
        self.process.stdin.write(f"{command}\t{self.home}\t{number}\n")
        while not (line := self.process.stdout.readline()).startswith("over"):
            assert line, "the sender process is gone"
        return os.waitstatus_to_exitcode(int(line.split()[1])) * -1

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def receiver():
    made = []

    def start(*args, **more):
        made.append(Collector(*args, **more))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def allowed(monkeypatch):
    """Receivers on this machine may be sent to."""
    monkeypatch.setenv("FM_ALLOW_PRIVATE_TARGETS", "true")
    config.settings.cache_clear()


@pytest.fixture
def killed(tmp_path, receiver):
    """(victims, collector): a home with one channel that leads to the collector."""
    collector = receiver()
    store = Store(tmp_path)
    channels.add(store, "ops", "webhook", collector.url(), by="a test", per_minute=600)
    store.close()
    victims = Victims(tmp_path)
    yield victims, collector
    victims.close()


def stored(home, sql):
    store = Store(home, wait_s=5)
    try:
        return [next(iter(row.values())) for row in store.rows(sql)]
    finally:
        store.close()


def test_fifty_kills_between_transition_and_sending_lose_nothing(killed):
    victims, collector = killed
    for number in range(N_KILLS):
        assert victims.do("transition", number) == signal.SIGKILL
        if number % 10 == 9:
            assert victims.do("round") == 0
    keys = collections.Counter(request.key for request in collector.requests)
    assert set(keys) == {notify.key(f"a{number}", "firing", "ops") for number in range(N_KILLS)}
    assert set(keys.values()) == {1}
    print(f"{N_KILLS} kills after the transition, 0 lost, 0 repeated")


def test_fifty_kills_between_sending_and_its_note_repeat_the_message_under_its_key(killed):
    victims, collector = killed
    for number in range(N_KILLS):
        assert victims.do("unnoted", number) == signal.SIGKILL
        assert victims.do("round") == 0
    keys = collections.Counter(request.key for request in collector.requests)
    assert set(keys) == {notify.key(f"a{number}", "firing", "ops") for number in range(N_KILLS)}
    assert set(keys.values()) == {2}
    bodies = collections.defaultdict(set)
    for request in collector.requests:
        bodies[request.key].add(request.body)
    assert all(len(different) == 1 for different in bodies.values()), "a repeat said something else"
    print(f"{N_KILLS} kills after the sending, 0 lost, {sum(keys.values()) - len(keys)} repeated under their keys")


def test_a_kill_inside_the_transaction_leaves_neither_the_alert_nor_its_notification(killed):
    victims, collector = killed
    for number in range(10):
        assert victims.do("half", number) == signal.SIGKILL
    assert victims.do("round") == 0
    assert collector.requests == []
    assert stored(victims.home, "SELECT what FROM audit WHERE who = 'alert'") == []


# ---------------------------------------------------------------- receivers, over real connections


def fire(store, *alert_ids, now, transition="firing"):
    events = [
        {
            "alert_id": a, "fingerprint": a, "transition": transition, "severity": "high", "title": f"Alert {a}", "reason": "So many.",
            "url_path": "/alerts", "starts_at": START, "ends_at": None, "why": {},
        }
        for a in alert_ids
    ]  # fmt: skip
    with store.write() as tx:
        notify.enqueue_all(tx, events, now=now)


def test_a_receiver_that_is_down_for_ten_minutes_gets_everything_in_order_once_per_key(tmp_path, receiver, allowed):
    """A1, over HTTP; the clock is moved by hand."""
    collector, store = receiver(503), Store(tmp_path)
    channels.add(store, "ops", "webhook", collector.url(), by="a test")
    for minute in range(10):
        fire(store, f"a{minute}", now=START + dt.timedelta(minutes=minute))
        notify.deliver(store, now=START + dt.timedelta(minutes=minute))
    fire(store, "a0", now=START + dt.timedelta(minutes=10), transition="resolved")
    assert notify.notifications(store, state="sent") == []
    collector.modes, n_failed = [200], len(collector.requests)
    for minute in range(10, 15):
        notify.deliver(store, now=START + dt.timedelta(minutes=minute))
    taken = [request.transitions[0] for request in collector.requests[n_failed:]]
    assert taken == [*((f"a{i}", "firing") for i in range(10)), ("a0", "resolved")]
    keys = [request.key for request in collector.requests[n_failed:]]
    assert len(set(keys)) == len(keys)
    store.close()


def test_one_hanging_receiver_delays_no_other_and_costs_ten_seconds(tmp_path, receiver, allowed):
    """A4 and A10: the good one has its message while the bad one is still being waited for."""
    bad, good, store = receiver("hang"), receiver(), Store(tmp_path)
    channels.add(store, "bad", "webhook", bad.url(), by="a test")
    channels.add(store, "good", "webhook", good.url(), by="a test")
    fire(store, "a", "b", now=START)
    began = time.monotonic()
    done = notify.deliver(store)
    took_s = time.monotonic() - began
    assert [r.transitions[0][0] for r in good.requests] == ["a", "b"] and len(bad.requests) == 1
    assert (done.n_sent, done.n_failed) == (2, 1)
    good_at, bad_at = (store.rows("SELECT min(tried_at) AS at FROM deliveries WHERE channel = ?", name)[0]["at"] for name in ("good", "bad"))
    assert good_at < bad_at
    print(f"the round took {took_s:.1f} s")
    store.close()


@pytest.mark.parametrize(("mode", "state"), [(410, "dead"), (401, "dead"), (429, "queued"), (500, "queued"), ("closes early", "queued"), ("redirect", "dead")])
def test_what_a_receiver_does_shows_in_the_log_with_a_reason(tmp_path, receiver, allowed, mode, state):
    canary = receiver()
    collector, store = receiver(mode, target=canary.url()), Store(tmp_path)
    channels.add(store, "ops", "webhook", collector.url(), by="a test")
    fire(store, "a", now=START)
    notify.deliver(store)
    found = notify.notifications(store)[0]
    assert found.state == state and found.error and found.attempts == 1 and found.latency_ms > 0
    assert canary.requests == []
    store.close()


def test_five_thousand_alerts_at_once_arrive_in_groups_within_the_channels_share(tmp_path, receiver, allowed):
    """A7, over HTTP."""
    collector, store = receiver(), Store(tmp_path)
    channels.add(store, "ops", "webhook", collector.url(), by="a test", per_minute=30)
    ids = [f"a{i}" for i in range(5000)]
    fire(store, *ids, now=START)
    for minute in range(3):
        notify.deliver(store, now=START + dt.timedelta(minutes=minute))
        assert len(collector.requests) <= 30 * (minute + 1)
    heard = [alert for request in collector.requests for alert, _ in request.transitions]
    assert heard == ids
    keys = [n["key"] for request in collector.requests for n in request.content["notifications"]]
    assert keys == [notify.key(a, "firing", "ops") for a in ids]
    print(f"5,000 alerts in {len(collector.requests)} messages over 2 minutes, 0 lost")
    store.close()


def test_no_secret_is_anywhere_in_the_home_but_its_file(tmp_path, receiver, allowed, caplog):
    """P1: canaries through delivery, failure, test message, pause and removal, then a search through every file and log line."""
    caplog.set_level(logging.DEBUG)
    collector, home = receiver([404, 500, 200]), tmp_path / "home"
    store = Store(home)
    tokens = ["CANARY-path-4242", "xoxb-CANARY-7-CANARY"]
    _, secret = channels.add(store, "ops", "webhook", collector.url(f"/{tokens[0]}?t={tokens[1]}"), by="a test")
    fire(store, "a", "b", now=clock.now())
    notify.deliver(store)
    notify.send_test(store, "ops", by="a test")
    channels.pause(store, "ops", by="a test")
    store.checkpoint()
    shown = repr([channels.channels(store), notify.notifications(store)])
    store.close()
    for canary in (*tokens, secret):
        where = [path.name for path in home.rglob("*") if path.is_file() and canary.encode() in path.read_bytes()]
        assert where == [channels.SECRETS]
        assert canary not in shown
        assert not any(canary in record.getMessage() for record in caplog.records if record.name.startswith("fm"))
    assert any(secret in request.headers["x-fmdesk-signature"] for request in collector.requests) is False
