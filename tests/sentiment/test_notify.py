"""Delivery's decisions, on a clock and with a receiver made here: order, retries, groups, digests, dead letters, one key for good."""

import datetime as dt
import random

import pytest

from fmcore.clock import UTC
from fmcore.sentiment import channels, notify
from fmcore.sentiment.sending import Outcome
from fmcore.store.store import Store

START = dt.datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
SENT = Outcome(True)
DOWN = Outcome(False, "It answered 503.")
GONE = Outcome(False, "It answered 410.", permanent=True)


class Desk:
    """A store, a clock that stands still until told, and receivers: name -> what each answers to a message."""

    def __init__(self, store):
        self.store, self.now = store, START
        self.receivers, self.got = {}, []

    def channel(self, name="ops", answer=SENT, **more):
        channels.add(self.store, name, "webhook", "https://hooks.example/x", by="a test", **more)
        self.receivers[name] = answer if callable(answer) else lambda message: answer

    def fire(self, *alert_ids, transition="firing", severity="high"):
        events = [
            {
                "alert_id": a, "fingerprint": a, "transition": transition, "severity": severity, "title": f"Alert {a}", "reason": "So many.",
                "url_path": "/alerts", "starts_at": self.now, "ends_at": None, "why": {},
            }
            for a in alert_ids
        ]  # fmt: skip
        with self.store.write() as tx:
            return notify.enqueue_all(tx, events, now=self.now)

    def resolve(self, *alert_ids):
        return self.fire(*alert_ids, transition="resolved")

    def round(self, *, after_s=0.0):
        self.now += dt.timedelta(seconds=after_s)
        return notify.deliver(self.store, now=self.now, send=self._send)

    def _send(self, channel, message):
        outcome = self.receivers[channel.name](message)
        events = [(e["alert_id"], e["transition"]) for e in message.events]
        self.got.append((channel.name, message.key, events, outcome.ok))
        return outcome

    def heard(self, name="ops"):
        """The transitions that a channel took, in the order in which it took them."""
        return [event for channel, _, events, ok in self.got if ok and channel == name for event in events]

    def states(self, name="ops"):
        return {(n.alert_id, n.transition): n.state for n in notify.notifications(self.store, channel=name, limit=10_000)}

    def messages(self, name="ops"):
        return [key for channel, key, _, ok in self.got if channel == name and ok]


@pytest.fixture(scope="module")
def module_store(tmp_path_factory):
    """One store for the whole file: opening one for each test would take half a minute."""
    opened = Store(tmp_path_factory.mktemp("notify") / "home")
    yield opened
    opened.close()


def empty(store):
    with store.write() as tx:
        for table in ("channels", "outbox", "bundles", "deliveries"):
            tx.execute(f"DELETE FROM {table}")


@pytest.fixture
def desk(module_store):
    yield Desk(module_store)
    empty(module_store)


# ---------------------------------------------------------------- the plain way


def test_what_is_queued_is_sent_once_in_order_and_noted(desk):
    desk.channel()
    desk.fire("a", "b")
    desk.resolve("a")
    assert desk.round() == notify.Delivered(n_sent=3)
    assert desk.heard() == [("a", "firing"), ("b", "firing"), ("a", "resolved")]
    assert desk.round(after_s=60) == notify.Delivered()
    newest = notify.notifications(desk.store)[0]
    assert (newest.alert_id, newest.state, newest.attempts, newest.sent_at, newest.title) == ("a", "sent", 1, START, "Alert a")
    assert newest.latency_ms >= 0 and newest.id == notify.key("a", "resolved", "ops")


def test_nothing_to_do_is_nothing_done(desk):
    assert desk.round() == notify.Delivered()
    desk.channel()
    assert desk.round() == notify.Delivered()


