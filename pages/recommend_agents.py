"""Learning agents, a view of the Recommend page: who earns more likes a visit in the simulator, and what logged rows say of them.

Draws the latest stored contest and the run that makes the next one. That the people are simulated, and what was assumed of them, stands
on the page; "not better than greedy" is said where it is so.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from fmcore import clock
from fmcore.nouns import FMError, Run
from fmcore.recommend import contest
from fmcore.recommend.agents import AGENTS, BASELINES
from fmcore.recommend.contest import Contest
from fmcore.recommend.off_policy import LEAST_ESS
from pages import agent_charts, figures, live, ui

JOB = "reinforce"

SOURCES = {
    "simulator": ("Simulator", "Rows drawn in the simulator by a policy that is known: here the truth is known too, and shown."),
    "log": ("Real log", "Rows of the data set. Who led people there is estimated from the log, so these rest on one more guess."),
    "live": ("Shown here", "What the live learner showed on this desk, with the chances it wrote down."),
}
"""Source of off-policy rows -> its name, and what it is."""

WHAT = (
    "IPS weighs each logged answer by how much more often the judged agent would have shown that item than whoever was in charge; SNIPS "
    "divides by the sum of these weights, which is steadier and a little biased. DR begins with a model that foretells the answers and "
    "lets the weighted rows correct only what it foretells wrongly, so it needs fewer of them."
)
LIVE = {"learner": "The live learner", "even": "Groups drawn evenly"}
"""Who is judged on what was shown here."""


def draw(desk: Any) -> None:
    """The whole view."""
    version = desk.recommend.info()["version"]
    found = contest.latest(desk.store, version) or contest.latest(desk.store)
    run = _at_work(desk)
    if run is not None:
        _progress(desk, run.id)
    if found is None:
        if run is None:
            _nothing(desk)
        return
    grid = st.grid(3, min_column_width=290, gap="small", border=True, dense=True)
    outcome, assumed, learnt = grid.cell(column_span=2), grid.cell(row_span=2), grid.cell(column_span=2)
    with outcome, ui.guarded():
        _outcome(desk, found, version, waiting=run is not None)
    with learnt, ui.guarded():
        _curves(found)
    with assumed, ui.guarded():
        _assumed(found)
    with st.container(border=True), ui.guarded():
        _table(found)
    with st.container(border=True), ui.guarded():
        _off_policy(found)


# ---------------------------------------------------------------- the run


def _at_work(desk: Any) -> Run | None:
    return next((run for run in desk.runs.active() if run.job == JOB), None)


@st.fragment(run_every=2.0)
def _progress(desk: Any, run_id: str) -> None:
    """The run as it is this moment; the view is drawn anew when it ends."""
    run = desk.runs.get(run_id)
    if run.is_over:
        st.rerun()
    metrics = desk.runs.metrics(run.id)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(width="content"):
                ui.card("Agents are learning", "this view fills by itself")
            if st.button("Cancel", key="agents_cancel", icon=":material/stop_circle:"):
                _cancel(desk, run.id)
        live.strip(run, metrics)
        if run.state == "running":
            live.curves(metrics, key="agents_live")


def _cancel(desk: Any, run_id: str) -> None:
    try:
        desk.runs.cancel(run_id, by=ui.who())
    except FMError as error:
        ui.refusal(error)
        return
    st.toast("Cancel asked for.", icon=":material/check:")


def how_long(desk: Any) -> str:
    """What a run does and how long it takes, or took the last time. Plain text."""
    said = f"{sum(agent.learns for agent in AGENTS.values())} agents learn, each with 5 seeds, beside those that follow a model or chance."
    last = next((run for run in desk.runs.history(job=JOB, limit=20) if run.state == "succeeded"), None)
    if last is None:
        return f"{said} Ten to twenty minutes on one core; it can be stopped at any time."
    return f"{said} The last run took {live.took(last)}, with {last.params.get('seeds', 5)} seeds."


def _nothing(desk: Any) -> None:
    last = next(iter(desk.runs.history(job=JOB, limit=1)), None)
    words = how_long(desk)
    if last is not None and last.error:
        words = f"The last try ended early: {ui.short(last.error, 200)}"
    with ui.empty("No agents have been trained yet", words, icon=":material/psychology:", height=260):
        _button(desk, "Let agents compete", kind="primary")


def _button(desk: Any, label: str, *, kind: str, disabled: bool = False) -> None:
    if st.button(label, key="agents_start", type=kind, icon=":material/play_arrow:", disabled=disabled, help=how_long(desk)):
        try:
            desk.runs.request(JOB, {})
        except FMError as error:
            ui.refusal(error)
            return
        st.rerun()


# ---------------------------------------------------------------- the outcome


def _outcome(desk: Any, found: Contest, version: str | None, *, waiting: bool) -> None:
    """What came of it: the sentence, and a dot with its interval for each agent."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        with st.container(width="content"):
            ui.card("Likes a visit", "mean and 95 % interval, on the same visits", _marks(found))
        _button(desk, "Run again", kind="tertiary", disabled=waiting)
    if found.version != version:
        st.warning(f"This contest was held for {ui.esc(found.version)}; {ui.esc(version)} answers now.", icon=":material/history:")
    st.markdown(ui.esc(found.sentence))
    told = " ".join(found.table["sentence"])
    ui.show(agent_charts.returns(found), "agents_returns", f"Likes a visit with 95 % intervals. {told}")
    plan = found.plan
    ui.note(
        f"Band and dotted: {ui.esc(_greedy(found))}. Better: the paired difference on the same visits lies above zero, which it can where "
        f"the intervals overlap. {plan.seeds} seeds of {plan.steps:,} steps, {plan.n_visits:,} visits each · {ui.esc(found.version)}, "
        f"{ui.esc(found.dataset)} · made {ui.fresh(found.made_at)} in {clock.duration(found.seconds)}"
    )


