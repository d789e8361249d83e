"""The regularisation study: one task tuned with and without each regulariser, on the same rows and seeds, and what may be said of it.

Owns which regularisers there are, the order in which they are tried, and the words of the verdict. A regulariser is chosen on validation
rows; the figures shown are of test rows, and a winner must help on both. How one is trained and kept is ablation_cells.py's; the
database is jobs/ablation.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fmcore.data.catalogue import LabelledData
from fmcore.evaluation.seeds import over_seeds, paired_over_seeds
from fmcore.lab.ablation_cells import PLAIN, STOP_SHARE, Ablation, Cell, Cells, Regulariser, names_of
from fmcore.models.encoder import load_encoder
from fmcore.nouns import Report
from fmcore.training import augment, finetune

LEAST_SEEDS = 2
TOGETHER_SHARE = 0.85
"""The part of the budget after which no single regulariser is begun: the rest is for all that helped together."""
MOST_JUDGED = 600
"""Training rows on which the label-preservation check of the table is made."""
HELPS, HARMS, UNCLEAR, YARDSTICK = "helps", "harms", "no difference shown", "the yardstick"
SYNTHETIC = "Made from synthetic demo data: it says how the study works, not what helps on real texts."
REGULARISERS = (
    Regulariser("plain", "Plain recipe (weight decay 0.01, dropout 0.1)"),
    Regulariser("weight_decay_0", "No weight decay", {"weight_decay": 0.0}),
    Regulariser("weight_decay_0.1", "Weight decay 0.1", {"weight_decay": 0.1}),
    Regulariser("dropout_0", "No dropout", {"dropout": 0.0}),
    Regulariser("dropout_0.3", "Dropout 0.3", {"dropout": 0.3}),
    Regulariser("label_smoothing", "Label smoothing 0.1", {"label_smoothing": 0.1}),
    Regulariser("r_drop", "R-Drop", {"consistency": 1.0}),
    Regulariser("synonym", "Synonyms", {"augmentation": "synonym"}),
    Regulariser("back_template", "Sentences rebuilt by template", {"augmentation": "back_template"}),
    Regulariser("token_dropout", "Words left out", {"augmentation": "token_dropout"}),
    Regulariser("early_stopping", "Early stopping", {"patience": 2}),
)
NAMES = tuple(each.name for each in REGULARISERS)
PRESENT, TOGETHER = "present", "together"


def run(data: LabelledData, params: Ablation, report: Report, *, folder: Path) -> dict[str, Any]:
    """Train every cell that the budget has room for and return the study's content (contract of kind "ablation").

    folder keeps finished cells: a run that was stopped goes on behind them, to the same content. Raises TooFewExamples.
    """
    rows = [each for each in REGULARISERS if each.name in ("plain", *(params.names or NAMES))]
    if not any(each.options == params.present for each in rows):
        rows.append(Regulariser(PRESENT, "As the task is trained now", params.present))
    checks, refused = preservation(data, params, rows, report)
    cells = Cells(data, params, report, folder, len(rows) + 1)
    left_out = dict(refused)
    tried = [each for each in rows if each.name not in refused]
    for i in range(params.seeds):
        for each in tried:
            cells.get(each, params.seed + i, until=TOGETHER_SHARE)
    together = combined(tried, _found(tried, cells.done, params, part="validation"))
    if isinstance(together, str):
        left_out[TOGETHER] = together
    else:
        tried.append(together)
        for i in range(params.seeds):
            cells.get(together, params.seed + i, until=1.0)
    left_out |= cells.missing(tried, params.seeds)
    bare = _bare(cells.done)
    left_out |= bare
    tried = [each for each in tried if each.name not in bare]
    content = told(tried, cells.done, params, left_out=left_out, checks=checks, data=data)
    report.progress(1.0, content["sentence"])
    return content


# --- augmentations' labels


def preservation(
    data: LabelledData, params: Ablation, rows: Sequence[Regulariser], report: Report
) -> tuple[list[augment.Preservation], dict[str, str]]:
    """(the label-preservation check of each augmentation among the rows, {row that must not be trained: why}).

    Judged on training rows by heads on the frozen encoder, each of which never learnt from the rows that it judges.
    """
    wanted = {name for each in rows for name in names_of(each.options.get("augmentation", ""))}
    names = [name for name in augment.AUGMENTATIONS if name in wanted]
    if not names:
        return [], {}
    report.progress(0.0, "Asking whether augmented texts keep their label")
    some = data.train.sample(min(MOST_JUDGED, len(data.train)), random_state=params.seed)
    encoder = load_encoder(params.base, max_tokens=params.max_tokens, device=params.device)
    texts, labels = some["text"].tolist(), some["label"].tolist()
    vectors = finetune.frozen_embeddings(encoder, texts, report=report, at=0.0)
    judge = augment.folds_judge(texts, labels, vectors, lambda new: encoder.encode(new, batch=finetune.FORWARD_BATCH))
    checks = [augment.checked(name, augment.AUGMENTATIONS[name], texts, labels, judge, seed=params.seed)[1] for name in names]
    why = {check.name: check.refused for check in checks if check.refused}
    hit = {each.name: names_of(each.options.get("augmentation", "")) for each in rows}
    return checks, {row: " ".join(why[n] for n in used if n in why) for row, used in hit.items() if any(n in why for n in used)}


# --- what may be said


def _paired(name: str, done: Mapping[tuple[str, int], Cell], *, part: str) -> tuple[np.ndarray, np.ndarray]:
    """(the plain recipe's answers, this row's): (seeds, rows) each, over the seeds that both have."""
    seeds = [seed for (row, seed) in done if row == name and ("plain", seed) in done]
    if not seeds:
        return np.zeros((0, 0)), np.zeros((0, 0))
    plain, mine = (np.stack([getattr(done[row, seed], part) for seed in sorted(seeds)]) for row in ("plain", name))
    return plain, mine


def _found(rows: Sequence[Regulariser], done: Mapping[tuple[str, int], Cell], params: Ablation, *, part: str) -> list[dict[str, Any]]:
    """A row of the table each, in their order, on validation or test rows; rows without a cell are not there."""
    found = []
    for each in rows:
        plain, mine = _paired(each.name, done, part=part)
        if not mine.size:
            continue
        mean = over_seeds(mine, resamples=params.resamples, seed=params.seed)
        row = {"name": each.name, "title": each.title, "mean": mean.value, "low": mean.low, "high": mean.high}
        over = None if each.name == "plain" else paired_over_seeds(plain, mine, resamples=params.resamples, seed=params.seed)
        ends = (None,) * 3 if over is None else (over.value, over.low, over.high)
        row |= dict(zip(("over", "over_low", "over_high"), ends, strict=True))
        seconds = np.mean([cell.seconds for (name, _), cell in done.items() if name == each.name])
        row |= {"n_seeds": len(mine), "n_test": mine.shape[1], "seconds": round(float(seconds), 1)}
        found.append(row | {"verdict": verdict(row)})
    return found


def verdict(row: Mapping[str, Any]) -> str:
    """What a row's interval allows to say of it: helps, harms, no difference shown; too few seeds say nothing."""
    if row["over"] is None:
        return YARDSTICK
    if row["n_seeds"] < LEAST_SEEDS:
        return f"{row['n_seeds']} seed only, no verdict"
    return HELPS if row["over_low"] > 0 else HARMS if row["over_high"] < 0 else UNCLEAR


