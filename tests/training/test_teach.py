import json

import clusters
import numpy as np
import pytest

from fmcore.training.teach import CannotTeach, teach

EXAMPLES = ["dragon one", "a dragon", "dragon!", "the dragon flew", "my dragon"]


@pytest.fixture(scope="module")
def known():
    return clusters.fitted(test_is_publishers=False)[0]


@pytest.mark.parametrize("head", ["logistic", "ridge", "blend"])
def test_a_taught_intent_is_recognised_and_nothing_known_is_forgotten(head):
    known = clusters.fitted(head=head)[0]
    before = known.predict(["dragon here"])[0]
    taught = teach(known, "Dragon care", EXAMPLES)
    now = taught.classifier.predict(["dragon here", "balance", "refund"])
    assert [p.label for p in now] == ["Dragon_care", "balance", "refund"]
    assert now[0].novelty < before.novelty and not before.in_scope
    assert taught.report["after"]["value"] >= taught.report["before"]["value"] - 0.02 and taught.report["n_landed"] == 5
    assert known.predict(["dragon here"])[0] == before and "Dragon_care" not in known.labels  # undo is keeping the old one


def test_what_is_known_is_told_apart_exactly_as_before(known):
    taught = teach(known, "dragon", EXAMPLES).classifier
    vectors = known.heldout.embeddings
    assert np.allclose(taught.scale(vectors)[:, :-1], known.scale(vectors), atol=1e-3)


def test_the_report_says_what_it_cost_whom(known):
    thief = teach(known, "thief", ["card gone", "a card", "the card", "card card"]).report
    assert thief["before"]["n"] == 60 and thief["difference"]["value"] < 0
    assert thief["lost"][0]["label"] == "card_lost" and thief["lost"][0]["n"] > 0
    assert {row["predicted"] for row in thief["landing"]} <= {"card_lost", "thief"}
    assert thief["oos_before"]["n"] == thief["oos_after"]["n"] == 20
    json.dumps(thief, allow_nan=False)


def test_the_figures_rest_on_scores_that_never_saw_the_held_out_rows(known):
    assert known.heldout_seen.any() and not np.allclose(known.heldout_scores, known.scale(known.heldout.embeddings), atol=1e-4)
    told = np.array(known.labels, dtype=object)[known.heldout_scores.argmax(1)]
    assert list(told) == list(known.heldout_table["predicted"])
    untouched = teach(known, "dragon", EXAMPLES).report
    assert untouched["before"] == untouched["after"] and not untouched["lost"]


def test_a_taught_classifier_can_be_taught_again_saved_and_loaded(known, tmp_path):
    twice = teach(teach(known, "dragon", EXAMPLES).classifier, "void", ["oos here", "an oos", "oos there"]).classifier
    twice.save(tmp_path)
    again = type(twice).load_without_encoder(tmp_path, version="v2").with_embedder(clusters.embed)
    assert [p.label for p in again.predict(["dragon x", "oos y", "refund"])] == ["dragon", "void", "refund"]
    assert again.info["taught"] == ["dragon", "void"]


@pytest.mark.parametrize(
    ("name", "examples", "says"),
    [
        ("", EXAMPLES, "not a name"),
        ("\x00 ?", EXAMPLES, "not a name"),
        ("x" * 200, EXAMPLES, "not a name"),
        ("oos", EXAMPLES, "already"),
        ("Card Lost", EXAMPLES, "already"),
        ("dragon", [], "0 different examples"),
        ("dragon", ["", "  ", "?!"], "0 different examples"),
        ("dragon", ["a dragon", "A  Dragon", "a dragon"], "1 different examples"),
        ("dragon", [f"dragon {i}" for i in range(300)], "more than"),
    ],
)
def test_what_cannot_be_learnt_is_refused_with_what_to_do(known, name, examples, says):
    with pytest.raises(CannotTeach, match=says) as refused:
        teach(known, name, examples)
    assert refused.value.hint
