"""Models: every version with its measured quality, what the gate says, who serves now, and how that changed.

Draws what the registry stores. A figure that was not measured says so; the only things done here are a promotion and a
roll-back, each with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore import runtime
from fmcore.models.card import card_markdown
from fmcore.nouns import FMError, ModelVersion
from fmcore.tasks import RECOMMEND, SERVED
from pages import beside, figures, live, models_shelf, ui

STAGES = {
    "champion": ("Live", "green", ":material/verified:"),
    "candidate": ("Candidate", "blue", ":material/science:"),
    "retired": ("Retired", "gray", ":material/history:"),
}
MAX_REASON_CHARS = 300


def page() -> None:
    """The whole page for one task."""
    desk = runtime.current()
    if desk is None:
        ui.no_server()
        return
    first = next(iter(SERVED))  # shown by name, as the command line calls them: a bound control keeps in the URL what it shows
    shown = {"default": first, "required": True, "label_visibility": "collapsed"}
    with ui.header("Models", "what each version was measured at, what the gate says of it, and which one serves"):
        task = st.segmented_control("Task", list(SERVED), key="task", bind="query-params", **shown) or first
    versions = desk.registry.versions(task)
    champion = desk.registry.champion(task)
    if not versions:
        _nothing(desk, task)
        return
    serving = f"live: {ui.esc(champion.version)}" if champion else "none is live"
    ui.note(f"**{SERVED[task].title}** · {len(versions)} version{'s' if len(versions) != 1 else ''} · {serving}")
    _overview(desk, versions)
    chosen = _pick(versions, champion)
    facts = desk.registry.facts(chosen)
    left, right = ui.split(2, 1)
    with left, ui.guarded():
        _quality(chosen, facts, champion)
    with right, ui.guarded():
        _gate(desk, chosen, champion)
    if task == RECOMMEND.name:
        with ui.guarded():
            models_shelf.details(chosen, facts)
        with st.container(border=True), ui.guarded():
            _card(desk, chosen)
    else:
        _classifier(desk, chosen, facts)
    _promotions(desk, task)


def _classifier(desk: Any, version: ModelVersion, facts: Mapping[str, Any]) -> None:
    """What only a model that labels texts has."""
    _beside(version.task, facts)
    left, right = ui.split(2, 1)
    with left, ui.guarded():
        _per_class(facts)
    with right, ui.guarded():
        _confusions(facts)
    left, right = ui.split(1, 1)
    with left, ui.guarded():
        _serving(facts)
    with right, ui.guarded():
        _card(desk, version)


@st.fragment(run_every=2.0)
def _nothing(desk: Any, task: str) -> None:
    """No version yet: what runs now, or where to start."""
    if desk.registry.versions(task):
        st.rerun()
    ui.note(f"**{SERVED[task].title}** · no versions yet")
    active = live.training(desk, task)
    if active:
        with st.container(border=True):
            ui.card("A model is being trained", "this page fills by itself")
            live.strip(active[0], desk.runs.metrics(active[0].id))
        return
    with ui.empty("No models yet", "A training run makes the first one.", icon=":material/deployed_code:"):
        st.page_link("training.py", label="Open Training", icon=":material/play_arrow:")


def _overview(desk: Any, versions: Sequence[ModelVersion]) -> None:
    """All versions: a table, and their first figure with intervals on one axis."""
    lists = versions[0].task == RECOMMEND.name
    name, title, unit = ("ndcg", "NDCG@10", "NDCG@10") if lists else ("accuracy", "accuracy", "accuracy, %")
    shown = [v for v in versions if figures.at(v.metrics, name)][:12]
    with st.container(border=True):
        ui.card("Versions", f"newest first · {title} on each data set's held-out {'items' if lists else 'rows'}, 95 % intervals")
        st.dataframe(
            pd.DataFrame([_row(v, desk.registry.facts(v)) for v in versions]),
            hide_index=True,
            row_height=34,
            height=min(38 + 34 * len(versions), 310),
            key="models_table",
            alt="Model versions with stage, data set, recipe and quality",
            column_config={
                "Stage": st.column_config.MultiselectColumn(options=[s[0] for s in STAGES.values()], color=[s[1] for s in STAGES.values()]),
                "Accuracy, %": st.column_config.NumberColumn(format="%.1f"),
                "ECE, %": st.column_config.NumberColumn(format="%.1f"),
                "Out-of-scope AUROC": st.column_config.NumberColumn(format="%.3f"),
                **models_shelf.COLUMNS,
            },
        )
        if len(shown) > 1:
            fig = _forest(shown, name, unit)
            full = models_shelf.full if lists else figures.full
            told = "; ".join(f"{v.version} {full(figures.at(v.metrics, name))}" for v in shown)
            ui.show(fig, "forest", f"{title.capitalize()} with 95 % intervals of the {len(shown)} newest versions: {told}.")
            if len({v.dataset for v in shown}) > 1:
                ui.note("Versions of different data sets answer different questions: compare within one data set.")


def _row(version: ModelVersion, facts: Mapping[str, Any]) -> dict:
    start = {"Version": version.version, "Stage": [STAGES[version.stage][0]]}
    learnt = {"Data set": f"{version.dataset} (demo data)" if facts.get("synthetic") else version.dataset}
    if version.task == RECOMMEND.name:
        return start | models_shelf.row(version, facts) | learnt | {"Trained": ui.fresh(version.created_at)}
    accuracy, auroc, ece = (figures.at(version.metrics, name) for name in ("accuracy", "oos.auroc", "ece"))
    return {
        **start,
        "Accuracy, %": 100 * accuracy["value"] if accuracy else None,
        "95 % interval": figures.interval(accuracy) or figures.NONE,
        "Out-of-scope AUROC": auroc["value"] if auroc else None,
        "ECE, %": 100 * ece["value"] if ece else None,
        **learnt,
        "Recipe": version.recipe,
        "Base": version.base,
        "Trained": ui.fresh(version.created_at),
    }


def _forest(versions: Sequence[ModelVersion], name: str, unit: str) -> go.Figure:
    """A dot with its interval of one figure for each version; the live one in the accent colour."""
    t = ui.tokens()
    kept = [(v, a) for v in versions if (a := figures.at(v.metrics, name))]
    factor, digits = (100, 1) if unit.endswith("%") else (1, 3)
    rows = [str(i) for i in range(len(kept))]
    colors = [t["accent"] if v.stage == "champion" else t["flat"] for v, _ in kept]
    ends = [[factor * a.get(end, a["value"]) for end in ("low", "high")] for _, a in kept]
    fig = go.Figure()
    for row, reach, color in zip(rows, ends, colors, strict=True):
        fig.add_scatter(x=reach, y=[row, row], mode="lines", line=dict(color=ui.rgba(color, 0.55), width=3), hoverinfo="skip")
    fig.add_scatter(
        x=[factor * a["value"] for _, a in kept],
        y=rows,
        mode="markers+text",
        marker=dict(size=11, color=colors),
        cliponaxis=False,
        text=[f"{factor * a['value']:.{digits}f}" for _, a in kept],
        textposition="top center",
        textfont=dict(size=12),
        customdata=[figures.full(a) if factor == 100 else models_shelf.full(a) for _, a in kept],
        hovertemplate="%{customdata}<extra></extra>",
    )
    ui.desk(fig, 38 * len(kept) + 64, hovermode="closest", showlegend=False, margin=dict(l=8, r=24, t=18, b=8))
    names = [figures.chart_text(f"{v.version} · {v.dataset}") for v, _ in kept]
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=rows, ticktext=names, nticks=20)
    low, high = min(reach[0] for reach in ends), max(reach[1] for reach in ends)
    pad = 0.06 * (high - low) + 0.005 * factor
    return fig.update_xaxes(title=unit, showgrid=True, range=[low - pad, high + pad])


def _pick(versions: Sequence[ModelVersion], champion: ModelVersion | None) -> ModelVersion:
    by_name = {v.version: v for v in versions}
    start = list(by_name).index(champion.version) if champion and champion.version in by_name else 0
    name = st.selectbox("Look at version", list(by_name), index=start, key="model", bind="query-params", width=420)
    return by_name.get(name, versions[0])


def _quality(version: ModelVersion, facts: Mapping[str, Any], champion: ModelVersion | None) -> None:
    """Every figure with interval, n, the live version's beside it, and what it means."""
    against = champion if champion and champion.version != version.version else None
    lists = version.task == RECOMMEND.name
    note = f"on {ui.esc(version.dataset)}, held-out {'items' if lists else 'rows'} · 95 % bootstrap intervals"
    mark = ui.synthetic_mark() if facts.get("synthetic") else ""
    ui.card(ui.esc(version.version), note, f"{ui.chip(*STAGES[version.stage])} {mark}".strip())
    if lists:
        models_shelf.quality(facts, against)
    else:
        _figures_table(facts, against)
    if against and against.dataset != version.dataset:
        ui.note(f"The live version was measured on {ui.esc(against.dataset)}: these columns are not comparable.")