def combined(rows: Sequence[Regulariser], found: Sequence[Mapping[str, Any]]) -> Regulariser | str:
    """All that helped, in one; of two that set the same knob the better one, augmentations side by side. Or why there is none."""
    single = {each.name: each for each in rows if each.name not in (PRESENT, TOGETHER)}
    helped = sorted((row for row in found if row["verdict"] == HELPS and row["name"] in single), key=lambda row: row["over"])
    if len(helped) < 2:
        what = f"only {helped[0]['title']} did" if helped else "none did"
        return f"nothing to combine: of the regularisers that must help on validation rows by their whole interval, {what}."
    options: dict[str, Any] = {}
    for row in helped:
        new = dict(single[row["name"]].options)
        if "augmentation" in new:
            new["augmentation"] = ",".join([*names_of(options.get("augmentation", "")), new["augmentation"]])
        options |= new
    return Regulariser(TOGETHER, f"All that helped together: {', '.join(row['title'] for row in helped[::-1])}", options)


def told(
    rows: Sequence[Regulariser],
    done: Mapping[tuple[str, int], Cell],
    params: Ablation,
    *,
    left_out: Mapping[str, str],
    checks: Sequence[augment.Preservation],
    data: LabelledData,
) -> dict[str, Any]:
    """The study's content. winner: the best on validation rows of those that help there and on test rows; None for none.

    options: the winner's, as parameters of job finetune, and adoptable: whether it beats what the task is trained with now, too.
    """
    seen, shown = (_found(rows, done, params, part=part) for part in ("validation", "test"))
    by_name = {row["name"]: row for row in seen}
    for row in shown:
        row |= {f"validation_{key}": by_name[row["name"]][key] for key in ("over", "over_low", "over_high")}
    helped = [row for row in seen if row["verdict"] == HELPS]
    best = max(helped, key=lambda row: row["over"], default=None)
    confirmed = best is not None and next(row for row in shown if row["name"] == best["name"])["verdict"] == HELPS
    winner = best["name"] if confirmed else None
    present = next((each.name for each in rows if each.options == params.present), PRESENT)
    plain = {knob: value for knob, value in PLAIN.items() if knob != "patience"}  # with all rows there are validation rows to stop by
    options = plain | dict(next(each.options for each in rows if each.name == winner)) if winner else {}
    adoptable, why = _against_present(winner, present, done, params)
    return {
        "rows": shown,
        "augmentations": [{**asdict(check), "examples": list(check.examples)} for check in checks if check.n],
        "sentence": sentence(shown, best, confirmed, params),
        "winner": winner,
        "options": options,
        "present": present,
        "adoptable": adoptable,
        "why": why,
        "left_out": dict(left_out),
        "notes": [*_notes(data, params), *_refused(rows, done)],
        "shots": params.shots,
        "recipe": params.recipe,
        "synthetic": data.synthetic,
    }


