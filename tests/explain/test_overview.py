"""The global view: words with support and interval, confusions, slices; on scoring functions whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from fmcore.data import catalogue
from fmcore.explain import overview, slices
from fmcore.explain.heldout import Held
from fmcore.explain.overview import Sampling, look
from fmcore.nouns import Cancelled
from fmcore.store.store import Store
from tests.explain.known_model import held_rows

LABELS = ("no", "yes")
FILLER = ["please", "today", "again", "with", "about", "still", "help", "now"]


def scorer(weights: dict[str, float], counted: list[int] | None = None):
    """P(yes) is the logistic function of the summed weights of a text's words, as they are spelt."""

    def score(texts):
        if counted is not None:
            counted[0] += len(texts)
        logits = np.array([sum(weights.get(word, 0.0) for word in text.split()) for text in texts])
        yes = 1 / (1 + np.exp(-logits))
        return np.column_stack([1 - yes, yes])

    return score


def held(texts, labels, predicted, **facts) -> Held:
    return Held(held_rows(texts, labels, predicted, score=facts.pop("score", None)), "mine", False, **facts)


def told(score, rows: Held, **options):
    return look(score, LABELS, rows, task="intent", version="v", sampling=Sampling(**{"n_texts": len(rows.rows), "budget": 24, **options}))


def planted(n=60, seed=0) -> Held:
    """Every "yes" text holds "Refund!" in some spelling, two hold "unique" too; "no" texts hold neither."""
    chance = np.random.default_rng(seed)
    spelt = ["refund", "Refund", "refund!", "(REFUND)"]
    texts = [" ".join([*chance.choice(FILLER, 4, replace=False), str(i), spelt[i % 4] if i % 2 else "nothing"]) for i in range(n)]
    texts[1], texts[3] = texts[1] + " unique", texts[3] + " unique"
    labels = ["yes" if i % 2 else "no" for i in range(n)]
    return held(texts, labels, labels)


WEIGHTS = {"refund": 2.0, "Refund": 2.5, "refund!": 3.0, "(REFUND)": 1.5, "unique": 9.0}


def test_a_planted_word_comes_first_with_its_support_and_an_interval_that_leaves_zero_out():
    found = told(scorer(WEIGHTS), planted()).words
    yes = found[found["label"] == "yes"]
    first = yes.iloc[0]
    assert (first["word"], first["n"], first["sure"]) == ("refund", 30, True)
    assert 0.2 < first["low"] < first["mean"] < first["high"] < 0.5
    assert not yes.iloc[1:]["sure"].any()


def test_a_word_of_two_texts_is_not_listed_however_strong_it_is():
    found = told(scorer(WEIGHTS), planted())
    assert "unique" not in set(found.words["word"])
    assert found.words["n"].min() >= found.support == overview.SUPPORT
    assert any(f"from {overview.SUPPORT} texts" in note for note in found.notes)


def test_words_whose_effects_are_chance_are_next_to_never_called_sure():
    n_sure = n_apart = n_listed = 0
    for seed in range(5):
        chance = np.random.default_rng(seed)
        names = [f"word{i}" for i in range(40)]
        texts = [" ".join(f"{w}{chance.choice(['.', ','])}" for w in chance.choice(names, 6, replace=False)) for _ in range(80)]
        weights = {f"{w}{mark}": sign * 0.3 for w in names for mark, sign in ((".", 1), (",", -1))}
        found = told(scorer(weights), held(texts, ["yes"] * 80, ["yes"] * 80)).words
        n_sure, n_listed = n_sure + int(found["sure"].sum()), n_listed + len(found)
        n_apart += int(((found["low"] > 0) | (found["high"] < 0)).sum())
    assert n_listed >= 150
    assert n_sure <= 2
    assert n_apart <= 0.1 * n_listed  # the intervals hold the truth, 0, about as often as they say


def test_confusions_count_every_row_and_name_the_word_that_drove_them():
    good = planted(120)
    texts = [f"{' '.join(FILLER[:3])} case {i} tricky {'again' if i % 2 else 'now'}" for i in range(7)]
    rows = pd.concat([good.rows, held_rows(texts, ["no"] * 7, ["yes"] * 7)], ignore_index=True)
    found = told(scorer({**WEIGHTS, "tricky": 3.0}), Held(rows, "mine", False), n_texts=12).confusions
    assert found[["label", "predicted", "n"]].to_numpy().tolist() == [["no", "yes", 7]]
    word, mean = found["words"][0][0]
    assert word == "tricky" and 0.3 < mean < 0.6
    assert 4 <= found["n_explained"][0] <= 7