def test_a_paused_channel_keeps_what_waits_and_sends_it_when_resumed(desk):
    desk.channel()
    desk.fire("a")
    channels.pause(desk.store, "ops", by="a test")
    assert desk.fire("b") == 0
    desk.round()
    assert desk.heard() == []
    channels.resume(desk.store, "ops", by="a test")
    desk.round()
    assert desk.heard() == [("a", "firing")]


def test_a_dry_run_notes_what_it_would_have_sent_and_sends_nothing(desk):
    desk.channel(mode="dry run")
    desk.fire("a")
    assert desk.round() == notify.Delivered(n_dry=1)
    assert desk.got == [] and desk.states() == {("a", "firing"): "dry"}
    desk.resolve("a")
    assert desk.round() == notify.Delivered(n_dry=1)


def test_a_removed_channel_leaves_dead_letters_that_say_so(desk):
    desk.channel()
    desk.fire("a")
    notify.remove_channel(desk.store, "ops", by="a test")
    left = notify.notifications(desk.store)[0]
    assert (left.state, left.error) == ("dead", "the channel was removed")
    desk.channel("ops")
    desk.round()
    assert desk.got == []


# ---------------------------------------------------------------- failures


def test_a_receiver_that_is_down_is_tried_again_with_growing_pauses_under_one_key(desk):
    desk.channel(answer=DOWN)
    desk.fire("a")
    desk.round()
    for usual in [10, 20, 40, 80, 120, 120, 120, 120]:
        pause = (notify.notifications(desk.store)[0].next_at - desk.now).total_seconds()
        assert 0.75 * usual <= pause <= min(1.25 * usual, 120)
        n_tries = len(desk.got)
        desk.round(after_s=pause - 0.5)
        assert len(desk.got) == n_tries
        desk.round(after_s=0.5)
        assert len(desk.got) == n_tries + 1
    assert len({key for _, key, _, _ in desk.got}) == 1
    waiting = notify.notifications(desk.store)[0]
    assert (waiting.state, waiting.attempts, waiting.error) == ("queued", 9, "It answered 503.")


def test_pauses_are_the_same_for_the_same_message_and_differ_between_messages():
    first = [notify.backoff_s("a", n) for n in range(1, 12)]
    assert first == [notify.backoff_s("a", n) for n in range(1, 12)] and max(first) <= 120
    assert len({notify.backoff_s(f"m{i}", 1) for i in range(50)}) > 40


def test_after_ten_minutes_down_everything_arrives_in_order_once_per_key(desk):
    up_at = START + dt.timedelta(minutes=10)
    desk.channel(answer=lambda message: SENT if desk.now >= up_at else DOWN)
    expected = []
    for minute in range(30):
        if minute < 12:
            desk.fire(f"a{minute}")
            expected.append((f"a{minute}", "firing"))
        if 3 <= minute < 12:
            desk.resolve(f"a{minute - 3}")
            expected.append((f"a{minute - 3}", "resolved"))
        desk.round(after_s=60)
    assert desk.heard() == expected
    assert len(set(desk.messages())) == len(desk.messages()) == len(expected)
    late = [n.sent_at - max(up_at, n.created_at) for n in notify.notifications(desk.store, limit=1000)]
    assert max(late) <= dt.timedelta(seconds=notify.MAX_BACKOFF_S + 60)


def test_retry_after_is_kept_to_by_the_whole_channel(desk):
    answers = [Outcome(False, "It answered 429.", retry_after_s=600)]
    desk.channel(answer=lambda message: answers.pop() if answers else SENT)
    desk.fire("a")
    desk.round()
    desk.fire("b")
    for _ in range(9):
        desk.round(after_s=60)
    assert desk.heard() == []
    desk.round(after_s=60)
    assert desk.heard() == [("a", "firing"), ("b", "firing")]


