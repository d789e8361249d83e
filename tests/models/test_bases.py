"""The shelf of pretrained bases and the served form that fills masks: found by name, checked, never half there."""

import json
import math
import shutil

import numpy as np
import pytest

from fmcore.config import settings
from fmcore.models import bases, fill_mask, masked_lm
from fmcore.models.bases import BadBase, UnknownBase
from fmcore.models.encoder import load_encoder
from fmcore.models.fill_mask import NothingToFill
from fmcore.models.manifest import Tampered, write_manifest
from tests.tiny_encoder import save_tiny_encoder

TEXTS = ["please replace my card today", "refund my money", "my phone is locked"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished folder of a base with two kept checkpoints; copied by each test."""
    folder = tmp_path_factory.mktemp("made") / "model"
    folder.mkdir()
    encoder = load_encoder(save_tiny_encoder(folder / "encoder"), max_tokens=16, device="cpu")
    n = encoder.model.get_input_embeddings().weight.shape[0]
    network = masked_lm.network(encoder, frequencies=np.arange(1, n + 1) / sum(range(1, n + 1)))
    for step in (5, 10):
        fill_mask.save(network, encoder, folder / "fills" / str(step), probes=TEXTS, about={"step": step})
    (folder / "facts.json").write_text(json.dumps({"objective": "mlm", "synthetic": True}))
    write_manifest(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "model")


def test_a_base_is_found_by_name_and_loaded_as_an_encoder(folder):
    home = settings().home
    base = bases.put_in_place(folder, home, name="mine")
    assert [b.name for b in bases.listed(home)] == ["mine"] and base.facts["synthetic"] and bases.exists(home, "mine")
    assert base.steps == (5, 10) and not folder.exists()
    encoder = load_encoder("base:mine", max_tokens=16, device="cpu")
    assert encoder.encode(TEXTS, batch=2).shape == (3, 32)


def test_putting_the_same_base_in_place_twice_changes_nothing_and_another_of_that_name_is_refused(folder, tmp_path):
    home, copy = settings().home, shutil.copytree(folder, tmp_path / "copy")
    first = bases.put_in_place(folder, home, name="mine")
    assert bases.put_in_place(folder, home, name="mine") == first == bases.put_in_place(copy, home, name="mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "facts.json").write_text("{}")
    write_manifest(tmp_path / "other")
    with pytest.raises(BadBase, match="another base"):
        bases.put_in_place(tmp_path / "other", home, name="mine")
    assert bases.get(home, "mine") == first


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", "x" * 90])
def test_a_name_that_is_none_is_refused(folder, name):
    with pytest.raises(BadBase):
        bases.put_in_place(folder, settings().home, name=name)
    with pytest.raises(UnknownBase):
        bases.get(settings().home, name)


def test_an_unknown_base_says_which_there_are(folder):
    bases.put_in_place(folder, settings().home, name="mine")
    with pytest.raises(UnknownBase, match="mine"):
        load_encoder("base:yours", max_tokens=16)


def test_a_damaged_base_is_never_loaded_and_an_unfinished_one_is_not_listed(folder, tmp_path):
    home = settings().home
    unfinished = shutil.copytree(folder, home / "bases" / "half")
    (unfinished / "MANIFEST.json").unlink()
    base = bases.put_in_place(folder, home, name="mine")
    assert [b.name for b in bases.listed(home)] == ["mine"]
    weights = base.encoder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BadBase, match="damaged"):
        load_encoder("base:mine", max_tokens=16)
    (base.path / "facts.json").write_text("[")
    assert bases.listed(home) == []
    with pytest.raises(Tampered):
        bases.put_in_place(tmp_path / "nothing", home, name="mine")


def test_masks_are_filled_from_the_whole_vocabulary_with_probabilities(folder):
    base = bases.put_in_place(folder, settings().home, name="mine")
    filled = base.fill_mask(5).fill("please [MASK] my [MASK] today", k=1000)
    assert [f.place for f in filled] == [0, 1] and base.fill_mask().about["step"] == 10
    for one in filled:
        assert math.isclose(sum(one.probabilities), 1.0, abs_tol=1e-6) and list(one.probabilities) == sorted(
            one.probabilities, reverse=True
        )
        assert not {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} & {w for w, p in zip(one.words, one.probabilities, strict=True) if p > 0}
        assert math.isclose(one.entropy, -sum(p * math.log2(p) for p in one.probabilities if p), abs_tol=1e-6)
    with pytest.raises(UnknownBase, match="Kept steps: 5, 10"):
        base.fill_mask(7)


@pytest.mark.parametrize("text", ["", "no mask", "[MASK]" * 21, "my " * 100 + "[MASK]"])
def test_what_cannot_be_filled_is_said(folder, text):
    model = bases.put_in_place(folder, settings().home, name="mine").fill_mask()
    with pytest.raises(NothingToFill) as refused:
        model.fill(text)
    assert refused.value.hint


def test_a_base_without_a_words_head_says_so(folder):
    shutil.rmtree(folder / "fills")
    write_manifest(folder)
    with pytest.raises(UnknownBase, match="no checkpoint that fills masks"):
        bases.put_in_place(folder, settings().home, name="plain").fill_mask()
