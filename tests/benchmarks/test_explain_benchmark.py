"""The benchmark of explanations measures what it says: its curves, its bins, its peers and its yardstick on models known in full."""

import types

import numpy as np
import pytest

from benchmarks import explain, explain_peers
from fmcore.explain import words

WEIGHTS = {"stolen": 0.4, "card": 0.3, "my": 0.0, "was": -0.1, "abroad": 0.2}
TEXT = "my stolen card was abroad"
TARGET = np.array([0.0, 1.0])


def additive(texts):
    """The score of label 1 is 0.15 and what each word adds."""
    score = np.array([0.15 + sum(WEIGHTS[word] for word in text.split()) for text in texts])
    return np.stack([1 - score, score], axis=1)


def values():
    return np.array([WEIGHTS[word] for word in TEXT.split()])


def test_drops_are_those_of_the_strongest_words_gone_and_left_alone():
    without, alone = explain.drops(additive, words.split(TEXT), values(), TARGET)
    assert without == pytest.approx([0, 0.4, 0.7, 0.9, 0.9, 0.8])
    assert alone == pytest.approx([0.8, 0.4, 0.1, -0.1, -0.1, 0])


def test_the_three_roundings_of_erasers_bins():
    curve = np.arange(13.0)  # 12 words: 5, 10, 20 and 50 % are 0.6, 1.2, 2.4 and 6 of them
    assert explain.eraser(curve, "ceil") == pytest.approx(np.mean([1, 2, 3, 6]))
    assert explain.eraser(curve, "round, at least 1") == pytest.approx(np.mean([1, 1, 2, 6]))
    assert explain.eraser(curve, "floor, at least 1") == pytest.approx(np.mean([1, 1, 2, 6]))
    assert explain.eraser(np.arange(2.0), "ceil") == 1.0


def test_a_method_is_judged_on_every_text_with_its_interval():
    right = explain.judged(additive, words.split, [TEXT, "stolen card abroad"], explain.ours(additive, "fast", 40), deletion=True)
    wrong = explain.judged(additive, words.split, [TEXT, "stolen card abroad"], explain.at_random(additive))
    assert right["comprehensiveness ceil"]["value"] > wrong["comprehensiveness ceil"]["value"]
    assert right["sufficiency ceil"]["value"] < wrong["sufficiency ceil"]["value"]
    assert right["comprehensiveness ceil"]["n"] == 2 and right["deletion_beats_random"]["value"] == 1.0
    assert right["most_calls"] <= 40 and right["largest_additivity_error"] < 1e-9


@pytest.mark.slow
def test_the_peers_find_what_words_add_and_count_their_calls():
    pieces = words.split(TEXT)
    partition = explain_peers.partition(additive, pieces, TARGET, budget=100)
    kernel = explain_peers.kernel_shap(additive, pieces, TARGET, budget=30, seed=0)
    for found in (partition, kernel):
        assert found.values == pytest.approx(values(), abs=1e-6) and found.additivity_error < 1e-6
        assert found.score == pytest.approx(0.95) and 0 < found.n_calls <= 100
    assert kernel.n_calls <= 32, "30 subsets, and shap's own look at all and none"
    state = np.random.get_state()[1].tolist()
    explain_peers.kernel_shap(additive, pieces, TARGET, budget=30, seed=0)
    assert np.random.get_state()[1].tolist() == state, "NumPy's global state is as it was"


def test_a_pipelines_tokens_are_added_up_to_whole_words():
    tokens = ["", "my ", "sto", "len ", "card", "? ", ""]
    found = types.SimpleNamespace(
        data=[np.array(tokens)],
        values=np.array([[[0, v] for v in (0.0, 0.1, 0.2, 0.3, 0.4, 0.05, 0.0)]]),
        base_values=np.array([[0.9, 0.1]]),
    )
    hook = types.SimpleNamespace(remove=lambda: None)
    pipe = types.SimpleNamespace(model=types.SimpleNamespace(register_forward_hook=lambda _: hook))
    made = explain_peers.shap_pipeline(lambda *_, **__: found, pipe, words.split("my stolen card? "), TARGET)
    assert made.values == pytest.approx([0.1, 0.5, 0.45]) and made.base_value == pytest.approx(0.1)
    with pytest.raises(ValueError, match="do not make up the text"):
        explain_peers.shap_pipeline(lambda *_, **__: found, pipe, words.split("another text"), TARGET)