def _figures_table(facts: Mapping[str, Any], against: ModelVersion | None) -> None:
    rows = []
    for name, title in figures.NAMES.items():
        mine = figures.at(facts, name)
        row = {"Figure": title, "Value": figures.value(mine, name), "95 % interval": figures.span(mine, name)}
        if against:
            row["Live version"] = figures.value(figures.at(against.metrics, name), name)
        row |= {"n": f"{mine['n']:,}" if mine and mine.get("n") else "", "What it says": figures.IN_WORDS[name]}
        rows.append(row)
    st.table(pd.DataFrame(rows).set_index("Figure"), border="horizontal")


def _beside(task: str, facts: Mapping[str, Any]) -> None:
    """What simpler means get, and for sentiment the sentences that trip such models."""
    left, right = ui.split(1, 1) if task == "sentiment" else (st.container(border=True), None)
    with left, ui.guarded():
        beside.simpler_means(facts)
    if right is not None:
        with right, ui.guarded():
            beside.failure_suite(facts.get("failure_suite"))


def _gate(desk: Any, version: ModelVersion, champion: ModelVersion | None) -> None:
    """What a machine may decide, and the promotion a person may decide."""
    verdict = version.verdict
    live_now = version.stage == "champion"
    if not live_now and (not verdict or verdict.get("compared_with") != (champion.version if champion else None)):
        with st.spinner("Comparing on the held-out rows"):
            verdict = desk.registry.gate(version)
    passed = bool(verdict.get("passed"))
    if verdict:
        chip = ui.chip("Passes", "green", ":material/check_circle:") if passed else ui.chip("Held back", "orange", ":material/front_hand:")
        against = verdict.get("compared_with")
        ui.card("Gate", f"against {ui.esc(against)}" if against else "nothing was live to compare with", chip)
        st.markdown(ui.esc(verdict.get("reason", "")))
        for check in verdict.get("checks", ()):
            icon = ":green[:material/check:]" if check["passed"] else ":red[:material/close:]"
            st.markdown(f"{icon} :small[**{ui.esc(check['name'])}** {ui.esc(check['detail'])}]")
    else:
        ui.card("Gate", "")
        st.markdown("No verdict is stored: a person made it live without asking the gate.")
    if live_now:
        _roll_back_form(desk, version)
    else:
        _promote_form(desk, version, passed, champion)