def test_a_word_that_stands_in_one_text_only_is_never_kept():
    texts = ["my name is Quorx refund", *[f"refund please {i}" for i in range(9)]]
    found = told(scorer({"refund": 2.0, "Quorx": 3.0}), held(texts, ["no"] * 10, ["yes"] * 10))
    assert "quorx" not in overview.as_json(found).casefold() and "refund" in overview.as_json(found)


def test_rows_out_of_scope_count_as_confused_when_they_are_taken_for_in_scope():
    rows = planted(40)
    outside = held_rows([f"what weather {i}" for i in range(5)], ["oos"] * 5, ["yes"] * 5).assign(in_scope=[True, True, False, False, False])
    found = told(scorer(WEIGHTS), Held(pd.concat([rows.rows, outside], ignore_index=True), "mine", False))
    assert found.confusions[["label", "predicted", "n"]].to_numpy().tolist() == [["oos", "yes", 2]]
    assert (found.n_rows, found.n_right) == (40, 40)
    assert any("2 of 5 rows out of scope" in note for note in found.notes)


def test_texts_are_drawn_evenly_over_the_labels_and_cost_what_was_allowed():
    texts = [f"{FILLER[i % 8]} {i} {FILLER[(i + 3) % 8]} {FILLER[(i + 5) % 8]} refund" for i in range(200)]
    labels = ["yes" if i < 20 else "no" for i in range(200)]
    calls = [0]
    found = told(scorer({"refund": 1.0}, calls), held(texts, labels, labels), n_texts=40)
    n = found.words[found.words["word"] == "refund"].set_index("label")["n"]
    assert n.to_dict() == {"no": 20, "yes": 20}
    assert found.n_texts == 40 and found.n_calls == calls[0] <= 40 * 24


def test_the_words_of_long_chinese_empty_and_hostile_texts_are_counted_too():
    long = " ".join(f"w{i}" for i in range(70)) + " refund"
    texts = [long, "", "...", "\u6211\u60f3\u9000\u6b3e\u8c22\u8c22", "<b>refund</b>", " ".join(["x"] * 2000), *[f"refund {i}" for i in range(6)]]
    found = told(scorer({"refund": 2.0}), held(texts, ["yes"] * 12, ["yes"] * 12))
    refund = found.words.set_index("word").loc["refund"]
    assert refund["n"] == 7 and refund["sure"]  # the long text's last word stayed apart: it may take more calls
    assert any("explained together, which are not counted: 1." in note for note in found.notes)


def test_two_looks_under_one_seed_are_the_same():
    first, again = (told(scorer(WEIGHTS), planted()) for _ in range(2))
    pd.testing.assert_frame_equal(first.words, again.words)
    assert first.confusions.equals(again.confusions)


def test_a_stop_between_two_texts_ends_it():
    seen = []

    def progress(fraction, message):
        seen.append(fraction)
        if len(seen) == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        look(scorer(WEIGHTS), LABELS, planted(), task="intent", version="v", progress=progress)
    assert len(seen) == 4 and seen == sorted(seen)


# --- slices


def noisy(seed, *, n=600, weak=""):
    chance = np.random.default_rng(seed)
    texts = [f"{'long winded and rather wordy ' * int(chance.integers(0, 4))}text {i}" for i in range(n)]
    labels = chance.choice(["no", "yes", "maybe", "later", "never"], n)
    topics = chance.choice(["Dividend", "Macro", "Earnings", "Other"], n)
    right = chance.random(n) < np.where(topics == weak, 0.65, 0.85)
    predicted = np.where(right, labels, np.where(labels == "no", "yes", "no"))
    rows = Held(held_rows(texts, labels, predicted, score=chance.uniform(0.3, 1, n)), "mine", False)
    return slices.measured(rows.rows["label"] == rows.rows["predicted"], rows.rows["score"], slices.cuts(rows, topics=topics))


def test_a_planted_weak_slice_is_found_and_shown_first():
    hit = 0
    for seed in range(10):
        table = noisy(seed, weak="Dividend")
        first = table.iloc[0]
        hit += (first["by"], first["slice"]) == ("topic", "Dividend") and bool(first["weak"])
        assert first["low"] <= first["accuracy"] <= first["high"]
    assert hit >= 9


