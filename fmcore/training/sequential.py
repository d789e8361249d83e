"""Recipe `sequential`: a causal transformer that foretells the next item of a history (SASRec, Kang and McAuley 2018, as it grew since).

Item embeddings are tied: what an item is as a past is what it is as an answer. The loss is the softmax over the whole catalogue (Klenitskiy
and Vasilev 2023: this, not the architecture, is what SASRec lacked), or gBCE with many negatives where the catalogue is too large for that
(Petrov and Macdonald 2023). A history longer than the window becomes several windows, so that every item is learnt from.
Knows item numbers only, no users, titles or files; what serves is recommend/sequence.py's part.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore.nouns import FMError, Report
from fmcore.training import devices, loop

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

K = 10
"""Validation is NDCG at this many."""
FULL_SOFTMAX = 40_000
"""Items up to which the loss is the softmax over all of them; beyond, its cost outgrows what it gains over many negatives."""
CACHED = 2**20
"""Scores that stand in memory at once where the loss is over the whole catalogue: about what a processor's cache holds (measured)."""
STEPS, LEAST_BATCH, MOST_BATCH = 100, 16, 128
"""Steps an epoch that a batch is chosen for, and the smallest and largest chosen."""
WIDER = 4
"""How many times wider than the model the middle of a block is."""
LEAST_SHARE = 1e-37
"""A probability below this would have no logarithm in float32."""


class NothingToLearn(FMError):
    """No history has two items, so that there is no next item to learn from."""


@dataclass(frozen=True)
class Sequencing:
    """What can be asked of a run.

    window: latest items of a history that are read. batch: windows a step, 0 for about a hundred steps an epoch. minutes: the budget, 0
    for none; training ends before where validation has not gained for `patience` epochs. negatives and calibration (t) are gBCE's.
    examined: people whose next item is asked in validation.
    """

    width: int = 64
    layers: int = 2
    heads: int = 2
    window: int = 50
    dropout: float = 0.2
    batch: int = 0
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    averaging: float = 8.0
    epochs: int = 300
    patience: int = 10
    minutes: float = 0.0
    loss: str = "auto"
    negatives: int = 1024
    calibration: float = 0.75
    examined: int = 2000
    seed: int = 0

    def plan(self, n_windows: int) -> loop.Plan:
        """The loop's settings for that many windows."""
        batch = self.batch or 2 ** round(math.log2(min(MOST_BATCH, max(LEAST_BATCH, n_windows / STEPS))))
        return loop.Plan(
            epochs=self.epochs, batch=batch, learning_rate=self.learning_rate, weight_decay=self.weight_decay, warmup=0.0,
            patience=self.patience, seed=self.seed, decay=False, seconds=60 * self.minutes, averaging=self.averaging,
        )  # fmt: skip

    def how(self, n_items: int) -> str:
        """The loss for that many items: "softmax" or "gbce"."""
        if self.loss != "auto":
            return self.loss
        return "softmax" if n_items <= FULL_SOFTMAX else "gbce"


