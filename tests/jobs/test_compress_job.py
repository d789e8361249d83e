"""The compression job's three steps on a real store with a tiny real teacher: what is frozen, what is refused, and who serves at the end."""

import json
import shutil

import pandas as pd
import pytest
from pydantic import ValidationError

from fmcore import config
from fmcore.explain import heldout
from fmcore.explain.heldout import NotHeld
from fmcore.models.classifier import Classifier
from fmcore.models.efficiency_gate import ALLOWED
from fmcore.models.registry import NotPossible, Registry, Tampered, UnknownModel
from fmcore.store.store import Store
from fmcore.training import compress as training
from jobs import compress, finetune
from tests.tiny_encoder import TOPICS, frame, save_tiny_encoder

pytestmark = pytest.mark.slow


class Quiet:
    def progress(self, fraction, message=""):
        pass

    def metric(self, step, **values):
        pass

    def device(self, name):
        pass


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a finished training run and its data: made once, copied by each test."""
    at = tmp_path_factory.mktemp("made")
    save_tiny_encoder(at / "base")
    frame(60, seed=5, oos=40).to_csv(at / "messages.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        _settings(patch, at)
        store = Store(at / "home")
        run = at / "home" / "runs" / "teacher"
        run.mkdir(parents=True)
        asked = {"recipe": "full", "epochs": 4, "batch": 16, "learning_rate": 2e-3, "max_tokens": 32}
        finetune.prepare(store, finetune.Params(dataset=str(at / "messages.csv"), **asked), run)
        finetune.work(run, Quiet())
        store.close()
    config.settings.cache_clear()
    return at


def _settings(patch, at):
    patch.setenv("FM_BASE_MODEL", str(at / "base"))
    patch.setenv("FM_PROFILE", "tiny")
    patch.setenv("FM_HOME", str(at / "home"))
    patch.setenv("FM_THREADS", "1")
    config.settings.cache_clear()


@pytest.fixture
def store(made, tmp_path, monkeypatch):
    _settings(monkeypatch, made)
    monkeypatch.setenv("FM_HOME", str(tmp_path / "home"))
    config.settings.cache_clear()
    opened = Store(tmp_path / "home")
    shutil.copytree(made / "home" / "runs" / "teacher", opened.home / "runs" / "teacher")
    finetune.land(opened, opened.home / "runs" / "teacher")
    yield opened
    opened.close()


def run_dir(store, name, **params):
    folder = store.home / "runs" / name
    folder.mkdir(parents=True)
    compress.prepare(store, compress.Params(**params), folder)
    return folder


def worked(store, name, **params):
    folder = run_dir(store, name, **params)
    compress.work(folder, Quiet())
    return folder


def measured(folder, **changed):
    """Change what a finished run measured, as another machine might have."""
    outcome = json.loads((folder / "outcome.json").read_text())
    outcome["metrics"]["compressed"] |= changed
    (folder / "outcome.json").write_text(json.dumps(outcome))


def test_a_run_ends_in_a_version_of_the_same_task_data_and_base_that_serves_if_the_gate_lets_it(store):
    registry = Registry(store)
    teacher = registry.champion("intent")
    folder = worked(store, "run-1", method="distill", layers=2)
    measured(folder, speedup=2.0)
    landed = compress.land(store, folder)
    version = registry.get("intent", landed["version"])
    assert (version.recipe, version.dataset, version.base) == ("distill", teacher.dataset, teacher.base)
    assert version.metrics["params"] == teacher.metrics["params"] and heldout.dataset_of(version) == heldout.dataset_of(teacher)
    assert landed["promoted"] == landed["verdict"]["passed"] == (registry.champion("intent").version == version.version)
    assert landed["verdict"]["passed"] == (registry.barred(version) == "")
    assert Classifier.load(registry.verified(version), version="v").predict(["replace my card"])[0].label in TOPICS
    assert compress.land(store, folder) == landed and len(registry.versions("intent")) == 2
    assert not (folder / "teacher").exists()
    json.dumps(landed, allow_nan=False)


def test_a_variant_that_was_pruned_to_nothing_never_serves_whatever_was_asked(store):
    registry = Registry(store)
    teacher = registry.champion("intent")
    folder = worked(store, "run-1", method="prune", keep=0.01, layers=1)
    ruined(folder)
    for promote in ("gate", "always", "never"):
        copy = shutil.copytree(folder, folder.parent / promote)
        chosen = json.loads((copy / "settings.json").read_text())
        (copy / "settings.json").write_text(json.dumps({**chosen, "params": {**chosen["params"], "promote": promote}}))
        landed = compress.land(store, copy)
        assert not landed["promoted"] and not landed["verdict"]["passed"]
        assert registry.champion("intent").version == teacher.version
        with pytest.raises(NotPossible):
            registry.promote("intent", landed["version"], by="a person", reason="it is so small")


def ruined(folder):
    """The variant answers every held-out row with one label: what an encoder without anything in it does."""
    from fmcore.models.manifest import write_manifest

    rows = pd.read_parquet(folder / "model" / "heldout.parquet")
    rows.assign(predicted="card").to_parquet(folder / "model" / "heldout.parquet", index=False)
    (folder / "model" / "MANIFEST.json").unlink()
    write_manifest(folder / "model")
    measured(folder, speedup=9.0)


def test_a_damaged_variant_is_not_taken_in(store):
    folder = worked(store, "run-1", method="onnx")
    (folder / "model" / "encoder.onnx").write_bytes(b"damaged")
    with pytest.raises(Tampered):
        compress.land(store, folder)
    assert len(Registry(store).versions("intent")) == 1


def test_work_needs_nothing_but_the_runs_folder(store, made):
    folder = run_dir(store, "run-1", method="onnx")
    version = Registry(store).champion("intent")
    shutil.rmtree(version.path)
    assert compress.work(folder, Quiet())["compressed"]["method"] == "onnx"
    (folder / "teacher" / "model.json").write_text("{}")
    with pytest.raises(Tampered):
        compress.work(folder, Quiet())


def test_without_a_model_or_with_a_damaged_one_nothing_begins(store):
    with pytest.raises(UnknownModel):
        run_dir(store, "run-1", task="topic")
    with pytest.raises(UnknownModel):
        run_dir(store, "run-2", version="no-such-version")
    (Registry(store).champion("intent").path / "head.safetensors").write_bytes(b"x")
    with pytest.raises(Tampered):
        run_dir(store, "run-3")


def test_data_that_is_gone_or_was_changed_is_refused_before_anything_is_trained(store, made, monkeypatch):
    data = heldout.data_of(Registry(store).champion("intent"))
    monkeypatch.setattr("fmcore.explain.heldout.catalogue.load", lambda name: _other(data))
    with pytest.raises(training.BadTeacher, match="not split as it was"):
        run_dir(store, "run-1")
    monkeypatch.undo()
    version = Registry(store).champion("intent")
    moved = dict(version.metrics, params={**version.metrics["params"], "dataset": "/no/such/file.csv"})
    with store.write() as tx:
        tx.execute("UPDATE model_versions SET metrics = ?", [json.dumps(moved)])
    with pytest.raises(NotHeld):
        run_dir(store, "run-2")


def _other(data):
    from dataclasses import replace

    return replace(data, split_hash="another")


def test_a_compressed_version_is_not_compressed_again_but_its_teacher_is(store):
    registry = Registry(store)
    teacher = registry.champion("intent")
    folder = worked(store, "run-1", method="onnx")
    measured(folder, speedup=2.0)
    landed = compress.land(store, folder)
    assert landed["promoted"], landed["verdict"]
    with pytest.raises(compress.CompressedAlready, match=teacher.version):
        run_dir(store, "run-2", version=landed["version"])
    settings = json.loads((run_dir(store, "run-3") / "settings.json").read_text())
    assert settings["teacher"]["version"] == teacher.version


def test_a_cascade_may_go_on_to_a_student_of_the_same_teacher_and_to_nothing_else(store):
    student = compress.land(store, worked(store, "run-1", method="onnx", promote="never"))["version"]
    teacher = Registry(store).champion("intent").version
    settings = json.loads((run_dir(store, "run-2", method="cascade", version=teacher, second=student) / "settings.json").read_text())
    assert settings["second"]["version"] == student and settings["teacher"]["version"] == teacher
    for wrong in ({"method": "static", "second": student}, {"method": "cascade", "second": teacher}):
        with pytest.raises(compress.NoSecond, match="second stage"):
            run_dir(store, f"run-{wrong['method']}-x", version=teacher, **wrong)


def test_texts_without_labels_are_frozen_into_the_run(store, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(f"Please send plastic number {i} to my trip." for i in range(40)))
    folder = run_dir(store, "run-1", corpus=str(tmp_path / "texts.txt"))
    assert 20 <= len(compress._texts(folder)) <= 40
    assert compress._texts(run_dir(store, "run-2")) == ()


def test_the_form_offers_every_method_the_gate_knows_and_nothing_else():
    assert set(training.METHODS) == set(ALLOWED)
    for method in ALLOWED:
        assert compress.Params(method=method).method == method
    for wrong in ({"method": "magic"}, {"keep": 0.0}, {"keep": float("nan")}, {"layers": -1}, {"minutes": float("inf")}, {"task": "recommend"}):
        with pytest.raises(ValidationError):
            compress.Params(**wrong)
