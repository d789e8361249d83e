"""The one training loop: what happens between a model with its rows and the best weights on validation.

Owns the order of batches, AdamW and its schedule, the average of the weights, clipping, early stopping, the budget of time,
out-of-memory recovery and when to save.
Knows nothing of texts, labels or the checkpoint's files (`checkpoint.py`); a recipe brings its rows as a `Subject`.

The batch order and the learning rate are functions of the seed and the step, so a position, the weights, the optimiser's
moments and the generators' states are all it takes to go on bit for bit. (A budget of time ends a run where the clock says.)
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore import clock
from fmcore.nouns import Cancelled, FMError, Report
from fmcore.training import checkpoint as checkpoints
from fmcore.training import devices

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

log = logging.getLogger("fm.training")
POOL = 50
"""Batches sorted by length together: large enough for little padding, small enough to keep the order random."""


class Diverged(FMError):
    """The loss is no longer a number."""


class OutOfMemory(FMError):
    """Not even one row at a time fits the GPU."""


@dataclass(frozen=True)
class Plan:
    """How to train. Learning rates are peaks; `layer_decay` multiplies them once per layer below the head.

    decay: whether the rate falls to zero by the last step; a run that ends when it likes keeps it. seconds: the time after which training
    ends in good order, 0 for no such end; what is validated and kept then is what has been learnt so far. averaging: above 0, what is
    validated and kept is not the weights but their running average, in which step t weighs (a + 1) / (t + a): about the last 1 / (a + 1)
    of all steps, however many there come to be (Shamir and Zhang 2013, polynomial-decay averaging). steps: above 0, training ends after
    that many, within an epoch or not. checks: above 0, what is learnt is measured that many times, evenly over all steps, and nothing stops
    early; 0 measures after each epoch.
    """

    epochs: int = 3
    steps: int = 0
    checks: int = 0
    batch: int = 32
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    warmup: float = 0.06
    clip: float = 1.0
    patience: int = 2
    seed: int = 0
    decay: bool = True
    seconds: float = 0.0
    averaging: float = 0.0
    report_s: float = 1.0
    checkpoint_s: float = 60.0

    def recipe(self) -> dict[str, Any]:
        """What decides the resulting weights: every field but how often to report and to save."""
        return {k: v for k, v in asdict(self).items() if k not in ("report_s", "checkpoint_s")}


@dataclass
class Subject:
    """What is trained: a model, its optimiser groups (`layerwise_groups`), and what the rows are.

    lengths has one number a row (for the buckets); collate turns row numbers into CPU tensors; loss is the mean over a
    batch's rows; validate gives the figure to maximise, called in eval mode without gradients, or is None; figure is its name.
    identity names the data and the model, so that a checkpoint of something else is not taken up. halves: the products may be in bfloat16
    on a processor too (on a GPU they always are). watch gives figures at a step, shown and kept in the history after each epoch; they
    choose nothing, and without validate the last weights stay. tokens: those of each row, where all have as many; the pace is told in them.
    """

    model: nn.Module
    groups: list[dict[str, Any]]
    lengths: Sequence[int]
    collate: Callable[[Sequence[int]], dict[str, Tensor]]
    loss: Callable[[dict[str, Tensor]], Tensor]
    validate: Callable[[], float] | None = None
    identity: str = ""
    figure: str = "val_accuracy"
    halves: bool = False
    watch: Callable[[int], Mapping[str, float]] | None = None
    tokens: int = 0


@dataclass
class Progress:
    """Where a run stands. batch counts within the epoch; micro is the rows that go through the model at once; checked is the step of the
    last measurement."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    micro: int = 0
    best: float | None = None
    best_epoch: int = -1
    best_step: int = -1
    checked: int = 0
    stopped: bool = False
    elapsed_s: float = 0.0
    resumed: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Outcome:
    """What a fit came to; the model carries the best weights."""

    best: float | None
    best_epoch: int
    epochs: int
    steps: int
    micro_batch: int
    examples_per_s: float
    elapsed_s: float
    resumed: int
    stopped_early: bool
    device: str
    history: list[dict[str, float]]



