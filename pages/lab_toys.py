"""Worked examples beside the lab's explanations: a slider, a figure, a sentence. Learning without labels, and to a task.

Draws what fmcore.lab.examples works out; those of regularisation and of small models are lab_toys_lean.py's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from fmcore.lab import examples
from pages import figures, heat, lab_drawing, lab_toys_lean, ui
from pages.lessons import Lesson

COSINES = np.array([[0.96, 0.80, 0.22, 0.31], [0.79, 0.95, 0.25, 0.28], [0.21, 0.26, 0.97, 0.35], [0.30, 0.27, 0.36, 0.94]])
ALIKE = ("Profit rose in the third quarter.", "Earnings were up in Q3.", "The plant will close in May.", "The board proposes a dividend.")
BROKEN = "The insurer cut its dividend after an unexpected rise in claims and the shares fell nine percent ."
NEAREST = {
    "Where is my new card?": ((0.71, 0.35, 0.18), 0),
    "I was charged twice.": ((0.24, 0.66, 0.27), 1),
    "Nothing works since yesterday.": ((0.31, 0.30, 0.33), 2),
}
DESCRIBED = ("asks when a card arrives", "asks about a charge", "cannot log in")
DIRECTED = {
    "A profit": (
        ("Operating profit rose in the second quarter.", "up"), ("Operating profit fell in the second quarter.", "down"),
        ("The annual meeting is held in the spring.", "neither"),
    ),
    "A loss": (
        ("The loss for the year narrowed.", "up"), ("The loss for the year widened.", "down"), ("The office is in town.", "neither"),
    ),
}  # fmt: skip
"""Kind -> a sentence, itself turned round, and one without a direction."""
SALES, DIVIDEND = "Net sales rose 12 %.", "So the dividend is raised."
TWO = {
    "nsp": ((SALES, "Orders grew in all regions.", "follows"), (SALES, "The keeper saved a penalty.", "from elsewhere")),
    "sop": ((SALES, DIVIDEND, "in order"), (DIVIDEND, SALES, "swapped")),
}
"""Key of a lesson -> pairs with what is true of each."""


def draw(lesson: Lesson) -> None:
    """The lesson's example with its heading."""
    st.markdown("**Try it** :small[:gray[made-up texts and numbers, exact arithmetic]]")
    TOYS[lesson.toy](lesson)


# ---------------------------------------------------------------- without labels


def masking(lesson: Lesson) -> None:
    words = examples.masking(lab_drawing.again(lesson.key))
    whole = ["".join(piece.removeprefix("##") for piece in word.pieces) for word in words]
    shown = []
    for word in words:
        said = " ".join(word.shown)
        if word.what == "plain":
            shown.append(ui.esc("".join(piece.removeprefix("##") for piece in word.shown)))
        else:
            shown.append(ui.chip(said, {"mask": "blue", "random": "orange", "same": "gray"}[word.what]))
    st.markdown(":small[:gray[The model reads]]")
    st.markdown(" ".join(shown))
    asked = [(word, plain) for word, plain in zip(words, whole, strict=True) if word.what != "plain"]
    st.markdown(":small[:gray[and is asked for]]")
    ways = {"mask": "shown as [MASK]", "random": "shown as a random word", "same": "left as it is"}
    n_pieces = [f"{len(word.pieces)} piece{'s'[: len(word.pieces) > 1]}" for word, _ in asked]
    lines = [f"- **{ui.esc(plain)}** ({ui.esc(ways[word.what])}, {n})" for (word, plain), n in zip(asked, n_pieces, strict=True)]
    st.markdown("\n".join(lines))
    ui.note(
        f"{len(asked)} of {sum(w[0].isalnum() for w in examples.SENTENCE)} words. Draw until you see an orange or a grey one: "
        "one in five chosen words is not masked."
    )


def certainty(lesson: Lesson) -> None:
    for first, second, truth in TWO[lesson.key]:
        st.markdown(f"*{ui.esc(first)}* | *{ui.esc(second)}* {ui.chip(truth, 'green' if truth in ('follows', 'in order') else 'orange')}")
    p = st.slider("Probability that the head gives to the truth", 1, 99, 70, key=f"toy-{lesson.key}", format="%d %%") / 100
    at, loss = np.linspace(0.01, 0.99, 99), -np.log(p)
    fig = lab_drawing.line(go.Figure(), 100 * at, -np.log(at))
    lab_drawing.place(fig, 100 * p, loss, f"{loss:.2f} nats", where="top right")
    fig.add_hline(y=np.log(2), line={"color": ui.NEUTRAL, "width": 1.5, "dash": "dot"})
    fig.add_annotation(x=99, y=np.log(2), text="a coin flip", showarrow=False, xanchor="right", yshift=9, font={"size": 12})
    ui.desk(fig, "small", hovermode="closest", showlegend=False)
    fig.update_xaxes(title_text="probability of the truth, %", range=[0, 101])
    fig.update_yaxes(title_text="loss, nats", range=[0, 4.8])
    ui.show(fig, f"fig-{lesson.key}", f"The loss falls as the probability of the truth grows; at {100 * p:.0f} % it is {loss:.2f} nats.")
    ui.note("Being wrong and sure is what costs: at 1 % the loss is seven times that of a coin flip.")


