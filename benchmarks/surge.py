"""`python -m benchmarks.surge`: the surge detector on the demo stream, whose incidents are known, beside a rolling z-score of the counts.

For each seed 60 days of the stream become counts per key (all, sector, topic, ticker) by its true labels; with --errors a share of the
stories gets another label, as from a classifier. An alert is a key and a kind firing with no pause longer than --keep hours.
Hit: an alert of the incident's kind on one of its keys (its tickers, their sectors, its topic; for more than three companies also
"all:") that starts between the incident's start and its end plus a grace of 6 h (a shift: 24 h), and the hour's delay. False: an
alert that touches no incident's span plus 30 h on a key that shares news with it; decoys count as nothing planted. The bar: every
incident hit on every seed, at most 1 false alert per 30 days per 20 series. The peer gets the count's rolling mean and deviation of the
last 14 days and fires at the z that it needs to stay within the same bar on these very seeds, which favours it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmcore import clock
from fmcore.data import news_demo
from fmcore.nouns import Counts
from fmcore.sentiment.surge import MARKET, Surge, SurgeSettings

RESULTS = Path(__file__).resolve().parent / "results"
BAR_FALSE = 1.0
ORIGIN = dt.datetime(2026, 1, 5, tzinfo=clock.UTC)
HOUR = dt.timedelta(hours=1)
GRACE = {"surge": 6 * HOUR, "flood": 6 * HOUR, "shift": 24 * HOUR}
AFTERMATH = 30 * HOUR
"""Copies of an incident's stories follow for 20 h, and windows look back for some more."""
NETS = {"negative": -0.8, "neutral": 0.0, "positive": 0.8}
SECTORS = {c.ticker: c.sector for c in news_demo.COMPANIES}

Buckets = list[tuple[dt.datetime, dict[str, Counts]]]


@dataclass(frozen=True)
class Alert:
    """One firing of one key: first and last bucket in which it fired."""

    key: str
    kind: str
    starts_at: dt.datetime
    last_at: dt.datetime
    reason: str


def counted(seed: int, days: int, errors: float, step: dt.timedelta = HOUR) -> Buckets:
    """Counts of every key in each bucket: a story counts once, where its first article stands, by its own label or a wrong one."""
    rng = np.random.default_rng([seed, 77])
    frame = news_demo.stream(ORIGIN, ORIGIN + dt.timedelta(days=days), seed=seed, origin=ORIGIN)
    first = frame.sort_values("published_at", kind="stable").drop_duplicates("story")
    articles = frame.groupby("story").size()
    table: list[dict[str, list[Any]]] = [{} for _ in range(int(dt.timedelta(days=days) / step))]
    labels = list(NETS)
    for row in first.itertuples():
        label = row.sentiment
        if rng.random() < errors:
            label = labels[(labels.index(label) + int(rng.integers(1, 3))) % 3]
        keys = {MARKET, f"topic:{row.topic}"} | {f"ticker:{t}" for t in row.tickers} | {f"sector:{SECTORS[t]}" for t in row.tickers}
        for key in keys:
            c = table[int((row.published_at - ORIGIN) / step)].setdefault(key, [0, 0, 0, 0.0, {}])
            c[1] += 1
            c[2] += int(articles[row.story])
            c[3] += NETS[label]
            if label == "negative":
                c[0] += 1
                c[4][row.source] = c[4].get(row.source, 0) + 1
    return [(ORIGIN + n * step, {k: Counts(*c) for k, c in bucket.items()}) for n, bucket in enumerate(table)]


def alerts(fires: Iterable[tuple[dt.datetime, str, str, str]], pause: dt.timedelta) -> list[Alert]:
    """Firing buckets (time, key, kind, reason) in order, joined where they are no further apart than the pause."""
    held: dict[tuple[str, str], Alert] = {}
    done: list[Alert] = []
    for at, key, kind, reason in fires:
        old = held.get((key, kind))
        if old and at - old.last_at <= pause:
            held[key, kind] = Alert(key, kind, old.starts_at, at, old.reason)
            continue
        if old:
            done.append(old)
        held[key, kind] = Alert(key, kind, at, at, reason)
    return sorted([*done, *held.values()], key=lambda a: (a.starts_at, a.key, a.kind))