def _promote_form(desk: Any, version: ModelVersion, passed: bool, champion: ModelVersion | None) -> None:
    with st.form("promote", border=False, clear_on_submit=True):
        what = f"instead of {champion.version}" if champion else "as the first live version"
        reason = st.text_input(
            f"Why promote it {ui.esc(what)}?", max_chars=MAX_REASON_CHARS, key="promote_reason", placeholder="for the record, in a sentence"
        )
        label = "Promote" if passed else "Promote against the gate"
        sent = st.form_submit_button(label, type="primary", icon=":material/publish:")
    if sent:
        _change(
            reason,
            lambda: desk.registry.promote(version.task, version.version, by=ui.who(), reason=reason.strip()),
            f"{version.version} is live.",
        )


def _roll_back_form(desk: Any, version: ModelVersion) -> None:
    if len(desk.registry.promotions(version.task)) < 2:
        ui.note("It answers now, and is the first that ever did: there is nothing to roll back to.")
        return
    with st.form("rollback", border=False, clear_on_submit=True):
        asked = {"max_chars": MAX_REASON_CHARS, "placeholder": "for the record, in a sentence"}
        reason = st.text_input("Why go back to the version before?", key="rollback_reason", **asked)
        sent = st.form_submit_button("Roll back", icon=":material/undo:")
    if sent:
        _change(reason, lambda: desk.registry.rollback(version.task, by=ui.who(), reason=reason.strip()), "Rolled back.")


