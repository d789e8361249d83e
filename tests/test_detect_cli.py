"""`python -m fmcore detect` and POST /api/detect: a contract for other programs."""

import csv
import math

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fmcore.__main__ import app
from fmcore.data import series
from fmcore.data.uploads import UploadError
from fmcore.sentiment import anomaly

HEADER = ["timestamp", "value"]


def rows_of(n, *, peak=None, seed=0):
    rng = np.random.default_rng(seed)
    values = 50 + 20 * np.sin(np.arange(n) * 2 * np.pi / 288) + rng.normal(0, 1, n)
    if peak:
        values[peak] += 60
    times = pd.date_range("2026-03-02", periods=n, freq="5min").strftime("%Y-%m-%d %H:%M:%S")
    return [[t, repr(float(v))] for t, v in zip(times, values, strict=True)]


def write(path, rows, header=HEADER):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def detect(*args):
    done = CliRunner().invoke(app, ["detect", *map(str, args)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_every_row_comes_back_in_order_with_three_columns_more(tmp_path):
    rows = rows_of(2500, peak=2200)
    source = write(tmp_path / "in.csv", [[t, "=note", v] for t, v in rows], ["timestamp", "remark", "value"])
    done = detect("--input", source, "--output", tmp_path / "out.csv")
    out = read(tmp_path / "out.csv")
    assert done.exit_code == 0 and list(out[0]) == ["timestamp", "remark", "value", "expected", "anomaly_score", "is_anomaly"]
    assert [(r["timestamp"], r["value"], r["remark"]) for r in out] == [(t, v, "=note") for t, v in rows]
    assert all(0 <= float(r["anomaly_score"]) <= 1 for r in out) and out[2200]["is_anomaly"] == "true"
    assert all((r["is_anomaly"] == "true") == (float(r["anomaly_score"]) >= 0.5) for r in out)
    assert "2500 rows" in done.stderr and not done.stdout


def test_a_row_is_scored_without_the_rows_after_it(tmp_path):
    rows = rows_of(1200, peak=1000)
    detect("--input", write(tmp_path / "a.csv", rows), "--output", tmp_path / "a_out.csv")
    detect("--input", write(tmp_path / "b.csv", rows[:1001]), "--output", tmp_path / "b_out.csv")
    assert read(tmp_path / "a_out.csv")[:1001] == read(tmp_path / "b_out.csv")


def test_rows_that_cannot_be_used_are_named_and_kept_in_their_place(tmp_path):
    rows = rows_of(300)
    rows[10][1], rows[11][1], rows[12][1], rows[13][0], rows[14] = "", "inf", "n/a", "yesterday", [rows[14][0]]
    done = detect("--input", write(tmp_path / "in.csv", rows), "--output", tmp_path / "out.csv")
    out = read(tmp_path / "out.csv")
    assert done.exit_code == 0 and len(out) == 300
    assert all(float(out[n]["anomaly_score"]) == 0 for n in (10, 11, 12, 13, 14))
    for sentence in ("row 11: the value ''", "row 12: the value 'inf'", "row 14: the time 'yesterday'", "row 15: it has 1 cells"):
        assert sentence in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"when,value\n1,2\n", "no column with times"),
        (b"timestamp,price\n2026-01-01,2\n", "no column with values"),
        (b"timestamp,value\n", "no rows"),
        (b"PK\x03\x04", "Excel"),
    ],
)
def test_what_is_no_series_is_refused_in_one_line(tmp_path, content, said):
    (tmp_path / "in.csv").write_bytes(content)
    done = detect("--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv")
    assert done.exit_code == 1 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()


def test_the_output_is_checked_before_the_work(tmp_path):
    done = detect("--input", write(tmp_path / "in.csv", rows_of(3)), "--output", tmp_path / "no" / "out.csv")
    assert done.exit_code == 1 and "does not exist" in done.stderr
    assert detect("--input", tmp_path / "in.csv").exit_code == 2


def test_reading_is_bounded_and_zones_are_minded(tmp_path):
    with pytest.raises(UploadError, match="more than 2 rows"):
        series.read_series(write(tmp_path / "in.csv", rows_of(3)), max_rows=2)
    read = series.as_series(["2026-01-01T01:00:00+01:00", "2026-01-01 00:00", "2999-01-01", None], [1, "2", 3, 4])
    assert read.frame["timestamp"].iloc[0] == read.frame["timestamp"].iloc[1]
    assert [n for n, _ in read.bad] == [3, 4]


class TestApi:
    @pytest.fixture
    def client(self):
        from fastapi import FastAPI
        from fastapi.testclient import TestClient

        from fmcore import api_news

        news = FastAPI()
        news.include_router(api_news.router)
        return TestClient(news)

    def test_the_api_says_what_the_command_says(self, client):
        rows = rows_of(1500, peak=1200)
        answer = client.post("/detect", json={"timestamps": [t for t, _ in rows], "values": [float(v) for _, v in rows]}).json()
        scored = anomaly.score(series.as_series(*zip(*rows, strict=True)).frame)
        assert answer["anomaly_score"] == scored["anomaly_score"].tolist() and answer["is_anomaly"][1200]
        assert answer["expected"][0] is None and not answer["bad"] and math.isfinite(answer["expected"][-1])

    def test_missing_values_are_named_and_what_is_no_series_is_refused(self, client):
        answer = client.post("/detect", json={"timestamps": ["2026-01-01", "never", "2026-01-03"], "values": [None, 1, 2]})
        assert [b["row"] for b in answer.json()["bad"]] == [1, 2] and answer.json()["anomaly_score"] == [0, 0, 0]
        assert client.post("/detect", json={"timestamps": ["2026-01-01"], "values": [1, 2]}).status_code == 422
        assert client.post("/detect", json={"timestamps": [], "values": []}).status_code == 422
        too_many = {"timestamps": ["2026-01-01"] * 50_001, "values": [1.0] * 50_001}
        assert client.post("/detect", json=too_many).status_code == 422
