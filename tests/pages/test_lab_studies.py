"""The Lab's studies on the page: figures with their intervals, the way to the next study, the gate's word, and text as text."""

import copy
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from fmcore import comparing_runs, runtime
from fmcore.comparing_runs import Delta, Measured, Node
from fmcore.config import Settings
from fmcore.lab import defaults, studies
from jobs import JOBS
from pages import lab_ablation, lab_board, lab_charts, lab_labels, lab_runs
from pages.lab import VIEWS
from tests.pages import tiny_model

SHELL = str(Path(__file__).resolve().parents[2] / "pages" / "shell.py")
BAD = "<b>bold</b> $x$ :red[w]"


def board_row(version, title, accuracy, speed, **more):
    row = {
        "version": version, "variant": "linear", "title": title, "form": "fp32", "serving": False, "accuracy": accuracy,
        "low": accuracy - 0.02, "high": accuracy + 0.02, "macro_f1": accuracy, "lost_points": 0.3, "lost_low": -0.2, "lost_high": 0.9,
        "texts_per_s": speed, "speedup": speed / 100, "p50_ms": 2.0, "p95_ms": 4.0, "mb": 20.0, "n": 300, "on_front": True, "passes": True,
        "verdict": "It is good.", "slices": {"length: short": accuracy, "length: long": accuracy - 0.1, "label: card": 0.5},
    }  # fmt: skip
    return row | more


def board_content(*rows):
    return {
        "rows": list(rows), "reference": rows[0], "choice": rows[-1]["version"], "machine": {"cores": 2, "threads": 1}, "max_lost": 0.5,
        "sentence": f"{BAD} is fast.", "notes": [], "n": 300, "n_timed": 64, "rounds": 3, "synthetic": True,
    }  # fmt: skip


def point(method, shots, mean, **more):
    row = {"method": method, "title": method.title(), "shots": shots, "mean": mean, "low": mean - 0.03, "high": mean + 0.03, "n_seeds": 5}
    return row | {"n_test": 200, "trainable": 1000, "seconds": 1.5, "rss_mb": 500.0} | more


LABELS = {
    "points": [point("zero_shot", 0, 0.4), *(point(m, s, a) for m, s, a in (("frozen", 1, 0.5), ("frozen", 8, 0.7), ("frozen", -1, 0.9), ("full", 8, 0.6)))],
    "advice": [{"shots": 8, "method": "frozen", "sentence": f"With 8 examples per class use {BAD}."}],
    "sentence": "Frozen comes furthest.", "left_out": {"full, 64": "No time was left."}, "notes": [], "cells": [],
}  # fmt: skip


def effect(name, over, half=0.01, **more):
    row = {"name": name, "title": name, "mean": 0.8, "low": 0.78, "high": 0.82, "over": over, "n_seeds": 5, "n_test": 200, "seconds": 3.0}
    ends = {"over_low": None, "over_high": None} if over is None else {"over_low": over - half, "over_high": over + half}
    return row | ends | {"verdict": ""} | more


ABLATION = {
    "rows": [effect("plain", None), effect("R-Drop", 0.02), effect("dropout 0.3", -0.02), effect(BAD, 0.001)],
    "augmentations": [{"name": "synonym", "title": "Synonyms", "kept_share": 0.93, "low": 0.88, "high": 0.96, "n": 120,
                       "examples": [{"before": "profit rose", "after": BAD, "kept": "yes"}]}],
    "sentence": "R-Drop helps.", "winner": "R-Drop",
}  # fmt: skip


@pytest.fixture
def desk(tmp_path):
    runtime.stop()
    yield runtime.start(Settings(home=tmp_path / "home"), JOBS)
    runtime.stop()


def drawn(module):
    """The view of a module of pages/, as the Lab page draws it."""
    at = AppTest.from_file(SHELL, default_timeout=60)
    at.query_params["lab_view"] = next(view for view, name in VIEWS.items() if module.__name__ == f"pages.{name}")
    return at.switch_page("lab.py").run()


def told(at):
    return "\n".join([*(m.value for m in at.markdown), *(h.value for h in at.header)])


def keep(desk, kind, content, *, task="intent", run="r1"):
    return studies.keep(desk.store, kind=kind, task=task, dataset="demo", run_id=run, content=content)


# ---------------------------------------------------------------- empty


@pytest.mark.parametrize(("module", "job"), [(lab_board, "board"), (lab_labels, "label_study"), (lab_ablation, "ablation")])
def test_an_empty_view_starts_its_study(desk, module, job):
    at = drawn(module)
    assert not at.exception and not at.error
    at = at.button(key=f"start-{job}").click().run()
    assert [run.job for run in desk.runs.active()] == [job]
    assert not at.exception and not at.error
    at.button(key=f"cancel-{job}").click().run()
    assert not [run for run in desk.runs.active() if run.job == job]


