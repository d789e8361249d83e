"""Interactions: files read, rows cleaned, ordered and held back; every fault a log can have."""

import csv
import datetime as dt
import io
import subprocess
import sys
import threading
from pathlib import Path

import hypothesis
import numpy as np
import pandas as pd
import pyarrow.csv
import pytest
from hypothesis import strategies as st

from fmcore import clock, config
from fmcore.data import interaction_files, interactions
from fmcore.data.catalogue import BadData, DatasetMissing, UnknownDataset
from fmcore.data.interaction_files import own_name
from fmcore.data.interactions import Interactions, build, leave_one_out

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def written(tmp_path):
    """Reads a text, or bytes, as a person's CSV file."""

    def read(content: str | bytes, name: str = "mine.csv", **options) -> Interactions:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return interaction_files.load(path, **options)

    return read


def meetings(data: Interactions) -> list[tuple[str, str, int]]:
    return [(data.users[u], data.items[i], at) for u, i, at in data.rows[["user", "item", "at"]].itertuples(index=False)]


def log(rows, **columns) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user", "item", "at"]).assign(**columns)


# ---------------------------------------------------------------- order


def test_a_history_is_in_order_of_time_and_a_tie_follows_the_file(written):
    data = written("user,item,timestamp\na,late,30\na,second,20\na,first,10\na,third,20\nb,x,1\n")
    assert [[data.items[i] for i in past] for past in data.histories()] == [["first", "second", "third", "late"], ["x"]]


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(st.data())
def test_rows_of_different_moments_may_come_in_any_order(data):
    at = data.draw(st.lists(st.integers(0, 10**9), min_size=2, max_size=30, unique=True))
    rows = [(f"u{n % 3}", f"i{n % 7}", moment) for n, moment in enumerate(at)]
    mixed = data.draw(st.permutations(rows))
    one, other = build(log(rows), name="a"), build(log(mixed), name="a")
    assert one.users == other.users and one.items == other.items and one.split_hash == other.split_hash
    pd.testing.assert_frame_equal(one.rows, other.rows)


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(st.permutations([f"i{n}" for n in range(8)]))
def test_rows_of_one_moment_keep_the_order_of_the_file(order):
    data = build(log([("u", item, 5) for item in order]), name="a")
    assert [data.items[i] for i in data.histories()[0]] == order


def test_the_last_items_of_movielens_are_those_of_the_file_where_moments_are_tied(public_data):
    data = interaction_files.load("movielens")
    frame = pd.read_csv(public_data / "movielens" / "ml-latest-small" / "ratings.csv")
    last = frame.groupby("userId")["timestamp"].transform("max") == frame["timestamp"]
    n_tied = (frame[last].groupby("userId").size() > 1).sum()
    assert n_tied > 90  # of 610; in the larger MovieLens sets it is 44 %
    expected = frame[last].groupby("userId")["movieId"].last().astype(str).tolist()
    assert [data.items[past[-1]] for past in data.histories()] == expected


def test_a_pair_counts_once_at_its_first_meeting(written):
    data = written("user,item,timestamp,rating\na,x,30,1\na,y,20,2\na,x,10,3\na,x,10,4\n")
    assert meetings(data) == [("a", "x", 10), ("a", "y", 20)] and data.rows["rating"].tolist() == [3, 2]
    assert "2 rows of a user and an item that had met before left out." in data.notes


def test_ids_are_in_an_order_that_people_expect():
    data = build(log([("10", "b", 1), ("9", "a", 1), ("anna", "2", 1)]), name="a")
    assert data.users == ("9", "10", "anna") and data.items == ("2", "a", "b")


# ---------------------------------------------------------------- leave one out


def test_the_last_item_is_the_tests_and_the_one_before_it_validations():
    split = leave_one_out([np.array([4, 2, 7, 1], np.int32), np.array([3, 5], np.int32), np.zeros(0, np.int32)])
    assert [past.tolist() for past in split.train] == [[4, 2], [3, 5], []]
    assert split.validation.tolist() == [7, -1, -1] and split.test.tolist() == [1, -1, -1]
    assert [past.tolist() for past in split.with_validation()] == [[4, 2, 7], [3, 5], []]


def test_nobody_at_all_can_be_split():
    split = leave_one_out([])
    assert split.train == [] and split.test.shape == (0,)


# ---------------------------------------------------------------- what a row may be


