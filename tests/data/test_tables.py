"""Tables of documents that people bring: recognised by their column names, refused in words, never shifted."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.data import tables
from fmcore.data.documents import RawItem
from fmcore.data.tables import read_documents
from fmcore.data.uploads import UploadError

ITEM = RawItem("https://n.example/1", "Up", "It went up.", "2026-11-24T07:00:00Z", ("AAPL", "MSFT"), "", "wire")


@pytest.mark.parametrize(
    "raw",
    [
        b'published_at,source,title,body,url,tickers\n2026-11-24T07:00:00Z,wire,Up,It went up.,https://n.example/1,"AAPL, MSFT"\n',
        b"\xef\xbb\xbfDate;Publisher;Headline;Content;Link;Symbols\n2026-11-24T07:00:00Z;wire;Up;It went up.;https://n.example/1;AAPL MSFT\n",
        "url\ttitle\tbody\tpublished\toutlet\tticker\nhttps://n.example/1\tUp\tIt went up.\t2026-11-24T07:00:00Z\twire\tAAPL|MSFT\n".encode(
            "utf-16"
        ),
        b'{"title": "Up", "body": "It went up.", "url": "https://n.example/1", "published_at": "2026-11-24T07:00:00Z", "tickers": ["AAPL", "MSFT"], "source": "wire"}\n\n',
        b'[{"title": "Up", "body": "It went up.", "url": "https://n.example/1", "date": "2026-11-24T07:00:00Z", "tickers": "AAPL MSFT", "source": "wire", "more": 1}]',
    ],
)
def test_the_usual_shapes_are_read(raw):
    assert read_documents(raw) == [ITEM]


def test_a_text_column_is_the_title_or_beside_a_title_the_body():
    assert read_documents(b"text\nJust this\n")[0].title == "Just this"
    (item,) = read_documents(b"title,text\nHead,Body\n")
    assert (item.title, item.body) == ("Head", "Body")


def test_missing_dates_are_missing_and_not_a_numbers_stay_words():
    plain, blank = read_documents(b"title,date\na,NaN\nb,\n")
    assert plain.published == "NaN" and blank.published is None
    assert read_documents(b'{"title": "a", "date": NaN}')[0].published == "NaN"
    assert read_documents(b'{"title": "a", "date": null}')[0].published is None


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"id,price\n1,2\n", "no column with texts"),
        (b"title,body\nonly one cell\n", "Data row 1 has 1 cells"),
        (b"title,body\na,b,c\n", "Data row 1 has 3 cells"),
        (b'title,body\n"never closed,b\n', "breaks off"),
        (b'{"title": "a"}\n{"title": \n', "Line 2 is not JSON"),
        (b'{"title": "a"}\n[1]\n', "Line 2 is not a JSON object"),
        (b"[1, 2]", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"{" * 5000, "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"PK\x03\x04", "Excel workbook"),
        (b"title\n\x00\x00\n", "NUL"),
        (b"title\n" + b"x\n" * 20, "more than 10 rows"),
        (b"title\n" + b"x" * 3000 + b"\n", "larger than"),
    ],
)
def test_what_is_no_such_table_is_refused_with_what_was_found(raw, words):
    with pytest.raises(UploadError) as refused:
        read_documents(raw, max_bytes=200_000 if raw.startswith(b"[") else 2_900 if b"x" * 3000 in raw else 10_000, max_rows=10)
    assert words in refused.value.message and refused.value.hint


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda t: f"title,date\n{t}".encode("utf-8", "replace")), st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=6).map(lambda v: json.dumps(v).encode())))  # fmt: skip
def test_any_bytes_are_a_table_or_refused(raw):
    try:
        items = read_documents(raw)
    except UploadError:
        return
    assert all(isinstance(item, RawItem) and isinstance(item.title, str) for item in items)


def test_no_column_serves_two_fields():
    assert tables.columns_of(["Text", "ID", "Symbol", "text"]) == {"title": 0, "tickers": 2, "key": 1}
