"""Worked examples beside the lab's explanations: not learning by heart, and becoming small and fast.

Draws what fmcore.lab.examples works out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from fmcore.lab import examples
from pages import figures, lab_drawing, ui
from pages.lessons import Lesson

CLASSES = 3
INTENTS = {"card arrival": 6.0, "lost card": 3.6, "card linking": 2.1, "exchange rate": 0.4, "top-up failed": -1.0}
VALIDATION = (1.02, 0.81, 0.66, 0.58, 0.54, 0.56, 0.51, 0.50, 0.53, 0.52, 0.57, 0.60, 0.64, 0.70)
TOKENS = 25
"""Length of a text in the examples: a line of a customer's message or a headline and a half."""


# ---------------------------------------------------------------- regularisation


def smoothing(lesson: Lesson) -> None:
    epsilon = st.slider("ε", 0.0, 0.3, 0.1, 0.02, key="toy-smoothing")
    p, target = np.linspace(0.02, 0.9995, 400), examples.smoothed(epsilon, CLASSES)
    fig = lab_drawing.line(go.Figure(), 100 * p, examples.smoothed_loss(p, 0.0, CLASSES), context=True)
    lab_drawing.line(fig, 100 * p, examples.smoothed_loss(p, epsilon, CLASSES))
    best = float(target[0])
    lowest = float(examples.smoothed_loss(np.array(min(best, 0.9995)), epsilon, CLASSES))
    lab_drawing.place(fig, 100 * best, lowest, f"lowest at {100 * best:.1f} %", where="top left")
    ui.desk(fig, "small", hovermode="closest", showlegend=False)
    fig.update_xaxes(title_text="probability of the true label, %", range=[0, 101])
    fig.update_yaxes(title_text="loss, nats", range=[0, 3])
    ui.show(fig, "fig-smoothing", f"With ε {epsilon:.2f} the loss is lowest where the true label gets {100 * best:.1f} %.")
    asked = " / ".join(f"{100 * q:.1f}" for q in target)
    ui.note(f"{CLASSES} classes; dotted: without smoothing. The target is {asked} %.")


def agreement(lesson: Lesson) -> None:
    apart = st.slider("How far apart the two readings are", 0, 100, 40, 5, key="toy-agreement", format="%d %%") / 100
    first = np.array([0.70, 0.20, 0.10])
    second = (1 - apart) * first + apart * np.array([0.05, 0.85, 0.10])
    t = ui.tokens()
    fig = go.Figure()
    for name, values, color in (("first reading", first, t["cat"][0]), ("second reading", second, t["cat"][1])):
        fig.add_bar(
            x=["positive", "neutral", "negative"], y=100 * values, name=name, marker={"color": color, "line_width": 0}, hoverinfo="skip",
            text=[f"{100 * value:.0f}" for value in values], textposition="outside", cliponaxis=False, textfont={"size": 12},
        )  # fmt: skip
    ui.desk(fig, 200, hovermode="closest", barmode="group", bargap=0.4)
    fig.update_yaxes(range=[0, 105], title_text="%")
    one, two = examples.divergence(first, second), examples.divergence(second, first)
    ui.show(fig, "fig-agreement", f"Two readings of one text; divergences {one:.3f} and {two:.3f} nats.")
    added = (one + two) / 4
    st.markdown(f"Divergence **{one:.3f}** one way and **{two:.3f}** the other: with α = 1, **{added:.3f} nats** are added to the loss.")


def decay(lesson: Lesson) -> None:
    decay = st.select_slider("Weight decay λ", [0.001, 0.01, 0.03, 0.1, 0.3], value=0.01, key="toy-decay")
    steps, fig, kept = np.linspace(0, 10_000, 101), go.Figure(), []
    for rate, words in ((2e-5, "fine-tuning, 0.00002"), (1e-3, "pretraining, 0.001")):
        y = 100 * examples.decayed(rate, decay, steps)
        kept.append(f"{words}: {y[-1]:.1f} %")
        lab_drawing.line(fig, steps, y, context=rate < 1e-4)
        fig.add_annotation(x=10_000, y=y[-1], text=kept[-1], showarrow=False, xanchor="right", yshift=-11, font={"size": 12})
    ui.desk(fig, "small", hovermode="closest", showlegend=False)
    fig.update_xaxes(title_text="steps at that learning rate", range=[0, 10_200])
    fig.update_yaxes(title_text="% of a weight that is left", range=[0, 104])
    ui.show(fig, "fig-decay", f"What is left after 10,000 steps of a weight that no gradient holds: {'; '.join(kept)}.")
    ui.note("A weight that no gradient holds. Lines are named by their learning rate η.")


