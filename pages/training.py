"""Training: what runs by itself, a new run from a form, the live view of one, and what came of all of them.

Draws what `fmcore.runs` knows. A run's state is never guessed here: what is not running is not shown as running.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from fmcore import clock, run_facts, runtime
from fmcore.data import catalogue
from fmcore.lab import defaults
from fmcore.nouns import FMError, Job, Run, Schedule
from fmcore.tasks import RECOMMEND, TASKS
from pages import figures, forms, live, recommend_agents, ui

DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MISSED = ("Missed", "orange")
OF_PEOPLE = (RECOMMEND.name, recommend_agents.JOB)
"""Jobs whose data sets say who met what."""
TRAINS = "finetune"
"""The job whose recipe "auto" a study may choose."""
DETAIL = ("verdict.checks", "verdict.difference", "verdict.compared", "seconds.")
"""Parts of a result that the Models page shows better."""


def page() -> None:
    """The whole page; the live part redraws itself every two seconds."""
    desk = runtime.current()
    if desk is None:
        ui.no_server()
        return
    history = desk.runs.history(limit=200)
    active = desk.runs.active()
    done = sum(run.state == "succeeded" for run in history)
    ui.header("Training", f"{len(active)} running or waiting · {done} of the last {len(history)} runs done · times in UTC")
    _live(desk, tuple(run.id for run in active))
    _new_run(desk)
    _schedules(desk)
    _history(desk, history)


@st.fragment(run_every=2.0)
def _live(desk: Any, drawn: tuple[str, ...]) -> None:
    """Every run that is not over. When one ends or a new one comes, the whole page is drawn again."""
    active = desk.runs.active()
    if tuple(run.id for run in active) != drawn:
        st.rerun()
    if not active:
        with st.container(border=True):
            ui.card("Now", "refreshes by itself")
            st.markdown("Nothing is running. Start a run below, or wait for the next slot of a schedule.")
        return
    for run in active:
        _live_run(desk, run)


def _live_run(desk: Any, run: Run) -> None:
    metrics = desk.runs.metrics(run.id)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(width="content"):
                words = f"run {run.id} · {_short(run.params)} · started by {live.started_by(run)}"
                ui.card(_title(desk, run.job), ui.esc(words))
            if st.button("Cancel", key=f"cancel-{run.id}", icon=":material/stop_circle:"):
                _do(lambda: desk.runs.cancel(run.id, by=ui.who()), f"Cancel asked for run {run.id}.")
        live.strip(run, metrics)
        _notes(desk, run)
        if run.state == "running" and len(metrics):
            live.curves(metrics, key=f"live-{run.id}")


def _notes(desk: Any, run: Run) -> None:
    """What a person should know of a run beside its state, such as a copy of its curves that could not be written."""
    for sentence in run_facts.notes(desk.store, run.id):
        st.warning(ui.esc(sentence), icon=":material/info:")


def _do(action: Any, said: str) -> None:
    """Carry out what a click asked for; a refusal becomes a sentence, never a traceback."""
    try:
        action()
    except FMError as error:
        ui.refusal(error)
        return
    st.toast(said, icon=":material/check:")


def _title(desk: Any, job: str) -> str:
    return next((ui.esc(j.title) for j in _jobs(desk) if j.name == job), ui.esc(job))


def _jobs(desk: Any) -> list[Job]:
    return list(desk.jobs.values())


def _short(params: Mapping[str, Any]) -> str:
    """The few parameters that tell runs apart at a glance."""
    shown = [str(params[name]) for name in ("task", "dataset", "recipe", "base") if params.get(name)]
    if params.get("models"):
        shown.append("all models that fit" if params["models"] == "auto" else ui.short(params["models"], 60))
    for name, unit in (("shots", "shots"), ("minutes", "minutes"), ("steps", "steps"), ("seeds", "seeds")):
        if params.get(name):
            shown.append(f"{params[name]:,g} {unit}" if isinstance(params[name], (int, float)) else f"{params[name]} {unit}")
    return " · ".join(shown) or "default settings"


def _new_run(desk: Any) -> None:
    """A form made from the chosen job's parameters."""
    jobs = sorted(_jobs(desk), key=lambda job: job.kind != "heavy")  # as jobs.JOBS lists them: fine-tuning first
    with st.container(border=True):
        ui.card("Start a run", "one of a job runs at a time; one more may wait")
        if not jobs:
            st.markdown("No jobs are declared.")
            return
        names = [job.name for job in jobs]
        if st.query_params.get("job") in names:  # a link names the job; the widget itself writes its title there
            st.session_state["job"] = st.query_params["job"]
        name = st.selectbox("Job", names, key="job", bind="query-params", format_func=lambda n: next(j.title for j in jobs if j.name == n))
        job = next(j for j in jobs if j.name == name)
        st.markdown(f":gray[{ui.esc(job.summary)}]")
        if job.name == TRAINS:
            with ui.guarded():
                _usual(desk)
        with st.form(f"start-{job.name}", border=False):
            use = "recommend" if job.name in OF_PEOPLE else "classify"
            suggestions = {"dataset": [d.name for d in catalogue.datasets(use=use) if d.state != "missing"]}
            values, slots = forms.draw(job.params, key=f"start-{job.name}", suggestions=suggestions)
            sent = st.form_submit_button("Start the run", type="primary", icon=":material/play_arrow:")
        if sent:
            _start(desk, job, values, slots)


