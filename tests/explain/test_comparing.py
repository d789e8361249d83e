"""What a second version changed: counted exactly, from stored answers where they are there, else by asking it."""

import pandas as pd
import pytest

from fmcore.data import catalogue
from fmcore.explain.comparing import NotComparable, flipped
from fmcore.models.registry import Registry, UnknownModel
from fmcore.serving.engine import Engine
from fmcore.store.store import Store
from fmcore.text import text_hash
from tests import toy_models

LABELS = toy_models.LABELS


@pytest.fixture
def engine(tmp_path):
    store = Store(tmp_path / "home")
    made = Engine(Registry(store), load=toy_models.load)
    yield made
    made.close()
    store.close()


@pytest.fixture
def file(tmp_path):
    rows = [(f"about my {label} number {i}{' and a few words more than that' * (i % 3)}", label) for label in LABELS for i in range(60)]
    rows += [(f"what weather number {i}", "oos") for i in range(20)]
    path = tmp_path / "mine.csv"
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(path, index=False)
    return path


def answered(file, *, wrong=(), other=(), refused=False) -> pd.DataFrame:
    """Stored answers to the file's test rows: right, but for the in-scope rows at `wrong` (next label) and `other` (the one after)."""
    test = catalogue.load(str(file)).test.sort_values(["label", "text"])
    places = {text: i for i, text in enumerate(test[test["label"] != "oos"]["text"])}
    rows = []
    for text, label in test[["text", "label"]].itertuples(index=False):
        if label == "oos":
            rows.append((text_hash(text), "oos", LABELS[0], not refused))
            continue
        step = 1 if places[text] in wrong else 2 if places[text] in other else 0
        rows.append((text_hash(text), label, LABELS[(LABELS.index(label) + step) % 3], True))
    frame = pd.DataFrame(rows, columns=["text_hash", "label", "predicted", "in_scope"])
    return frame.assign(score=0.8, novelty=0.0)


def adopt(engine, tmp_path, run_id, file, rows, labels=LABELS) -> str:
    facts = {**toy_models.metrics(), "params": {"dataset": str(file)}}
    return toy_models.adopt(engine.registry, tmp_path, run_id=run_id, dataset="mine", facts=facts, rows=rows, labels=labels).version


