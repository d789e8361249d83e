"""Explanations against named peers, on the same texts in the same run. Prints a table, writes results/explain-<date>.json.

    python benchmarks/explain.py                       everything, on Banking77; about 40 minutes on two slow cores
    python benchmarks/explain.py --quick               the same with a few texts; minutes
    python benchmarks/explain.py --model FOLDER --only cpu exact

Reads FM_DATA_DIR. Texts are rows that were cut from the training file, never a publisher's test rows. Without --model a `linear` model
is trained whose head never sees them (a shipped one is refitted on them; such a folder is refused). --mask-filler: a home with a trained
masked language model, for swaps among the flips. One thread; CPU is that of the whole process.

Two models are explained: the served one (int8 encoder, blended head), and the reference's, which is a logistic regression (C=10) on the
same embeddings. Two units: whole words, and the tokens of the encoder's WordPiece as the reference counts them. ERASER (DeYoung et al.
2020) says "the top 5 % of tokens" and leaves the rounding to whoever submits scores; all three ways are measured here. The bars are held
against k = ceil, as faithfulness.py has it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

if __name__ == "__main__":  # before the libraries that read it
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[_name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import explain_peers as peers  # noqa: E402
from benchmarks.explain_bench import Bench, Explainer, aimed, middle, say, softmax_of, trained  # noqa: E402
from benchmarks.explain_desk import flips, repeat  # noqa: E402
from fmcore import clock  # noqa: E402
from fmcore.evaluation.metrics import bootstrap, figure, mean  # noqa: E402
from fmcore.explain import attributions, faithfulness, gradients, words  # noqa: E402
from fmcore.explain.attributions import Attribution, Score  # noqa: E402
from fmcore.explain.words import Words  # noqa: E402
from fmcore.models.encoder import load_encoder  # noqa: E402

BARS = {
    "cpu ratio": 20.0, "comprehensiveness": 0.67, "sufficiency": 0.23, "calls": 40, "spearman at 64": 0.90, "deletion beats random": 0.95,
    "additivity error": 1e-3, "flips within 3 edits": 0.80, "flips verified": 1.0, "calls of a repeated request": 0,
}  # fmt: skip
PARTS = ("cpu", "faithful", "exact", "flips", "repeat")
ROUNDINGS: dict[str, Callable[[float], int]] = {
    "ceil": lambda x: math.ceil(x - 1e-9), "round, at least 1": lambda x: max(1, round(x)), "floor, at least 1": lambda x: max(1, int(x))
}  # fmt: skip
OURS = "fast, 40 calls"
BIG = 18, 22
SMALL = 3, 10

Split = Callable[[str], Words]


def ours(score: Score, method: str, budget: int | None = None) -> Explainer:
    """One of FM Desk's own methods."""

    def explain(pieces: Words, target: np.ndarray) -> Attribution:
        return attributions.attribute(score, pieces, target=target, method=method, budget=budget)

    return explain


# --- comprehensiveness, sufficiency, deletion, additivity