def for_epochs(params: Sequencing, epochs: int) -> Sequencing:
    """The same for just so many epochs, as an earlier run found best."""
    return replace(params, epochs=epochs, patience=epochs)


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network (on the CPU, ready to answer) and how it came to be; figures are plain numbers for a page."""

    network: nn.Module
    params: Sequencing
    outcome: loop.Outcome
    figures: dict[str, Any] = field(default_factory=dict)


def train(
    histories: Sequence[np.ndarray],
    n_items: int,
    params: Sequencing,
    *,
    held: np.ndarray | None = None,
    report: Report,
    checkpoint: Path | None = None,
    device: torch.device | None = None,
    span: tuple[float, float] = (0.0, 1.0),
) -> Trained:
    """Learn the next item from histories (int32 item numbers below n_items, oldest first).

    held: int (len(histories),) each history's next item, -1 for none: training keeps the weights that foretell these best (NDCG@10, full
    ranking, the history's own items left out), but does not learn from them; without any, the last weights. checkpoint: the loop's
    folder. Deterministic under a seed, data and number of threads where no budget of time ends it. Raises NothingToLearn, and what
    the loop raises.
    """
    rows = Windows(histories, params.window)
    if not len(rows):
        raise NothingToLearn("No history has two items to learn an order from.", "Wait for more interactions, or use another model.")
    device = device or devices.pick_device()
    devices.seed_everything(params.seed)
    model = network(n_items, params)
    exam = Exam(model, histories, held, params) if held is not None and (np.asarray(held) >= 0).any() else None
    plan = params.plan(len(rows))
    lost = _loss(model, n_items, params, mean_length=float(rows.lengths.mean()))
    subject = loop.Subject(
        model,
        loop.layerwise_groups([model], None, plan),
        rows.lengths,
        rows.collate,
        lost,
        exam.ndcg if exam else None,
        identity=f"sequential {n_items} {params} {rows.digest()} {exam.digest() if exam else ''}",
        figure="val_ndcg",
        halves=True,
    )
    outcome = loop.fit(subject, plan, report=report, checkpoint=checkpoint, device=device, span=span)
    model.to("cpu")
    figures = {
        "val_ndcg": outcome.best, "best_epoch": outcome.best_epoch, "epochs": outcome.epochs, "steps": outcome.steps,
        "stopped_early": outcome.stopped_early, "seconds": round(outcome.elapsed_s, 1), "examples_per_s": round(outcome.examples_per_s, 1),
        "device": outcome.device, "n_windows": len(rows), "n_targets": int(rows.lengths.sum()), "n_examined": len(exam) if exam else 0,
        "loss": params.how(n_items), "batch": plan.batch, "parameters": sum(p.numel() for p in model.parameters()),
        "curve": [row["val_ndcg"] for row in outcome.history], "params": asdict(params),
    }  # fmt: skip
    return Trained(model, params, outcome, figures)


class Windows:
    """The training rows: each history cut, from its end, into stretches of at most `window` items and the items that follow each.

    Every item but a history's first is the answer at exactly one place of an epoch.
    """

    def __init__(self, histories: Sequence[np.ndarray], window: int):
        self._items = np.concatenate([np.asarray(past, dtype=np.int64) for past in histories]) if len(histories) else np.zeros(0, np.int64)
        begins = np.cumsum([0, *(len(past) for past in histories)])
        spans = []
        for begin, end in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
            for last in range(end - 1, begin, -window):  # the place of the row's last answer
                spans.append((max(begin, last - window), last))
        self._spans = np.array(spans, dtype=np.int64).reshape(-1, 2)
        self.lengths = self._spans[:, 1] - self._spans[:, 0]

    def __len__(self) -> int:
        return len(self._spans)

    def collate(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """ids int64 (n, t), padded with zeros behind (no place sees a later one, so that nothing needs to be masked), and where the
        answers stand: places int64 (m,) in the flattened (n * t), targets int64 (m,)."""
        import torch

        spans = self._spans[np.asarray(rows)]
        lengths = spans[:, 1] - spans[:, 0]
        there = np.arange(int(lengths.max())) < lengths[:, None]
        source = (spans[:, :1] + np.arange(there.shape[1]))[there]
        ids = np.zeros(there.shape, dtype=np.int64)
        ids[there] = self._items[source]
        found = {"ids": ids, "places": np.flatnonzero(there), "targets": self._items[source + 1]}
        return {name: torch.from_numpy(value) for name, value in found.items()}

    def digest(self) -> str:
        """Names the rows."""
        return hashlib.sha256(self._items.tobytes() + self._spans.tobytes()).hexdigest()[:16]


def network(n_items: int, params: Sequencing) -> nn.Module:
    """The untrained transformer: forward(ids int64 (n, t)) -> float (n, t, width), what the next item should be like.

    latest=True gives only the last place's, (n, 1, width), for less. Blocks are gated residual ones (LiGR, Borisyuk et al. 2025, as
    in eSASRec, Tikhonovich et al. 2025), and order enters as a learnt bias a distance back (Raffel et al. 2020) in the place of SASRec's
    positions: on validation both gained over SASRec's own (docs/experiments.md).
    """
    import torch
    from torch import nn
    from torch.nn.functional import silu

    width, heads = params.width, params.heads

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
            self.wide, self.narrow = nn.Linear(width, 2 * WIDER * width), nn.Linear(WIDER * width, width)
            self.gate_1, self.gate_2 = nn.Linear(width, width), nn.Linear(width, width)
            self.back = nn.Parameter(torch.zeros(heads, params.window))
            self.dropout = nn.Dropout(params.dropout)

        def forward(self, x: Tensor, *, latest: bool) -> Tensor:
            x = self.attended(self.norm_1(x), x[:, -1:] if latest else x)
            up, gate = self.wide(self.norm_2(x)).chunk(2, -1)
            found = self.dropout(self.narrow(self.dropout(silu(gate) * up)))
            return x + torch.sigmoid(self.gate_2(x)) * found

        def attended(self, seen: Tensor, x: Tensor) -> Tensor:
            n, t, asking = *seen.shape[:2], x.shape[1]
            q = self.q(seen[:, t - asking :]).view(n, asking, heads, width // heads).transpose(1, 2)
            k, v = self.kv(seen).view(n, t, 2, heads, width // heads).permute(2, 0, 3, 1, 4)
            places = torch.arange(t, device=x.device)
            distance = places[t - asking :, None] - places
            bias = self.back[:, distance.clamp(min=0)].masked_fill(distance < 0, -torch.inf)
            shares = (q @ k.transpose(-1, -2) * (width // heads) ** -0.5 + bias).softmax(-1)
            found = self.dropout(self.out((shares @ v).transpose(1, 2).reshape(n, asking, width)))
            return x + torch.sigmoid(self.gate_1(x)) * found

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items = nn.Embedding(n_items, width)
            self.dropout, self.norm = nn.Dropout(params.dropout), nn.LayerNorm(width)
            self.blocks = nn.ModuleList(Block() for _ in range(params.layers))
            nn.init.normal_(self.items.weight, std=0.02)

        def forward(self, ids: Tensor, latest: bool = False) -> Tensor:
            x = self.dropout(self.items(ids) * width**0.5)
            for number, block in enumerate(self.blocks, start=1):
                x = block(x, latest=latest and number == params.layers)
            return self.norm(x)

    return Transformer()


def _loss(model: nn.Module, n_items: int, params: Sequencing, *, mean_length: float) -> Any:
    """The loss of a batch: the sum over its answers, over rows times the mean length of all rows, so that every answer counts alike."""
    kind = params.how(n_items)

    def loss(batch: dict[str, Tensor]) -> Tensor:
        states = model(batch["ids"]).flatten(0, 1)[batch["places"]]
        if kind == "softmax":
            total = softmax_loss(states, model.items.weight, batch["targets"])
        else:
            total = gbce_loss(states, model.items.weight, batch["targets"], negatives=params.negatives, calibration=params.calibration)
        return total / (len(batch["ids"]) * mean_length)

    return loss


def softmax_loss(states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of softmax(states @ table.T) (m, n_items) with targets int64 (m,).

    Scores and gradients are computed together, some places at a time, so that the (m, n_items) scores never stand in memory as a whole;
    the scores are in float32, the products of the gradients in bfloat16 where that is faster.
    """
    import torch

    kind = states.device.type
    short = torch.bfloat16 if kind == "cuda" or devices.multiplies_halves() else torch.float32

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, states: Tensor, table: Tensor) -> Tensor:
            total = torch.zeros((), device=states.device)
            to_states, to_table = torch.empty_like(states), torch.zeros_like(table)
            states_short, table_short = states.to(short), table.to(short)
            chunk = max(32, (CACHED if kind == "cpu" else 256 * CACHED) // len(table))
            for start in range(0, len(states), chunk):
                part, wanted = slice(start, start + chunk), targets[start : start + chunk, None]
                shares = (states[part] @ table.T).softmax(1)
                total -= shares.gather(1, wanted).clamp(min=LEAST_SHARE).log().sum()
                shares.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=shares.dtype))
                shares = shares.to(short)
                to_states[part] = shares @ table_short
                to_table += shares.T @ states_short[part]
            ctx.save_for_backward(to_states, to_table)
            return total

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
            to_states, to_table = ctx.saved_tensors
            return grad * to_states, grad * to_table

    with torch.autocast(kind, enabled=False):
        return Fused.apply(states.float(), table)


