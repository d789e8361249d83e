"""Nearest known examples: the very rows that were learnt from, whatever the recipe left in the folder, and nothing that cannot be proved."""

import json
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fmcore.data import catalogue
from fmcore.explain import neighbours
from fmcore.explain.neighbours import NoExamples, nearest
from fmcore.models.classifier import Classifier
from fmcore.models.fitting import FitOptions, fit_classifier
from fmcore.models.registry import Registry, write_manifest
from fmcore.models.served_encoder import ServedEncoder
from fmcore.serving.engine import Engine
from fmcore.store.store import Store
from fmcore.training.finish import embedded, with_label_names
from fmcore.training.linear import NAME_WEIGHT, few_shot
from tests import tiny_model

TEXT = "please replace my plastic card"
BOTH = [("replace my plastic card i", "card"), ("please plastic card replace", "refund")]
"""The nearest of all, one of them labelled otherwise than the model answers."""


class Desk:
    """A registry and an engine over a store of their own."""

    def __init__(self, home):
        self.home = home
        self.store = Store(home)
        self.registry = Registry(self.store)
        self.change = lambda model: model
        self.engine = Engine(self.registry, load=lambda folder, *, version: self.change(Classifier.load(folder, version=version)))

    def adopt(self, dataset, *, run_id="run-1", shots=0, seed=0, publishers=False, refit=True):
        """A version as the recipes make it: the catalogue's split, a draw of shots, names of labels, a refit on later rows."""
        data = catalogue.load(str(dataset))
        folder = self.home / "work" / run_id
        folder.mkdir(parents=True)
        tiny_model._write_encoder(folder)
        served = ServedEncoder(folder, max_tokens=32)
        learnt = few_shot(data, shots=shots, seed=seed) if shots else data
        rows = embedded(served, learnt, cache=None, said=lambda *_: None)
        if shots:
            rows["train"] = with_label_names(rows["train"], served, weight=NAME_WEIGHT)
        options = FitOptions(head="ridge", random_features=64, resamples=20, test_is_publishers=publishers, refit=refit and not shots)
        info = {"max_tokens": 32, "split_hash": data.split_hash}
        classifier, metrics = fit_classifier(rows["train"], rows["validation"], rows["test"], options=options, info=info)
        classifier.save(folder)
        (folder / "metrics.json").write_text(json.dumps(metrics))
        write_manifest(folder)
        metrics |= {"shots": shots, "params": {"dataset": str(dataset), "shots": shots, "seed": seed}}
        return self.registry.adopt(folder, task="intent", recipe="linear", dataset=data.name, base="bag", metrics=metrics, run_id=run_id)

    def nearest(self, version, text=TEXT, **more):
        return nearest(self.engine, "intent", text, version=version.version, **more)


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path / "desk")
    yield made
    made.engine.close()
    made.store.close()


def write(path, *, seed=0, more=()):
    rows = [*tiny_model.rows(30, seed=seed, oos=20), *more]
    pd.DataFrame(rows, columns=["text", "label"]).drop_duplicates("text").to_csv(path, index=False)
    return path


def learnt_from(data, version, desk):
    """text -> label of every row that the head was fitted on, by how many rows the folder says there are."""
    with desk.engine.classifier("intent", version=version.version) as classifier:
        n = len(classifier.reference)
    rows = pd.concat([data.train, *(f[f["label"] != "oos"] for f in (data.validation, data.test))])[["text", "label"]]
    return dict(rows.iloc[:n].itertuples(index=False))


@pytest.mark.parametrize("kind", [{}, {"publishers": True}, {"refit": False}])
def test_they_are_the_nearest_of_all_rows_that_were_learnt_from_and_of_no_others(desk, tmp_path, kind):
    version = desk.adopt(write(tmp_path / "own.csv"), **kind)
    known = learnt_from(catalogue.load(str(tmp_path / "own.csv")), version, desk)
    found = desk.nearest(version, k=8)
    with desk.engine.classifier("intent", version=version.version) as model:
        likeness = np.sort(model.embed(list(known))[0] @ model.embed([TEXT])[0][0])[::-1]
        answer = model.predict([TEXT])[0]
    assert [n.similarity for n in found] == pytest.approx(list(likeness[:8]), abs=1e-5)
    assert all(known[n.text] == n.label for n in found) and found.note == ""
    assert (found.label, found.novelty, found.threshold) == (answer.label, answer.novelty, answer.threshold)
    far = desk.nearest(version, k=1000)
    assert {n.text for n in far} <= set(known) and len(far) > 0.9 * len(known) and "oos" not in {n.label for n in far}


