"""The sources' view of the Data page: empty, full and failing; adding, pausing, removing, uploading, looking now."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from fmcore import clock, runtime
from fmcore.data import looks, sources
from fmcore.data.documents import RawItem
from fmcore.data.sources import Sources
from fmcore.store.store import StoreError
from jobs import JOBS
from pages import data_sources, shell
from tests.pages import toy_desk


@pytest.fixture
def desk():
    yield toy_desk.start(JOBS)
    runtime.stop()


def visit():
    at = AppTest.from_file(str(Path(shell.__file__)), default_timeout=30).switch_page("data.py")
    at.query_params["data_view"] = "Sources"
    return at.run()


def said(at):
    return " ".join([*(m.value for m in at.main.markdown), *(e.value for e in at.main.error)])


def button(at, label):
    return next(b for b in at.main.button if b.label == label)


def fill(desk):
    """A desk with a source in every state, one of them with hostile words."""
    held = Sources(desk.store)
    items = [RawItem(f"https://n.example/{n}", f"Story {n} <b>", published=f"2026-01-0{1 + n % 5}T08:00:00Z") for n in range(20)]
    looks.receive(desk.store, "script", [*items, RawItem(), RawItem("javascript:x", "y")])
    held.add("wire", "rss", {"url": "https://n.example/feed"}, "**CC BY** [x](javascript:alert(1)) :red[x]")
    held.add("resting", "rss", {"url": "https://n.example/feed"})
    held.pause("resting", "a test")
    held.add("fresh", "demo")
    held.add("mine", "upload")
    with desk.store.write() as tx:
        sources.note(tx, "wire", now=clock.now(), next_at=clock.now(), error="n.example answered 404 instead of a <feed>.", memory={})
    return held


def test_an_empty_desk_says_what_to_do_and_a_click_adds_the_demo_stream(desk):
    at = visit()
    assert not at.exception and "No sources yet" in said(at)
    button(at, "Add the source").click().run()
    assert [(s.name, s.kind, s.state) for s in Sources(desk.store).all()] == [("demo", "demo", "on")]
    assert not at.exception and "Demo data" in said(at)


def test_a_full_desk_shows_every_source_with_its_state(desk):
    fill(desk)
    at = visit()
    assert not at.exception
    table = at.main.dataframe[0].value.set_index("Source")
    assert {name: state[0] for name, state in table["State"].items()} == {
        "fresh": "New", "mine": "New", "resting": "Paused", "script": "Well", "wire": "Failing",
    }  # fmt: skip
    assert (
        table.loc["script", "Refused"] == 2 and table.loc["script", "A day"] == 3 and table.loc["script", "Last item"] != data_sources.NONE
    )
    assert table.loc["wire", "Failed looks"] == "1 of 1"


def test_the_source_that_needs_a_person_is_open_with_its_reason_as_plain_text(desk):
    fill(desk)
    at = visit()
    assert "answered 404 instead of a \\<feed\\>" in said(at)
    assert "\\*\\*CC BY\\*\\* \\[x\\]\\(javascript\\:alert" in said(at)


def opened(desk, name):
    at = visit()
    at.session_state["source_open"] = name
    return at.run()


def test_one_source_shows_its_days_its_refusals_and_its_looks(desk):
    fill(desk)
    at = opened(desk, "script")
    assert not at.exception and "curl" in " ".join(c.value for c in at.main.code)
    refused = next(d.value for d in at.main.dataframe if "Refused because" in d.value)
    assert dict(zip(refused["Refused because"], refused["Items"], strict=True)) == {
        "no title and no text": 1,
        "link is not http or https": 1,
    }
    days = Sources(desk.store).daily("script")
    assert data_sources.arrivals_words(days).startswith("20 documents in 30 days up to 2026-01-05; most on 2026-01-01: 4")
    assert list(data_sources.arrivals_chart(days).data[0].y) == [n for _, n in days]


def test_a_source_is_paused_resumed_and_removed(desk):
    held = fill(desk)
    at = opened(desk, "script")
    button(at, "Pause").click().run()
    assert held.get("script").state == "paused"
    button(at, "Resume").click().run()
    assert held.get("script").state == "on"
    button(at, "Remove this source").click().run()
    assert held.get("script").state == "removed" and not at.exception
    assert desk.store.rows("SELECT count(*) AS n FROM documents")[0]["n"] == 20


def test_look_now_is_a_run_of_the_ingest_job(desk):
    fill(desk)
    at = opened(desk, "fresh")
    button(at, "Look now").click().run()
    (run,) = desk.runs.active()
    assert (run.job, run.params) == ("ingest", {"source": "fresh"})
    button(at, "Look now").click().run()
    assert not at.exception and at.main.error


def test_what_does_not_fit_is_said_beside_its_field(desk):
    at = visit()
    at.main.get("button_group")[1].set_value("rss").run()
    at.main.text_input(key="source-rss.url").set_value("javascript:alert(1)")
    button(at, "Add the source").click().run()
    assert "link is not http or https" in said(at) and Sources(desk.store).all() == []
    at.main.text_input(key="source-rss.url").set_value("https://n.example/feed")
    at.main.text_input(key="source_name-rss").set_value("two words")
    button(at, "Add the source").click().run()
    assert "cannot be a source" in said(at)
    at.main.text_input(key="source_name-rss").set_value("wire")
    button(at, "Add the source").click().run()
    assert Sources(desk.store).get("wire").settings["url"] == "https://n.example/feed"


def test_an_uploaded_file_is_taken_in_once_and_says_what_became_of_its_rows(desk):
    fill(desk)
    at = opened(desk, "mine")
    raw = b"title,published_at\nOne,2026-01-05T08:00:00Z\nTwo,2026-01-05\nThree,\n"
    at.main.file_uploader[0].set_value(("rows.csv", raw, "text/csv")).run()
    told = " ".join(w.value for w in at.main.warning) + said(at)
    assert "3 rows\\: 2 new, 0 known already, 1 refused; 1 had no date" in told and "Row 2: date without a time zone" in told
    assert desk.store.rows("SELECT count(*) AS n FROM documents WHERE source = 'mine'")[0]["n"] == 2
    at.main.file_uploader[0].set_value(("rows.csv", b"PK\x03\x04", "text/csv")).run()
    assert "Excel workbook" in said(at) and not at.exception


def test_uploaded_prices_are_stored(desk):
    Sources(desk.store).add("px", "prices")
    at = opened(desk, "px")
    at.main.file_uploader[0].set_value(("px.csv", b"ticker,date,close\nAAPL,2026-01-05,101.5\nAAPL,2026-01-06,NaN\n", "text/csv")).run()
    assert [row["close"] for row in desk.store.rows("SELECT close FROM prices")] == [101.5]
    assert "price is not a finite number" in said(at)


def test_a_store_that_fails_is_a_sentence(desk, monkeypatch):
    fill(desk)

    def broken(*_args, **_kwargs):
        raise StoreError("The database refused: no.", "Make room on the disk.")

    monkeypatch.setattr(Sources, "daily", broken)
    at = visit()
    assert not at.exception and "The database refused\\: no\\." in said(at)
    monkeypatch.setattr(Sources, "all", broken)
    at = visit()
    assert not at.exception and "The database refused\\: no\\." in said(at)