def contrast(lesson: Lesson) -> None:
    tau = st.slider("Temperature τ", 0.02, 0.5, 0.05, 0.01, key="toy-contrast")
    probabilities, loss = examples.contrast(COSINES, tau)
    fig = go.Figure()
    z = (100 * probabilities).tolist()
    names = ["A", "B", "C", "D"]
    told = [[f"{names[i]} picks {names[j]}: {value:.1f} %" for j, value in enumerate(line)] for i, line in enumerate(z)]
    heat.add(fig, x=list(range(4)), z=z, text=[[f"{value:.0f}" for value in line] for line in z], top=100, told=told)
    ui.desk(fig, 190, hovermode="closest", showlegend=False)
    fig.update_xaxes(side="top", ticks="", tickvals=list(range(4)), ticktext=[f"{name}, second" for name in names])
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=list(range(4)), ticktext=names)
    ui.show(fig, "fig-contrast", f"Which second reading each sentence picks, in %. Loss {loss:.3f} nats.")
    st.markdown(f"Loss **{loss:.3f} nats** :small[:gray[a blind guess among four: {np.log(4):.3f}]]")
    ui.note(" · ".join(f"{name}: {ui.esc(words)}" for name, words in zip(names, ALIKE, strict=True)))
    ui.note("A and B say the same and are pushed apart all the same: the loss cannot know. At a larger τ all others count about alike.")


def deletion(lesson: Lesson) -> None:
    usual = 60 if lesson.key == "tsdae" else 10
    share = st.slider("Share of words deleted", 0, 90, usual, 10, key=f"toy-{lesson.key}", format="%d %%") / 100
    words = BROKEN.split()
    kept = examples.deleted(words, share, seed=lab_drawing.again(lesson.key))
    pairs = zip(words, kept, strict=True)
    st.markdown(" ".join(f"**{ui.esc(word)}**" if stays else f":gray[~~{ui.esc(word)}~~]" for word, stays in pairs))
    n = sum(kept)
    if lesson.key == "tsdae":
        ui.note(f"{n} of {len(kept)} words are read, one vector is made of them, and all {len(kept)} words must be written from it.")
    else:
        ui.note(f"{n} of {len(kept)} words are left. Would you still call it bad news? That is the label-preservation check.")


def turned(lesson: Lesson) -> None:
    text = st.segmented_control("Sentence", list(DIRECTED), default=next(iter(DIRECTED)), required=True, key="toy-turned")
    for words, way in DIRECTED[text]:
        glyph, color = {"up": ("▲", "green"), "down": ("▼", "red"), "neither": ("●", "gray")}[way]
        st.markdown(f"{ui.chip(f'{glyph} {way}', color)} *{ui.esc(words)}*")
    shared = [set(words.casefold().strip(".").split()) for words, _ in DIRECTED[text][:2]]
    same = len(shared[0] & shared[1]) / len(shared[0] | shared[1])
    st.markdown(f"The first two share **{figures.points(same, 0)}** of their words and mean the opposite.")
    ui.note("The third one has about their length, so that length gives nothing away either.")


# ---------------------------------------------------------------- to a task


def trainable(lesson: Lesson) -> None:
    classes = st.slider("Classes", 2, 150, 77, key=f"toy-{lesson.key}")
    shape = examples.Shape()
    rows = [
        ("All weights", shape.weights + shape.head(classes), "full"),
        ("All but word vectors", shape.weights - shape.embeddings + shape.head(classes), "full"),
        ("LoRA, r = 16", shape.lora(16) + shape.head(classes), "lora"),
        ("Head only", shape.head(classes), "frozen"),
    ]
    t = ui.tokens()
    fig = go.Figure(
        go.Bar(
            y=[name for name, *_ in rows], x=[n for _, n, _ in rows], orientation="h", width=0.6, cliponaxis=False, hoverinfo="skip",
            marker={"color": [t["accent"] if key == lesson.key else ui.rgba(t["accent"], 0.38) for *_, key in rows], "line_width": 0},
            text=[f"{n:,}" for _, n, _ in rows], textposition="outside", textfont={"size": 12, "color": t["muted"]},
        )
    )  # fmt: skip
    ui.desk(fig, 190, hovermode="closest", margin={"l": 8, "r": 84, "t": 8, "b": 8})
    fig.update_xaxes(type="log", range=[2, 7.6], title_text="weights that learn, each tick ten times more", dtick=1)
    fig.update_yaxes(autorange="reversed", showgrid=False)
    ui.show(fig, f"fig-{lesson.key}", "Weights that learn: " + "; ".join(f"{name} {n:,}" for name, n, _ in rows))
    ui.note(f"The bundled base model, MiniLM: {shape.weights:,} weights, of which {shape.embeddings:,} are vectors of words and places.")