def test_a_receiver_that_will_never_take_it_makes_a_dead_letter_with_its_reason(desk):
    answers = [GONE]
    desk.channel(answer=lambda message: answers.pop() if answers else SENT)
    desk.fire("a", "b")
    assert desk.round() == notify.Delivered(n_sent=1, n_dead=1)
    dead = notify.notifications(desk.store, state="dead")
    assert [(n.alert_id, n.error, n.attempts) for n in dead] == [("a", "It answered 410.", 1)]
    desk.round(after_s=3600)
    assert desk.heard() == [("b", "firing")]


def test_a_dead_letter_can_be_sent_again_under_its_old_key(desk):
    answers = [GONE]
    desk.channel(answer=lambda message: answers.pop() if answers else SENT)
    desk.fire("a")
    desk.round()
    assert notify.retry(desk.store, notify.key("a", "firing", "ops"), by="ann", now=desk.now) == 1
    desk.round()
    assert [(key, ok) for _, key, _, ok in desk.got] == [(notify.key("a", "firing", "ops"), ok) for ok in (False, True)]
    with pytest.raises(notify.NotPossible):
        notify.retry(desk.store, notify.key("a", "firing", "ops"), by="ann")
    with pytest.raises(notify.NotPossible):
        notify.retry(desk.store, "nothing", by="ann")


def test_no_resolve_goes_out_whose_alert_is_a_dead_letter_and_both_can_be_sent_again(desk):
    answers = [GONE]
    desk.channel(answer=lambda message: answers.pop() if answers else SENT)
    desk.fire("a")
    desk.resolve("a")
    desk.round()
    desk.round(after_s=60)
    assert desk.heard() == [] and set(desk.states().values()) == {"dead"}
    assert "nobody there heard" in next(n.error for n in notify.notifications(desk.store) if n.transition == "resolved")
    assert notify.retry(desk.store, notify.key("a", "resolved", "ops"), by="ann", now=desk.now) == 2
    desk.round()
    assert desk.heard() == [("a", "firing"), ("a", "resolved")]


def test_after_a_day_and_twenty_tries_a_message_is_given_up_and_the_channel_goes_on(desk):
    desk.channel(answer=lambda message: DOWN if "a" in [e["alert_id"] for e in message.events] else SENT)
    desk.fire("a")
    for _ in range(26):
        desk.round(after_s=3600)
    dead = notify.notifications(desk.store, state="dead")[0]
    assert dead.error.startswith("given up after") and dead.attempts > 20
    desk.fire("b")
    desk.round()
    assert desk.heard() == [("b", "firing")]


def test_a_clock_that_jumps_a_day_ahead_gives_nothing_up_and_one_that_jumps_back_delays_nothing(desk):
    answers = [DOWN, DOWN]
    desk.channel(answer=lambda message: answers.pop() if answers else SENT)
    desk.fire("a")
    desk.round()
    desk.round(after_s=86_400)
    assert desk.states() == {("a", "firing"): "queued"}
    desk.round(after_s=-2 * 86_400)
    assert desk.heard() == [("a", "firing")]


def test_a_message_that_always_fails_does_not_hold_up_the_others_for_long(desk):
    desk.channel(answer=lambda message: DOWN if "poison" in [e["alert_id"] for e in message.events] else SENT)
    desk.fire("poison")
    desk.fire("b", "c")
    for _ in range(8):
        desk.round(after_s=30)
    assert desk.heard() == [("b", "firing"), ("c", "firing")]
    desk.fire("d")
    desk.resolve("poison")
    desk.round(after_s=120)
    assert desk.heard()[-1] == ("d", "firing") and ("poison", "resolved") not in desk.heard()


def test_several_messages_that_always_fail_do_not_hide_the_good_ones(desk):
    bad = {"p1", "p2", "p3"}
    desk.channel(answer=lambda message: DOWN if bad & {e["alert_id"] for e in message.events} else SENT)
    desk.fire("p1", "p2", "p3", "b")
    for _ in range(20):
        desk.round(after_s=60)
    assert desk.heard() == [("b", "firing")]
    desk.fire("c")
    desk.round(after_s=120)
    desk.round(after_s=120)
    assert desk.heard() == [("b", "firing"), ("c", "firing")]
    bad.discard("p3")
    for _ in range(4):
        desk.round(after_s=120)
    assert desk.heard()[-1] == ("p3", "firing")


