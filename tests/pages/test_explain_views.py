"""Two models, the whole model and the review queue: what is stored is what is drawn, outside text stays text, every empty state says what to do."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from fmcore import clock, runtime
from fmcore.config import Settings
from fmcore.explain import comparing, overview, reviews, slices
from fmcore.nouns import Explanation
from jobs import JOBS
from pages import explain_model, explain_two
from tests.pages import tiny_model, toy_desk

SHELL = str(Path(__file__).resolve().parents[2] / "pages" / "shell.py")
HOSTILE = "<img src=x onerror=alert(1)> **b** $x$ :red[x] [l](javascript:alert(1)) \u202eabc"
LIVE = ("<img", ":red[x]", "](javascript", "$x$")
slow = pytest.mark.slow  # real models are fitted for it


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two real versions of the demo data; every test works on a copy."""
    home = tmp_path_factory.mktemp("views")
    runtime.stop()
    desk = runtime.start(Settings(home=home / "home"), {})
    tiny_model.adopt(desk, home / "a", seed=0)
    tiny_model.adopt(desk, home / "b", seed=1, promote=False)
    runtime.stop()
    return home / "home"


@pytest.fixture
def desk(made, tmp_path):
    shutil.copytree(made, tmp_path / "home")
    yield runtime.start(Settings(home=tmp_path / "home"), JOBS)
    runtime.stop()


@pytest.fixture
def bare(tmp_path):
    """A desk with one version, of which nothing can be asked."""
    desk = toy_desk.start(JOBS)
    version = toy_desk.version(desk.registry, tmp_path / "only", 0.9)
    desk.registry.promote("intent", version.version, by="a test", reason="the first")
    yield SimpleNamespace(desk=desk, version=version.version)
    runtime.stop()


def opened(view, **state) -> AppTest:
    at = AppTest.from_file(SHELL, default_timeout=60)
    at.query_params["explain_view"] = view
    for name, value in state.items():
        at.session_state[name] = value
    return sound(at.switch_page("explain.py").run())


def sound(at: AppTest) -> AppTest:
    assert not at.exception
    assert not at.error
    return at


def words(at: AppTest) -> str:
    return "\n".join(m.value for m in at.markdown)


def plain(at: AppTest) -> str:
    return words(at).replace("\\", "").replace("\u00a0", " ")


def headers(at: AppTest) -> set[str]:
    return {h.value for h in at.header}


def press(at: AppTest, label: str) -> AppTest:
    return next(b for b in at.button if b.label == label).click().run()


def inert(at: AppTest) -> None:
    """Nothing of HOSTILE is live in any markdown or chart."""
    for markdown in (m.value for m in at.markdown):
        bare = markdown.replace("\\<", "").replace("\\:", "").replace("\\]", "").replace("\\$", "")
        assert not [live for live in LIVE if live in bare], markdown
    for chart in at.get("plotly_chart"):
        assert "<img" not in chart.proto.spec and "$x$" not in chart.proto.spec


# ---------------------------------------------------------------- two models


def test_one_version_has_nothing_to_be_compared_with(bare):
    at = opened("Two models")
    assert "There is only one version" in words(at) and "Training page" in words(at)
    assert not at.text_area


@slow
def test_one_text_under_both_versions_with_the_difference_by_word(desk):
    text = "where is my parcel"
    at = opened("Two models")
    at.text_area(key="explain_two_text").set_value(text)
    at = sound(at.button[[b.label for b in at.button].index("Explain with both")].click().run())
    held = at.session_state["why_held"]
    assert {h.question.version for h in held.values()} == {v.version for v in desk.registry.versions("intent")}
    assert len({h.question.target for h in held.values()}) == 1, "both explain one score, or a difference would say nothing"
    assert all(h.ticket.wait(60) for h in held.values())
    at = sound(at.run())
    assert "What differs, word by word" in headers(at)
    first, second = (h.ticket.answer.explanation for h in held.values())
    table = next(d.value for d in at.dataframe if "difference" in d.value)
    assert table["word"].tolist() == [*text.split(), "(no word)"]
    assert table["difference"].sum() == pytest.approx(100 * (second.score - first.score), abs=0.2)
    assert "parcel" not in json.dumps(dict(at.query_params))
    assert "parcel" not in json.dumps([row["content"] for row in desk.store.rows("SELECT content FROM explanations")])


