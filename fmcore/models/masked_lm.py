"""The masked language model: which words could stand in a place of a text, by what stands around it.

Owns its head (a transform and a decoder tied to the encoder's word embeddings, as in BERT), its folder (masked_lm.onnx,
tokenizer.json, masked_lm.json, MANIFEST.json) and where that lies: <home>/masked_lm/<name>, and current.json beside it names the one
that serves. It is nobody's version of a task, so the registry does not know it. Serving needs ONNX Runtime and tokenizers, never
torch; training is training/mask_filling.py's part.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import logging
import os
import re
import shutil
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fmcore.models.encoder import Encoder
from fmcore.models.export import FP32, OPSET, ExportFailed, Form, quantised, save_tokenizer
from fmcore.models.manifest import MANIFEST, check_manifest, sync_folder, write_manifest
from fmcore.nouns import FMError
from fmcore.text import is_name

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("fm.models")

FORMAT = 1
GRAPH, FACTS, CURRENT = "masked_lm.onnx", "masked_lm.json", "current.json"
INT8 = quantised("int8 per-channel, reduced range", per_channel=True, reduce_range=True)
"""Sound on every processor; a quarter of the matrices' size."""
LEAST_AGREEMENT = 0.8
"""Share of places at which the quantised form must give the same first word, else the plain one is served."""
MAX_DIFFERENCE = 1e-2
"""Between the exported and the trained form's scores, as a share of their spread."""
PLACE = "masked_lm"
GAIN = 0.5
"""How strongly the untrained head speaks against the words' frequencies: so little that it begins about where those do."""
WIDEST_TOKEN = 20
"""Characters of a text that are looked at for each token the model reads."""
_CORE = re.compile(r"\w(?:.*\w)?", re.DOTALL)


class NoMask(FMError):
    """A base model whose tokenizer has no mask token."""


class BadMaskedLM(FMError):
    """A folder that holds no masked language model that this FM Desk can read."""


# --- the network


def network(encoder: Encoder, *, frequencies: np.ndarray) -> nn.Module:
    """The encoder with its new head. frequencies (vocabulary,) sum to 1: the head starts by guessing words as often as they come.

    forward(input_ids, attention_mask, rows, places) -> scores (n, vocabulary) at the places (n,) of the rows (n,). Raises NoMask.
    """
    import torch
    from torch import nn

    if encoder.tokenizer.mask_token_id is None:
        raise NoMask(f"The base model {encoder.name} has no mask token.", "Choose another base model (FM_BASE_MODEL), such as minilm.")
    table = encoder.model.get_input_embeddings().weight

    class WordsBehindMasks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder.model
            self.transform = nn.Linear(encoder.dim, table.shape[1])
            self.norm = nn.LayerNorm(table.shape[1], eps=1e-12)
            nn.init.constant_(self.norm.weight, GAIN / float(table.detach().norm(dim=1).mean()))
            self.bias = nn.Parameter(torch.from_numpy(np.log(frequencies)).float())

        def behind(self, states):
            return self.norm(nn.functional.gelu(self.transform(states)))

        def guesses(self, input_ids, attention_mask, rows, places):
            return self.behind(self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[rows, places])

        def scores(self, states):
            return nn.functional.linear(self.behind(states), self.encoder.get_input_embeddings().weight, self.bias)

        def forward(self, input_ids, attention_mask, rows, places):
            return self.scores(self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[rows, places])

    return WordsBehindMasks()


