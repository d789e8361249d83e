"""The view Delivery: channels added, tested and removed, dead letters sent again, and nothing of a credential on the page."""

import pytest
from streamlit.testing.v1 import AppTest

from fmcore import clock, config, runtime
from fmcore.sentiment import channels, notify
from tests.pages import toy_desk
from tests.sentiment.collector import Collector

TOKEN = "T0KEN-in-the-path"


@pytest.fixture
def desk():
    yield toy_desk.start({})
    runtime.stop()


@pytest.fixture
def collector(monkeypatch):
    monkeypatch.setenv("FM_ALLOW_PRIVATE_TARGETS", "true")
    config.settings.cache_clear()
    made = Collector()
    yield made
    made.close()


def visit():
    def script():
        from fmcore import runtime
        from pages import channels

        channels.draw(runtime.current())

    return AppTest.from_function(script, default_timeout=30).run()


def words(at):
    return " ".join(element.value for element in [*at.markdown, *at.info, *at.error, *at.success])


def fire(desk, title="Surge in <b>Banks</b>"):
    event = {
        "alert_id": "a1", "fingerprint": "f", "transition": "firing", "severity": "high", "title": title, "reason": "So many.",
        "url_path": "/alerts", "starts_at": clock.now(), "ends_at": None, "why": {},
    }  # fmt: skip
    with desk.store.write() as tx:
        notify.enqueue(tx, event, now=clock.now())


def button(at, label):
    return next(b for b in at.button if b.label == label)


def test_an_empty_desk_says_what_to_do_first(desk):
    at = visit()
    assert not at.exception and "Nobody hears of an alert yet" in words(at) and "Nothing has been queued" in words(at)


def test_a_webhook_is_checked_added_and_its_secret_shown_once(desk, collector):
    at = visit()
    at.text_input(key="name-0").set_value("ops")
    at.text_input(key="address-0").set_value("file:///etc/passwd")
    button(at, "Check and add").click().run()
    assert "http" in at.error[0].value and channels.channels(desk.store) == []
    at.text_input(key="address-0").set_value(collector.url(f"/{TOKEN}"))
    button(at, "Check and add").click().run()
    assert not at.exception and channels.channel(desk.store, "ops").mode == "each"
    secret = channels.credentials(desk.store, "ops").secret
    assert at.code[0].value == secret and TOKEN not in words(at)
    button(at, "I have it").click().run()
    assert len(at.code) == 0 and secret not in words(at)


def test_a_test_message_is_sent_on_request_and_its_failure_told(desk, collector):
    channels.add(desk.store, "ops", "webhook", collector.url(f"/{TOKEN}"), by="a test")
    at = visit()
    button(at, "Send a test").click().run()
    assert "was taken" in at.success[0].value and len(collector.requests) == 1
    collector.modes = [500]
    button(at, "Send a test").click().run()
    assert "It answered 500" in at.error[0].value.replace("\\", "")
    assert TOKEN not in words(at)


def test_a_channel_can_be_paused_resumed_and_removed(desk, collector):
    channels.add(desk.store, "ops", "webhook", collector.url(), by="a test")
    at = visit()
    button(at, "Pause").click().run()
    assert not channels.channel(desk.store, "ops").enabled and "Paused" in words(at)
    button(at, "Resume").click().run()
    assert channels.channel(desk.store, "ops").enabled
    button(at, "Remove this channel").click().run()
    assert channels.channels(desk.store) == [] and not at.exception


def test_a_dead_letter_shows_its_reason_and_goes_again_on_request(desk, collector):
    channels.add(desk.store, "ops", "webhook", collector.url(), by="a test")
    collector.modes = [410, 200]
    fire(desk)
    notify.deliver(desk.store)
    at = visit()
    assert "It answered 410" in words(at).replace("\\", "") and "<b>Banks" not in words(at).replace("\\<", "")
    table = at.dataframe[0].value
    assert list(table["State"]) == [["Dead letter"]] and list(table["Tries"]) == [1]
    button(at, "Send again").click().run()
    notify.deliver(desk.store)
    at.run()
    assert list(at.dataframe[0].value["State"]) == [["Sent"]] and not at.exception


def test_a_dead_letter_of_a_removed_channel_says_what_is_missing(desk, collector):
    channels.add(desk.store, "ops", "webhook", collector.url(), by="a test")
    fire(desk)
    notify.remove_channel(desk.store, "ops", by="a test")
    at = visit()
    button(at, "Send again").click().run()
    assert "no channel" in at.error[0].value
