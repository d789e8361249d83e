"""The shell: every visit passes through it. Sign-in, navigation, the health strip, and the page.

Owns the list of pages and the order in which a visit is let in; draws nothing of a page itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from fmcore import clock, runtime
from fmcore.tasks import RECOMMEND, SERVED
from pages import live, ui

HERE = Path(__file__).resolve().parent

PAGES = {
    "Desk": (
        ("home.py", "Home", "home", "What is live, how fresh it is, what runs, and what to do first."),
        ("sentiment.py", "Sentiment", "monitoring", "How the news reads: index, topics, movers, and the stories behind every point."),
        ("alerts.py", "Alerts", "notifications", "What fired and why; acknowledge, silence, rules with their backtest, delivery."),
        ("intent.py", "Intent", "chat", "Ask a model what a customer message is about; compare versions; teach a new intent."),
        (
            "recommend.py",
            "Recommend",
            "recommend",
            "What comes next for somebody, and because of what; models and learning agents beside it.",
        ),
        ("explain.py", "Explain", "troubleshoot", "Why a model said so, whether to believe it, what would change its answer."),
    ),
    "Work": (
        ("training.py", "Training", "model_training", "Start a run, watch it live, look at what came of each."),
        ("lab.py", "Lab", "science", "Why pretraining pays and what it costs: methods explained, masked words, pretraining watched."),
        ("models.py", "Models", "deployed_code", "Versions with their measured quality; promote or roll back."),
        ("data.py", "Data", "database", "Data sets with licence and state; fetch, look inside, bring your own."),
    ),
}
"""Section -> (file, title, icon, one line on what it is for). A new page is a line here."""


def main() -> None:
    """One visit: configuration, sign-in, navigation, page."""
    st.set_page_config(page_title="FM Desk", page_icon=str(HERE / "icon.svg"), layout="wide", initial_sidebar_state=212)
    st.logo(HERE / "logo.svg", size="medium", icon_image=HERE / "icon.svg")
    let_in = not ui.sign_in_is_configured() or bool(st.user.get("is_logged_in"))
    # Told of every page even before the sign-in: a deep link to a page it does not know ends in a "Page not found" dialog.
    page = st.navigation(
        {section: [_page(*line) for line in lines] for section, lines in PAGES.items()}, position="sidebar" if let_in else "hidden"
    )
    if not let_in:
        _sign_in()
        return
    desk = runtime.current()
    if desk is None:
        ui.no_server()
        return
    with st.sidebar, ui.guarded():
        _health()
        if st.user.get("is_logged_in"):
            ui.note(ui.esc(ui.who()))
            st.button("Sign out", icon=":material/logout:", type="tertiary", on_click=st.logout)
    with ui.guarded():
        page.run()


def _page(file: str, title: str, icon: str, words: str) -> Any:
    return st.Page(file, title=title, icon=f":material/{icon}:", help=words, default=file == "home.py")


def _sign_in() -> None:
    """All that a visitor sees who has not signed in."""
    with st.container(border=True, height=340, horizontal_alignment="center", vertical_alignment="center"):
        st.title("FM Desk", anchor=False, width="content")
        st.markdown("Sign in to see models, runs and data.", width="content")
        st.button("Sign in", type="primary", icon=":material/login:", on_click=st.login)


@st.fragment(run_every=10.0)
def _health() -> None:
    """Four quiet lines: models, schedule, last run, store."""
    desk = runtime.current()
    if desk is None:
        st.markdown(":small[:red[:material/power_off: The desk has stopped]]")
        return
    with ui.guarded(), st.container(gap="xxsmall"):
        for line in health(desk):
            st.markdown(f":small[{line}]")


def health(desk: Any) -> list[str]:
    """The strip's lines as markdown: what answers, what is late, what ran last."""
    live_tasks = [task for task in SERVED if desk.registry.champion(task)]
    slots = [row for row in desk.runs.schedules() if row.next_at is not None]
    soonest = min(slots, key=lambda row: row.next_at, default=None)
    last = next((run for run in desk.runs.history(limit=20) if run.is_over), None)
    n_active = len(live.at_work(desk))
    lines = [
        _models_line(desk, live_tasks),
        _schedule_line(soonest),
        f":blue[:material/autorenew: {n_active} running or waiting]" if n_active else ":gray[:material/bedtime: Nothing is running]",
    ]
    if last is not None:
        word, color, icon = live.STATES[last.state]
        quiet = "gray" if color in ("green", "blue") else color
        lines.append(f":{quiet}[{icon} {word} {clock.ago(last.finished_at)}]")
    return [*lines, ":gray[:material/database: Store answers]"]


def _models_line(desk: Any, live_tasks: list[str]) -> str:
    refused = [task for task in live_tasks if (desk.recommend.info() if task == RECOMMEND.name else desk.engine.info(task))["warning"]]
    if refused:
        return f":red[:material/error: {len(refused)} live model{'s' if len(refused) > 1 else ''} refused]"
    words = f"{len(live_tasks)} of {len(SERVED)} models live"
    return f":gray[:material/check_circle: {words}]" if len(live_tasks) == len(SERVED) else f":orange[:material/hourglass_empty: {words}]"


def _schedule_line(soonest: Any) -> str:
    if soonest is None:
        return ":gray[:material/event: No schedules]"
    late_s = (clock.now() - soonest.next_at).total_seconds()
    if late_s > 120:
        return f":red[:material/event_busy: Schedule late by {clock.duration(late_s)}]"
    return f":gray[:material/event: Next job {clock.ago(soonest.next_at)}]"


if __name__ == "__main__":
    main()
