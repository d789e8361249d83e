"""The Alerts page: the inbox, why an alert fired, acknowledge, silence with its preview, rules with the backtest; every empty state."""

import dataclasses
import datetime as dt
import zoneinfo
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from fmcore import clock, runtime
from fmcore.nouns import Counts, Reading
from fmcore.sentiment import alerts
from pages import alert_charts, alerts_detail
from tests.pages import toy_desk, toy_news

SHELL = str(Path(__file__).resolve().parents[2] / "pages" / "shell.py")
NOBODY = Reading("", False, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, "")


class Eager:
    """A detector that fires a surge whenever a ticker has three negative stories in an hour."""

    def __init__(self, settings):
        pass

    def update(self, bucket_at, counts: dict[str, Counts]):
        found = {}
        for key, c in counts.items():
            hot = key.startswith("ticker:") and c.n_negative >= 3
            found[key] = Reading("surge", True, float(c.n_negative), 0.5, c.n_negative - 0.5, 1e-6, 1e-6, 0.99, "many negative stories") if hot else NOBODY
        return found


@pytest.fixture
def desk():
    yield toy_desk.start({})
    runtime.stop()


@pytest.fixture
def firing(desk):
    """News with one hour of bad news an hour ago, evaluated by a detector that sees it."""
    now = clock.now()
    frame = toy_news.rows(now, days=3)
    last = now.replace(minute=0, second=0, microsecond=0) - dt.timedelta(minutes=40)
    bad = pd.DataFrame(
        [{"published_at": last - dt.timedelta(seconds=30 * i), "topic": "Fraud", "ticker": "AAA", "net": -0.9, "source": "wire",
          "title": f"AAA fined again {i} {toy_news.HOSTILE}", "url": "javascript:alert(1)", "story": f"bad{i}"} for i in range(6)]
    )  # fmt: skip
    frame = frame[frame["published_at"] < last - dt.timedelta(hours=2)].reset_index(drop=True)
    frame = pd.concat([frame, bad, frame.tail(1).assign(published_at=now - dt.timedelta(seconds=30))], ignore_index=True)
    frame["story"] = [f"d{i}" for i in range(len(frame))]
    toy_news.write(desk.store, frame)
    alerts.evaluate(desk.store, now=now + dt.timedelta(minutes=5), detector=Eager)
    return desk


def opened(**query) -> AppTest:
    at = AppTest.from_file(SHELL, default_timeout=60)
    for name, value in query.items():
        at.query_params[name] = value
    at.context = {"timezone": "Europe/Berlin"}
    return sound(at.switch_page("alerts.py").run())


def sound(at: AppTest) -> AppTest:
    assert not at.exception
    assert not at.error
    return at


def words(at: AppTest) -> str:
    return "\n".join(m.value for m in at.markdown).replace("\\", "")


def press(at: AppTest, label: str) -> AppTest:
    return next(b for b in at.button if b.label == label).click().run()


def test_before_the_first_look_the_page_says_when_it_comes(desk):
    assert "Nothing was checked yet" in words(opened())


class Calm(Eager):
    """A detector to which nothing is out of the ordinary."""

    def update(self, bucket_at, counts):
        return dict.fromkeys(counts, NOBODY)


def test_nothing_firing_says_when_it_was_last_checked(desk):
    toy_news.fill(desk.store, days=2)
    alerts.evaluate(desk.store, detector=Calm)
    text = words(opened())
    assert "Nothing is firing" in text
    assert "Rules last checked" in text


def test_the_inbox_shows_what_fired_and_why(firing):
    alert = alerts.inbox(firing.store)[0]
    assert (alert.key, alert.state) == ("AAA", "firing")
    at = opened()
    text = words(at)
    assert "AAA: bad news surges" in text
    assert "Medium" in text or "High" in text
    why = alerts.explain(firing.store, alert.id)
    assert f"parts add up to {alerts_detail.ui.signed(why['excess'], 1)}" in text
    assert len(at.get("plotly_chart")) == 3, "the strip, the split and the points that fired"
    assert why["top"][0]["title"][:10] in text
    assert "no link" in text, "a javascript: address is no link"


