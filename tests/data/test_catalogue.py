"""The catalogue: what is known, where it is, and splits that neither leak nor move."""

import json
import os

import hypothesis
import pandas as pd
import pytest
from hypothesis import strategies as st

from fmcore import config
from fmcore.data import catalogue, readers
from fmcore.data.catalogue import BadData, DatasetMissing, LabelledData, UnknownDataset, folded
from fmcore.text import clean, text_hash


def texts(data: LabelledData, part: str) -> set[str]:
    return {folded(message) for message in getattr(data, part)["text"]}


def check(data: LabelledData) -> None:
    """What holds for every data set."""
    assert not texts(data, "train") & texts(data, "validation")
    assert not texts(data, "train") & texts(data, "test")
    assert not texts(data, "validation") & texts(data, "test")
    assert data.labels == tuple(sorted(set(data.labels))) and catalogue.OOS not in data.labels
    assert set(data.train["label"]) <= set(data.labels)
    for part in catalogue.PARTS:
        frame = getattr(data, part)
        assert list(frame.columns) == ["text", "label"] and len(frame) and list(frame.index) == list(range(len(frame)))
        assert set(frame["label"]) <= {*data.labels, catalogue.OOS}
    assert data.split_note.endswith(".") and len(data.split_hash) == 64


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    folder = tmp_path / "sets"
    folder.mkdir()
    monkeypatch.setenv("FM_DATA_DIR", str(folder))
    config.settings.cache_clear()
    return folder


def write_banking(folder, *, test_rows=()):
    folder = folder / "banking77"
    folder.mkdir()
    rows = [(f"{word} question number {n}", word) for word in ("card", "cash") for n in range(30)]
    pd.DataFrame([*rows, ("CARD question  number 3", "card")], columns=["text", "category"]).to_csv(folder / "train.csv", index=False)
    if test_rows:
        pd.DataFrame(test_rows, columns=["text", "category"]).to_csv(folder / "test.csv", index=False)


def write_clinc(folder, **more):
    folder = folder / "clinc150"
    folder.mkdir()
    rows = {key: [[f"{label} {key} {n}", label] for label in ("pay", "play") for n in range(10)] for key in ("train", "val")}
    oos = {key: [[f"{key} {n}", "oos"] for n in range(6)] for key in ("oos_train", "oos_val")}
    (folder / "data_full.json").write_text(json.dumps(rows | oos | more))


def test_every_entry_says_what_it_is_and_what_it_may_be_used_for():
    entries = catalogue.datasets()
    assert {"demo", "banking77", "clinc150"} <= {entry.name for entry in entries}
    for entry in entries:
        assert all((entry.title, entry.summary, entry.licence, entry.size, entry.columns, entry.source))
        assert entry.commercial_use in ("yes", "no", "unclear")


def test_the_demo_data_is_always_there():
    assert catalogue.dataset("demo").state == "built in"
    check(catalogue.load("demo"))


def test_a_missing_set_says_how_to_get_it():
    assert catalogue.dataset("banking77").state == "missing" and catalogue.dataset("banking77").path is None
    with pytest.raises(DatasetMissing, match="python -m fmcore data fetch banking77") as caught:
        catalogue.load("banking77")
    assert "FM_DATA_DIR" in caught.value.hint


@pytest.mark.parametrize("name", ["nope", "", "../demo", "demo\x00", "a" * 500, "/etc/passwd", "..", "demo/../demo", "nope.csv", "C:\\x.csv"])
def test_unknown_and_hostile_names_are_refused(name):
    with pytest.raises(UnknownDataset):
        catalogue.load(name)
    with pytest.raises(UnknownDataset):
        catalogue.dataset(name)


def test_banking77_as_published_loads_without_a_leak(public_data):
    data = catalogue.load("banking77")
    check(data)
    assert catalogue.dataset("banking77").state == "local"
    assert len(data.labels) == 77 and len(data.train) + len(data.validation) + len(data.test) == 10_003
    assert data.test_is_publishers is (public_data / "banking77" / "test.csv").exists()
    assert data.validation["label"].nunique() == 77 and 0.08 < len(data.validation) / 10_003 < 0.12


def test_clinc150_keeps_out_of_scope_rows_out_of_training(public_data):
    data = catalogue.load("clinc150")
    check(data)
    assert len(data.labels) == 150 and len(set(data.domains.values())) == 10 and set(data.domains) == set(data.labels)
    assert (data.validation["label"] == "oos").sum() >= 100 and (data.test["label"] == "oos").sum() >= 100


