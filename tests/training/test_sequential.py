"""The recipe of the sequence model: its windows, its losses, and a chain that is known by construction."""

import dataclasses

import numpy as np
import pytest
import torch

from fmcore.nouns import Cancelled
from fmcore.training import sequential
from fmcore.training.sequential import Sequencing

N_ITEMS = 12
TINY = Sequencing(width=16, layers=1, heads=2, window=6, batch=16, epochs=30, patience=30, learning_rate=5e-3, dropout=0.1)


class Quiet:
    """A report that keeps what it was told, and cancels at a step when asked to."""

    def __init__(self, cancel_at=None):
        self.cancel_at, self.figures = cancel_at, []

    def progress(self, fraction, message=""):
        assert 0 <= fraction <= 1

    def metric(self, step, **values):
        self.figures.append(values)
        if self.cancel_at is not None and step >= self.cancel_at:
            raise Cancelled

    def device(self, name):
        assert name


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def chains(n=60, *, seed=0):
    """Histories in which item i is always followed by i + 1, and the item that follows each."""
    chance = np.random.default_rng(seed)
    lengths, starts = chance.integers(2, 9, n), chance.integers(0, N_ITEMS, n)
    histories = [((start + np.arange(length)) % N_ITEMS).astype(np.int32) for start, length in zip(starts, lengths, strict=True)]
    return histories, np.array([(past[-1] + 1) % N_ITEMS for past in histories])


def train(params=TINY, *, held=True, report=None, checkpoint=None, data=None):
    histories, following = data or chains()
    return sequential.train(
        histories, N_ITEMS, params, held=following if held else None, report=report or Quiet(), checkpoint=checkpoint,
        device=torch.device("cpu"),
    )  # fmt: skip


def weights(trained):
    return {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_item_but_a_history_s_first_is_the_answer_once_after_what_came_before_it():
    histories = [np.arange(1, 15), np.array([20]), np.arange(30, 33), np.zeros(0, dtype=np.int32)]
    rows = sequential.Windows(histories, 5)
    batch = rows.collate(range(len(rows)))
    assert sorted(batch["targets"].tolist()) == [*range(2, 15), 31, 32]
    assert (batch["ids"].flatten()[batch["places"]] == batch["targets"] - 1).all()
    assert rows.lengths.max() == 5


def test_padding_is_behind_and_changes_no_answer():
    model = sequential.network(N_ITEMS, TINY).eval()
    pasts = [np.array([1, 2, 3, 4]), np.array([5])]
    together = model(sequential.padded(pasts)[0])
    for past, states in zip(pasts, together, strict=True):
        alone = model(sequential.padded([past])[0])
        torch.testing.assert_close(states[: len(past)], alone[0], atol=1e-5, rtol=0)


def test_no_place_sees_what_comes_after_it():
    model = sequential.network(N_ITEMS, TINY).eval()
    a, b = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 9, 8]])
    torch.testing.assert_close(model(a)[:, :2], model(b)[:, :2])


@pytest.mark.parametrize("layers", [1, 3])
def test_the_last_place_alone_is_the_last_of_all_places(layers):
    model = sequential.network(N_ITEMS, dataclasses.replace(TINY, layers=layers)).eval()
    ids = torch.tensor([[1, 2, 3, 4], [5, 4, 3, 2]])
    torch.testing.assert_close(model(ids, latest=True), model(ids)[:, -1:])


def test_order_counts():
    model = train(dataclasses.replace(TINY, epochs=3)).network
    a, b = model(torch.tensor([[1, 2, 3]]), latest=True), model(torch.tensor([[2, 1, 3]]), latest=True)
    assert (a - b).abs().max() > 1e-3


def test_the_fused_softmax_is_the_cross_entropy_with_its_gradients(monkeypatch):
    monkeypatch.setattr(sequential, "CACHED", 1)  # several pieces even here
    torch.manual_seed(0)
    states, table = torch.randn(100, 8, requires_grad=True), torch.randn(31, 8, requires_grad=True)
    targets = torch.randint(31, (100,))
    expected = torch.nn.functional.cross_entropy(states @ table.T, targets, reduction="sum")
    wanted = torch.autograd.grad(expected / 7, (states, table))
    found = sequential.softmax_loss(states, table, targets)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(torch.autograd.grad(found / 7, (states, table)), wanted, strict=True):
        assert (ours - theirs).norm() < 0.01 * theirs.norm()  # products in bfloat16 where the processor has them


