"""Home: the morning brief, what is live and how good, what runs now, what ran last, how fresh all is, and what to do first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore import clock, runtime
from fmcore.data import catalogue
from fmcore.nouns import FMError, ModelVersion, Run
from fmcore.sentiment import alerts
from fmcore.tasks import RECOMMEND, TASKS, first_run
from pages import brief, figures, leaderboard, live, ui
from pages.ranking_figures import MEASURES

SHOWN = ("accuracy", "macro_f1", "oos.recall")
"""Figures of a live model that are shares of held-out rows, and so fit one axis."""


@dataclass(frozen=True)
class Step:
    """One thing to do: a title, why, a button's label and what it does."""

    title: str
    why: str
    label: str
    do: Callable[[], None]


def page() -> None:
    """The whole page; what runs now redraws itself every two seconds."""
    desk = runtime.current()
    if desk is None:
        ui.no_server()
        return
    now = clock.now()
    ui.header("Home", f"{now:%A} {now.day} {now:%B}, {now:%H:%M} UTC · up for {clock.duration((now - desk.started_at).total_seconds())}")
    champions = {task: desk.registry.champion(task) for task in TASKS}
    _running(desk, tuple((run.id, run.state) for run in live.at_work(desk)))
    left, right = ui.split(2, 1)
    with left, ui.guarded():
        brief.draw(desk)
    with right:
        _do_first(desk, champions)
    recommender = desk.registry.champion(RECOMMEND.name)
    with st.grid(2, min_column_width=400, gap="small", border=True) as grid:
        for task, champion in champions.items():
            with grid.cell():
                _live_model(desk, task, champion)
        with grid.cell(), ui.guarded():
            _live_recommender(desk, recommender)
    history = desk.runs.history(limit=8)
    _freshness(desk, {**champions, RECOMMEND.name: recommender}, history)
    _last_runs(desk, history)


# ---------------------------------------------------------------- what is live


def _live_model(desk: Any, task: str, champion: ModelVersion | None) -> None:
    title = TASKS[task].title
    if champion is None:
        ui.card(title)
        waiting = bool(live.training(desk, task))
        st.markdown("No model is live yet." + (" The first one is being made: see the progress above." if waiting else ""))
        ui.note("A model is live once a run has trained it and it was promoted.")
        return
    warning = refusal_of(desk, task)
    chips = ui.chip("Refused", "red", ":material/error:") if warning else ui.chip("Live", "green", ":material/check_circle:")
    if is_synthetic(champion.dataset):
        chips += " " + ui.synthetic_mark()
    ui.card(title, chips=chips)
    if warning:
        st.error(f"**This version does not answer.** {ui.esc(warning)}", icon=":material/error:")
    accuracy = figures.at(champion.metrics, "accuracy")
    if accuracy is None:
        st.markdown("How good it is was **not measured**.")
    else:
        st.markdown(
            f"**{figures.value(accuracy)}** of {accuracy['n']:,} held-out messages right "
            f":small[:gray[95 % interval {figures.span(accuracy)}]]"
        )
        rows = [(name, figure) for name in SHOWN if (figure := figures.at(champion.metrics, name))]
        ui.show(quality_chart(rows), f"live-{task}", _quality_words(rows))
    ui.note(
        f"Version {ui.esc(champion.version)} · recipe {ui.esc(champion.recipe)} · data set {ui.esc(champion.dataset)}"
        f" · base {ui.esc(champion.base)}{_since(desk, champion)}"
    )


def _since(desk: Any, champion: ModelVersion) -> str:
    """Since when a version answers, as the end of a line."""
    promotion = next((p for p in desk.registry.promotions(champion.task) if p.version == champion.version), None)
    return f" · live since {ui.fresh(promotion.at)}" if promotion else ""


def refusal_of(desk: Any, task: str) -> str:
    """Why the live version of a task does not answer; "" where it does."""
    return str((desk.recommend.info() if task == RECOMMEND.name else desk.engine.info(task))["warning"] or "")


