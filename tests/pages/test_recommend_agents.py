"""The Learning agents view: what a contest stored, said plainly, also where learning was not worth it; and the run that makes one."""

import dataclasses
import shutil
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from fmcore import clock, runtime
from fmcore.config import Settings
from fmcore.recommend import contest, standings
from fmcore.recommend.contest import Contest, Plan
from fmcore.recommend.versions import Versions
from jobs import JOBS
from pages import agent_charts, live, recommend_agents
from tests.recommend import toy_service

SHELL = str(Path(__file__).resolve().parents[2] / "pages" / "shell.py")
NAMES = ("random", "popularity", "greedy", "linucb", "dqn")


def held(*, version="v1", learnt=0.0, note="", **changes) -> Contest:
    """A stored outcome: random 1, greedy 2 likes a visit on average, the learners 2 + learnt; all on the same visits."""
    import numpy as np

    rng = np.random.default_rng(0)
    luck = rng.normal(0, 0.3, (3, 40))
    level = {"random": 1.0, "popularity": 1.3, "greedy": 2.0, "linucb": 2.0 + learnt, "dqn": 2.0 + learnt}
    returns = {name: level[name] + luck + rng.normal(0, 0.05, (3, 40)) for name in NAMES}
    table = standings.table(returns, ranker="EASE")
    value = None if note else 0.2
    ends = (None, None) if note else (0.1, 0.3)
    off = [("greedy", "simulator", e, 0.25, 0.2, 0.3, 120.0, 600, 0.26, "") for e in ("ips", "snips", "dr")]
    off += [("greedy", "log", e, value, *ends, 12.0, 600, None, note) for e in ("ips", "snips", "dr")]
    curves = [(name, seed, step, 1.0 + step / 100) for name in ("linucb", "dqn") for seed in (0, 1) for step in (10, 60, 100)]
    facts = {
        "version": version, "dataset": "toy", "synthetic": True, "ranker": "EASE", "plan": Plan(steps=100, seeds=3), "seconds": 42.0,
        "returns": pd.DataFrame([(n, s, v, r) for n, f in returns.items() for s, row in enumerate(f) for v, r in enumerate(row)],
                                columns=["agent", "seed", "episode", "return"]),
        "curves": pd.DataFrame(curves, columns=["agent", "seed", "step", "return"]), "table": table,
        "off_policy": pd.DataFrame(off, columns=list(contest.OFF_POLICY)),
        "estimators": pd.DataFrame([("ips", 300, 50, 0, 0.94, 0.08, 110.0), ("dr", 300, 50, 0, 0.96, 0.04, 110.0)],
                                   columns=["estimator", "n", "repeats", "refused", "coverage", "relative_error", "mean_ess"]),
        "assumptions": ("Boredom (assumed): each look takes 30 % off.", "Position: <b>first</b> is looked at most."),
        "sentence": standings.verdict(table), "made_at": clock.now(),
    }  # fmt: skip
    return Contest(**facts | changes)


# ---------------------------------------------------------------- figures


def test_every_agent_has_its_interval_and_only_learners_are_judged_against_greedy():
    found = held(learnt=0.0)
    fig = agent_charts.returns(found)
    lines = [trace for trace in fig.data if trace.mode == "lines"]
    assert [tuple(line.x) for line in lines] == [tuple(row) for row in found.table[["low", "high"]].to_numpy()]
    notes = [note.text for note in fig.layout.annotations]
    assert notes[:3] == ["<b>1.00</b>  ", "<b>1.30</b>  ", "<b>2.00</b>  "] or all("better" not in one for one in notes[:3])
    assert all("not better" in one for one in notes[3:])
    better = agent_charts.returns(held(learnt=0.5)).layout.annotations
    assert all("better than greedy" in one.text for one in better[3:])


def test_each_seed_is_a_line_and_the_panels_share_a_scale():
    fig = agent_charts.curves(held())
    assert len([trace for trace in fig.data if trace.mode == "lines"]) == 4
    assert [note.text for note in fig.layout.annotations][:2] == ["LinUCB", "DQN"]
    assert fig.layout.yaxis2.matches == "y"


def test_estimates_stand_beside_the_truth_where_it_is_known_and_without_it_elsewhere():
    found = held().off_policy
    titles = {"greedy": "Greedy <b>EASE</b>"}
    simulated = agent_charts.estimates(found[found["source"] == "simulator"], titles)
    assert [trace.name for trace in simulated.data] == ["IPS", "SNIPS", "DR", "Truth"]
    assert simulated.data[0].error_x.array[0] == pytest.approx(0.05) and simulated.data[3].x[0] == 0.26
    real = agent_charts.estimates(found[found["source"] == "log"], titles)
    assert [trace.name for trace in real.data] == ["IPS", "SNIPS", "DR"]
    assert "<b>EASE" not in "".join(real.layout.yaxis.ticktext)


