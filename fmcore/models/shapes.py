"""The shape of an encoder that is smaller than its base: how many layers it has left, and how many heads and feed-forward units each.

Owns how a layer is made smaller (rows and columns of its matrices go, so that every later product is smaller) and how a base's network
is brought to a stored shape before weights of that shape are read. What is worth keeping is training/prune.py's question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fmcore.nouns import FMError

if TYPE_CHECKING:
    from torch import nn

PROJECTIONS = ("query", "key", "value")


class NotShaped(FMError):
    """A network whose layers are not built as this module knows them."""


def stack_of(model: nn.Module) -> nn.ModuleList | None:
    """The transformer's layers, from input to output; None for a network without such a list."""
    from torch import nn

    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    return max(stacks, key=len) if stacks else None


def shape_of(model: nn.Module) -> dict[str, list[int]] | None:
    """{"heads": [a layer], "units": [a layer]}; None for a network that is not built like BERT or RoBERTa."""
    stack = stack_of(model)
    if stack is None or not all(_known(layer) for layer in stack):
        return None
    heads = [layer.attention.self.query.out_features // layer.attention.self.attention_head_size for layer in stack]
    return {"heads": heads, "units": [layer.intermediate.dense.out_features for layer in stack]}


def keep_layers(model: nn.Module, places: Sequence[int]) -> None:
    """Leave only the layers at those places, in that order. Raises NotShaped where there is none left, or no such layer."""
    from torch import nn

    stack = stack_of(model)
    if stack is None:
        raise NotShaped(f"No stack of layers was found in {type(model).__name__}.", "Choose another base model.")
    if not places or not set(places) <= set(range(len(stack))):
        raise NotShaped(f"Layers {list(places)} of {len(stack)} cannot be kept.", f"Keep 1 to {len(stack)} layers.")
    owner = next(module for module in model.modules() for child in module.children() if child is stack)
    name = next(name for name, child in owner.named_children() if child is stack)
    setattr(owner, name, nn.ModuleList([stack[i] for i in places]))
    model.config.num_hidden_layers = len(places)


def keep_parts(layer: nn.Module, *, heads: Sequence[int], units: Sequence[int]) -> None:
    """Leave only those attention heads and feed-forward units in a layer. Raises NotShaped for a layer of another build, or for none."""
    import torch

    if not _known(layer):
        raise NotShaped(f"Heads and units of {type(layer).__name__} cannot be told apart.", "Distil a student instead (method distill).")
    if not len(heads) or not len(units):
        raise NotShaped("A layer without a head or a unit computes nothing.", "Keep a larger share, or fewer layers.")
    attention = layer.attention.self
    size = attention.attention_head_size
    places = torch.tensor([head * size + i for head in sorted(heads) for i in range(size)])
    for name in PROJECTIONS:
        setattr(attention, name, _part(getattr(attention, name), rows=places))
    layer.attention.output.dense = _part(layer.attention.output.dense, columns=places)
    attention.num_attention_heads, attention.all_head_size = len(heads), len(heads) * size
    kept = torch.tensor(sorted(units))
    layer.intermediate.dense = _part(layer.intermediate.dense, rows=kept)
    layer.output.dense = _part(layer.output.dense, columns=kept)


def fit_to(model: nn.Module, shape: Mapping[str, Any]) -> None:
    """Bring a base's network to a stored shape; its weights are then of that shape, and meaningless until they are read.

    Raises NotShaped for a shape that is no smaller part of this network.
    """
    mine = shape_of(model)
    if mine == shape:
        return
    heads, units = list(shape.get("heads", ())), list(shape.get("units", ()))
    if mine is None or len(heads) != len(units):
        raise NotShaped(f"{type(model).__name__} cannot be brought to the shape {dict(shape)}.", "Train the model again.")
    keep_layers(model, range(len(heads)))
    for layer, n_heads, n_units in zip(stack_of(model), heads, units, strict=True):
        most_heads, most_units = layer.attention.self.num_attention_heads, layer.intermediate.dense.out_features
        if not (isinstance(n_heads, int) and isinstance(n_units, int) and n_heads <= most_heads and n_units <= most_units):
            raise NotShaped(f"{type(model).__name__} has no {n_heads} heads and {n_units} units a layer.", "Train the model again.")
        keep_parts(layer, heads=range(n_heads), units=range(n_units))


def _known(layer: nn.Module) -> bool:
    attention = getattr(getattr(layer, "attention", None), "self", None)
    parts = (attention, getattr(layer, "intermediate", None), getattr(layer, "output", None))
    return all(hasattr(attention, name) for name in (*PROJECTIONS, "attention_head_size")) and all(
        hasattr(part, "dense") for part in (layer.attention.output, *parts[1:])
    )


def _part(linear: nn.Linear, *, rows: Any = None, columns: Any = None) -> nn.Linear:
    """A smaller linear layer: some of its outputs (rows) or of its inputs (columns)."""
    import torch
    from torch import nn

    weight, bias = linear.weight.detach(), linear.bias.detach()
    where = weight.device
    if rows is not None:
        weight, bias = weight[rows.to(where)], bias[rows.to(where)]
    if columns is not None:
        weight = weight[:, columns.to(where)]
    smaller = nn.Linear(weight.shape[1], weight.shape[0], device=where, dtype=weight.dtype)
    with torch.no_grad():
        smaller.weight.copy_(weight)
        smaller.bias.copy_(bias)
    return smaller