def test_rows_of_the_future_are_left_out_and_said_so(written):
    soon = int((clock.now() + dt.timedelta(hours=20)).timestamp())
    far = int((clock.now() + dt.timedelta(days=2)).timestamp())
    data = written(f"user,item,timestamp\na,x,{soon}\na,y,{far}\na,z,{far}\n")
    assert [item for _, item, _ in meetings(data)] == ["x"]
    assert "2 rows more than 1 day in the future left out." in data.notes


@pytest.mark.parametrize("none", ["", "  ", "NaN", "nan", "NULL", "None", "<NA>", "i" * 301])
def test_a_row_without_a_usable_id_is_left_out_and_said_so(written, none):
    data = written(f"user,item,timestamp\n{none},x,1\na,{none},1\na,x,1\n")
    assert meetings(data) == [("a", "x", 1)] and "2 rows without a usable user or item left out." in data.notes


def test_a_row_of_nothing_may_come_as_a_missing_value():
    data = build(log([("a", None, 1.0), (np.nan, "x", 1.0), ("a", "x", np.nan), ("a", "x", 2.5)]), name="a")
    assert meetings(data) == [("a", "x", 2)] and len(data.notes) == 2


def test_an_id_stays_as_its_owner_writes_it(written):
    ids = ["007", "7", 'a "quoted" one', "with, comma", "two\nlines", "🐱‍👓", "ñandú", " blank", "=1+1", "1e5", "true"]
    out = io.StringIO()
    csv.writer(out).writerows([["user", "item", "timestamp"], *([one, one, n] for n, one in enumerate(ids))])
    data = written(out.getvalue())
    assert set(data.users) == set(data.items) == set(ids) and [(u, i) for u, i, _ in meetings(data)] == [(one, one) for one in data.users]


@pytest.mark.parametrize(
    "time",
    ["1700000000", "1700000000.25", "1700000000000", "1700000000000000", "1700000000000000000", "2023-11-14T22:13:20Z",
     "2023-11-14 22:13:20", "2023-11-14 22:13:20 UTC", "2023-11-15T00:13:20+02:00", "2023-11-14T22:13:20.250", " 1700000000 "],
)  # fmt: skip
def test_times_are_read_as_seconds_milliseconds_and_iso_text(written, time):
    assert meetings(written(f"user,item,timestamp\na,x,{time}\n")) == [("a", "x", 1_700_000_000)]


def test_times_of_several_kinds_in_one_file_are_read_each_for_itself(written):
    data = written("user,item,timestamp\na,x,1700000000\na,y,1700000001000\na,z,2023-11-14T22:13:22Z\na,w,yesterday\na,v,inf\na,u,\n")
    assert [(item, at - 1_700_000_000) for _, item, at in meetings(data)] == [("x", 0), ("y", 1), ("z", 2)]
    assert "3 rows without a time that can be read left out." in data.notes


def test_milliseconds_order_rows_of_one_second(written):
    data = written("user,item,timestamp\na,second,1700000000700\na,first,1700000000100\n")
    assert [item for _, item, _ in meetings(data)] == ["first", "second"]


def test_a_row_without_a_rating_is_a_meeting_all_the_same(written):
    data = written("user,item,timestamp,rating\na,x,1,4.5\na,y,2,NaN\na,z,3,\na,w,4,inf\na,v,5,good\n")
    assert data.rows["rating"].fillna(-1).tolist() == [4.5, -1, -1, -1, -1] and data.rows["rating"].dtype == np.float32
    assert data.notes == ("Ratings that cannot be read: 4; their rows are kept as meetings.",)


def test_a_log_without_ratings_has_none(written):
    assert written("user,item,timestamp\na,x,1\n").rows["rating"].isna().all()


def test_one_user_and_one_item_are_a_log(written):
    data = written("user,item,timestamp\na,x,1\n")
    assert (data.users, data.items, data.titles) == (("a",), ("x",), ("",)) and data.name.startswith("mine-") and not data.synthetic


def test_two_files_of_one_name_are_two_logs_and_neither_is_a_set_of_the_catalogue(tmp_path):
    assert own_name(tmp_path / "a" / "log.csv") == own_name(tmp_path / "a" / ".." / "a" / "log.csv") != own_name(tmp_path / "b" / "log.csv")
    assert own_name(tmp_path / "demo_shop.csv") != "demo_shop"


# ---------------------------------------------------------------- the catalogue beside it