def drops(score: Score, pieces: Words, values: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n + 1,) each: how far the score falls without the k strongest, and with them alone, for every k from 0 to n."""
    n = len(pieces)
    place = np.argsort(np.argsort(-values, kind="stable"))
    strongest = place[None, :] < np.arange(n + 1)[:, None]
    scores = score([pieces.keep(row) for row in (*~strongest, *strongest)]) @ target
    return scores[0] - scores[: n + 1], scores[0] - scores[n + 1 :]


def eraser(curve: np.ndarray, rounding: str) -> float:
    """The mean over the bins."""
    return float(np.mean([curve[min(len(curve) - 1, ROUNDINGS[rounding](share * (len(curve) - 1)))] for share in faithfulness.BINS]))


def judged(score: Score, split: Split, texts: Sequence[str], explain: Explainer, *, deletion: bool = False) -> dict:
    """One method on these texts: ERASER's figures under each rounding, calls, additivity, and whether deletion beats random orders."""
    rows: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for key, value in values.items():
            rows.setdefault(key, []).append(value)

    for text in texts:
        pieces, target = split(text), aimed(score, text)
        found = explain(pieces, target)
        without, alone = drops(score, pieces, found.values, target)
        for rounding in ROUNDINGS:
            note(**{f"comprehensiveness {rounding}": eraser(without, rounding), f"sufficiency {rounding}": eraser(alone, rounding)})
        note(calls=found.n_calls, additivity=found.additivity_error)
        if deletion and len(pieces) > 1:
            trust = faithfulness.trust(score, pieces, found, target=target, familiar=None)
            note(beats=trust.deletion.area < trust.deletion.random_area, beats_all=trust.deletion.area < trust.deletion.low)
    result = {key: figure(mean(values)) for key, values in rows.items() if key[:4] in ("comp", "suff")}
    result |= {"mean_calls": round(float(np.mean(rows["calls"])), 1), "most_calls": int(max(rows["calls"])), "rows": rows}
    result["largest_additivity_error"] = float(max(rows["additivity"]))
    if deletion:
        result |= {"deletion_beats_random": figure(mean(rows["beats"])), "deletion_beats_every_random": figure(mean(rows["beats_all"]))}
    return result


def faithful(bench: Bench, options: argparse.Namespace, save: Callable[[dict], None]) -> dict:
    """Ours on every text and its peers on the first of them, on the served model and the reference's, by words and by WordPiece."""
    texts = bench.drawn(options.texts, 2, attributions.most_pieces("fast"))
    reference = softmax_of(bench.head(), bench.embedded)
    splits: dict[str, Split] = {"words": words.split, "WordPiece": bench.pieces}
    results: dict = {}
    for unit in options.units:
        for model, score in (("served", bench.served), ("logistic", reference)):
            main = model == "served" and unit == "words"
            fit = [text for text in texts if 1 < len(splits[unit](text)) <= attributions.most_pieces("fast")]
            probability = figure(mean([score([text]).max() for text in fit]))
            results[f"{model}, {unit}"] = (setting := {"probability_of_the_answer": probability, "methods": {}})
            for name, (explain, share) in methods(bench, score, everything=main).items():
                asked = fit[: math.ceil(share * len(fit))]
                result = judged(score, splits[unit], asked, explain, deletion=main and name == OURS)
                show(f"{model} model, {unit}, {name}", result)
                setting["methods"][name] = {key: value for key, value in result.items() if key != "rows"}
                save(results)
    return results


def methods(bench: Bench, score: Score, *, everything: bool) -> dict[str, tuple[Explainer, float]]:
    """Ours and its peers by name, each with the share of the texts it is asked about; the costly ones where `everything` is asked for."""
    found: dict[str, tuple[Explainer, float]] = {
        OURS: (ours(score, "fast", 40), 1.0),
        "occlusion": (ours(score, "occlusion", 60), 0.5),
        "shap Permutation, 100 calls": (ours(score, "shap", 100), 0.5),
        "random": (at_random(score), 0.5),
    }
    if everything:
        found["LIME, 40 calls"] = (lambda pieces, target: ours(score, "lime", max(40, 2 * len(pieces)))(pieces, target), 0.5)
        found["shap Partition, 100 calls"] = (lambda pieces, target: peers.partition(score, pieces, target, budget=100), 0.5)
        integrated = lambda pieces, target: gradients.integrated(bench.folder, bench.classifier, pieces, target=target)  # noqa: E731
        found["integrated gradients"] = (integrated, 0.2)
    return found


def at_random(score: Score) -> Explainer:
    """Values drawn at random."""
    rng = np.random.default_rng(0)

    def explain(pieces: Words, target: np.ndarray) -> Attribution:
        values = rng.random(len(pieces))
        whole = float((score([pieces.text]) @ target)[0])
        return Attribution(values, whole - float(values.sum()), whole, 0)

    return explain


