"""Model folders that crash, rot or attack: none of them serves, and the version before keeps answering."""

import json
import os
import pickle
import struct

import pytest

from fmcore.models.registry import Registry, Tampered, write_manifest
from fmcore.serving.engine import Engine, Refused
from fmcore.store.store import Store
from tests import toy_models

FILES = ["model.json", "head.safetensors", "heldout.parquet", "metrics.json", "replies.json"]


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def engine(store):
    made = Engine(Registry(store), load=toy_models.load)
    yield made
    made.close()


def change_content(path):
    body = bytearray((path / "head.safetensors").read_bytes())
    body[-1] ^= 1
    (path / "head.safetensors").write_bytes(bytes(body))


def truncate(path):
    body = (path / "head.safetensors").read_bytes()
    (path / "head.safetensors").write_bytes(body[: len(body) // 2])


def remove(path):
    (path / "replies.json").unlink()


def add_pickle(path):
    (path / "head.pkl").write_bytes(pickle.dumps({"weights": 1}))


def list_pickle_too(path):
    add_pickle(path)
    write_manifest(path)


def link_a_file(path):
    outside = path.parent.parent.parent / "elsewhere.json"
    (path / "model.json").rename(outside)
    (path / "model.json").symlink_to(outside)


def link_the_folder(path):
    elsewhere = path.parent.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def pipe(path):
    os.mkfifo(path / "fifo.json")


def escape(path):
    listed = json.loads((path / "MANIFEST.json").read_text())
    listed["files"]["../../../../etc/passwd"] = {"sha256": "0" * 64, "bytes": 1}
    (path / "MANIFEST.json").write_text(json.dumps(listed))


def absurd_header(path):
    (path / "head.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    write_manifest(path)


def tensor_beyond_the_end(path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    (path / "head.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    write_manifest(path)


def deep_json_manifest(path):
    (path / "MANIFEST.json").write_text('{"files":' + "[" * 100_000)


def no_manifest(path):
    (path / "MANIFEST.json").unlink()


def consistent_forgery(path):
    (path / "model.json").write_text(json.dumps({"labels": ["evil", "twin"]}))
    write_manifest(path)


ATTACKS = [
    change_content, truncate, remove, add_pickle, list_pickle_too, link_a_file, link_the_folder, pipe, escape, absurd_header,
    tensor_beyond_the_end, deep_json_manifest, no_manifest, consistent_forgery,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda f: f.__name__)
def test_a_bad_folder_is_refused_in_a_sentence_while_the_old_version_keeps_serving(engine, tmp_path, attack):
    registry = engine.registry
    old = toy_models.adopt(registry, tmp_path, run_id="old")
    registry.promote("intent", old.version, by="test", reason="first")
    new = toy_models.adopt(registry, tmp_path, run_id="new")
    registry.promote("intent", new.version, by="test", reason="better")
    attack(new.path)  # after the promotion, before it was ever loaded
    with pytest.raises(Tampered) as raised:
        registry.verified(new)
    assert len(raised.value.message) > 20 and raised.value.hint
    assert engine.predict("intent", ["my card"])[0].version == old.version
    assert new.version in engine.info("intent")["warning"] and old.version in engine.info("intent")["warning"]
    with pytest.raises(Tampered):
        engine.predict("intent", ["my card"], version=new.version)


def test_a_folder_that_verifies_but_does_not_load_leaves_the_old_version_serving(store, tmp_path):
    def load(at, *, version):
        if "new" in json.loads((at / "model.json").read_text())["speaks"]:
            raise RuntimeError("ONNX: no such operator")
        return toy_models.load(at, version=version)

    engine = Engine(Registry(store), load=load)
    names = []
    for run in ("old", "new"):
        names.append(toy_models.adopt(engine.registry, tmp_path, run_id=run).version)
        engine.registry.promote("intent", names[-1], by="test", reason="next")
        assert engine.predict("intent", ["my card"])[0].version == names[0]
    assert "RuntimeError" in engine.info("intent")["warning"]
    with pytest.raises(Refused):
        engine.predict("intent", ["my card"], version=names[1])
    third = toy_models.adopt(engine.registry, tmp_path, run_id="third").version
    engine.registry.promote("intent", third, by="test", reason="repaired")
    assert engine.predict("intent", ["my card"])[0].version == third and engine.info("intent")["warning"] == ""
    engine.close()


def test_with_nothing_to_fall_back_on_the_refusal_is_the_answer(engine, tmp_path):
    only = toy_models.adopt(engine.registry, tmp_path, run_id="only")
    engine.registry.promote("intent", only.version, by="test", reason="first")
    change_content(only.path)
    with pytest.raises(Tampered, match="head.safetensors"):
        engine.predict("intent", ["my card"])
    assert "head.safetensors" in engine.info("intent")["warning"]  # and the health page says so


class PowerCut(BaseException):
    """The process is gone at this moment."""


@pytest.mark.parametrize("n_files", range(len(FILES)))
def test_a_crash_while_saving_leaves_no_version(store, tmp_path, n_files):
    """A recipe dies after it wrote n files: there is no manifest, so there is no model."""
    registry = Registry(store)
    at = toy_models.folder(tmp_path / "run", finished=False)
    for name in FILES[n_files:]:
        (at / name).unlink()
    with pytest.raises(Tampered):
        registry.adopt(at, task="intent", recipe="linear", dataset="demo", base="toy", metrics={}, run_id="r")
    assert registry.versions() == [] and not (registry.root / "intent").exists()


def test_a_crash_while_the_manifest_is_written_leaves_no_version(store, tmp_path):
    registry = Registry(store)
    at = toy_models.folder(tmp_path / "run")
    body = (at / "MANIFEST.json").read_bytes()
    (at / "MANIFEST.json").unlink()
    (at / "MANIFEST.json.part").write_bytes(body[: len(body) // 2])
    with pytest.raises(Tampered, match="never finished"):
        registry.adopt(at, task="intent", recipe="linear", dataset="demo", base="toy", metrics={}, run_id="r")
    write_manifest(at)  # the run is repeated and finishes
    assert registry.adopt(at, task="intent", recipe="linear", dataset="demo", base="toy", metrics={}, run_id="r").run_id == "r"


class CutBeforeTheRow:
    """A store whose power goes at the first write."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def write(self):
        raise PowerCut


def test_a_crash_between_the_move_and_the_row_is_finished_by_the_next_start(store, tmp_path):
    at = toy_models.folder(tmp_path / "run")
    asked = {"task": "intent", "recipe": "linear", "dataset": "demo", "base": "toy", "metrics": toy_models.metrics(), "run_id": "r"}
    with pytest.raises(PowerCut):
        Registry(CutBeforeTheRow(store)).adopt(at, **asked)
    assert not at.exists() and Registry(store).versions() == []
    version = Registry(store).adopt(at, **asked)
    assert Registry(store).verified(version).is_dir() and len(Registry(store).versions()) == 1


def test_a_torn_leftover_in_the_models_folder_is_replaced_by_the_whole_one(store, tmp_path):
    registry = Registry(store)
    name = toy_models.adopt(registry, tmp_path, run_id="r").path
    with store.write() as tx:
        tx.execute("DELETE FROM model_versions")
    truncate(name)
    again = toy_models.adopt(registry, tmp_path, run_id="r")
    assert again.path == name and registry.verified(again)