def _change(reason: str, action: Any, said: str) -> None:
    """A promotion or roll-back, once a reason is given."""
    if not reason.strip():
        st.error("Say why in a sentence: it is kept with the change.", icon=":material/error:")
        return
    try:
        action()
    except FMError as error:
        ui.refusal(error)
        return
    st.toast(ui.esc(said), icon=":material/check:")
    st.rerun()


def _per_class(facts: Mapping[str, Any]) -> None:
    """Scores by label, weakest first."""
    rows = facts.get("per_class") or ()
    ui.card("By label", f"{len(rows)} labels, weakest F1 first · shares of 1 · n = held-out rows" if rows else "")
    if not rows:
        st.markdown(f"Not measured for this version: {figures.NONE}.")
        return
    frame = pd.DataFrame(rows).sort_values(["f1", "label"])[["label", "f1", "precision", "recall", "n"]]
    bar = {"format": "%.2f", "min_value": 0, "max_value": 1, "color": "blue"}
    st.dataframe(
        frame,
        hide_index=True,
        row_height=34,
        height=min(40 + 34 * len(frame), 380),
        key="per_class",
        alt="F1, precision and recall by label, weakest first",
        column_config={
            "label": "Label",
            "f1": st.column_config.ProgressColumn("F1", **bar),
            "n": "n",
            "precision": st.column_config.NumberColumn("Precision", format="%.2f"),
            "recall": st.column_config.NumberColumn("Recall", format="%.2f"),
        },
    )


def _confusions(facts: Mapping[str, Any]) -> None:
    """The pairs it mixes up most."""
    pairs = list(facts.get("confusions") or ())[:8]
    ui.card("Mixed up most", "held-out rows, true label → said")
    if not pairs:
        st.markdown("No confusions are stored: none were made, or none were measured.")
        return
    t = ui.tokens()
    names = [f"{figures.label(p['true'])} → {figures.label(p['predicted'])}" for p in pairs]
    rows = [str(i) for i in range(len(pairs))]
    fig = go.Figure(
        go.Bar(
            y=rows,
            x=[p["n"] for p in pairs],
            orientation="h",
            width=0.32,
            marker=dict(color=t["accent"], line_width=0),
            offset=0.02,
            text=[p["n"] for p in pairs],
            textposition="outside",
            cliponaxis=False,
            hoverinfo="skip",
        )
    )
    for row, name in zip(rows, names, strict=True):
        fig.add_annotation(
            x=0, y=row, text=figures.chart_text(name), showarrow=False, xanchor="left", yanchor="bottom", font_size=12, yshift=1
        )
    ui.desk(fig, 44 * len(pairs) + 30, hovermode="closest", margin=dict(l=8, r=30, t=16, b=4))
    fig.update_yaxes(autorange="reversed", visible=False)
    fig.update_xaxes(visible=False, range=[0, 1.1 * max(p["n"] for p in pairs)])
    ui.show(
        fig, "confusions", "Most frequent confusions: " + "; ".join(f"{n}, {p['n']} rows" for n, p in zip(names, pairs, strict=True)) + "."
    )