def explanation(values, base):
    tokens = tuple(f"w{i}" for i in range(len(values)))
    return Explanation(
        task="intent", version="v", label="a", target="a", score=base + sum(values), base_value=base, tokens=tokens, spans=((0, 1),) * len(values),
        values=tuple(values), method="fast", budget=40, n_calls=40, additivity_error=0.0, seconds=0.1, made_at=clock.now(),
    )  # fmt: skip


def test_differences_add_up_to_the_difference_of_the_scores():
    first, second = explanation([0.2, -0.1, 0.05], 0.3), explanation([0.4, -0.3, 0.05], 0.2)
    table = explain_two.differences(first, second)
    assert table["difference"].tolist() == pytest.approx([0.2, -0.2, 0.0, -0.1])
    assert table["difference"].sum() == pytest.approx(second.score - first.score)
    fig = explain_two.differences_chart(table)
    assert list(fig.data[0].text) == ["▲ +20.0", "▼ −20.0", "▼ ±0.0", "▼ −10.0"]


def counts(at: AppTest) -> dict[str, str]:
    """The four figures, without the icons in front of their names."""
    return {m.label.rsplit("] ", 1)[-1]: m.value for m in at.metric}


def flipped() -> comparing.Flipped:
    rows = [(f"row {i}", "a", "b", "a", "fixed") for i in range(3)] + [("lost", "a", "a", "b", "broken"), (HOSTILE, "c", "a", "b", "changed")]
    parts = pd.DataFrame(
        [("length", "short", 6, 3, 0), ("length", "long", 4, 0, 1), ("label", HOSTILE, 10, 3, 1)], columns=comparing.SLICE_COLUMNS
    )
    return comparing.Flipped(pd.DataFrame(rows, columns=comparing.ROW_COLUMNS), parts, 10, "It is **better**.")


@slow
def test_the_test_rows_that_changed_are_counted_sliced_and_listed(desk, monkeypatch):
    asked = []
    monkeypatch.setattr(explain_two.comparing, "flipped", lambda engine, *key: asked.append(key) or flipped())
    at = opened("Two models")
    assert not asked, "only when somebody asks"
    at = sound(press(at, "Compare on the test rows"))
    assert len(asked) == 1 and asked[0][:2] == ("intent", desk.registry.champion("intent").version)
    assert counts(at) == {"Same answer": "5", "Fixed": "3", "Broken": "1", "Changed": "1"}
    assert "Compare on the test rows" not in [b.label for b in at.button], "a version never changes: once is enough"
    assert "\\*\\*better\\*\\*" in words(at)
    assert at.dataframe[-1].value["Text"].tolist()[-1] == HOSTILE
    at = sound(next(c for c in at.get("button_group") if c.key == "explain_two_show").set_value("broken").run())
    assert at.dataframe[-1].value["Text"].tolist() == ["lost"]
    at = sound(next(c for c in at.get("button_group") if c.key == "explain_two_by").set_value("label").run())
    inert(at)
    assert len(asked) == 1, "kept in the session"


@slow
def test_what_is_compared_is_the_real_rows(desk):
    at = sound(press(opened("Two models"), "Compare on the test rows"))
    first, second = (v.version for v in sorted(desk.registry.versions("intent"), key=lambda v: v.stage != "champion"))
    found = comparing.flipped(desk.engine, "intent", first, second)
    shown = counts(at)
    assert shown["Fixed"] == f"{(found.rows['change'] == 'fixed').sum():,}"
    assert shown["Same answer"] == f"{found.n - len(found.rows):,}"


@slow
def test_versions_that_cannot_be_compared_say_so_and_can_be_asked_again(desk, monkeypatch):
    def refused(*_):
        raise comparing.NotComparable("They know <other> labels.", "Choose two of one data set.")

    monkeypatch.setattr(explain_two.comparing, "flipped", refused)
    at = press(opened("Two models"), "Compare on the test rows")
    assert not at.exception
    (said,) = [e.value for e in at.error]
    assert "They know \\<other\\> labels" in said and "Choose two of one data set" in said
    monkeypatch.setattr(explain_two.comparing, "flipped", lambda *_: flipped())
    assert counts(sound(press(at, "Compare on the test rows")))["Fixed"] == "3"


def test_a_row_is_taken_up_by_all_views_of_the_page(monkeypatch):
    state = {"explain_two_row": {"row": 1}}
    monkeypatch.setattr(explain_two.st, "session_state", SimpleNamespace(update=state.update, __getitem__=None))
    monkeypatch.setattr(explain_two.st, "session_state", state)
    explain_two._picked(["first", " second\x00 "])
    assert state["explain_asked"] == state["explain_text"] == state["explain_two_text"] == "second"
    state["explain_two_row"] = {"row": 7}
    explain_two._picked(["first"])
    assert state["explain_asked"] == "second", "a row that is not there"


