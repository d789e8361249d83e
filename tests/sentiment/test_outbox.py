"""The outbox and the channels: one row a channel that takes it, in the caller's transaction; credentials outside the database."""

import datetime as dt
import json
import stat

import pytest

from fmcore import log
from fmcore.clock import UTC
from fmcore.sentiment import channels, notify
from fmcore.store import backup
from fmcore.store.store import Store

NOW = dt.datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
TOKEN = "T0KEN-in-the-path"


def event(alert_id="a1", transition="firing", severity="high", **more):
    return {
        "alert_id": alert_id, "fingerprint": "f1", "transition": transition, "severity": severity, "title": f"Surge in {alert_id}",
        "reason": "12 negative stories, 3 expected.", "url_path": "/alerts", "starts_at": NOW, "ends_at": None, "why": {}, **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def module_store(tmp_path_factory):
    """One store for the whole file: opening one for each test would take half a minute."""
    opened = Store(tmp_path_factory.mktemp("outbox") / "home")
    yield opened
    opened.close()


@pytest.fixture
def store(module_store):
    """The store without channels, notifications or credentials."""
    yield module_store
    with module_store.write() as tx:
        for table in ("channels", "outbox", "bundles", "deliveries"):
            tx.execute(f"DELETE FROM {table}")
    (module_store.home / channels.SECRETS).unlink(missing_ok=True)


def add(store, name, **more):
    return channels.add(store, name, "webhook", f"https://hooks.example/{TOKEN}", by="a test", **more)


def put(store, *events):
    with store.write() as tx:
        return notify.enqueue_all(tx, events, now=NOW)


def queued(store):
    return [(row["channel"], row["alert_id"], row["transition"]) for row in store.rows("SELECT * FROM outbox ORDER BY n")]


def test_an_alert_is_queued_once_for_each_channel_that_takes_its_severity(store):
    add(store, "all")
    add(store, "urgent", min_severity="high")
    add(store, "asleep")
    channels.pause(store, "asleep", by="a test")
    assert put(store, event("a1", severity="medium"), event("a2", severity="high")) == 3
    assert queued(store) == [("all", "a1", "firing"), ("all", "a2", "firing"), ("urgent", "a2", "firing")]
    assert put(store, event("a1", severity="medium")) == 0
    keys = [row["id"] for row in store.rows("SELECT id FROM outbox")]
    assert len(set(keys)) == 3 and keys[0] == notify.key("a1", "firing", "all")


def test_a_resolve_goes_only_where_the_alert_went_even_when_that_is_paused_now(store):
    add(store, "first")
    put(store, event("a1"))
    add(store, "later")
    channels.pause(store, "first", by="a test")
    assert put(store, event("a1", "resolved"), event("never fired", "resolved")) == 1
    assert queued(store)[-1] == ("first", "a1", "resolved")


def test_no_channels_is_no_rows_and_an_unknown_transition_is_refused(store):
    assert put(store, event()) == 0
    with pytest.raises(ValueError, match="not a transition"):
        put(store, event(transition="exploded"))


def test_a_transaction_that_fails_queues_nothing(store):
    add(store, "all")
    with pytest.raises(RuntimeError), store.write() as tx:
        notify.enqueue(tx, event(), now=NOW)
        raise RuntimeError("after the alert changed")
    assert queued(store) == []


def test_an_explanation_that_is_too_long_is_left_out_and_said_so(store):
    add(store, "all")
    put(store, event(why={"terms": ["x" * 100] * 1000}))
    content = json.loads(store.rows("SELECT event FROM outbox")[0]["event"])
    assert content["why"] == {} and content["why_left_out"] is True


# ---------------------------------------------------------------- channels and their credentials


def test_a_channel_shows_its_host_only_and_its_credentials_lie_beside_the_database(store):
    saved, secret = add(store, "all")
    assert saved == channels.channel(store, "all")
    assert saved.address == "https://hooks.example/****" and len(bytes.fromhex(secret)) == 32
    held = channels.credentials(store, "all")
    assert (held.address, held.secret) == (f"https://hooks.example/{TOKEN}", secret)
    assert TOKEN not in repr(held) and secret not in repr(held)
    file = store.home / channels.SECRETS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_neither_the_database_nor_a_backup_nor_the_log_holds_a_credential(store, tmp_path):
    _, secret = add(store, "all")
    put(store, event())
    folder = backup.backup(store)
    store.checkpoint()
    for path in [store.path, *folder.iterdir()]:
        content = path.read_bytes()
        assert TOKEN.encode() not in content and secret.encode() not in content
    assert TOKEN not in log.redact(f"posting to https://hooks.example/{TOKEN} failed")
    assert secret not in log.redact(f"signed with {secret}")
    assert "hunter2" not in log.redact("mailto://me:hunter2@mail.example")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("slack://TokenA/TokenB/TokenC", "slack://****"),
        ("mailto://user:password@mail.example?to=a@b.example", "mailto://****"),
        ("https://user:pw@host.example:8443/x?token=1", "https://host.example:8443/****"),
        ("https://[::1", "https://****"),
        ("no scheme at all", "****"),
        ("", "****"),
    ],
)
def test_what_may_be_shown_of_an_address(address, shown):
    assert channels.redacted(address) == shown


def test_a_removed_channel_is_gone_with_its_credentials_and_its_name_is_free_again(store):
    add(store, "all")
    channels.remove(store, "all", by="a test")
    assert channels.channels(store) == [] and TOKEN not in (store.home / channels.SECRETS).read_text()
    with pytest.raises(channels.UnknownChannel):
        channels.pause(store, "all", by="a test")
    add(store, "all", mode="digest")
    assert channels.channel(store, "all").mode == "digest"


def test_a_second_channel_of_one_name_is_refused_and_leaves_no_credentials(store):
    add(store, "all")
    before = (store.home / channels.SECRETS).read_text()
    with pytest.raises(channels.BadChannel, match="already"):
        add(store, "all")
    assert (store.home / channels.SECRETS).read_text() == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "carrier pigeon"}, {"mode": "sometimes"}, {"min_severity": "huge"}, {"per_minute": 0}, {"per_minute": 601},
        {"digest_s": 1}, {"secret": "short"}, {"name": ""}, {"name": "../etc"}, {"name": "x" * 61},
    ],
)  # fmt: skip
def test_a_channel_that_makes_no_sense_is_refused_in_words(store, wrong):
    asked = {"name": "all", "kind": "webhook", "address": "https://hooks.example/x", **wrong}
    with pytest.raises(channels.BadChannel) as refusal:
        channels.add(store, asked.pop("name"), asked.pop("kind"), asked.pop("address"), by="a test", **asked)
    assert refusal.value.hint
    assert not (store.home / channels.SECRETS).exists() or "hooks" not in (store.home / channels.SECRETS).read_text()


def test_a_home_without_the_credentials_says_what_to_do(store):
    add(store, "all")
    (store.home / channels.SECRETS).unlink()
    with pytest.raises(channels.BadChannel, match="not on this machine"):
        channels.credentials(store, "all")