def layerwise_groups(layers: Sequence[nn.Module], head: nn.Module | None, plan: Plan) -> list[dict[str, Any]]:
    """Optimiser groups for layers listed from input to output: deeper ones learn slower, biases and norms are not decayed.

    Frozen parameters are left out; a head learns at its own rate.
    """
    stack = [(layer, plan.learning_rate * plan.layer_decay ** (len(layers) - 1 - depth)) for depth, layer in enumerate(layers)]
    if head is not None:
        stack.append((head, plan.head_learning_rate))
    groups = []
    for module, rate in stack:
        trainable = [p for p in module.parameters() if p.requires_grad]
        for decay, chosen in ((plan.weight_decay, [p for p in trainable if p.ndim > 1]), (0.0, [p for p in trainable if p.ndim <= 1])):
            if chosen:
                groups.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay})
    return groups


def bucketed(lengths: Sequence[int], batch: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """One epoch's batches of row numbers: every row once, rows of like length together, in an order set by seed and epoch."""
    chance = np.random.default_rng((seed, epoch))
    order = chance.permutation(len(lengths))
    by_length = np.asarray(lengths)
    batches = []
    for start in range(0, len(order), POOL * batch):
        pool = order[start : start + POOL * batch]
        pool = pool[np.argsort(by_length[pool], kind="stable")]
        batches += [pool[i : i + batch] for i in range(0, len(pool), batch)]
    return [batches[i] for i in chance.permutation(len(batches))]


def rate_factor(step: int, *, steps: int, warmup: float, decay: bool = True) -> float:
    """The learning rate at a step as a part of its peak: up in a line, then down in a line to zero, or level without decay."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return max(0.0, (steps - step) / max(1, steps - rising)) if decay else 1.0


def fit(
    subject: Subject, plan: Plan, *, report: Report, checkpoint: Path | None = None, device: torch.device | None = None, span=(0.0, 1.0)
) -> Outcome:
    """Train, and leave the weights that were best on validation in the model (the last ones without validation).

    checkpoint is a folder: a run that finds its own state there goes on from it. span is the part of the report's
    progress that is this fit's. Raises Diverged, with the best weights so far in the model where any were measured; OutOfMemory; and
    Cancelled, with the state saved first.
    """
    return _Fit(subject, plan, report, checkpoint, device or devices.pick_device(), span).run()


class _Fit:
    """One fit's moving parts, so that the steps below read top to bottom."""

    def __init__(self, subject: Subject, plan: Plan, report: Report, folder: Path | None, device: torch.device, span: tuple[float, float]):
        import torch

        self.subject, self.plan, self.report, self.folder, self.device, self.span = subject, plan, report, folder, device, span
        self.model = subject.model.to(device)
        self.optimiser = torch.optim.AdamW(subject.groups, fused=device.type == "cuda")
        self.halves = device.type == "cuda" or (subject.halves and devices.multiplies_halves())
        self.at = Progress(micro=plan.batch)
        self.best: dict[str, Tensor] = {}
        self.average: dict[str, Tensor] = {}
        self.validation_s = 0.0
        self.epoch_steps = math.ceil(len(subject.lengths) / plan.batch)
        self.steps = plan.steps or self.epoch_steps * plan.epochs
        self.rows = 0
        self.recent: list[Tensor] = []

    def run(self) -> Outcome:
        devices.seed_everything(self.plan.seed)
        self._resume()
        self.report.device(devices.device_title(self.device))
        self.began = self.noted = self.saved = time.monotonic()
        self.before_s = self.at.elapsed_s
        try:
            while self.at.epoch < self.plan.epochs and not self.at.stopped and not self._spent():
                self._epoch()
            if self.plan.checks and self.at.checked < self.at.step:
                self._check()
                self._save()
        except Diverged:
            self._put_back(self.best or self.average)
            raise
        if self.best or self.average:
            self._put_back(self.best or self.average)
        self.model.eval()
        return self._outcome()

    def _epoch(self) -> None:
        batches = bucketed(self.subject.lengths, self.plan.batch, seed=self.plan.seed, epoch=self.at.epoch)
        self.model.train()
        while self.at.batch < len(batches) and not self._spent():
            if self._due():
                self._note()
                self._check()
                self.model.train()
                self._save()
            self.recent.append(self._step(batches[self.at.batch]))
            self.rows += len(batches[self.at.batch])
            self.at.batch += 1
            self.at.step += 1
            if time.monotonic() - self.noted >= self.plan.report_s:
                self._note()
        self._note()
        self.at.epoch, self.at.batch = self.at.epoch + 1, 0
        if not self.plan.checks:
            self._check()
            self._save()

    def _due(self) -> bool:
        """Whether a measurement stands out at this step: asked before the next one, so that a run resumed here makes up for it."""
        every = self.steps / self.plan.checks if self.plan.checks else 0
        return bool(every) and self.at.step // every > self.at.checked // every

    def _spent(self) -> bool:
        """Whether the steps are made, or the budget of time is used up less what a last validation will take. At least one step is made."""
        if 0 < self.plan.steps <= self.at.step:
            return True
        used = self.before_s + time.monotonic() - self.began + self.validation_s
        return 0 < self.plan.seconds <= used and self.at.step > 0

    def _step(self, rows: np.ndarray) -> Tensor:
        """One optimiser step on a batch, in as many micro-batches as memory asks for. Gives the loss, still on the device."""
        import torch

        factor = rate_factor(self.at.step, steps=self.steps, warmup=self.plan.warmup, decay=self.plan.decay)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        while True:
            try:
                loss = self._backward(rows)
                break
            except torch.cuda.OutOfMemoryError:
                self._halve(len(rows))
        torch.nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], self.plan.clip)
        self.optimiser.step()
        if self.plan.averaging > 0:
            self._average()
        return loss

    def _average(self) -> None:
        import torch

        trained = self._trained()
        if not self.average:
            self.average = {name: tensor.detach().clone() for name, tensor in trained.items()}
            return
        share = (self.plan.averaging + 1) / (self.at.step + 1 + self.plan.averaging)
        with torch.no_grad():
            for name, tensor in trained.items():
                self.average[name].lerp_(tensor, share) if tensor.is_floating_point() else self.average[name].copy_(tensor)

    def _backward(self, rows: np.ndarray) -> Tensor:
        """Gradients of the mean loss over the whole batch, whatever the micro-batch: the effective batch never changes."""
        import torch

        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for start in range(0, len(rows), self.at.micro):
            part = rows[start : start + self.at.micro]
            batch = devices.to_device(self.subject.collate(part), self.device)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.halves):
                loss = self.subject.loss(batch) * (len(part) / len(rows))
            loss.backward()
            total += loss.detach()
        return total

    def _halve(self, n_rows: int) -> None:
        import torch

        at_once = min(self.at.micro, n_rows)
        if at_once <= 1:
            raise OutOfMemory("The GPU's memory does not hold even one row.", "Lower max_tokens, or choose a smaller base model.")
        self.at.micro = at_once // 2
        log.warning("CUDA out of memory with %d rows at once: going on with %d, same effective batch", at_once, self.at.micro)
        self.optimiser.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _note(self) -> None:
        """Report where the run stands. A cancel arrives here: the state is saved, then it goes on up."""
        import psutil
        import torch

        if not self.recent:
            return
        loss = float(torch.stack(self.recent).mean())
        if not math.isfinite(loss):
            raise Diverged(f"The loss became {loss} at step {self.at.step}.", "Lower the learning rate and start again.")
        now = time.monotonic()
        pace = self.rows / max(1e-9, now - self.began)
        self.at.elapsed_s = self.before_s + now - self.began
        self.recent, self.noted = [], now
        done, left_s = self.at.step / self.steps, (self.steps - self.at.step) * self.plan.batch / max(pace, 1e-9)
        if self.plan.seconds:
            done = min(1.0, max(done, self.at.elapsed_s / self.plan.seconds))
            left_s = max(0.0, min(left_s, self.plan.seconds - self.at.elapsed_s))
        where = f"Epoch {self.at.epoch + 1} of {self.plan.epochs}, step {self.at.step:,} of {self.steps:,}"
        if self.plan.seconds and not self.plan.decay:  # the clock ends it, the number of steps is a bound nobody expects to reach
            where = f"Step {self.at.step:,}"
        try:
            self.report.metric(
                self.at.step,
                loss=loss,
                lr=self.optimiser.param_groups[0]["lr"],
                examples_per_s=pace,
                **({"tokens_per_s": pace * self.subject.tokens} if self.subject.tokens else {}),
                rss_mb=psutil.Process().memory_info().rss / 2**20,
            )
            self.report.progress(
                self.span[0] + (self.span[1] - self.span[0]) * done,
                f"{where}, loss {loss:.3f}, about {clock.duration(left_s)} left",
            )
        except Cancelled:
            self._save()
            raise
        if now - self.saved >= self.plan.checkpoint_s:
            self._save()

    def _check(self) -> None:
        """Validate, keep the weights when they are the best yet, and stop when they have not been for `patience` epochs."""
        self.at.checked, self.validation_s = self.at.step, 0.0
        if self.subject.watch is not None:
            seen = dict(self._measured(lambda: self.subject.watch(self.at.step)))
            self.at.history.append({"epoch": self.at.epoch, "step": self.at.step, **seen})
            self.report.metric(self.at.step, **seen)
        if self.subject.validate is None:
            return
        score = float(self._measured(self.subject.validate))
        self.at.history.append({"epoch": self.at.epoch, "step": self.at.step, self.subject.figure: score})
        if self.at.best is None or score > self.at.best:
            self.at.best, self.at.best_epoch, self.at.best_step = score, self.at.epoch, self.at.step
            self.best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in (self.average or self._trained()).items()}
        self.at.stopped = not self.plan.checks and self.at.epoch - self.at.best_epoch >= self.plan.patience
        self.report.metric(self.at.step, **{self.subject.figure: score})

    def _measured(self, ask: Callable[[], Any]) -> Any:
        """What a measurement of the weights that would be kept now comes to."""
        import torch

        began = time.monotonic()
        self.model.eval()
        weights = {name: tensor.detach().clone() for name, tensor in self._trained().items()} if self.average else {}
        if weights:
            self._put_back(self.average)
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.halves):
            found = ask()
        if weights:
            self._put_back(weights)
        self.validation_s += time.monotonic() - began
        return found

    def _trained(self) -> dict[str, Tensor]:
        """The tensors that training changes: trainable parameters and buffers, by name."""
        parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        return {**parameters, **dict(self.model.named_buffers())}

    def _put_back(self, tensors: Mapping[str, Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, tensor in self._trained().items() if tensors else ():
                tensor.copy_(tensors[name])

    def _outcome(self) -> Outcome:
        at = self.at
        seconds = max(1e-9, at.elapsed_s - self.before_s)
        return Outcome(
            best=at.best,
            best_epoch=at.best_epoch if at.best_epoch > 0 else at.epoch,
            epochs=at.epoch,
            steps=at.step,
            micro_batch=at.micro,
            examples_per_s=self.rows / seconds,
            elapsed_s=at.elapsed_s,
            resumed=at.resumed,
            stopped_early=at.stopped,
            device=devices.device_title(self.device),
            history=at.history,
        )

    def _fingerprint(self) -> str:
        shapes = {name: list(tensor.shape) for name, tensor in self._trained().items()}
        described = json.dumps([self.subject.identity, self.plan.recipe(), len(self.subject.lengths), shapes], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()

    def _save(self) -> None:
        self.saved = time.monotonic()
        self.at.elapsed_s = self.before_s + self.saved - self.began
        if self.folder is None:
            return
        tensors = {f"model.{name}": tensor for name, tensor in self._trained().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        for index, (key, value) in self._moments():
            tensors[f"optimiser.{index}.{key}"] = value
        rng, facts = checkpoints.rng_state()
        best = {f"best-{self.at.best_step}": self.best} if self.best else {}
        checkpoints.save(
            self.folder,
            {f"state-{self.at.step}-{self.at.epoch}": {**tensors, **rng}, **best},
            {"fingerprint": self._fingerprint(), "progress": asdict(self.at), "generators": facts},
        )

    def _moments(self) -> Iterator[tuple[int, tuple[str, Tensor]]]:
        parameters = [p for g in self.optimiser.param_groups for p in g["params"]]
        for index, parameter in enumerate(parameters):
            for item in self.optimiser.state.get(parameter, {}).items():
                yield index, item

    def _resume(self) -> None:
        if self.folder is None:
            return
        try:
            facts, files = checkpoints.load(self.folder, fingerprint=self._fingerprint())
        except checkpoints.CheckpointRefused as refused:
            log.info("%s Starting from the beginning.", refused)
            checkpoints.clear(self.folder)
            return
        self.at = Progress(**facts["progress"])
        self.at.resumed += 1
        state = files[f"state-{self.at.step}-{self.at.epoch}"]
        self.best = files.get(f"best-{self.at.best_step}", {})
        self._put_back({name.removeprefix("model."): t for name, t in state.items() if name.startswith("model.")})
        self.average = {name.removeprefix("average."): t.to(self.device) for name, t in state.items() if name.startswith("average.")}
        parameters = [p for g in self.optimiser.param_groups for p in g["params"]]
        for name, tensor in state.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                where = "cpu" if key == "step" and self.device.type == "cpu" else self.device
                self.optimiser.state[parameters[int(index)]][key] = tensor.to(where)
        checkpoints.set_rng_state(state, facts["generators"])
        log.info("resumed at epoch %d, step %d of %d", self.at.epoch + 1, self.at.step, self.steps)
