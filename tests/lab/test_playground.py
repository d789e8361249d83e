"""The playground: checkpoints side by side, whatever the text; one that is broken does not silence the others."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.lab import playground
from fmcore.lab.playground import MASK, UnknownCheckpoint
from fmcore.models import bases, fill_mask, masked_lm
from fmcore.models.fill_mask import Filled, NothingToFill
from tests.lab import toy_bases

TEXT = f"My new card has not {MASK} yet."


@pytest.fixture
def home(tmp_path):
    toy_bases.shelve(tmp_path / "home", tmp_path)
    return tmp_path / "home"


def test_every_checkpoint_of_every_base_can_be_chosen_and_one_without_a_head_cannot(home, tmp_path):
    toy_bases.shelve(home, tmp_path, name="vectors", objective="simcse", start="continue", steps=())
    there = playground.choices(home)
    assert [choice.key for choice in there] == ["finance@0", "finance@40", "finance@80"]
    assert [choice.title for choice in there] == ["finance, before training", "finance, step 40 of 80", "finance, step 80, the end"]
    assert playground.usual(there) == ["finance@0", "finance@40", "finance@80"]
    assert playground.usual([]) == []
    assert playground.choices(tmp_path / "nowhere") == []


def test_side_by_side_the_likeliest_word_gets_surer_with_training(home):
    before, middle, after = playground.side_by_side(home, TEXT, ["finance@0", "finance@40", "finance@80"], 10)
    assert after.filled[0].words[0] == "arrived"
    shares = [playground.rank(side.filled[0], "ARRIVED") for side in (before, middle, after)]
    assert shares[1][1] < shares[2][1] and shares[2][0] == 1
    assert before.filled[0].entropy > middle.filled[0].entropy > after.filled[0].entropy
    assert before.filled[0].entropy == pytest.approx(np.log2(len(toy_bases.VOCABULARY) - 5), abs=0.05), "before training it knows nothing"
    assert playground.rank(after.filled[0], "zebra") is None


def test_masks_beyond_what_a_checkpoint_reads_are_counted(home):
    side = playground.side_by_side(home, f"{MASK} {'card ' * 40} {MASK}", ["finance@80"])[0]
    assert len(side.filled) == 1
    assert "1 of the 2 masks lie beyond" in side.note
    unread = playground.side_by_side(home, f"{'card ' * 40} {MASK}", ["finance@80"])[0]
    assert unread.filled == () and isinstance(unread.error, NothingToFill)


def test_twenty_masks_are_filled_and_twenty_one_are_refused(home):
    assert len(playground.side_by_side(home, " ".join([MASK] * 20), ["finance@80"])[0].filled) == 20
    with pytest.raises(NothingToFill, match="21 masks"):
        playground.side_by_side(home, MASK * 21, ["finance@80"])
    with pytest.raises(NothingToFill, match="no mask"):
        playground.side_by_side(home, "nothing hidden", ["finance@80"])


def test_a_checkpoint_that_is_gone_is_named_and_a_damaged_one_leaves_the_others_alone(home, caplog):
    with pytest.raises(UnknownCheckpoint, match="finance@7"):
        playground.side_by_side(home, TEXT, ["finance@7"])
    for name in ("fill_mask.onnx", "tokenizer.json"):
        (bases.get(home, "finance").path / "fills" / "40" / name).write_bytes(b"not a model")
    with caplog.at_level(logging.ERROR):
        broken, sound = playground.side_by_side(home, TEXT, ["finance@40", "finance@80"])
    assert broken.error is not None and not broken.filled
    assert sound.error is None and sound.filled


def test_the_model_of_explanations_answers_among_its_own_words(home, monkeypatch):
    class Model:
        words = ["arrived", "gone"]
        about = {"made_at": "2026-11-24T10:00:00+00:00", "steps": 7}
        asked = []

        def around(self, left, right):
            self.asked.append((left, right))
            return [2, 4, 3], 1

        def scores(self, rows):
            return np.array([[2.0, 0.0]] * len(rows), np.float32)

    model = Model()
    monkeypatch.setattr(masked_lm, "load", lambda _home: model)
    assert playground.choices(home)[-1].title == "words for explanations"
    side = playground.side_by_side(home, f"a {MASK} b {MASK}", [playground.SERVES_EXPLANATIONS])[0]
    assert [filled.words[0] for filled in side.filled] == ["arrived", "arrived"]
    assert side.filled[0].probabilities[0] == pytest.approx(np.exp(2) / (np.exp(2) + 1))
    assert model.asked == [("a ", f" b {MASK}"), (f"a {MASK} b ", "")], "the other mask stays one"
    assert "2 whole words" in side.note


@pytest.mark.parametrize(("text", "found"), [
    ("Shares fell, again!", ["Shares", "fell", "again"]),
    (f"a {MASK} b", ["a", "b"]),
    ("... --- !!!", []),
    ("", []),
])  # fmt: skip
def test_words_can_be_hidden_without_their_punctuation(text, found):
    assert [text[a:b] for a, b in playground.maskable(text, most=50)] == found


def test_what_is_hidden_stands_where_the_word_stood():
    text = "Shares fell, again!"
    spans = playground.maskable(text, most=50)
    assert playground.hidden(text, [spans[1]]) == f"Shares {MASK}, again!"
    assert playground.parts(playground.hidden(text, spans)) == ["", " ", ", ", "!"]


@settings(deadline=None)  # the first Chinese word loads a dictionary
@given(st.text(max_size=200), st.data())
def test_any_text_can_be_taken_apart_and_hidden(text, data):
    spans = playground.maskable(text, most=30)
    assert spans == sorted(spans) and all(a < b for a, b in spans)
    chosen = data.draw(st.lists(st.sampled_from(spans), unique=True)) if spans else []
    asked = playground.hidden(text, chosen)
    assert asked.count(MASK) >= len(chosen)
    assert len(playground.parts(asked)) == asked.count(MASK) + 1


def test_a_rank_is_told_whatever_the_case():
    filled = Filled(0, ("Fell", "rose"), (0.6, 0.4), 0.97)
    assert playground.rank(filled, "fell") == (1, 0.6)
    assert playground.rank(filled, "ROSE") == (2, 0.4)
    assert fill_mask.MOST_MASKS == 20