@pytest.mark.parametrize("loss", ["softmax", "gbce"])
def test_a_chain_is_learnt(loss):
    trained = train(dataclasses.replace(TINY, loss=loss, negatives=8, epochs=40))
    assert trained.figures["val_ndcg"] > 0.95
    assert trained.figures["loss"] == loss


def test_a_cancelled_and_resumed_run_ends_with_bitwise_the_same_weights(tmp_path):
    params = dataclasses.replace(TINY, epochs=4)
    whole = train(params)
    with pytest.raises(Cancelled):
        train(params, report=Quiet(cancel_at=7), checkpoint=tmp_path)
    resumed = train(params, checkpoint=tmp_path)
    assert resumed.outcome.resumed == 1
    assert same(weights(resumed), weights(whole))
    assert resumed.outcome.history == whole.outcome.history


def test_the_same_seed_gives_the_same_weights_and_another_gives_others():
    params = dataclasses.replace(TINY, epochs=2)
    first = weights(train(params))
    assert same(first, weights(train(params)))
    assert not same(first, weights(train(dataclasses.replace(params, seed=1))))


def test_a_checkpoint_of_other_people_is_not_taken_up(tmp_path):
    params = dataclasses.replace(TINY, epochs=2)
    train(params, checkpoint=tmp_path)
    assert train(params, checkpoint=tmp_path, data=chains(seed=5)).outcome.resumed == 0


def test_a_budget_of_time_ends_training_in_good_order():
    trained = train(dataclasses.replace(TINY, epochs=100_000, patience=100_000, minutes=0.5 / 60))
    assert 0 < trained.outcome.epochs < 100_000
    assert trained.outcome.best == max(row["val_ndcg"] for row in trained.outcome.history)


def test_training_stops_when_validation_gains_no_more():
    histories, _ = chains()
    wrong = np.array([(past[0]) for past in histories])  # the first item of a history never comes again
    trained = train(dataclasses.replace(TINY, patience=2), data=(histories, wrong))
    assert trained.outcome.stopped_early
    assert trained.outcome.epochs <= 6


def test_without_held_items_the_last_weights_stay_after_the_stated_epochs():
    trained = train(sequential.for_epochs(TINY, 3), held=False)
    assert trained.outcome.epochs == 3
    assert trained.figures["val_ndcg"] is None


def test_validation_ranks_the_whole_catalogue_and_leaves_out_what_was_met():
    histories, following = chains()
    trained = train(sequential.for_epochs(TINY, 1))
    trained.network.eval()
    exam = sequential.Exam(trained.network, histories, following, TINY)
    ranks = exam.ranks()
    assert ranks.min() >= 1
    longest = max(len(set(past.tolist())) for past in histories)
    assert ranks.max() <= N_ITEMS
    assert (ranks[-1] <= N_ITEMS - longest + 1).all()


def test_many_people_are_asked_as_a_fixed_sample():
    histories, following = chains()
    model = sequential.network(N_ITEMS, TINY)
    few = dataclasses.replace(TINY, examined=10)
    exams = [sequential.Exam(model, histories, following, few) for _ in range(2)]
    assert len(exams[0]) == 10
    assert exams[0].digest() == exams[1].digest()


@pytest.mark.parametrize("histories", [[], [np.array([3])], [np.zeros(0, dtype=np.int32), np.array([1]), np.array([1])]])
def test_nothing_to_learn_from_is_refused(histories):
    with pytest.raises(sequential.NothingToLearn, match="two items"):
        sequential.train(histories, N_ITEMS, TINY, report=Quiet())


def test_a_large_catalogue_is_trained_against_many_negatives_and_a_small_one_against_all():
    assert Sequencing().how(sequential.FULL_SOFTMAX) == "softmax"
    assert Sequencing().how(sequential.FULL_SOFTMAX + 1) == "gbce"


@pytest.mark.parametrize(("n_windows", "batch"), [(5, 16), (2_300, 32), (8_600, 64), (23_000, 128), (10**6, 128)])
def test_a_batch_is_chosen_for_about_a_hundred_steps_an_epoch(n_windows, batch):
    assert Sequencing().plan(n_windows).batch == batch


def test_scores_that_differ_are_not_rounded_together_in_validation():
    histories, following = chains()
    trained = train(dataclasses.replace(TINY, epochs=2))
    exam = sequential.Exam(trained.network.eval(), histories, following, TINY)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        trained.network.items.weight[1:] = trained.network.items.weight[:1] * (1 + 1e-4 * torch.arange(1, N_ITEMS)[:, None])
        ranks = exam.ranks()
    assert len(ranks.unique()) > 3