def _assumed(found: Contest) -> None:
    ui.card("What is assumed", chips=ui.chip("Simulated people", "violet", ":material/science:"))
    st.markdown(":small[Nobody clicked on any of this. The simulator makes visits out of a log, and the result is no better than this:]")
    for said in found.assumptions:
        head, colon, rest = said.partition(":")
        st.markdown(f":small[**{ui.esc(head)}**{ui.esc(colon + rest)}]" if colon and len(head) < 30 else f":small[{ui.esc(said)}]")


def _marks(found: Contest) -> str:
    return ui.synthetic_mark() if found.synthetic else ""


def _greedy(found: Contest) -> str:
    rows = found.table[found.table["agent"] == "greedy"]["title"]
    return str(rows.iloc[0]) if len(rows) else "greedy"


def standings_table(found: Contest) -> pd.DataFrame:
    """A row an agent as words: Agent, Likes a visit, 95 % interval, Over <each agent that does not learn>, Better than greedy, Seeds,
    visits."""
    rows, titles = [], {row["agent"]: f"Over {row['title']}" for row in found.table.to_dict("records")}
    for row in found.table.to_dict("records"):
        line = {"Agent": row["title"], "Likes a visit": row["mean"], "95 % interval": f"{row['low']:.2f}{figures.DASH}{row['high']:.2f}"}
        line |= {titles[base]: _over(row, base) for base in BASELINES if base in titles}
        line |= {"Better than greedy": "" if row["better_than_greedy"] is None else "yes" if row["better_than_greedy"] else "no"}
        rows.append(line | {"Seeds, visits": f"{row['n_seeds']} × {row['n_visits']:,}"})
    return pd.DataFrame(rows)


