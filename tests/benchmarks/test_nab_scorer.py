"""The NAB scorer against what NAB itself published, and against its own definition. Needs the public files; skips without them."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import anomaly as nab


@pytest.fixture(scope="module")
def toy():
    """40 rows, 6 of them on probation, two windows of 5 rows."""
    frame = pd.DataFrame({"timestamp": pd.date_range("2026-01-01", periods=40, freq="h"), "value": 0.0})
    at = frame["timestamp"]
    return {"toy/a.csv": nab.labelled(frame, [(at[10], at[14]), (at[25], at[29])])}


def scores_at(*rows, n=40):
    scores = np.zeros(n)
    scores[list(rows)] = 1.0
    return {"toy/a.csv": scores}


def test_the_sigmoid_is_nabs():
    assert nab.sigmoid(np.array([-1.0, 0.0, 3.0, 3.1])) == pytest.approx([0.98661, 0.0, -1.0, -1.0], abs=1e-5)


@pytest.mark.parametrize("profile", nab.PROFILES)
def test_first_rows_of_all_windows_are_perfect_and_silence_is_null(toy, profile):
    assert nab.total_score(toy, scores_at(10, 25), 0.5, profile) == pytest.approx(100)
    assert nab.total_score(toy, scores_at(), 0.5, profile) == 0
    assert nab.total_score(toy, scores_at(10, 11, 12, 25), 0.5, profile) == pytest.approx(100)  # the best of a window counts, once


def test_what_is_outside_costs_by_its_distance_and_probation_is_not_scored(toy):
    tp, fp, fn = nab.PROFILES["standard"]
    assert nab.raw_score(toy["toy/a.csv"], scores_at(8)["toy/a.csv"], 0.5, "standard") == pytest.approx(-2 * fn - fp)  # before any window
    just_after = nab.raw_score(toy["toy/a.csv"], scores_at(15)["toy/a.csv"], 0.5, "standard")
    assert just_after == pytest.approx(-2 * fn + fp * float(nab.sigmoid(np.array(0.25))))
    assert nab.total_score(toy, scores_at(2), 0.5, "standard") == 0


def test_the_best_threshold_is_the_best_of_all(toy):
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = {"toy/a.csv": rng.integers(0, 6, 40) / 5}
        for profile in nab.PROFILES:
            best = nab.total_score(toy, scores, nab.best_threshold(toy, scores, profile), profile)
            tried = [nab.total_score(toy, scores, t, profile) for t in [*np.arange(0, 7) / 5, np.inf]]
            assert best == pytest.approx(max(tried))


def test_windows_and_probation_are_those_of_the_published_tables(public_data):
    folder = public_data / "nab"
    files = nab.corpus(folder)
    table = pd.read_csv(folder / "results" / "standard_scores_on_these_files.csv", keep_default_na=False)
    assert len(files) == 18 and sum(f.n_windows for f in files.values()) == 40
    for row in table[table["Detector"] != "random"].itertuples():  # its published counts are of another version of a file
        file = files[row.File]
        in_windows = int((file.window[file.probation :] >= 0).sum())
        assert in_windows == row.TP + row.FN
        assert len(file.frame) - file.probation - in_windows == row.FP + row.TN
        fp = nab.PROFILES["standard"][1]
        assert -file.n_windows - fp * row.FP - 1e-9 <= row.Score <= file.n_windows + 1e-9
        if row.TP == 0 and row.FP == 0:
            assert row.Score == pytest.approx(-file.n_windows)
    random = table[(table["Detector"] == "random") & (table["TP"] == 0) & table["File"].str.contains("asg_misconfiguration")].iloc[0]
    assert random["Score"] == pytest.approx(-1 - 0.11 * random["FP"])  # its only window ends the file: every false alarm costs the same


def test_published_scores_come_out_as_on_the_leaderboard(public_data):
    shown = nab.published(nab.corpus(public_data / "nab"), public_data / "nab")
    assert shown["null"]["all"] == 0
    assert shown["ARTime"]["artificialWithAnomaly"] == pytest.approx(70.3, abs=0.05)  # the same cells of reference/performance.md 3.1
    assert shown["ARTime"]["realKnownCause"] == pytest.approx(63.9, abs=0.05)
    assert shown["numenta"]["realKnownCause"] == pytest.approx(55.5, abs=0.05)
    assert shown["contextOSE"]["artificialWithAnomaly"] == pytest.approx(73.0, abs=0.05)


@pytest.mark.slow
def test_the_detector_passes_its_bars_on_the_files_there_are(public_data):
    files = nab.corpus(public_data / "nab")
    figures = nab.measured(files, {name: nab.ours(file.frame) for name, file in files.items()})
    peers = nab.measured(files, {name: nab.rolling_z(file.frame) for name, file in files.items()})
    assert figures["standard"] >= nab.BARS["standard"] > peers["standard"]
    assert figures["folders"]["realTweets"] >= nab.BARS["realTweets"]
