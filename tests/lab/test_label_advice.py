"""What is made of the answers: advice that names a cheaper method when nothing is shown to be better, and a winner that must earn it."""

from types import SimpleNamespace

import numpy as np
import pytest

from fmcore.lab import label_advice
from fmcore.lab.label_advice import Table
from fmcore.lab.label_methods import ALL

N = 400
USUAL = {"name": "most frequent label", "label": "neutral", "macro_f1": 0.25, "accuracy": {"value": 0.1, "low": 0.1, "high": 0.1, "n": N}}
DATA = SimpleNamespace(name="planted", synthetic=False)


def table(**methods):
    """method -> {shots: (accuracy, seconds)}; answers are right on the first rows, so that pairs are nested; three seeds, alike."""
    right, points = {}, []
    for name, curve in methods.items():
        for shots, (accuracy, seconds, *seeds) in curve.items():
            n = seeds[0] if seeds else 3
            right[name, shots] = np.repeat([np.arange(N) < accuracy * N], n, axis=0)
            points.append(SimpleNamespace(method=name, shots=shots, seconds=seconds, rss_mb=1.0, trainable=0 if name == "zero_shot" else 9, n=n))
    done = {(p.method, p.shots): [p] * p.n for p in points}
    cells = [{"method": p.method, "shots": p.shots, "macro_f1": 0.5} for p in points]
    return Table(label_advice.points(done, right, cells, resamples=300), right, resamples=300)


def test_a_cheap_method_is_advised_where_the_best_is_not_shown_to_be_better():
    found = label_advice.advice(table(frozen={8: (0.700, 4.0)}, full={8: (0.7025, 60.0)}), usual=USUAL)
    assert found[0]["method"] == "frozen" and found[0]["shots"] == 8
    said = found[0]["sentence"]
    assert said.startswith("With 8 examples per class use Frozen + linear: 0.70 (")
    assert "against 0.70 (" in said and "of Full tuning, which is not shown to be better and takes 60 s; it takes 4.0 s." in said


def test_the_best_is_advised_where_it_is_shown_to_be_better():
    found = label_advice.advice(table(frozen={1: (0.6, 4.0)}, full={1: (0.7, 60.0)}), usual=USUAL)
    assert found[0]["sentence"].startswith("With 1 example per class use Full tuning: 0.70 (")
    assert "of Frozen + linear, which is shown to be worse; it takes 60 s." in found[0]["sentence"]


def test_an_advice_that_is_no_better_than_always_saying_the_same_says_so():
    made, often = table(frozen={2: (0.55, 4.0)}), {**USUAL, "accuracy": {"value": 0.59}}
    assert "Always saying neutral is right on 0.59, with a macro F1 of 0.25 against 0.50." in label_advice.advice(made, usual=often)[0]["sentence"]
    assert "Always" not in label_advice.advice(made, usual=USUAL)[0]["sentence"]


def test_what_was_not_measured_is_named_where_it_is_missing():
    made = table(zero_shot={0: (0.3, 0.01, 1)}, frozen={2: (0.5, 4.0), 8: (0.6, 4.0)}, full={8: (0.8, 60.0)})
    found = label_advice.advice(made, usual=USUAL)
    assert ["Not measured there: Full tuning." in row["sentence"] for row in found] == [False, True, False]
    assert "Not every method was measured with 2 per class." in label_advice.sentence(made, found)


def test_what_needs_no_labels_competes_at_every_number_of_them():
    found = label_advice.advice(table(zero_shot={0: (0.62, 0.01, 1)}, frozen={1: (0.4, 1.0), 64: (0.8, 5.0)}), usual=USUAL)
    assert [(row["shots"], row["method"]) for row in found] == [(0, "zero_shot"), (1, "zero_shot"), (64, "frozen")]
    assert found[0]["sentence"].startswith("Without labels use Zero-shot") and "nothing is trained" in found[0]["sentence"]
    assert "needs no labels" in found[1]["sentence"] and "With 64 examples" in found[2]["sentence"]


def test_the_whole_is_one_sentence_of_ranges_and_says_whether_pretraining_pays():
    made = table(
        zero_shot={0: (0.5, 0.01, 1)}, frozen={2: (0.6, 1.0), 8: (0.8, 1.0), ALL: (0.85, 2.0, 1)}, scratch={8: (0.4, 9.0), ALL: (0.7, 30.0)},
        full={ALL: (0.95, 300.0)},
    )  # fmt: skip
    said = label_advice.sentence(made, label_advice.advice(made, usual=USUAL))
    assert "Not every method was measured with 2 per class, 8 per class." in said
    assert said.startswith("Use Zero-shot by descriptions with no labels, Frozen + linear from 2 per class to 8 per class, Full tuning with all labels.")
    assert "Pretraining pays: Frozen + linear with 8 per class (0.80) is shown to be better than the best from scratch that was measured, 0.70 with all labels." in said


def test_where_pretraining_does_not_pay_that_is_said():
    made = table(frozen={8: (0.4, 1.0)}, scratch={8: (0.7, 9.0)})
    assert "No pretrained encoder is shown to be better than the best from scratch that was measured" in label_advice.sentence(made, label_advice.advice(made, usual=USUAL))


def winner(made, present="full", at=ALL, data=DATA):
    return label_advice.winner(made, at=at, present=present, data=data)


def test_a_method_shown_to_be_better_wins_with_its_figures():
    found = winner(table(lora={ALL: (0.9, 300.0)}, full={ALL: (0.8, 300.0)}))
    assert found["clear"] and (found["method"], found["recipe"]) == ("lora", "lora")
    assert "LoRA is better than Full tuning with all labels of planted: 0.900 against 0.800, +10.0 points" in found["reason"]
    assert "3 seeds, 400 test rows" in found["reason"]


def test_one_as_good_at_half_the_cost_wins_and_at_nearly_the_cost_does_not():
    cheap = winner(table(frozen={ALL: (0.9, 4.0, 1)}, full={ALL: (0.9, 300.0)}))
    assert cheap["clear"] and cheap["recipe"] == "linear" and "as good as Full tuning" in cheap["reason"] and "4.0 s instead of 5 min" in cheap["reason"]
    assert not winner(table(lora={ALL: (0.9, 290.0)}, full={ALL: (0.9, 300.0)}))["clear"]


def test_one_that_may_be_worse_by_more_than_a_point_does_not_win_by_cost():
    shaky = table(frozen={ALL: (0.9, 4.0, 1)}, full={ALL: (0.9, 300.0)})
    shaky.right["frozen", ALL] = np.array([np.arange(N) >= 0.1 * N])
    found = winner(shaky)
    assert not found["clear"] and "not clearly ahead" in found["reason"]


@pytest.mark.parametrize("present", ["full", "", "contrast"])
def test_without_the_present_method_measured_nothing_changes(present):
    found = winner(table(frozen={ALL: (0.9, 4.0, 1)}), present=present)
    assert not found["clear"] and "was not measured" in found["reason"]


def test_one_lucky_seed_changes_nothing():
    found = winner(table(lora={ALL: (0.95, 300.0, 1)}, full={ALL: (0.8, 300.0)}))
    assert not found["clear"] and "Full tuning stays" in found["reason"]


def test_made_up_data_and_methods_that_no_job_trains_decide_nothing():
    made = table(lora={ALL: (0.9, 300.0)}, full={ALL: (0.8, 300.0)}, scratch={ALL: (0.99, 1.0)})
    assert winner(made)["method"] == "lora"
    found = winner(made, data=SimpleNamespace(name="demo", synthetic=True))
    assert not found["clear"] and "made up" in found["reason"]