# --- CPU


def spent(work: Callable[[], object]) -> tuple[float, object]:
    """CPU-seconds of all threads of this process, and what came of the work."""
    before = time.process_time()
    made = work()
    return time.process_time() - before, made


def cpu(bench: Bench, options: argparse.Namespace, _save: Callable[[dict], None]) -> dict:
    """CPU-seconds an explanation of texts of about 20 words, and what the explanations are worth, each on the model it explains."""
    import shap
    import torch

    torch.set_num_threads(1)
    texts = bench.drawn(options.pipeline_texts, *BIG)
    labels, head = bench.classifier.labels, bench.head()
    encoder = load_encoder("minilm", max_tokens=64, device="cpu")
    pipe = peers.text_pipeline(encoder, head, labels)
    on_pipe = peers.pipeline_score(pipe, labels)
    explainer = shap.Explainer(pipe)

    asked: dict[str, tuple[Score, Explainer]] = {
        "FM Desk fast, 40 calls, served model": (bench.fresh, ours(bench.fresh, "fast", 40)),
        "FM Desk fast, 40 calls, the pipeline": (on_pipe, ours(on_pipe, "fast", 40)),
        "shap.Explainer(pipeline), defaults": (on_pipe, lambda pieces, target: peers.shap_pipeline(explainer, pipe, pieces, target)),
        "shap Permutation, 100 calls, served model": (bench.fresh, ours(bench.fresh, "shap", 100)),
        "shap Partition, 100 calls, served model": (
            bench.fresh, lambda pieces, target: peers.partition(bench.fresh, pieces, target, budget=100),
        ),
    }  # fmt: skip
    results: dict = {"n_texts": len(texts), "words": [len(words.split(text)) for text in texts], "methods": {}}
    kept: dict[str, dict] = {}
    for name, (score, explain) in asked.items():
        explain(words.split(texts[0]), aimed(score, texts[0]))  # what is loaded at the first call is nobody's cost
        seconds, made = [], []
        for text in texts:
            pieces, target = words.split(text), aimed(score, text)
            took, found = spent(lambda explain=explain, pieces=pieces, target=target: explain(pieces, target))
            seconds.append(took)
            made.append(found)
        again = iter(made)
        kept[name] = judged(score, words.split, texts, lambda _pieces, _target, again=again: next(again)) | {"seconds": seconds}
        facts = {key: value for key, value in kept[name].items() if key not in ("rows", "seconds")}
        results["methods"][name] = {"cpu_seconds": figure(mean(seconds)), **facts}
        show(name, results["methods"][name])
    first, same, theirs = (kept[name] for name in list(asked)[:3])
    ours_s, theirs_s = np.array(first["seconds"]), np.array(theirs["seconds"])
    results["ratio"] = figure(bootstrap(lambda rows: float(theirs_s[rows].sum() / ours_s[rows].sum()), len(texts), resamples=1000))
    for what in ("comprehensiveness", "sufficiency"):
        better = np.array(same["rows"][f"{what} ceil"]) - np.array(theirs["rows"][f"{what} ceil"])
        results[f"{what}, ours minus shap's on the pipeline"] = figure(mean(better))
    print(f"  shap.Explainer(pipeline) takes {results['ratio']['value']:.0f} times the CPU ({say(results['ratio'])}); the bar is 20")
    return results


# --- exact values