def test_on_pure_noise_no_slice_is_called_weak_in_most_seeds():
    assert sum(not noisy(seed)["weak"].any() for seed in range(20)) >= 18


def test_a_slice_says_how_it_differs_from_the_rest():
    right = pd.Series([True] * 40 + [False] * 10 + [True] * 50)
    by = {"part": pd.Series(["a"] * 50 + ["b"] * 45 + [None] * 5)}
    table = slices.measured(right, pd.Series(0.7, index=right.index), by).set_index("slice")
    assert table.loc["a", ["n", "n_right", "accuracy", "rest"]].tolist() == [50, 40, 0.8, 1.0]
    # Wilson for 40 of 50, and Newcombe's method 10 against 50 of 50, by hand
    assert table.loc["a", ["low", "high"]].to_numpy(float) == pytest.approx([0.6696, 0.8876], abs=1e-4)
    assert table.loc["a", ["difference_low", "difference_high"]].to_numpy(float) == pytest.approx([-0.3304, -0.0871], abs=1e-4)
    assert table["weak"].to_dict() == {"a": True, "b": False}


def test_small_slices_are_left_out():
    right = pd.Series([True, False] * 30)
    by = {"part": pd.Series(["tiny"] * 9 + ["big"] * 51)}
    assert slices.measured(right, pd.Series(0.5, index=right.index), by).empty


def test_slices_by_length_and_confidence_cover_every_row():
    rows = planted(60)
    for parts in slices.cuts(rows).values():
        assert parts.notna().all() and len(parts) == 60
    names = list(slices.confidences(pd.Series([0.1, 0.5, 0.79, 0.8, 0.95, 1.0])))
    assert names == ["below 0.5", "0.5 to 0.8", "0.5 to 0.8", "0.8 to 0.95", "0.95 or more", "0.95 or more"]
    assert set(slices.lengths(pd.Series(["", "one", "one two", "one two three"]))) == {
        "short: up to 1 word", "medium: 2 to 2 words", "long: more than 2 words"
    }  # fmt: skip


def test_real_data_sets_have_their_annotators_and_domains_as_slices(public_data):
    for name, by, expected in (("financial_phrasebank", "annotators", 4), ("clinc150", "domain", 10)):
        data = catalogue.load(name)
        rows = held_rows(data.test["text"], data.test["label"], data.test["label"])
        parts = slices.cuts(Held(rows, name, False, data.domains, data.tiers))[by]
        assert parts.dropna().nunique() == expected and parts.value_counts().min() >= slices.LEAST
        assert parts[rows["label"] != "oos"].notna().all()


# --- stored


def test_an_overview_is_stored_once_a_run_and_the_last_one_of_a_version_holds(tmp_path):
    store = Store(tmp_path / "home")
    first = told(scorer(WEIGHTS), planted())
    second = told(scorer(WEIGHTS), planted(seed=1))
    try:
        assert overview.latest(store, "intent", "v") is None
        overview.save(store, first, run_id="a")
        overview.save(store, first, run_id="a")
        assert store.rows("SELECT count(*) AS n FROM overviews")[0]["n"] == 1
        pd.testing.assert_frame_equal(overview.latest(store, "intent", "v").words, first.words)
        overview.save(store, second, run_id="b")
        back = overview.latest(store, "intent", "v")
        assert overview.latest(store, "intent", "other") is None and overview.latest(store, "topic", "v") is None
    finally:
        store.close()
    for name in ("words", "confusions", "slices"):
        pd.testing.assert_frame_equal(getattr(back, name), getattr(second, name), check_dtype=False)
    for name in ("n_texts", "n_rows", "n_right", "n_calls", "method", "budget", "notes", "made_at", "dataset", "synthetic", "support"):
        assert getattr(back, name) == getattr(second, name)


def test_a_version_without_supported_words_or_slices_is_stored_all_the_same(tmp_path):
    store = Store(tmp_path / "home")
    few = told(scorer(WEIGHTS), held(["refund please", "nothing"], ["yes", "no"], ["yes", "no"]))
    overview.save(store, few, run_id="a")
    back = overview.latest(store, "intent", "v")
    store.close()
    assert len(back.words) == len(back.slices) == len(back.confusions) == 0
    assert list(back.words.columns) == list(overview.WORD_COLUMNS)
    assert any("stands in 5 of their texts: 2." in note for note in back.notes)