def test_items_get_their_titles_and_those_that_nobody_met_are_there_too(written, tmp_path):
    (tmp_path / "items.csv").write_text(
        'item,title,text\nx,"The, X",About\n007,Bond,\n,none,\nx,again,\nnew,Ne\u0000w 🎬,"two\nlines"\n'.replace("\0", "")
    )
    data = written("user,item,timestamp\na,x,1\na,unlisted,2\n", items_path=tmp_path / "items.csv")
    assert dict(zip(data.items, zip(data.titles, data.texts, strict=True), strict=True)) == {
        "007": ("Bond", ""), "new": ("New 🎬", "two\nlines"), "unlisted": ("", ""), "x": ("The, X", "About"),
    }  # fmt: skip
    assert "1 row of the catalogue without a usable item left out." in data.notes
    assert "1 row of the catalogue for an item listed before left out." in data.notes


def test_a_catalogue_beside_the_log_is_taken_and_said_so(written, tmp_path):
    (tmp_path / "shop-items.csv").write_text("item,title,text\nx,The X,About\nnew,New,\n")
    data = written("user,item,timestamp\na,x,1\n", name="shop.csv")
    assert data.items == ("new", "x") and data.titles == ("New", "The X")
    assert "What the items are is read from shop-items.csv." in data.notes


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "item\nx\n", ""])
def test_a_catalogue_that_is_none_says_what_it_needs(written, tmp_path, content):
    (tmp_path / "items.csv").write_text(content)
    with pytest.raises(BadData, match=r"items\.csv") as refusal:
        written("user,item,timestamp\na,x,1\n", items_path=tmp_path / "items.csv")
    assert refusal.value.hint


# ---------------------------------------------------------------- files


GOOD = "user,item,timestamp\nä,x,1\nä,y,2\n"


@pytest.mark.parametrize(
    "content",
    [
        GOOD.encode(), GOOD.encode("utf-8-sig"), GOOD.encode("utf-16"), GOOD.encode("latin-1"), GOOD.replace(",", ";").encode(),
        GOOD.replace(",", "\t").encode(), GOOD.replace("\n", "\r\n").encode(), b"\n\n" + GOOD.encode(), GOOD.rstrip().encode(),
        GOOD.replace("user,item,timestamp", "userId, Item_ID ,Date").encode(), GOOD.replace("\n", "\n\n").encode(),
        GOOD.replace("user,item,timestamp", '"user","item","timestamp"').encode(),
        b"\xef\xbb\xbf\r\n\r\n\r\n" + GOOD.replace("\n", "\r\n").encode(),
        b"note,timestamp,item,user\n,1,x,\xc3\xa4\nsome,2,y,\xc3\xa4\n",
    ],
)  # fmt: skip
def test_the_ways_in_which_people_write_a_csv(written, content):
    data = written(content)
    assert meetings(data) == [("ä", "x", 1), ("ä", "y", 2)] and data.notes == ()


def test_rows_that_do_not_fit_the_header_are_left_out_and_counted(written):
    data = written("user,item,timestamp\na,x,1\na,y\na,z,3,4,5\na,w,4\n")
    assert [item for _, item, _ in meetings(data)] == ["x", "w"] and "2 rows with too few or too many cells left out." in data.notes


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"user,item,timestamp\n", "no rows"),
        (b"user,item,timestamp", "no rows"),
        (b"user,item\na,x\n", "no column timestamp"),
        (b"text,label\na,x\n", "no column user and no column item and no column timestamp"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"PK\x03\x04....", "Excel"),
        (b"user,item,timestamp\na,\x00,1\n", "NUL"),
        (bytes(range(256)) * 4, "NUL"),
        (b"user,item,timestamp\na,x,yesterday\n", "No row"),
        (b"user,item,timestamp\na,x\n", "fits the header"),
        (b'user,item,timestamp\na,"x,1\nb,y,2\n', "quotation mark"),
    ],
)
def test_what_is_no_log_is_refused_with_what_to_do(written, content, words):
    with pytest.raises(BadData, match=words) as refusal:
        written(content)
    assert "mine" in refusal.value.message and refusal.value.hint


