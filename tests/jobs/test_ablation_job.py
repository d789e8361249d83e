"""The ablation job: what is frozen, what a study comes to, and when a winner becomes the task's default."""

import json

import pytest
from pydantic import ValidationError

from fmcore import config
from fmcore.data.catalogue import UnknownDataset
from fmcore.lab import ablation_cells, defaults, studies
from fmcore.lab.defaults import Choice
from fmcore.models.registry import Registry
from fmcore.nouns import Cancelled
from fmcore.store.store import Store
from fmcore.tasks import WrongDataset
from jobs import ablation as job
from jobs import finetune
from jobs.folder import RunFolderDamaged
from tests import toy_models
from tests.tiny_encoder import frame, save_tiny_encoder

OPTIONS = {"weight_decay": 0.01, "dropout": 0.1, "label_smoothing": 0.1, "consistency": 0.0, "augmentation": ""}


class Quiet:
    def __init__(self, cancel_at=None):
        self.cancel_at, self.steps = cancel_at, []

    def progress(self, fraction, message=""):
        pass

    def metric(self, step, **values):
        self.steps.append(step)
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
    frame(40, seed=5).drop_duplicates("text").to_csv(path, index=False)
    return str(path)


def run_dir(store, name="run-1", **params):
    folder = store.home / "runs" / name
    folder.mkdir(parents=True)
    job.prepare(store, job.Params(**params), folder)
    return folder


def frozen(folder):
    return json.loads((folder / "settings.json").read_text())


def finished(store, *, adoptable=True, name="run-1", **params):
    """A run whose work found that label smoothing helps."""
    folder = run_dir(store, name, task="sentiment", **params)
    rows = [{"name": "plain", "title": "Plain"}, {"name": "label_smoothing", "title": "Label smoothing 0.1"}]
    content = {
        "rows": rows, "winner": "label_smoothing" if adoptable else None, "options": OPTIONS if adoptable else {}, "adoptable": adoptable,
        "why": "+2.0 points (+1.0 to +3.0 points)" if adoptable else "No regulariser is shown to help.", "sentence": "It helps.", "left_out": {},
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps({"task": "sentiment", "dataset": "demo_sentiment", "content": content}))
    return folder


# ---------------------------------------------------------------- what is frozen


def test_it_studies_the_task_s_demo_data_and_knows_what_the_task_is_trained_with_now(store):
    chosen = frozen(run_dir(store, task="sentiment"))
    assert chosen["params"]["dataset"] == "demo_sentiment" and chosen["params"]["shots"] == 32
    assert chosen["present"] == {"consistency": 1.0} and chosen["base"] == config.settings().base_model
    assert frozen(run_dir(store, "run-2", task="intent"))["present"] == {}
    defaults.choose(store, "sentiment", Choice("full", "", {**OPTIONS, "patience": 3}), study_id="s", reason="a test", by="a test")
    assert frozen(run_dir(store, "run-3", task="sentiment"))["present"] == {"label_smoothing": 0.1, "patience": 3}


def test_more_shots_than_the_smallest_label_has_become_its_number(store, messages):
    shots = frozen(run_dir(store, task="intent", dataset=messages, shots=1000))["params"]["shots"]
    assert 0 < shots < 40
    assert frozen(run_dir(store, "run-2", task="intent", dataset=messages, shots=0))["params"]["shots"] == 0


@pytest.mark.parametrize("wrong", [{"regularisers": "r_drop,magic"}, {"seeds": 0}, {"minutes": -1}, {"recipe": "linear"}, {"adopt": "always"}])
def test_a_form_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        job.Params(**wrong)


def test_wrong_data_is_refused_before_any_work(store, tmp_path):
    with pytest.raises(UnknownDataset):
        job.prepare(store, job.Params(dataset="no-such-set"), tmp_path)
    with pytest.raises(WrongDataset):
        job.prepare(store, job.Params(task="sentiment", dataset="demo"), tmp_path)
    with pytest.raises(RunFolderDamaged, match="settings.json"):
        job.work(tmp_path, Quiet())


# ---------------------------------------------------------------- landing and adopting


