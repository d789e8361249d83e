"""Facts of runs: what is stored, what is unknown, what a run's folder and a checkout say of themselves."""

import dataclasses
import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fmcore import clock, config, run_facts
from fmcore.models.manifest import write_manifest
from fmcore.nouns import Job
from fmcore.runs import Runs, UnknownRun
from fmcore.store import retention
from fmcore.store.store import NotFinite, Store


class Params(BaseModel, extra="forbid"):
    task: str = "intent"
    dataset: str = ""
    base: str = ""


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def runs(store):
    return Runs(store, {"toy": Job("toy", "Toy", "", kind="heavy", params=Params)})


def test_a_run_without_facts_says_unknown_not_a_guess(store, runs):
    run = runs.start_now("toy", {"dataset": "demo"})
    facts = run_facts.of(store, run.id)
    assert (facts.job, facts.params["dataset"], facts.data["name"]) == ("toy", "demo", "demo")
    assert (facts.code_words, facts.device, facts.machine, facts.energy_j, facts.peak_rss_mb, facts.seconds) == (None,) * 6
    assert (facts.artefacts, facts.parents, facts.notes, dict(facts.libraries)) == ((), (), (), {}) and "Not noted" in facts.energy_note


def test_the_last_note_holds_and_sentences_add_up(store, runs):
    run = runs.start_now("toy")
    run_facts.note(store, run.id, {"code": {"commit": "a" * 40, "dirty": True}, "notes": ["one"], "seconds": 1.0})
    run_facts.note(store, run.id, {"seconds": 2.5, "notes": ["one", "two"], "parents": [{"id": "x", "how": "made from"}]})
    facts = run_facts.of(store, run.id)
    assert (facts.seconds, facts.notes) == (2.5, ("one", "two")) and facts.parents == (run_facts.Parent("x", "made from"),)
    assert facts.code_words == "commit aaaaaaaaaaaa, with uncommitted changes"
    assert store.rows("SELECT count(*) AS n FROM run_facts") == [{"n": 2}]


def test_facts_survive_a_restart(store, runs):
    run = runs.start_now("toy")
    run_facts.note(store, run.id, {"energy_j": 12.5, "energy_note": "RAPL"})
    store.close()
    again = Store(store.home)
    facts = run_facts.of(again, run.id)
    again.close()
    assert (facts.energy_j, facts.energy_note) == (12.5, "RAPL")


def test_a_number_that_is_none_is_refused_and_an_unknown_run_is_named(store, runs):
    run = runs.start_now("toy")
    with pytest.raises(NotFinite):
        run_facts.note(store, run.id, {"seconds": float("nan")})
    with pytest.raises(UnknownRun, match="nobody"):
        run_facts.of(store, "nobody")
    assert run_facts.if_known(store, "nobody") is None and run_facts.if_known(store, None) is None


def test_facts_go_with_the_run(store, runs):
    kept, gone = runs.start_now("toy"), None
    runs.finish(kept.id, "succeeded")
    gone = runs.start_now("toy")
    runs.finish(gone.id, "succeeded")
    for run in (kept, gone):
        run_facts.note(store, run.id, {"seconds": 1.0})
    with store.write() as tx:  # the newest run of a job stays
        tx.execute("UPDATE runs SET requested_at = requested_at - INTERVAL 1 DAY, finished_at = finished_at - INTERVAL 1 DAY WHERE id = ?", [gone.id])
    assert retention.forget_runs(store, ["toy"], before=clock.now()) == 1
    assert store.rows("SELECT run_id FROM run_facts") == [{"run_id": kept.id}]


def test_seconds_of_a_run_whose_desk_died_end_at_its_last_sign_of_life(store, runs):
    run = runs.start_now("toy")
    with store.write() as tx:
        tx.execute(
            """UPDATE runs SET state = 'interrupted', beat_at = started_at + INTERVAL 20 SECOND,
               finished_at = started_at + INTERVAL 9 HOUR WHERE id = ?""", [run.id])
    assert run_facts.of(store, run.id).seconds == 20.0


