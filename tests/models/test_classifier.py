import json
import subprocess
import sys

import clusters
import numpy as np
import pytest

from fmcore.evaluation.metrics import OOS
from fmcore.models.classifier import BadModel, Classifier, Rows
from fmcore.models.fitting import NotEnoughRows, fit_classifier
from fmcore.models.heads import RidgeSums, fit_kernel, fit_logistic, make_projection, random_features

STRANGE = ["", "   ", "\x00", "a" * 1_000_000, "😀" * 50, "مرحبا كيف حالك", "\ud800 lone", "line\nbreak", None, float("nan"), 7]


@pytest.fixture(scope="module")
def model():
    return clusters.fitted()


def test_the_right_cluster_comes_first_with_probabilities_that_sum_to_one(model):
    for label in clusters.LABELS:
        prediction = model[0].predict([f"{label.split('_')[0]} please"])[0]
        assert prediction.label == label and prediction.in_scope
        assert sum(prediction.scores.values()) == pytest.approx(1)
        assert list(prediction.scores.values()) == sorted(prediction.scores.values(), reverse=True)
        assert prediction.label in prediction.candidates and prediction.version == "v1"


def test_a_text_from_nowhere_is_out_of_scope_and_the_reason_has_numbers(model):
    prediction = model[0].predict(["oos thing"])[0]
    assert not prediction.in_scope and prediction.novelty > prediction.threshold
    assert f"{prediction.novelty:.1f}" in prediction.reason and prediction.reason.startswith("Out of scope")


@pytest.mark.parametrize("text", STRANGE, ids=lambda t: repr(t)[:12])
def test_any_text_is_answered(model, text):
    prediction = model[0].predict([text])[0]
    assert np.isfinite(prediction.novelty) and 0 <= prediction.score <= 1


def test_a_text_without_words_is_never_in_scope(model):
    for text in ("", "?!", "\x00", "😀"):
        prediction = model[0].predict([text])[0]
        assert not prediction.in_scope and "no words" in prediction.reason and prediction.novelty > prediction.threshold


def test_no_texts_give_no_predictions(model):
    assert model[0].predict([]) == []


def test_the_metrics_are_json_without_nan_and_what_the_clusters_promise(model):
    metrics = json.loads(json.dumps(model[1], allow_nan=False))
    assert metrics["accuracy"]["value"] > 0.98 and metrics["oos"]["auroc"]["value"] > 0.98
    assert metrics["n_train"] == 80 and metrics["n_test"] == 80 and metrics["oos"]["n"] == 20
    assert metrics["ece"]["value"] < 0.1 and metrics["head"]["tried"]
    assert metrics["coverage"]["measured"]["value"] >= metrics["coverage"]["target"] - 0.1


def test_saved_and_loaded_it_says_the_same(model, tmp_path):
    model[0].save(tmp_path)
    again = Classifier.load_without_encoder(tmp_path, version="v1").with_embedder(clusters.embed)
    texts = ["refund now", "oos", "greeting", "x"]
    assert again.predict(texts) == model[0].predict(texts)
    assert not list(tmp_path.glob("*.p*kl")) and again.labels == clusters.LABELS
    assert list(again.heldout_table["predicted"]) == list(model[0].heldout_table["predicted"])
    assert list(again.heldout.labels) == list(model[0].heldout.labels)


