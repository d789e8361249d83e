"""Recipes `full` (all weights) and `lora` (low-rank adapters, merged before export): tune the encoder together with a softmax head.

The head starts from the linear fit on frozen embeddings: a cold head would first pull the encoder about for epochs. It only
guides the tuning: what is served is fitted afterwards on the tuned encoder's served form (finish.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from fmcore import text
from fmcore.config import settings
from fmcore.data.catalogue import OOS, LabelledData
from fmcore.models.encoder import EmbeddingCache, Encoder, batches_by_length, load_encoder
from fmcore.models.fitting import FitOptions
from fmcore.models.heads import LOGISTIC_C, Head, fit_logistic
from fmcore.models.novelty import IN_SCOPE_SHARE
from fmcore.nouns import FMError, Report
from fmcore.training import augment, devices, loop
from fmcore.training.finish import Finish, finish, label_name
from fmcore.training.linear import NAME_WEIGHT, few_shot

if TYPE_CHECKING:
    from torch import Tensor, nn

DROPOUT = 0.1
LORA_RANK = 16
LORA_TARGETS = ("query", "key", "value", "dense")
HEAD_RATE = 10.0
"""The head learns at ten times the encoder's rate."""
FORWARD_BATCH = 64
TUNED_C = (1.0, LOGISTIC_C)
"""Tried for the served head: a tuned encoder has learnt these very rows, which then lie cleaner apart than new ones will."""
NOTHING_MORE = augment.Added()
CERTAINTY = {"50": 0.6, "66": 0.72, "75": 0.87, "all": 0.98}
"""How probable a row's own label is to the loss, by its annotators' agreement: about the share of them that gave it."""
ENCODER_REFIT = (
    "none: the encoder keeps its best validation weights, only the head is refitted. One more epoch on training and validation rows "
    "gave 0.931 against 0.931 on 2,000 outer held-out rows of Banking77, for 40 % more time."
)


class NotTunable(FMError):
    """A base model whose layers this recipe does not find."""


@dataclass(frozen=True)
class Tuning:
    """What can be asked of a tuning run. shots keeps that many training rows a label (0: all).

    consistency, above 0: each row goes through twice, under different dropout, and the two answers are pulled together with that
    weight (R-Drop, Wu et al. 2021). Twice the time; it pays where rows are few and labels doubtful.
    dropout: of the head and of every layer; DROPOUT leaves the layers as the base model has them. label_smoothing: that share of what the
    loss aims at goes to all labels alike (Szegedy et al. 2016). augmentation: names of augment.AUGMENTATIONS; a new text a row and name,
    where its label is kept. patience: epochs without a better validation that end the training; 0 never stops and keeps the last weights;
    None is the loop's own where all rows are learnt from, and never where there are few, which have no labels to spare.
    """

    recipe: Literal["full", "lora"] = "full"
    base: str = "minilm"
    epochs: int = 3
    batch: int = 32
    learning_rate: float = 1e-4
    layer_decay: float = 1.0
    shots: int = 0
    seed: int = 0
    max_tokens: int = 64
    refit: bool = True
    threads: int = 1
    random_features: int = 4000
    resamples: int = 1000
    device: str | None = None
    lexical: bool = False
    in_scope_share: float = IN_SCOPE_SHARE
    consistency: float = 0.0
    weight_decay: float = loop.Plan.weight_decay
    dropout: float = DROPOUT
    label_smoothing: float = 0.0
    augmentation: tuple[str, ...] = ()
    patience: int | None = None

    @property
    def validates(self) -> bool:
        """Whether the validation rows choose the epoch."""
        return not self.shots if self.patience is None else self.patience > 0

    def identity(self) -> str:
        """What decides the resulting weights beside the data, the base model and the loop's settings."""
        plain = f"{self.recipe} {self.shots} {self.max_tokens} {self.consistency}"
        further = {"dropout": self.dropout, "label_smoothing": self.label_smoothing, "patience": self.patience}
        usual = {"dropout": DROPOUT, "label_smoothing": 0.0, "patience": None}
        return " ".join([plain, *(f"{name}={value}" for name, value in further.items() if value != usual[name])])

    def plan(self) -> loop.Plan:
        """The loop's settings for this run."""
        return loop.Plan(
            epochs=self.epochs, batch=self.batch, learning_rate=self.learning_rate, head_learning_rate=HEAD_RATE * self.learning_rate,
            layer_decay=self.layer_decay, seed=self.seed, weight_decay=self.weight_decay, patience=self.patience or loop.Plan.patience,
        )  # fmt: skip