def dropped(lesson: Lesson) -> None:
    share = st.slider("Share switched off, p", 0, 60, 10, 5, key="toy-dropout", format="%d %%") / 100
    values = np.array([0.9, 1.4, 0.3, 1.1, 0.7, 1.6, 0.5, 1.2, 0.8, 1.0, 1.3, 0.6])
    left = examples.dropped(values, share, seed=lab_drawing.again("dropout"))
    t = ui.tokens()
    places = list(range(1, len(values) + 1))
    fig = go.Figure(go.Bar(x=places, y=values, marker={"color": ui.rgba(t["flat"], 0.3), "line_width": 0}, hoverinfo="skip"))
    fig.add_bar(x=places, y=left, marker={"color": t["accent"], "line_width": 0}, width=0.36, hoverinfo="skip")
    ui.desk(fig, "small", hovermode="closest", showlegend=False, barmode="overlay", bargap=0.2)
    fig.update_xaxes(title_text="twelve numbers of a layer", tickvals=places)
    n_off = int((left == 0).sum())
    ui.show(fig, "fig-dropout", f"{n_off} of 12 numbers are zero, the rest is scaled up; their sum is {left.sum():.1f}.")
    st.markdown(f"{n_off} of 12 are off. Sum **{left.sum():.1f}**, it was {values.sum():.1f}.")


def patience(lesson: Lesson) -> None:
    allowed = st.slider("Patience, epochs", 1, 5, 1, key="toy-patience")
    end, best = examples.stopped(VALIDATION, allowed)
    epochs = list(range(1, len(VALIDATION) + 1))
    fig = lab_drawing.line(go.Figure(), epochs[end:], VALIDATION[end:], context=True, mode="lines+markers")
    lab_drawing.line(fig, epochs[: end + 1], VALIDATION[: end + 1], mode="lines+markers")
    lab_drawing.place(fig, epochs[best], VALIDATION[best], f"kept: epoch {epochs[best]}", where="bottom center")
    ui.desk(fig, 200, hovermode="closest", showlegend=False)
    fig.update_xaxes(title_text="epoch", dtick=1)
    fig.update_yaxes(title_text="validation loss", range=[0.4, 1.1])
    ui.show(fig, "fig-patience", f"Training ends after epoch {epochs[end]} and keeps epoch {epochs[best]}.")
    lowest = int(np.argmin(VALIDATION))
    missed = "" if best == lowest else f" The best of all, epoch {epochs[lowest]}, lies behind the bump and is never seen."
    st.markdown(f"Ends after epoch **{epochs[end]}**, keeps epoch **{epochs[best]}**.{missed}")


# ---------------------------------------------------------------- small and fast


def temperature(lesson: Lesson) -> None:
    degrees = st.slider("Temperature T", 1.0, 10.0, 1.0, 0.5, key="toy-temperature")
    probabilities = examples.softmax(list(INTENTS.values()), temperature=degrees)
    names = [f"{name} (score {ui.signed(score, 1)})" for name, score in INTENTS.items()]
    told = ", ".join(f"{name} {100 * p:.1f} %" for name, p in zip(INTENTS, probabilities, strict=True))
    lab_drawing.shares(names, list(probabilities), key="fig-temperature", best=0, words=f"The teacher's softened answer: {told}.")
    entropy = float(-(probabilities * np.log2(probabilities)).sum())
    ui.note(f"\"Where is my card?\", as a teacher might answer it: {entropy:.2f} bits in the answer; a label alone holds none.")


def pruned(lesson: Lesson) -> None:
    heads = st.slider("Attention heads kept, of 12 a layer", 1, 12, 8, key="toy-pruned-heads")
    inner = st.slider("Inner neurons kept", 10, 100, 60, 10, key="toy-pruned-inner", format="%d %%")
    shape = examples.Shape()
    whole = shape.multiplications(TOKENS)
    parts = {
        "Attention": (shape.multiplications(TOKENS, inner=0), heads / 12),
        "Feed-forward": (shape.multiplications(TOKENS, heads=0), inner / 100),
    }
    t = ui.tokens()
    left = sum(work * share for work, share in parts.values())
    fig = go.Figure()
    for stays, color in ((True, t["accent"]), (False, ui.rgba(t["flat"], 0.3))):
        x = [100 * work * (share if stays else 1 - share) / whole for work, share in parts.values()]
        fig.add_bar(y=list(parts), x=x, orientation="h", marker={"color": color, "line_width": 0}, hoverinfo="skip", width=0.55)
    ui.desk(fig, 130, hovermode="closest", showlegend=False, barmode="stack")
    fig.update_xaxes(range=[0, 72], title_text="% of the model's multiplications")
    fig.update_yaxes(autorange="reversed", showgrid=False)
    ui.show(fig, "fig-pruned", f"Of all multiplications {100 * left / whole:.0f} % are left.")
    st.markdown(f"**{figures.points(left / whole, 0)}** of the multiplications are left: at most **{whole / left:.1f} times** as fast.")
    ui.note(f"MiniLM, a text of {TOKENS} tokens. Grey is what was cut. Try cutting heads alone: the feed-forward part hardly notices.")


