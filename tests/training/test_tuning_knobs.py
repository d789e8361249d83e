"""The regularisers of a tuning run: what each changes, that unchanged ones change nothing, and that checkpoints know them apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fmcore.models.encoder import load_encoder
from fmcore.nouns import Cancelled
from fmcore.training import augment, finetune, loop
from tests.tiny_encoder import save_tiny_encoder, tiny_data


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


def tuned(base, data, report=None, checkpoint=None, extra=finetune.NOTHING_MORE, **changed):
    torch.set_num_threads(1)
    chosen = {"epochs": 2, "batch": 16, "learning_rate": 5e-3, "max_tokens": 32, "device": "cpu", **changed}
    encoder = load_encoder(base, max_tokens=32, device="cpu")
    params = finetune.Tuning(base=base, **chosen)
    return finetune.tune(encoder, data, params, extra=extra, report=report or Quiet(), checkpoint=checkpoint)


def weights(encoder):
    return {name: tensor.detach().clone() for name, tensor in encoder.model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_unset_knobs_leave_the_plan_and_the_identity_as_they_were():
    params = finetune.Tuning()
    assert params.identity() == "full 0 64 0.0" and params.plan().recipe() == loop.Plan(epochs=3).recipe()
    changed = [replace(params, **knob) for knob in ({"dropout": 0.0}, {"label_smoothing": 0.1}, {"patience": 0}, {"patience": 3})]
    assert len({each.identity() for each in [params, *changed]}) == 5
    assert replace(params, weight_decay=0.1).plan().recipe() != params.plan().recipe()


def test_when_validation_rows_choose_the_epoch():
    expected = {(0, None): True, (8, None): False, (0, 0): False, (8, 0): False, (0, 2): True, (8, 2): True}
    assert {(s, p): finetune.Tuning(shots=s, patience=p).validates for s, p in expected} == expected


def test_dropout_is_set_everywhere_and_its_usual_share_touches_nothing():
    network = nn.Sequential(nn.Dropout(0.05), nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.2)))
    finetune.set_dropout(network, finetune.DROPOUT)
    assert [part.p for part in network.modules() if isinstance(part, nn.Dropout)] == [0.05, 0.2]
    finetune.set_dropout(network, 0.3)
    assert [part.p for part in network.modules() if isinstance(part, nn.Dropout)] == [0.3, 0.3]


@pytest.mark.parametrize("classes", [torch.tensor([0, 2]), torch.tensor([[0.8, 0.1, 0.1], [0.0, 0.2, 0.8]])])
def test_label_smoothing_gives_that_share_of_the_aim_to_all_labels_alike(classes):
    scores = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.1, 0.3]])
    aim = classes if classes.ndim == 2 else nn.functional.one_hot(classes, 3).float()
    smooth = 0.9 * aim + 0.1 / 3
    expected = -(smooth * torch.log_softmax(scores, dim=1)).sum(dim=1).mean()
    found = finetune.loss_of(lambda _: scores, {"classes": classes}, consistency=0.0, smoothing=0.1)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    twice = finetune.loss_of(lambda _: scores, {"classes": classes}, consistency=1.0, smoothing=0.1)
    assert float(twice) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("knob", [{"weight_decay": 0.5}, {"dropout": 0.5}, {"label_smoothing": 0.3}])
def test_each_knob_trains_other_weights_and_no_checkpoint_of_another_is_taken_up(base, tmp_path, knob):
    data = tiny_data(n_train=8)
    plain = weights(tuned(base, data)[0])
    with pytest.raises(Cancelled):
        tuned(base, data, report=Quiet(cancel_at=2), checkpoint=tmp_path)
    encoder, outcome, _ = tuned(base, data, checkpoint=tmp_path, **knob)
    assert outcome.resumed == 0 and not same(plain, weights(encoder))
    assert same(weights(encoder), weights(tuned(base, data, **knob)[0]))


@pytest.mark.slow
def test_patience_stops_early_or_never(base):
    data = tiny_data(n_train=8)
    _, never, _ = tuned(base, data, patience=0, epochs=4)
    assert never.best is None and never.epochs == 4 and not never.stopped_early
    _, soon, _ = tuned(base, data, patience=1, epochs=30, shots=4)
    assert soon.stopped_early and soon.epochs < 30


@pytest.mark.slow
def test_added_texts_are_learnt_from_with_the_label_of_their_row(base, tmp_path):
    data = tiny_data(n_train=8)
    extra = augment.Added(tuple(data.train["text"][:8]), tuple(range(8)))
    plain, more, again = (weights(tuned(base, data, extra=e)[0]) for e in (finetune.NOTHING_MORE, extra, extra))
    assert same(more, again) and not same(plain, more)
    doubled = replace(data, train=data.train.iloc[[*range(len(data.train)), *range(8)]].reset_index(drop=True))
    _, outcome, _ = tuned(base, doubled)
    assert outcome.steps == tuned(base, data, extra=extra)[1].steps
    with pytest.raises(Cancelled):
        tuned(base, data, extra=extra, report=Quiet(cancel_at=2), checkpoint=tmp_path)
    assert tuned(base, data, checkpoint=tmp_path)[1].resumed == 0


@pytest.mark.slow
def test_a_trained_model_says_what_its_augmentations_added_and_what_was_refused(base, tmp_path):
    params = finetune.Tuning(
        base=base, epochs=1, batch=16, max_tokens=32, device="cpu", random_features=64, resamples=50, augmentation=("synonym", "token_dropout")
    )
    metrics = finetune.train(tiny_data(n_train=20), params, tmp_path / "model", Quiet())["training"]
    told = {each["name"]: each for each in metrics["augmentations"]}
    assert set(told) == {"synonym", "token_dropout"} and all(each["n_changed"] >= each["n"] > 0 for each in told.values())
    used = sum(round(each["kept_share"] * each["n"]) for each in told.values() if not each["refused"])
    assert metrics["n_augmented"] == used
    assert np.isfinite(metrics["elapsed_s"])
