"""Delivery, a view of the Alerts page: where alerts go, how that went, and the dead letters with a way to send them again.

Draws what fmcore.sentiment.channels and notify know. An address is typed here once and never shown again: it is a credential.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from fmcore import clock
from fmcore.config import settings
from fmcore.nouns import Channel, FMError, Notification
from fmcore.sentiment import channels, notify, sending
from pages import ui

STATES = {
    "queued": ("Waiting", "blue", ":material/schedule:"),
    "sent": ("Sent", "green", ":material/check_circle:"),
    "dead": ("Dead letter", "red", ":material/mail_off:"),
    "dry": ("Dry run", "gray", ":material/visibility:"),
}
MODES = {"each": "Each alert", "digest": "Digest", "dry run": "Dry run"}
TAKES = {"low": "Every severity", "medium": "Medium and high", "high": "High only"}
EXAMPLES = {"webhook": "https://hooks.example.com/path", "apprise": "slack://TokenA/TokenB/TokenC, mailtos://user:password@example.com"}
INTERVALS = {300: "5 min", 900: "15 min", 3600: "1 h", 6 * 3600: "6 h", 86_400: "1 d"}
N_LOG, N_DEAD = 200, 10


def draw(desk: Any) -> None:
    """Channels, then what could not be delivered, then the log."""
    present, counts = channels.channels(desk.store), notify.tally(desk.store)
    with ui.guarded():
        _channels(desk, present, counts)
    with ui.guarded():
        _dead_letters(desk)
    with ui.guarded():
        _log(desk, present)


# ---------------------------------------------------------------- channels


def _channels(desk: Any, present: list[Channel], counts: dict[str, dict[str, int]]) -> None:
    with st.container(border=True):
        on = sum(channel.enabled for channel in present)
        ui.card("Channels", f"{on} of {len(present)} on · one round a minute · addresses and secrets are kept outside the database")
        _new_secret()
        if not present:
            st.markdown("**Nobody hears of an alert yet.** Add a webhook, a chat or a mail address below.")
        for channel in present:
            _channel(desk, channel, counts.get(channel.name, {}))
        with st.expander("Add a channel", icon=":material/add:", expanded=not present):
            _add(desk)


def _channel(desk: Any, channel: Channel, counts: dict[str, int]) -> None:
    """One channel: what it takes and how it went, then what can be done with it."""
    state = ("On", "green", ":material/notifications_active:") if channel.enabled else ("Paused", "gray", ":material/pause_circle:")
    chips = [ui.chip(*state), ui.chip(_mode(channel)), ui.chip(TAKES[channel.min_severity]), ui.chip(f"{channel.per_minute} a minute")]
    said = " · ".join(f"{counts[name]:,} {STATES[name][0].lower()}" for name in STATES if counts.get(name)) or "nothing sent yet"
    with st.container(border=True, horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        with st.container(width="content", gap="xxsmall"):
            st.markdown(f"**{ui.esc(channel.name)}** {' '.join(chips)}")
            ui.note(f"{ui.esc(channel.kind)} · {ui.esc(channel.address)} · {said}")
        with st.container(horizontal=True, vertical_alignment="center", width="content"):
            if st.button("Send a test", key=f"test-{channel.name}", icon=":material/send:"):
                _test(desk, channel)
            word, icon = ("Pause", ":material/pause:") if channel.enabled else ("Resume", ":material/play_arrow:")
            act = channels.pause if channel.enabled else channels.resume
            if st.button(word, key=f"turn-{channel.name}", icon=icon):
                _do(lambda: act(desk.store, channel.name, by=ui.who()), "Saved.")
            with st.popover("Remove", icon=":material/delete:"):
                st.markdown("Its address and secret are forgotten; what waits for it becomes dead letters. The log stays.")
                if st.button("Remove this channel", key=f"remove-{channel.name}", type="primary"):
                    _do(lambda: notify.remove_channel(desk.store, channel.name, by=ui.who()), "Removed.")


def _mode(channel: Channel) -> str:
    every = INTERVALS.get(channel.digest_s, clock.duration(channel.digest_s))
    return f"{MODES[channel.mode]} every {every}" if channel.mode == "digest" else MODES[channel.mode]


def _test(desk: Any, channel: Channel) -> None:
    try:
        with st.spinner("Sending"):
            outcome = notify.send_test(desk.store, channel.name, by=ui.who())
    except FMError as error:
        ui.refusal(error)
        return
    if outcome.ok:
        st.success("**The test message was taken.**", icon=":material/check_circle:")
    else:
        st.error(f"**The test message did not arrive.** {ui.esc(outcome.reason)}", icon=":material/error:")


def _add(desk: Any) -> None:
    """The form; what was typed stays when it is refused."""
    n = st.session_state.setdefault("channels_added", 0)
    kind = st.segmented_control("Kind", channels.KINDS, default="webhook", required=True, format_func=str.capitalize, key=f"kind-{n}")
    with st.form(f"channel-{n}", border=False):
        with st.container(horizontal=True):
            name = st.text_input("Name", max_chars=60, key=f"name-{n}", width=240)
            mode = st.selectbox("Sends", list(MODES), format_func=MODES.get, key=f"mode-{n}", width=180)
            least = st.selectbox("Takes", list(TAKES), format_func=TAKES.get, key=f"least-{n}", width=180)
            per_minute = st.number_input("Messages a minute", 1, 600, 30, key=f"rate-{n}", width=180)
            digest_s = st.selectbox("Digest every", list(INTERVALS), index=2, format_func=INTERVALS.get, key=f"digest-{n}", width=180)
        address = st.text_input("Address", type="password", key=f"address-{n}", placeholder=EXAMPLES[kind], autocomplete="off")
        ui.note("More messages than that travel in groups; none is dropped. A digest is one message an interval.")
        if st.form_submit_button("Check and add", type="primary", icon=":material/add:"):
            given = {"mode": mode, "min_severity": least, "per_minute": int(per_minute), "digest_s": digest_s}
            _save(desk, name, kind, address, given)


def _save(desk: Any, name: str, kind: str, address: str, given: dict[str, Any]) -> None:
    try:
        with st.spinner("Checking the address"):
            service = sending.check_address(kind, address.strip(), allow_private=settings().allow_private_targets)
        _, secret = channels.add(desk.store, name, kind, address.strip(), by=ui.who(), **given)
    except FMError as error:
        ui.refusal(error)
        return
    st.session_state["channels_added"] += 1
    if kind == "webhook":
        st.session_state["channel_secret"] = (name, secret)
    st.toast(f"{ui.esc(service.capitalize())} channel added: send it a test.", icon=":material/check:")
    st.rerun()


def _new_secret() -> None:
    """The secret of a webhook just added, shown this once."""
    if "channel_secret" not in st.session_state:
        return
    name, secret = st.session_state["channel_secret"]
    words = f"**The secret that signs messages to {ui.esc(name)}.** Give it to the receiver now: it is not shown again."
    st.info(words, icon=":material/key:")
    st.code(secret, language=None)
    if st.button("I have it", key="secret-seen", icon=":material/check:"):
        del st.session_state["channel_secret"]
        st.rerun()


def _do(action: Any, said: str) -> None:
    """Carry out what a click asked for; a refusal becomes a sentence."""
    try:
        action()
    except FMError as error:
        ui.refusal(error)
        return
    st.toast(said, icon=":material/check:")
    st.rerun()


# ---------------------------------------------------------------- what came of it


def _dead_letters(desk: Any) -> None:
    """What no further try will deliver, until someone asks for one."""
    dead = notify.notifications(desk.store, state="dead", limit=N_LOG)
    if not dead:
        return
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(width="content"):
                ui.card("Dead letters", f"{len(dead):,} not tried again unless asked to")
            if len(dead) > 1 and st.button("Send all again", key="retry-all", icon=":material/replay:"):
                _do(lambda: _retry(desk, dead), "Queued again.")
        for letter in dead[:N_DEAD]:
            with st.container(horizontal=True, vertical_alignment="center"):
                if st.button("Send again", key=f"retry-{letter.id}", icon=":material/replay:"):
                    _do(lambda letter=letter: _retry(desk, [letter]), "Queued again.")
                title = ui.esc(ui.short(letter.title, 100))
                st.markdown(f"**{title}** to {ui.esc(letter.channel)}: {ui.esc(letter.error)}", width="stretch")
        if len(dead) > N_DEAD:
            ui.note(f"and {len(dead) - N_DEAD:,} more, in the log below")


def _retry(desk: Any, letters: list[Notification]) -> None:
    """Queue them; those that went along with an earlier one of their alert are queued already."""
    present = {channel.name for channel in channels.channels(desk.store)}
    gone = {letter.channel for letter in letters} - present
    if gone:
        names = ", ".join(sorted(gone))
        raise channels.UnknownChannel(f"There is no channel {names} any more.", "Add one under that name, then try again.")
    for letter in letters:
        try:
            notify.retry(desk.store, letter.id, by=ui.who())
        except notify.NotPossible:
            continue


def _log(desk: Any, present: list[Channel]) -> None:
    with st.container(border=True):
        ui.card("Delivery log", f"the newest {N_LOG} · at least once each, every try under one key")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            state = st.segmented_control("State", list(STATES), format_func=lambda s: STATES[s][0], key="delivery_state") or ""
            names = ["", *(channel.name for channel in present)]
            name = st.selectbox("Channel", names, format_func=lambda name: name or "All", key="delivery_channel", width=240)
        found = notify.notifications(desk.store, channel=name, state=state, limit=N_LOG)
        if not found:
            st.markdown("Nothing has been queued for a channel yet." if not state and not name else "Nothing like that.")
            return
        words = [STATES[key][0] for key in STATES]
        st.dataframe(
            pd.DataFrame([_row(n) for n in found]), hide_index=True, row_height=34, alt="Notifications, newest first",
            column_config={
                "State": st.column_config.MultiselectColumn(options=words, color=[STATES[key][1] for key in STATES]),
                "Alert": st.column_config.TextColumn(width=240),
                "Took": st.column_config.TextColumn(help="How long the last try took"),
                "Error": st.column_config.TextColumn(width=160),
                "Sent": st.column_config.TextColumn(width=110),
                "Next try": st.column_config.TextColumn(width=110),
                "Key": st.column_config.TextColumn(help="The same at every try: what a receiver tells repeats by"),
            },
        )  # fmt: skip


def _row(n: Notification) -> dict[str, Any]:
    return {
        "Queued": ui.local(n.created_at), "State": [STATES[n.state][0]], "Channel": n.channel, "Alert": n.title, "What": n.transition,
        "Tries": n.attempts, "Error": n.error, "Took": "" if n.latency_ms is None else f"{n.latency_ms:.0f} ms",
        "Sent": ui.local(n.sent_at) if n.sent_at else "", "Next try": ui.local(n.next_at) if n.next_at and n.state == "queued" else "",
        "Key": n.id[:12],
    }  # fmt: skip
