"""A desk with a past, made through the real store, runs and registry: two versions, one of them live, and runs in every state."""

import json

from fmcore import runtime
from fmcore.config import settings
from fmcore.models.manifest import write_manifest


def metrics(accuracy: float) -> dict:
    """Figures as a recipe stores them."""

    def figure(value, n=315, half=0.03):
        return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": n}

    return {
        "accuracy": figure(accuracy), "macro_f1": figure(accuracy - 0.01), "ece": figure(0.02, half=0.01),
        "oos": {"n": 120, "auroc": figure(0.97, 435, 0.01), "recall": figure(0.86, 120, 0.06), "in_scope_accuracy": figure(accuracy - 0.03)},
    }  # fmt: skip


def version(registry, folder, accuracy, *, dataset="demo", recipe="linear", figures=None, task="intent"):
    """A registered version whose folder verifies; nothing can be asked of it."""
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"labels": ["a", "b"], "synthetic": dataset == "demo"}))
    write_manifest(folder)
    facts = metrics(accuracy) if figures is None else figures
    return registry.adopt(folder, task=task, recipe=recipe, dataset=dataset, base="minilm", metrics=facts, run_id=f"run-{folder.name}")


def ended(desk, job, state, *, params=None, error=""):
    """A run of a job that went from running to `state`."""
    run = desk.runs.start_now(job, params, trigger="manual")
    desk.runs.note(run.id, progress=0.6, message="Epoch 2 of 3", device="cpu", metrics=[(1, "loss", 0.9), (2, "loss", 0.5)])
    desk.runs.finish(run.id, state, error=error)
    return run


def start(jobs):
    """The process's runtime on the test's own FM_HOME."""
    return runtime.start(settings(), jobs)


def fill(desk, tmp_path, *, running: str = ""):
    """Give an empty desk its past; `running` names a job that is left at work."""
    first = version(desk.registry, tmp_path / "first", 0.90)
    desk.registry.promote("intent", first.version, by="a test", reason="the first")
    version(desk.registry, tmp_path / "second", 0.93, recipe="full")
    for state, error in (("succeeded", ""), ("failed", "RuntimeError: <b>out</b> of *memory*"), ("cancelled", ""), ("timed_out", "4 h")):
        ended(desk, "maintain", state, error=error)
    if running:
        run = desk.runs.start_now(running, None, trigger="schedule")
        desk.runs.note(run.id, progress=0.4, message="Reading <rows>", device="cpu", metrics=[(1, "loss", 0.9), (2, "loss", 0.5)])
    return desk
