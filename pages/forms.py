"""A form made from any pydantic model: one widget a field, bounds and descriptions kept, errors beside the field.

Owns how a parameter is asked for; never decides whether a value is right: that is the model's own validation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st
from pydantic import BaseModel, ValidationError

from pages import ui

EXACT = 2**53 - 1
"""Largest whole number that a browser keeps exactly; number_input refuses bounds beyond it."""

OPEN_FIELDS = 6
"""Fields shown at once; the rest stand in an expander, since their defaults work."""


@dataclass(frozen=True)
class Field:
    """One field of a model, read from its JSON schema."""

    name: str
    title: str
    help: str
    kind: str  # "bool", "int", "float", "choice", "text", "list", "json"
    default: Any
    required: bool
    nullable: bool
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    items: str = "string"


def fields(model: type[BaseModel]) -> list[Field]:
    """The model's fields in their own order; whatever has no widget of its own is asked for as JSON."""
    schema = model.model_json_schema()
    shared = schema.get("$defs", {})
    needed = set(schema.get("required", ()))
    return [_field(name, spec, shared, name in needed) for name, spec in schema.get("properties", {}).items()]


def _field(name: str, spec: Mapping, shared: Mapping, required: bool) -> Field:
    kinds = [_resolved(option, shared) for option in spec.get("anyOf", [spec])]
    real = [option for option in kinds if option.get("type") != "null"]
    core = real[0] if len(real) == 1 else {}
    choices = tuple(core.get("enum", (core["const"],) if "const" in core else ()))
    if len(real) > 1 and all("enum" in option or "const" in option for option in real):
        choices = tuple(value for option in real for value in option.get("enum", (option.get("const"),)))
    return Field(
        name=name,
        title=_title(name, spec.get("title")),
        help=str(spec.get("description") or core.get("description") or ""),
        kind="choice" if choices else _kind(core),
        default=spec.get("default"),
        required=required,
        nullable=len(real) < len(kinds),
        choices=choices,
        low=_bound(core, "minimum", "exclusiveMinimum", +1),
        high=_bound(core, "maximum", "exclusiveMaximum", -1),
        items=str(core.get("items", {}).get("type", "string")),
    )


def _title(name: str, given: str | None) -> str:
    """The title that the model gives a field, else its name in sentence case (pydantic's own titles Shout Like This)."""
    plain = name.replace("_", " ")
    return given if given and given.lower() != plain else plain.capitalize()


def _resolved(spec: Mapping, shared: Mapping) -> Mapping:
    """A schema with its $ref followed once: enough for enums, which pydantic keeps apart."""
    inner = spec.get("$ref") or (spec.get("allOf") or [{}])[0].get("$ref")
    return {**shared.get(inner.rsplit("/", 1)[-1], {}), **spec} if inner else spec


def _kind(core: Mapping) -> str:
    simple = {"boolean": "bool", "integer": "int", "number": "float", "string": "text"}
    if core.get("type") == "array" and core.get("items", {}).get("type") in ("string", "integer", "number"):
        return "list"
    return simple.get(core.get("type", ""), "json")


def _bound(core: Mapping, open_key: str, strict_key: str, step: int) -> float | None:
    """The widget's bound. A strict bound of a float stays with the model: the widget knows only "or equal"."""
    if open_key in core:
        return core[open_key]
    if strict_key in core and core.get("type") == "integer":
        return core[strict_key] + step
    return None