def bits(lesson: Lesson) -> None:
    n_bits = st.slider("Bits", 2, 8, 4, key="toy-bits")
    values = np.random.default_rng(7).normal(0, 0.35, 40).clip(-1, 1)
    values[0] = 1.0
    grid, step = examples.quantised(values, n_bits)
    t = ui.tokens()
    fig = go.Figure()
    n_ticks = 2 ** (n_bits - 1) - 1
    if n_bits <= 6:
        for tick in range(-n_ticks, n_ticks + 1):
            fig.add_shape(type="line", x0=tick * step, x1=tick * step, y0=-0.25, y1=0.15, line={"color": ui.NEUTRAL, "width": 1})
    x = np.stack([values, grid, np.full(len(values), np.nan)], axis=1).ravel()
    y = np.tile([1.0, 0.0, np.nan], len(values))
    fig.add_scatter(x=x, y=y, mode="lines", line={"color": ui.rgba(t["accent"], 0.35), "width": 1}, hoverinfo="skip")
    fig.add_scatter(x=values, y=np.ones(len(values)), mode="markers", marker={"size": 6, "color": t["flat"]}, hoverinfo="skip")
    fig.add_scatter(x=grid, y=np.zeros(len(values)), mode="markers", marker={"size": 8, "color": t["accent"]}, hoverinfo="skip")
    ui.desk(fig, 170, hovermode="closest", showlegend=False)
    fig.update_xaxes(range=[-1.1, 1.1], tickvals=[-1, 0, 1], ticktext=["−1", "0", "1"])
    fig.update_yaxes(range=[-0.4, 1.3], tickvals=[0, 1], ticktext=["stored", "weight"], showgrid=False)
    error = float(np.sqrt(((values - grid) ** 2).mean()))
    ui.show(fig, "fig-bits", f"Forty weights and the {2 * n_ticks + 1} ticks they are moved to; mean error {error:.4f}.")
    memory = figures.points(n_bits / 32, 0)
    st.markdown(f"**{2 * n_ticks + 1}** ticks, root mean square error **{error:.4f}**, **{memory}** of the memory of 32 bits.")
    ui.note("The one weight at 1 sets the ruler for all the others.")


def lookups(lesson: Lesson) -> None:
    n = st.slider("Tokens of the text", 8, 128, TOKENS, key="toy-lookups")
    dim = 256
    rows = {"Encoder": examples.Shape().multiplications(n), f"Static, {dim} numbers a token": float(n * dim)}
    t = ui.tokens()
    fig = go.Figure(
        go.Bar(
            y=list(rows), x=list(rows.values()), orientation="h", width=0.55, cliponaxis=False, hoverinfo="skip",
            marker={"color": [t["flat"], t["accent"]], "line_width": 0}, text=[f"{value:,.0f}" for value in rows.values()],
            textposition="outside", textfont={"size": 12, "color": t["muted"]},
        )
    )  # fmt: skip
    ui.desk(fig, 130, hovermode="closest", margin={"l": 8, "r": 96, "t": 8, "b": 8})
    fig.update_xaxes(type="log", range=[2, 10], title_text="multiply-adds a text, each tick a hundred times more", dtick=2)
    fig.update_yaxes(autorange="reversed", showgrid=False)
    ui.show(fig, "fig-lookups", "Multiply-adds: " + "; ".join(f"{name} {value:,.0f}" for name, value in rows.items()))
    encoder, static = rows.values()
    st.markdown(f"**{encoder / static:,.0f} times** fewer.")
    ui.note("Measured, the gain is smaller: cutting a text into tokens takes the same time for both and is now most of it.")


def passed_on(lesson: Lesson) -> None:
    fast = st.segmented_control("Times as fast the student is", [20, 50, 200], default=50, required=True, key="toy-cascade-fast")
    share = st.slider("Share sent on to the full model", 0, 100, 10, key="toy-cascade", format="%d %%") / 100
    at, speed = np.linspace(0, 1, 201), float(examples.cascade_speed(fast, share))
    fig = lab_drawing.line(go.Figure(), 100 * at, examples.cascade_speed(fast, at))
    lab_drawing.place(fig, 100 * share, speed, f"{speed:.1f} times", where="top right")
    fig.add_hline(y=1, line={"color": ui.NEUTRAL, "width": 1.5, "dash": "dot"})
    ui.desk(fig, "small", hovermode="closest", showlegend=False)
    fig.update_xaxes(title_text="sent on, %", range=[0, 102])
    fig.update_yaxes(title_text="times as fast", type="log", range=[-0.1, 2.5], tickvals=[1, 10, 100], ticktext=["1", "10", "100"])
    ui.show(fig, "fig-cascade", f"With {100 * share:.0f} % sent on the cascade is {speed:.1f} times as fast as the full model.")
    if speed < 1:
        st.markdown(f"**{speed:.2f} times**: slower than the full model alone, since nearly every text is read twice.")
    else:
        bound = f", and no student could make it more than {1 / share:,.0f}" if share else ""
        st.markdown(f"**{speed:.1f} times** as fast as the full model{bound}.")


TOYS: dict[str, Callable[[Lesson], None]] = {
    "smoothing": smoothing,
    "agreement": agreement,
    "decay": decay,
    "dropped": dropped,
    "patience": patience,
    "temperature": temperature,
    "pruned": pruned,
    "bits": bits,
    "lookups": lookups,
    "passed_on": passed_on,
}
"""Name in lessons.toml -> what draws it."""
