"""The alert job: one run evaluates and sends; another at once does nothing more; one that dies half-way leaves nothing half done."""

import pytest

from fmcore import clock
from fmcore.sentiment import alerts, channels, notify, outbox, transitions
from jobs import JOBS
from tests.sentiment.alert_news import MINUTE, at, hum, put
from tests.sentiment.alert_news import outbox as queued


class Report:
    def __init__(self):
        self.metrics = {}

    def progress(self, fraction, message=""):
        pass

    def metric(self, step, **values):
        self.metrics |= values

    def device(self, name):
        pass


@pytest.fixture
def desk(store, monkeypatch):
    """A store with a burst of bad news an hour ago, a channel that sends nothing, and a clock that stands still."""
    hum(store, -24 * 10, 4, topic="Fraud")
    for day in range(1, 10):
        put(store, [(at(2 - 24 * day) + n * MINUTE, {"topic": "Fraud", "source": f"wire-{n}"}) for n in range(1 + day % 2)])
    put(store, [(at(2) + (1 + n) * MINUTE, {"topic": "Fraud", "source": f"wire-{n % 5}"}) for n in range(25)])
    channels.add(store, "desk", "webhook", "https://hook.example/x", by="me", mode="dry run")
    monkeypatch.setattr(clock, "now", lambda: at(3) + 5 * MINUTE)
    return store


def run(store, **params):
    job = JOBS["alerts"]
    return job.run(store, job.params(**params), Report())


def test_a_run_evaluates_every_rule_and_its_messages_leave_in_the_same_minute(desk):
    result = run(desk)
    assert result["rules"] == len(alerts.rules(desk)) and result["errors"] == {} and result["firing"] >= 1
    assert result["notified"] == len(queued(desk)) >= 1
    told = notify.notifications(desk)
    assert {n.state for n in told} == {"dry"} and result["waiting"] == 0
    opened = {a.id: a for a in alerts.inbox(desk)}
    assert all(n.alert_id in opened and (n.created_at - opened[n.alert_id].changed_at).total_seconds() < 60 for n in told)


def test_a_second_run_at_once_has_no_second_effect(desk):
    run(desk)
    before = [desk.rows(f"SELECT * FROM {table} ORDER BY ALL") for table in ("alert_events", "alert_marks", "alert_points", "outbox")]
    again = run(desk)
    assert (again["buckets"], again["firing"], again["resolved"], again["notified"]) == (0, 0, 0, 0)
    assert [desk.rows(f"SELECT * FROM {table} ORDER BY ALL") for table in ("alert_events", "alert_marks", "alert_points", "outbox")] == before


def test_a_run_that_dies_between_transition_and_message_leaves_neither_and_the_next_makes_both(desk, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_args, **_kwargs):
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(transitions.notify, "enqueue_all", die)
        for _ in range(3):
            with pytest.raises(Killed):
                run(desk)
            assert alerts.inbox(desk) == [] and queued(desk) == []
    run(desk)
    assert len(alerts.inbox(desk)) >= 1 and len(queued(desk)) >= 1


def test_a_run_that_dies_before_sending_is_made_good_by_the_next(desk):
    run(desk, send=False)
    assert {n.state for n in notify.notifications(desk)} == {"queued"}
    run(desk)
    assert {n.state for n in notify.notifications(desk)} == {"dry"}
    assert len(queued(desk)) == len({outbox.key(id, what, "desk") for id, what in queued(desk)})


def test_an_empty_desk_is_no_fault(store):
    result = run(store)
    assert (result["buckets"], result["firing"], result["errors"]) == (0, 0, {})


def test_it_is_a_routine_that_runs_every_five_minutes():
    job = JOBS["alerts"]
    assert (job.routine, job.kind, job.schedule) == (True, "light", "*/5 * * * *")