def draw(
    model: type[BaseModel], *, key: str, suggestions: Mapping[str, Sequence[str]] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw every field; returns ({name: raw value}, {name: the empty slot below it, for its error}).

    `suggestions` names text fields that are better picked from a list (own values stay allowed): data sets, models.
    """
    values, slots = {}, {}
    all_fields = fields(model)
    for part, hidden in ((all_fields[:OPEN_FIELDS], False), (all_fields[OPEN_FIELDS:], True)):
        if not part:
            continue
        place = st.expander(f"More settings ({len(part)}; the defaults work)", icon=":material/tune:") if hidden else st.container()
        with place, st.grid(3, min_column_width=220, gap="small") as grid:
            for field in part:
                with grid.cell():
                    values[field.name] = _widget(field, f"{key}.{field.name}", (suggestions or {}).get(field.name))
                    slots[field.name] = st.empty()
    return values, slots


def _widget(field: Field, key: str, suggested: Sequence[str] | None) -> Any:
    common = {"key": key, "help": ui.esc(field.help) or None}
    label = field.title + (" (optional)" if field.nullable else "")
    if field.kind == "bool" and not field.nullable:
        st.space(28)  # stands on the line of the inputs beside it
        return st.toggle(label, value=bool(field.default), **common)
    if field.kind == "choice":
        return _select(field, label, common)
    if field.kind in ("int", "float"):
        return _number(field, label, common)
    if suggested and field.kind == "text":
        options = list(dict.fromkeys([*([str(field.default)] if field.default else []), *suggested]))
        start = 0 if field.default else None  # an empty default stays empty: "" has a meaning of its own
        return st.selectbox(label, options, index=start, placeholder="left empty", accept_new_options=True, **common)
    if field.kind == "list":
        lines = "\n".join(str(value) for value in field.default or ())
        return st.text_area(label, lines, placeholder="one a line", height=110, **common)
    if field.kind == "text":
        return st.text_input(label, "" if field.default is None else str(field.default), **common)
    shown = "" if field.default is None else json.dumps(field.default)
    return st.text_area(label, shown, placeholder="as JSON", height=110, **common)


def _select(field: Field, label: str, common: Mapping) -> Any:
    start = field.choices.index(field.default) if field.default in field.choices else (None if field.nullable or field.required else 0)
    return st.selectbox(label, field.choices, index=start, placeholder="none" if field.nullable else "choose", **common)


def _number(field: Field, label: str, common: Mapping) -> Any:
    whole = field.kind == "int"
    make = int if whole else float
    low, high = (None if b is None else make(max(-EXACT, min(EXACT, b))) for b in (field.low, field.high))
    fits = field.default is not None and math.isfinite(field.default) and abs(field.default) <= EXACT
    value = make(field.default) if fits else None  # an empty box means the model's own default
    step = 1 if whole else _step(value)
    return st.number_input(label, low, high, value, step, None if whole else "%g", **common)


def _step(value: float | None) -> float:
    """A tenth of the default's order of magnitude: 0.00002 moves by 0.000001, not by 0.01."""
    if not value:
        return 0.01
    return float(10.0 ** (math.floor(math.log10(abs(value))) - 1))


def checked(model: type[BaseModel], values: Mapping[str, Any]) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """(parameters as plain JSON values, {}) when the model accepts them, else (None, {field: what is wrong})."""
    given, errors = {}, {}
    for field in fields(model):
        try:
            value = _parsed(field, values.get(field.name))
        except ValueError:
            errors[field.name] = "This is not valid JSON."
            continue
        if value is not None or field.nullable:
            given[field.name] = value
    if errors:
        return None, errors
    try:
        return model.model_validate(given).model_dump(mode="json"), {}
    except ValidationError as error:
        for found in error.errors(include_url=False, include_input=False, include_context=False):
            where = str(found["loc"][0]) if found["loc"] else ""
            errors.setdefault(where, found["msg"] + ".")
        return None, errors


def _parsed(field: Field, raw: Any) -> Any:
    """A widget's answer as the model wants it; an empty box is "not given"."""
    if not isinstance(raw, str):
        return raw
    if field.kind == "list":
        return [line.strip() for line in raw.splitlines() if line.strip()]
    if field.kind == "json":
        return json.loads(raw) if raw.strip() else None
    return raw if raw.strip() or (not field.nullable and not field.required) else None


def show_errors(errors: Mapping[str, str], slots: Mapping[str, Any]) -> None:
    """Each error under its field; one without a field of its own goes on top of the form's end."""
    for name, message in errors.items():
        if name in slots:
            slots[name].markdown(f":red[:material/error: {ui.esc(message)}]")
        else:
            st.error(ui.esc(message), icon=":material/error:")
    hidden = [name for name in errors if name in list(slots)[OPEN_FIELDS:]]
    if hidden:
        st.error(f"Check under More settings: {ui.esc(', '.join(hidden))}.", icon=":material/error:")