# ---------------------------------------------------------------- the whole model


def looked_at(version: str, **changes) -> overview.Overview:
    found = pd.DataFrame(
        [("card", "pin", 9, 0.31, 0.2, 0.4, True), ("card", HOSTILE, 6, -0.12, -0.2, -0.05, True), ("card", "the", 30, 0.01, -0.02, 0.04, False),
         ("loan", "rate", 5, 0.2, -0.1, 0.5, False)], columns=overview.WORD_COLUMNS,
    )  # fmt: skip
    confusions = pd.DataFrame(
        [("card", "loan", 4, 4, [("rate", 0.2), (HOSTILE, 0.05)]), ("loan", "oos", 1, 1, [])], columns=overview.CONFUSION_COLUMNS
    )
    facts = {
        "task": "intent", "version": version, "dataset": "demo", "synthetic": True, "n_rows": 300, "n_right": 270, "n_texts": 120, "n_calls": 4800,
        "method": "fast", "budget": 40, "support": 5, "words": found, "confusions": confusions, "slices": sliced(weak=True),
        "notes": ("It rests on **rows**.",), "made_at": clock.now(),
    }  # fmt: skip
    return overview.Overview(**facts | changes)


def sliced(*, weak: bool) -> pd.DataFrame:
    rows = [("length", "short", 200, 0.95, False), ("length", "long", 100, 0.8, weak), ("confidence", "below 0.5", 40, 0.3, True)]
    rows += [("label", f"label_{i}", 30, 0.9, False) for i in range(12)] + [("label", HOSTILE, 30, 0.85, False)]
    frame = pd.DataFrame(rows, columns=["by", "slice", "n", "accuracy", "weak"])
    frame = frame.assign(n_right=(frame["n"] * frame["accuracy"]).round().astype(int), confidence=0.88, rest=0.9, p=0.01)
    frame = frame.assign(low=frame["accuracy"] - 0.06, high=np.minimum(1.0, frame["accuracy"] + 0.05), difference=frame["accuracy"] - 0.9)
    return frame.assign(difference_low=-0.1, difference_high=0.0)[list(slices.COLUMNS)]


def test_a_version_that_nobody_looked_at_offers_to_and_shows_how_far_it_is(bare):
    at = opened("Whole model")
    assert "not looked at as a whole yet" in words(at)
    at = sound(press(at, "Compute"))
    (run,) = bare.desk.runs.active()
    assert (run.job, run.params["task"], run.params["version"]) == ("explain", "intent", bare.version)
    assert "The model is being looked at" in headers(at)
    assert "Compute" not in [b.label for b in at.button]
    bare.desk.runs.start_now("finetune", None, trigger="manual")
    assert "At work before it: finetune" in plain(sound(at.run()))


def test_a_look_that_failed_says_why(bare):
    toy_desk.ended(bare.desk, "explain", "failed", params={"task": "intent", "version": bare.version}, error="NotHeld: the <rows> are gone")
    assert "NotHeld: the <rows> are gone" in plain(opened("Whole model"))


def test_the_overview_is_drawn_as_it_is_stored_and_outside_words_stay_text(bare):
    overview.save(bare.desk.store, looked_at(bare.version), run_id="r1")
    at = opened("Whole model")
    text = plain(at)
    assert "300 held-out rows of demo" in text and "120 of them explained" in text and "4,800 in all" in text and "Demo data" in text
    assert "It rests on \\*\\*rows\\*\\*" in words(at)
    assert "Weakest: length long, 80.0 % right (74.0 % to 85.0 %, n = 100), against 90.0 % over all rows." in text
    confused = next(d.value for d in at.dataframe if "Said" in d.value)
    assert confused["Said"].tolist() == ["loan", "out of scope"] and confused["Words that drove it"][1] == "none stood out"
    assert confused["Words that drove it"][0].startswith("▲ rate +20.0 · ▲ ")
    glance = next(d.value for d in at.dataframe if list(d.value.columns) == ["Label", "Words"])
    assert glance["Label"].tolist() == ["card", "loan"] and glance["Words"][1] == explain_model.NONE_SURE
    inert(at)
    assert next(b for b in at.button if b.label == "Compute again")