def _usual(desk: Any) -> None:
    """What the recipe "auto" means for each task, and why; a study's choice can be taken back."""
    chosen = {name: defaults.chosen(desk.store, name) for name in TASKS}
    for name in filter(chosen.get, TASKS):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            ui.note(ui.esc(defaults.told(desk.store, name)))
            if st.button("Back to the usual recipe", key=f"usual-{name}", icon=":material/undo:", help=f"Recipe {TASKS[name].recipe}."):
                _do(lambda name=name: defaults.reset(desk.store, name, by=ui.who()), f"auto trains {TASKS[name].title} as usual again.")
                st.rerun()
    if rest := ", ".join(f"{task.recipe} for {task.title}" for task in TASKS.values() if not chosen[task.name]):
        ui.note(f"Recipe auto is {ui.esc(rest)}.")


def _start(desk: Any, job: Job, values: Mapping[str, Any], slots: Mapping[str, Any]) -> None:
    params, errors = forms.checked(job.params, values)
    if params is None:
        forms.show_errors(errors, slots)
        return
    try:
        run = desk.runs.request(job.name, params)
    except FMError as error:
        ui.refusal(error)
        return
    st.toast(f"Run {run.id} is waiting for its turn.", icon=":material/check:")
    st.rerun()


def _schedules(desk: Any) -> None:
    """What runs by itself: when, when last, and what was missed."""
    with st.container(border=True):
        rows = desk.runs.schedules()
        ui.card("Schedules", "declared in code · UTC")
        if not rows:
            st.markdown("No job has a schedule: all run on request.")
            return
        st.dataframe(
            pd.DataFrame([_schedule_row(desk, row) for row in rows]),
            hide_index=True,
            row_height=34,
            key="schedules",
            alt="Schedules with next and last run",
            column_config={"Last": _state_column("Last ended")},
        )
        missed = desk.runs.missed(20)
        if missed:
            with st.expander(f"Missed slots ({len(missed)} newest)", icon=":material/event_busy:"):
                rows = [{"Job": slot.job, "Slot": f"{slot.slot_at:%d %b %H:%M}", "Reason": slot.reason} for slot in missed]
                st.dataframe(pd.DataFrame(rows), hide_index=True, row_height=34, alt="Schedule slots that were not run, with the reason")


def _state_column(label: str) -> Any:
    """Run states as coloured words."""
    words = [*live.STATES.values(), MISSED]
    return st.column_config.MultiselectColumn(label, options=[w[0] for w in words], color=[w[1] for w in words])


