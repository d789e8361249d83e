"""The training loop, on a toy classifier with dropout: exact resume, recovery, stopping. Everything through `loop.fit`."""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from fmcore.nouns import Cancelled
from fmcore.training import checkpoint as checkpoints
from fmcore.training import loop

N, CLASSES = 120, 3


class Quiet:
    """A report that keeps what it was told, and cancels at a step when asked to."""

    def __init__(self, cancel_at=None):
        self.cancel_at, self.metrics, self.fractions, self.said, self.where = cancel_at, [], [], [], ""

    def progress(self, fraction, message=""):
        self.fractions.append(fraction)
        self.said.append(message)

    def metric(self, step, **values):
        self.metrics.append((step, values))
        if self.cancel_at is not None and step >= self.cancel_at and "loss" in values:
            raise Cancelled

    def device(self, name):
        self.where = name


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows():
    chance = np.random.default_rng(7)
    classes = chance.integers(0, CLASSES, N)
    centres = chance.normal(size=(CLASSES, 8))
    return torch.tensor(centres[classes] + chance.normal(size=(N, 8)), dtype=torch.float32), torch.tensor(classes), chance.integers(3, 20, N)


def noisy_loss(model, batch):
    noise = random.random() * 0.01 + np.random.random() * 0.01
    return nn.functional.cross_entropy(model(batch["x"] + noise), batch["y"])


def subject(*, loss=None, validate="accuracy", plan=None, seed=0):
    """A fresh toy model and its rows. `random` and numpy are drawn from in each loss, so that a resume has to restore them."""
    torch.manual_seed(seed)
    x, y, lengths = rows()
    layers = [nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3)), nn.Linear(16, 16)]
    head = nn.Linear(16, CLASSES)
    model = nn.Sequential(*layers, nn.Dropout(0.1), head)

    def noisy(batch):
        return noisy_loss(model, batch)

    def accuracy():
        return (model(x[90:]).argmax(1) == y[90:]).float().mean().item()

    def collate(numbers):
        return {"x": x[numbers], "y": y[numbers]}

    plan = plan or PLAN
    return loop.Subject(
        model, loop.layerwise_groups(layers, head, plan), lengths[:90], collate, (lambda b: loss(model, b)) if loss else noisy,
        accuracy if validate == "accuracy" else validate, identity="toy",
    )  # fmt: skip


PLAN = loop.Plan(epochs=3, batch=8, learning_rate=0.02, head_learning_rate=0.05, layer_decay=0.5, report_s=0, checkpoint_s=99, patience=9)
OFTEN = loop.Plan(**{**PLAN.__dict__, "checkpoint_s": 0})
CPU = torch.device("cpu")