def test_a_channel_added_again_under_its_name_does_not_wait_for_the_old_ones_sake(desk):
    desk.channel(answer=Outcome(False, "It answered 429.", retry_after_s=86_400))
    desk.fire("a")
    desk.round()
    notify.remove_channel(desk.store, "ops", by="a test")
    desk.channel()
    desk.fire("b")
    desk.round(after_s=1)
    assert desk.heard() == [("b", "firing")]


def test_a_receiver_that_fails_delays_no_other(desk):
    desk.channel("bad", answer=DOWN)
    desk.channel("good")
    for i in range(5):
        desk.fire(f"a{i}")
        desk.round(after_s=1)
    assert desk.heard("good") == [(f"a{i}", "firing") for i in range(5)]
    assert len(desk.messages("good")) == 5 and desk.heard("bad") == []


def test_a_sender_that_breaks_is_told_and_the_other_channels_are_served(desk):
    def broken(message):
        raise RuntimeError("a fault of ours")

    desk.channel("bad", answer=broken)
    desk.channel("good")
    desk.fire("a")
    with pytest.raises(RuntimeError, match="a fault of ours"):
        desk.round()
    assert desk.heard("good") == [("a", "firing")] and desk.states("bad") == {("a", "firing"): "queued"}


def test_a_channel_whose_credentials_are_not_here_says_so_and_keeps_its_messages(desk):
    desk.channel()
    desk.fire("a")
    (desk.store.home / channels.SECRETS).unlink()
    assert notify.deliver(desk.store, now=desk.now).n_failed == 1
    waiting = notify.notifications(desk.store)[0]
    assert waiting.state == "queued" and "not on this machine" in waiting.error


# ---------------------------------------------------------------- bursts and digests


def test_a_channel_gets_no_more_than_its_share_a_minute_tests_included(desk):
    desk.channel(per_minute=3)
    sizes = []
    for minute in range(6):
        for part in range(4):
            desk.fire(f"{minute}-{part}a", f"{minute}-{part}b")
            before = len(desk.got)
            desk.round(after_s=15)
            sizes.append(len(desk.got) - before)
    assert all(sum(sizes[i:i + 4]) <= 3 for i in range(len(sizes)))
    for _ in range(8):
        desk.round(after_s=60)
    assert sorted(desk.heard()) == sorted((f"{m}-{p}{x}", "firing") for m in range(6) for p in range(4) for x in "ab")


def test_five_thousand_alerts_at_once_are_grouped_and_none_is_lost(desk):
    desk.channel(per_minute=30)
    ids = [f"a{i}" for i in range(5000)]
    desk.fire(*ids)
    rounds = 0
    while desk.round(after_s=60).n_waiting:
        rounds += 1
        assert len(desk.got) <= 30 * (rounds + 1) and rounds < 10
    assert [a for a, _ in desk.heard()] == ids
    assert len(set(desk.messages())) == len(desk.messages()) <= 60
    assert set(desk.states().values()) == {"sent"}


def test_a_group_that_failed_is_the_same_group_at_the_next_try(desk):
    answers = [DOWN]
    desk.channel(per_minute=1, answer=lambda message: answers.pop() if answers else SENT)
    desk.fire("a", "b", "c")
    desk.round()
    desk.fire("d")
    desk.round(after_s=61)
    first, second = desk.got
    assert first[1:3] == second[1:3] and [a for a, _ in second[2]] == ["a", "b", "c"]
    desk.round(after_s=61)
    assert desk.heard()[-1] == ("d", "firing")