def test_the_table_says_no_where_an_agent_is_not_better_and_refused_where_nothing_was_estimated():
    table = recommend_agents.standings_table(held()).set_index("Agent")
    assert table.loc["LinUCB", "Better than greedy"] == "no" and table.loc["Greedy EASE", "Better than greedy"] == ""
    assert table.loc["LinUCB", "Over Random"].startswith("+1.0") and table.loc["Random", "Over Random"] == ""
    assert set(recommend_agents.standings_table(held(learnt=0.5)).set_index("Agent").loc[["LinUCB", "DQN"], "Better than greedy"]) == {"yes"}
    rows = held(note="Not estimated: too few.").off_policy.query("source == 'log'")
    assert set(recommend_agents.estimates_table(rows, {})["Estimate"]) == {"refused"}


def test_what_an_agent_earns_while_training_has_a_curve_with_its_name_and_unit():
    for name in contest.LEARNERS:
        title, unit, *_ = live.CURVES[f"return_{name}"]
        assert recommend_agents.AGENTS[name].title in title and "likes a visit" in unit
        assert f"return_{name}" in live.MAIN


# ---------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A home with a live version, for the whole file; each test has its own copy."""
    folder = tmp_path_factory.mktemp("agents")
    runtime.stop()
    return toy_service.served(folder / "home", folder, data=toy_service.shop(n_users=60))


@pytest.fixture
def desk(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "home")
    runtime.stop()
    made = runtime.start(Settings(home=tmp_path / "home"), JOBS)
    made.recommend.versions = Versions(made.registry, load=toy_service.load)
    yield made
    runtime.stop()


def opened() -> AppTest:
    at = AppTest.from_file(SHELL, default_timeout=60)
    at.query_params["recommend_view"] = "Learning agents"
    return sound(at.switch_page("recommend.py").run())


def sound(at: AppTest) -> AppTest:
    assert not at.exception
    assert not at.error
    return at


def plain(at) -> str:
    return "\n".join(m.value for m in at.markdown).replace("\\", "").replace("\u2060", "").replace("\u00a0", " ")


def live_version(desk) -> str:
    return desk.recommend.shelf().version


def test_without_a_contest_a_button_starts_one_and_says_how_long(desk):
    at = opened()
    assert "No agents have been trained yet" in plain(at) and "minutes" in plain(at)
    sound(at.button(key="agents_start").click().run())
    (run,) = desk.runs.active()
    assert run.job == "reinforce"
    assert "Agents are learning" in {h.value for h in at.header} and "Waiting" in plain(at)


def test_a_run_at_work_shows_its_curves_and_can_be_cancelled(desk):
    run = desk.runs.start_now("reinforce", None, trigger="manual")
    metrics = [(step, "return_linucb", 1.0 + step / 10) for step in (1, 2, 3)]
    desk.runs.note(run.id, progress=0.4, message="LinUCB, seed 1 of 5", device="cpu", metrics=metrics)
    at = opened()
    assert "LinUCB, seed 1 of 5" in " ".join(p.proto.text for p in at.get("progress")) or "LinUCB, seed 1 of 5" in plain(at)
    (chart,) = at.get("plotly_chart")
    assert "LinUCB" in chart.proto.spec and "return_linucb" not in chart.proto.spec
    sound(at.button(key="agents_cancel").click().run())
    assert desk.runs.get(run.id).cancel_asked_at is not None


def test_a_contest_is_told_with_what_it_assumes_and_that_people_are_simulated(desk):
    found = held(version=live_version(desk))
    contest.save(desk.store, found, run_id="r1")
    said = plain(opened())
    assert found.sentence in said and "Not better than Greedy EASE: LinUCB, DQN." in said
    assert "Simulated people" in said and "Demo data" in said
    assert "**Boredom (assumed)**: each look takes 30 % off." in said and "<b>first</b>" in said
    assert "3 seeds of 100 steps" in said and recommend_agents.WHAT in said
    assert all("<b>" not in m.value.replace("\\<", "") for m in opened().markdown)


def test_better_than_greedy_is_said_only_where_it_is_so(desk):
    contest.save(desk.store, held(version=live_version(desk), learnt=0.5), run_id="r1")
    said = plain(opened())
    assert "Better than Greedy EASE: LinUCB, DQN." in said and "Not better than" not in said


def test_a_contest_of_another_version_says_so(desk):
    contest.save(desk.store, held(version="an-older-one"), run_id="r1")
    at = opened()
    (warning,) = at.warning
    assert "an\\-older\\-one" in warning.value and "answers now" in warning.value


def test_a_refused_estimate_says_why_and_is_no_number(desk):
    contest.save(desk.store, held(version=live_version(desk), note="Not estimated: 600 rows are worth 12.0."), run_id="r1")
    at = opened()
    assert "Not estimated" not in plain(at)
    sound(at.segmented_control(key="agents_rows").set_value("log").run())
    assert "Not estimated: 600 rows are worth 12.0." in plain(at)
    assert not [chart for chart in at.get("plotly_chart") if "IPS" in chart.proto.spec]


def test_a_contest_without_learners_or_rows_is_still_a_page(desk):
    bare = held(version=live_version(desk))
    empty = {"curves": bare.curves.iloc[:0], "off_policy": bare.off_policy.iloc[:0], "estimators": bare.estimators.iloc[:0]}
    contest.save(desk.store, dataclasses.replace(bare, **empty), run_id="r1")
    said = plain(opened())
    assert "No agent that learns took part." in said and "Nothing was estimated." in said
