"""`python -m benchmarks.anomaly [--nab DIR]`: the detector for any series on the Numenta Anomaly Benchmark, by NAB's published formula.

NAB (Lavin and Ahmad 2015, arXiv:1510.03336; scorer of numenta/NAB v1.1): the first 15 % of a file, at most 750 rows, are not scored.
The first detection in a window earns a scaled sigmoid of its place (1 at the window's start), each one outside costs the sigmoid of its
distance past the last window times the profile's weight, a missed window costs its weight. One threshold for all files is the one that
earns most. Score: 100 * (raw - null) / (perfect - null). Without --nab the 18 files of the public data folder are scored, on which the
detector's settings were chosen; their published scores of other detectors (at the threshold of the whole corpus) stand beside.
Peers computed in this run: a rolling z-score, and the absolute difference over its own running 99.9 % quantile.
"""

from __future__ import annotations

import argparse
import json
import time
from bisect import insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmcore import clock, config
from fmcore.sentiment import anomaly

RESULTS = Path(__file__).resolve().parent / "results"
PROBATION_SHARE, PROBATION_MAX = 0.15, 750
PROFILES = {"standard": (1.0, 0.11, 1.0), "reward_low_FP_rate": (1.0, 0.22, 1.0), "reward_low_FN_rate": (1.0, 0.11, 2.0)}
"""Weights of a true positive, of a false positive and of a missed window (config/profiles.json)."""
BARS = {"standard": 65.0, "realTweets": 75.0}
Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Labelled:
    """One file. window: the number of each row's window, -1 outside; earns: what a detection there earns before weights."""

    frame: pd.DataFrame
    window: np.ndarray
    earns: np.ndarray
    probation: int

    @property
    def n_windows(self) -> int:
        """Windows with a row that is scored."""
        return len(set(self.window[self.probation :].tolist()) - {-1})


def sigmoid(position: np.ndarray) -> np.ndarray:
    """NAB's scaled sigmoid: 0.987 at -1, 0 at 0, toward -1; -1 beyond 3."""
    return np.where(position > 3.0, -1.0, 2.0 / (1.0 + np.exp(5.0 * np.minimum(position, 3.0))) - 1.0)


def labelled(frame: pd.DataFrame, windows: list[tuple[pd.Timestamp, pd.Timestamp]]) -> Labelled:
    """What each row is worth."""
    n, times = len(frame), frame["timestamp"].tolist()
    window, earns, best = np.full(n, -1), np.full(n, -1.0), float(sigmoid(np.array(-1.0)))
    edges = [(times.index(start), times.index(end)) for start, end in windows]
    for number, (first, last) in enumerate(edges):
        width = last - first + 1
        inside = np.arange(first, last + 1)
        window[inside] = number
        earns[inside] = sigmoid(-(last - inside + 1) / width) / best
        after = np.arange(last + 1, edges[number + 1][0] if number + 1 < len(edges) else n)
        earns[after] = sigmoid((after - last) / (width - 1.0))
    return Labelled(frame, window, earns, min(int(PROBATION_SHARE * n), PROBATION_MAX))


def corpus(folder: Path) -> dict[str, Labelled]:
    """Every labelled file there is below a NAB folder."""
    found = {}
    for name, windows in sorted(json.loads((folder / "labels" / "combined_windows.json").read_text()).items()):
        path = folder / "data" / name
        if path.is_file():
            frame = pd.read_csv(path)
            frame["timestamp"] = pd.to_datetime(frame["timestamp"])
            found[name] = labelled(frame, [(pd.Timestamp(a), pd.Timestamp(b)) for a, b in windows])
    return found


def raw_score(file: Labelled, scores: np.ndarray, threshold: float, profile: str) -> float:
    """NAB's raw score of one file at one threshold."""
    tp, fp, fn = PROFILES[profile]
    hit = scores >= threshold
    hit[: file.probation] = False
    total = fp * float(file.earns[hit & (file.window < 0)].sum())
    for number in set(file.window[file.probation :].tolist()) - {-1}:
        inside = hit & (file.window == number)
        total += tp * float(file.earns[inside].max()) if inside.any() else -fn
    return total


def normalised(files: Mapping[str, Labelled], raw: float, profile: str) -> float:
    """100 for the first row of every window and nothing else, 0 for silence. A set without windows has its raw score."""
    tp, _, fn = PROFILES[profile]
    n = sum(file.n_windows for file in files.values())
    return 100 * (raw + fn * n) / (n * (tp + fn)) if n else raw