def train(data: LabelledData, params: Tuning, out: Path, report: Report, *, checkpoint: Path | None = None) -> dict[str, Any]:
    """Tune, choose the served form, calibrate, measure on the test rows, write the model folder. Returns the metrics.

    A checkpoint folder makes the run resumable: one that holds this run's own state is gone on from.
    """
    import torch

    torch.set_num_threads(params.threads)
    report.progress(0.0, f"Loading {params.base}")
    encoder = load_encoder(params.base, max_tokens=params.max_tokens, device=params.device)
    learnt = few_shot(data, shots=params.shots, seed=params.seed) if params.shots else data
    extra = augmented(encoder, learnt, params, report=report)
    encoder, outcome, frozen = tune(encoder, learnt, params, extra=extra, report=report, checkpoint=checkpoint, span=(0.02, 0.85))
    options = FitOptions(
        head="logistic" if params.shots else "auto",
        random_features=params.random_features,
        seed=params.seed,
        resamples=params.resamples,
        refit=params.refit and not params.shots,
        test_is_publishers=data.test_is_publishers,
        lexical=params.lexical,
        in_scope_share=params.in_scope_share,
        logistic_c=TUNED_C,
    )
    plan = Finish(
        recipe=params.recipe,
        options=options,
        threads=params.threads,
        label_name_weight=NAME_WEIGHT if params.shots else 0,
        facts={"shots": params.shots, "encoder_refit": ENCODER_REFIT, "training": training_facts(outcome, frozen, extra)},
    )
    return finish(encoder, learnt, out, plan=plan, report=report, span=(0.85, 1.0))


def training_facts(outcome: loop.Outcome, baseline: float, extra: augment.Added = NOTHING_MORE) -> dict[str, Any]:
    """The training's own figures for metrics.json; augmentations only where there are any."""
    told = {"augmentations": [asdict(each) for each in extra.told], "n_augmented": len(extra.texts)} if extra.told else {}
    return {
        **told,
        "device": outcome.device, "epochs": outcome.epochs, "best_epoch": outcome.best_epoch, "steps": outcome.steps,
        "examples_per_s": round(outcome.examples_per_s, 1), "elapsed_s": round(outcome.elapsed_s, 1), "resumed": outcome.resumed,
        "stopped_early": outcome.stopped_early, "micro_batch": outcome.micro_batch,
        "validation_accuracy": {"frozen": round(baseline, 5), "tuned": None if outcome.best is None else round(outcome.best, 5)},
        "history": outcome.history,
    }  # fmt: skip


def rows_of(data: LabelledData, *, with_names: bool) -> pd.DataFrame:
    """The training rows; where rows are few, each label's name is one more."""
    if not with_names:
        return data.train
    names = pd.DataFrame({"text": [label_name(label) for label in data.labels], "label": list(data.labels)})
    return pd.concat([data.train, names], ignore_index=True)


def augmented(encoder: Encoder, data: LabelledData, params: Tuning, *, report: Report) -> augment.Added:
    """The texts that the augmentations of `params` add to the training rows, judged by heads on the frozen encoder that never learnt from
    the row in question. Raises UnknownAugmentation."""
    texts = data.train["text"].tolist()
    if not params.augmentation:
        return augment.Added()
    report.progress(0.01, "Writing training texts in other words")
    vectors = frozen_embeddings(encoder, texts, report=report, at=0.01)
    judge = augment.folds_judge(texts, data.train["label"].tolist(), vectors, lambda new: encoder.encode(new, batch=FORWARD_BATCH))
    return augment.added(params.augmentation, texts, data.train["label"].tolist(), judge, seed=params.seed)