def test_the_adaptation_study_has_its_own_view(desk):
    at = drawn(lab_ablation)
    at.segmented_control(key="ablation_view").set_value(lab_ablation.VIEWS[1]).run()
    assert at.button(key="start-adaptation") is not None and not at.exception


# ---------------------------------------------------------------- the board


def test_the_board_says_loss_interval_and_speed_of_every_version(desk):
    keep(desk, "board", board_content(board_row("ref", "PyTorch", 0.91, 100.0), board_row("v1", BAD, 0.90, 900.0)))
    at = drawn(lab_board)
    assert not at.exception and not at.error
    table = next(d.value for d in at.dataframe if "Points lost" in d.value)
    assert table["Texts/s"].tolist() == [900.0, 100.0] and table["95 % interval"].tolist() == ["−0.2 to +0.9"] * 2
    assert "300 held-out rows" in told(at) and "1 thread of 2 cores" in told(at) and "Demo data" in told(at)
    assert BAD not in told(at), "a title is text, not markup"


def test_a_version_serves_only_with_a_reason_and_what_the_gate_says_is_shown(desk, tmp_path):
    live = tiny_model.adopt(desk, tmp_path / "live", run_id="a")
    other = tiny_model.adopt(desk, tmp_path / "other", run_id="b", seed=1, promote=False)
    keep(desk, "board", board_content(board_row(live.version, "Live", 0.9, 100.0), board_row(other.version, "Other", 0.9, 300.0)))
    at = drawn(lab_board)
    assert at.button(key="board_serve").disabled
    assert desk.registry.gate(desk.registry.get("intent", other.version))["reason"].split(":")[0] in told(at).replace("\\", "")
    at.text_input(key="board_reason").set_value("a demo").run()
    at = at.button(key="board_serve").click().run()
    assert desk.registry.champion("intent").version == other.version
    assert desk.registry.promotions("intent")[0].reason == "a demo"


def test_what_the_registry_refuses_does_not_serve(desk, tmp_path):
    live = tiny_model.adopt(desk, tmp_path / "live", run_id="a")
    other = tiny_model.adopt(desk, tmp_path / "other", run_id="b", seed=1, promote=False)
    keep(desk, "board", board_content(board_row(live.version, "Live", 0.9, 100.0), board_row(other.version, "Other", 0.9, 300.0)))
    at = drawn(lab_board)
    at.text_input(key="board_reason").set_value("a demo").run()
    (other.path / "head.safetensors").write_bytes(b"changed")
    at = at.button(key="board_serve").click().run()
    assert at.error and desk.registry.champion("intent").version == live.version


def test_the_front_is_drawn_and_the_choice_is_ringed():
    rows = [board_row("ref", "PyTorch", 0.91, 100.0), board_row("a", "A", 0.9, 300.0), board_row("b", "B", 0.8, 200.0, on_front=False)]
    fig = lab_charts.pareto(rows, reference="ref", choice="a")
    line = next(trace for trace in fig.data if trace.mode == "lines")
    assert list(line.x) == [100.0, 300.0], "what is not on the front is not on its line"
    ringed = [trace for trace in fig.data if trace.mode == "markers+text" and trace.marker.line.width == 3]
    assert len(ringed) == 1 and ringed[0].x[0] == 300.0
    assert fig.layout.xaxis.type == "log" and "texts a second" in fig.layout.xaxis.title.text


def test_slices_are_numbers_in_cells():
    fig = lab_charts.slice_heat([board_row("a", BAD, 0.9, 1.0)], ["length: short", "label: card"], n={"label: card": 31})
    assert list(fig.data[1].text) == ["90.0", "50.0"] and "n 31" in fig.layout.xaxis.ticktext[1] and "<b>bold" not in "".join(fig.layout.yaxis.ticktext)


# ---------------------------------------------------------------- few labels


def test_the_curves_and_the_advice_of_a_number_of_labels(desk):
    keep(desk, "labels", LABELS)
    at = drawn(lab_labels)
    assert not at.exception and not at.error
    text = told(at)
    assert "With 8 examples per class" in text and BAD not in text and "No time was left" in text
    table = next(d.value for d in at.dataframe if "Trainable parameters" in d.value)
    assert len(table) == len(LABELS["points"]) and set(table["Labels a class"]) == {"none", "1", "8", "all"}


def test_no_labels_stand_left_of_one_and_all_right_of_the_most():
    assert lab_charts.place_of(0, 64) < lab_charts.place_of(1, 64) < lab_charts.place_of(64, 64) < lab_charts.place_of(-1, 64)
    fig = lab_charts.label_curves(pd.DataFrame(LABELS["points"]), methods=["zero_shot", "frozen", "full"])
    lines = {trace.name: trace for trace in fig.data if trace.name}
    assert list(lines["Frozen"].y) == [50.0, 70.0, 90.0] and list(lines["Frozen"].x) == sorted(lines["Frozen"].x)
    looks = {(trace.line.dash, trace.marker.symbol) for trace in lines.values()}
    assert len(looks) == len(lines), "not by colour alone"
    assert list(fig.layout.xaxis.ticktext) == ["none", "1", "8", "all"]


