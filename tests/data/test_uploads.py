"""CSV in and out: whatever the bytes, a frame or one sentence."""

import csv
import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.data import uploads
from fmcore.nouns import FMError

ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=40)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(lambda raw: b"text,label\n" + raw)), st.booleans())
def test_any_bytes_end_in_a_frame_or_an_fm_error(raw, need_label):
    try:
        frame = uploads.read_messages(raw, need_label=need_label)
    except FMError as error:
        assert error.message and error.hint
    else:
        assert len(frame) > 0
        assert set(frame.columns) <= {"text", "label"} and "text" in frame


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1, max_size=8))
def test_what_is_written_plainly_is_read_back_unchanged(rows):
    frame = pd.DataFrame(rows, columns=["text", "label"], dtype="str")
    back = uploads.read_messages(uploads.to_csv(frame, spreadsheet_safe=False), need_label=True)
    assert list(back.itertuples(index=False, name=None)) == rows


@settings(max_examples=100, deadline=None)
@given(st.lists(ANY_TEXT, min_size=1, max_size=8))
def test_no_exported_text_starts_a_formula(texts):
    raw = uploads.to_csv(pd.DataFrame({"=cmd": texts}))
    cells = [row[0] for row in csv.reader(io.StringIO(raw.decode("utf-8"), newline=""))]
    assert len(cells) == len(texts) + 1
    assert not [c for c in cells if c[:1] in ("=", "+", "-", "@", "\t", "\r") and not c.lstrip("+-").replace(".", "").isdigit()]


def test_numbers_stay_numbers_in_an_export():
    raw = uploads.to_csv(pd.DataFrame({"score": [-0.5, float("nan")], "n": [-5, 3], "text": ["-5", "-x"]}))
    assert raw.decode().splitlines() == ["score,n,text", "-0.5,-5,-5", ",3,'-x"]


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        ("text,label\nKärte weg 💳,lost\n".encode(), "UTF-8"),
        ("text,label\nKärte weg 💳,lost\n".encode("utf-8-sig"), "UTF-8 with a byte order mark"),
        ("text,label\nKärte weg 💳,lost\n".encode("utf-16"), "UTF-16"),
        ("text,label\nKärte weg,lost\n".encode("latin-1"), "Latin-1"),
    ],
)
def test_the_encoding_is_recognised_and_said(raw, encoding):
    frame = uploads.read_messages(raw)
    assert frame["text"][0].startswith("Kärte weg")
    assert frame.attrs["encoding"] == encoding


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_comma_semicolon_and_tab_are_recognised(mark):
    raw = f'id{mark}Message {mark}Intent\r\n1{mark}"one{mark} two\nlines"{mark}a\r\n\r\n2{mark}x{mark}b\r\n'.encode()
    frame = uploads.read_messages(raw, need_label=True)
    assert frame.to_dict("list") == {"text": [f"one{mark} two\nlines", "x"], "label": ["a", "b"]}


def test_cells_that_look_like_missing_values_stay_words():
    assert uploads.read_messages(b"text\nNA\nnull\nNone\n")["text"].tolist() == ["NA", "null", "None"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b" \r\n \n", "empty"),
        (b"text,label\n", "no rows"),
        (b"name,age\nAnn,3\n", "'name', 'age'"),
        (b"text,label\nonly text\n", "row 1 has 1 cells"),
        (b'text,label\n"never closed,a\nb,c\n', "line"),
        (b'text\n"a"b\n', "line"),
        (b"text\na\x00b\n", "NUL"),
        ("text\nab\n".encode("utf-16-le"), "NUL"),
        (b"\xff\xfet\x00e", "utf-16"),
        (b"PK\x03\x04\x14\x00xl/workbook.xml", "Excel"),
        (b"%PDF-1.7", "PDF"),
        (b"\x1f\x8b\x08\x00", "gzip"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(raw, words):
    with pytest.raises(uploads.UploadError, match=words) as caught:
        uploads.read_messages(raw, need_label=raw.startswith(b"text,label"))
    assert caught.value.hint


def test_a_missing_label_column_is_named_when_it_is_needed():
    with pytest.raises(uploads.UploadError, match=r"labels; the first row is: 'text', 'mood'"):
        uploads.read_messages(b"text,mood\na,b\n", need_label=True)


def test_bytes_and_rows_are_bounded():
    with pytest.raises(uploads.UploadError, match="larger than"):
        uploads.read_messages(b"text\n" + b"x" * 5_000_000)
    with pytest.raises(uploads.UploadError, match="more than 3 rows"):
        uploads.read_messages(b"text\n" + b"x\n" * 4, max_rows=3)
    assert len(uploads.read_messages(b"text\n" + b"x\n" * 3, max_rows=3)) == 3


def test_a_row_of_100_megabytes_is_refused_without_being_read(tmp_path):
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.write(b"text\n")
        file.truncate(100_000_000)
    with pytest.raises(uploads.UploadError, match="larger than 5 MB"):
        uploads.read_messages(path)


def test_a_cell_larger_than_pythons_own_limit_is_read():
    assert len(uploads.read_messages(b"text\n" + b"x" * 1_000_000 + b"\n")["text"][0]) == 1_000_000


def test_paths_that_are_no_plain_files_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.csv", tmp_path / "nul\x00.csv"):
        with pytest.raises(uploads.UploadError):
            uploads.read_messages(path)
