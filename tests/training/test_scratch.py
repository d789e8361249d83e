"""A transformer of random weights: it learns what its rows show, the same under a seed, and borrows nothing but the tokenizer."""

import numpy as np
import pytest

from fmcore.models.encoder import load_encoder
from fmcore.training import scratch
from fmcore.training.scratch import Scratch
from tests.tiny_encoder import save_tiny_encoder, tiny_data


class Silent:
    def progress(self, fraction, message=""): ...

    def metric(self, step, **values): ...

    def device(self, name): ...


@pytest.fixture
def like(tmp_path):
    return load_encoder(save_tiny_encoder(tmp_path / "base"), max_tokens=32, device="cpu")


def test_it_learns_from_its_rows_alone_and_the_same_under_a_seed(like):
    data, what = tiny_data(n_train=30), Scratch(width=32, steps=80, batch=16, seed=1)
    before = {name: tensor.clone() for name, tensor in like.model.state_dict().items()}
    made, again = (scratch.train(data, what, like, report=Silent()) for _ in range(2))
    texts, truth = list(data.test["text"][:48]), list(data.test["label"][:48])
    labels = sorted(set(data.train["label"]))
    answers = made.classes(texts)
    assert np.mean([labels[c] == t for c, t in zip(answers, truth, strict=True)]) > 0.6
    assert (answers == again.classes(texts)).all()
    assert made.trainable > 32 * len(like.tokenizer) and made.encoder.dim == 32
    assert all((before[name] == tensor).all() for name, tensor in like.model.state_dict().items())


def test_few_rows_get_as_many_steps_as_asked_and_many_rows_epochs():
    assert Scratch(steps=60, batch=32).plan(10).epochs == 60
    assert Scratch(steps=60, batch=32).plan(320).epochs == 6
    assert Scratch(steps=60, epochs=10, early_stop=True).plan(3000).epochs == 10