def test_a_huge_field_costs_its_row_or_is_refused_and_is_never_kept(written, monkeypatch):
    data = written('user,item,timestamp\na,"' + "x" * 100_000 + '",1\nb,y,2\n')
    assert meetings(data) == [("b", "y", 2)] and "1 row without a usable user or item left out." in data.notes
    monkeypatch.setattr(interaction_files, "BLOCK_BYTES", 1_000)
    with pytest.raises(BadData, match="a row is longer than") as refusal:
        written('user,item,timestamp\na,"' + "x" * 100_000 + '",1\nb,y,2\n')
    assert "quotation mark" in refusal.value.hint


def test_a_log_of_too_much_is_refused(written, monkeypatch):
    monkeypatch.setattr(interaction_files, "MAX_ROWS", 3)
    with pytest.raises(BadData, match="more than 3 rows"):
        written("user,item,timestamp\n" + "a,x,1\n" * 4)
    monkeypatch.setattr(interaction_files, "MAX_ITEMS", 2)
    with pytest.raises(BadData, match="more than 2 items"):
        written("user,item,timestamp\na,x,1\na,y,1\na,z,1\n")
    monkeypatch.setattr(interactions, "MAX_USERS", 1)
    with pytest.raises(BadData, match="more than 1"):
        build(log([("a", "x", 1), ("b", "x", 1)]), name="a")


def test_what_is_not_there_is_not_a_file(tmp_path):
    for name in ("nope", tmp_path / "nope.csv", "nope.csv", "../demo"):
        with pytest.raises(UnknownDataset):
            interaction_files.load(name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(BadData, match="not a plain file"):
        interaction_files.load(tmp_path / "folder.csv")


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], deadline=None)
@hypothesis.given(
    st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda t: ("user,item,timestamp\n" + t).encode("utf-8", "replace")))
)
def test_whatever_the_bytes_are_there_is_a_log_or_a_reason(written, content):
    try:
        data = written(content)
    except BadData as refusal:
        assert refusal.hint
        return
    assert len(data.rows) and data.rows["user"].is_monotonic_increasing and not data.rows[["user", "item"]].duplicated().any()
    assert all(interactions.usable_id(one) for one in (*data.users, *data.items))


IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20).filter(interactions.usable_id)


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@hypothesis.given(st.lists(st.tuples(IDS, IDS, st.integers(-(10**9), 10**9)), min_size=1, max_size=12, unique_by=lambda row: row[:2]))
def test_a_log_written_by_a_csv_writer_comes_back_as_it_was(written, rows):
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([["user", "item", "timestamp"], *rows])
    assert sorted(meetings(written(out.getvalue()))) == sorted(rows)


def test_the_thread_that_reads_ahead_has_let_go_when_the_log_is_there(written, monkeypatch):
    """A process that ends while Arrow's thread still holds something of Python's is aborted."""
    open_csv, held = pyarrow.csv.open_csv, []

    def slow(path, **options):
        held.append(options["parse_options"].invalid_row_handler)
        threading.Timer(0.2, held.clear).start()
        return open_csv(path, **options)

    monkeypatch.setattr(pyarrow.csv, "open_csv", slow)
    assert len(written("user,item,timestamp\na,x,1\nb,y\n").rows) == 1 and held == []