def test_without_the_publishers_test_file_one_is_cut_and_said_to_be(data_dir):
    write_banking(data_dir)
    data = catalogue.load("banking77")
    check(data)
    assert not data.test_is_publishers and "10 %" in data.split_note
    assert data.test["label"].value_counts().to_dict() == {"card": 3, "cash": 3}
    assert "card question number 3" in texts(data, "train") | texts(data, "validation") | texts(data, "test")


def test_the_publishers_test_file_is_used_whole_and_its_texts_leave_training(data_dir):
    write_banking(data_dir, test_rows=[("Card question number 1", "card"), ("how do I get cash?", "cash")])
    data = catalogue.load("banking77")
    check(data)
    assert data.test_is_publishers and len(data.test) == 2
    assert "1 earlier rows that repeat a held-out text were left out" in data.split_note


def test_clinc150_with_its_test_rows_uses_all_validation_rows(data_dir):
    write_clinc(data_dir, test=[["pay test", "pay"], ["play test", "play"]], oos_test=[["strange test", "oos"]])
    data = catalogue.load("clinc150")
    check(data)
    assert data.test_is_publishers and len(data.test) == 3 and len(data.validation) == 20 + 6 + 6


def test_clinc150_without_test_rows_halves_validation(data_dir):
    write_clinc(data_dir)
    data = catalogue.load("clinc150")
    check(data)
    assert not data.test_is_publishers
    assert data.validation["label"].value_counts().to_dict() == {"pay": 5, "play": 5, "oos": 6} == data.test["label"].value_counts().to_dict()


def test_damaged_publishers_files_are_named(data_dir):
    (data_dir / "clinc150").mkdir()
    for content in ("{", "[]", '{"train": 3}', '{"train": [["a"]], "val": [], "oos_train": [], "oos_val": []}'):
        (data_dir / "clinc150" / "data_full.json").write_text(content)
        with pytest.raises(BadData, match=r"data_full\.json"):
            catalogue.load("clinc150")
    (data_dir / "banking77").mkdir()
    for content in (b"", b"a,b\n1,2\n", b"text,category\n\xff\xfe,x\n"):
        (data_dir / "banking77" / "train.csv").write_bytes(content)
        with pytest.raises(BadData, match=r"train\.csv"):
            catalogue.load("banking77")


def test_a_label_outside_the_publishers_list_is_refused(data_dir):
    write_banking(data_dir)
    (data_dir / "banking77" / "categories.json").write_text('["card", "other"]')
    with pytest.raises(BadData, match="cash"):
        catalogue.load("banking77")


def own_csv(path, rows, header="message,intent"):
    path.write_text(header + "\n" + "\n".join(f"{message},{label}" for message, label in rows) + "\n")
    return path


def test_a_persons_csv_is_split_by_a_hash_of_its_texts(tmp_path):
    rows = [(f"text {n} of {label}", label) for label in ("a", "b", "c") for n in range(20)] + [(f"odd {n}", "oos") for n in range(10)]
    first = catalogue.load(own_csv(tmp_path / "mine.csv", rows))
    check(first)
    assert first.name == "mine" and first.labels == ("a", "b", "c") and not first.test_is_publishers
    assert (len(first.train), len(first.validation), len(first.test)) == (48, 11, 11)
    again = catalogue.load(str(own_csv(tmp_path / "again.csv", rows[::-1])))
    assert again.split_hash == first.split_hash


def test_what_is_odd_in_a_persons_csv_stands_in_the_note(tmp_path):
    rows = [(f"text {n} of {label}", label) for label in ("a", "b") for n in range(5)]
    unclear = [row for n in range(9) for row in ((f"Both  ways {n}", "a"), (f"both ways {n}", "b"))]
    data = catalogue.load(own_csv(tmp_path / "mine.csv", [*rows, *unclear, ("", "a"), ("unlabelled", "")]))
    check(data)
    assert "2 rows without text or label" in data.split_note and "9 texts with conflicting labels stand in train only" in data.split_note
    assert texts(data, "train") >= {f"both ways {n}" for n in range(9)}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("one", "a"), ("two", "a"), ("three", "a")], "fewer than 2 classes"),
        ([("one", "a"), ("two", "a"), ("three", "a"), ("x", "b"), ("y", "b"), ("Y ", "b")], "fewer than 3 different texts in 1 classes: b"),
        ([("one", "a"), ("two", "a"), ("three", "a"), ("one", "b"), ("two", "b"), ("three", "b")], "fewer than 3 different texts in 2"),
        ([("", "")], "fewer than 2 classes"),
        ([("one", "oos"), ("two", "oos")], "fewer than 2 classes"),
    ],
)
def test_too_little_to_learn_from_is_said(tmp_path, rows, words):
    with pytest.raises(BadData, match=words):
        catalogue.load(own_csv(tmp_path / "mine.csv", rows))


