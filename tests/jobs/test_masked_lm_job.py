"""The masked language model's job: whose texts it takes, what training comes to, and how its model gets into place."""

import json
import shutil

import pandas as pd
import pytest

from fmcore import config
from fmcore.data import catalogue
from fmcore.models import masked_lm
from fmcore.models.registry import Registry
from fmcore.nouns import Cancelled
from fmcore.store.store import Store
from fmcore.training import mask_filling
from jobs import masked_lm as job
from jobs.folder import RunFolderDamaged
from tests import toy_models
from tests.tiny_encoder import FILLER, TOPICS, frame, save_tiny_encoder


class Quiet:
    def __init__(self, cancel_at=None):
        self.cancel_at, self.said = cancel_at, []

    def progress(self, fraction, message=""):
        self.said.append(fraction)

    def metric(self, step, **values):
        if self.cancel_at is not None and step >= self.cancel_at:
            raise Cancelled

    def device(self, name):
        pass


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def messages(tmp_path):
    path = tmp_path / "messages.csv"
    frame(150, seed=5).drop_duplicates("text").to_csv(path, index=False)
    return str(path)


def run_dir(store, name, **params):
    folder = store.home / "runs" / name
    folder.mkdir(parents=True)
    job.prepare(store, job.Params(**params), folder)
    return folder


def texts_of(folder):
    return set(pd.read_parquet(folder / "texts.parquet")["text"])


# ---------------------------------------------------------------- whose texts


def test_it_takes_training_rows_only_never_validation_or_test(store, messages):
    data = catalogue.load(messages)
    taken = {catalogue.folded(t) for t in texts_of(run_dir(store, "run-1", dataset=messages))}
    assert taken and taken <= {catalogue.folded(t) for t in data.train["text"]}
    assert not taken & {catalogue.folded(t) for part in (data.validation, data.test) for t in part["text"]}


def test_a_desk_without_models_takes_the_demo_data_of_every_task(store):
    chosen = json.loads((run_dir(store, "run-1") / "settings.json").read_text())
    assert set(chosen["sources"]) == {"demo", "demo_sentiment", "demo_topic"} and chosen["base"] == config.settings().base_model


def test_a_live_model_s_own_data_is_taken_and_the_demo_data_where_it_is_gone(store, messages, tmp_path):
    registry = Registry(store)
    made = toy_models.adopt(registry, tmp_path, run_id="a", facts={**toy_models.metrics(), "params": {"dataset": messages}})
    registry.promote("intent", made.version, by="a test", reason="a test")
    assert json.loads((run_dir(store, "run-1") / "settings.json").read_text())["sources"] == ["messages", "demo_sentiment", "demo_topic"]
    (tmp_path / "messages.csv").unlink()
    assert json.loads((run_dir(store, "run-2") / "settings.json").read_text())["sources"] == ["demo", "demo_sentiment", "demo_topic"]


def test_a_data_set_that_is_not_there_is_refused_before_any_work(store, tmp_path):
    with pytest.raises(catalogue.UnknownDataset):
        job.prepare(store, job.Params(dataset="no-such-set"), tmp_path)


def test_a_run_folder_without_its_settings_is_a_clear_error(tmp_path):
    with pytest.raises(RunFolderDamaged, match="settings.json"):
        job.work(tmp_path, Quiet())


# ---------------------------------------------------------------- training and landing


@pytest.fixture
def phrases(tmp_path):
    """Texts whose words follow from their neighbours: a topic's words in their order, behind two words of filler."""
    rows = [(f"{a} {b} {words}", label) for label, words in TOPICS.items() for a in FILLER for b in FILLER]
    path = tmp_path / "phrases.csv"
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(path, index=False)
    return str(path)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("FM_BASE_MODEL", save_tiny_encoder(tmp_path / "base"))
    monkeypatch.setenv("FM_THREADS", "1")
    config.settings.cache_clear()


@pytest.mark.slow
def test_a_run_ends_in_a_model_that_fills_places_better_than_word_counts(store, tiny, phrases):
    folder = run_dir(store, "run-1", dataset=phrases, steps=300)
    report = Quiet()
    figures = job.work(folder, report)
    assert figures["loss_after"] < figures["loss_before"] - 0.5
    assert figures["n_held_out"] >= 1 and figures["n_masked"] >= figures["n_held_out"] and figures["sources"] == ["phrases"]
    landed = job.land(store, folder)
    assert landed == job.land(store, folder) and landed["loss_after"] == figures["loss_after"]
    served = masked_lm.load(store.home)
    assert served.about["loss_after"] == figures["loss_after"] and served.about["made_at"]
    assert set(served.words) <= {*" ".join(TOPICS.values()).split(), *(w for t in texts_of(folder) for w in t.split())}
    assert report.said == sorted(report.said)
    json.dumps(landed, allow_nan=False)


@pytest.mark.slow
def test_the_same_seed_trains_the_same_and_a_cancelled_run_goes_on(store, tiny, messages):
    whole, again, cut = (run_dir(store, name, dataset=messages, steps=60) for name in ("run-1", "run-2", "run-3"))

    def timeless(figures):
        return {k: v for k, v in figures.items() if k != "seconds"}

    first = timeless(job.work(whole, Quiet()))
    assert timeless(job.work(again, Quiet())) == first
    with pytest.raises(Cancelled):
        job.work(cut, Quiet(cancel_at=20))
    assert timeless(job.work(cut, Quiet())) == first


@pytest.mark.slow
def test_a_second_run_replaces_the_first_one_s_model(store, tiny, messages):
    for name in ("run-1", "run-2"):
        folder = run_dir(store, name, dataset=messages, steps=2)
        job.work(folder, Quiet())
        job.land(store, folder)
    assert sorted(p.name for p in (store.home / masked_lm.PLACE).iterdir()) == ["current.json", "run-2"]
    shutil.rmtree(store.home / "runs" / "run-2")
    assert masked_lm.load(store.home).words


@pytest.mark.slow
def test_too_few_texts_are_refused_in_words(tiny, tmp_path):
    with pytest.raises(mask_filling.TooFewTexts, match="3 texts"):
        mask_filling.train(["one", "two", "three", "ONE "], mask_filling.Filling(base=config.settings().base_model), tmp_path / "m", Quiet())