def save(
    model: nn.Module, encoder: Encoder, folder: Path, *, words: Mapping[int, str], probes: Sequence[str], about: Mapping[str, Any]
) -> None:
    """Write the folder, its manifest last. words: token id -> the whole word that may be proposed; probes: texts to check the graph on.

    Raises ExportFailed when the graph does not say what the network says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"format": FORMAT, "base": encoder.name, "max_tokens": encoder.max_tokens, "mask": encoder.tokenizer.mask_token_id,
             **_frame(encoder), "words": list(words.values())}  # fmt: skip
    save_tokenizer(encoder, folder)
    export(model, list(words), folder / "fp32.onnx")
    plain = _written(FP32, folder, {**facts, "about": dict(about)})
    rows = [plain.around("", probe) for probe in probes]
    answers = plain.scores(rows)
    check_same(model, rows, answers, list(words))
    small = _written(INT8, folder, {**facts, "about": {**about, "form": INT8.name}})
    agreement = float((small.scores(rows).argmax(axis=1) == answers.argmax(axis=1)).mean())
    if agreement < LEAST_AGREEMENT:
        log.info("the quantised form agrees on %.0f %% of first words only: the plain one is kept", 100 * agreement)
        _written(FP32, folder, {**facts, "about": {**about, "form": FP32.name}})
    (folder / "fp32.onnx").unlink()
    write_manifest(folder)


def _frame(encoder: Encoder) -> dict[str, list[int]]:
    """The special tokens that stand before and after a text."""
    whole = encoder.tokenizer("x")["input_ids"]
    plain = encoder.tokenizer("x", add_special_tokens=False)["input_ids"]
    start = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
    return {"before": whole[:start], "after": whole[start + len(plain) :]}


def _written(form: Form, folder: Path, facts: Mapping[str, Any]) -> MaskedLM:
    form.write(folder / "fp32.onnx", folder / GRAPH)
    (folder / FACTS).write_text(json.dumps(facts, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    return MaskedLM(folder)


def export(model: nn.Module, ids: Sequence[int], path: Path) -> None:
    """One ONNX graph: input_ids, attention_mask and a place a row in, the scores of the words `ids` at that place out."""
    import torch

    class AtPlaces(torch.nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.table = torch.nn.Parameter(inner.encoder.get_input_embeddings().weight[list(ids)].T.contiguous())
            self.bias = torch.nn.Parameter(inner.bias[list(ids)].clone())

        def forward(self, input_ids, attention_mask, places):
            rows = torch.arange(input_ids.shape[0])
            return self.inner.guesses(input_ids, attention_mask, rows, places) @ self.table + self.bias

    served = AtPlaces(copy.deepcopy(model).to("cpu")).eval()
    served.inner.encoder.set_attn_implementation("eager")  # the fused kernel traces into twice as many nodes
    tokens, mask = torch.full((2, 7), 5, dtype=torch.int64), torch.ones((2, 7), dtype=torch.int64)
    mask[1, 4:] = 0
    axes = {"input_ids": {0: "rows", 1: "tokens"}, "attention_mask": {0: "rows", 1: "tokens"}, "places": {0: "rows"}, "scores": {0: "rows"}}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracing exporter warns that it traces; `check_same` compares what came of it
        torch.onnx.export(
            served, (tokens, mask, torch.tensor([1, 2])), str(path), input_names=["input_ids", "attention_mask", "places"],
            output_names=["scores"], dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip


def check_same(model: nn.Module, rows: Sequence[tuple[list[int], int]], answers: np.ndarray, ids: Sequence[int]) -> None:
    """Whether a graph's answers (n, ids) to rows of (token ids, place) are the network's. Raises ExportFailed."""
    import torch

    with torch.inference_mode():
        for (tokens, place), answer in zip(rows, answers, strict=True):
            given = torch.tensor([tokens], device=model.bias.device)
            scores = model.eval()(given, torch.ones_like(given), torch.tensor([0]), torch.tensor([place]))[0, list(ids)].cpu().numpy()
            apart = float(np.abs(scores - answer).max())
            if not apart <= MAX_DIFFERENCE * float(scores.std() + 1):
                raise ExportFailed(f"The exported masked language model's scores differ by {apart:.3f}.", "Choose another base model.")


# --- as served


class Text(Protocol):
    """What a place is asked for in: explain/words.py's Words."""

    @property
    def text(self) -> str: ...

    @property
    def spans(self) -> Sequence[tuple[int, int]]: ...