def test_flips_are_counted_exactly_and_come_with_their_text(engine, tmp_path, file):
    first = adopt(engine, tmp_path, "a", file, answered(file, wrong=[0, 1, 2, 3, 4]))
    second = adopt(engine, tmp_path, "b", file, answered(file, wrong=[3, 9], other=[4]))
    found = flipped(engine, "intent", first, second)
    assert found.rows["change"].value_counts().to_dict() == {"fixed": 3, "broken": 1, "changed": 1}
    test = catalogue.load(str(file)).test.sort_values(["label", "text"])
    inside = list(test[test["label"] != "oos"]["text"])
    by_text = found.rows.set_index("text")
    assert set(by_text.index) == {inside[i] for i in (0, 1, 2, 4, 9)}
    assert by_text.loc[inside[9]].tolist() == [LABELS[9 // 6], LABELS[9 // 6], LABELS[(9 // 6 + 1) % 3], "broken"]
    assert by_text.loc[inside[4]].tolist() == ["card", "loan", "rate", "changed"]
    assert found.n == len(test)
    assert "sets 3 right" in found.note and "breaks 1 " in found.note and "another way on 1" in found.note
    assert "Both sets of answers" in found.note


def test_slices_add_up_to_the_flips(engine, tmp_path, file):
    first = adopt(engine, tmp_path, "a", file, answered(file, wrong=range(4)))
    second = adopt(engine, tmp_path, "b", file, answered(file, wrong=[8, 9, 10]))
    found = flipped(engine, "intent", first, second)
    assert {"label", "length", "confidence"} <= set(found.slices["by"])
    for _, parts in found.slices.groupby("by"):
        assert parts[["n", "n_fixed", "n_broken"]].sum().tolist() == [found.n, 4, 3]
    assert found.slices.iloc[0][["n_fixed", "n_broken"]].tolist() == [0, 3]
    assert found.slices.set_index(["by", "slice"]).loc[("label", "card"), "n_fixed"] == 4


@pytest.mark.parametrize(
    ("n_fixed", "n_broken", "says"),
    [
        (6, 0, "better than chance would make it (sign test, p = 0.031)"),  # 2 / 2 ** 6
        (0, 7, "worse than chance would make it (sign test, p = 0.016)"),
        (5, 0, "no more than chance would make them (sign test, p = 0.062)"),
        (0, 0, "right on the same rows"),
    ],
)
def test_the_note_says_what_the_exact_sign_test_says(engine, tmp_path, file, n_fixed, n_broken, says):
    first = adopt(engine, tmp_path, "a", file, answered(file, wrong=range(n_fixed)))
    second = adopt(engine, tmp_path, "b", file, answered(file, wrong=range(10, 10 + n_broken)))
    assert says in flipped(engine, "intent", first, second).note


def test_a_row_out_of_scope_that_is_refused_now_is_set_right(engine, tmp_path, file):
    first = adopt(engine, tmp_path, "a", file, answered(file))
    second = adopt(engine, tmp_path, "b", file, answered(file, refused=True))
    found = flipped(engine, "intent", first, second)
    assert set(found.rows["change"]) == {"fixed"} and set(found.rows["second"]) == {"oos"} and len(found.rows) == 10
    assert "it refuses 10 that were taken, and takes 0" in found.note and "sets 0 right" in found.note


def test_rows_that_the_second_never_answered_are_asked_and_leave_no_trace_in_the_log(engine, tmp_path, file):
    first = adopt(engine, tmp_path, "a", file, answered(file, wrong=[0, 1]))
    some = answered(file, wrong=[2]).sample(frac=0.5, random_state=0)
    second = adopt(engine, tmp_path, "b", file, some)
    found = flipped(engine, "intent", first, second)
    # the toy reads the label off the text, so what was asked is right; "weather" is refused
    inside = found.rows[found.rows["label"] != "oos"]
    in_store = set(some[(some["label"] != some["predicted"]) & (some["label"] != "oos")]["text_hash"])
    assert (inside["change"] == "fixed").sum() == 2
    assert {text_hash(t) for t in inside[inside["change"] == "broken"]["text"]} == in_store
    assert "was asked now" in found.note
    engine.flush()
    assert engine.registry.store.rows("SELECT count(*) AS n FROM predictions")[0]["n"] == 0


def test_it_says_when_the_second_may_have_learnt_from_the_rows_it_is_asked(engine, tmp_path, file):
    first = adopt(engine, tmp_path, "a", file, answered(file, wrong=[0]))
    data = catalogue.load(str(file))
    other = tmp_path / "other.csv"  # 200 rows more of each label: another split, most of the first's test rows teach now
    more = [(f"my {label} again {i}", label) for label in LABELS for i in range(200)]
    pd.concat([pd.read_csv(file), pd.DataFrame(more, columns=["text", "label"])]).to_csv(other, index=False)
    theirs = catalogue.load(str(other))
    learnt = set(theirs.train["text"]) | set(theirs.validation["text"])
    second = adopt(engine, tmp_path, "b", other, answered(other))
    n = len(learnt & set(data.test["text"]))
    assert n > 0 and f"{n} of those stand among the rows it may have learnt from" in flipped(engine, "intent", first, second).note
    third = adopt(engine, tmp_path, "c", other, answered(other))
    other.unlink()
    assert "whether it has learnt from them cannot be told" in flipped(engine, "intent", first, third).note


def test_a_comparison_is_remembered(engine, tmp_path, file):
    first, second = (adopt(engine, tmp_path, name, file, answered(file)) for name in "ab")
    found = flipped(engine, "intent", first, second)
    file.unlink()
    assert flipped(engine, "intent", first, second) is found
    with pytest.raises(NotComparable):
        flipped(engine, "intent", second, first)


def test_what_cannot_be_compared_is_said_in_words(engine, tmp_path, file):
    first = adopt(engine, tmp_path, "a", file, answered(file))
    other = adopt(engine, tmp_path, "b", file, answered(file), labels=("card", "loan", "visa", "rate"))
    with pytest.raises(NotComparable, match="3 labels and .* 4; 3 are the same"):
        flipped(engine, "intent", first, other)
    with pytest.raises(NotComparable, match="itself"):
        flipped(engine, "intent", first, first)
    with pytest.raises(UnknownModel):
        flipped(engine, "intent", first, "nonesuch")
    second = adopt(engine, tmp_path, "c", file, answered(file))
    file.unlink()
    with pytest.raises(NotComparable) as raised:
        flipped(engine, "intent", first, second)
    assert first in str(raised.value) and raised.value.hint
