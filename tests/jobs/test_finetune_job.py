"""The fine-tuning job's three steps on a real store, a tiny real encoder and a person's own CSV file."""

import json
import shutil

import pytest
from pydantic import ValidationError

from fmcore import config, tasks
from fmcore.data.catalogue import UnknownDataset
from fmcore.models.classifier import Classifier
from fmcore.models.registry import Registry
from fmcore.nouns import Cancelled
from fmcore.store.store import Store
from fmcore.tasks import WrongDataset
from jobs import finetune
from jobs.folder import RunFolderDamaged
from tests.tiny_encoder import TOPICS, frame, save_tiny_encoder

pytestmark = pytest.mark.slow
TRAINING = {"recipe": "full", "epochs": 2, "batch": 16, "learning_rate": 1e-3, "max_tokens": 32}


class Quiet:
    def __init__(self, cancel_at=None):
        self.cancel_at = cancel_at

    def progress(self, fraction, message=""):
        pass

    def metric(self, step, **values):
        if self.cancel_at is not None and step >= self.cancel_at:
            raise Cancelled

    def device(self, name):
        pass


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_encoder(tmp_path_factory.mktemp("base"))


@pytest.fixture
def store(tmp_path, base, monkeypatch):
    monkeypatch.setenv("FM_BASE_MODEL", base)
    monkeypatch.setenv("FM_THREADS", "1")
    config.settings.cache_clear()
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    path = tmp_path_factory.mktemp("upload") / "messages.csv"
    frame(60, seed=5, oos=40).to_csv(path, index=False)
    return str(path)


def run_dir(store, name, **params):
    folder = store.home / "runs" / name
    folder.mkdir(parents=True)
    finetune.prepare(store, finetune.Params(**params), folder)
    return folder


@pytest.fixture(scope="module")
def done():
    """Folders of finished work by what decides it: the same data and settings give the same folder, so each is made once."""
    return {}


@pytest.fixture
def trained(store, messages, done):
    def make(name, **params):
        folder = run_dir(store, name, **{"dataset": messages, **TRAINING, **params})
        key = json.dumps({k: v for k, v in params.items() if k not in ("promote", "reason")}, sort_keys=True)
        if key in done:
            shutil.copytree(done[key] / "model", folder / "model")
            shutil.copyfile(done[key] / "outcome.json", folder / "outcome.json")
        else:
            finetune.work(folder, Quiet())
            done[key] = folder.parent.parent.parent / "kept"
            shutil.copytree(folder, done[key])
        return folder

    return make


def test_a_run_ends_in_a_promoted_version_that_answers(store, trained):
    landed = finetune.land(store, trained("run-1"))
    champion = Registry(store).champion("intent")
    assert landed["promoted"] and landed["verdict"]["passed"] and champion.version == landed["version"]
    assert (landed["task"], landed["dataset"], landed["recipe"]) == ("intent", "messages", "full")
    assert {"value", "low", "high", "n"} <= landed["accuracy"].keys() and landed["oos"]["n"] == 20
    model = Classifier.load(Registry(store).verified(champion), version=champion.version)
    assert model.predict(["I lost my plastic card"])[0].label in TOPICS
    json.dumps(landed, allow_nan=False)


def test_landing_twice_takes_the_model_in_once_and_promotes_once(store, trained):
    folder = trained("run-1")
    first, again = finetune.land(store, folder), finetune.land(store, folder)
    assert first == again and len(Registry(store).versions("intent")) == 1 and len(Registry(store).promotions("intent")) == 1


def test_a_candidate_that_is_equal_to_the_champion_is_not_promoted_unless_a_person_said_so(store, trained):
    first = finetune.land(store, trained("run-1"))
    equal = finetune.land(store, trained("run-2"))
    assert not equal["promoted"] and not equal["verdict"]["passed"] and equal["accuracy"] == first["accuracy"]
    assert Registry(store).champion("intent").version == first["version"]
    forced = finetune.land(store, trained("run-3", promote="always", reason="we want seed 0 again"))
    assert forced["promoted"] and Registry(store).champion("intent").version == forced["version"]
    assert Registry(store).promotions("intent")[0].reason == "we want seed 0 again"


