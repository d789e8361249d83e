"""Pretraining without labels: a base model from scratch or continued, by hidden words (MLM), with next sentence or sentence order too.

MLM as in BERT (Devlin et al. 2019) with whole words hidden anew at every step (RoBERTa, Liu et al. 2019), scores only where something is
hidden, the table of words tied to the decoder. Loss: mean cross-entropy of the hidden pieces, and of the two-way answer for pairs. What is
measured at each checkpoint is the same hidden words of texts held back, beside the best guess that ignores the text; what a frozen
embedding knows of sentiment; and fixed sentences filled in. Packing is packing.py's part, the steps loop.py's, the shelf bases.py's; the
objectives for whole sentences are sentence_adapt.py's.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from fmcore.data.corpus import Corpus
from fmcore.models import bases, masked_lm
from fmcore.models.encoder import Encoder, load_encoder
from fmcore.models.manifest import write_manifest
from fmcore.nouns import FMError, Report
from fmcore.training import counted_words, devices, exams, loop, packing, tokenizer_training
from fmcore.training.finetune import layers_of
from fmcore.training.mask_filling import NO_WORD, last_layers
from fmcore.training.packing import Packed, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn

PAIRED = ("nsp", "sop")
WORDS = ("mlm", *PAIRED)
"""Objectives with a words' head; the others are sentence_adapt.py's."""
MOST_TOKENS = 200_000_000
"""Tokens on disk at most (0.6 GB): a longer run sees them more than once."""
PACE_S, PACE_SHARE = 3.0, 0.9
"""How long the speed is tried before the steps for a number of minutes are set, and which part of it is counted on."""
KEPT, PREPARED, CURVE, FILLS = "kept", "prepared", "curve.jsonl", "fills.jsonl"
MEASURING = 0.06
"""Share of the minutes that measuring takes from learning."""


class UnknownSize(FMError):
    """No architecture has that name."""


@dataclass(frozen=True)
class Size:
    """An architecture for pretraining from scratch, and the peak learning rate that suits it."""

    layers: int
    width: int
    heads: int
    vocab: int
    learning_rate: float


SIZES = {
    "tiny": Size(2, 128, 2, 6000, 1e-3),
    "small": Size(4, 256, 4, 8000, 7e-4),
    "medium": Size(6, 384, 6, 16_000, 5e-4),
    "base": Size(12, 768, 12, 30_000, 3e-4),
}
CONTINUED_RATE, HEAD_RATE = 2e-4, 3e-3
BETAS = (0.9, 0.98)
LENGTH = 0.6
"""Of a word's vector at the start: with BERT's usual 0.02 a number, a model this narrow hears its context too faintly to begin learning."""
DROPOUT = 0.0
"""None: a small model sees its corpus a few times at most, and cannot learn it by heart."""


@dataclass(frozen=True)
class Pretraining:
    """What can be asked of a run. It ends after `steps`, or, with 0, after about `minutes`. size, vocab (0: the size's) and a tokenizer of
    its own are for start "scratch"; base, and layers (the last ones that learn; 0: all, the table of words stays on a processor), for
    "continue". learning_rate 0: what suits the size."""

    objective: Literal["mlm", "nsp", "sop", "simcse", "tsdae", "polarity"] = "mlm"
    start: Literal["scratch", "continue"] = "scratch"
    base: str = "minilm"
    size: str = "tiny"
    vocab: int = 0
    minutes: float = 15.0
    steps: int = 0
    batch: int = 32
    max_tokens: int = 64
    checkpoints: int = 8
    seed: int = 0
    threads: int = 1
    layers: int = 0
    learning_rate: float = 0.0
    device: str | None = None
    report_s: float = 1.0
    checkpoint_s: float = 60.0

    def recipe(self) -> dict[str, Any]:
        """What decides the resulting weights: every field but how often to report and to save."""
        return {k: v for k, v in asdict(self).items() if k not in ("report_s", "checkpoint_s")}


def train(corpus: Corpus, params: Pretraining, out: Path, report: Report, *, checkpoint: Path | None = None) -> dict[str, Any]:
    """Pretrain on a corpus and write the folder of a base (models/bases.py), its manifest last. Returns the figures.

    A checkpoint folder makes the run resumable to the bit on a CPU: the tokenizer, the packed rows and the number of steps lie there. It
    also holds fills.jsonl and curve.jsonl as they grow. When the loss stops being a number the best checkpoint so far is written to `out`
    all the same, with the reason among its facts, and Diverged goes on up. Raises UnknownSize, NothingToPack, NotWritten and
    CheckpointNotSaved.
    """
    import torch

    if params.objective not in WORDS:
        from fmcore.training import sentence_adapt

        return sentence_adapt.train(corpus, params, out, report, checkpoint=checkpoint)
    torch.set_num_threads(params.threads)
    began = time.monotonic()
    with _folder(checkpoint) as folder:
        run = _Run(corpus, params, folder, report, began)
        try:
            outcome = run.fit(folder if checkpoint is not None else None)
        except loop.Diverged as reason:
            if run.curve:
                run.write(out, stopped=reason.message, seconds=time.monotonic() - began)
            raise
        report.progress(0.98, "Writing the base model")
        return run.write(out, stopped="", seconds=outcome.elapsed_s + run.prepared_s)


class _Run:
    """A run's parts, from corpus to weights, so that what `train` does reads top to bottom."""

    def __init__(self, corpus: Corpus, params: Pretraining, folder: Path, report: Report, began: float):
        import torch

        self.corpus, self.params, self.folder, self.report = corpus, params, folder, report
        self.prepared = folder / PREPARED
        facts = self._prepared_facts()
        devices.seed_everything(params.seed)
        self.encoder, head = self._encoder()
        self.size = int(self.encoder.model.get_input_embeddings().weight.shape[0])
        self.vocabulary = Vocabulary.of(self.encoder.tokenizer, size=self.size)
        self.device = torch.device(self.encoder.device)
        self.apart = params.objective not in PAIRED and self.encoder.model.config.model_type == "bert"
        even = np.ones(self.size) / self.size
        self.words = masked_lm.network(self.encoder, frequencies=even)
        self.model = _learner(self.words, paired=params.objective in PAIRED).to(self.device)
        if not facts:
            facts = self._prepare(began)
        self.facts, self.steps, self.prepared_s = facts, int(facts["steps"]), float(facts["seconds"])
        self.rows, self.held = Packed.open(self.prepared, "train"), Packed.open(self.prepared, "held")
        self._begin_with(head)
        self.kept = folder / KEPT
        self.exam = exams.Exam(self, n_rows=exams.ROWS)
        self.probe = exams.Probe.of(seed=params.seed)
        self.curve: list[dict[str, Any]] = _lines(folder / CURVE)

    # --- what is learnt from

    def _prepared_facts(self) -> dict[str, Any]:
        """What an attempt before this one prepared for the same corpus and settings; {} where nothing fits, which is then removed.

        What was packed is what is learnt from: news that came in since does not make a resumed run another one.
        """
        told = json.dumps([self.corpus.names, self.corpus.seed, self.params.recipe()], sort_keys=True)
        self.key = hashlib.sha256(told.encode()).hexdigest()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # nothing, or half of it: it is made again
            facts = json.loads((self.prepared / "prepared.json").read_text(encoding="utf-8"))
            if facts["key"] == self.key:
                return facts
        for stale in (self.prepared, self.folder / KEPT):
            shutil.rmtree(stale, ignore_errors=True)
        for name in (CURVE, FILLS):
            (self.folder / name).unlink(missing_ok=True)
        self.prepared.mkdir(parents=True)
        return {}

    def _encoder(self) -> tuple[Encoder, Mapping[str, Tensor]]:
        """(the model to learn, the words' head that its base brings, if any)."""
        params = self.params
        if params.start == "continue":
            self.report.progress(0.0, f"Loading {params.base}")
            return load_encoder(params.base, max_tokens=params.max_tokens, device=params.device), exams.head_of(params.base)
        if params.size not in SIZES:
            raise UnknownSize(f"There is no size {params.size!r}.", f"Sizes: {', '.join(SIZES)}.")
        if not (self.prepared / "tokenizer.json").is_file():
            self.report.progress(0.0, "Learning a vocabulary")
            spoken = (sentence for document in self.corpus.documents("train") for sentence in document)
            vocab = params.vocab or SIZES[params.size].vocab
            tokenizer_training.train(spoken, vocab=vocab, max_tokens=params.max_tokens).save_pretrained(self.prepared)
        return _fresh(self.prepared, params), {}

    def _prepare(self, began: float) -> dict[str, Any]:
        """Set the number of steps, pack the rows that they will see, and note both: from here on a resumed run is the same run."""
        params = self.params
        steps = params.steps
        if not steps:
            self.report.progress(0.01, "Trying how fast this machine learns")
            left_s = 60 * params.minutes * (1 - MEASURING) - (time.monotonic() - began)
            steps = max(params.checkpoints, int(PACE_SHARE * left_s * self._pace()))
        most = min(steps * params.batch, MOST_TOKENS // params.max_tokens)

        def pack(part: str, name: str, most_rows: int) -> None:
            packing.pack(
                self.corpus.documents(part), self.encoder.tokenizer, self.prepared, name, tokens=params.max_tokens, most_rows=most_rows,
                size=self.size, objective=params.objective, seed=params.seed,
                said=lambda n: self.report.progress(0.02, f"Reading the corpus: {n * params.max_tokens:,} tokens"),
            )  # fmt: skip

        pack("train", "train", most)
        pack("held_back", "held", exams.ROWS)
        facts = {
            "key": self.key, "steps": steps, "seconds": round(time.monotonic() - began, 1), "notes": self.corpus.notes,
            "corpus_hash": self.corpus.hash,
        }  # fmt: skip
        part = self.prepared / "prepared.json.part"
        part.write_text(json.dumps(facts), encoding="utf-8")
        part.replace(self.prepared / "prepared.json")
        return facts

    def _pace(self) -> float:
        """Steps a second, tried on random rows with a copy of the model."""
        import torch

        model = copy.deepcopy(self.model).train()
        optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
        chance = np.random.default_rng(0)
        ids = chance.choice(self.vocabulary.ordinary, (self.params.batch, self.params.max_tokens))
        flags = np.full(ids.shape, packing.BEGINS, dtype=np.uint8)
        batch = devices.to_device(self.batch(ids, flags, np.zeros(len(ids), np.int8), chance=chance), self.device)
        done, start = -2, 0.0
        while done < 3 or time.monotonic() - start < PACE_S:
            if done == 0:
                start = time.monotonic()  # the first two warm up
            optimiser.zero_grad()
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
                loss_of(model, batch).backward()
            optimiser.step()
            done += 1
        return done / (time.monotonic() - start)

    def _begin_with(self, head: Mapping[str, Tensor]) -> None:
        """Let the head begin as its base's, or by guessing words as often as they come in the corpus."""
        import torch

        with torch.no_grad():
            counts = torch.from_numpy(self.rows.counts + 1.0)
            self.words.bias.copy_(torch.log(counts / counts.sum()))
            if self.params.start == "scratch":
                words = self.encoder.model.get_input_embeddings().weight
                counted = counted_words.table(self.rows, self.vocabulary, width=words.shape[1], norm=LENGTH, seed=self.params.seed)
                words.copy_(torch.from_numpy(counted))
            for name, tensor in head.items():
                self.words.get_parameter(name).copy_(tensor)

    # --- how it is learnt

    def batch(self, ids: np.ndarray, words: np.ndarray, relation: np.ndarray, *, chance: Any, exam: bool = False) -> dict[str, Tensor]:
        """Tensors for rows, their words hidden."""
        import torch

        shown, targets = packing.hidden(ids, words, self.vocabulary, chance=chance, exam=exam)
        mask = (ids != self.vocabulary.pad).astype(np.int64)
        parts = {"input_ids": shown, "attention_mask": mask, "targets": targets, "relation": relation.astype(np.int64)}
        if self.apart:
            document = packing.documents_of(ids, self.vocabulary)
            first = np.ones_like(document)
            first[:, 1:] = document[:, 1:] != document[:, :-1]
            place = np.arange(ids.shape[1])[None]
            parts["position_ids"] = place - np.maximum.accumulate(np.where(first, place, 0), axis=1)
            parts["attention_mask"] = (document[:, :, None] == document[:, None, :])[:, None]
        return {name: torch.from_numpy(part) for name, part in parts.items()}

    def plan(self) -> loop.Plan:
        """The loop's settings: the rows as often as the steps need them, checkpoints evenly over the steps."""
        params = self.params
        scratch = params.start == "scratch"
        rate = params.learning_rate or (SIZES[params.size].learning_rate if scratch else CONTINUED_RATE)
        return loop.Plan(
            epochs=math.ceil(self.steps / math.ceil(len(self.rows.ids) / params.batch)), steps=self.steps, checks=params.checkpoints,
            batch=params.batch, learning_rate=rate, head_learning_rate=rate if scratch else HEAD_RATE, warmup=0.06, seed=params.seed,
            seconds=0.0 if params.steps else max(1.0, 60 * params.minutes - self.prepared_s),
            report_s=params.report_s, checkpoint_s=params.checkpoint_s,
        )  # fmt: skip

    def fit(self, checkpoint: Path | None) -> loop.Outcome:
        """Learn; at each checkpoint measure, keep the served form, and fill the fixed sentences in."""
        rows, plan = self.rows, self.plan()
        if self.device.type == "cuda":
            self.words.encoder.compile()
        subject = loop.Subject(
            self.model, self._groups(plan), [self.params.max_tokens] * len(rows.ids),
            lambda chosen: self.batch(rows.ids[chosen], rows.words[chosen], rows.relation[chosen], chance=np.random),
            lambda batch: loss_of(self.model, batch),
            lambda: self.curve[-1]["masked_accuracy"],
            identity=f"pretrain {self.key} {rows.sha256} {self.encoder.sha256}", figure="masked_accuracy", watch=self._look,
            tokens=self.params.max_tokens,
        )  # fmt: skip
        self.outcome = loop.fit(subject, plan, report=self.report, checkpoint=checkpoint, device=self.device, span=(0.03, 0.98))
        return self.outcome

    def _groups(self, plan: loop.Plan) -> list[dict[str, Any]]:
        layers = layers_of(self.encoder.model)
        if self.params.start == "continue":
            learnt = last_layers(self.encoder, self.params.layers or len(layers) - 1)
            if not self.params.layers and self.device.type != "cpu":
                learnt = [layers[0].requires_grad_(True), *learnt]
            layers = learnt
        return [{**group, "betas": BETAS} for group in loop.layerwise_groups(layers, _head(self.model), plan)]

    def _look(self, step: int) -> dict[str, float]:
        """What is known of the weights at a step, for the report; its served form and its filled sentences are kept on the way."""
        figures = self.exam.result()
        if not all(math.isfinite(value) for value in figures.values()):
            raise loop.Diverged(f"The weights stopped being numbers by step {step}.", "Lower the learning rate and start again.")
        figures["probe_accuracy"] = self.probe.accuracy(self.encoder)
        filled = exams.keep(self, step)
        before = [row for row in self.curve if row["step"] < step]
        self.curve = [*before, {"step": step, "tokens": step * self.params.batch * self.params.max_tokens, **figures}]
        _write_lines(self.folder / CURVE, self.curve)
        _write_lines(self.folder / FILLS, [*(row for row in _lines(self.folder / FILLS) if row["step"] < step), *filled])
        return figures

    # --- what comes of it

    def write(self, out: Path, *, stopped: str, seconds: float) -> dict[str, Any]:
        """The folder of a base from the weights as they are now. Returns its figures."""
        from safetensors.torch import save_file

        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        encoder, last = self.encoder, max(self.curve, key=lambda row: row["masked_accuracy"])
        encoder.model.save_pretrained(out / bases.ENCODER)
        encoder.tokenizer.save_pretrained(out / bases.ENCODER)
        head = {
            name: tensor.detach().to("cpu").contiguous()
            for name, tensor in self.words.state_dict().items()
            if not name.startswith("encoder.")
        }
        save_file(head, out / bases.HEAD)
        for row in self.curve:
            shutil.copytree(self.kept / str(row["step"]), out / bases.FILLS / str(row["step"]))
        pd.DataFrame(_lines(self.folder / FILLS), columns=list(bases.FILLED_COLUMNS)).to_parquet(out / bases.FILLED, index=False)
        pd.DataFrame(self.curve).to_parquet(out / bases.CURVE, index=False)
        steps = self.curve[-1]["step"]
        figures = {
            **{key: value for key, value in last.items() if key not in ("step", "tokens")}, "best_step": last["step"], "steps": steps,
            "rising": all(b["masked_accuracy"] > a["masked_accuracy"] for a, b in zip(self.curve, self.curve[1:], strict=False)),
            "times_unigram": round(last["masked_accuracy"] / max(1e-9, last["unigram_accuracy"]), 3), "probe": self.probe.name,
            "tokens_per_s": round(steps * self.params.batch * self.params.max_tokens / max(1e-9, seconds - self.prepared_s), 1),
            "n_masked": self.exam.n, "seconds": round(seconds, 1), "stopped": stopped,
        }  # fmt: skip
        facts = {
            "objective": self.params.objective, "start": self.params.start,
            "size": "" if self.params.start == "continue" else self.params.size,
            "base": encoder.name, "corpus": list(self.corpus.names), "corpus_hash": self.facts["corpus_hash"], "notes": self.facts["notes"],
            "licences": dict(self.corpus.licences),
            "n_tokens": steps * self.params.batch * self.params.max_tokens, "n_distinct_tokens": self.rows.n_tokens, "figures": figures,
            "packing": f"attention {'within a document' if self.apart else 'over the whole row'}",
            "device": devices.device_title(self.device), "seconds": round(seconds, 1), "synthetic": bool(self.corpus.synthetic),
            "parent": encoder.sha256 if self.params.start == "continue" else "", "params": self.params.recipe(), "vocabulary": self.size,
        }  # fmt: skip
        (out / bases.FACTS).write_text(json.dumps(facts, ensure_ascii=False, allow_nan=False, indent=1), encoding="utf-8")
        write_manifest(out)
        return figures


def loss_of(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross-entropy in nats of the hidden pieces; for pairs that of the two-way answer is added."""
    from torch.nn.functional import cross_entropy

    states = exams.states_of(model, batch)
    rows, places = (batch["targets"] != NO_WORD).nonzero(as_tuple=True)
    loss = cross_entropy(model["words"].scores(states[rows, places]).float(), batch["targets"][rows, places])
    if "relation" in model:
        loss = loss + cross_entropy(model["relation"](states[:, 0]).float(), batch["relation"])
    return loss


def _learner(words: nn.Module, *, paired: bool) -> nn.ModuleDict:
    """The words' network, and for pairs the head that reads [CLS]: a layer with tanh as BERT's pooler, then two answers."""
    from torch import nn

    parts = {"words": words}
    if paired:
        width = words.transform.in_features
        parts["relation"] = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2))
    return nn.ModuleDict(parts)


def _head(model: nn.ModuleDict) -> nn.Module:
    """All that is not the encoder's, as one module for the optimiser's groups."""
    from torch import nn

    head = nn.Module()
    head.transform, head.norm = model["words"].transform, model["words"].norm
    head.register_parameter("bias", model["words"].bias)
    if "relation" in model:
        head.relation = model["relation"]
    return head


def _fresh(folder: Path, params: Pretraining) -> Encoder:
    """A BERT of that size with random weights, for the tokenizer in the folder."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    size, tokenizer = SIZES[params.size], PreTrainedTokenizerFast.from_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=size.width, num_hidden_layers=size.layers, num_attention_heads=size.heads,
        intermediate_size=4 * size.width, max_position_embeddings=max(params.max_tokens, 128), hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT, initializer_range=LENGTH / size.width**0.5, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    where = str(devices.pick_device(params.device or "auto"))
    model = BertModel(config, add_pooling_layer=False).to(where)
    return Encoder(f"scratch {params.size}", f"scratch {params.size} {params.seed}", model, tokenizer, params.max_tokens, where)


@contextlib.contextmanager
def _folder(checkpoint: Path | None) -> Iterator[Path]:
    if checkpoint is not None:
        checkpoint.mkdir(parents=True, exist_ok=True)
        yield checkpoint
        return
    with tempfile.TemporaryDirectory(prefix="fm-pretrain-") as folder:
        yield Path(folder)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """By rename: a page that reads along never sees half a file."""
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    part.replace(path)