def weights(trained):
    return {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("stop_at", [1, 7, 12, 13, 25, 36])
@pytest.mark.parametrize("averaging", [0.0, 4.0])
def test_a_cancelled_and_resumed_run_ends_with_bitwise_the_same_weights(tmp_path, stop_at, averaging):
    plan = dataclasses.replace(PLAN, averaging=averaging)
    whole = subject()
    expected = loop.fit(whole, plan, report=Quiet(), device=CPU)
    interrupted = subject()
    with pytest.raises(Cancelled):
        loop.fit(interrupted, plan, report=Quiet(cancel_at=stop_at), checkpoint=tmp_path, device=CPU)
    resumed = subject(seed=99)  # other initial weights: all must come from the checkpoint
    outcome = loop.fit(resumed, plan, report=Quiet(), checkpoint=tmp_path, device=CPU)
    assert same(weights(resumed), weights(whole))
    assert outcome.history == expected.history
    assert (outcome.steps, outcome.best, outcome.resumed) == (expected.steps, expected.best, 1)


def test_a_run_killed_without_warning_resumes_from_its_last_checkpoint_to_the_same_end(tmp_path):
    whole = subject()
    loop.fit(whole, PLAN, report=Quiet(), device=CPU)
    steps = []

    def dies(model, batch):
        steps.append(1)
        if len(steps) == 20:
            raise KeyboardInterrupt  # nothing is saved on the way out of this
        return noisy_loss(model, batch)

    with pytest.raises(KeyboardInterrupt):
        loop.fit(subject(loss=dies), OFTEN, report=Quiet(), checkpoint=tmp_path, device=CPU)
    resumed = subject(seed=5)
    loop.fit(resumed, PLAN, report=Quiet(), checkpoint=tmp_path, device=CPU)
    assert same(weights(resumed), weights(whole))


def test_a_finished_run_started_again_does_no_step(tmp_path):
    first, again, report = subject(), subject(seed=3), Quiet()
    loop.fit(first, PLAN, report=Quiet(), checkpoint=tmp_path, device=CPU)
    loop.fit(again, PLAN, report=report, checkpoint=tmp_path, device=CPU)
    assert report.metrics == [] and same(weights(first), weights(again))


@pytest.mark.parametrize("damage", ["flipped byte", "missing file", "torn manifest", "other settings"])
def test_an_unusable_checkpoint_is_left_aside_and_training_starts_over(tmp_path, damage):
    with pytest.raises(Cancelled):
        loop.fit(subject(), PLAN, report=Quiet(cancel_at=15), checkpoint=tmp_path, device=CPU)
    state = next(tmp_path.glob("state-*.safetensors"))
    plan = PLAN
    if damage == "flipped byte":
        content = bytearray(state.read_bytes())
        content[-3] ^= 1
        state.write_bytes(content)
    elif damage == "missing file":
        state.unlink()
    elif damage == "torn manifest":
        manifest = tmp_path / "checkpoint.json"
        manifest.write_bytes(manifest.read_bytes()[:40])
    else:
        plan = loop.Plan(**{**PLAN.__dict__, "learning_rate": 0.01})
    fresh, resumed = subject(plan=plan), subject(plan=plan)
    loop.fit(fresh, plan, report=Quiet(), device=CPU)
    outcome = loop.fit(resumed, plan, report=Quiet(), checkpoint=tmp_path, device=CPU)
    assert outcome.resumed == 0 and same(weights(fresh), weights(resumed))


def test_a_checkpoint_holds_tensors_and_json_only_and_one_generation_of_them(tmp_path):
    loop.fit(subject(), PLAN, report=Quiet(), checkpoint=tmp_path, device=CPU)
    named = set(json.loads((tmp_path / "checkpoint.json").read_text())["files"])
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint.json", *(f"{n}.safetensors" for n in named)}
    assert len(named) == 2


def test_a_full_disk_while_saving_is_a_clear_error_and_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    facts = {"fingerprint": "f"}
    checkpoints.save(tmp_path, {"state-1": {"w": torch.ones(3)}}, facts)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        with pytest.raises(checkpoints.CheckpointNotSaved, match="No space left"):
            checkpoints.save(tmp_path, {"state-2": {"w": torch.zeros(3)}}, facts)
    _, files = checkpoints.load(tmp_path, fingerprint="f")
    assert torch.equal(files["state-1"]["w"], torch.ones(3))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, second, other = subject(), subject(), subject()
    for trained, seed in ((first, 1), (second, 1), (other, 2)):
        loop.fit(trained, loop.Plan(**{**PLAN.__dict__, "seed": seed}), report=Quiet(), device=CPU)
    assert same(weights(first), weights(second)) and not same(weights(first), weights(other))


def test_out_of_memory_halves_the_rows_at_once_and_keeps_the_effective_batch():
    def plain(model, batch):
        return nn.functional.cross_entropy(model[3](model[1](model[0][:2](batch["x"]))), batch["y"])  # no dropout: comparable

    seen = []

    def cramped(model, batch):
        if len(batch["y"]) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        seen.append(len(batch["y"]))
        return plain(model, batch)

    roomy, tight = subject(loss=plain), subject(loss=cramped)
    full = loop.fit(roomy, PLAN, report=Quiet(), device=CPU)
    halved = loop.fit(tight, PLAN, report=Quiet(), device=CPU)
    assert (full.micro_batch, halved.micro_batch) == (8, 2) and halved.steps == full.steps and max(seen) == 2
    for a, b in zip(weights(roomy).values(), weights(tight).values(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_gpu_too_small_for_one_row_is_a_clear_error():
    def never(model, batch):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(loop.OutOfMemory, match="one row"):
        loop.fit(subject(loss=never), PLAN, report=Quiet(), device=CPU)


def test_a_loss_that_is_not_a_number_stops_with_a_clear_error_and_no_checkpoint_of_it(tmp_path):
    steps = []

    def explodes(model, batch):
        steps.append(1)
        return model(batch["x"]).sum() * (float("nan") if len(steps) > 5 else 0.0)

    with pytest.raises(loop.Diverged, match="step 6") as refusal:
        loop.fit(subject(loss=explodes), OFTEN, report=Quiet(), checkpoint=tmp_path, device=CPU)
    assert "learning rate" in refusal.value.hint
    saved = next(tmp_path.glob("state-*.safetensors"))
    assert saved.name == "state-5-0.safetensors"


def test_training_stops_early_and_gives_back_the_best_weights():
    scores = iter([0.5, 0.8, 0.7, 0.6, 0.9])
    kept = []
    plan = loop.Plan(**{**PLAN.__dict__, "epochs": 5, "patience": 2})
    trained = subject(validate=lambda: (kept.append(weights(trained)), next(scores))[1])
    outcome = loop.fit(trained, plan, report=Quiet(), device=CPU)
    assert (outcome.epochs, outcome.best_epoch, outcome.best, outcome.stopped_early) == (4, 2, 0.8, True)
    assert same(weights(trained), kept[1])


def test_without_validation_the_last_weights_are_kept():
    trained = subject(validate=None)
    outcome = loop.fit(trained, PLAN, report=Quiet(), device=CPU)
    assert outcome.best is None and outcome.epochs == 3


def test_the_average_of_the_weights_is_what_is_validated_and_kept_and_training_goes_on_from_the_weights_themselves():
    plan = dataclasses.replace(PLAN, averaging=3.0, epochs=2, weight_decay=0.0)
    met, plain, averaged = [], [], []

    def watching(model, batch):
        met.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return noisy_loss(model, batch)

    trained = subject(loss=watching, validate=lambda: (averaged.append(weights(trained)), 0.5 + len(averaged))[1])
    loop.fit(trained, plan, report=Quiet(), device=CPU)
    other = subject(loss=lambda model, batch: (plain.append(weights(other)), noisy_loss(model, batch))[1], validate=None)
    loop.fit(other, dataclasses.replace(plan, averaging=0.0), report=Quiet(), device=CPU)
    assert all(same(a, b) for a, b in zip(met, plain, strict=True))
    steps = [*met[1:], weights(other)]  # the weights after each step
    expected = steps[0]
    for t, after in enumerate(steps[1:], start=2):
        expected = {name: expected[name] + 4 / (t + 3) * (after[name] - expected[name]) for name in expected}
    assert all(torch.allclose(weights(trained)[name], expected[name], atol=1e-5) for name in expected)
    assert same(weights(trained), averaged[-1])


def test_a_budget_of_time_ends_training_in_good_order_with_what_was_learnt():
    plan = dataclasses.replace(PLAN, seconds=1e-9)
    trained, report = subject(), Quiet()
    outcome = loop.fit(trained, plan, report=report, device=CPU)
    assert (outcome.steps, outcome.epochs, len(outcome.history)) == (1, 1, 1)
    assert outcome.best == outcome.history[0]["val_accuracy"]
    assert report.fractions[-1] == pytest.approx(1.0)


def test_a_run_whose_budget_is_used_up_is_not_trained_again(tmp_path):
    plan = dataclasses.replace(PLAN, seconds=1e-9)
    first, again = subject(), subject(seed=99)
    loop.fit(first, plan, report=Quiet(), checkpoint=tmp_path, device=CPU)
    outcome = loop.fit(again, plan, report=Quiet(), checkpoint=tmp_path, device=CPU)
    assert (outcome.steps, outcome.resumed) == (1, 1)
    assert same(weights(first), weights(again))


def test_the_validated_figure_goes_by_the_subject_s_name_for_it():
    report, named = Quiet(), subject()
    named.figure = "val_ndcg"
    outcome = loop.fit(named, PLAN, report=report, device=CPU)
    assert [row["val_ndcg"] for row in outcome.history] == [values["val_ndcg"] for _, values in report.metrics if "val_ndcg" in values]


@pytest.mark.parametrize(("able", "allowed"), [(True, True), (True, False), (False, True)])
def test_a_processor_that_multiplies_bfloat16_does_so_where_the_recipe_allows(monkeypatch, able, allowed):
    monkeypatch.setattr(loop.devices, "multiplies_halves", lambda: able)
    seen = []
    trained = subject(loss=lambda model, batch: (seen.append(torch.is_autocast_enabled("cpu")), noisy_loss(model, batch))[1])
    trained.halves = allowed
    loop.fit(trained, PLAN, report=Quiet(), device=CPU)
    assert set(seen) == {able and allowed}


def test_every_row_comes_once_an_epoch_in_batches_of_like_length():
    lengths = np.random.default_rng(0).integers(1, 60, 1000)
    batches = loop.bucketed(lengths, 16, seed=3, epoch=1)
    assert sorted(np.concatenate(batches)) == list(range(1000))
    padded = sum(lengths[b].max() * len(b) for b in batches)
    assert padded < 1.1 * lengths.sum()
    again, other = loop.bucketed(lengths, 16, seed=3, epoch=1), loop.bucketed(lengths, 16, seed=3, epoch=2)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(batches, other, strict=True))


def test_the_rate_rises_then_falls_to_zero():
    rates = [loop.rate_factor(s, steps=100, warmup=0.1) for s in range(101)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == 1.0 and rates[-1] == 0.0
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)


def test_a_rate_without_decay_stays_level():
    assert [loop.rate_factor(s, steps=100, warmup=0.02, decay=False) for s in range(100)] == [0.5, *[1.0] * 99]


def test_deeper_layers_learn_slower_biases_are_not_decayed_and_frozen_weights_are_left_out():
    layers, head = [nn.Linear(2, 2), nn.Linear(2, 2)], nn.Linear(2, 2)
    layers[0].weight.requires_grad_(False)
    plan = loop.Plan(learning_rate=1.0, head_learning_rate=7.0, layer_decay=0.5, weight_decay=0.3)
    found = [(g["lr"], g["weight_decay"], [p.ndim for p in g["params"]]) for g in loop.layerwise_groups(layers, head, plan)]
    assert found == [(0.5, 0.0, [1]), (1.0, 0.3, [2]), (1.0, 0.0, [1]), (7.0, 0.3, [2]), (7.0, 0.0, [1])]


def test_a_run_reports_its_curves_pace_memory_and_the_time_left():
    report = Quiet()
    loop.fit(subject(), PLAN, report=report, device=CPU, span=(0.2, 0.8))
    steps = [values for _, values in report.metrics if "loss" in values]
    assert {"loss", "lr", "examples_per_s", "rss_mb"} <= steps[0].keys() and len(steps) == 36
    assert [step for step, values in report.metrics if "val_accuracy" in values] == [12, 24, 36]
    assert min(report.fractions) >= 0.2 and max(report.fractions) == pytest.approx(0.8)
    assert "left" in report.said[0] and report.where.startswith("CPU")
