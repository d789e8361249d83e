"""Static models and cascades behind the engine: they serve, swap and are explained like any version."""

from types import SimpleNamespace

import numpy as np
import pytest

from fmcore.explain import gradients
from fmcore.explain.attributions import NotExplained, attribute, pieces
from fmcore.explain.words import split
from fmcore.models.cascade import BY_FAST, BY_FULL
from fmcore.models.classifier import Classifier
from fmcore.models.registry import Registry
from fmcore.serving.engine import Engine
from fmcore.store.store import Store
from tests import tiny_static
from tests.pages import tiny_model

TEXTS = ["I lost my card", "where is my parcel?", "", "🙂", "的" * 500, "x " * 9000]


@pytest.fixture
def desk(tmp_path):
    store = Store(tmp_path / "home")
    registry = Registry(store)
    made = SimpleNamespace(store=store, registry=registry, engine=Engine(registry))
    yield made
    made.engine.close()
    store.close()


def test_a_hot_swap_goes_from_full_to_static_to_cascade(desk, tmp_path):
    full = tiny_model.adopt(desk, tmp_path / "full")
    assert {a.version for a in desk.engine.predict("intent", TEXTS)} == {full.version}
    for save, name in ((tiny_static.save_static, "static"), (tiny_static.save_cascade, "cascade")):
        version = tiny_static.adopt(desk, tmp_path / name, save, recipe="linear")
        answers = desk.engine.predict("intent", TEXTS)
        assert {a.version for a in answers} == {version.version} and len(answers) == len(TEXTS)
        assert desk.engine.info("intent")["serving"] == version.version
    assert {a.reason.endswith((BY_FAST, BY_FULL)) for a in answers} == {True}
    assert desk.engine.info("intent")["share_sent"] == pytest.approx(sum(a.reason.endswith(BY_FULL) for a in answers) / len(TEXTS))


def test_a_model_of_one_stage_sends_nothing_on(desk, tmp_path):
    tiny_model.adopt(desk, tmp_path / "full")
    desk.engine.predict("intent", TEXTS)
    assert desk.engine.info("intent")["share_sent"] is None


@pytest.mark.parametrize("save", [tiny_static.save_static, tiny_static.save_cascade])
def test_words_are_explained_by_asking_what_serves(tmp_path, save):
    save(tmp_path / "model")
    model = Classifier.load(tmp_path / "model", version="v")
    said = split("how do I change my order please")
    answer = model.predict([said.text])[0]
    target = np.array([float(label == answer.label) for label in model.labels])
    found = attribute(model.probabilities_of, pieces(said, method="occlusion", budget=20), target=target, method="occlusion", budget=20)
    assert found.score == pytest.approx(answer.score, abs=1e-5)
    with pytest.raises(NotExplained, match="gradients"):
        gradients.integrated(tmp_path / "model", model, said, target=target)