def _over(row: dict, base: str) -> str:
    if pd.isna(row.get(f"over_{base}")):
        return ""
    value, low, high = (row[f"over_{base}{end}"] for end in ("", "_low", "_high"))
    # An end that rounds to nothing gets a digit more: which side of zero it is on decides.
    shown = [ui.signed(one, 3 if abs(one) < 0.005 else 2) for one in (value, low, high)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def _table(found: Contest) -> None:
    ui.card("Who beats whom", "paired differences in likes a visit on the same visits, with 95 % intervals over seeds and visits")
    table = standings_table(found)
    st.dataframe(
        table, hide_index=True, row_height=34, height=38 + 34 * len(table), key="agents_table", placeholder="",
        alt="Agents with likes a visit and their differences to random, popularity and greedy",
        column_config={
            "Agent": st.column_config.TextColumn(width=136),
            "Likes a visit": st.column_config.NumberColumn(format="%.2f", width=84),
            "95 % interval": st.column_config.TextColumn(width=92),
            "Better than greedy": st.column_config.TextColumn("Better", width=60, help="Than the greedy model, by the paired difference."),
        },
    )  # fmt: skip
    with st.expander("What each agent does", icon=":material/psychology:"):
        for name, agent in AGENTS.items():
            if name in set(found.table["agent"]):
                st.markdown(f":small[**{ui.esc(agent.title)}** {ui.esc(agent.summary)}]")
    ui.download("Returns of every visit as CSV", found.returns, "returns.csv", key="agents_csv", type="tertiary")


def _curves(found: Contest) -> None:
    ui.card("How they learnt", "likes a visit while training, a line a seed · one scale for all")
    if not len(found.curves):
        st.markdown("No agent that learns took part.")
        return
    last = found.curves.sort_values("step").groupby(["agent", "seed"])["return"].last().groupby("agent")
    told = "; ".join(f"{AGENTS[name].title} {part.min():.2f} to {part.max():.2f}" for name, part in last)
    ui.show(agent_charts.curves(found), "agents_curves", f"Likes a visit at the end of training, lowest and highest seed: {told}.")
    ui.note(
        f"Across: steps of training, up to {found.plan.steps:,}; each point is the mean of the latest {contest.SMOOTHED} visits, tries "
        "included. Dotted: what greedy and random earned on the visits that judge. Training and judging are visits by different people."
    )


# ---------------------------------------------------------------- what logged rows say


def _off_policy(found: Contest) -> None:
    ui.card("What logged rows say", "off-policy estimates of likes an item shown, with 95 % intervals")
    st.markdown(f":small[{ui.esc(WHAT)}]")
    there = [source for source in SOURCES if (found.off_policy["source"] == source).any()]
    if not there:
        st.markdown("Nothing was estimated.")
        return
    source = st.segmented_control(
        "Rows", there, format_func=lambda name: SOURCES[name][0], default=there[0], required=True, key="agents_rows",
        label_visibility="collapsed",
    ) or there[0]  # fmt: skip
    rows = found.off_policy[found.off_policy["source"] == source]
    titles = {**{row["agent"]: row["title"] for row in found.table.to_dict("records")}, **LIVE}
    ui.note(ui.esc(SOURCES[source][1]))
    for why in dict.fromkeys(rows.loc[rows["value"].isna(), "note"]):
        st.markdown(f":small[:material/block: {ui.esc(why)}]")
    table = estimates_table(rows, titles)
    if rows["value"].notna().any():
        left, right = ui.split(1, 1, border=False)
        with left:
            told = "; ".join(f"{agent} {name} {value} ({span})" for agent, name, value, span, *_ in table.itertuples(index=False))
            ui.show(agent_charts.estimates(rows, titles), "agents_off_policy", f"Off-policy estimates: {told}.")
        with right:
            st.dataframe(
                table, hide_index=True, row_height=30, height=min(38 + 30 * len(table), 420), alt="Off-policy estimates",
                column_config={"Agent": st.column_config.TextColumn(width=126), "Estimator": st.column_config.TextColumn(width=72)},
            )
    ui.note(
        f"Effective rows: how many unweighted rows the weighted ones are worth; under {LEAST_ESS:.0f} nothing is estimated. One step ahead "
        "only: boredom later in the visit is not counted."
    )
    _trust(found)


def estimates_table(rows: pd.DataFrame, titles: dict[str, str]) -> pd.DataFrame:
    """A row an estimate, as words; what was refused says so."""
    told = []
    for row in rows.to_dict("records"):
        refused = pd.isna(row["value"])
        told.append(
            {
                "Agent": titles.get(row["agent"], row["agent"]), "Estimator": row["estimator"].upper(),
                "Estimate": "refused" if refused else f"{row['value']:.3f}",
                "95 % interval": "" if refused else f"{row['low']:.3f}{figures.DASH}{row['high']:.3f}",
                "Truth": "" if pd.isna(row["truth"]) else f"{row['truth']:.3f}",
                "Effective rows": f"{row['ess']:,.0f} of {row['n']:,}",
            }
        )  # fmt: skip
    return pd.DataFrame(told)


def _trust(found: Contest) -> None:
    """How the estimators did where the truth is known, over repeated logs."""
    rows = found.estimators.to_dict("records")
    if not rows:
        return
    with st.expander("How far to trust them: repeated logs of the simulator", icon=":material/rule:"):
        table = [
            {
                "Estimator": row["estimator"].upper(),
                "Intervals with the truth in them": "none" if pd.isna(row["coverage"]) else figures.points(row["coverage"], 0),
                "Typical error, of the truth": "none" if pd.isna(row["relative_error"]) else figures.points(row["relative_error"]),
                "Effective rows, mean": f"{row['mean_ess']:,.0f} of {row['n']:,}",
                "Refused": f"{row['refused']:,} of {row['repeats']:,} logs",
            }
            for row in rows
        ]  # fmt: skip
        st.dataframe(pd.DataFrame(table), hide_index=True, row_height=34, alt="How the estimators do where the truth is known")
        ui.note(
            "The greedy policy's value estimated from fresh logs again and again; a 95 % interval should hold the truth in 95 % of them."
        )
