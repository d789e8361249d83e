"""The adaptation study's job: what it freezes, whose texts it adapts to, what it stores once, and what goes onto the shelf."""

import json

import pandas as pd
import pytest

from fmcore import config, tasks
from fmcore.data import catalogue
from fmcore.lab import adaptation, studies
from fmcore.models import bases
from fmcore.models.encoder import load_encoder
from fmcore.nouns import Cancelled
from fmcore.store.store import Store
from jobs import adaptation as job
from tests.tiny_encoder import frame, save_tiny_encoder

WAYS = {"positive": "up", "negative": "down", "neutral": "today"}


class Quiet:
    def __init__(self, cancel_at=None):
        self.cancel_at, self.said = cancel_at, []

    def progress(self, fraction, message=""):
        self.said.append((fraction, message))
        if self.cancel_at is not None and fraction >= self.cancel_at:
            raise Cancelled

    def metric(self, step, **values): ...

    def device(self, name): ...


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def messages(tmp_path):
    """A file whose label is which way a message points."""
    texts = list(dict.fromkeys(frame(60, seed=5)["text"]))
    labels = [list(WAYS)[i % 3] for i in range(len(texts))]
    said = {"text": [f"{t} {WAYS[label]}" for t, label in zip(texts, labels, strict=True)], "label": labels}
    path = tmp_path / "messages.csv"
    pd.DataFrame(said).to_csv(path, index=False)
    return str(path)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A base model of two small layers that knows "up" and "down" too."""
    folder = save_tiny_encoder(tmp_path / "base")
    made = load_encoder(folder, max_tokens=32, device="cpu")
    made.tokenizer.add_tokens(["up", "down"])
    made.model.resize_token_embeddings(len(made.tokenizer), mean_resizing=False)
    for part in (made.model, made.tokenizer):
        part.save_pretrained(folder)
    monkeypatch.setenv("FM_BASE_MODEL", folder)
    monkeypatch.setenv("FM_THREADS", "1")
    config.settings.cache_clear()


def prepared(store, name, **params):
    folder = store.home / "runs" / name
    folder.mkdir(parents=True)
    job.prepare(store, job.Params(**params), folder)
    return folder


def test_the_texts_of_a_file_are_its_training_rows_never_validation_or_test(store, messages):
    folder = prepared(store, "run-1", dataset=messages)
    data = catalogue.load(messages)
    taken = {json.loads(line)["text"] for line in (folder / "texts.jsonl").read_text().splitlines()}
    assert taken == set(data.train["text"])
    assert not taken & {t for part in (data.validation, data.test) for t in part["text"]}


def test_the_corpus_of_a_named_set_is_the_set_and_another_one_may_be_named(store):
    assert json.loads((prepared(store, "run-1") / "settings.json").read_text())["corpus"] == ["demo_sentiment"]
    named = prepared(store, "run-2", corpus="demo_topic, demo_news")
    assert json.loads((named / "settings.json").read_text())["corpus"] == ["demo_topic", "demo_news"]


def test_another_task_s_data_and_unknown_objectives_are_refused_before_any_work(store, tmp_path):
    with pytest.raises(tasks.WrongDataset):
        job.prepare(store, job.Params(task="sentiment", dataset="demo_topic"), tmp_path)
    with pytest.raises(ValueError, match="no objective 'clip'"):
        job.Params(objectives="simcse, clip")


def test_a_run_compares_stores_its_study_once_and_shelves_what_helped(store, tiny, messages, monkeypatch):
    chosen = adaptation.Asked
    monkeypatch.setattr(adaptation, "Asked", lambda **asked: chosen(**{**asked, "learning_rate": 3e-3, "layers": 1, "batch": 8}))
    folder = prepared(store, "run-1", dataset=messages, objectives="simcse,polarity", shots=8, seeds=4, steps=160)
    with pytest.raises(Cancelled):
        job.work(folder, Quiet(cancel_at=0.6))
    first = (folder / "adapted" / "simcse" / "MANIFEST.json").stat().st_mtime_ns
    found, report = job.work(folder, Quiet()), Quiet()
    assert (folder / "adapted" / "simcse" / "MANIFEST.json").stat().st_mtime_ns == first
    assert found["best"] == "polarity" and "Helped: Polarity contrast" in found["sentence"]
    landed = job.land(store, folder)
    assert landed == job.land(store, folder) and landed["base"] == "polarity-run-1"
    study = studies.latest(store, kind="adaptation", task="sentiment")
    assert study.id == landed["study"] and study.content["sentence"] == found["sentence"]
    assert study.table("rows")["name"].tolist() == ["base", "simcse", "polarity"]
    shelved = bases.get(store.home, "polarity-run-1")
    assert shelved.facts["objective"] == "polarity" and shelved.facts["start"] == "continue"
    assert load_encoder("base:polarity-run-1", max_tokens=32).encode(["card up"], batch=8).shape == (1, 32)
    assert not (folder / "adapted").exists() and report.said == []


def test_a_study_in_which_nothing_helped_shelves_nothing(store, tiny, messages):
    folder = prepared(store, "run-1", dataset=messages, objectives="simcse", shots=4, seeds=3, steps=1)
    found, landed = job.work(folder, Quiet()), job.land(store, folder)
    assert found["best"] == "" and landed["base"] == "" and bases.listed(store.home) == []
    assert "No adaptation is shown to be better" in landed["sentence"]


@pytest.mark.slow
def test_continued_masked_words_are_one_of_the_arms(store, tiny, messages):
    folder = prepared(store, "run-1", dataset=messages, objectives="mlm", shots=4, seeds=3, steps=4)
    job.work(folder, Quiet())
    rows = job.land(store, folder) and studies.latest(store, kind="adaptation", task="sentiment").content["rows"]
    assert [row["name"] for row in rows] == ["base", "mlm"] and rows[1]["steps"] == 4 and rows[1]["helped"] in ("yes", "no", "not shown")
