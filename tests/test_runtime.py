"""The runtime: one a process, light to import, gone when stopped."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from fmcore import config, runtime
from fmcore.nouns import Job
from fmcore.store.store import Store, StoreError

ROOT = Path(__file__).resolve().parent.parent


class NoParams(BaseModel, extra="forbid"):
    pass


JOBS = {"nothing": Job(name="nothing", title="Nothing", summary="", kind="light", params=NoParams, run=lambda store, params, report: {})}


@pytest.fixture
def desk():
    yield runtime.start(config.settings(), JOBS)
    runtime.stop()


@pytest.mark.parametrize("module", ["fmcore.runtime", "fmcore.api"])
def test_importing_it_loads_no_model_library(module):
    heavy = ["torch", "transformers", "sklearn", "onnxruntime", "shap", "peft", "onnx", "duckdb.experimental"]
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_there_is_none_until_it_is_started_and_none_after_it_was_stopped():
    assert runtime.current() is None
    started = runtime.start(config.settings(), JOBS)
    assert runtime.current() is started and runtime.start(config.settings(), {}) is started
    assert started.runs.request("nothing").state == "queued"
    runtime.stop()
    runtime.stop()
    assert runtime.current() is None
    Store(config.settings().home, wait_s=0).close()  # the file is free again


def test_explanations_end_before_what_they_ask_and_write_to(monkeypatch):
    desk, closed = runtime.start(config.settings(), JOBS), []
    for name in ("explain", "engine", "store"):
        part = getattr(desk, name)
        monkeypatch.setattr(part, "close", lambda name=name, close=part.close: (closed.append(name), close()))
    runtime.stop()
    assert closed == ["explain", "engine", "store"]


def test_it_survives_a_hot_reload_of_every_module_of_ours(desk):
    ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "fmcore"}
    for name in ours:
        del sys.modules[name]
    try:
        import fmcore.runtime as fresh

        assert fresh is not runtime and fresh.current() is desk
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "fmcore"]:
            del sys.modules[name]
        sys.modules.update(ours)
        sys.modules["fmcore"].runtime = runtime


def test_a_home_that_cannot_be_used_leaves_no_runtime_behind(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FM_HOME", str(tmp_path / "file" / "home"))
    config.settings.cache_clear()
    with pytest.raises(StoreError):
        runtime.start(config.settings(), JOBS)
    assert runtime.current() is None