def test_a_winner_becomes_the_default_only_where_it_was_asked_to_and_once(store):
    assert job.land(store, finished(store))["adopted"] is False and defaults.chosen(store, "sentiment") is None
    folder = finished(store, name="run-2", adopt="gate")
    landed = job.land(store, folder)
    assert landed["adopted"] and landed == job.land(store, folder)
    choice = defaults.chosen(store, "sentiment")
    assert (choice.recipe, choice.base, dict(choice.options), choice.study_id) == ("full", "", OPTIONS, "ablation-run-2")
    assert "Label smoothing 0.1" in choice.reason and "32 rows a label of demo_sentiment" in choice.reason and "+2.0 points" in choice.reason
    assert len(studies.listed(store, kind="ablation")) == 2
    defaults.reset(store, "sentiment", by="a person")
    job.land(store, folder)
    assert defaults.chosen(store, "sentiment") is None  # a second landing does not undo what a person did


def test_no_winner_and_another_recipe_than_the_studied_one_change_nothing(store):
    landed = job.land(store, finished(store, adoptable=False, adopt="gate"))
    assert landed["adopted"] is False and "No regulariser" in landed["why"]
    defaults.choose(store, "sentiment", Choice("linear"), study_id="s", reason="a test", by="a test")
    landed = job.land(store, finished(store, name="run-2", adopt="gate"))
    assert landed["adopted"] is False and "the recipe linear" in landed["why"] and defaults.chosen(store, "sentiment").recipe == "linear"


def test_fine_tuning_on_auto_follows_the_options_and_what_a_person_set_otherwise_stays(store, tmp_path):
    job.land(store, finished(store, adopt="gate"))

    def resolved(name, **params):
        folder = tmp_path / name
        folder.mkdir()
        finetune.prepare(store, finetune.Params(task="sentiment", **params), folder)
        return json.loads((folder / "settings.json").read_text())["params"]

    auto = resolved("auto")
    assert {key: auto[key] for key in OPTIONS} == OPTIONS and auto["recipe"] == "full"
    assert resolved("own", label_smoothing=0.3)["label_smoothing"] == 0.3
    named = resolved("named", recipe="full")
    assert named["label_smoothing"] == 0.0 and named["consistency"] is None


def test_a_retraining_of_the_champion_takes_over_its_knobs(store, tmp_path):
    registry = Registry(store)
    before = {"recipe": "full", "dataset": "demo", "label_smoothing": 0.2, "augmentation": "synonym", "patience": 4, "learning_rate": 0.01}
    made = toy_models.adopt(registry, tmp_path, run_id="a", facts={**toy_models.metrics(), "params": before})
    registry.promote("intent", made.version, by="a test", reason="a test")
    folder = tmp_path / "weekly"
    folder.mkdir()
    finetune.prepare(store, finetune.Params(**finetune.JOB.scheduled_params), folder)
    now = json.loads((folder / "settings.json").read_text())["params"]
    assert (now["recipe"], now["label_smoothing"], now["augmentation"], now["patience"]) == ("full", 0.2, "synonym", 4)
    assert now["dropout"] == 0.1 and now["consistency"] is None


@pytest.mark.parametrize("wrong", [{"augmentation": "rot13"}, {"dropout": 1.0}, {"label_smoothing": 0.9}, {"patience": -1}])
def test_fine_tuning_refuses_knobs_that_make_no_sense(wrong):
    with pytest.raises(ValidationError):
        finetune.Params(**wrong)


# ---------------------------------------------------------------- really trained


@pytest.mark.slow
def test_a_run_ends_in_a_stored_study_and_a_stopped_one_goes_on(store, messages, tmp_path, monkeypatch):
    monkeypatch.setenv("FM_BASE_MODEL", save_tiny_encoder(tmp_path / "base"))
    monkeypatch.setenv("FM_THREADS", "1")
    config.settings.cache_clear()
    asked = {"task": "intent", "dataset": messages, "shots": 6, "seeds": 2, "epochs": 1, "regularisers": "label_smoothing, early_stopping"}
    folder = run_dir(store, **asked)
    with pytest.raises(Cancelled):
        job.work(folder, Quiet(cancel_at=3))
    kept = sorted(path.name for path in (folder / "checkpoint").iterdir())
    trained, fresh = ablation_cells.trained, []
    monkeypatch.setattr(ablation_cells, "trained", lambda *given: fresh.append(given[1].name) or trained(*given))
    said = job.work(folder, Quiet())
    assert len(kept) == 3 and len(fresh) == 3 and said["n_rows"] == 3
    landed = job.land(store, folder)
    assert landed == job.land(store, folder) and not (folder / "checkpoint").exists()
    study = studies.latest(store, kind="ablation", task="intent")
    assert list(study.table("rows")["name"]) == ["plain", "label_smoothing", "early_stopping"]
    assert study.content["sentence"] == landed["sentence"] and set(study.table("rows")["n_seeds"]) == {2}
    json.dumps(landed, allow_nan=False)
