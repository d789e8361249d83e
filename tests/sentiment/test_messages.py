"""What a notification says: the same bytes at every try, a line an alert, and nothing that an event's text can break."""

import json

from hypothesis import given
from hypothesis import strategies as st

from fmcore.sentiment.messages import MAX_LINES, Message, bundle_key


def event(alert_id="a1", transition="firing", **more):
    return {
        "key": f"key-of-{alert_id}-{transition}", "alert_id": alert_id, "fingerprint": "f1", "transition": transition, "severity": "high",
        "title": f"Surge in {alert_id}", "reason": "12 negative stories, 3 expected.", "url_path": "/alerts",
        "starts_at": "2026-11-24T09:00:00+00:00", "ends_at": None, "why": {}, **more,
    }  # fmt: skip


def test_one_alert_is_its_title_its_reason_its_facts_and_its_key():
    message = Message("k", "alert", (event(ends_at="2026-11-24T10:30:00+00:00", transition="resolved"),))
    assert message.title() == "✓ Resolved: Surge in a1" and message.mood() == "good"
    assert message.text().split("\n") == [
        "12 negative stories, 3 expected.",
        "Severity: high · Since: 2026-11-24 09:00 UTC · Until: 2026-11-24 10:30 UTC",
        "Key: key-of-a1-resolved",
    ]


def test_an_alert_that_came_and_went_within_a_digest_is_one_line_that_says_both():
    message = Message("k", "digest", (event("a1"), event("a2"), event("a1", "resolved")))
    assert message.title() == "FM Desk digest: 2 alerts"
    first, second = message.text().split("\n")
    assert first.startswith("✓ Resolved (was firing): Surge in a1 [high, since 2026-11-24 09:00 UTC].") and first.count("key-of-a1-fi") == 1
    assert second.startswith("▲ Firing: Surge in a2")
    assert len(message.body().split(b'"alert_id"')) == 4  # the JSON has all three


def test_a_long_list_says_how_many_it_leaves_to_the_page():
    lines = Message("k", "group", tuple(event(f"a{i}") for i in range(500))).text().split("\n")
    assert len(lines) == MAX_LINES + 1 and lines[-1] == "... and 480 more, all of them on the Alerts page."


def test_the_key_of_a_bundle_depends_on_what_is_in_it_and_in_which_order():
    assert bundle_key(["a", "b"]) == bundle_key(["a", "b"]) != bundle_key(["b", "a"])
    assert bundle_key(["ab", "c"]) != bundle_key(["a", "bc"])


@given(title=st.text(max_size=300), reason=st.text(max_size=300), why=st.dictionaries(st.text(max_size=20), st.integers() | st.text(max_size=20)))
def test_whatever_an_alert_says_the_body_is_json_and_the_same_each_time(title, reason, why):
    message = Message("k", "alert", (event(title=title, reason=reason, why=why),))
    assert message.body() == message.body()
    said = json.loads(message.body())["notifications"][0]
    assert said["title"] == title.encode("utf-8", "replace").decode() and message.text() and message.title()
