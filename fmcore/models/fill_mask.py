"""Filling masks: the served form of a masked language model with its whole vocabulary, for the lab's playground.

Owns one folder: fill_mask.onnx, tokenizer.json, fill_mask.json. Written by training/pretrain.py at each checkpoint it keeps; read here
without torch. The graph and the head are masked_lm.py's, which proposes words for explanations from a chosen list instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore import text as texts
from fmcore.models import masked_lm
from fmcore.models.encoder import Encoder
from fmcore.models.export import FP32, quantised, save_tokenizer
from fmcore.nouns import FMError

if TYPE_CHECKING:
    from torch import nn

FORMAT = 1
GRAPH, FACTS = "fill_mask.onnx", "fill_mask.json"
MASK = "[MASK]"
"""How a person writes the place to fill, whatever the base model's own sign is."""
MOST_MASKS = 20
MOST_WORDS = 100
MOST_PROBES = 64
SMALL = quantised("int8 with its word table", ops=("MatMul", "Gather"), per_channel=True, reduce_range=True)
"""A quarter of the size: eight checkpoints of a base lie side by side."""


class NothingToFill(FMError):
    """A text without a mask, or with more than are filled at once."""


class BadFillMask(FMError):
    """A folder that holds no served form that this FM Desk reads."""


@dataclass(frozen=True)
class Filled:
    """What may stand behind one mask. place: which mask of the text, from 0; words likeliest first, with their probabilities over the whole
    vocabulary; entropy of that distribution in bits (0: certain; log2 of the vocabulary: no idea)."""

    place: int
    words: tuple[str, ...]
    probabilities: tuple[float, ...]
    entropy: float


class FillMask:
    """fill(text) for a folder. Safe to call from several threads. about: base, step and what else was known when it was written."""

    def __init__(self, folder: Path):
        import onnxruntime
        from tokenizers import Tokenizer

        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            if facts["format"] != FORMAT:
                raise BadFillMask(f"{folder.name} is of format {facts['format']}, this FM Desk reads {FORMAT}.", "Pretrain the base again.")
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._mask, self._sign, self._never = facts["mask"], facts["sign"], np.array(facts["never"], dtype=np.int64)
            self.about: dict[str, Any] = facts["about"]
            self.max_tokens = int(facts["max_tokens"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadFillMask(f"The fill-mask form in {folder.name} cannot be read ({error}).", "Pretrain the base again.") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])
        self._tokenizer.enable_truncation(max_length=self.max_tokens)
        self._tokenizer.no_padding()

    def fill(self, text: str, k: int = 5) -> list[Filled]:
        """One Filled a [MASK] of the text, in their order, with the k likeliest words; masks beyond what the model reads are left out.

        Raises NothingToFill without a mask, with more than MOST_MASKS, or where all lie beyond the model's reach.
        """
        said = texts.clean(text)[0]
        n = said.count(MASK)
        if not 0 < n <= MOST_MASKS:
            hint = f"Write {MASK} where a word is missing, at most {MOST_MASKS} times."
            raise NothingToFill("There is no [MASK] in the text." if not n else f"There are {n} masks in the text.", hint)
        ids = self._tokenizer.encode(said.replace(MASK, self._sign)).ids
        places = [i for i, token in enumerate(ids) if token == self._mask]
        if not places:
            raise NothingToFill(f"The mask lies beyond the {self.max_tokens} tokens that the model reads.", "Shorten the text.")
        probabilities = self.probabilities([(ids, place) for place in places])
        return [self._filled(number, row, min(max(1, k), MOST_WORDS)) for number, row in enumerate(probabilities)]

    def scores(self, rows: Sequence[tuple[list[int], int]]) -> np.ndarray:
        """float32 (n, vocabulary): unnormalised, for rows of (token ids, place of the mask)."""
        longest = max(len(ids) for ids, _ in rows)
        tokens, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.int64)
        for i, (ids, _) in enumerate(rows):
            tokens[i, : len(ids)], mask[i, : len(ids)] = ids, 1
        feed = {"input_ids": tokens, "attention_mask": mask, "places": np.array([place for _, place in rows], np.int64)}
        return self._session.run(["scores"], feed)[0]

    def probabilities(self, rows: Sequence[tuple[list[int], int]]) -> np.ndarray:
        """float64 (n, vocabulary), each row summing to 1, for rows of (token ids, place of the mask). Signs of the tokenizer get 0."""
        scores = self.scores(rows).astype(np.float64)
        scores[:, self._never] = -np.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def _filled(self, number: int, row: np.ndarray, k: int) -> Filled:
        best = np.argsort(-row, kind="stable")[:k]
        seen = row[row > 0]
        entropy = float(-(seen * np.log2(seen)).sum())
        return Filled(number, tuple(self._word(int(i)) for i in best), tuple(float(row[i]) for i in best), max(0.0, entropy))

    def _word(self, token: int) -> str:
        """As a person reads it: a piece inside a word keeps its ##."""
        piece = self._tokenizer.id_to_token(token) or ""
        return piece if piece.startswith("##") else self._tokenizer.decode([token], skip_special_tokens=False).strip() or piece


def save(model: nn.Module, encoder: Encoder, folder: Path, *, probes: Sequence[str], about: Mapping[str, Any]) -> FillMask:
    """Write the folder for a network of `masked_lm.network`: the smallest form whose first words on the probes are those of the plain one.

    probes: texts, a mask is put before each. No manifest: the folder is part of a base's. Raises ExportFailed where the graph does not say
    what the network says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = encoder.tokenizer
    n_words = int(encoder.model.get_input_embeddings().weight.shape[0])
    strangers = set(range(n_words)) - set(tokenizer.get_vocab().values())
    facts = {"format": FORMAT, "max_tokens": encoder.max_tokens, "mask": tokenizer.mask_token_id, "sign": tokenizer.mask_token,
             "never": sorted({*tokenizer.all_special_ids, *strangers}), "about": dict(about)}  # fmt: skip
    save_tokenizer(encoder, folder)
    (folder / FACTS).write_text(json.dumps(facts, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    plain = folder / "fp32.onnx"
    masked_lm.export(model, range(n_words), plain)
    FP32.write(plain, folder / GRAPH)
    rows = _probe_rows(encoder, probes)
    reference = FillMask(folder)
    truth = reference.probabilities(rows)
    masked_lm.check_same(model, rows, reference.scores(rows), list(range(n_words)))
    for form in (SMALL, masked_lm.INT8, FP32):
        form.write(plain, folder / GRAPH)
        agreement = float((FillMask(folder).probabilities(rows).argmax(axis=1) == truth.argmax(axis=1)).mean())
        if agreement >= masked_lm.LEAST_AGREEMENT:
            break
    plain.unlink()
    return FillMask(folder)


def _probe_rows(encoder: Encoder, probes: Sequence[str]) -> list[tuple[list[int], int]]:
    """Each probe's tokens with its middle one masked."""
    rows = []
    for ids in encoder.tokenizer(list(probes), truncation=True, max_length=encoder.max_tokens)["input_ids"]:
        if len(ids) >= 3:
            place = len(ids) // 2
            rows.append(([*ids[:place], encoder.tokenizer.mask_token_id, *ids[place + 1 :]], place))
    return rows[:MOST_PROBES]