@pytest.mark.parametrize("name", ["model.json", "head.safetensors", "novelty.safetensors", "reference.safetensors", "heldout.parquet"])
@pytest.mark.parametrize("harm", ["missing", "truncated", "garbage"])
def test_a_damaged_folder_is_refused_with_a_sentence(model, tmp_path, name, harm):
    model[0].save(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink() if harm == "missing" else path.write_bytes(content[: len(content) // 2] if harm == "truncated" else b"\x80\x04garbage")
    with pytest.raises(BadModel) as refused:
        Classifier.load_without_encoder(tmp_path, version="v1")
    assert refused.value.hint


def test_a_head_with_numbers_that_are_not_finite_is_refused(model, tmp_path):
    from safetensors.numpy import load_file, save_file

    model[0].save(tmp_path)
    arrays = load_file(tmp_path / "head.safetensors")
    name = next(iter(arrays))
    arrays[name] = np.full_like(arrays[name], np.nan)
    save_file(arrays, tmp_path / "head.safetensors")
    with pytest.raises(BadModel, match="not finite"):
        Classifier.load_without_encoder(tmp_path, version="v1")


def test_loading_and_predicting_import_no_torch(model, tmp_path):
    model[0].save(tmp_path)
    code = f"""
import sys
from pathlib import Path
from fmcore.models.classifier import Classifier
c = Classifier.load_without_encoder(Path({str(tmp_path)!r}), version="v")
c.decide(c.heldout.embeddings)
sys.exit("torch" in sys.modules or "sklearn" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_refit_learns_from_test_rows_only_when_they_are_not_the_publishers():
    publishers, metrics = clusters.fitted()
    assert len(publishers.reference) == 140 and not publishers.heldout_seen.any() and metrics["n_shipped"] == 140
    own, metrics = clusters.fitted(test_is_publishers=False)
    assert len(own.reference) == 200 and own.heldout_seen.sum() == 60 and "refitted on the test rows too" in metrics["refit"]
    assert metrics["accuracy"] == clusters.fitted()[1]["accuracy"]  # the figures are those from before
    assert OOS not in set(own.reference.labels)


@pytest.mark.parametrize("head", ["logistic", "ridge", "blend"])
def test_each_head_can_be_asked_for_and_is_calibrated(head):
    model, metrics = clusters.fitted(head=head)
    assert metrics["head"]["chosen"] in (head, "kernel" if head == "ridge" else head)
    assert metrics["accuracy"]["value"] > 0.98 and metrics["ece"]["value"] < 0.1


def test_fits_that_cannot_be_made_say_why():
    train, validation, test = clusters.rows(5, seed=1), clusters.rows(5, seed=2), clusters.rows(5, seed=3)
    only = train.labels == clusters.LABELS[0]
    one = Rows(train.embeddings[only], train.labels[only])
    nothing = Rows(train.embeddings[:0], train.labels[:0])
    broken = Rows(np.full_like(train.embeddings, np.nan), train.labels)
    for bad in ((one, validation, test), (train, nothing, test), (train, validation, nothing), (broken, validation, test)):
        with pytest.raises(NotEnoughRows):
            fit_classifier(*bad, options=clusters.OPTIONS, info={"max_tokens": 8})
    with pytest.raises(NotEnoughRows, match="oos"):
        fit_classifier(clusters.rows(5, seed=1, n_oos=3), validation, test, options=clusters.OPTIONS, info={"max_tokens": 8})


def test_streaming_ridge_is_exactly_the_ridge_on_all_rows_and_can_forget():
    train, extra = clusters.rows(30, seed=1), clusters.rows(10, seed=5)
    classes, more = (np.array([clusters.LABELS.index(x) for x in r.labels]) for r in (train, extra))
    projection = make_projection(clusters.DIM, 64, seed=0)
    streamed = RidgeSums(projection, n_classes=4)
    for start in range(0, len(train), 7):
        streamed.add(train.embeddings[start : start + 7], classes[start : start + 7])
    features = random_features(train.embeddings, projection).astype(np.float64)
    exact = np.linalg.solve(features.T @ features + 3 * np.eye(64), features.T @ np.eye(4)[classes])
    assert np.allclose(streamed.solve(3.0).arrays["weights"], exact, atol=1e-3)
    before = streamed.solve(3.0).arrays["weights"]
    streamed.add(extra.embeddings, more)
    assert not np.allclose(streamed.solve(3.0).arrays["weights"], before, atol=1e-3)
    streamed.subtract(extra.embeddings, more)
    assert np.allclose(streamed.solve(3.0).arrays["weights"], before, atol=1e-3)


def test_the_logistic_head_is_scikit_learns_and_a_warm_start_changes_nothing():
    from sklearn.linear_model import LogisticRegression

    train, test = clusters.rows(20, seed=1, noise=0.5), clusters.rows(20, seed=2, noise=0.5)
    classes = np.array([clusters.LABELS.index(x) for x in train.labels])
    peer = LogisticRegression(C=10, tol=1e-8, max_iter=5000).fit(train.embeddings, classes)
    cold = fit_logistic(train.embeddings, classes, n_classes=4)
    warm = fit_logistic(train.embeddings, classes, n_classes=4, start=fit_logistic(train.embeddings[:60], classes[:60], n_classes=4))
    expected = peer.decision_function(test.embeddings)
    for head in (cold, warm):
        assert np.abs(head.scores(test.embeddings) - head.scores(test.embeddings).mean(1, keepdims=True) - expected).max() < 0.1
    kernel = fit_kernel(train.embeddings, classes, n_classes=4, penalty=0.1)
    assert (kernel.scores(train.embeddings).argmax(1) == classes).mean() > 0.9


def test_a_row_that_counts_three_times_is_three_rows():
    train = clusters.rows(6, seed=1, noise=0.6)
    classes = np.array([clusters.LABELS.index(x) for x in train.labels])
    weights = np.ones(len(train))
    weights[:3] = 3
    repeated = np.concatenate([np.arange(len(train)), [0, 1, 2, 0, 1, 2]])
    for fit in (lambda e, c, **k: fit_logistic(e, c, n_classes=4, **k), lambda e, c, **k: fit_kernel(e, c, n_classes=4, penalty=0.3, **k)):
        counted = fit(train.embeddings, classes, weights=weights).scores(train.embeddings)
        assert np.abs(counted - fit(train.embeddings[repeated], classes[repeated]).scores(train.embeddings)).max() < 0.05