def _live_recommender(desk: Any, champion: ModelVersion | None) -> None:
    """What comes next for people: which model answers, how often it is right, and the way to its page."""
    if champion is None:
        ui.card(RECOMMEND.title)
        waiting = bool(live.training(desk, RECOMMEND.name))
        st.markdown("No recommender is live yet." + (" The first one is being made: see the progress above." if waiting else ""))
        st.page_link("recommend.py", label="Open Recommend", icon=":material/recommend:")
        return
    facts = champion.metrics
    warning = refusal_of(desk, RECOMMEND.name)
    chips = ui.chip("Refused", "red", ":material/error:") if warning else ui.chip("Live", "green", ":material/check_circle:")
    if facts.get("synthetic"):
        chips += " " + ui.synthetic_mark()
    ui.card(RECOMMEND.title, chips=chips)
    if warning:
        st.error(f"**The live version does not answer.** {ui.esc(warning)}", icon=":material/error:")
    hit = figures.at(facts, "hr")
    if hit is None:
        st.markdown("How good it is was **not measured**.")
    else:
        st.markdown(
            f"**{figures.value(hit)}** of {hit['n']:,} people met next what stood among their first ten "
            f":small[:gray[95 % interval {figures.span(hit)}]]"
        )
    rows = [row for row in leaderboard.ranked(facts.get("leaderboard") or ()) if row["model"] in ("popularity", facts.get("serving"))]
    if rows and facts.get("serving"):
        told = "; ".join(f"{row['title']} {MEASURES['hr'].full(row.get('hr'))}" for row in rows)
        ui.show(leaderboard.forest(rows, MEASURES["hr"], serving=facts["serving"]), "live-recommend", f"HR@10 with 95 % intervals: {told}.")
    ui.note(
        f"Version {ui.esc(champion.version)} · {ui.esc(leaderboard.title_of(str(facts.get('serving', 'unknown'))))} answers · data set "
        f"{ui.esc(champion.dataset)}{_since(desk, champion)}"
    )
    st.page_link("recommend.py", label="Open Recommend", icon=":material/recommend:")


def is_synthetic(name: str) -> bool:
    """Whether a data set of the catalogue was made up; a person's own file is not in the catalogue."""
    return any(entry.name == name and entry.synthetic for entry in catalogue.datasets())