def _schedule_row(desk: Any, row: Schedule) -> dict:
    return {
        "Job": next((job.title for job in _jobs(desk) if job.name == row.job), row.job),
        "When": cron_words(row.cron),
        "Next run": f"{row.next_at:%d %b %H:%M} ({clock.ago(row.next_at)})" if row.next_at else "not planned",
        "Last run": f"{row.last_at:%d %b %H:%M} ({clock.ago(row.last_at)})" if row.last_at else "never",
        "Last": [{**live.STATES, "missed": MISSED}[row.last_state][0]] if row.last_state else [],
        "Missed slots": row.missed,
        "Cron": row.cron,
    }


def cron_words(cron: str) -> str:
    """A five-field cron line in words, for the shapes people use; any other line is given as it is."""
    parts = cron.split()
    if len(parts) != 5:
        return cron
    minute, hour, day, month, weekday = parts
    if (hour, day, month, weekday) == ("*", "*", "*", "*"):
        if minute.startswith("*/") and minute[2:].isdigit():
            return f"every {minute[2:]} minutes"
        if minute.isdigit():
            return f"every hour at {int(minute)} past"
        return "every minute" if minute == "*" else cron
    if minute.isdigit() and hour.startswith("*/") and hour[2:].isdigit() and (day, month, weekday) == ("*", "*", "*"):
        return f"every {hour[2:]} hours at {int(minute)} past"
    if not (minute.isdigit() and hour.isdigit() and month == "*"):
        return cron
    at = f"at {int(hour):02d}:{int(minute):02d}"
    if (day, weekday) == ("*", "*"):
        return f"every day {at}"
    if day == "*" and weekday.isdigit() and int(weekday) < len(DAYS):
        return f"every {DAYS[int(weekday)]} {at}"
    names = {name[:3].lower(): name for name in DAYS}
    if day == "*" and weekday.lower() in names:
        return f"every {names[weekday.lower()]} {at}"
    return f"on day {int(day)} of each month {at}" if day.isdigit() and weekday == "*" else cron


def _history(desk: Any, history: list[Run]) -> None:
    """All runs, one of them closely, and what differs from another."""
    with st.container(border=True):
        ui.card("Runs", f"newest first, last {len(history)}" if history else "")
        if not history:
            ui.empty("No runs yet", "Start one above: its progress, curves and log appear here.", icon=":material/model_training:")
            return
        _table(desk, history)
        ids = [run.id for run in history]
        with st.container(horizontal=True):
            chosen = st.selectbox("Look at run", ids, key="run", bind="query-params", width=360)
            others = [i for i in ids if i != chosen]
            against = st.selectbox(
                "Compare with", others, index=None, key="against", bind="query-params", placeholder="no other run", width=360
            )
        by_id = {run.id: run for run in history}
        if chosen in by_id:
            _details(desk, by_id[chosen])
            if against in by_id:
                _difference(by_id[chosen], by_id[against])


def _table(desk: Any, history: list[Run]) -> None:
    rows = [
        {
            "Run": run.id,
            "Job": next((job.title for job in _jobs(desk) if job.name == run.job), run.job),
            "Settings": _short(run.params),
            "State": [live.STATES.get(run.state, (run.state,))[0]],
            "Progress": round(100 * run.progress),
            "Quality": _quality(run),
            "Time": live.took(run),
            "Requested": clock.ago(run.requested_at),
            "By": live.started_by(run),
            "Device": run.device or "unknown",
        }
        for run in history
    ]
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        row_height=34,
        height=min(38 + 34 * len(rows), 380),
        alt="Run history",
        key="runs-table",
        placeholder="",
        column_config={
            "State": _state_column("State"),
            "Progress": st.column_config.ProgressColumn(format="%d%%", min_value=0, max_value=100, color="blue"),
            "Quality": st.column_config.TextColumn(
                width=104, help="On held-out rows: accuracy, or of recommendations HR@10; empty where a run made no model."
            ),
        },
    )