def total_score(files: Mapping[str, Labelled], scores: Scores, threshold: float, profile: str) -> float:
    """The normalised score of all files at one threshold."""
    return normalised(files, sum(raw_score(file, scores[name], threshold, profile) for name, file in files.items()), profile)


def best_threshold(files: Mapping[str, Labelled], scores: Scores, profile: str) -> float:
    """The one threshold that earns most over all files: every score is tried, from the highest down, in one sweep."""
    tp, fp, fn = PROFILES[profile]
    parts = []
    for number, (name, file) in enumerate(files.items()):
        rows = slice(file.probation, None)
        window = np.where(file.window[rows] >= 0, file.window[rows] + 1000 * number, -1)
        parts.append(np.column_stack([scores[name][rows], window, file.earns[rows]]))
    every = np.concatenate(parts)
    every = every[np.argsort(-every[:, 0], kind="stable")]
    gains = np.where(every[:, 1] < 0, fp * every[:, 2], 0.0)
    earned: dict[float, float] = {}
    for at in np.flatnonzero(every[:, 1] >= 0):
        window, worth = every[at, 1], tp * every[at, 2]
        if worth > earned.get(window, -fn):
            gains[at] = worth - earned.get(window, -fn)
            earned[window] = worth
    totals = np.cumsum(gains)
    whole = np.append(every[1:, 0] != every[:-1, 0], True)  # a threshold takes all rows of equal score
    at = int(np.argmax(np.where(whole, totals, -np.inf)))
    return float(every[at, 0]) if totals[at] > 0 else np.inf


# --- detectors: a frame in, a score for each row out


def ours(frame: pd.DataFrame) -> np.ndarray:
    return anomaly.score(frame)["anomaly_score"].to_numpy()


def rolling_z(frame: pd.DataFrame, *, window: int = 288) -> np.ndarray:
    """|value - mean| / deviation of the rows before it, as z / (1 + z)."""
    before = frame["value"].shift(1).rolling(window, min_periods=30)
    z = ((frame["value"] - before.mean()).abs() / before.std().replace(0.0, np.nan)).fillna(0.0).to_numpy()
    return z / (1 + z)


def difference_rule(frame: pd.DataFrame) -> np.ndarray:
    """|value - last value| over its own 99.9 % quantile so far: one line, and above half of NAB's table."""
    steps = frame["value"].diff().abs().fillna(0.0).tolist()
    seen: list[float] = []
    out = []
    for step in steps:
        usual = seen[min(len(seen) - 1, int(0.999 * len(seen)))] if len(seen) >= 200 else np.inf
        out.append(step / usual if usual > 0 else (1e9 if step > 0 else 0.0))
        insort(seen, step)
    ratio = np.array(out)
    return ratio / (1 + ratio)


DETECTORS: dict[str, Callable[[pd.DataFrame], np.ndarray]] = {
    "fm desk": ours,
    "rolling z-score": rolling_z,
    "difference rule": difference_rule,
}


def measured(files: Mapping[str, Labelled], scores: Scores) -> dict[str, Any]:
    """All figures of one detector: profiles, folders at the common threshold, and thresholds chosen without the file they are used on."""
    thresholds = {profile: best_threshold(files, scores, profile) for profile in PROFILES}
    common = thresholds["standard"]
    folders = {}
    for folder in sorted({name.split("/")[0] for name in files}):
        some = {name: file for name, file in files.items() if name.startswith(folder + "/")}
        folders[folder] = round(total_score(some, scores, common, "standard"), 2)
    others = 0.0
    for name, file in files.items():
        rest = {other: f for other, f in files.items() if other != name}
        others += raw_score(file, scores[name], best_threshold(rest, scores, "standard") if rest else np.inf, "standard")
    by_file = {}
    for name, file in files.items():
        hit = (scores[name] >= common) & (np.arange(len(scores[name])) >= file.probation)
        found = {int(w) for w in file.window[hit].tolist()} - {-1}
        by_file[name] = {
            "raw": round(raw_score(file, scores[name], common, "standard"), 3),
            "windows": file.n_windows,
            "found": len(found),
            "false": int((hit & (file.window < 0)).sum()),
        }
    return {
        **{profile: round(total_score(files, scores, thresholds[profile], profile), 2) for profile in PROFILES},
        "threshold": round(common, 6),
        "folders": folders,
        "standard_at_the_desk_threshold": round(total_score(files, scores, 0.5, "standard"), 2),
        "standard_leave_one_file_out_threshold": round(normalised(files, others, "standard"), 2),
        "files": by_file,
    }