@pytest.mark.slow
def test_ten_million_rows_are_read_within_a_gigabyte_and_a_half(tmp_path):
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 5_000, 500_000), rng.integers(0, 20_000, 500_000), rng.integers(10**9, 17 * 10**8, 500_000)
    block = "\n".join(f"uX-{u},i{i},{at},4" for u, i, at in zip(*(column.tolist() for column in columns), strict=True)) + "\n"
    with (tmp_path / "big.csv").open("w") as file:
        file.write("user,item,timestamp,rating\n")
        for n in range(20):
            file.write(block.replace("X", str(n)))
    script = (
        "import resource, sys; from fmcore.data import interaction_files; data = interaction_files.load(sys.argv[1]);"
        "print(len(data.users), len(data.rows) > 9_900_000, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "big.csv")], capture_output=True, text=True, check=True, cwd=ROOT)
    n_users, is_whole, peak_kb = done.stdout.split()
    assert (n_users, is_whole) == ("100000", "True") and int(peak_kb) < 1_500_000


# ---------------------------------------------------------------- kept, cut


def test_what_is_saved_comes_back(written, tmp_path):
    data = written("user,item,timestamp,rating\n🐱,x,1,4\n007,y,2,\n", name="kept.csv")
    data.save(tmp_path / "folder")
    back = Interactions.load(tmp_path / "folder")
    pd.testing.assert_frame_equal(back.rows, data.rows)
    same = ("name", "users", "items", "titles", "texts", "synthetic", "licence", "notes", "split_hash")
    assert [getattr(back, key) for key in same] == [getattr(data, key) for key in same]


def test_a_damaged_folder_is_refused(written, tmp_path):
    written(GOOD).save(tmp_path / "folder")
    (tmp_path / "folder" / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadData, match="folder"):
        Interactions.load(tmp_path / "folder")
    with pytest.raises(BadData):
        Interactions.load(tmp_path / "nothing")


def test_a_log_is_built_again_from_its_own_tables(written):
    data = written("user,item,timestamp,rating\nb,x,1700000000900,4\nb,z,1700000000100,4\na,y,2,\n")
    again = build(data.table(), name=data.name, items=data.catalogue(), licence=data.licence, notes=data.notes)
    pd.testing.assert_frame_equal(again.rows, data.rows)
    assert again.split_hash == data.split_hash


def test_the_core_holds_only_who_and_what_was_met_often_enough():
    rows = [(f"u{u}", f"i{i}", u * 10 + i) for u in range(3) for i in range(3)] + [("rare", "i0", 1), ("u0", "odd", 99), ("rare", "odd", 3)]
    core = build(log(rows), name="a", items=pd.DataFrame({"item": ["never"], "title": ["t"], "text": [""]})).core(3)
    assert core.users == ("u0", "u1", "u2") and core.items == ("i0", "i1", "i2") and len(core.rows) == 9
    assert "3 of 5 items" in core.notes[-1]
    with pytest.raises(BadData):
        build(log(rows), name="a").core(50)


# ---------------------------------------------------------------- data sets


def test_movielens_small_as_published(public_data):
    data = interaction_files.load("movielens")
    assert (len(data.users), len(data.items), len(data.rows)) == (610, 9742, 100_836) and not data.synthetic
    films = dict(zip(data.items, zip(data.titles, data.texts, strict=True), strict=True))
    assert films["1"] == ("Toy Story (1995)", "Adventure, animation, children's, comedy, fantasy film of 1995")
    assert films["11"][0] == "The American President (1995)" and "science fiction" in films["32"][1]
    assert films["29"][0] == "The City of Lost Children (Cité des enfants perdus, La) (1995)"
    assert len(np.unique(data.rows["item"])) == 9724 and data.rows["rating"].between(0.5, 5).all()


def write_1m(folder, *, ratings=b"1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n"):
    folder.mkdir(parents=True)
    (folder / "ratings.dat").write_bytes(ratings)
    films = "1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n661::Bête, The: A \"Tale\" (1996)::Sci-Fi|Children's\n2::Never Seen (1999)::War\n"
    (folder / "movies.dat").write_bytes(films.encode("latin-1"))


@pytest.mark.parametrize("place", ["ml-1m", "ml-1m/ml-1m", "movielens/ml-1m"])
def test_movielens_1m_is_read_in_its_publishers_format(tmp_path, monkeypatch, place):
    write_1m(tmp_path / "sets" / place)
    monkeypatch.setenv("FM_DATA_DIR", str(tmp_path / "sets"))
    config.settings.cache_clear()
    data = interaction_files.load("ml-1m")
    assert meetings(data) == [("1", "1193", 978300760), ("1", "661", 978302109), ("2", "1193", 978298413)]
    assert data.rows["rating"].tolist() == [5, 3, 4] and data.items == ("2", "661", "1193")
    assert data.titles[1:] == ('Bête, The: A "Tale" (1996)', "One Flew Over the Cuckoo's Nest (1975)")
    assert data.texts[1] == "Science fiction, children's film of 1996"


@pytest.mark.parametrize("ratings", [b"", b"userId,movieId\n1,2\n", b"\xff\x00\x01\n"])
def test_a_damaged_file_of_movielens_1m_is_named(tmp_path, monkeypatch, ratings):
    write_1m(tmp_path / "sets" / "ml-1m", ratings=ratings)
    monkeypatch.setenv("FM_DATA_DIR", str(tmp_path / "sets"))
    config.settings.cache_clear()
    with pytest.raises(BadData, match=r"ratings\.dat"):
        interaction_files.load("ml-1m")


def test_a_set_that_is_not_here_says_where_it_goes():
    with pytest.raises(DatasetMissing) as refusal:
        interaction_files.load("ml-1m")
    assert "ml-1m/ratings.dat" in refusal.value.hint and "grouplens.org" in refusal.value.hint
