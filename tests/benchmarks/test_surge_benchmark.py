"""What the surge benchmark calls a hit and a false alert, and the detector on two seeds of the demo stream."""

import datetime as dt

import pytest

from benchmarks import surge as bench
from fmcore.data import news_demo
from fmcore.sentiment.surge import SurgeSettings

HOUR = dt.timedelta(hours=1)
AT = bench.ORIGIN + 100 * HOUR


def incident(**change):
    ticker = news_demo.COMPANIES[1].ticker
    given = {
        "name": "x", "shape": "sudden", "kind": "surge", "starts_at": AT, "ends_at": AT + 9 * HOUR, "topic": "Earnings", "tickers": (ticker,),
        "top_story": "s", "source": "",
    }  # fmt: skip
    return news_demo.Incident(**{**given, **change})


def fired(key, kind="surge", at=AT, hours=1):
    return [(at + n * HOUR, key, kind, "") for n in range(hours)]


def test_only_the_right_kind_on_a_key_of_the_incident_is_a_hit():
    planted = incident()
    right = f"ticker:{planted.tickers[0]}"

    def hit(fires):
        return bench.judged(bench.alerts(fires, 6 * HOUR), [planted])["hits"]["x"]["hit"]

    assert hit(fired(right)) and hit(fired("topic:Earnings"))
    assert not hit(fired(right, "flood")) and not hit(fired("topic:Macro")) and not hit(fired("all:"))
    assert not hit(fired(right, at=AT - 3 * HOUR)) and not hit(fired(right, at=AT + 40 * HOUR))


def test_an_alert_away_from_every_incident_is_false_and_counted_once():
    planted = incident()
    found = bench.alerts([*fired("topic:Macro", hours=5), *fired("all:"), *fired("ticker:NONE", at=AT + 300 * HOUR)], 6 * HOUR)
    assert sorted(a.key for a in bench.judged(found, [planted])["false"]) == ["ticker:NONE", "topic:Macro"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_every_planted_incident_of_the_demo_stream_fires_by_its_right_name(seed):
    buckets = bench.counted(seed, 60, 0.0)
    found = bench.alerts(bench.by_surge(buckets, SurgeSettings()), 7 * HOUR)
    result = bench.judged(found, news_demo.truth(bench.ORIGIN, seed=seed))
    assert {name: h["hit"] for name, h in result["hits"].items()} == dict.fromkeys(result["hits"], True)
    assert len(result["hits"]) >= 4 and len(result["false"]) <= 3
    decoys = news_demo.decoys(bench.ORIGIN, seed=seed)
    assert not [a for a in result["false"] for d in decoys if bench.touches(d, a.key) and d.starts_at <= a.starts_at <= d.ends_at]