def gbce_loss(states: Tensor, table: Tensor, targets: Tensor, *, negatives: int, calibration: float) -> Tensor:
    """Sum of gBCE over places (Petrov and Macdonald 2023, eq. 8 and 10): binary cross-entropy against `negatives` items drawn evenly, with
    the positive's probability to the power that undoes the overconfidence of a sample; calibration t = 1 undoes all of it.

    One draw serves all places of a batch, which makes it one matrix product; an answer that was drawn is no negative of its own place.
    """
    import torch
    from torch.nn.functional import logsigmoid

    n_items = len(table)
    drawn = torch.randint(n_items, (negatives,), device=states.device)
    rate = min(1.0, negatives / max(1, n_items - 1))
    power = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    wanted = (states * table[targets]).sum(1).float()
    others = (states @ table[drawn].T).float()
    others = logsigmoid(-others).masked_fill(drawn == targets[:, None], 0.0)
    return -(power * logsigmoid(wanted)).sum() - others.sum()


class Exam:
    """The same people's next items, whenever it is asked: NDCG@10 over the whole catalogue, the history's own items left out."""

    def __init__(self, model: nn.Module, histories: Sequence[np.ndarray], held: np.ndarray, params: Sequencing):
        asked = [i for i, item in enumerate(held) if item >= 0 and len(histories[i])]
        if len(asked) > params.examined:
            asked = sorted(np.random.default_rng(params.seed).choice(asked, params.examined, replace=False).tolist())
        self._rows = [(np.asarray(histories[i], dtype=np.int64), int(held[i])) for i in sorted(asked, key=lambda i: len(histories[i]))]
        self._model, self._window = model, params.window

    def __len__(self) -> int:
        return len(self._rows)

    def digest(self) -> str:
        """Names the people asked and their answers."""
        return hashlib.sha256(repr([(past.tolist(), item) for past, item in self._rows]).encode()).hexdigest()[:16]

    def ranks(self, *, batch: int = 256) -> Tensor:
        """int64 (n,): each answer's place in the list, 1 for the best, the worst place among equals."""
        import torch

        device = next(self._model.parameters()).device
        found = []
        for start in range(0, len(self._rows), batch):
            rows = self._rows[start : start + batch]
            ids, lengths = padded([past[-self._window :] for past, _ in rows])
            last = self._model(ids.to(device))[torch.arange(len(rows), device=device), lengths.to(device) - 1]
            with torch.autocast(device.type, enabled=False):  # rounded to bfloat16, scores that differ would be equal
                scores = last.float() @ self._model.items.weight.T
            wanted = torch.tensor([item for _, item in rows], device=device)
            mine = scores.gather(1, wanted[:, None])
            for row, (past, _) in enumerate(rows):
                scores[row, torch.from_numpy(past).to(device)] = -torch.inf
            scores.scatter_(1, wanted[:, None], mine)
            found.append((scores >= mine).sum(1))
        return torch.cat(found)

    def ndcg(self) -> float:
        """Mean of 1 / log2(1 + rank) where the rank is at most K."""
        ranks = self.ranks().double()
        return float(((ranks <= K) / (1 + ranks).log2()).mean())


def padded(pasts: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """(ids int64 (n, longest), zeros behind; lengths int64 (n,)) of histories of at least one item."""
    import torch

    lengths = np.array([len(past) for past in pasts])
    ids = np.zeros((len(pasts), int(lengths.max())), dtype=np.int64)
    for row, past in zip(ids, pasts, strict=True):
        row[: len(past)] = past
    return torch.from_numpy(ids), torch.from_numpy(lengths)