def test_a_run_that_must_not_promote_leaves_a_candidate(store, trained):
    landed = finetune.land(store, trained("run-1", promote="never"))
    assert not landed["promoted"] and Registry(store).champion("intent") is None and len(Registry(store).versions("intent")) == 1


def test_a_cancelled_run_goes_on_from_its_checkpoint_and_a_landed_one_keeps_none(store, messages):
    whole = run_dir(store, "run-1", dataset=messages, **TRAINING)
    finetune.work(whole, Quiet())
    folder = run_dir(store, "run-2", dataset=messages, **TRAINING)
    with pytest.raises(Cancelled):
        finetune.work(folder, Quiet(cancel_at=7))
    assert (folder / "checkpoint" / "checkpoint.json").exists()
    finetune.work(folder, Quiet())
    expected, went_on = (json.loads((f / "outcome.json").read_text())["metrics"]["training"] for f in (whole, folder))
    assert (expected["resumed"], went_on["resumed"]) == (0, 1)
    assert went_on["history"] == expected["history"]  # not the test accuracy: which form is served depends on timing
    finetune.land(store, folder)
    assert not (folder / "checkpoint").exists()


def test_the_weekly_run_repeats_the_champions_recipe_on_its_data(store, trained, messages):
    finetune.land(store, trained("run-1"))
    folder = run_dir(store, "run-2", **finetune.JOB.scheduled_params)
    chosen = json.loads((folder / "settings.json").read_text())["params"]
    assert (chosen["recipe"], chosen["dataset"]) == ("full", messages)


def test_the_weekly_run_without_a_champion_takes_the_linear_recipe_on_the_default_data(store):
    folder = run_dir(store, "run-1", **finetune.JOB.scheduled_params)
    chosen = json.loads((folder / "settings.json").read_text())["params"]
    assert (chosen["recipe"], chosen["dataset"]) == ("linear", "demo")


def test_a_run_that_names_no_recipe_takes_the_tasks_own(store):
    for task, recipe in (("intent", "linear"), ("sentiment", "full")):
        chosen = json.loads((run_dir(store, f"run-{task}", task=task, dataset="") / "settings.json").read_text())["params"]
        assert chosen["recipe"] == recipe == tasks.task(task).recipe


def test_the_linear_recipe_runs_through_the_same_job(store, trained):
    landed = finetune.land(store, trained("run-1", recipe="linear", fast=True))
    assert landed["recipe"] == "linear" and landed["promoted"] and landed["form"]


def test_a_data_set_that_does_not_exist_is_refused_before_any_work(store, tmp_path):
    with pytest.raises(UnknownDataset):
        finetune.prepare(store, finetune.Params(dataset="no-such-set"), tmp_path)


@pytest.mark.parametrize(("task", "dataset"), [("intent", "demo"), ("sentiment", "demo_sentiment"), ("topic", "demo_topic")])
def test_a_run_without_a_data_set_takes_the_demo_data_of_its_task(store, task, dataset):
    folder = run_dir(store, f"run-{task}", task=task)
    assert json.loads((folder / "settings.json").read_text())["params"]["dataset"] == dataset
    assert json.loads((folder / "data" / "data.json").read_text())["name"] == dataset


def test_a_data_set_of_another_task_is_refused_before_any_work(store, tmp_path, messages):
    for task, dataset in (("sentiment", "demo"), ("intent", "demo_topic"), ("sentiment", messages)):
        with pytest.raises(WrongDataset):
            finetune.prepare(store, finetune.Params(task=task, dataset=dataset), tmp_path)
    assert not (tmp_path / "data").exists()


def test_a_run_folder_without_its_settings_is_a_clear_error(tmp_path):
    with pytest.raises(RunFolderDamaged, match="settings.json"):
        finetune.work(tmp_path, Quiet())


@pytest.mark.parametrize("wrong", [{"epochs": -1}, {"learning_rate": 0}, {"learning_rate": float("nan")}, {"recipe": "magic"}, {"surprise": 1}, {"task": "x"}])
def test_a_form_with_a_senseless_value_is_refused(wrong):
    with pytest.raises(ValidationError):
        finetune.Params(**wrong)


def test_every_field_of_the_form_says_what_it_is():
    assert all(field.description for field in finetune.Params.model_fields.values())
