"""The model card: stored facts about a version, in sections; a fact that was not stored says "unknown".

Never computes a figure and never guesses: what stands here was written by the recipe, the evaluation or the registry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fmcore.nouns import ModelVersion, Promotion
from fmcore.run_facts import RunFacts
from fmcore.tasks import RECOMMEND

UNKNOWN = "unknown"
MAKING = "How it was made"
SHOWN_LIBRARIES = ("python", "torch", "transformers", "scikit-learn", "onnxruntime")
SIZES = {"People": "n_users", "Items": "n_items", "Interactions": "n_interactions"}
"""Sizes of a log: what a card calls them -> the stored fact."""
Card = dict[str, dict[str, Any]]


def card_of(version: ModelVersion, *, facts: Mapping[str, Any], promotions: Sequence[Promotion], run: RunFacts | None = None) -> Card:
    """{section: {fact: value}} of a version; run: what is known of the run that made it."""
    if version.task == RECOMMEND.name:
        return {**_shelf(version, facts, promotions), MAKING: _making(run)}
    labels = facts.get("labels") or ()
    oos = facts.get("oos") if isinstance(facts.get("oos"), Mapping) else {}
    return {
        "What it is": {
            "Task": version.task,
            "Version": version.version,
            "Stage": version.stage,
            "Recipe": _known(version.recipe),
            "Why this recipe": _known(facts.get("recipe_reason")),
            "Base model": _known(version.base),
            "Base model's sha256": _known(facts.get("base_sha256")),
            "Served form": _known(facts.get("form")),
            "Words beside the embedding": _lexical(facts.get("lexical")),
            "Trained at": version.created_at.isoformat(timespec="seconds"),
            "Run": _known(version.run_id),
        },
        "Data": {
            "Data set": _known(version.dataset),
            "Synthetic (demo) data": {True: "yes", False: "no"}.get(facts.get("synthetic"), UNKNOWN),
            "Labels": f"{len(labels)}: {', '.join(map(str, labels))}" if labels else UNKNOWN,
            "Split": _known(facts.get("split_note")),
            "Split hash": _known(facts.get("split_hash")),
            "Licence": _known(facts.get("licence")),
        },
        "Figures on held-out rows": {
            "Rows": _known(facts.get("n")),
            "Accuracy": _figure(facts.get("accuracy")),
            "Macro F1": _figure(facts.get("macro_f1")),
            "Calibration error (ECE)": _figure(facts.get("ece")),
            "Out-of-scope AUROC": _figure(oos.get("auroc")),
            "Out-of-scope recall at the served threshold": _figure(oos.get("recall")),
            "In-scope accuracy at the served threshold": _figure(oos.get("in_scope_accuracy")),
            **_sentiment(facts),
        },
        "Known limits": {
            "Intended use": _known(facts.get("intended_use")),
            "Weakest labels": _weakest(facts.get("per_class")),
            "Most confused": _confused(facts.get("confusions")),
            "Languages": _known(facts.get("languages")),
        },
        **_compression(facts),
        MAKING: _making(run),
        "Decisions": _decisions(version, promotions),
    }


def _making(run: RunFacts | None) -> dict[str, Any]:
    """What the model was made with, and what that took: the facts of its run, each unknown where none was noted."""
    if run is None:
        return dict.fromkeys(("Code", "Libraries", "Data hash", "Device", "Machine", "Time", "Peak memory", "Energy", "Line"), UNKNOWN)
    libraries = ", ".join(f"{name} {run.libraries[name]}" for name in SHOWN_LIBRARIES if name in run.libraries)
    processors = f", {run.cpu_count} processors" if run.cpu_count else ""
    return {
        "Code": _known(run.code_words),
        "Libraries": libraries or UNKNOWN,
        "Data hash": _known(run.data.get("hash")),
        "Device": _known(run.device),
        "Machine": f"{run.machine}{processors}" if run.machine else UNKNOWN,
        "Time": f"{run.seconds:,.1f} s" if run.seconds is not None else UNKNOWN,
        "Peak memory": f"{run.peak_rss_mb:,.0f} MB" if run.peak_rss_mb is not None else UNKNOWN,
        "Energy": f"{run.energy_j:,.0f} J. {run.energy_note}" if run.energy_j is not None else f"{UNKNOWN}. {run.energy_note}",
        "Line": "; ".join(f"{parent.how} {parent.id}" for parent in run.parents) or UNKNOWN,
    }


def _shelf(version: ModelVersion, facts: Mapping[str, Any], promotions: Sequence[Promotion]) -> Card:
    """The card of a version of recommenders."""
    rows = [row for row in facts.get("leaderboard") or () if isinstance(row, Mapping)]
    titles = {row.get("model"): row.get("title") for row in rows}
    left_out = facts.get("left_out")
    return {
        "What it is": {
            "Task": version.task,
            "Version": version.version,
            "Stage": version.stage,
            "Model that answers": _known(titles.get(facts.get("serving"), facts.get("serving"))),
            "Models on the shelf": ", ".join(str(row.get("title", row.get("model"))) for row in rows) or UNKNOWN,
            "Left out": " ".join(map(str, left_out.values())) or "none" if isinstance(left_out, Mapping) else UNKNOWN,
            "Foundation model that reads the items": _known(version.base),
            "Trained at": version.created_at.isoformat(timespec="seconds"),
            "Run": _known(version.run_id),
        },
        "Data": {
            "Data set": _known(version.dataset),
            "Synthetic (demo) data": {True: "yes", False: "no"}.get(facts.get("synthetic"), UNKNOWN),
            **{name: _count(facts.get(key)) for name, key in SIZES.items()},
            "Newest interaction": _known(facts.get("trained_up_to")),
            "Split": _known(facts.get("split_note")),
            "Split hash": _known(facts.get("split_hash")),
            "Notes": " ".join(map(str, facts.get("notes") or ())) or "none",
            "Licence": _known(facts.get("licence")),
        },
        "Figures on held-out rows": {
            "People": _count(facts.get("n")),
            "Ranking": f"over all {facts['n_items']:,} items but those of the past" if facts.get("n_items") else UNKNOWN,
            "HR@10": _figure(facts.get("hr")),
            "NDCG@10": _figure(facts.get("ndcg")),
            "MRR": _figure(facts.get("mrr")),
            "Coverage": _figure(facts.get("coverage")),
            "NDCG@10 above popularity's on the same people": _figure(facts.get("better_than_popularity")),
        },
        "Known limits": {
            "Weakest slices": _weakest_slices(next((row for row in rows if row.get("model") == facts.get("serving")), {})),
            "What the figures say": "How often the item that a person met next was placed high; not whether a list was liked.",
        },
        "Decisions": _decisions(version, promotions),
    }


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else UNKNOWN


def _weakest_slices(row: Mapping[str, Any]) -> str:
    """The slices of the model that answers by NDCG@10, lowest first."""
    found = [(name, part.get("ndcg")) for name, part in (row.get("slices") or {}).items() if isinstance(part, Mapping)]
    known = sorted(((name, f) for name, f in found if isinstance(f, Mapping)), key=lambda pair: pair[1]["value"])[:2]
    return "; ".join(f"{name}: NDCG@10 {_figure(figure)}" for name, figure in known) or UNKNOWN


def _compression(facts: Mapping[str, Any]) -> Card:
    """The section that only a compressed version has; figures against the model it was made from, on the same rows and machine."""
    made = facts.get("compressed")
    if not isinstance(made, Mapping):
        return {}
    lost = made.get("lost") if isinstance(made.get("lost"), Mapping) else {}
    known = all(isinstance(lost.get(key), int | float) for key in ("value", "low", "high", "n"))
    spread = f"{lost['value']:.1f} (95 % interval {lost['low']:.1f} to {lost['high']:.1f}, n {lost['n']})" if known else UNKNOWN
    return {
        "Compression": {
            "Made from": _known(made.get("teacher")),
            "Method": _known(made.get("method")),
            "Points of accuracy lost": spread,
            "Points it may lose": _known(made.get("allowed_points")),
            "Speed against it as served": _times(made.get("speedup")),
            "Speed against PyTorch fp32": _times(made.get("speedup_pytorch")),
            "Timed": _known(made.get("timed")),
        }
    }


def _times(value: Any) -> str:
    return f"{value:.1f} times" if isinstance(value, int | float) else UNKNOWN


def _decisions(version: ModelVersion, promotions: Sequence[Promotion]) -> dict[str, Any]:
    return {
        "Gate": _known(version.verdict.get("reason")),
        "Served": "; ".join(f"{p.at:%Y-%m-%d %H:%M} UTC by {p.by}: {p.reason}" for p in promotions) or "never",
        "Manifest sha256": version.sha256,
    }


def _sentiment(facts: Mapping[str, Any]) -> dict[str, str]:
    """What only a sentiment model has: the lexicon on the same rows, and the failure suite by kind."""
    shown, lexicon, suite = {}, facts.get("lexicon"), facts.get("failure_suite")
    if isinstance(lexicon, Mapping):
        shown[f"Accuracy of {lexicon.get('name', 'the lexicon')} on the same rows"] = _figure(lexicon.get("accuracy"))
    if isinstance(suite, Mapping):
        kinds = ", ".join(f"{kind['kind']} {kind['n_passed']} of {kind['n']}" for kind in suite["kinds"])
        shown["Failure suite passed"] = f"{suite['n_passed']} of {suite['n']} ({kinds}); {suite['lexicon']}: {suite['n_lexicon']}"
    return shown


def _lexical(part: Any) -> str:
    """Whether lexical scores stand beside the head, with how much of a say."""
    if not isinstance(part, Mapping) or not part.get("chosen"):
        return "none"
    return f"{part['share']:.0%} of the log-probability, {part['n_words'] + part['n_parts']:,} word and letter sequences"


def card_markdown(card: Card) -> str:
    """The card as a markdown document, every value as plain text (characters that markdown reads are escaped)."""
    lines = []
    for section, facts in card.items():
        lines += [f"## {section}", ""]
        lines += [f"- **{name}**: {_plain(value)}" for name, value in facts.items()]
        lines.append("")
    return "\n".join(lines)


def _known(value: Any) -> Any:
    return UNKNOWN if value is None or value == "" else value


def _figure(value: Any) -> str:
    """ "0.933 (0.925 to 0.941)" of an Estimate stored as JSON."""
    if not isinstance(value, Mapping) or not all(isinstance(value.get(k), int | float) for k in ("value", "low", "high")):
        return UNKNOWN
    rows = f", n {value['n']}" if value.get("n") is not None else ""
    return f"{value['value']:.3f} (95 % interval {value['low']:.3f} to {value['high']:.3f}{rows})"


def _weakest(rows: Any) -> str:
    known = [r for r in rows or () if isinstance(r, Mapping) and isinstance(r.get("f1"), int | float)]
    worst = sorted(known, key=lambda r: r["f1"])[:5]
    return ", ".join(f"{r['label']} (F1 {r['f1']:.2f}, n {r.get('n', '?')})" for r in worst) or UNKNOWN


def _confused(rows: Any) -> str:
    known = [r for r in rows or () if isinstance(r, Mapping) and {"true", "predicted", "n"} <= r.keys()][:5]
    return ", ".join(f"{r['true']} read as {r['predicted']} ({r['n']})" for r in known) or UNKNOWN


def _plain(value: Any) -> str:
    text = " ".join(str(value).split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|~$" else c for c in text)