def test_each_top_story_opens_why_beside_the_exact_split(firing):
    at = opened()
    why = alerts.explain(firing.store, alerts.inbox(firing.store)[0].id)
    buttons = [b for b in at.button if b.label == "Why?"]
    assert len(buttons) == len(why["top"][:5])
    at = buttons[0].click().run()
    assert not at.exception
    assert "parts add up to" in words(at), "the split stays"
    (held,) = at.session_state["why_held"].values()
    assert (held.question.task, held.question.target) == ("sentiment", "net")
    stored = firing.store.frame("SELECT title FROM documents WHERE id = ?", why["top"][0]["document_id"])["title"][0]
    assert held.question.text == stored, "the whole title, not the shortened one of the alert"
    assert len(at.error) == 1 and "could not be drawn" not in at.error[0].value, "no model is live, and it is said"
    at = next(b for b in at.button if b.label == "Why?").click().run()
    assert not at.error, "closed again"


def test_an_address_opens_its_alert_and_an_unknown_one_is_said(firing):
    alert = alerts.inbox(firing.store)[0]
    assert "AAA: bad news surges" in words(opened(alert=alert.id, alerts_show="Resolved"))
    at = AppTest.from_file(SHELL, default_timeout=60)
    at.query_params["alert"] = "<b>nothing</b>"
    at.switch_page("alerts.py").run()
    assert not at.exception
    assert any("There is no alert" in e.value for e in at.error)


def test_an_acknowledged_alert_says_who_has_it(firing):
    at = sound(press(opened(), "Acknowledge"))
    alert = alerts.inbox(firing.store)[0]
    assert alert.acked_by == "local user"
    assert "local user has it since" in words(at)
    assert not [b for b in at.button if b.label == "Acknowledge"]
    assert "No alert" not in words(opened(alerts_show="Acknowledged"))


def test_a_silence_needs_a_reason_and_shows_what_it_would_have_muted(firing):
    alert = alerts.inbox(firing.store)[0]
    at = opened(alert=alert.id)
    at.session_state["alerts_silence"] = alert.id
    at.session_state["alerts_quiet_for"] = "4 h"
    at = sound(at.run())
    assert "it would have muted" in words(at)
    at = at.button(key="alerts_silence_now").click().run()
    assert any("Say why" in e.value for e in at.error)
    assert not alerts.silences(firing.store)
    at.text_input(key="alerts_quiet_why").set_value("known *fine* <b>")
    at = sound(at.button(key="alerts_silence_now").click().run())
    silence = alerts.silences(firing.store)[0]
    assert (silence.key, silence.dimension, silence.rule_id, silence.reason) == ("AAA", "ticker", alert.rule_id, "known *fine* <b>")
    assert "known *fine* <b>" in words(opened(alerts_view="Silences"))


def test_a_silence_until_morning_ends_at_nine_where_the_viewer_is():
    zone = zoneinfo.ZoneInfo("America/New_York")
    evening = dt.datetime(2026, 11, 1, 3, 0, tzinfo=dt.UTC)  # 23:00 of the day before there; the clocks change that night
    end = alerts_detail.ends_at(alerts_detail.UNTIL_MORNING, evening, zone)
    assert end.astimezone(zone).strftime("%d %H:%M") == "01 09:00"
    assert (end - evening) == dt.timedelta(hours=11)
    assert alerts_detail.ends_at("4 h", evening, zone) - evening == dt.timedelta(hours=4)


def test_the_parts_that_are_drawn_add_up_to_the_excess():
    parts = [{"name": str(i), "label": f"<b>{i}</b>", "part": (-1) ** i * (20 - i) / 7, "n": 1} for i in range(13)]
    total = sum(p["part"] for p in parts)
    shown = alerts_detail.folded(parts)
    assert len(shown) == alerts_detail.N_PARTS
    assert sum(p["part"] for p in shown) == pytest.approx(total, abs=1e-9)
    fig = alert_charts.waterfall(shown, expected=3.0, value=3.0 + total, of_index=False)
    ends = [b + x for b, x in zip(fig.data[0].base, fig.data[0].x, strict=True)]
    assert ends[-1] == pytest.approx(ends[-2], abs=1e-9), "the last part ends where what came ends"
    assert "<b>1</b>" not in str(fig.layout.yaxis.ticktext)


@pytest.mark.slow  # the real detector over all news, five times
def test_the_rules_can_be_played_on_the_past_and_a_sensitivity_saved(firing):
    at = opened(alerts_view="Rules", alerts_rule="Bad news about a company")
    assert set(at.dataframe[0].value["Rule"]) == {rule.title for rule in alerts.rules(firing.store)}
    assert "Alerts a week" in [metric.label for metric in at.metric]
    slider = at.get("select_slider")[0]
    at = sound(slider.set_value(0.9).run())
    at = press(at, "Save sensitivity 0.90")
    assert not at.exception
    assert alerts.rule(firing.store, "ticker-surge").sensitivity == 0.9