def quality_chart(rows: list[tuple[str, Mapping[str, Any]]]) -> go.Figure:
    """Each figure as a point with its 95 % interval, on one axis in percent."""
    t = ui.tokens()
    names = [figures.NAMES[name] for name, _ in rows]
    value = [100 * figure["value"] for _, figure in rows]
    above = [100 * figure["high"] - v for (_, figure), v in zip(rows, value, strict=True)]
    below = [v - 100 * figure["low"] for (_, figure), v in zip(rows, value, strict=True)]
    notes = [figures.interval(figure, name) for name, figure in rows]
    fig = go.Figure(
        go.Scatter(
            x=value, y=names, mode="markers", customdata=notes, cliponaxis=False,
            marker={"size": 9, "color": t["accent"]},
            error_x={"type": "data", "array": above, "arrayminus": below, "color": t["accent"], "thickness": 2, "width": 0},
            hovertemplate="%{y}: <b>%{x:.1f} %</b><br>95 % interval %{customdata}<extra></extra>",
        )
    )  # fmt: skip
    for name, v, figure in zip(names, value, (f for _, f in rows), strict=True):
        fig.add_annotation(x=100 * figure["high"], y=name, text=f"<b>{v:.1f}</b>", showarrow=False, xanchor="left", xshift=8, font_size=12)
    ui.desk(fig, 34 * len(rows) + 40, hovermode="closest", showlegend=False, margin={"l": 8, "r": 40, "t": 8, "b": 8})
    low = min(100 * figure["low"] for _, figure in rows)
    fig.update_xaxes(range=[max(0, 10 * (low // 10) - 5), 100], ticksuffix=" %", nticks=6, showgrid=True)
    fig.update_yaxes(autorange="reversed", showgrid=False)
    return fig


def _quality_words(rows: list[tuple[str, Mapping[str, Any]]]) -> str:
    return "Quality on held-out messages: " + "; ".join(f"{figures.NAMES[name]} {figures.full(figure, name)}" for name, figure in rows)


# ---------------------------------------------------------------- what to do first


def steps(desk: Any, champions: Mapping[str, ModelVersion | None]) -> list[Step]:
    """What is worth doing now, most useful first, at most three."""
    champion = champions["intent"]
    busy = any(run.job == "finetune" for run in desk.runs.active())
    trained = {version.dataset for version in desk.registry.versions()}
    real = [d for d in catalogue.datasets(use="classify") if not d.synthetic]
    here = [d for d in real if d.state != "missing"]
    todo: list[Step] = []
    n_new = alerts.summary(desk.store)["unacknowledged"]
    if n_new:
        why = f"{n_new:,} firing, and nobody has said that they are at it."
        todo.append(Step("Look at alerts", why, "Open", lambda: st.switch_page("alerts.py")))
    bare = next((task for task, live_now in champions.items() if live_now is None), None)
    if bare is not None and not busy:
        why = f"{TASKS[bare].title}: about a minute on two cores; the demo texts are built in."
        todo.append(Step("Train a first model", why, "Train", lambda: _train(desk, bare)))
    if champion is not None and desk.engine.info("intent")["warning"]:
        why = "The live version is refused: roll back, promote another, or train again."
        todo.append(Step("Make a model answer again", why, "Open", lambda: st.switch_page("models.py")))
    elif champion is not None:
        why = "See its intent, whether it is in scope, and the reply."
        todo.append(Step("Try a message", why, "Open", lambda: st.switch_page("intent.py")))
    if champion is not None and champion.stage == "champion":
        fresh = [v for v in desk.registry.versions("intent") if v.stage == "candidate" and v.created_at > champion.created_at]
        if fresh:
            why = f"{len(fresh)} newer than the live one; the gate's verdict is there."
            todo.append(Step("Review a candidate", why, "Review", lambda: st.switch_page("models.py")))
    if real and not here:
        first = next(d for d in real if d.name in catalogue.DOWNLOADABLE)
        why = f"{first.title}: {first.size}, {first.licence}."
        todo.append(Step("Fetch real data", why, "Open", lambda: st.switch_page("data.py")))
    untrained = [d for d in here if d.name not in trained]
    if untrained and not busy:
        why = f"{untrained[0].title} is on this machine and no model has seen it."
        todo.append(Step("Fine-tune on real data", why, "Start", lambda: st.switch_page("training.py")))
    return todo[:3]


def _train(desk: Any, task: str) -> None:
    try:
        desk.runs.request("finetune", first_run(task))
    except FMError as error:
        ui.refusal(error)
        return
    st.rerun()


def _do_first(desk: Any, champions: Mapping[str, ModelVersion | None]) -> None:
    ui.card("Do first")
    todo = steps(desk, champions)
    if not todo:
        st.markdown("Nothing needs you now.")
        ui.note("A first model is being trained. It goes live by itself, in about a minute.")
    for i, step in enumerate(todo):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", wrap=False):
            with st.container(gap=None):
                st.markdown(f"**{ui.esc(step.title)}**")
                ui.note(ui.esc(step.why))
            if st.button(step.label, key=f"step-{i}", type="primary" if i == 0 else "secondary"):
                step.do()


# ---------------------------------------------------------------- runs


@st.fragment(run_every=2.0)
def _running(desk: Any, drawn: tuple[tuple[str, str], ...]) -> None:
    """What runs or waits, each with its progress. When that list changes, the whole page is drawn again."""
    active = live.at_work(desk)
    if tuple((run.id, run.state) for run in active) != drawn:
        st.rerun()
    for run in active:
        with st.container(border=True):
            ui.card(_title(desk, run), f"run {ui.esc(run.id)} · started by {ui.esc(run.trigger)}")
            live.strip(run, desk.runs.metrics(run.id))


def _title(desk: Any, run: Run) -> str:
    job = desk.jobs.get(run.job)
    return job.title if job else run.job


def _last_runs(desk: Any, history: list[Run]) -> None:
    done = [run for run in history if run.is_over]
    with st.container(border=True):
        ui.card("Last runs", "newest first · all of them on the Training page" if done else "")
        if not done:
            st.markdown("No run has ended yet.")
            return
        rows = [
            {
                "Run": " · ".join([_title(desk, run), *(str(run.params[name]) for name in ("dataset", "recipe") if run.params.get(name))]),
                "State": [live.STATES[run.state][0]],
                "What came of it": ui.short(run.error or run.message, 90),
                "Took": live.took(run),
                "Ended": ui.fresh(run.finished_at),
                "Started by": run.trigger,
            }
            for run in done
        ]
        states = list(live.STATES.values())
        column = st.column_config.MultiselectColumn(options=[s[0] for s in states], color=[s[1] for s in states])
        st.dataframe(pd.DataFrame(rows), hide_index=True, row_height=34, column_config={"State": column}, alt="The last runs, newest first")


# ---------------------------------------------------------------- freshness


def _freshness(desk: Any, champions: Mapping[str, ModelVersion | None], history: list[Run]) -> None:
    st.header("Freshness and health", anchor=False)
    with st.grid(4, min_column_width=190, gap="small"):
        n_live = sum(c is not None and not refusal_of(desk, task) for task, c in champions.items())
        newest = max((c.created_at for c in champions.values() if c), default=None)
        words = f"made {clock.ago(newest)}" if newest else "none yet"
        ui.kpi("Models live", f"{n_live} of {len(champions)}", words=words, icon=":material/deployed_code:")
        active = live.at_work(desk)
        n_running = sum(run.state == "running" for run in active)
        ended = next((run for run in history if run.is_over), None)
        words = f"last: {live.STATES[ended.state][0].lower()}" if ended else "none ended yet"
        ui.kpi("Runs at work", str(n_running), words=words, vs=f"{len(active) - n_running} waiting", icon=":material/model_training:")
        soonest = min((row for row in desk.runs.schedules() if row.next_at), key=lambda row: row.next_at, default=None)
        ui.kpi(
            "Next scheduled job", clock.ago(soonest.next_at) if soonest else "none", words=soonest.job if soonest else "no schedules",
            vs=f"{soonest.next_at:%H:%M} UTC" if soonest else "", icon=":material/event:",
        )  # fmt: skip
        sets = catalogue.datasets()
        here = [d for d in sets if d.state != "missing"]
        n_real = sum(not d.synthetic for d in here)
        words, made_up = f"{n_real} real", f"{len(here) - n_real} demo"
        ui.kpi("Data sets here", f"{len(here)} of {len(sets)}", words=words, vs=made_up, icon=":material/database:")


if __name__ == "__main__":
    page()
