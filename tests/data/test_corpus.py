"""The corpus: what may be learnt from, cut by hash, streamed within bounds; and what files may be like."""

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcore.data import catalogue, corpus, text_files
from fmcore.data.corpus import BadCorpus, Corpus

ROOT = Path(__file__).resolve().parents[2]


def lines(n=60):
    return [f"Company number {i} reported a profit of {i * 7} million in the quarter" for i in range(n)]


def written(path, said, *, encoding="utf-8"):
    path.write_bytes("\n".join(said).encode(encoding))
    return str(path)


def all_of(made):
    return [*made.documents("train"), *made.documents("held_back")]


def test_every_text_is_on_one_side_and_the_same_side_however_it_is_made(tmp_path):
    path = written(tmp_path / "a.txt", lines())
    first, again = Corpus.of([path]), Corpus.of([path])
    sides = [{part: list(made.documents(part)) for part in ("train", "held_back")} for made in (first, again)]
    assert sides[0] == sides[1] and first.hash == again.hash
    assert len(sides[0]["train"]) + len(sides[0]["held_back"]) == 60 and len(sides[0]["held_back"]) >= 5
    assert not set(sides[0]["train"]) & set(sides[0]["held_back"])


def test_another_seed_cuts_elsewhere_and_another_text_changes_the_hash(tmp_path):
    path = written(tmp_path / "a.txt", lines())
    one = Corpus.of([path])
    assert Corpus.of([path], seed=1).hash != one.hash and list(Corpus.of([path], seed=1).documents("held_back")) != list(
        one.documents("held_back")
    )
    written(tmp_path / "a.txt", [*lines()[:-1], "Another last line of some length"])
    assert Corpus.of([path]).hash != one.hash


def test_a_text_that_comes_again_with_another_link_or_name_counts_once(tmp_path):
    path = written(tmp_path / "a.txt", [*lines(), f"RT @someone: {lines()[3]} https://t.co/xyz", lines()[3].upper()])
    made = Corpus.of([path])
    assert len(all_of(made)) == 60 and "a.txt: 2 texts that came before were left out." in made.notes


@pytest.mark.parametrize("part", ["validation", "test"])
def test_no_text_that_a_data_set_holds_back_is_ever_given(tmp_path, part):
    secret = getattr(catalogue.load("demo_sentiment"), part)["text"].tolist()[:10]
    path = written(tmp_path / "a.txt", [*lines(), *secret, f"{lines()[1]} extra. {secret[0]}", secret[1].lower() + " !!"])
    given = {said for document in all_of(Corpus.of([path])) for said in document}
    assert not {corpus._key(said) for said in given} & {corpus._key(said) for said in secret}
    assert any("holds back for measuring" in note for note in _read(Corpus.of([path])).notes)


def _read(made):
    all_of(made)
    return made


def test_a_labelled_set_gives_its_training_rows_only():
    data = catalogue.load("demo")
    given = {corpus._key(" ".join(document)) for document in all_of(Corpus.of(["demo"]))}
    held, learnt = (
        {corpus._key(corpus.plain(said)) for said in rows} for rows in ([*data.validation["text"], *data.test["text"]], data.train["text"])
    )
    assert given and not given & held and given <= learnt


def test_without_public_data_the_corpus_is_the_built_in_demo_and_says_so():
    made = Corpus.of([])
    assert made.names == corpus.DEMO and made.synthetic and set(made.licences.values()) == {"Part of FM Desk"}


def test_with_public_data_it_is_the_finance_texts_with_their_licences(public_data):
    made = Corpus.of([])
    assert made.names == corpus.FINANCE and not made.synthetic and "CC BY-NC-SA 3.0" in made.licences["financial_phrasebank"]


def test_documents_of_several_sentences_stay_together(tmp_path):
    said = "\n\n".join(f"Headline number {i} rises.\nThe share gained {i} percent. Analysts were surprised." for i in range(40))
    made = Corpus.of([written(tmp_path / "a.txt", said.split("\n"))])
    assert len(all_of(made)) == 40 and all(len(document) == 3 for document in all_of(made))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ([], "is empty"),
        (["", "  ", "\t"], "is empty"),
        (["One line alone."], "holds one text"),
        (["x"] * 50, "holds one text"),
        (lines(7), "holds 7 different"),
    ],
)
def test_too_little_text_is_said(tmp_path, said, sentence):
    with pytest.raises(BadCorpus, match=sentence) as refused:
        Corpus.of([written(tmp_path / "a.txt", said)])
    assert refused.value.hint