def test_a_rule_can_be_switched_off_and_says_so(desk):
    at = opened(alerts_view="Rules")
    assert "no scored news yet to play the rule on" in words(at)
    press(at, "Switch off")
    assert not alerts.rule(desk.store, "market-surge").enabled
    assert "Switch on" in [b.label for b in opened(alerts_view="Rules").button]


def test_delivery_is_a_view_of_this_page(desk):
    assert "Nobody hears of an alert yet" in words(opened(alerts_view="Delivery"))


def test_five_thousand_alerts_are_a_page_too(desk):
    alert_rows = []
    now = clock.to_store(clock.now())
    for i in range(5_000):
        alert_rows.append(
            {"n": i + 1, "alert_id": f"a{i}", "fingerprint": f"f{i}", "rule_id": "ticker-surge", "dimension": "ticker", "key": f"T{i}", "kind": "surge",
             "severity": ("high", "medium", "low")[i % 3], "transition": "firing", "starts_at": now, "ends_at": None, "value": 9.0, "expected": 1.0,
             "score": 0.9, "reason": "many", "why": "{}", "lead_id": "a0", "sent": False, "muted": "", "silenced_by": "", "inhibited_by": "", "noted_at": now}
        )  # fmt: skip
    columns = {row["name"] for row in desk.store.rows("SELECT column_name AS name FROM information_schema.columns WHERE table_name = 'alert_events'")}
    frame = pd.DataFrame(alert_rows)
    for name in columns - set(frame.columns):
        frame[name] = now if name.endswith("_at") else 3600
    with desk.store.write() as tx:
        tx.insert_frame("alert_events", frame[[*columns]])
    text = words(opened())
    assert "5,000 open" in text
    assert "5000 together" in text


def test_a_line_of_several_names_the_largest(firing):
    group = alerts.groups(firing.store)[0]
    assert dataclasses.is_dataclass(group)
    from pages import alerts as page

    assert page.title_of(group) == "AAA: bad news surges"
    other = dataclasses.replace(group.lead, id="b", key="BBB")
    assert page.title_of(dataclasses.replace(group, n=2, members=(group.lead, other), title="Bad")) == "Bad: AAA, BBB"


def test_a_dead_feed_is_an_alert_of_its_own_with_the_way_to_the_sources(desk):
    now = clock.to_store(clock.now() - dt.timedelta(hours=2))
    row = {
        "n": 1, "alert_id": "dead1", "fingerprint": "f", "rule_id": "dead-feed", "dimension": "source", "key": "<b>wire</b>", "kind": "dead feed",
        "severity": "high", "transition": "firing", "starts_at": now, "ends_at": None, "value": 30.0, "expected": 2.0, "score": 1.0,
        "reason": "<b>wire</b> has brought nothing new for 30 h.", "why": "{}", "lead_id": "dead1", "sent": True, "muted": "", "silenced_by": "",
        "inhibited_by": "", "noted_at": now,
    }  # fmt: skip
    columns = [c["name"] for c in desk.store.rows("SELECT column_name AS name FROM information_schema.columns WHERE table_name = 'alert_events'")]
    frame = pd.DataFrame([row])
    for name in set(columns) - set(row):
        frame[name] = now if name.endswith("_at") else 3600
    with desk.store.write() as tx:
        tx.insert_frame("alert_events", frame[columns])
    at = opened()
    assert "<b>wire</b>: the feed is dead" in words(at)
    assert "brought nothing new for 30 h" in words(at)
    assert [link.value for link in at.page_link] == ["Open sources"]
    assert len(at.get("plotly_chart")) == 1, "the strip; there are no points to draw"


def test_rules_that_nobody_looks_at_are_said_to_be_late():
    from jobs import JOBS

    desk = toy_desk.start(JOBS)
    try:
        toy_desk.ended(desk, "alerts", "succeeded")
        assert not opened().warning
        then = clock.to_store(clock.now() - dt.timedelta(hours=1))
        with desk.store.write() as tx:
            tx.execute("UPDATE runs SET finished_at = ?", [then])
        at = opened()
        assert any("The rules were last checked" in w.value for w in at.warning)
    finally:
        runtime.stop()