class MaskedLM:
    """Whole words for a place. Safe to call from several threads. about: base, losses, number of texts, made_at."""

    def __init__(self, folder: Path):
        import onnxruntime
        from tokenizers import Tokenizer

        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise BadMaskedLM(f"{folder.name} is of format {facts['format']}, this FM Desk reads {FORMAT}.", "Run the job masked_lm again.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._before, self._after, self._mask = facts["before"], facts["after"], facts["mask"]
        self._max_tokens = int(facts["max_tokens"])
        self.words: list[str] = facts["words"]
        self.about: dict[str, Any] = {"base": facts["base"], **facts["about"]}

    def propose(self, words: Text, place: int, k: int) -> list[str]:
        """At most k whole words for the one at `place`, likeliest first: never that word itself, in its script, its case, and with the
        punctuation that clings to it. None for a place without letters or digits."""
        start, end = words.spans[place]
        core = _CORE.search(words.text[start:end])
        if core is None:
            return []
        old, first, last = core.group(), start + core.start(), start + core.end()
        ranked = np.argsort(-self.scores([self.around(words.text[:first], words.text[last:])])[0], kind="stable")
        fitting = (w for i in ranked if (w := self.words[i]).casefold() != old.casefold() and _script(w) == _script(old))
        return [f"{words.text[start:first]}{_cased(w, old)}{words.text[last:end]}" for w in itertools.islice(fitting, k)]

    def around(self, left: str, right: str) -> tuple[list[int], int]:
        """(token ids of a text with a mask between two parts, where the mask is), as much of both as the model reads."""
        reach = self._max_tokens * WIDEST_TOKEN
        before, after = (self._tokenizer.encode(part, add_special_tokens=False).ids for part in (left[-reach:], right[:reach]))
        room = self._max_tokens - len(self._before) - len(self._after) - 1
        n_after = min(len(after), max(room // 2, room - len(before)))
        before = before[max(0, len(before) - (room - n_after)) :]
        ids = [*self._before, *before, self._mask, *after[:n_after], *self._after]
        return ids, len(self._before) + len(before)

    def scores(self, rows: Sequence[tuple[list[int], int]]) -> np.ndarray:
        """float32 (n, words): unnormalised, for rows of (token ids, place of the mask)."""
        longest = max(len(ids) for ids, _ in rows)
        tokens, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.int64)
        for i, (ids, _) in enumerate(rows):
            tokens[i, : len(ids)], mask[i, : len(ids)] = ids, 1
        places = np.array([place for _, place in rows], np.int64)
        return self._session.run(["scores"], {"input_ids": tokens, "attention_mask": mask, "places": places})[0]


def _script(word: str) -> str:
    """LATIN, CJK, DIGIT and so on, by the first character's name."""
    return unicodedata.name(word[0], "").split(" ")[0].split("-")[0]


def _cased(new: str, old: str) -> str:
    if len(old) > 1 and old.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


# --- where it lies


def load(home: Path) -> MaskedLM | None:
    """The model that serves, kept in memory from its first use; None where there is none, or it is damaged (the log says how)."""
    try:
        return _loaded(*_current(home))
    except FileNotFoundError:
        return None
    except Exception:  # a damaged file fails in any of four parsers; each failure means the same here
        log.warning("the masked language model cannot be used: explanations go without swaps", exc_info=True)
        return None


def exists(home: Path) -> bool:
    """Whether one was put in place; it is not opened."""
    return (home / PLACE / CURRENT).is_file()


def put_in_place(folder: Path, home: Path, *, name: str) -> MaskedLM:
    """Make a finished folder the one that serves, by moving it; the same name twice is one. Raises Tampered and BadMaskedLM.

    The former model serves until current.json is replaced, which is atomic, and is removed then.
    """
    root, target = home / PLACE, home / PLACE / name
    if not is_name(name):
        raise BadMaskedLM(f"{name!r} cannot be the name of a folder.", "Use letters, digits, dots, dashes.")
    if folder.is_dir():
        check_manifest(folder)
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(target, ignore_errors=True)  # of a landing that died here
        shutil.move(folder, target)
    check_manifest(target)
    fresh = root / f"{CURRENT}.part"
    fresh.write_text(json.dumps({"name": name}), encoding="utf-8")
    os.replace(fresh, root / CURRENT)
    sync_folder(root)
    for other in root.iterdir():
        if other.is_dir() and other.name != name:
            shutil.rmtree(other, ignore_errors=True)
    return _loaded(*_current(home))


def _current(home: Path) -> tuple[Path, int]:
    """(the folder that serves, when its manifest was written, in ns)."""
    name = json.loads((home / PLACE / CURRENT).read_text(encoding="utf-8"))["name"]
    if not is_name(name):
        raise BadMaskedLM(f"{CURRENT} names {name!r}, which is no folder's name.", "Run the job masked_lm again.")
    folder = home / PLACE / name
    return folder, (folder / MANIFEST).stat().st_mtime_ns


@functools.lru_cache(maxsize=1)
def _loaded(folder: Path, _written_at: int) -> MaskedLM:
    check_manifest(folder)
    return MaskedLM(folder)