def tune(
    encoder: Encoder,
    data: LabelledData,
    params: Tuning,
    *,
    extra: augment.Added = NOTHING_MORE,
    report: Report,
    checkpoint: Path | None = None,
    span: tuple[float, float] = (0.0, 1.0),
) -> tuple[Encoder, loop.Outcome, float]:
    """(the tuned encoder, what the loop says, the validation accuracy of the head on frozen embeddings before it).

    extra: texts to learn from beside the training rows, each with the label of its row.
    """
    import torch
    from torch import nn

    rows = rows_of(data, with_names=bool(params.shots))
    labels = sorted(set(rows["label"]))
    order = {label: i for i, label in enumerate(labels)}
    classes = rows["label"].map(order).to_numpy(dtype=np.int64)
    inside = data.validation[(data.validation["label"] != OOS) & data.validation["label"].isin(labels)]
    truth = inside["label"].map(order).to_numpy(dtype=np.int64)
    targets = targets_of(rows["text"].tolist(), classes, data.tiers)
    targets = np.concatenate([targets, targets[list(extra.rows)]])
    tokens, held = (encoder.tokenize(texts)[0] for texts in ([*rows["text"], *extra.texts], inside["text"].tolist()))

    first, held_first = (frozen_embeddings(encoder, frame["text"].tolist(), report=report, at=span[0]) for frame in (rows, inside))
    warm = fit_logistic(first, classes, n_classes=len(labels))
    baseline = float((warm.scores(held_first).argmax(1) == truth).mean())
    devices.seed_everything(params.seed)  # adapters start from random weights
    set_dropout(encoder.model, params.dropout)
    network, layers, merge = prepare_network(encoder, params.recipe)
    head = warm_head(warm)
    model = nn.ModuleDict({"encoder": network, "dropout": nn.Dropout(params.dropout), "head": head})
    device = torch.device(encoder.device)
    model.to(device)
    tuned = Encoder(encoder.name, encoder.sha256, network, encoder.tokenizer, encoder.max_tokens, encoder.device)

    def logits(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return head(model["dropout"](tuned.pooled({k: batch[k] for k in ("input_ids", "attention_mask")}))).float()

    def accuracy() -> float:
        right = 0
        for group in batches_by_length([len(t["input_ids"]) for t in held], batch=FORWARD_BATCH):
            batch = devices.to_device(padded([held[i] for i in group], pad=encoder.tokenizer.pad_token_id), device)
            right += int((logits(batch).argmax(1).cpu().numpy() == truth[group]).sum())
        return right / len(truth)

    subject = loop.Subject(
        model,
        loop.layerwise_groups(layers, head, params.plan()),
        [len(t["input_ids"]) for t in tokens],
        lambda group: padded([tokens[i] for i in group], pad=encoder.tokenizer.pad_token_id, classes=targets[group]),
        lambda batch: loss_of(logits, batch, consistency=params.consistency, smoothing=params.label_smoothing),
        accuracy if params.validates else None,
        identity=f"{encoder.sha256} {data.split_hash} {targets.ndim} {params.identity()}{extra.identity()}",
    )
    outcome = loop.fit(subject, params.plan(), report=report, checkpoint=checkpoint, device=device, span=span)
    tuned.model = merge().eval()
    return tuned, outcome, baseline


def warm_head(fitted: Head) -> nn.Linear:
    """A layer with the weights of a fitted logistic head."""
    import torch
    from torch import nn

    layer = nn.Linear(*fitted.arrays["linear"].shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fitted.arrays["linear"].T.copy()))
        layer.bias.copy_(torch.from_numpy(fitted.arrays["bias"].copy()))
    return layer


def set_dropout(model: nn.Module, share: float) -> None:
    """Every dropout of a network at that share; DROPOUT leaves each as the base model has it."""
    from torch import nn

    for part in model.modules() if share != DROPOUT else ():
        if isinstance(part, nn.Dropout):
            part.p = share


