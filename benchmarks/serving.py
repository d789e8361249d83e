"""`python -m benchmarks.serving`: what serving costs here, beside PyTorch fp32 in the same run on the same texts.

Each section is a function that gives JSON data; `SECTIONS` lists them. The forms: every served form of the encoder against PyTorch
fp32 (its better batch size of two), taking turns, best round of each; accuracy with a head fitted on each form's own
embeddings, on held-out rows. The bar: at least 2.4 times PyTorch's texts a second at no more than 0.3 points lost.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fmcore import clock
from fmcore.data import catalogue
from fmcore.evaluation.metrics import OOS, figure, paired_difference
from fmcore.models import export
from fmcore.models.encoder import Encoder, load_encoder
from fmcore.models.heads import fit_logistic

RESULTS = Path(__file__).resolve().parent / "results"
BAR = {"times_pytorch": 2.4, "loss_points": 0.3}
PYTORCH_BATCHES = (16, 64)


def measure_forms(options: argparse.Namespace) -> dict[str, Any]:
    """Speed and accuracy of every served form of the base encoder against PyTorch fp32."""
    import torch

    torch.set_num_threads(options.threads)
    data = catalogue.load(options.dataset)
    encoder = load_encoder(options.base, max_tokens=64, device="cpu")
    probe = _probe(data).sample(options.head_rows)
    with tempfile.TemporaryDirectory() as scratch:
        tried = export.try_forms(encoder, Path(scratch), probe, forms=export.FORMS, threads=options.threads, progress=_say)
        reference = _pytorch_answers(encoder, probe)
        timed = sorted(probe.texts, key=len)[:: max(1, len(probe.texts) // options.texts)][: options.texts]
        times = _times(encoder, tried, timed, rounds=options.rounds)
        pytorch = len(timed) / min(min(times[f"pytorch {batch}"]) for batch in PYTORCH_BATCHES)
        forms = [_form_row(t, reference, len(timed) / min(times[t.form.name]), pytorch) for t in tried]
    passing = [row for row in forms if row["loss_points"]["value"] <= BAR["loss_points"]]
    best = max(passing, key=lambda row: row["texts_per_s"]) if passing else None
    return {
        "dataset": data.name,
        "split_hash": data.split_hash,
        "test_is_publishers": data.test_is_publishers,
        "n_test": len(probe.texts),
        "n_head_rows": len(probe.train_texts),
        "n_timed": len(timed),
        "threads": options.threads,
        "pytorch_fp32": {
            "texts_per_s": round(pytorch, 1),
            "by_batch": {str(batch): round(len(timed) / min(times[f"pytorch {batch}"]), 1) for batch in PYTORCH_BATCHES},
            "accuracy": round(float(reference.mean()), 5),
        },
        "forms": forms,
        "served": best and best["form"],
        "times_pytorch": best and best["times_pytorch"],
        "bar": BAR,
        "bar_met": bool(best and best["times_pytorch"] >= BAR["times_pytorch"]),
    }


SECTIONS = {"forms": measure_forms}
"""What is measured, by its name in the JSON. The API's latency is benchmarks/serving_api.py's part."""


def _say(_fraction: float, message: str) -> None:
    print(message, flush=True)


def _probe(data: catalogue.LabelledData) -> export.Probe:
    """Heads are fitted on training rows and judged on test rows, which no form was chosen on."""
    order = {label: i for i, label in enumerate(data.labels)}
    test = data.test[data.test["label"] != OOS]
    train_classes, classes = (frame["label"].map(order).to_numpy() for frame in (data.train, test))
    return export.Probe(list(data.train["text"]), train_classes, list(test["text"]), classes, len(order))


def _pytorch_answers(encoder: Encoder, probe: export.Probe) -> np.ndarray:
    head = fit_logistic(encoder.encode(probe.train_texts, batch=16), probe.train_classes, n_classes=probe.n_classes)
    return head.scores(encoder.encode(probe.texts, batch=16)).argmax(axis=1) == probe.classes


def _times(encoder: Encoder, tried: list[export.Tried], texts: list[str], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round by name, tokenising included; the peers take turns so that a busy moment meets all of them."""
    peers = {f"pytorch {batch}": lambda batch=batch: encoder.encode(texts, batch=batch) for batch in PYTORCH_BATCHES}
    peers |= {t.form.name: lambda t=t: t.served.encode(texts) for t in tried}
    times: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(rounds):
        print(f"Timing, round {number + 1} of {rounds}", flush=True)
        for name, run in peers.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return times


def _form_row(tried: export.Tried, reference: np.ndarray, texts_per_s: float, pytorch: float) -> dict[str, Any]:
    lost = figure(paired_difference(tried.correct, reference))
    points = {key: round(100 * lost[key], 3) for key in ("value", "low", "high")}
    return {
        "form": tried.form.name,
        "texts_per_s": round(texts_per_s, 1),
        "times_pytorch": round(texts_per_s / pytorch, 2),
        "accuracy": round(float(tried.correct.mean()), 5),
        "loss_points": points,
        "mb": round((tried.folder / "encoder.onnx").stat().st_size / 1e6, 1),
    }


def machine() -> dict[str, Any]:
    """The processor and the libraries behind the figures."""
    import onnxruntime
    import torch

    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    values = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in facts.splitlines() if ":" in line}
    flags = set(values.get("flags", "").split())
    return {
        "processor": values.get("model name", platform.processor()),
        "instructions": [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if flag in flags],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="banking77", help="a data set of the catalogue (FM_DATA_DIR says where they are)")
    parser.add_argument("--base", default="minilm", help="the foundation model")
    parser.add_argument("--texts", type=int, default=512, help="texts a round of timing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--head-rows", type=int, default=20_000, help="at most so many training rows for the heads")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    options = parser.parse_args()
    result = {"at": clock.now().isoformat(timespec="seconds"), "machine": machine()}
    for name in options.sections:
        result[name] = SECTIONS[name](options)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"serving-{clock.now():%Y-%m-%d}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    print(f"Written to {path}")


if __name__ == "__main__":
    main()