def _serving(facts: Mapping[str, Any]) -> None:
    """The forms that were measured for serving: speed against what each loses."""
    measured = facts.get("serving")
    if measured is None:
        ui.card("Served form", "")
        st.markdown("The forms of this version were not measured.")
        return
    cores = f"{measured['threads']} thread{'s' if measured['threads'] != 1 else ''}"
    ui.card(
        "Served form",
        f"measured at training on {ui.esc(measured.get('runtime', 'this machine'))}, {cores}",
        ui.chip(measured["form"], "blue"),
    )
    fig = _forms_chart(measured)
    told = "; ".join(f"{f['form']} {f['texts_per_s']:.0f} messages a second, {f['loss_points']:.1f} points lost" for f in measured["forms"])
    ui.show(fig, "forms", f"Serving forms by speed and loss of accuracy: {told}.")
    ui.note(
        f"Right is faster, low is better. Points of accuracy lost against fp32 on the same {measured['n']:,} validation rows, "
        f"with 95 % intervals; a form that loses more than {measured['max_loss_points']} (dotted) is refused."
    )


def _forms_chart(measured: Mapping[str, Any]) -> go.Figure:
    """One dot a form: messages a second across, points of accuracy lost up; the served one in the accent colour."""
    t = ui.tokens()
    forms = measured["forms"]
    colors = [t["accent"] if f["form"] == measured["form"] else t["flat"] for f in forms]
    fastest = max(f["texts_per_s"] for f in forms)
    fig = go.Figure()
    for form, color in zip(forms, colors, strict=True):
        low, high = form.get("loss_points_interval") or (form["loss_points"],) * 2
        fig.add_scatter(
            x=[form["texts_per_s"]] * 2, y=[low, high], mode="lines", line=dict(color=ui.rgba(color, 0.5), width=2), hoverinfo="skip"
        )
    fig.add_scatter(
        x=[f["texts_per_s"] for f in forms],
        y=[f["loss_points"] for f in forms],
        mode="markers+text",
        marker=dict(size=11, color=colors),
        text=[f"<b>{f['form']}</b>" if f["form"] == measured["form"] else f["form"] for f in forms],
        cliponaxis=False,
        textfont=dict(size=12),
        textposition=[
            f"{'top' if i % 2 else 'bottom'} {'left' if form['texts_per_s'] > fastest / 2 else 'right'}" for i, form in enumerate(forms)
        ],
        hovertemplate="%{x:.0f} messages/s, %{y:.2f} points lost<extra></extra>",
    )
    fig.add_hline(y=measured["max_loss_points"], line=dict(color=ui.NEUTRAL, width=1.5, dash="dot"))
    ui.desk(fig, "medium", hovermode="closest", showlegend=False, margin=dict(l=8, r=24, t=18, b=8))
    fig.update_yaxes(title="points lost")
    return fig.update_xaxes(title="messages a second", range=[0, fastest * 1.1], showgrid=False)


def _card(desk: Any, version: ModelVersion) -> None:
    """The model card, from stored facts only."""
    card = desk.registry.card(version)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        with st.container(width="content"):
            ui.card("Model card", "stored facts only; what was not stored says unknown")
        st.download_button(
            "Markdown",
            card_markdown(card),
            f"{version.version}.md",
            "text/markdown",
            type="tertiary",
            on_click="ignore",
            icon=":material/download:",
            key="card_download",
        )
    for tab, facts in zip(st.tabs(list(card), key="card_tab"), card.values(), strict=True):
        rows = [(ui.esc(name), ui.esc(ui.short(value, 600))) for name, value in facts.items()]
        tab.table(pd.DataFrame(rows, columns=["", "Fact"]).set_index(""), border="horizontal", hide_header=True)


def _promotions(desk: Any, task: str) -> None:
    """Who made which version live, when and why."""
    with st.container(border=True):
        history = desk.registry.promotions(task)
        ui.card("Promotions", "newest first · UTC")
        if not history:
            st.markdown("No version was promoted yet.")
            return
        rows = [
            {"When": ui.fresh(p.at), "Version": p.version, "Instead of": p.previous or "none", "By": p.by, "Reason": p.reason}
            for p in history
        ]
        wide = {"Reason": st.column_config.TextColumn(width="large")}
        alt = "Promotions with version, person and reason"
        st.dataframe(pd.DataFrame(rows), hide_index=True, row_height=34, key="promotions", alt=alt, column_config=wide)


if __name__ == "__main__":
    page()
