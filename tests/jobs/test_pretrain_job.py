"""The pretraining job: what it freezes, what it refuses, how its base gets onto the shelf, and what becomes of a run that diverged."""

import shutil

import pytest

from fmcore.data.corpus import BadCorpus
from fmcore.data.documents import RawItem, take_in
from fmcore.models import bases
from fmcore.models.manifest import write_manifest
from fmcore.store.store import Store
from fmcore.training import loop, pretrain
from jobs import finetune
from jobs import pretrain as job
from jobs.folder import read_json


class Quiet:
    def progress(self, fraction, message=""):
        pass

    def metric(self, step, **values):
        pass

    def device(self, name):
        pass


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(f"Company {i} reported that profit rose {i * 7} percent in the quarter" for i in range(80)))
    return str(path)


def prepared(store, run="run-1", **params):
    folder = store.home / "runs" / run
    folder.mkdir(parents=True)
    job.prepare(store, job.Params(**{"steps": 4, "checkpoints": 1, "vocab": 150, **params}), folder)
    return folder


def test_a_run_puts_its_base_on_the_shelf_and_landing_again_changes_nothing(store, texts):
    folder = prepared(store, corpus=texts)
    job.work(folder, Quiet())
    first = job.land(store, folder)
    assert first == job.land(store, folder) and first["base"] == "base:mlm-run-1" and first["steps"] == 4
    base = bases.get(store.home, "mlm-run-1")
    assert base.steps == (4,) and base.facts["corpus_hash"] == read_json(folder / "settings.json")["corpus"]["hash"]
    assert not (folder / "checkpoint").exists()
    with pytest.raises(bases.BadBase, match="already"):
        job.prepare(store, job.Params(corpus=texts, name="mlm-run-1"), folder)


def test_texts_that_change_between_the_steps_are_not_learnt_from(store, texts, tmp_path):
    folder = prepared(store, corpus=texts)
    (tmp_path / "texts.txt").write_text((tmp_path / "texts.txt").read_text() + "\nOne more line than before")
    with pytest.raises(job.CorpusChanged, match="texts.txt"):
        job.work(folder, Quiet())


def test_the_desks_news_is_frozen_into_the_run(store):
    with pytest.raises(BadCorpus, match="no news yet"):
        prepared(store, "run-0", corpus="news")
    items = [
        RawItem(title=f"Company number {i} raises its outlook", body=f"Sales grew {i} percent. Analysts agree.", key=str(i))
        for i in range(40)
    ]
    take_in(store, items, source="test")
    folder = prepared(store, "run-2", corpus="news")
    assert read_json(folder / "settings.json")["corpus"]["names"] == ["news"] and (folder / "news.parquet").is_file()


@pytest.mark.parametrize("params", [{"corpus": "/no/such/file.txt"}, {"name": "../x"}, {"keep": "no-such-run"}])
def test_what_cannot_be_run_is_refused_before_it_starts(store, texts, params):
    with pytest.raises((BadCorpus, bases.BadBase, job.NothingKept)):
        job.prepare(store, job.Params(**{"corpus": texts, **params}), store.home)


def test_the_last_good_checkpoint_of_a_run_that_diverged_can_be_put_on_the_shelf(store, texts, monkeypatch):
    folder = prepared(store, corpus=texts, checkpoints=4)
    seen, plain = [], pretrain.loss_of

    def loss(model, batch):
        seen.append(1)
        return plain(model, batch) * (float("nan") if len(seen) > 2 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "loss_of", loss)
        with pytest.raises(loop.Diverged):
            job.work(folder, Quiet())
    assert not bases.exists(store.home, "rescued")
    second = store.home / "runs" / "run-2"
    second.mkdir()
    job.prepare(store, job.Params(keep="run-1", name="rescued"), second)
    job.work(second, Quiet())
    assert "nan" in job.land(store, second)["stopped"] and bases.get(store.home, "rescued").steps in {(1,), (1, 2)}


def test_fine_tuning_takes_a_base_of_the_shelf(store, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    finetune.prepare(store, finetune.Params(base="base:mine"), folder)
    assert read_json(folder / "settings.json")["base"] == "base:mine"


def test_a_folder_that_was_not_finished_is_never_kept(store, tmp_path):
    half = store.home / "runs" / "half" / "model"
    half.mkdir(parents=True)
    (half / "facts.json").write_text("{}")
    with pytest.raises(job.NothingKept):
        job.prepare(store, job.Params(keep="half"), tmp_path)
    write_manifest(half)
    shutil.rmtree(tmp_path / "model", ignore_errors=True)
    job.prepare(store, job.Params(keep="half"), tmp_path)
    assert (tmp_path / "model" / "MANIFEST.json").is_file()