def by_surge(buckets: Buckets, settings: SurgeSettings) -> Iterator[tuple[dt.datetime, str, str, str]]:
    """What the desk's detector fires."""
    detector = Surge(settings)
    for at, counts in buckets:
        yield from ((at, key, r.kind, r.reason) for key, r in detector.update(at, counts).items() if r.fires)


def z_scores(buckets: Buckets, *, window: int = 14 * 24, floor: int = 4) -> list[tuple[dt.datetime, str, float]]:
    """The peer's readings: how many standard deviations a count of negative stories lies above its last two weeks'."""
    past: dict[str, deque[int]] = {}
    out = []
    for at, counts in buckets:
        for key in past.keys() | counts.keys():
            n = counts[key].n_negative if key in counts else 0
            seen = past.setdefault(key, deque(maxlen=window))
            if len(seen) >= 72 and n >= floor:
                out.append((at, key, (n - np.mean(seen)) / max(np.std(seen), 0.1)))
            seen.append(n)
    return out


def touches(incident: news_demo.Incident, key: str) -> bool:
    """Whether a key shares news with an incident."""
    dimension, _, name = key.partition(":")
    sectors = {SECTORS[t] for t in incident.tickers}
    return (
        key == MARKET
        or (dimension == "topic" and name == incident.topic)
        or (dimension == "ticker" and name in incident.tickers)
        or (dimension == "sector" and name in sectors)
    )


def named(incident: news_demo.Incident, key: str) -> bool:
    """Whether an alert on this key names the incident: its topic or a company of it, or the market where many companies are in it."""
    return touches(incident, key) and (key != MARKET or len(incident.tickers) > 3)