def exact(bench: Bench, options: argparse.Namespace, _save: Callable[[dict], None]) -> dict:
    """Spearman's rank correlation with the exact Shapley values of every text, at 40 and at 64 calls."""
    from scipy.stats import spearmanr

    texts = bench.drawn(options.small_texts, *SMALL)
    score = bench.served
    asked = {
        "FM Desk fast": lambda p, t, b: ours(score, "fast", b)(p, t),
        "paired KernelSHAP (shap.KernelExplainer)": lambda p, t, b: peers.kernel_shap(score, p, t, budget=b, seed=0),
        "antithetic permutations (shap Permutation)": lambda p, t, b: ours(score, "shap", b)(p, t),
        "LIME": lambda p, t, b: ours(score, "lime", b)(p, t),
    }
    found: dict[str, list[float]] = {}
    sizes: list[int] = []
    for text in texts:
        pieces, target = words.split(text), aimed(score, text)
        truth = ours(score, "exact")(pieces, target)
        sizes.append(len(pieces))
        for calls in (40, 64):
            for name, explain in asked.items():
                made = explain(pieces, target, calls)
                found.setdefault(f"{name}, {calls} calls", []).append(float(spearmanr(made.values, truth.values)[0]))
    lengths = np.array(sizes)
    results: dict = {"n_texts": len(texts), "words": {int(k): int((lengths == k).sum()) for k in np.unique(lengths)}, "methods": {}}
    for name, values in found.items():
        everything, estimated = np.array(values), np.array(values)[lengths >= 7]
        results["methods"][name] = (figures := {"all": middle(everything), "of 7 to 10 words": middle(estimated)})
        print(f"  {name:<58} median {say(figures['all'])}; 7 to 10 words {say(figures['of 7 to 10 words'])}")
    return results


# --- the run


def show(name: str, result: dict) -> None:
    """A result as a line for a person."""
    told = [f"{key.split()[0][:4]} {say(result[key])}" for key in ("comprehensiveness ceil", "sufficiency ceil")]
    told += [f"calls {result['mean_calls']:.0f}, {result['most_calls']} at most; adds up to {result['largest_additivity_error']:.1e}"]
    told += [f"beats random {say(result['deletion_beats_random'])}"] if "deletion_beats_random" in result else []
    told += [f"CPU-s {say(result['cpu_seconds'])}"] if "cpu_seconds" in result else []
    print(f"  {name:<52} {'; '.join(told)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the texts")
    parser.add_argument("--model", type=Path, help="a model folder whose head has not seen the held-back rows")
    parser.add_argument("--mask-filler", type=Path, help="a home with a trained masked language model")
    units = ("words", "WordPiece")
    parser.add_argument("--units", nargs="+", choices=units, default=list(units), help="of the part `faithful`")
    parser.add_argument("--out", type=Path, help="where the JSON goes; default: benchmarks/results, dated")
    options = parser.parse_args()
    sizes = (20, 2, 8, 3) if options.quick else (200, 6, 60, 20)
    options.texts, options.pipeline_texts, options.small_texts, options.repeats = sizes
    today = f"{clock.now():%Y-%m-%d}"
    target = options.out or ROOT / "benchmarks" / "results" / f"explain-{today}.json"
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "processor": platform.processor()}
    with tempfile.TemporaryDirectory() as place:
        folder = options.model or Path(place) / "model"
        if options.model is None:
            trained(folder)
        bench = Bench.make(folder)
        print(f"Banking77, {len(bench.texts)} held-back rows. {bench.split_note}")
        for part in options.only:
            print(part, flush=True)
            began = time.perf_counter()

            def save(found: dict, part: str = part, began: float = began) -> None:
                """What an earlier run of the day measured stays beside."""
                results = json.loads(target.read_text())["results"] if target.is_file() else {}
                facts = {"seconds": round(time.perf_counter() - began, 1), "load": round(os.getloadavg()[0], 1)}
                results[part] = {**results.get(part, {}), **found, **facts}
                body = {"on": today, "machine": machine, "bars": BARS, "split_note": bench.split_note, "results": results}
                target.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")

            save({"cpu": cpu, "faithful": faithful, "exact": exact, "flips": flips, "repeat": repeat}[part](bench, options, save))
    print(f"Written to {target}.")


if __name__ == "__main__":
    main()
