"""The rows a version was measured on with their texts, and the model as it was when it answered them."""

import pandas as pd
import pytest

from fmcore.data.labelled import LabelledData
from fmcore.explain import heldout, slices
from fmcore.models.classifier import Classifier
from fmcore.models.registry import Registry
from fmcore.store.store import Store
from tests.explain import known_model


@pytest.fixture
def registry(tmp_path):
    store = Store(tmp_path / "home")
    yield Registry(store)
    store.close()


def made(registry, tmp_path, **options):
    file = known_model.csv(tmp_path / "mine.csv", n_each=100, hidden=options.get("lexical", False))
    version = known_model.adopt(registry, tmp_path / "made", file, run_id="a", **options)
    return version, Classifier.load(version.path, version=version.version), heldout.held(registry, version)


def test_every_stored_answer_comes_with_its_text(registry, tmp_path):
    version, model, held = made(registry, tmp_path)
    assert len(held.rows) == len(model.heldout_table.drop_duplicates("text_hash")) > 10
    texts = set(pd.read_csv(tmp_path / "mine.csv")["text"])
    assert set(held.rows["text"]) <= texts and held.n_gone == 0
    assert (held.dataset, held.synthetic) == ("mine", False)
    assert heldout.dataset_of(version) == str(tmp_path / "mine.csv")


@pytest.mark.parametrize("lexical", [False, True])
def test_the_head_before_the_refit_on_the_test_rows_is_made_again(registry, tmp_path, lexical):
    _, served, held = made(registry, tmp_path, lexical=lexical)
    assert served.heldout_seen.any() and (served.lexical is not None) == lexical
    before, said = heldout.as_measured(served, heldout.data_of(registry.versions("intent")[0]), held.rows)
    texts = list(held.rows["text"])
    scores = before.probabilities(before.embed(texts)[0], lexical=before.lexical_scores(texts)).max(axis=1)
    assert abs(scores - held.rows["score"]).max() < 1e-3
    assert not before.heldout_seen.any() and "made again" in said and "100.0 %" in said
    assert abs(served.probabilities(served.embed(texts)[0], lexical=served.lexical_scores(texts)).max(axis=1) - scores).max() > 1e-3


def test_where_it_cannot_be_made_again_the_served_model_is_used_and_it_says_so(registry, tmp_path):
    _, served, held = made(registry, tmp_path, lexical=True, shots=30)
    assert served.lexical is not None
    same, said = heldout.as_measured(served, heldout.data_of(registry.versions("intent")[0]), held.rows)
    assert same is served and "cannot be made again" in said


def test_answers_that_do_not_come_again_are_not_explained_by_another_head(registry, tmp_path):
    _, served, held = made(registry, tmp_path)
    turned = held.rows.assign(predicted=held.rows["predicted"].map({"card": "refund", "refund": "travel", "travel": "card"}))
    same, said = heldout.as_measured(served, heldout.data_of(registry.versions("intent")[0]), turned)
    assert same is served and "is not used" in said


def test_rows_that_left_the_data_set_are_counted_and_a_data_set_that_is_gone_is_said(registry, tmp_path):
    version, _, held = made(registry, tmp_path)
    file = tmp_path / "mine.csv"
    rows = pd.read_csv(file)
    first = held.rows["text"][0]
    rows[rows["text"] != first].to_csv(file, index=False)
    fewer = heldout.held(registry, version)
    assert fewer.n_gone >= 1 and first not in set(fewer.rows["text"])
    known_model.csv(file, seed=99)
    with pytest.raises(heldout.NotHeld, match="None of the rows"):
        heldout.held(registry, version)
    file.unlink()
    with pytest.raises(heldout.NotHeld, match=version.version):
        heldout.held(registry, version)


def test_the_sources_of_a_file_that_names_them_are_slices(registry, tmp_path):
    file = known_model.csv(tmp_path / "mine.csv", n_each=150)
    rows = pd.read_csv(file)
    rows.assign(Channel=["letter" if i % 3 else "  phone " for i in range(len(rows))]).to_csv(file, index=False)
    version = known_model.adopt(registry, tmp_path / "made", file, run_id="a")
    held = heldout.held(registry, version)
    by_text = dict(zip(rows["text"], ["letter" if i % 3 else "phone" for i in range(len(rows))], strict=True))
    assert slices.cuts(held)["source"].tolist() == [by_text[text] for text in held.rows["text"]]
    data = heldout.data_of(version)
    data.save(tmp_path / "copy")
    assert LabelledData.load(tmp_path / "copy").sources == data.sources and len(data.sources) == len(rows)