def judged(found: list[Alert], incidents: list[news_demo.Incident], step: dt.timedelta = HOUR) -> dict[str, Any]:
    """Hits with their delay, and false alerts."""
    hits: dict[str, dict[str, Any]] = {}
    for incident in incidents:
        right = [
            a
            for a in found
            if a.kind in (incident.kind, "any")
            and named(incident, a.key)
            and incident.starts_at - step < a.starts_at <= incident.ends_at + GRACE[incident.kind]
        ]
        wrong = sorted(
            {a.kind for a in found if named(incident, a.key) and incident.starts_at - step < a.starts_at <= incident.ends_at} - {"any"}
        )
        first = min(right, key=lambda a: a.starts_at, default=None)
        hits[incident.name] = {
            "shape": incident.shape,
            "hit": first is not None,
            "delay_h": max(0.0, (first.starts_at + step - incident.starts_at) / HOUR) if first else None,
            "keys": sorted({a.key for a in right}),
            "topic": any(a.key == f"topic:{incident.topic}" for a in right),
            "ticker": any(a.key.startswith("ticker:") for a in right),
            "kinds": wrong,
        }
    false = [
        a
        for a in found
        if not any(touches(i, a.key) and a.starts_at <= i.ends_at + AFTERMATH and a.last_at >= i.starts_at - step for i in incidents)
    ]
    return {"hits": hits, "false": false}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every seed through the detector and the peer."""
    step = dt.timedelta(seconds=options.bucket_s)
    settings = SurgeSettings(sensitivity=options.sensitivity, floor=options.floor, bucket_s=options.bucket_s)
    seeds, streams, rows, seconds, n_false, n_keys = range(options.seeds), [], [], 0.0, 0, 0
    for seed in seeds:
        buckets = counted(seed, options.days, options.errors, step)
        keys = {k for _, counts in buckets for k in counts}
        incidents = news_demo.truth(ORIGIN, seed=seed)
        began = time.perf_counter()
        fires = list(by_surge(buckets, settings))
        seconds += time.perf_counter() - began
        result = judged(alerts(fires, _pause(options)), incidents, step)
        streams.append((buckets, incidents))
        n_false, n_keys = n_false + len(result["false"]), n_keys + len(keys)
        rows.append({"seed": seed, "n_keys": len(keys), **_told(result)})
        _say(seed, result)
    months = options.days / 30
    return {
        "days": options.days,
        "seeds": len(rows),
        "errors": options.errors,
        "settings": {"sensitivity": settings.sensitivity, "floor": settings.floor, "bucket_s": settings.bucket_s},
        "surge": _summary(rows, n_false / (months * n_keys / 20)),
        "rolling_z_score": _peer(streams, options, months),
        "ms_a_bucket": round(1000 * seconds / sum(len(buckets) for buckets, _ in streams), 3),
        "by_seed": rows,
    }


def _peer(streams: list[tuple[Buckets, list[news_demo.Incident]]], options: argparse.Namespace, months: float) -> dict[str, Any]:
    """The peer at the lowest z that keeps it within the bar on these seeds. It knows one kind only: "any" counts as the right one."""
    window = int(14 * dt.timedelta(days=1) / dt.timedelta(seconds=options.bucket_s))
    scored = [
        (z_scores(buckets, window=window, floor=options.floor), incidents, {k for _, c in buckets for k in c})
        for buckets, incidents in streams
    ]
    n_keys = sum(len(keys) for _, _, keys in scored)
    for z in (3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 20, 25, 30, 40):
        rows, n_false = [], 0
        for readings, incidents, _ in scored:
            result = judged(alerts(((at, key, "any", "") for at, key, value in readings if value >= z), _pause(options)), incidents)
            rows.append(_told(result))
            n_false += len(result["false"])
        rate = n_false / (months * n_keys / 20)
        if rate <= BAR_FALSE:
            break
    return {"z": z, **_summary(rows, rate)}


def _pause(options: argparse.Namespace) -> dt.timedelta:
    """How far apart two firings of one alert may be: --keep hours, and the bucket itself."""
    return options.keep * HOUR + dt.timedelta(seconds=options.bucket_s)


def _told(result: Mapping[str, Any]) -> dict[str, Any]:
    told = [{"key": a.key, "kind": a.kind, "at": a.starts_at.isoformat(), "reason": a.reason} for a in result["false"]]
    return {"incidents": result["hits"], "false_alerts": told}


def _summary(rows: list[dict[str, Any]], false_rate: float) -> dict[str, Any]:
    """Over all seeds: hits, right topic, right company, median delay by shape; false alerts per 30 days per 20 series."""
    every = [i for row in rows for i in row["incidents"].values()]
    shapes = {}
    for shape in sorted({i["shape"] for i in every}):
        of = [i for i in every if i["shape"] == shape]
        delays = [i["delay_h"] for i in of if i["hit"]]
        shapes[shape] = {
            "n": len(of),
            "hit": sum(i["hit"] for i in of),
            "topic": sum(i["topic"] for i in of),
            "ticker": sum(i["ticker"] for i in of),
            "median_delay_h": round(float(np.median(delays)), 2) if delays else None,
        }
    return {
        "n": len(every),
        "hit": sum(i["hit"] for i in every),
        "false_per_month_per_20_series": round(false_rate, 3),
        "passes": all(i["hit"] for i in every) and false_rate <= BAR_FALSE,
        "shapes": shapes,
    }


def _say(seed: int, result: Mapping[str, Any]) -> None:
    said = []
    for hit in result["hits"].values():
        delay = f"{hit['delay_h']:.1f} h" if hit["hit"] else f"MISSED (fired {hit['kinds']})"
        said.append(f"{hit['shape']} {delay}{'' if hit['topic'] else ' no topic'}{'' if hit['ticker'] else ' no ticker'}")
    print(f"seed {seed:2d}: {' | '.join(said)} | false {len(result['false'])}", flush=True)
    for a in result["false"]:
        print(f"         false {a.starts_at:%d %b %H:%M} {a.key} {a.kind}: {a.reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--errors", type=float, default=0.0, help="share of stories with a wrong label")
    parser.add_argument("--sensitivity", type=float, default=0.5)
    parser.add_argument("--floor", type=int, default=4)
    parser.add_argument("--keep", type=int, default=6, help="hours without firing that do not end an alert")
    parser.add_argument("--bucket-s", type=int, default=3600)
    parser.add_argument("--out", type=Path, help="where the JSON goes; default: benchmarks/results, dated")
    options = parser.parse_args()
    result = {"measured_at": clock.now().isoformat(timespec="seconds"), **measure(options)}
    if not math.isfinite(result["surge"]["false_per_month_per_20_series"]):
        raise SystemExit("no keys were counted")
    wrong = f"-errors{options.errors:g}" if options.errors else ""
    out = options.out or RESULTS / f"surge{wrong}-{clock.now():%Y-%m-%d}.json"
    out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({k: result[k] for k in ("surge", "rolling_z_score", "ms_a_bucket")}, indent=1))


if __name__ == "__main__":
    main()
