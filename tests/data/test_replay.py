"""Replay: a file in order of time, played at a speed, with a place that is exact to the row."""

import datetime as dt
import gzip

import pytest

from fmcore import config
from fmcore.data import replay
from fmcore.data.replay import Position, ReplayError, Tape

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
NOW = dt.datetime(2026, 11, 24, 9, tzinfo=dt.UTC)
ADDED = dt.datetime(2026, 11, 24, 8, tzinfo=dt.UTC)


def options(**given):
    return {
        "dataset": "",
        "path": "incoming/news.csv",
        "speed": 3600.0,
        "dates": "original",
        "zone": "",
        "added_at": ADDED.isoformat(),
    } | given


@pytest.fixture
def home():
    folder = config.settings().home
    (folder / "incoming").mkdir(parents=True)
    return folder


def write(home, rows, name="news.csv"):
    """Rows of (hours after START or a written date, title) as a CSV file, in the order given."""
    lines = [f"{(START + dt.timedelta(hours=at)).isoformat() if isinstance(at, int | float) else at},{title}" for at, title in rows]
    raw = ("published_at,title\n" + "\n".join(lines) + "\n").encode()
    (home / "incoming" / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)


def play(tape, position, *, now, resumed_at=ADDED, **given):
    """Everything that is due: (titles, the published dates, where it stands then)."""
    slices = list(replay.due(tape, position, options(**given), now=now, resumed_at=resumed_at))
    items = [item for part, _ in slices for item in part]
    return [item.title for item in items], [item.published for item in items], slices[-1][1]


def test_rows_are_played_in_order_when_their_hour_comes(home):
    write(home, [(3, "d"), (0, "a"), (2, "c"), (1, "b")])
    tape = replay.tape(home, options(), now=NOW)
    assert (tape.n_rows, tape.first_at, tape.last_at) == (4, START, START + dt.timedelta(hours=3))
    titles, dates, at = play(tape, None, now=ADDED)
    assert (titles, dates, at.row) == (["a"], [START], 1)  # an hour a second: the first hour is the first row's
    titles, _, at = play(tape, at, now=ADDED + dt.timedelta(seconds=2))
    assert titles == ["b", "c"] and replay.next_at(tape, at, options()) == ADDED + dt.timedelta(seconds=3)
    titles, _, at = play(tape, at, now=ADDED + dt.timedelta(days=1))
    assert titles == ["d"] and replay.next_at(tape, at, options()) is None
    assert play(tape, at, now=NOW)[0] == []


def test_the_place_survives_the_store_and_any_cut_gives_the_same_rows(home, monkeypatch):
    monkeypatch.setattr(replay, "BATCH", 3)
    write(home, [(n / 10, f"t{n}") for n in range(25)])
    tape = replay.tape(home, options(), now=NOW)
    position, seen = None, []
    for second in range(20):
        now = ADDED + dt.timedelta(seconds=second * 0.15)
        for items, position in replay.due(tape, position, options(), now=now, resumed_at=ADDED):
            seen += [item.title for item in items]
            position = Position.of(position.memory())
            if second % 3 == 0:
                break  # killed here: only this slice and its place were stored
    assert seen == [f"t{n}" for n in range(25)]


def test_a_pause_stops_the_replays_clock(home):
    write(home, [(0, "a"), (1, "b"), (2, "c")])
    tape = replay.tape(home, options(), now=NOW)
    _, _, at = play(tape, None, now=ADDED)
    resumed = ADDED + dt.timedelta(days=3)
    assert play(tape, at, now=resumed + dt.timedelta(seconds=1), resumed_at=resumed)[0] == ["b"]


def test_all_at_once_and_the_three_ways_to_date(home):
    write(home, [(0, "a"), (1, "b"), ("NaN", "bad"), (3, "d")])
    tape = replay.tape(home, options(), now=NOW)
    titles, dates, at = play(tape, None, now=NOW, speed=0)
    assert titles == ["a", "b", "bad", "d"] and at.row == 4
    assert dates == [START, START + dt.timedelta(hours=1), "NaN", START + dt.timedelta(hours=3)]
    moved = play(tape, None, now=NOW, speed=0, dates="ending now")[1]
    assert moved == [ADDED - dt.timedelta(hours=3), ADDED - dt.timedelta(hours=2), "NaN", ADDED]
    first = play(tape, None, now=ADDED, dates="as played")
    later = play(tape, first[2], now=ADDED + dt.timedelta(seconds=60), dates="as played")
    assert first[1] == [ADDED] and later[1] == [ADDED + dt.timedelta(seconds=1), "NaN", ADDED + dt.timedelta(seconds=3)]


def test_gzip_and_a_stated_zone_are_read_and_a_changed_file_is_read_anew(home):
    write(home, [("2020-01-01 01:00", "a")], "news.csv.gz")
    given = options(path="incoming/news.csv.gz", zone="Europe/Berlin")
    assert replay.tape(home, given, now=NOW).first_at == START
    write(home, [("2020-01-01 02:00", "a"), (5, "b")], "news.csv.gz")
    assert replay.tape(home, given, now=NOW).n_rows == 2


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "incoming/../../x.csv", "/proc/self/environ"])
def test_only_files_below_the_desks_own_folders_are_played(home, path):
    with pytest.raises(ReplayError, match="not below FM_DATA_DIR or FM_HOME"):
        replay.tape(home, options(path=path), now=NOW)


def test_a_link_out_of_the_folder_is_not_followed(home, tmp_path):
    (tmp_path / "secret.csv").write_text("published_at,title\n2020-01-01T00:00:00Z,x\n")
    (home / "incoming" / "news.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(ReplayError, match="not below"):
        replay.tape(home, options(), now=NOW)


def test_what_cannot_be_played_is_said(home):
    with pytest.raises(ReplayError, match="cannot be read"):
        replay.tape(home, options(), now=NOW)
    write(home, [("2020-01-01", "a"), ("NaN", "b")])
    with pytest.raises(ReplayError, match="No row of the file has a date"):
        replay.tape(home, options(), now=NOW)
    with pytest.raises(ReplayError, match="FM_DATA_DIR is not set"):
        replay.tape(home, options(dataset="stocknet"), now=NOW)
    (home / "incoming" / "bad.csv.gz").write_bytes(b"\x1f\x8bnot gzip")
    with pytest.raises(ReplayError, match="cannot be read"):
        replay.tape(home, options(path="incoming/bad.csv.gz"), now=NOW)


@pytest.mark.slow
def test_the_public_tweets_are_one_a_tweet_with_their_links(public_data, home):
    tape = replay.tape(home, options(dataset="stocknet"), now=NOW)
    assert tape.n_rows == 66_675 and tape.first_at == dt.datetime(2013, 12, 31, 23, 10, 8, tzinfo=dt.UTC)
    first = tape.rows(0, 2)
    assert first["url"].iloc[0] == "https://twitter.com/i/web/status/418157151946035200"
    assert list(first["tickers"].iloc[0]) == ["AAPL", "GOOG"] and list(first["tickers"].iloc[1]) == []
    assert isinstance(tape, Tape)
