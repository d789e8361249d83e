"""The Pareto board: what is on the front, what is lost, what is chosen; and the job that stores it and lets the chosen one serve."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcore import runtime
from fmcore.config import Settings
from fmcore.data import catalogue
from fmcore.lab import board, studies
from fmcore.models.gate import read_heldout
from fmcore.models.manifest import write_manifest
from fmcore.models.registry import UnknownModel
from fmcore.nouns import Cancelled
from fmcore.training import linear
from jobs import board as job
from tests.pages import tiny_model
from tests.tiny_encoder import save_tiny_encoder, tiny_data

FEW = board.Timing(n_texts=16, n_single=8, rounds=2)


class Quiet:
    def __init__(self, cancel_at=None):
        self.cancel_at, self.seen = cancel_at, []

    def progress(self, fraction, message=""):
        self.seen.append(fraction)
        if self.cancel_at is not None and len(self.seen) >= self.cancel_at:
            raise Cancelled

    def metric(self, step, **values):
        pass

    def device(self, name):
        pass


@pytest.fixture
def desk(tmp_path):
    runtime.stop()
    yield runtime.start(Settings(home=tmp_path / "home"), {})
    runtime.stop()


def adopt(desk, tmp_path, name, *, wrong=0, **options):
    """A small real version, `wrong` of its right held-out answers made wrong before it is adopted."""
    made = desk.registry
    folder = tmp_path / name
    if not wrong:
        return tiny_model.adopt(desk, folder, run_id=name, **options)

    class Spoilt:
        @staticmethod
        def adopt(folder, **facts):
            answers = read_heldout(folder)
            right = answers.index[(answers["label"] == answers["predicted"]) & (answers["label"] != "oos")][:wrong]
            answers.loc[right, "predicted"] = [
                next(x for x in sorted(set(answers["label"])) if x not in (label, "oos")) for label in answers.loc[right, "label"]
            ]
            answers.to_parquet(folder / "heldout.parquet", index=False)
            write_manifest(folder)
            return made.adopt(folder, **facts)

        promote, get = staticmethod(made.promote), staticmethod(made.get)

    return tiny_model.adopt(type("Desk", (), {"registry": Spoilt})(), folder, run_id=name, **options)


def on_board(desk, versions, *, serving):
    return [board.Variant(v.version, v.recipe, v.version, desk.registry.verified(v), serving=v.version == serving) for v in versions]


def test_a_board_tells_loss_speed_size_and_slices_of_each_version(desk, tmp_path):
    good = adopt(desk, tmp_path, "good")
    worse = adopt(desk, tmp_path, "worse", wrong=12, promote=False)
    data = catalogue.load("demo")
    variants = on_board(desk, [good, worse], serving=good.version)
    found = board.measure(variants, data, task="intent", reference=good.version, report=Quiet(), timing=FEW, max_lost=1.0, resamples=200)
    rows = {row["version"]: row for row in found["rows"]}
    assert set(rows) == {good.version, worse.version}
    n = rows[good.version]["n"]
    assert rows[good.version]["lost_points"] == 0 and rows[worse.version]["lost_points"] == pytest.approx(1200 / n, abs=1e-3)
    assert rows[worse.version]["lost_low"] > 0
    assert rows[good.version]["serving"] and rows[good.version]["accuracy"] - rows[worse.version]["accuracy"] == pytest.approx(
        12 / n, abs=1e-4
    )
    for row in rows.values():
        assert row["texts_per_s"] > 0 and 0 < row["p50_ms"] <= row["p95_ms"] and row["mb"] > 0
        assert any(name.startswith("length: ") for name in row["slices"]) and any(name.startswith("label: ") for name in row["slices"])
        assert min(row["slices"].values()) >= 0 and max(row["slices"].values()) <= 1
    assert found["choice"] == good.version and good.version in found["sentence"] and found["synthetic"]
    assert "PyTorch is not on the board" in found["notes"][0]


def test_the_fastest_within_the_loss_is_chosen_and_none_where_all_lose_more():
    rows = [
        {"version": board.REFERENCE, "lost_points": 0.0, "texts_per_s": 100.0},
        {"version": "a", "lost_points": 0.4, "texts_per_s": 300.0},
        {"version": "b", "lost_points": 0.5, "texts_per_s": 400.0},
        {"version": "c", "lost_points": 0.6, "texts_per_s": 900.0},
    ]
    assert board._choice(rows, 0.5) == "b"
    assert board._choice(rows[2:], 0.1) == "" and "No version" in board._sentence(rows, "", 0.1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=12))
def test_the_front_holds_exactly_what_nothing_beats(points):
    front = board.front_of([{"accuracy": a / 5, "texts_per_s": float(s)} for a, s in points])
    assert any(front)
    for place, (a, s) in enumerate(points):
        beaten = any((x >= a and y >= s) and (x > a or y > s) for x, y in points)
        assert front[place] == (not beaten)


def test_what_serving_never_reads_is_not_counted(tmp_path):
    (tmp_path / "fast").mkdir()
    for name, size in (
        ("encoder.onnx", 2_000_000),
        ("encoder.safetensors", 9_000_000),
        ("heldout.parquet", 5_000),
        ("fast/static.safetensors", 500_000),
    ):
        (tmp_path / name).write_bytes(bytes(size))
    assert board.served_mb(tmp_path) == pytest.approx(2.5)


def test_no_version_and_an_unknown_reference_are_refused(desk, tmp_path):
    with pytest.raises(board.NothingToCompare):
        board.measure([], catalogue.load("demo"), task="intent", reference="x", report=Quiet())
    good = adopt(desk, tmp_path, "good")
    with pytest.raises(board.NothingToCompare):
        board.measure(on_board(desk, [good], serving=""), catalogue.load("demo"), task="intent", reference="x", report=Quiet())


@pytest.mark.slow
def test_pytorch_stands_on_the_board_with_a_head_of_its_own(tmp_path):
    data, base, folder = tiny_data(n_train=40), save_tiny_encoder(tmp_path / "base"), tmp_path / "model"
    plan = linear.LinearParams(base=base, random_features=64, resamples=50, max_tokens=32, fast=True)
    linear.train(data, plan, folder, Quiet())
    variant = board.Variant("v1", "linear", "Frozen", folder, form="fp32", serving=True)
    found = board.measure([variant], data, task="intent", reference="v1", report=Quiet(), timing=FEW, resamples=50)
    first, second = found["rows"]
    assert (first["version"], second["version"]) == (board.REFERENCE, "v1") and found["reference"] == first
    assert first["speedup"] == 1.0 and first["lost_points"] == 0.0 and first["mb"] > 0
    assert abs(second["lost_points"]) <= 15 and first["accuracy"] > 0.5, "the same encoder, a head fitted on the same rows"
    assert found["choice"] in ("v1", "")


# ---------------------------------------------------------------- the job


def ran(desk, name="run-1", *, report=None, **params):
    folder = desk.store.home / "runs" / name
    folder.mkdir(parents=True)
    job.prepare(desk.store, job.Params(n_texts=16, **params), folder)
    job.work(folder, report or Quiet())
    return folder


def test_a_board_is_stored_once_with_the_gates_word_on_each_version(desk, tmp_path):
    good = adopt(desk, tmp_path, "good")
    worse = adopt(desk, tmp_path, "worse", wrong=40, promote=False)
    folder = ran(desk)
    told = job.land(desk.store, folder)
    assert job.land(desk.store, folder) == told and told["n_versions"] == 2 and not told["promoted"]
    stored = studies.latest(desk.store, kind="board", task="intent")
    assert len(studies.listed(desk.store, kind="board")) == 1
    rows = stored.table("rows").set_index("version")
    assert rows.loc[good.version, "verdict"] == "It serves now." and not rows.loc[worse.version, "passes"]
    assert "worse" in rows.loc[worse.version, "verdict"]
    assert pd.notna(rows["accuracy"]).all() and np.isfinite(rows["texts_per_s"]).all()


def test_a_chosen_version_that_the_gate_refuses_does_not_serve(desk, tmp_path, monkeypatch):
    good = adopt(desk, tmp_path, "good")
    worse = adopt(desk, tmp_path, "worse", wrong=40, promote=False)
    monkeypatch.setattr(board, "_choice", lambda rows, max_lost: worse.version)
    told = job.land(desk.store, ran(desk, promote="gate"))
    assert told["choice"] == worse.version and not told["promoted"]
    assert desk.registry.champion("intent").version == good.version


def test_without_a_version_it_says_so(desk):
    with pytest.raises(UnknownModel):
        ran(desk)


def test_a_cancel_ends_it(desk, tmp_path):
    adopt(desk, tmp_path, "good")
    with pytest.raises(Cancelled):
        ran(desk, report=Quiet(cancel_at=2))