def test_while_it_is_computed_anew_the_last_overview_stays(bare):
    overview.save(bare.desk.store, looked_at(bare.version), run_id="r1")
    at = sound(press(opened("Whole model"), "Compute again"))
    assert {"The model is being looked at", "Words that matter"} <= headers(at)
    assert next(b for b in at.button if b.label == "Compute again").disabled


def test_no_weak_slice_is_said_and_low_confidence_alone_is_not_weakness():
    assert explain_model.weakest(sliced(weak=False), 0.9) == "No slice is weak beyond chance; over all rows 90.0\u00a0% are right."


def test_of_many_slices_of_a_kind_the_weakest_are_drawn():
    shown = explain_model.shown_slices(sliced(weak=True))
    assert shown["by"].value_counts()["label"] == explain_model.MOST_SLICES
    assert HOSTILE in set(shown["slice"]), "the lowest is among them"
    assert shown["by"].tolist()[0] == "confidence" and shown["by"].tolist()[-1] == "label", "few large cuts before many small ones"


def test_the_sign_of_a_word_shows_without_colour_and_chance_is_pale():
    rows = explain_model.strongest(looked_at("v").words, "card")
    fig = explain_model.words_chart(rows)
    assert [name[0] for name in fig.layout.yaxis.ticktext] == ["▲", "▲", "▼"]
    alphas = [float(color.rstrip(")").split(",")[-1]) for color in fig.data[0].marker.color]
    assert alphas == [1.0, 0.4, 1.0]
    assert fig.data[0].error_x.array[0] == pytest.approx(9.0) and fig.data[0].error_x.arrayminus[0] == pytest.approx(11.0)


# ---------------------------------------------------------------- the review queue


def sent(desk, version, text=HOSTILE, **changes) -> reviews.Review:
    facts = {"predicted": "card", "score": 0.8, "suggested": "loan", "note": f"no {HOSTILE}", "who": "anna <b>"}
    return reviews.send(desk.store, task="intent", version=version, text=text, **facts | changes)


def test_an_empty_queue_says_how_something_comes_into_it(bare):
    text = words(opened("Review queue"))
    assert "Nothing waits for a review" in text and "I disagree" in text


def test_an_open_review_is_shown_as_text_and_settled_with_a_reason(bare):
    review = sent(bare.desk, bare.version)
    at = opened("Review queue")
    inert(at)
    text = plain(at)
    assert "card 80 %" in text and "loan" in text and "anna <b>" in text and "onerror" in text
    at = at.button(key=f"agree-{review.id}").click().run()
    assert any("Say why" in e.value for e in at.error) and reviews.listed(bare.desk.store), "no decision without a reason"
    at.text_input(key=f"reason-{review.id}").set_value("clearly a loan")
    at = sound(at.button(key=f"agree-{review.id}").click().run())
    assert not reviews.listed(bare.desk.store)
    (done,) = reviews.listed(bare.desk.store, state="agreed")
    assert (done.who, done.note) == ("local user", "clearly a loan")
    settled = next(d.value for d in at.dataframe if "Decision" in d.value)
    assert settled["Decision"][0] == ["Agreed"] and settled["Reason"][0] == "clearly a loan" and "onerror" in settled["Text"][0]


def test_declining_and_a_review_that_somebody_else_settled(bare):
    first, second = sent(bare.desk, bare.version, "one"), sent(bare.desk, bare.version, "two")
    at = opened("Review queue")
    at.text_input(key=f"reason-{first.id}").set_value("the model is right")
    at = sound(at.button(key=f"decline-{first.id}").click().run())
    assert [r.text for r in reviews.listed(bare.desk.store, state="declined")] == ["one"]
    at.text_input(key=f"reason-{second.id}").set_value("too late")
    reviews.settle(bare.desk.store, second.id, state="agreed", who="ben", note="before you")
    at = at.button(key=f"agree-{second.id}").click().run()
    assert not at.exception
    assert reviews.listed(bare.desk.store, state="agreed")[0].who == "ben"


def test_a_long_queue_shows_its_beginning_and_more_on_request(bare):
    for i in range(12):
        sent(bare.desk, bare.version, f"text {i}")
    at = opened("Review queue")
    assert "text 9" in words(at) and "text 10" not in words(at)
    assert "text 11" in words(sound(press(at, "Show more (2)")))


def test_reviews_of_another_task_are_not_in_this_queue(bare):
    reviews.send(bare.desk.store, task="sentiment", version="v", text="another", predicted="positive", score=0.5, who="x")
    assert "Nothing waits for a review" in words(opened("Review queue"))