def test_supporting_and_contradicting_examples_stand_side_by_side(desk, tmp_path):
    found = desk.nearest(desk.adopt(write(tmp_path / "own.csv", more=BOTH)), k=6)
    assert found.label == "card" and all(n.supports == (n.label == "card") for n in found)
    assert {n.text for n in found} >= {text for text, _ in BOTH} and {n.supports for n in found} == {True, False}


def test_an_example_that_is_the_text_itself_comes_first_and_once(desk, tmp_path):
    rows = [(TEXT, "card"), (TEXT.upper(), "card"), (f"{TEXT} ", "card")]
    found = desk.nearest(desk.adopt(write(tmp_path / "own.csv", more=rows)), k=4)
    assert found.neighbours[0].similarity == pytest.approx(1.0, abs=1e-5)
    assert sum(n.text.strip().lower() == TEXT for n in found) == 1


def test_of_a_few_shots_only_the_drawn_rows_are_shown_and_no_label_name(desk, tmp_path):
    data = catalogue.load(str(write(tmp_path / "own.csv")))
    version = desk.adopt(tmp_path / "own.csv", shots=4, seed=7)
    drawn = dict(few_shot(data, shots=4, seed=7).train.itertuples(index=False))
    assert {n.text: n.label for n in desk.nearest(version, k=100)} == drawn


def test_built_in_data_is_found_by_its_name(desk):
    texts = dict(catalogue.load("demo").train.itertuples(index=False))
    found = desk.nearest(desk.adopt("demo"), text="is the card my own", k=5)
    assert len(found) == 5 and all(texts.get(n.text, n.label) == n.label for n in found)


@pytest.mark.parametrize("text", ["", "   ", "\x00<b>$x$</b>\U0001f4b3", "退款", "card " * 5000])
def test_any_text_has_neighbours(desk, tmp_path, text):
    assert len(desk.nearest(desk.adopt(write(tmp_path / "own.csv")), text=text)) == 6


def test_a_data_set_that_changed_or_went_is_said_and_the_run_s_own_copy_taken_where_there_is_one(desk, tmp_path):
    path = write(tmp_path / "own.csv")
    version, data = desk.adopt(path), catalogue.load(str(path))
    write(path, seed=5)
    with pytest.raises(NoExamples, match="not those that .* learnt from") as refusal:
        desk.nearest(version)
    assert "train the model again" in refusal.value.hint
    path.unlink()
    with pytest.raises(NoExamples, match="no file"):
        desk.nearest(version)
    data.save(desk.home / "runs" / "run-1" / "data")
    assert len(desk.nearest(version)) == 6


def test_labels_that_do_not_agree_row_by_row_are_not_matched(desk, tmp_path):
    version = desk.adopt(write(tmp_path / "own.csv"))

    def turned(model):
        return replace(model, reference=replace(model.reference, labels=np.roll(model.reference.labels, 1)))

    desk.change = turned
    with pytest.raises(NoExamples):
        desk.nearest(version)


def test_a_text_that_does_not_give_its_stored_embedding_again_is_left_out_and_counted(desk, tmp_path):
    version = desk.adopt(write(tmp_path / "own.csv"))

    def damaged(model):
        embeddings = model.reference.embeddings.copy()
        embeddings[:2] = model.embed([TEXT])[0]
        return replace(model, reference=replace(model.reference, embeddings=embeddings))

    honest = desk.nearest(version, k=5)
    engine = Engine(desk.registry, load=lambda folder, *, version: damaged(Classifier.load(folder, version=version)))
    found = nearest(engine, "intent", TEXT, version=version.version, k=5)
    engine.close()
    assert len(found) == 3 and "2 of the 5 nearest are left out" in found.note
    assert [n.text for n in found] == [n.text for n in honest][:3]


def test_the_data_set_is_read_once_for_a_loaded_model_whoever_asks(desk, tmp_path, monkeypatch):
    version, reads = desk.adopt(write(tmp_path / "own.csv")), []

    def counted(of):
        reads.append(of.version)
        return catalogue.load(str(tmp_path / "own.csv"))

    monkeypatch.setattr(neighbours, "data_of", counted)
    first = desk.nearest(version)
    answers = []
    askers = [threading.Thread(target=lambda: answers.append(desk.nearest(version).neighbours)) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert answers == [first.neighbours] * 4 and reads == [version.version]