@pytest.mark.parametrize("content", [bytes(range(256)) * 40, b"\x89PNG\r\n\x1a\n" + os.urandom(400), "text".encode("utf-16-le") * 90])
def test_what_is_no_text_is_refused(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(BadCorpus, match="not text"):
        Corpus.of([str(tmp_path / "a.txt")])


def test_a_missing_file_an_empty_folder_and_the_news_without_an_export_are_said(tmp_path):
    for name, sentence in ((str(tmp_path / "no.txt"), "no file"), (str(tmp_path), "no files that are read"), ("news", "not exported")):
        with pytest.raises(BadCorpus, match=sentence):
            Corpus.of([name])


def test_mixed_encodings_are_read_and_said(tmp_path):
    said = [f"Gewinn der Münchner Gesellschaft {i} stieg kräftig" for i in range(40)]
    mixed = b"\n".join(line.encode("cp1252" if i % 2 else "utf-8") for i, line in enumerate(said))
    (tmp_path / "a.txt").write_bytes(mixed)
    made = _read(Corpus.of([str(tmp_path / "a.txt")]))
    assert sorted(document[0] for document in all_of(made)) == sorted(said)
    assert "a.txt: 20 lines were not UTF-8 and were read as Windows-1252." in made.notes


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_understood(tmp_path, encoding):
    said = [f"Umsatz für Größe {i} wächst" for i in range(30)]
    made = Corpus.of([written(tmp_path / "a.txt", said, encoding=encoding)])
    assert sorted(document[0] for document in all_of(made)) == sorted(said)


def test_tables_json_lines_and_gzip_are_read_and_their_bad_rows_counted(tmp_path):
    (tmp_path / "a.csv").write_text("id;headline;body\n" + "".join(f'{i};Title {i} rises;"Body; of\n{i}"\n' for i in range(30)) + "31;;\n")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": f"Json text number {i}"}) + "\n" for i in range(30)) + "{broken\n[]\n")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress("\n".join(lines(30)).encode()))
    made = _read(Corpus.of([str(tmp_path)]))
    given = {document[0] for document in all_of(made)}
    assert {"Title 3 rises", "Json text number 3", lines()[3]} <= given and len(given) == 90
    assert (
        "a.csv: 1 rows without a text were left out." in made.notes
        and "b.jsonl: 2 lines that are no JSON with a text were left out." in made.notes
    )


def test_a_table_without_texts_and_a_quote_that_never_closes_are_said(tmp_path):
    (tmp_path / "a.csv").write_text("price,volume\n1,2\n")
    with pytest.raises(BadCorpus, match="no column with texts; the first row is: 'price', 'volume'"):
        Corpus.of([str(tmp_path / "a.csv")])
    (tmp_path / "b.csv").write_text('text\n"' + "never closed and long\n" * 60_000)
    with pytest.raises(BadCorpus, match="never closed"):
        Corpus.of([str(tmp_path / "b.csv")])


def test_a_damaged_gzip_is_refused_and_one_that_ends_early_is_read_as_far_as_it_goes(tmp_path):
    whole = gzip.compress("\n".join(lines(8_000)).encode())
    (tmp_path / "a.txt.gz").write_bytes(b"\x1f\x8b" + b"rubbish" * 50)
    with pytest.raises(BadCorpus, match="damaged gzip"):
        Corpus.of([str(tmp_path / "a.txt.gz")])
    (tmp_path / "b.txt.gz").write_bytes(whole[: len(whole) // 2])
    made = _read(Corpus.of([str(tmp_path / "b.txt.gz")]))
    assert len(all_of(made)) > 1000 and any("in the middle of its compressed data" in note for note in made.notes)


HUGE = """
import itertools, json, resource, sys
from fmcore.data.corpus import Corpus
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
made = Corpus.of([sys.argv[1]])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
n = sum(1 for _ in itertools.islice(made.documents("train"), 10_000))
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"n": n, "grown_mb": grown / 1024}))
"""


def test_of_a_file_of_5_gb_only_what_is_needed_is_read_in_bounded_memory_and_nothing_is_written(tmp_path):
    path = tmp_path / "huge.txt"
    with path.open("w") as stream:
        for i in range(30_000):
            stream.write(f"Company number {i} reported a profit of {i * 7} million in the quarter and expects more of the same\n")
    os.truncate(path, 5 << 30)  # sparse: what follows the text reads as zeros
    done = subprocess.run([sys.executable, "-c", HUGE, path], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert told["n"] == 10_000 and told["grown_mb"] < 60


def test_where_a_file_stops_being_text_its_reading_stops(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines(2_000)) + "\n")
    os.truncate(path, 5 << 30)
    made = _read(Corpus.of([str(path)]))
    assert any("up to where it stops being text" in note for note in made.notes)


@given(content=st.binary(max_size=3000))
def test_any_bytes_end_in_lines_or_in_a_reason(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "a.txt"
    path.write_bytes(content)
    for name in ("a.txt", "a.csv", "a.jsonl"):
        other = path.with_name(name)
        other.write_bytes(content)
        try:
            found = list(text_files.documents(other, Counter()))
        except BadCorpus as refused:
            assert refused.hint
        else:
            assert all(isinstance(part, str) and part.strip() for document in found for part in document)


@given(said=st.text(max_size=300))
def test_sentences_lose_no_word(said):
    joined = "".join(c for c in "".join(corpus.sentences(said)) if c.isalnum())
    assert joined == "".join(c for c in said if c.isalnum())
