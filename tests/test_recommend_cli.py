"""`python -m fmcore recommend`: figures of a test that a person brings, against answers known by construction; faults in one line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fmcore.__main__ import app
from fmcore.data import interaction_files
from fmcore.recommend import contestants, offers
from fmcore.recommend.measure import Budget
from fmcore.recommend.offers import Cost
from tests.recommend.toy_shelf import Quiet, shop


@pytest.fixture
def files(tmp_path):
    """(train, test): everybody walks a ring of items; the test holds each one's last step."""
    data = shop()
    rows = data.rows.assign(user=[data.users[u] for u in data.rows["user"]], item=[data.items[i] for i in data.rows["item"]])
    rows = rows.rename(columns={"at": "timestamp"})[["user", "item", "timestamp"]]
    last = rows.groupby("user").tail(1)
    return written(tmp_path / "train.csv", rows.drop(last.index)), written(tmp_path / "test.csv", last)


def written(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path, index=False)
    return path


def command(train, test, *more):
    """(exit code, the JSON object or None, standard error) of the command in this process."""
    result = CliRunner().invoke(app, ["recommend", "--train", str(train), "--test", str(test), *map(str, more)])
    return result.exit_code, json.loads(result.stdout) if result.stdout.strip() else None, result.stderr


def answer(train, test, *more):
    code, found, err = command(train, test, *more)
    assert code == 0, err
    return found


def closed(monkeypatch):
    """No model that learns step by step: the tests are to be quick."""
    monkeypatch.setitem(offers.COSTS, "sasrec", lambda shape: Cost(0, 1e18))


# ---------------------------------------------------------------- what is said


def test_it_prints_one_object_with_figures_intervals_and_popularity_beside_them(files, monkeypatch):
    closed(monkeypatch)
    found = answer(*files)
    for name in ("hr@10", "ndcg@10", "mrr", "coverage"):
        figure = found[name]
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1 and figure["n"] == 80
        assert found["baselines"]["popularity"][name].keys() == {"value", "low", "high", "n"}
    assert found["model"] in offers.MODELS and found["model"] != "popularity" and found["n_users"] == 80 and found["seconds"] > 0
    assert found["ranking"] == "full" and found["ndcg@10"]["value"] > found["baselines"]["popularity"]["ndcg@10"]["value"]


def test_the_figures_of_a_named_model_are_those_counted_by_hand(tmp_path):
    """Popularity on five items: b, c, d were met thrice, twice, once by others; a is met by everybody."""
    train = written(tmp_path / "train.csv", pd.DataFrame({
        "user": ["u1", "u2", "u3", "u4", "u2", "u3", "u4", "u3", "u4", "u4"], "item": ["a", "a", "a", "a", "b", "b", "b", "c", "c", "d"],
        "timestamp": range(10),
    }))  # fmt: skip
    test = written(tmp_path / "test.csv", pd.DataFrame({"user": ["u1", "u2", "u3"], "item": ["b", "d", "d"], "timestamp": [20, 21, 22]}))
    found = answer(train, test, "--model", "popularity", "-k", 1)
    assert found["hr@1"]["value"] == pytest.approx(2 / 3, abs=1e-4)  # u1: b first; u2: c before d; u3: d alone is left
    assert found["mrr"]["value"] == pytest.approx((1 + 1 / 2 + 1) / 3, abs=1e-4)
    assert found["coverage"]["value"] == pytest.approx(3 / 4, abs=1e-4)  # b, c and d are shown


def test_what_a_person_has_met_is_never_on_their_list(tmp_path):
    train = written(tmp_path / "train.csv", pd.DataFrame({"user": list("aabbcc"), "item": list("xyxyxz"), "timestamp": range(6)}))
    test = written(tmp_path / "test.csv", pd.DataFrame({"user": ["a"], "item": ["x"], "timestamp": [9]}))  # a met x already
    found = answer(train, test, "--model", "popularity", "-k", 1)
    assert found["hr@1"]["value"] == 0


def test_the_first_row_of_a_person_by_time_counts(files):
    train, test = files
    rows = pd.read_csv(test)
    later = rows.assign(timestamp=rows["timestamp"] + 1000, item=np.roll(rows["item"], 1))
    both = written(test.with_name("both.csv"), pd.concat([later, rows]))
    once, twice = (answer(train, path, "--model", "transitions") for path in (test, both))
    assert twice["n_users"] == 80 and twice["hr@10"] == once["hr@10"]


def test_unknown_people_are_answered_by_popularity_and_unknown_items_are_misses_that_are_counted(files):
    train, test = files
    rows = pd.read_csv(test)
    rows.loc[0, "user"], rows.loc[1, "item"] = 'a "new" one 🙂', "an item that nobody met"
    found = answer(train, written(test.with_name("strange.csv"), rows), "--model", "transitions")
    assert (found["n_unknown_users"], found["n_unknown_items"], found["n_users"]) == (1, 1, 80)
    assert found["n_fallback"] == 1 and found["hr@10"]["n"] == 80


