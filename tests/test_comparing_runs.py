"""Runs side by side and lines of descent, from rows that runs, promotions and facts left."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fmcore import comparing_runs, run_facts
from fmcore.comparing_runs import BadComparison
from fmcore.models.manifest import write_manifest
from fmcore.models.registry import Registry
from fmcore.nouns import Job
from fmcore.runs import Runs, UnknownRun
from fmcore.store.store import Store


class Params(BaseModel, extra="forbid"):
    task: str = "sentiment"
    dataset: str = "financial_phrasebank"
    recipe: str = "linear"
    seed: int = 0


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def runs(store):
    return Runs(store, {name: Job(name, name, "", kind="heavy", params=Params, max_attempts=1) for name in ("finetune", "compress", "pretrain")})


def figure(value, low, high):
    return {"value": value, "low": low, "high": high, "n": 100}


@pytest.fixture
def done(store, runs, tmp_path):
    """done("finetune", accuracy=..., seed=1) is a run that is over, with facts and a curve; version=True adopts a version of it."""

    def make(job="finetune", *, version=False, state="succeeded", teacher=None, facts=None, curve=((1, 2.0), (2, 1.0)), result=None, base="minilm", **params):
        run = runs.start_now(job, params)
        runs.note(run.id, metrics=[(step, "loss", value) for step, value in curve])
        given = {"code": {"commit": "a" * 40, "dirty": False}, "seconds": 10.0, "data": {"hash": "h1"}, "libraries": {"torch": "2.13.0"}}
        run_facts.note(store, run.id, {**given, **(facts or {})})
        runs.finish(run.id, state, result=result or {})
        if version or teacher:
            folder = tmp_path / f"model-{run.id}"
            folder.mkdir()
            (folder / "model.json").write_text(json.dumps({"run": run.id, "split_hash": "h1"}))
            write_manifest(folder)
            metrics = {"accuracy": (result or {}).get("accuracy"), "macro_f1": figure(0.7, 0.6, 0.8)}
            if teacher:
                metrics["compressed"] = {"method": "int8", "teacher": teacher, "speedup": 3.0, "lost": figure(0.1, 0.0, 0.2)}
            recipe = "int8" if teacher else "full"
            return Registry(store).adopt(
                folder, task="sentiment", recipe=recipe, dataset="financial_phrasebank", base=base, metrics=metrics, run_id=run.id)
        return runs.get(run.id)

    return make


def kinds(node):
    return [node.kind, *(kinds(child) for child in node.children)]


def every(node):
    yield node
    for child in node.children:
        yield from every(child)


def test_only_what_differs_is_shown_and_every_figure_has_its_distance(store, done):
    a = done(seed=1, result={"accuracy": figure(0.80, 0.75, 0.85), "oos": {"n": 5}})
    b = done(seed=2, facts={"libraries": {"torch": "2.14.0"}, "seconds": 20.0}, result={"accuracy": figure(0.95, 0.93, 0.97), "oos": {"n": 5}})
    compared = comparing_runs.compare(store, [a.id, b.id])
    assert compared.baseline == a.id and not compared.pinned
    assert {(row.part, row.name): dict(row.values) for row in compared.params} == {
        ("parameter", "seed"): {a.id: 1, b.id: 2}, ("fact", "version of torch"): {a.id: "2.13.0", b.id: "2.14.0"}}
    rows = {row.name: row for row in compared.metrics}
    assert rows["accuracy"].deltas[b.id].value == pytest.approx(0.15) and rows["accuracy"].deltas[b.id].verdict == "better"
    assert rows["seconds"].deltas[b.id].value == 10.0 and rows["seconds"].deltas[b.id].low is None
    assert rows["oos.n"].deltas[b.id].verdict == "" and a.id not in rows["accuracy"].deltas
    assert rows["last loss"].values == {a.id: 1.0, b.id: 1.0}


def test_curves_are_aligned_by_step(store, done):
    a, b = done(curve=[(0, 3.0), (10, 2.0)]), done(curve=[(10, 1.5), (20, 1.0)])
    curve = comparing_runs.compare(store, [a.id, b.id]).curves["loss"]
    assert list(curve.index) == [0, 10, 20] and curve.loc[10].tolist() == [2.0, 1.5]
    told = comparing_runs.as_json(comparing_runs.compare(store, [a.id, b.id]))
    assert told["curves"]["loss"] == {"step": [0, 10, 20], a.id: [3.0, 2.0, None], b.id: [None, 1.5, 1.0]}
    json.dumps(told, allow_nan=False)


def test_a_resumed_runs_curve_goes_on_where_the_first_attempts_ends(store, runs, done):
    old = done(state="cancelled", curve=[(1, 3.0), (2, 2.0), (3, 1.9)])
    other = done()
    new = runs.resume(old.id, by="ann")
    runs.claim("heavy")
    runs.note(new.id, metrics=[(3, "loss", 1.5), (4, "loss", 1.0)])  # the checkpoint was of step 2
    runs.finish(new.id, "succeeded")
    assert comparing_runs.compare(store, [new.id, other.id]).curves["loss"][new.id].dropna().tolist() == [3.0, 2.0, 1.5, 1.0]


def test_what_a_version_was_measured_at_counts_as_its_runs_figures(store, done):
    a, b = done(version=True), done(version=True)
    compared = comparing_runs.compare(store, [a.run_id, b.run_id])
    [f1] = [row for row in compared.metrics if row.name == "macro_f1"]
    assert f1.deltas[b.run_id].verdict == "no clear difference"


def test_the_pinned_baseline_survives_a_restart_and_is_of_its_job_and_task(store, done):
    pinned, a, b = done(seed=9), done(seed=1), done(seed=2)
    elsewhere = done(task="intent")
    assert comparing_runs.pin(store, pinned.id, by="ann") == "finetune sentiment"
    store.close()
    again = Store(store.home)
    try:
        compared = comparing_runs.compare(again, [a.id, b.id])
        assert (compared.baseline, compared.pinned, [run.run_id for run in compared.runs]) == (pinned.id, True, [pinned.id, a.id, b.id])
        assert comparing_runs.compare(again, [a.id]).baseline == pinned.id, "one run is enough where a baseline is pinned"
        assert comparing_runs.compare(again, [a.id, b.id], baseline=b.id).baseline == b.id
        assert comparing_runs.pinned(again, elsewhere.id) is None
        comparing_runs.pin(again, b.id, by="bob")
        assert comparing_runs.pinned(again, a.id) == b.id, "the newest pin holds"
        comparing_runs.unpin(again, a.id, by="ann")
        assert comparing_runs.pinned(again, a.id) is None
        assert [r["who"] for r in again.rows("SELECT who FROM audit WHERE what LIKE '%baseline' ORDER BY rowid")] == ["ann", "bob", "ann"]
    finally:
        again.close()


def test_a_pinned_run_that_is_gone_is_no_baseline(store, done):
    gone, a, b = done(), done(), done()
    comparing_runs.pin(store, gone.id, by="ann")
    with store.write() as tx:
        tx.execute("DELETE FROM runs WHERE id = ?", [gone.id])
    assert comparing_runs.compare(store, [a.id, b.id]).baseline == a.id


@pytest.mark.parametrize(("names", "error"), [([], BadComparison), (["x"] , UnknownRun), (["a", "b"], UnknownRun)])
def test_what_cannot_be_compared_is_refused_in_words(store, names, error):
    with pytest.raises(error):
        comparing_runs.compare(store, names)


def test_one_run_alone_and_one_run_twice_are_refused(store, done):
    a = done()
    for names in ([a.id], [a.id, a.id]):
        with pytest.raises(BadComparison, match="nothing to be compared"):
            comparing_runs.compare(store, names)


def test_more_runs_than_a_screen_holds_can_be_compared(store, done):
    made = [done(seed=n, result={"accuracy": 0.1 * n}).id for n in range(12)]
    compared = comparing_runs.compare(store, made)
    assert len(compared.runs) == 12 and len(next(row for row in compared.metrics if row.name == "accuracy").deltas) == 11


def test_a_lower_loss_is_better_and_a_count_is_neither():
    low, high = figure(0.1, 0.09, 0.11), figure(0.5, 0.49, 0.51)
    assert comparing_runs.delta(low, high, name="val_loss").verdict == "better"
    assert comparing_runs.delta(low, high, name="oos.auroc").verdict == "worse"
    assert comparing_runs.delta(low, high, name="n_test").verdict == comparing_runs.delta(low, high, name="majority.accuracy").verdict == ""


interval = st.tuples(st.floats(0, 1), st.floats(0, 0.3), st.floats(0, 0.3)).map(lambda t: figure(t[0], t[0] - t[1], t[0] + t[2]))


@given(interval, interval)
def test_the_interval_of_a_difference_holds_it_and_swaps_with_its_sides(a, b):
    one, other = comparing_runs.delta(a, b, name="accuracy"), comparing_runs.delta(b, a, name="accuracy")
    assert one.low <= one.value <= one.high
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.high - one.low <= (a["high"] - a["low"]) + (b["high"] - b["low"]) + 1e-9, "never wider than both together"


# --- where it comes from


def test_the_line_goes_from_data_over_base_run_and_version_to_what_was_made_of_it(store, done):
    teacher = done(version=True, result={"accuracy": figure(0.9, 0.8, 0.95)})
    small = done("compress", teacher=teacher.version)
    tiny = done("compress", teacher=f"sentiment@{small.version}")
    registry = Registry(store)
    registry.promote("sentiment", teacher.version, by="ann", reason="first")
    registry.promote("sentiment", done(version=True).version, by="ann", reason="another line")
    registry.rollback("sentiment", by="bob", reason="worse")
    for asked in (teacher.version, small.version, f"sentiment@{tiny.version}", tiny.run_id, "sentiment"):
        tree = comparing_runs.lineage(store, asked)
        versions = ["version", ["champion"], ["champion"], ["run", ["version", ["run", ["version"]]]]]
        assert kinds(tree) == ["data", ["base", ["run", versions]]]
        assert [node.asked for node in every(tree)].count(True) == 1
    assert (tree.title, tree.detail["hash"]) == ("financial_phrasebank", "h1")
    assert [n.id for n in every(tree) if n.kind == "version"] == [f"sentiment@{v.version}" for v in (teacher, small, tiny)]
    assert [n.detail["reason"] for n in every(tree) if n.kind == "champion"] == ["first", "Rolled back: worse"]


def test_attempts_stand_under_the_one_before(store, runs, done):
    old = done(state="cancelled", facts={"parents": [{"id": "base:minilm", "how": "started from"}]})
    new = runs.resume(old.id, by="ann")
    runs.claim("heavy")
    runs.finish(new.id, "failed")
    for asked in (old.id, new.id):
        tree = comparing_runs.lineage(store, asked)
        assert kinds(tree) == ["data", ["base", ["run", ["run"]]]] and tree.children[0].id == "base:minilm"
        assert [node.id for node in every(tree) if node.asked] == [asked]


def test_a_run_that_failed_to_make_a_version_smaller_stands_under_that_version(store, done):
    teacher = done(version=True)
    failed = done("compress", state="failed", facts={"parents": [{"id": f"sentiment@{teacher.version}", "how": "made from"}]})
    tree = comparing_runs.lineage(store, failed.id)
    assert kinds(tree) == ["data", ["base", ["run", ["version", ["run"]]]]]
    assert [node.id for node in every(tree) if node.asked] == [failed.id]


def test_a_base_of_this_desk_names_the_run_that_made_it(store, done):
    made = done("pretrain", result={"base": "base:finance"}, facts={"data": {"hash": "corpus1"}})
    done("pretrain", result={"base": "base:other"})
    used = done(state="failed", facts={"parents": [{"id": "base:finance", "how": "started from"}]})
    base = comparing_runs.lineage(store, used.id).children[0]
    assert (base.id, base.detail["made_by"], base.detail["data"]["hash"]) == ("base:finance", made.id, "corpus1")
    version = done(version=True, base="base:finance")
    assert comparing_runs.lineage(store, version.version).children[0].id == "base:finance"
    assert kinds(comparing_runs.lineage(store, made.id)) == ["data", ["base", ["run", ["base", ["run", ["version"]]]]]]


def test_a_teacher_that_is_not_here_and_teachers_in_a_circle_end_the_line(store, done):
    orphan = done("compress", teacher="never-here")
    assert comparing_runs.lineage(store, orphan.version).children[0].children[0].id == orphan.run_id
    with store.write() as tx:
        tx.execute("UPDATE model_versions SET metrics = ?", [json.dumps({"compressed": {"teacher": orphan.version}})])
    assert [n.kind for n in every(comparing_runs.lineage(store, orphan.version))].count("version") == 1


def test_a_version_whose_run_is_not_kept_still_has_a_line(store, done):
    version = done(version=True)
    with store.write() as tx:
        tx.execute("DELETE FROM runs")
    assert kinds(comparing_runs.lineage(store, version.version)) == ["data", ["base", ["version"]]]


def test_what_is_neither_a_run_nor_a_version_is_said_to_be(store):
    for name in ("nothing", "", "sentiment", "intent@x", "../../etc", "\ud800"):
        with pytest.raises(UnknownRun, match="neither a run nor a version"):
            comparing_runs.lineage(store, name)