def test_pipes_folders_and_other_files_are_no_data_sets(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "secret.txt").write_text("text,label\n")
    for name, error in (("pipe.csv", BadData), ("folder.csv", BadData), ("secret.txt", UnknownDataset), ("absent.csv", UnknownDataset)):
        with pytest.raises(error):
            catalogue.load(tmp_path / name)


def test_saved_data_comes_back_equal(tmp_path):
    data = catalogue.load("demo")
    data.save(tmp_path / "data")
    back = LabelledData.load(tmp_path / "data")
    for part in catalogue.PARTS:
        assert getattr(back, part).equals(getattr(data, part))
    assert {k: v for k, v in vars(back).items() if k not in catalogue.PARTS} == {k: v for k, v in vars(data).items() if k not in catalogue.PARTS}


def test_saved_data_that_was_changed_or_torn_is_refused(tmp_path):
    catalogue.load("demo").save(tmp_path)
    catalogue.load("demo").train.iloc[1:].to_parquet(tmp_path / "train.parquet", index=False)
    with pytest.raises(BadData, match="not the ones that were saved"):
        LabelledData.load(tmp_path)
    for name in ("test.parquet", "data.json"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
        with pytest.raises(BadData, match="cannot be read"):
            LabelledData.load(tmp_path)


# ---------------------------------------------------------------- news


def write_phrasebank(folder, rows, *, agreed=()):
    folder = folder / "financial_phrasebank"
    folder.mkdir()
    for name, kept in (("50", rows), ("75", agreed)):
        (folder / f"Sentences_{name}Agree.txt").write_bytes("\n".join([*kept, ""]).encode("latin-1"))


def sentences(n=20):
    return [f"{word} number {i} of K\xf6ln .@{label}" for label, word in (("negative", "loss"), ("neutral", "talk"), ("positive", "gain")) for i in range(n)]


def test_phrasebank_is_latin_1_split_on_the_last_at_with_its_agreement_as_tiers(data_dir):
    write_phrasebank(data_dir, [*sentences(), "mail ir@firm.fi @ 5 EUR@neutral", ""], agreed=sentences(5))
    data = catalogue.load("financial_phrasebank")
    check(data)
    assert data.labels == ("negative", "neutral", "positive") and not data.test_is_publishers
    everything = pd.concat([data.train, data.validation, data.test])
    assert "mail ir@firm.fi @ 5 EUR" in set(everything["text"]) and everything["text"].str.contains("K\xf6ln").any()
    tiers = [data.tiers[text_hash(message)] for message in everything["text"]]
    assert tiers.count("75") == 15 and tiers.count("50") == 46
    assert data.test["label"].value_counts().to_dict() == {"negative": 2, "neutral": 2, "positive": 2}


@hypothesis.settings(max_examples=30, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(message=st.text(st.characters(codec="latin-1", exclude_characters="\n"), max_size=80))
def test_any_sentence_of_a_phrasebank_line_comes_back_whole(tmp_path, message):
    (tmp_path / "Sentences_50Agree.txt").write_bytes("\n".join([*sentences(6), f"{message}@positive"]).encode("latin-1"))
    data = readers.financial_phrasebank(tmp_path)
    found = {m for part in catalogue.PARTS for m in getattr(data, part)["text"]}
    cleaned = clean(message.strip())[0]
    assert cleaned in found or not readers.bare_words(cleaned)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig"])
def test_copies_of_phrasebank_in_other_encodings_and_line_ends_are_the_same_data(tmp_path, encoding):
    (tmp_path / "Sentences_50Agree.txt").write_bytes("\r\n".join(sentences()).encode(encoding))
    data = readers.financial_phrasebank(tmp_path)
    assert data.train["text"].str.fullmatch("(loss|talk|gain) number \\d+ of K\xf6ln .").all()
    assert set(data.train["label"]) == {"negative", "neutral", "positive"}


def test_a_sentence_with_two_labels_teaches_and_is_never_scored(data_dir):
    write_phrasebank(data_dir, [*sentences(), "Sales were flat .@neutral", "Sales  were flat@positive"])
    data = catalogue.load("financial_phrasebank")
    assert (data.train["text"].str.contains("were flat")).sum() == 2 and "1 sentences with two labels stand in train only" in data.split_note


@pytest.mark.parametrize("content", ["no label here\n", "a@positive\nb@positive\n", "a@glad\nb@positive\nc@negative\n", ""])
def test_a_phrasebank_file_that_is_none_is_refused(data_dir, content):
    (data_dir / "financial_phrasebank").mkdir()
    (data_dir / "financial_phrasebank" / "Sentences_50Agree.txt").write_text(content)
    with pytest.raises(BadData):
        catalogue.load("financial_phrasebank")


def test_phrasebank_as_published_loads_with_every_tier(public_data):
    data = catalogue.load("financial_phrasebank")
    check(data)
    assert len(data.train) + len(data.validation) + len(data.test) == 3_876
    assert {data.tiers[text_hash(message)] for message in data.test["text"]} == {"50", "66", "75", "all"}
    assert catalogue.dataset("financial_phrasebank").commercial_use == "no"


def write_tweets(folder, rows, *, valid=()):
    folder = folder / "twitter_financial_topic"
    folder.mkdir()
    (folder / "labels.json").write_text('{"LABEL_0": "Fed | Central Banks", "LABEL_1": "Dividend"}')
    for name, kept in (("topic_train.csv", rows), ("topic_valid.csv", valid)):
        if kept:
            pd.DataFrame(kept, columns=["text", "label"]).to_csv(folder / name, index=False, lineterminator="\r\n")


def tweets(n=20):
    return [(f"{word} story {i}\nsecond line, &amp; more https://t.co/a{i}", label) for label, word in ((0, "rate"), (1, "payout")) for i in range(n)]


def test_tweets_that_differ_only_by_their_link_count_once_and_stand_in_one_part(data_dir):
    again = [(message.replace("https://t.co/a", "HTTPS://t.co/b").replace("&amp;", "&"), label) for message, label in tweets()]
    write_tweets(data_dir, [*tweets(), *again])
    data = catalogue.load("twitter_financial_topic")
    check(data)
    everything = pd.concat([data.train, data.validation, data.test])
    stems = everything["text"].str.split("https://|HTTPS://").str[0]
    assert len(everything) == 40 and stems.nunique() == 40 and "40 rows that repeat" in data.split_note
    assert data.labels == ("Dividend", "Fed | Central Banks") and everything["text"].str.contains("\nsecond line").all()


def test_the_publishers_validation_file_is_the_test_set(data_dir):
    write_tweets(data_dir, tweets(), valid=[("rate story 3\nsecond line, & more https://t.co/zz", 0), ("payout cut", 1)])
    data = catalogue.load("twitter_financial_topic")
    check(data)
    assert data.test_is_publishers and len(data.test) == 2 and not data.train["text"].str.startswith("rate story 3\n").any()


def test_a_topic_without_a_name_is_refused(data_dir):
    write_tweets(data_dir, [*tweets(), ("what is this", 7)])
    with pytest.raises(BadData, match="'7'"):
        catalogue.load("twitter_financial_topic")


def test_twitter_topics_as_published_load_without_a_repeated_tweet(public_data):
    data = catalogue.load("twitter_financial_topic")
    check(data)
    assert len(data.labels) == 20 and set(data.test["label"]) == set(data.labels)
    bare = pd.concat([data.train, data.validation, data.test])["text"].str.replace(r"https?://\S+", "", regex=True).map(folded)
    assert bare.nunique() > 0.998 * len(bare)  # a tweet may carry two labels, then both rows teach
    assert not bare[: len(data.train)].isin(set(bare[len(data.train) :])).any()


def test_a_set_that_cannot_be_downloaded_says_why_and_where_it_is():
    for name in ("financial_phrasebank", "twitter_financial_topic", "stocknet", "nab"):
        assert name not in catalogue.DOWNLOADABLE and catalogue.remote_files(name) == ()
        with pytest.raises(DatasetMissing, match="no checksum") as caught:
            catalogue.load(name)
        assert catalogue.dataset(name).source in caught.value.hint and catalogue.ENTRIES[name].marker in caught.value.hint