def published(files: Mapping[str, Labelled], folder: Path) -> dict[str, dict[str, float]]:
    """What other detectors scored on the same files, normalised from their published raw scores; {} where the table is missing."""
    path = folder / "results" / "standard_scores_on_these_files.csv"
    if not path.is_file():
        return {}
    table = pd.read_csv(path, keep_default_na=False)  # one detector is called null
    out = {}
    for name, rows in table[table["File"].isin(files)].groupby("Detector"):
        if len(rows) == len(files):  # some published tables are incomplete
            raw = dict(zip(rows["File"], rows["Score"], strict=True))
            out[str(name)] = {"all": round(normalised(files, sum(raw.values()), "standard"), 2)}
            for part in sorted({file.split("/")[0] for file in files}):
                some = {file: f for file, f in files.items() if file.startswith(part + "/")}
                out[str(name)][part] = round(normalised(some, sum(raw[file] for file in some), "standard"), 2)
    return dict(sorted(out.items(), key=lambda item: -item[1]["all"]))


def million(n: int) -> dict[str, float]:
    """Rows a second, on a series of n rows with a daily rhythm, and on its last tenth: a row costs the same after a million."""
    rng = np.random.default_rng(0)
    values = 50 + 20 * np.sin(np.arange(n) * 2 * np.pi / 1440) + rng.normal(0, 3, n)
    detector = anomaly.Detector()
    times = []
    for part in np.array_split(np.arange(n), 10):
        began = time.process_time()
        for i in part:
            detector.update(60.0 * i, values[i])
        times.append(time.process_time() - began)
    return {
        "rows": n,
        "cpu_s": round(sum(times), 2),
        "rows_per_cpu_s": round(n / sum(times)),
        "last_tenth_over_second": round(times[-1] / times[1], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nab", type=Path, help="a NAB folder with data/ and labels/; default: the 18 files of the public data folder")
    parser.add_argument("--million", type=int, default=1_000_000, help="rows of the speed test; 0: none")
    parser.add_argument("--out", type=Path, help="where the JSON goes; default: benchmarks/results, dated")
    options = parser.parse_args()
    data_dir = config.settings().data_dir
    folder = options.nab or (Path(data_dir) / "nab" if data_dir else None)
    if folder is None or not (folder / "labels" / "combined_windows.json").is_file():
        raise SystemExit("There are no NAB files: name their folder with --nab, or set FM_DATA_DIR.")
    files = corpus(folder)
    result: dict[str, Any] = {
        "measured_at": clock.now().isoformat(timespec="seconds"),
        "files": len(files),
        "windows": sum(file.n_windows for file in files.values()),
        "bars": BARS,
        "note": "settings were chosen on these 18 files; a whole-corpus figure needs --nab" if len(files) == 18 else "",
        "detectors": {},
    }
    for name, detector in DETECTORS.items():
        began = time.process_time()
        scores = {file: detector(f.frame) for file, f in files.items()}
        seconds = time.process_time() - began
        rows = sum(len(f.frame) for f in files.values())
        result["detectors"][name] = {**measured(files, scores), "rows_per_cpu_s": round(rows / seconds)}
        _say(name, result["detectors"][name])
    result["published_on_these_files"] = published(files, folder)
    for name, figures in result["published_on_these_files"].items():
        print(f"{name:<20} standard {figures['all']:6.2f}   {_folders(figures)}   (published)")
    if options.million:
        result["speed"] = million(options.million)
        print(result["speed"])
    out = options.out or RESULTS / f"anomaly-{clock.now():%Y-%m-%d}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")


def _say(name: str, figures: Mapping[str, Any]) -> None:
    print(
        f"{name:<20} standard {figures['standard']:6.2f} low FP {figures['reward_low_FP_rate']:6.2f} low FN "
        f"{figures['reward_low_FN_rate']:6.2f}   {_folders(figures['folders'])}   left-one-out "
        f"{figures['standard_leave_one_file_out_threshold']:.2f}",
        flush=True,
    )


def _folders(figures: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.1f}" for name, value in figures.items() if name != "all")


if __name__ == "__main__":
    main()