def low_rank(lesson: Lesson) -> None:
    rank = st.slider("Rank r", 1, 64, 8, key="toy-lora")
    shape, t, d = examples.Shape(), ui.tokens(), 384
    fig = go.Figure()
    b, a = d + 90, d + 110 + rank  # where the two strips begin
    for x, y, width, height in ((0, 0, d, d), (b, 0, rank, d), (a, d - rank, d, rank)):
        color = t["accent"] if x else ui.rgba(t["flat"], 0.35)
        fig.add_shape(type="rect", x0=x, x1=x + width, y0=y, y1=y + height, fillcolor=color, line_width=0)
    for x, y, words in ((d / 2, d / 2, "W<br>frozen"), (d + 45, d / 2, "+"), (b + rank / 2, -28, "B"), (a + d / 2, d - rank - 28, "A")):
        fig.add_annotation(x=x, y=y, text=words, showarrow=False, font={"size": 13})
    ui.desk(fig, 190, hovermode=False, margin={"l": 0, "r": 0, "t": 4, "b": 4})
    fig.update_xaxes(visible=False, range=[-10, 2 * d + 190])
    fig.update_yaxes(visible=False, range=[-50, d + 10], scaleanchor="x")
    learnt = rank * 2 * d
    ui.show(fig, "fig-lora", f"A square of {d} by {d} weights, frozen, and two strips of width {rank} that learn, to scale.")
    st.markdown(f"**{learnt:,}** weights learn in place of {d * d:,}: **{figures.points(1 - learnt / (d * d))} saved** in this matrix.")
    whole = shape.lora(rank)
    ui.note(f"On every matrix of the base model's layers: {whole:,} of {shape.weights:,} weights, {figures.points(whole / shape.weights)}.")


def pairs(lesson: Lesson) -> None:
    shots = st.slider("Labelled texts a class", 2, 64, 8, key="toy-setfit")
    classes = st.segmented_control("Classes", [2, 3, 10, 77], default=3, required=True, key="toy-setfit-classes")
    at = np.arange(2, 65)
    counts = [sum(examples.pairs(int(n), classes)) for n in at]
    same, apart = examples.pairs(shots, classes)
    fig = lab_drawing.line(go.Figure(), at, counts)
    lab_drawing.line(fig, at, at * classes, context=True)
    lab_drawing.place(fig, shots, same + apart, f"{same + apart:,} pairs")
    fig.add_annotation(x=64, y=np.log10(64 * classes), text="texts", showarrow=False, xanchor="right", yshift=-10, font={"size": 12})
    ui.desk(fig, "small", hovermode="closest", showlegend=False)
    fig.update_xaxes(title_text="labelled texts a class", range=[0, 66])
    fig.update_yaxes(type="log", dtick=1)
    ui.show(fig, "fig-setfit", f"Pairs grow with the square of the labels: {shots} texts a class make {same + apart:,}.")
    st.markdown(f"{shots * classes:,} labelled texts: **{same:,}** pairs that belong together, **{apart:,}** that do not.")


def descriptions(lesson: Lesson) -> None:
    text = st.segmented_control("Message", list(NEAREST), default=next(iter(NEAREST)), required=True, key="toy-zero")
    tau = st.slider("Temperature τ", 0.02, 0.3, 0.1, 0.01, key="toy-zero-tau")
    cosines, truth = NEAREST[text]
    probabilities = examples.softmax(cosines, temperature=tau)
    best = int(probabilities.argmax())
    names = [f"{words} (cos {cosine:.2f})" for words, cosine in zip(DESCRIBED, cosines, strict=True)]
    told = ", ".join(map(figures.probability, probabilities))
    lab_drawing.shares(names, list(probabilities), key="fig-zero", best=best, words=f"Shares of the descriptions: {told}.")
    close = sorted(cosines)[-1] - sorted(cosines)[-2] < 0.05
    verdict = "The two nearest differ by so little that the answer is luck." if close else f"Nearest: {DESCRIBED[best]}."
    ui.note(f"{verdict} τ changes how sure it sounds, never which one is nearest.")
    if best != truth:
        ui.note("It is wrong here.")


TOYS: dict[str, Callable[[Lesson], None]] = {
    "masking": masking,
    "certainty": certainty,
    "contrast": contrast,
    "deletion": deletion,
    "turned": turned,
    "trainable": trainable,
    "low_rank": low_rank,
    "pairs": pairs,
    "descriptions": descriptions,
    **lab_toys_lean.TOYS,
}
"""Name in lessons.toml -> what draws it."""