def _quality(run: Run) -> str:
    """What the version that a run made was measured at: accuracy, or HR@10 of a recommender; "" where it made none."""
    for name, words in (("accuracy", "right"), ("metrics.accuracy", "right"), ("hr", "HR@10")):
        figure = figures.at(run.result, name)
        if figure is not None:
            return f"{figures.value(figure)} {words}"
    return ""


def _details(desk: Any, run: Run) -> None:
    """One run closely: state, curves, settings, result and log; resume where there is something to resume."""
    metrics = desk.runs.metrics(run.id)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        words = f"run {ui.esc(run.id)} · asked for {ui.fresh(run.requested_at)} by {ui.esc(live.started_by(run))}"
        st.markdown(f"**{_title(desk, run.job)}** :small[:gray[{words}]]", width="content")
        if run.is_over and run.state != "succeeded" and st.button("Resume", key=f"resume-{run.id}", icon=":material/resume:"):
            _do(lambda: desk.runs.resume(run.id, by=ui.who()), "A new run continues from the last checkpoint.")
            st.rerun()
    if run.is_over:
        live.strip(run, metrics)
        _notes(desk, run)
    if version := run.result.get("version"):
        st.page_link(
            "models.py",
            label=f"Look at version {ui.esc(version)}",
            query_params={"task": run.result.get("task", RECOMMEND.name if run.job in OF_PEOPLE else "intent"), "model": version},
        )
    if run.job == recommend_agents.JOB and run.state == "succeeded":
        st.page_link("recommend.py", label="Look at the agents", query_params={"recommend_view": "Learning agents"})
    if len(metrics) and run.is_over:
        live.curves(metrics, key=f"past-{run.id}", everything=True)
    settings, result = ui.split(1, 1, border=False)
    with settings:
        _settings(desk, run)
    with result:
        st.markdown("**Result**")
        rows = [row for row in figures.plain(run.result) if not row[0].startswith(DETAIL)]
        if rows:
            st.table(_table_of(rows), border="horizontal", hide_header=True)
        else:
            st.markdown(":gray[None yet.]" if not run.is_over else ":gray[This run left no result.]")
    with st.expander("Log, last 200 lines", icon=":material/terminal:"):
        st.code(desk.runs.log_tail(run.id, lines=200) or "The log is empty.", language=None, height=320)


def _settings(desk: Any, run: Run) -> None:
    """What was set away from its default as a table, the rest in one quiet line."""
    st.markdown("**Settings**")
    job = next((job for job in _jobs(desk) if job.name == run.job), None)
    usual = {name: field.get_default() for name, field in job.params.model_fields.items()} if job else {}
    changed = {name: value for name, value in run.params.items() if name not in usual or usual[name] != value}
    if changed:
        st.table(_table_of(figures.plain(changed)), border="horizontal", hide_header=True)
    rest = [f"{name} {words or 'empty'}" for name, words in figures.plain({k: v for k, v in run.params.items() if k not in changed})]
    if rest:
        ui.note(f"At their defaults: {ui.esc(', '.join(rest))}.")


def _table_of(rows: Iterable[tuple[str, str]]) -> pd.DataFrame:
    shown = [(ui.esc(figures.label(name)), ui.esc(words[:200])) for name, words in rows]
    return pd.DataFrame(shown, columns=["", "Value"]).set_index("")


def _difference(run: Run, other: Run) -> None:
    """Only what is not the same in both."""
    rows = [("settings", *row) for row in figures.ordered(dict(figures.plain(run.params)), dict(figures.plain(other.params)))]
    rows += [("result", *row) for row in figures.ordered(dict(figures.plain(run.result)), dict(figures.plain(other.result)))]
    st.markdown(f"**What differs** :small[:gray[{ui.esc(run.id)} against {ui.esc(other.id)}; equal lines are left out]]")
    if not rows:
        st.markdown("Nothing: same settings, same result.")
        return
    table = pd.DataFrame(rows, columns=["Part", "Name", run.id, other.id])
    st.dataframe(table, hide_index=True, row_height=34, key="difference", alt="What differs between two runs")


if __name__ == "__main__":
    page()