def loss_of(
    logits: Callable[[dict[str, Tensor]], Tensor], batch: dict[str, Tensor], *, consistency: float, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy; with consistency, the mean over two passes and that much of the divergence between their answers. smoothing: the
    share of each row's aim that goes to all labels alike."""
    from torch.nn.functional import cross_entropy, kl_div, log_softmax

    first = logits(batch)
    loss = cross_entropy(first, batch["classes"], label_smoothing=smoothing)
    if not consistency:
        return loss
    second = logits(batch)
    one, two = log_softmax(first, dim=1), log_softmax(second, dim=1)
    apart = kl_div(one, two, reduction="batchmean", log_target=True) + kl_div(two, one, reduction="batchmean", log_target=True)
    return (loss + cross_entropy(second, batch["classes"], label_smoothing=smoothing)) / 2 + consistency * apart / 2


def targets_of(texts: list[str], classes: np.ndarray, tiers: Mapping[str, str]) -> np.ndarray:
    """What the loss aims at: the class of each row, int64 (n,); or, where annotators' agreement is known (tiers, by text_hash), how
    probable each class is, float32 (n, classes): what the row's own label leaves goes to the others by how frequent they are."""
    if not tiers:
        return classes
    own = np.array([CERTAINTY.get(tiers.get(text.text_hash(each), ""), 1.0) for each in texts])
    rows = np.arange(len(classes))
    others = np.tile(np.bincount(classes) / len(classes), (len(classes), 1))
    others[rows, classes] = 0.0
    probable = (1 - own)[:, None] * others / others.sum(axis=1, keepdims=True)
    probable[rows, classes] = own
    return probable.astype(np.float32)


def frozen_embeddings(encoder: Encoder, texts: list[str], *, report: Report, at: float) -> np.ndarray:
    """What the untuned encoder makes of texts, from the cache where a run before this one left it (a resumed run does)."""
    cache = EmbeddingCache(settings().home / "cache" / "embeddings")
    words = f"Embedding {len(texts):,} texts before tuning, for the head to start from"
    return cache.encode(encoder, texts, batch=FORWARD_BATCH, progress=lambda done: report.progress(at, f"{words}: {done:.0%}"))


def prepare_network(encoder: Encoder, recipe: str) -> tuple[nn.Module, list[nn.Module], Any]:
    """(what to train, its layers from input to output, a function that gives the plain encoder back).

    Token embeddings stay frozen on a CPU: AdamW over the token table is most of a step's cost and gives no accuracy there.
    """
    model = encoder.model
    layers = layers_of(model)
    model.requires_grad_(True)
    if recipe == "lora":
        import peft

        found = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
        targets = [t for t in LORA_TARGETS if t in found]
        config = peft.LoraConfig(
            r=LORA_RANK, lora_alpha=2 * LORA_RANK, lora_dropout=0.05, target_modules=targets or "all-linear", exclude_modules=r".*pooler.*"
        )
        wrapped = peft.get_peft_model(model, config)
        return wrapped, layers, wrapped.merge_and_unload
    if encoder.device == "cpu":
        model.get_input_embeddings().weight.requires_grad_(False)
    for name, part in model.named_children():
        if "pooler" in name:
            part.requires_grad_(False)  # not on the way to the mean-pooled embedding: it would get no gradient
    return model, layers, lambda: model


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Embeddings, then the transformer's layers. Raises NotTunable where there is no such list of layers."""
    from torch import nn

    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    embeddings = getattr(model, "embeddings", None) or model.get_input_embeddings()
    if not stacks or embeddings is None:
        raise NotTunable(f"No stack of layers was found in {type(model).__name__}.", "Choose another base model, or the recipe linear.")
    return [embeddings, *max(stacks, key=len)]


def padded(rows: Sequence[dict[str, list[int]]], *, pad: int, classes: np.ndarray | None = None) -> dict[str, Any]:
    """Token rows as CPU tensors, padded to the longest of them; classes as targets_of gives them."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)
    ids = np.full((len(rows), longest), pad or 0, dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row["input_ids"])], mask[i, : len(row["input_ids"])] = row["input_ids"], 1
    batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    return batch if classes is None else {**batch, "classes": torch.from_numpy(classes)}
