"""Home: what is live with its interval, what runs, what to do first."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from fmcore import clock, runtime
from fmcore.sentiment import digest
from jobs import JOBS
from pages import home, sentiment_data, shell
from tests.pages import toy_desk, toy_news


@pytest.fixture
def desk():
    yield toy_desk.start(JOBS)
    runtime.stop()


def visit():
    return AppTest.from_file(str(Path(shell.__file__)), default_timeout=30).run()


def words(at):
    return " ".join(m.value for m in at.main.markdown).replace("\u00a0", " ").replace("\u2060", "")


def titles(desk):
    return [step.title for step in home.steps(desk, {"intent": desk.registry.champion("intent")})]


def test_an_empty_desk_offers_to_train_a_first_model(desk):
    at = visit()
    assert "No model is live yet" in words(at)
    assert titles(desk)[0] == "Train a first model"
    assert at.main.button[0].label == "Train"


def test_the_first_model_is_asked_for_once_and_then_shown_at_work(desk):
    visit().main.button[0].click().run()
    assert [run.job for run in desk.runs.active()] == ["finetune"]
    at = visit()
    assert "Train a first model" not in titles(desk)
    assert "The first one is being made" in words(at)
    assert "Waiting" in words(at)


def test_the_live_model_is_shown_with_its_interval_n_and_origin(desk, tmp_path):
    toy_desk.fill(desk, tmp_path)
    said = words(visit())
    assert "**90.0 %** of 315 held-out messages right" in said
    assert "95 % interval 87.0–93.0 %" in said
    assert "Demo data" in said
    assert "recipe linear" in said


def test_a_figure_that_was_not_measured_is_not_made_up(desk, tmp_path):
    made = toy_desk.version(desk.registry, tmp_path / "bare", 0.9, figures={})
    desk.registry.promote("intent", made.version, by="a test", reason="it is the only one")
    assert "**not measured**" in words(visit())


def test_a_newer_candidate_and_unused_real_data_are_worth_doing(desk, tmp_path, public_data):
    toy_desk.fill(desk, tmp_path)
    assert titles(desk) == ["Try a message", "Review a candidate", "Fine-tune on real data"]


def test_a_live_model_that_is_refused_is_not_called_live(desk, tmp_path):
    toy_desk.fill(desk, tmp_path)
    desk.engine.warm("intent")  # the toy's folder verifies and holds no model
    said = words(visit())
    assert "does not answer" in visit().main.error[0].value
    assert ":red-badge[:material/error: Refused]" in said
    assert titles(desk)[0] == "Make a model answer again"


def test_real_data_that_is_not_here_can_be_fetched(desk, tmp_path):
    toy_desk.fill(desk, tmp_path)
    assert "Fetch real data" in titles(desk)


def test_the_last_runs_carry_their_states_and_hostile_errors_stay_text(desk, tmp_path):
    toy_desk.fill(desk, tmp_path, running="maintain")
    at = visit()
    table = at.main.dataframe[-1].value
    assert {state for states in table["State"] for state in states} == {"Done", "Failed", "Cancelled", "Timed out"}
    assert "<b>out</b> of *memory*" in " ".join(table["What came of it"])
    assert "Reading \\<rows\\>" in " ".join(p.proto.text for p in at.main.get("progress"))


def test_the_quality_chart_draws_each_interval():
    figures = toy_desk.metrics(0.9)
    fig = home.quality_chart([("accuracy", figures["accuracy"]), ("oos.recall", figures["oos"]["recall"])])
    trace = fig.data[0]
    assert [round(v, 6) for v in trace.x] == [90.0, 86.0]
    assert [round(v, 6) for v in trace.error_x.array] == [3.0, 6.0]
    low, high = fig.layout.xaxis.range
    assert low <= 80
    assert high == 100


def test_the_brief_says_what_changed_with_its_numbers_and_keeps_to_the_watchlist(desk):
    toy_news.fill(desk.store)
    at = visit()
    said = words(at).replace("\\", "")
    assert "AAA: " in said and " sd" in said
    brief = digest.brief(desk.store, now=sentiment_data.now())
    assert all(line.text in said for line in brief.lines)
    assert [link.value for link in at.page_link if link.value == "Open"] == ["Open"] * len(brief.lines)
    at.multiselect(key="watchlist").set_value(["BBB"])
    at.button(key="watchlist_save").click().run()
    assert digest.watchlist(desk.store) == ("BBB",)
    assert "AAA: " not in words(visit()).replace("\\", "")


def test_too_little_news_makes_no_brief(desk):
    toy_news.write(desk.store, toy_news.rows(clock.now()).tail(5))
    assert "Too little news for a brief" in words(visit())


def test_open_alerts_come_first(desk):
    at = clock.to_store(clock.now())
    columns = {c["name"]: c["kind"] for c in desk.store.rows(
        "SELECT column_name AS name, data_type AS kind FROM information_schema.columns WHERE table_name = 'alert_events'")}
    blank = {"VARCHAR": "x", "DOUBLE": 1.0, "BOOLEAN": False, "TIMESTAMP": at}
    row = {name: blank.get(kind, 1) for name, kind in columns.items()} | {"transition": "firing", "kind": "surge", "severity": "high", "why": "{}"}
    with desk.store.write() as tx:
        tx.execute(f"INSERT INTO alert_events ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
    assert titles(desk)[0] == "Look at alerts"


def shelf_version(desk, folder, **figures):
    figure = {"value": 0.3, "low": 0.27, "high": 0.33, "n": 610}
    rows = [{"model": "popularity", "title": "Popularity", "hr": {**figure, "value": 0.1, "low": 0.08, "high": 0.12}}, {"model": "ease", "title": "EASE", "hr": figure}]
    facts = {"hr": figure, "ndcg": figure, "serving": "ease", "leaderboard": rows, "synthetic": True, **figures}
    made = toy_desk.version(desk.registry, folder, 0.0, dataset="demo_shop", recipe="shelf", figures=facts, task="recommend")
    desk.registry.promote("recommend", made.version, by="a test", reason="the first")
    return made


def test_a_live_recommender_is_told_with_its_interval_beside_popularity_and_counted(desk, tmp_path):
    before = {metric.label: metric.value for metric in visit().metric}
    shelf_version(desk, tmp_path / "shelf")
    at = visit()
    said = words(at)
    assert "**30.0 %** of 610 people met next what stood among their first ten" in said and "27.0–33.0 %" in said
    assert "EASE with recency answers" in said and "Demo data" in said
    chart = next(c for c in at.get("plotly_chart") if "Popularity" in c.proto.spec)
    assert "EASE" in chart.proto.spec
    after = {metric.label: metric.value for metric in at.metric}
    assert (before["Models live"], after["Models live"]) == ("0 of 4", "1 of 4")
    assert "1 of 4 models live" in " ".join(shell.health(desk))


def test_a_recommender_that_was_refused_is_not_counted_as_live(desk, tmp_path, monkeypatch):
    made = shelf_version(desk, tmp_path / "shelf")
    info = {"version": None, "champion": made.version, "warning": "Its files are damaged."}
    monkeypatch.setattr(desk.recommend, "info", lambda: info)
    at = visit()
    assert any("Its files are damaged." in e.value.replace("\\", "") for e in at.error)
    assert {metric.label: metric.value for metric in at.metric}["Models live"] == "0 of 4"
    assert "1 live model refused" in " ".join(shell.health(desk))


def test_a_first_recommender_at_work_is_said(desk):
    assert "No recommender is live yet" in words(visit())
    desk.runs.request("recommend", {"dataset": "demo_shop"})
    assert "No recommender is live yet. The first one is being made" in words(visit())