def _against_present(
    winner: str | None, present: str, done: Mapping[tuple[str, int], Cell], params: Ablation
) -> tuple[bool, str]:
    """(whether the winner may become the default, why): its difference to the present recipe on test rows must lie above 0 as well."""
    if winner is None:
        return False, "No regulariser is shown to help on validation and on test rows."
    if winner == present:
        return False, "The task is trained with the winner already."
    seeds = sorted(seed for (name, seed) in done if name == winner and (present, seed) in done)
    if len(seeds) < LEAST_SEEDS:
        return False, "Too few seeds were trained with what the task is trained with now."
    now, new = (np.stack([done[name, seed].test for seed in seeds]) for name in (present, winner))
    over = paired_over_seeds(now, new, resamples=params.resamples, seed=params.seed)
    words = f"{_points(over.value)} ({_points(over.low)} to {_points(over.high)}) against what the task is trained with now"
    return over.low > 0, words if over.low > 0 else f"Not better by its whole interval: {words}."


_SAID = {HELPS: "shown to help:", HARMS: "shown to harm:", UNCLEAR: "no difference shown for"}


def sentence(shown: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None, confirmed: bool, params: Ablation) -> str:
    """The study in words: what helps, what harms, what is not shown to do either, and the winner, if there is one."""
    groups = {word: [row["title"] for row in shown if row["verdict"] == word] for word in (HELPS, HARMS, UNCLEAR)}
    rows = f"{params.shots} rows a label" if params.shots else "all rows"
    parts = [f"With {rows}:"]
    parts += [f"{_SAID[word]} {', '.join(titles)};" for word, titles in groups.items() if titles]
    said = " ".join(parts).rstrip(";:") + "." if len(parts) > 1 else f"With {rows} nothing can be said: too few cells were trained."
    if best is None:
        return f"{said} No regulariser was better than the plain recipe by its whole interval on validation rows: none is chosen."
    row = next(each for each in shown if each["name"] == best["name"])
    gain = f"{_points(row['over'])} ({_points(row['over_low'])} to {_points(row['over_high'])}) on test rows"
    if confirmed:
        return f"{said} Best on validation rows, and shown to help on test rows: {row['title']}, {gain}."
    return f"{said} Best on validation rows was {row['title']}, but test rows do not confirm it: {gain}."


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"


def _bare(done: Mapping[tuple[str, int], Cell]) -> dict[str, str]:
    """Rows in which no cell had anything added, and why: they are the plain recipe under another name."""
    told: dict[str, list[Mapping[str, Any]]] = {}
    for (name, _), cell in done.items():
        told.setdefault(name, []).extend(cell.told)
    return {name: f"in every cell: {checks[0]['refused']}" for name, checks in told.items() if checks and all(c["refused"] for c in checks)}


def _refused(rows: Sequence[Regulariser], done: Mapping[tuple[str, int], Cell]) -> list[str]:
    """What the few rows of single cells did not let through: those were trained without."""
    out = []
    for each in rows:
        cells = [cell for (name, _), cell in done.items() if name == each.name and cell.told]
        bare = sum(any(check["refused"] for check in cell.told) for cell in cells)
        if bare:
            out.append(f"{each.title}: with {bare} of {len(cells)} seeds labels were not shown to be kept: nothing was added.")
    return out


def _notes(data: LabelledData, params: Ablation) -> list[str]:
    drawn = f"{params.shots} training rows a label, drawn anew for each seed" if params.shots else "all training rows"
    notes = [
        f"Every row of the table learns from the same rows, {drawn}, with the same seeds ({params.recipe}, {params.epochs} epochs); a "
        "logistic head is then fitted on the tuned encoder. Chosen on validation rows; the figures are of test rows.",
        f"Early stopping holds back {STOP_SHARE:.0%} of its own training rows to stop by. Intervals are at 95 % each: of ten regularisers "
        "that do nothing, about one in four studies would show one that helps, which is why a winner must also help on test rows.",
    ]
    return [*notes, *([SYNTHETIC] if data.synthetic else [])]