def test_items_that_nobody_met_join_the_ranking(files, tmp_path):
    items = written(tmp_path / "items.csv", pd.DataFrame({"item": ["new-1", "new-2"], "title": ["One", "Two"], "text": ["", ""]}))
    assert answer(*files, "--model", "transitions", "--items", items)["n_items"] == 32


def test_the_choice_sees_nothing_of_the_test(files, monkeypatch):
    closed(monkeypatch)
    train, test = files
    rows = pd.read_csv(test)
    shuffled = written(test.with_name("shuffled.csv"), rows.assign(item=np.roll(rows["item"], 7)))
    first, second = answer(train, test), answer(train, shuffled)
    assert first["validation"] == second["validation"] and first["model"] == second["model"]
    assert first["hr@10"]["value"] > second["hr@10"]["value"]


def test_the_same_seed_gives_the_same_figures(files, monkeypatch):
    closed(monkeypatch)
    first, second = answer(*files, "--seed", 3), answer(*files, "--seed", 3)
    told = ("seconds", "left_out")  # these speak of the moment: seconds that are left, memory that is free
    assert {k: v for k, v in first.items() if k not in told} == {k: v for k, v in second.items() if k not in told}


# ---------------------------------------------------------------- time


def fought(files, minutes, **options):
    """The comparison itself, with a clock that has not begun before it."""
    train, test = (interaction_files.load(path) for path in files)
    options = {"k": 10, "name": "auto", "seed": 0, "report": Quiet(), **options}
    return contestants.compare(train, test, budget=Budget(minutes), **options)


def test_what_would_take_longer_than_the_minutes_is_left_out_with_a_sentence(files, monkeypatch):
    closed(monkeypatch)
    for name in ("ease", "blend"):
        monkeypatch.setitem(offers.COSTS, name, lambda shape: Cost(60, 0))
    found = fought(files, 2)
    assert {"ease", "blend"} <= found["left_out"].keys() and "of the time allowed" in found["left_out"]["ease"]
    assert "ease" in fought(files, 0)["validation"]


def test_no_time_at_all_leaves_popularity(files):
    found = fought(files, 1e-9)
    assert found["model"] == "popularity" and found["hr@10"]["n"] == 80


def test_a_model_that_took_long_is_not_fitted_again_but_used_as_it_is(files, monkeypatch):
    closed(monkeypatch)
    monkeypatch.setattr(offers, "again_s", lambda model, fit_s: 1e9)
    found = fought(files, 2, name="transitions")
    assert found["model"] == "transitions" and found["hr@10"]["value"] > 0.5


@pytest.mark.slow
def test_the_sequence_model_takes_part_and_what_it_says_goes_to_standard_error(files):
    found = answer(*files, "--model", "sasrec", "--minutes", 1)
    assert found["model"] == "sasrec" and found["hr@10"]["value"] > found["baselines"]["popularity"]["hr@10"]["value"]


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "empty"), ("user,thing\na,b\n", "no column"), ("user,item,timestamp\n", "no rows"), ("user,item,timestamp\na,b,never\n", "No row")],
)
def test_a_train_file_that_cannot_be_used_is_one_line_and_exit_code_1(files, tmp_path, content, said):
    bad = tmp_path / "bad.csv"
    bad.write_text(content)
    code, found, err = command(bad, files[1])
    assert code == 1 and found is None and said in err and len(err.strip().splitlines()) == 1 and "Traceback" not in err


def test_a_file_that_is_not_there_is_named(files, tmp_path):
    code, _, err = command(tmp_path / "no.csv", files[1])
    assert code == 1 and "no.csv" in err


def test_a_test_of_another_log_is_refused(files, tmp_path):
    other = written(tmp_path / "other.csv", pd.DataFrame({"user": ["x"], "item": ["y"], "timestamp": [1]}))
    code, _, err = command(files[0], other)
    assert code == 1 and "same log" in err


def test_a_model_that_does_not_exist_is_refused_with_those_that_do(files):
    code, _, err = command(*files, "--model", "oracle")
    assert code == 1 and "transitions" in err


@pytest.mark.parametrize("more", [["-k", "0"], ["--minutes", "-1"], ["--nothing"]])
def test_wrong_usage_is_exit_code_2(files, more):
    assert command(*files, *more)[0] == 2


def test_nan_ratings_repeated_rows_and_odd_ids_are_no_fault(tmp_path):
    train = tmp_path / "train.csv"
    train.write_text('user,item,timestamp,rating\n"o""a",1,1,nan\n"o""a",1,2,5\n"o""a","é,🙂",3,\nb,1,1,x\nb,"é,🙂",2,3\nb,2,3,3\nc,2,1,1\nc,1,9999999999,1\n')
    test = written(tmp_path / "test.csv", pd.DataFrame({"user": ['o"a'], "item": ["2"], "timestamp": [9]}))
    found = answer(train, test, "--model", "popularity")
    assert found["hr@10"]["value"] == 1 and found["n_items"] == 3 and any("future" in note for note in found["notes"])


def test_standard_output_is_the_object_alone(files):
    train, test = files
    done = subprocess.run(
        [sys.executable, "-m", "fmcore", "recommend", "--train", train, "--test", test, "--model", "popularity"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert json.loads(done.stdout)["model"] == "popularity"
