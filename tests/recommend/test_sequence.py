"""The sequence model as it serves: what it answers, how it is kept, and that serving it needs no torch."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fmcore.config import PROFILES
from fmcore.data.interaction_files import load
from fmcore.data.interactions import leave_one_out
from fmcore.evaluation import ranking
from fmcore.recommend.counting import Popularity
from fmcore.recommend.recommender import BadRecommender, Items
from fmcore.recommend.sequence import LONG_MINUTES, Sequence, exported, sizes_for
from fmcore.training import sequential
from fmcore.training.sequential import Sequencing

ROOT = Path(__file__).resolve().parents[2]
N_ITEMS = 12
TINY = Sequencing(width=16, layers=1, heads=2, window=6, batch=16, epochs=12, patience=12, learning_rate=1e-2, dropout=0.1)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def items(n=N_ITEMS):
    return Items(tuple(f"i{i}" for i in range(n)), ("",) * n, ("",) * n)


def chains(n=60):
    chance = np.random.default_rng(0)
    lengths, starts = chance.integers(3, 9, n), chance.integers(0, N_ITEMS, n)
    return [((start + np.arange(length)) % N_ITEMS).astype(np.int32) for start, length in zip(starts, lengths, strict=True)]


def past(*numbers):
    return np.array(numbers, dtype=np.int32)


def fitted(**options):
    return Sequence(params=TINY, **options).fit(chains(), items())


def test_what_follows_by_construction_comes_first():
    model = fitted()
    for item in range(N_ITEMS - 3):
        assert model.recommend(past(item, item + 1), k=1)[0].item == item + 2
    assert model.similar_items(4, k=1)[0].item == 5


def test_company_changes_no_answer():
    model = fitted()
    pasts = [past(1), past(2, 3), past(4, 5, 6), past(7, 8), past(), past(3, 4, 5, 6, 7, 8, 9, 10)]
    together = model.scores(pasts)
    for one, row in zip(pasts, together, strict=True):
        np.testing.assert_allclose(model.scores([one])[0], row, atol=1e-5)


def test_an_empty_or_unknown_past_is_answered_with_zeros():
    model = Sequence(params=TINY).fit(chains(), items(N_ITEMS + 3))  # the last three were met by nobody
    pasts = [past(), past(N_ITEMS + 1), past(99), past(-1), past(N_ITEMS + 1, 3)]
    found = model.scores(pasts)
    assert not found[:4].any()
    assert found[4].any()
    assert model.knows(pasts).tolist() == [False, False, False, False, True]
    np.testing.assert_allclose(found[4], model.scores([past(3)])[0], atol=1e-5)
    assert np.isfinite(found).all()


def test_only_the_latest_items_are_read():
    model = fitted()
    long = past(*range(10))
    np.testing.assert_allclose(model.scores([long])[0], model.scores([long[-TINY.window :]])[0], atol=1e-5)


def test_the_latest_item_is_the_cause_of_what_follows_it():
    model = fitted()
    (cause,) = model.causes(past(8, 3, 4), [5])
    assert cause is not None
    assert cause[0] == 4
    assert model.explain(past(3, 4), 5)[-1].is_cause


def test_what_is_loaded_answers_as_what_was_saved(tmp_path):
    model = fitted()
    model.save(tmp_path)
    loaded = Sequence.load(tmp_path, items())
    np.testing.assert_array_equal(loaded.scores(chains()), model.scores(chains()))
    assert (loaded.figures, loaded.params, loaded.seed) == (model.figures, model.params, model.seed)


def test_the_graph_answers_as_the_trained_network():
    network = sequential.network(N_ITEMS, TINY).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # away from how it begins, so that every part of the graph counts
            parameter.add_(0.3 * torch.randn_like(parameter))
    model = Sequence(params=TINY)
    model._serve(exported(network), network.items.weight.detach().numpy(), np.ones(N_ITEMS, dtype=bool), window=TINY.window)
    for one in (past(3), past(1, 2, 3), past(*range(6))):
        expected = network(torch.tensor(one[None], dtype=torch.int64))[0, -1] @ network.items.weight.T
        np.testing.assert_allclose(model.scores([one])[0], expected.detach().numpy(), atol=1e-4)


def test_serving_imports_no_torch(tmp_path):
    fitted().save(tmp_path)
    code = (
        "import sys, numpy as np; from pathlib import Path; from fmcore.recommend.sequence import Sequence;"
        "from fmcore.recommend.recommender import Items;"
        f"items = Items(tuple(map(str, range({N_ITEMS}))), ('',) * {N_ITEMS}, ('',) * {N_ITEMS});"
        "model = Sequence.load(Path(sys.argv[1]), items); model.causes(np.array([1, 2]), [3]);"
        "print(model.recommend(np.array([3, 4]), k=1)[0].item, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5", "False"]


def test_held_items_choose_and_are_not_learnt_from():
    histories = chains()
    held = np.array([(one[-1] + 1) % N_ITEMS for one in histories])
    model = Sequence(params=TINY).fit(histories, items(), held=held)
    assert model.figures["n_examined"] == len(histories)
    assert model.figures["n_targets"] == sum(len(one) - 1 for one in histories)


def test_with_the_epochs_known_everything_is_learnt_from_for_so_long():
    model = fitted(epochs=2)
    assert (model.figures["epochs"], model.figures["n_examined"]) == (2, 0)


def test_without_held_items_the_epochs_are_found_first_and_then_everything_is_learnt_from(tmp_path):
    model = fitted(checkpoint=tmp_path)
    assert model.figures["epochs"] == model.figures["best_epoch"]
    assert model.figures["n_targets"] == sum(len(one) - 1 for one in chains())


def test_a_second_fit_of_the_same_size_learns_everything_within_the_first_one_s_budget(tmp_path):
    histories, following = chains(), np.array([(one[-1] + 1) % N_ITEMS for one in chains()])
    first = Sequence(minutes=0.01, params=None, seed=3)
    first.params = dataclasses.replace(TINY, minutes=1.0)
    first.fit(histories, items(), held=following)
    second = Sequence(minutes=0, epochs=first.figures["best_epoch"], params=first.params, checkpoint=tmp_path).fit(histories, items())
    assert second.figures["parameters"] == first.figures["parameters"]
    assert second.figures["epochs"] == first.figures["best_epoch"]
    assert second.params.minutes == 1.0


def test_of_several_sizes_the_one_that_foretells_best_is_kept_and_what_was_tried_is_told(monkeypatch):
    lazy = dataclasses.replace(TINY, width=8, epochs=1, learning_rate=1e-9)
    monkeypatch.setattr("fmcore.recommend.sequence.sizes_for", lambda *_, **__: (lazy, TINY))
    histories, held = chains(), np.array([(one[-1] + 1) % N_ITEMS for one in chains()])
    model = Sequence().fit(histories, items(), held=held)
    assert model.params == TINY
    tried = model.figures["tried"]
    assert [each["params"]["width"] for each in tried] == [8, 16]
    assert model.figures["val_ndcg"] == max(each["val_ndcg"] for each in tried)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_long_training_is_of_the_published_size_at_least_and_a_short_one_of_the_profile_s(profile):
    limits = PROFILES[profile]
    (short,), (long,), unlimited = (sizes_for(limits, minutes=minutes) for minutes in (2, LONG_MINUTES, 0))
    assert (short.width, short.window) == (limits.sequence_width, limits.sequence_window)
    assert (long.width, long.window) == (limits.long_sequence_width, limits.long_sequence_window)
    assert len(unlimited) == 2
    # Klenitskiy and Vasilev 2023: width 64, 2 blocks, 200 items, 100 epochs, patience 10
    for size in unlimited if profile != "tiny" else ():
        assert size.width >= 64 and size.layers >= 2 and size.window >= 200
        assert size.epochs >= 100 and size.patience >= 10 and size.how(3_416) == "softmax" and not size.minutes


@pytest.mark.parametrize("histories", [[], [past(0)], [past(), past(0)]])
def test_where_nothing_can_be_learnt_it_says_so(histories):
    with pytest.raises(BadRecommender, match="two items"):
        Sequence(params=TINY).fit(histories, items(1))


def test_one_person_with_two_items_is_enough():
    model = Sequence(params=TINY).fit([past(0, 1)], items(2))
    assert model.recommend(past(0), k=1)[0].item == 1


def test_a_large_catalogue_is_fitted_and_answered():
    n = 30_000
    chance = np.random.default_rng(0)
    histories = [chance.choice(n, 5, replace=False).astype(np.int32) for _ in range(20)]
    model = Sequence(params=TINY, epochs=1).fit(histories, items(n))
    assert model.scores(histories[:3]).shape == (3, n)


@pytest.mark.parametrize("spoilt", ["recommender.json", "sequence.onnx", "items.safetensors"])
def test_a_damaged_folder_is_refused(tmp_path, spoilt):
    fitted(epochs=1).save(tmp_path)
    (tmp_path / spoilt).write_bytes(b"{}")
    with pytest.raises(BadRecommender):
        Sequence.load(tmp_path, items())


def test_a_folder_of_other_items_is_refused(tmp_path):
    fitted(epochs=1).save(tmp_path)
    with pytest.raises(BadRecommender, match="other items"):
        Sequence.load(tmp_path, items(N_ITEMS + 1))


@pytest.mark.slow
def test_on_real_people_it_beats_popularity_with_intervals_apart(public_data):
    data = load("movielens")
    often = np.flatnonzero(np.bincount(data.rows["item"]) >= 10)  # a quarter of the films, four fifths of the ratings: minutes are saved
    number = np.full(len(data.items), -1, dtype=np.int32)
    number[often] = np.arange(len(often))
    split, catalogue = leave_one_out([number[past][number[past] >= 0] for past in data.histories()]), items(len(often))
    params = Sequencing(width=32, window=50, batch=32, epochs=8, learning_rate=2e-3)
    model = Sequence(params=params).fit(split.train, catalogue, held=split.validation)
    pasts = split.with_validation()
    counts = np.bincount(np.concatenate(split.train), minlength=len(catalogue))
    found = {}
    for name, scores in (("ours", model.scores(pasts)), ("popular", Popularity().fit(split.train, catalogue).scores(pasts))):
        ranks, shown = ranking.ranks(scores, pasts, split.test), ranking.lists(scores, pasts)
        found[name] = ranking.figures(ranks, shown, histories=pasts, targets=split.test, counts=counts, n_people=len(pasts))
    assert found["ours"]["ndcg"].low > found["popular"]["ndcg"].high
    assert found["ours"]["hr"].low > found["popular"]["hr"].high
