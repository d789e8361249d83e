"""The lab's benchmark: parts that were measured before stay in the file, and a share of peak counts what is multiplied."""

import json

import pytest

from benchmarks import lab
from fmcore.models.encoder import load_encoder
from tests.tiny_encoder import save_tiny_encoder


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """measured(*argv) -> the file's content; the parts answer with what they were asked."""

    def run(*argv):
        monkeypatch.setattr("sys.argv", ["lab", "--out", str(tmp_path / "lab.json"), *argv])
        lab.main()
        return json.loads((tmp_path / "lab.json").read_text())

    for name in ("scratch", "adapt", "labels"):
        monkeypatch.setitem(lab.PARTS, name, lambda options, _folder: {"minutes": options.minutes})
        monkeypatch.setitem(lab.SHOWN, name, lambda found: print(found["minutes"]))
    monkeypatch.setitem(lab.PARTS, "gpu", lambda _options, _folder: None)
    return run


def test_a_part_that_is_not_asked_for_stays_as_it_was_measured(measured):
    measured("--part", "scratch", "--minutes", "3")
    content = measured("--part", "adapt", "--minutes", "5")
    assert {name: part["minutes"] for name, part in content["parts"].items()} == {"scratch": 3.0, "adapt": 5.0}
    assert content["machine"]["threads"] == 1 and all(part["code"] and part["made_at"] for part in content["parts"].values())


def test_without_a_gpu_its_part_is_left_out_and_said(measured, capsys):
    assert set(measured()["parts"]) == {"scratch", "adapt", "labels"}
    assert "gpu: no CUDA device here" in capsys.readouterr().out


def test_tables_of_words_and_places_are_not_counted_as_multiplied(tmp_path):
    folder = save_tiny_encoder(tmp_path)
    model = load_encoder(folder, max_tokens=32, device="cpu").model
    layers = sum(p.numel() for layer in model.encoder.layer for p in layer.parameters())
    assert lab.multiplied(tmp_path) == layers


def test_the_adaptation_table_is_told_with_its_verdict(capsys):
    row = {"mean": 0.6, "low": 0.5, "high": 0.7, "over": None, "over_low": None, "over_high": None, "seconds": 0.0, "steps": 0, "helped": None}
    better = row | {"mean": 0.8, "over": 0.2, "over_low": 0.1, "over_high": 0.3, "helped": "yes"}
    rows = [row | {"title": "The base as it is"}, better | {"title": "Polarity contrast"}]
    lab.show_adapt({"dataset": "demo", "rows": rows, "sentence": "It helped.", "bar": "better", "met": True})
    said = capsys.readouterr().out
    assert "0.8000 (0.5000 to 0.7000)" in said and "+0.2000 (+0.1000 to +0.3000)" in said and "Bar (better): met" in said