def test_figures_of_a_result_are_flat_numbers_and_intervals():
    accuracy = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 10}
    found = run_facts.figures({"accuracy": accuracy, "oos": {"recall": {**accuracy, "n": None}, "n": 3}, "name": "x", "refit": True, "none": None})
    assert found == {"accuracy": accuracy, "oos.recall": {"value": 0.9, "low": 0.8, "high": 0.95}, "oos.n": 3}


# --- code


def test_this_checkout_names_its_commit():
    version = run_facts.code_version()
    assert version["package"].startswith("fm-desk ")
    if (config.ROOT / ".git").exists():
        assert len(version["commit"]) == 40 and version["dirty"] in (True, False, None)


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "repo"
    root.mkdir()

    def git(*args, cwd=root):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
        return subprocess.run(["git", *who, *args], cwd=cwd, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    (root / "a.txt").write_text("one")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return root, git


def test_a_commit_is_read_from_a_branch_a_packed_ref_a_detached_head_and_a_worktree(checkout, tmp_path):
    root, git = checkout
    head = git("rev-parse", "HEAD")
    assert run_facts.commit_of(root / ".git") == head
    git("worktree", "add", "-q", str(tmp_path / "tree"), "-b", "other")
    assert run_facts.commit_of(tmp_path / "tree" / ".git") == head
    git("pack-refs", "--all")
    assert not (root / ".git" / "refs" / "heads" / "main").exists() and run_facts.commit_of(root / ".git") == head
    assert run_facts.commit_of(tmp_path / "tree" / ".git") == head
    git("checkout", "-q", "--detach")
    assert run_facts.commit_of(root / ".git") == head


def test_a_changed_file_makes_it_dirty_and_a_new_one_does_not(checkout):
    root, _ = checkout
    (root / "new.txt").write_text("x")
    assert run_facts._is_dirty(root) is False
    (root / "a.txt").write_text("two")
    assert run_facts._is_dirty(root) is True


def test_without_a_checkout_or_without_git_there_is_no_guess(tmp_path, monkeypatch):
    assert run_facts.commit_of(tmp_path / ".git") is None
    assert run_facts._is_dirty(tmp_path) is None
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: (_ for _ in ()).throw(FileNotFoundError("git")))
    assert run_facts._is_dirty(tmp_path) is None


@given(st.text(max_size=60))
def test_a_head_file_of_any_content_is_a_commit_or_none(tmp_path_factory, text):
    git = tmp_path_factory.mktemp("git")
    (git / "HEAD").write_text(text, encoding="utf-8", errors="replace")
    found = run_facts.commit_of(git)
    assert found is None or len(found) in (40, 64)


def test_a_process_knows_its_libraries_machine_and_memory():
    facts = run_facts.of_process()
    assert facts["libraries"]["torch"] and facts["libraries"]["python"] and facts["cpu_count"] >= 1 and facts["machine"]
    assert 5 < run_facts.peak_rss_mb() < 1_000_000
    assert json.loads(json.dumps(facts)) == facts


# --- a run's folder


def folder(tmp_path, **files):
    for name, content in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def test_the_data_hash_is_the_splits_own(tmp_path):
    run_dir = folder(tmp_path, **{"spec.json": "{}", "settings.json": "{}", "data__train.parquet": "rows", "data__data.json": '{"split_hash": "abc123"}'})
    frozen = run_facts.frozen(run_dir)
    assert (frozen["hash"], frozen["of"]) == ("abc123", "split_hash in data/data.json")
    assert [f["name"] for f in frozen["files"]] == ["data/data.json", "data/train.parquet"] and all(len(f["sha256"]) == 64 for f in frozen["files"])


def test_the_data_hash_is_the_corpus_own(tmp_path):
    frozen = run_facts.frozen(folder(tmp_path, **{"settings.json": '{"corpus": {"names": ["demo"], "hash": "c1"}}', "news.parquet": "x"}))
    assert (frozen["hash"], frozen["of"]) == ("c1", "corpus hash in settings.json")