def test_explanations_travel_alone_only(desk):
    bodies = []
    desk.channel(per_minute=2, answer=lambda message: bodies.append(message) or SENT)
    desk.fire("alone")
    desk.round()
    desk.fire("a", "b", "c")
    desk.round(after_s=1)
    assert "why_left_out" not in bodies[0].events[0]
    assert all(event["why_left_out"] and event["why"] == {} for event in bodies[1].events)


def test_a_digest_comes_once_an_interval_and_says_what_began_and_ended_in_one_line(desk):
    desk.channel(mode="digest", digest_s=3600)
    desk.now = START + dt.timedelta(minutes=5)
    desk.fire("a", "b")
    desk.round(after_s=600)
    desk.resolve("a")
    assert desk.round(after_s=600) == notify.Delivered(n_waiting=3)
    assert desk.got == []
    desk.now = START + dt.timedelta(hours=1)
    desk.fire("c")
    assert desk.round() == notify.Delivered(n_sent=1, n_waiting=1)
    assert desk.heard() == [("a", "firing"), ("b", "firing"), ("a", "resolved")]
    assert len(desk.got) == 1
    desk.round(after_s=3600)
    assert desk.heard()[-1] == ("c", "firing") and len(desk.got) == 2


def test_a_digest_that_failed_goes_again_as_it_was(desk):
    answers = [DOWN]
    desk.channel(mode="digest", digest_s=3600, answer=lambda message: answers.pop() if answers else SENT)
    desk.fire("a")
    desk.round(after_s=3600)
    desk.round(after_s=60)
    assert [(key, ok) for _, key, _, ok in desk.got] == [(desk.got[0][1], False), (desk.got[0][1], True)]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["each", "digest"])
def test_whatever_fails_in_whatever_order_nothing_is_lost_and_no_end_comes_before_its_beginning(module_store, mode):
    """A11: random transitions, failures, dead letters and retries; the invariants hold after each round."""
    for seed in range(3):
        chance = random.Random(seed)
        desk = Desk(module_store)
        answer = lambda message, chance=chance: chance.choices([SENT, DOWN, GONE], [6, 3, 1])[0]  # noqa: E731
        desk.channel(mode=mode, digest_s=60, per_minute=4, answer=answer)
        open_alerts, n = [], 0
        for step in range(120):
            if step < 60 and chance.random() < 0.6:
                desk.fire(f"a{n}")
                open_alerts.append(f"a{n}")
                n += 1
            if open_alerts and chance.random() < 0.4:
                desk.resolve(open_alerts.pop(chance.randrange(len(open_alerts))))
            desk.round(after_s=chance.choice([1, 20, 60, 200]))
            dead = notify.notifications(desk.store, state="dead")
            if dead and chance.random() < 0.5:
                notify.retry(desk.store, chance.choice(dead).id, by="a test", now=desk.now)
        heard = desk.heard()
        for alert_id, transition in heard:
            if transition == "resolved":
                assert heard.index((alert_id, "firing")) < heard.index((alert_id, "resolved"))
        assert len(heard) == len(set(heard)), "a transition was taken twice"
        sent = {event for event, state in desk.states().items() if state == "sent"}
        assert sent == set(heard)
        assert len(desk.states()) == desk.store.rows("SELECT count(*) AS n FROM outbox")[0]["n"]
        empty(module_store)


# ---------------------------------------------------------------- tests of a channel


def test_a_test_message_goes_out_at_once_past_a_digest_and_is_in_the_log(desk):
    desk.channel(mode="digest")
    assert notify.send_test(desk.store, "ops", by="ann", send=desk._send).ok
    assert desk.got[0][3] and desk.got[0][2] == [("test", "firing")]
    assert desk.store.rows("SELECT outcome, who FROM deliveries") == [{"outcome": "sent", "who": "ann"}]
    assert notify.notifications(desk.store) == []
    with pytest.raises(channels.UnknownChannel):
        notify.send_test(desk.store, "nobody", by="ann")