def test_a_default_that_a_study_chose_is_told_and_can_be_taken_back(desk):
    study = keep(desk, "labels", LABELS)
    defaults.choose(desk.store, "intent", defaults.Choice("full"), study_id=study.id, reason="It won by far.", by="label_study")
    at = drawn(lab_labels)
    assert "It won by far" in told(at) and study.id.replace("-", "\\-") in told(at) or study.id in told(at)
    at.button(key="labels_reset").click().run()
    assert defaults.chosen(desk.store, "intent") is None


def test_a_study_without_a_finished_cell_says_so(desk):
    keep(desk, "labels", {"points": [], "advice": [], "sentence": "", "left_out": {"all": "No time."}, "notes": []})
    at = drawn(lab_labels)
    assert not at.exception and not at.error and "No cell of this study was finished" in told(at)


# ---------------------------------------------------------------- what helps


def test_differences_say_in_words_what_their_interval_says(desk):
    keep(desk, "ablation", ABLATION)
    at = drawn(lab_ablation)
    assert not at.exception and not at.error
    table = next(d.value for d in at.dataframe if "Verdict" in d.value)
    assert table["Verdict"].tolist() == ["the yardstick", "helps", "harms", "not shown"]
    assert "R-Drop helps" in told(at).replace("\\", "") and BAD not in told(at)
    assert "93.0" in "".join(e.label for e in at.expander)


def test_the_chart_of_differences_leaves_the_yardstick_out_and_writes_each_number():
    fig = lab_charts.differences(ABLATION["rows"])
    words = [note.text for note in fig.layout.annotations]
    assert [word.split("  ")[1] for word in words] == ["helps", "harms", "not shown"] and "+2.0" in words[0] and "−2.0" in words[1]
    assert "<b>bold" not in "".join(fig.layout.yaxis.ticktext)


def test_an_older_study_can_be_looked_at(desk):
    keep(desk, "ablation", ABLATION, run="r1")
    newer = copy.deepcopy(ABLATION)
    newer["sentence"] = "Nothing helps."
    keep(desk, "ablation", newer, run="r2")
    at = drawn(lab_ablation)
    assert "Nothing helps" in told(at)
    at.selectbox(key="ablation_study").set_value("ablation-r1").run()
    assert "R-Drop helps" in told(at).replace("\\", "")


# ---------------------------------------------------------------- runs


def two_runs(desk):
    made = []
    for seed, loss in ((0, 0.9), (1, 0.5)):
        run = desk.runs.start_now("finetune", {"task": "intent", "seed": seed})
        for step in (1, 2):
            desk.runs.note(run.id, metrics=[(step, "loss", loss / step)])
        desk.runs.finish(run.id, "succeeded", result={"accuracy": {"value": 0.8 + seed / 100, "low": 0.7, "high": 0.9, "n": 100}})
        made.append(run)
    return made


def test_runs_side_by_side_show_only_what_differs_against_the_pinned_baseline(desk):
    first, second = two_runs(desk)
    at = drawn(lab_runs)
    assert not at.exception and not at.error
    differing = next(d.value for d in at.dataframe if "What" in d.value)
    assert "seed" in set(differing["What"]) and "task" not in set(differing["What"])
    at = at.button(key="runs_pin").click().run()
    assert comparing_runs.pinned(desk.store, first.id) == second.id, "the newest is picked first"
    at.button(key="runs_unpin").click().run()
    assert comparing_runs.pinned(desk.store, first.id) is None
    assert second.id in told(at).replace("\\", "")


def test_one_run_alone_says_what_to_do(desk):
    desk.runs.finish(desk.runs.start_now("finetune", {"task": "intent"}).id, "failed")
    at = drawn(lab_runs)
    assert not at.exception and not at.error and "Name another run" in told(at)


def test_no_run_says_where_to_start(desk):
    at = drawn(lab_runs)
    assert not at.exception and not at.error and "No run to look at yet" in told(at)


def test_a_difference_is_told_with_its_interval_and_verdict():
    row = Measured("accuracy", {"a": 0.5, "b": {"value": 0.7, "low": 0.6, "high": 0.8}}, {"b": Delta(0.2, 0.1, 0.3, "better")})
    assert lab_runs.told(row, "a") == "0.5" and lab_runs.told(row, "b") == "0.7 (+0.2, 0.1 to 0.3, better)" and lab_runs.told(row, "c") == ""


def test_descent_is_a_nested_list_of_text():
    tree = Node("data", "d", "demo", {}, children=(Node("version", "v", BAD, {"accuracy": 0.5}, asked=True),))
    first, second = lab_runs.lines(tree)
    assert first.startswith("- ") and second.startswith("    - ") and BAD not in second and "accuracy 0" in second


def test_no_view_imports_what_the_server_must_not():
    for module in (lab_ablation, lab_board, lab_charts, lab_labels):
        assert "torch" not in Path(module.__file__).read_text()