def test_without_one_the_files_are_hashed_and_a_changed_byte_shows(tmp_path):
    run_dir = folder(tmp_path, **{"spec.json": "{}", "log.txt": "x", "checkpoint__step": "1", "rows.parquet": "rows"})
    first = run_facts.frozen(run_dir)
    (run_dir / "checkpoint" / "step").write_text("2")
    assert run_facts.frozen(run_dir) == first and first["of"] == "1 files"
    (run_dir / "rows.parquet").write_text("rowS")
    assert run_facts.frozen(run_dir)["hash"] != first["hash"]


def test_files_too_large_to_be_read_have_no_hash_and_neither_has_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(run_facts, "MAX_HASHED_BYTES", 5)
    frozen = run_facts.frozen(folder(tmp_path, a="1234", b="5678"))
    assert frozen["hash"] is None and [bool(f["sha256"]) for f in frozen["files"]] == [True, False]


def test_artefacts_are_what_was_not_there_before_with_the_manifests_hash(tmp_path):
    run_dir = folder(tmp_path, **{"data__train.parquet": "rows"})
    before = run_facts.frozen(run_dir)
    folder(run_dir, **{"model__encoder.onnx": "weights", "notes.json": "[]", "result.json": "{}", "checkpoint__w": "x"})
    write_manifest(run_dir / "model")
    (run_dir / "link").symlink_to("/etc/passwd")
    made = {entry["name"]: entry for entry in run_facts.artefacts(run_dir, before=before)}
    assert set(made) == {"model/encoder.onnx", "model/MANIFEST.json", "notes.json"}
    assert len(made["model/encoder.onnx"]["sha256"]) == 64 and made["notes.json"] == {"name": "notes.json", "bytes": 2, "sha256": None}


def test_a_run_with_thousands_of_files_stays_on_one_line_of_the_pipe(tmp_path):
    for n in range(300):
        (tmp_path / f"{n}-{'x' * 190}").write_text("x" * n)
    made = run_facts.artefacts(tmp_path, before={})
    assert made[0]["bytes"] == 299 and len(json.dumps(made)) < 60_000 and len(json.dumps(run_facts.frozen(tmp_path))) < 60_000


def test_parents_are_read_by_the_jobs_conventions(runs):
    run = dataclasses.replace(runs.request("toy", {"dataset": "demo"}), retry_of="r0", trigger="resume")
    frozen = {"params": {"task": "sentiment", "dataset": "financial_phrasebank"}, "base": "base:finance"}
    result = {"task": "sentiment", "teacher": "full-x-1", "verdict": {"compared_with": "linear-y-2"}, "base": "base:made-here"}
    found = {(p["id"], p["how"]) for p in run_facts.parents(run, result, frozen)}
    assert found == {
        ("r0", "resumed from"), ("data:financial_phrasebank", "learnt from"), ("sentiment@full-x-1", "made from"),
        ("sentiment@linear-y-2", "compared with"), ("base:finance", "started from"),
    }


def test_a_run_from_scratch_started_from_no_base_and_a_corpus_is_several_data_sets(runs):
    run = runs.request("toy")
    frozen = {"params": {"start": "scratch", "base": "minilm", "corpus": ""}, "corpus": {"names": ["financial_phrasebank", "stocknet"], "hash": "c1"}}
    assert [p["id"] for p in run_facts.parents(run, {}, frozen)] == ["data:financial_phrasebank", "data:stocknet"]
    [base] = [p for p in run_facts.parents(run, {}, {"params": {"start": "continue", "base": "minilm"}}) if p["how"] == "started from"]
    assert base["id"] == "base:minilm"


def test_what_a_run_learnt_from_is_its_datas_name(store, runs):
    run = runs.start_now("toy")
    run_facts.note(store, run.id, {"parents": [{"id": "data:demo", "how": "learnt from"}, {"id": "data:stocknet", "how": "learnt from"}]})
    assert run_facts.of(store, run.id).data["name"] == "demo, stocknet"


def test_a_compression_that_failed_still_names_its_teacher(runs):
    frozen = {"params": {"task": "sentiment"}, "teacher": {"version": "full-x-1", "sha256": "ab"}}
    assert {"id": "sentiment@full-x-1", "how": "made from"} in run_facts.parents(runs.request("toy"), {}, frozen)
