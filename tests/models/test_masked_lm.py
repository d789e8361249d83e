"""The masked language model as saved and served: whole words that fit, as the place needs them, without torch, and replaced whole."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fmcore.explain.words import split
from fmcore.models import masked_lm
from fmcore.models.encoder import load_encoder
from fmcore.models.export import ExportFailed
from fmcore.models.manifest import Tampered, write_manifest
from tests.tiny_encoder import save_tiny_encoder

WORDS = ("card", "refund", "money", "travel", "my", "please", "the")


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return save_tiny_encoder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def made(base, tmp_path_factory):
    """A saved, untrained model: what surrounds the weights does not depend on them."""
    folder = tmp_path_factory.mktemp("made") / "model"
    encoder = load_encoder(base, max_tokens=16, device="cpu")
    vocabulary = encoder.tokenizer.get_vocab()
    model = masked_lm.network(encoder, frequencies=np.full(len(vocabulary), 1 / len(vocabulary)))
    words = {vocabulary[word]: word for word in sorted(WORDS, key=vocabulary.get)}
    masked_lm.save(model, encoder, folder, words=words, probes=["my card", "please the refund"], about={"loss_before": 4.0, "loss_after": 3.0})
    return folder


@pytest.fixture
def served(made):
    return masked_lm.MaskedLM(made)


def test_the_folder_has_a_manifest_a_graph_a_tokenizer_and_nothing_else(made):
    assert sorted(f.name for f in made.iterdir()) == ["MANIFEST.json", "masked_lm.json", "masked_lm.onnx", "tokenizer.json"]


def test_it_says_what_it_is(served, base):
    assert (served.about["base"], served.about["loss_before"], served.about["loss_after"]) == (base, 4.0, 3.0) and served.about["form"]


def test_it_proposes_as_many_other_whole_words_as_asked_for(served):
    proposed = served.propose(split("please replace my card"), 3, 4)
    assert len(set(proposed)) == 4 and set(proposed) <= set(WORDS) - {"card"}
    assert proposed == served.propose(split("please replace my card"), 3, 6)[:4]


@pytest.mark.parametrize(("token", "shape"), [("Card", str.istitle), ("CARD", str.isupper), ("card", str.islower)])
def test_proposals_are_written_like_the_word_that_stood_there(served, token, shape):
    assert all(shape(word) for word in served.propose(split(f"my {token} please"), 1, 3))


def test_punctuation_that_clings_to_a_word_stays(served):
    assert all(word.startswith("(") and word.endswith("?!") and word[1:-2] in WORDS for word in served.propose(split("my (card?!"), 1, 5))


@pytest.mark.parametrize("token", ["???", "🙂", "—", "卡", "2,008"])
def test_nothing_is_proposed_for_what_is_no_word_of_its_script(served, token):
    assert served.propose(split(f"my {token} please"), 1, 5) == []


@pytest.mark.parametrize("text", ["card", "[MASK] card [SEP] please", "card " + "please my the " * 3000, "please my the " * 3000 + "card"])
def test_any_text_around_the_word_will_do(served, text):
    words = split(text)
    place = words.tokens.index("card")
    assert len(served.propose(words, place, 3)) == 3


def test_the_context_of_a_long_text_is_taken_from_both_sides_of_the_place(served):
    ids, place = served.around("please " * 500, "travel " * 500)
    assert len(ids) == 16 and place in (7, 8) and ids[place] == served._mask and len(set(ids)) == 5


def test_the_place_is_where_the_mask_is_even_where_the_text_holds_one(served):
    ids, place = served.around("[MASK] my", "please")
    assert ids[place] == ids[1] == served._mask and place == 3


def test_it_is_put_in_place_once_and_replaces_the_former_one_whole(made, tmp_path):
    home = tmp_path / "home"
    assert masked_lm.load(home) is None and not masked_lm.exists(home)
    for name in ("run-1", "run-2"):
        shutil.copytree(made, tmp_path / name)
        masked_lm.put_in_place(tmp_path / name, home, name=name)
        masked_lm.put_in_place(tmp_path / name, home, name=name)
        assert masked_lm.exists(home) and masked_lm.load(home).words
        assert sorted(p.name for p in (home / masked_lm.PLACE).iterdir()) == ["current.json", name]


def test_it_is_loaded_once(made, tmp_path):
    shutil.copytree(made, tmp_path / "run-1")
    masked_lm.put_in_place(tmp_path / "run-1", tmp_path / "home", name="run-1")
    assert masked_lm.load(tmp_path / "home") is masked_lm.load(tmp_path / "home")


def test_a_landing_that_died_half_way_is_finished_by_the_next(made, tmp_path):
    home = tmp_path / "home"
    half = home / masked_lm.PLACE / "run-1"
    half.mkdir(parents=True)
    (half / "masked_lm.onnx").write_bytes(b"half")
    shutil.copytree(made, tmp_path / "run-1")
    masked_lm.put_in_place(tmp_path / "run-1", home, name="run-1")
    assert masked_lm.load(home).words


def test_a_damaged_one_is_refused_and_leaves_explanations_without_swaps(made, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(made, tmp_path / "run-1")
    with (tmp_path / "run-1" / "masked_lm.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(Tampered):
        masked_lm.put_in_place(tmp_path / "run-1", home, name="run-1")
    assert not masked_lm.exists(home)
    shutil.copytree(made, home / masked_lm.PLACE / "run-2")
    (home / masked_lm.PLACE / "run-2" / "masked_lm.json").write_text("{}")
    (home / masked_lm.PLACE / "current.json").write_text(json.dumps({"name": "run-2"}))
    assert masked_lm.load(home) is None
    (home / masked_lm.PLACE / "current.json").write_text(json.dumps({"name": "../../elsewhere"}))
    assert masked_lm.load(home) is None


def test_a_folder_of_another_format_is_refused_with_what_to_do(made, tmp_path):
    shutil.copytree(made, tmp_path / "m")
    facts = json.loads((tmp_path / "m" / "masked_lm.json").read_text())
    (tmp_path / "m" / "masked_lm.json").write_text(json.dumps({**facts, "format": 99}))
    write_manifest(tmp_path / "m")
    with pytest.raises(masked_lm.BadMaskedLM, match="format 99"):
        masked_lm.MaskedLM(tmp_path / "m")


def test_a_base_model_without_a_mask_is_refused(base):
    encoder = load_encoder(base, max_tokens=16, device="cpu")
    encoder.tokenizer.mask_token = None
    with pytest.raises(masked_lm.NoMask):
        masked_lm.network(encoder, frequencies=np.full(10, 0.1))


def test_a_graph_that_says_something_else_than_the_network_is_refused(base, tmp_path, monkeypatch):
    encoder = load_encoder(base, max_tokens=16, device="cpu")
    vocabulary = encoder.tokenizer.get_vocab()
    model = masked_lm.network(encoder, frequencies=np.full(len(vocabulary), 1 / len(vocabulary)))
    monkeypatch.setattr(masked_lm.MaskedLM, "scores", lambda self, rows: np.zeros((len(rows), len(self.words)), np.float32))
    with pytest.raises(ExportFailed):
        masked_lm.save(model, encoder, tmp_path / "m", words={vocabulary["card"]: "card", vocabulary["my"]: "my"}, probes=["my card"], about={})


@pytest.mark.slow
def test_serving_it_imports_no_torch(made):
    code = (
        "import sys; from pathlib import Path; from fmcore.models.masked_lm import MaskedLM; from fmcore.explain.words import split;"
        f"print(len(MaskedLM(Path({str(made)!r})).propose(split('my card please'), 1, 3))); print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == ["3", "False"]
