"""Surfaces of the real bindings, as `tests/contract/make_surfaces.py` wrote them: names, signatures, types."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

SURFACES = Path(__file__).parents[1] / "contract" / "surfaces"
# How pybind11 names C++ types that were not registered yet when it wrote a signature.
FOREIGN = re.compile(r"\b\w+::(?:v_\d_\d::)?(\w+)")
RENAMED = {"IParserError": "ParserError", "IBuilder": "Builder"}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function; `kind` is its type as the bindings write it, ``""`` if unknown."""

    name: str
    kind: str
    optional: bool


@dataclass(frozen=True)
class Signature:
    """Parameters without `self`; several results are a tuple."""

    parameters: tuple[Parameter, ...]
    results: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Signature:
        """``(self: Class, name: str, flags: int = 0) -> Dims``, or Cython's ``(size_t size) -> Error, Any``."""
        inside, _, results = FOREIGN.sub(_renamed, text).partition(") -> ")
        parts = [_parameter(part) for part in split(inside.removeprefix("(").removesuffix(")")) if part]
        parameters = [parameter for parameter in parts if parameter.name != "self"]
        first = next((place for place, parameter in enumerate(parameters) if parameter.optional), len(parameters))
        parameters[first:] = [replace(parameter, optional=True) for parameter in parameters[first:]]
        return cls(tuple(parameters), tuple(split(results)))


@dataclass(frozen=True)
class Property:
    kind: str
    writable: bool


@dataclass(frozen=True)
class Class:
    """`members` are the values of an inner enum that are attributes of the class too."""

    bases: tuple[str, ...]
    methods: Mapping[str, tuple[Signature, ...]]
    properties: Mapping[str, Property]
    members: tuple[str, ...]


@dataclass(frozen=True)
class Surface:
    """Everything that a module offers. Enums within a class are named ``Class.Enum``."""

    wheel: str
    functions: Mapping[str, tuple[Signature, ...]]
    enums: Mapping[str, Mapping[str, int]]
    classes: Mapping[str, Class]
    constants: Mapping[str, int | str]

    @property
    def names(self) -> frozenset[str]:
        """Every name that can be an attribute."""
        found = {*self.functions, *self.enums, *self.classes, *self.constants}
        for members in self.enums.values():
            found |= set(members)
        for entry in self.classes.values():
            found |= {*entry.methods, *entry.properties, *entry.members}
        return frozenset(found)


@cache
def read_surface(name: str) -> Surface:
    """The surface `name`, e.g. ``"tensorrt-11"``."""
    values = json.loads((SURFACES / f"{name}.json").read_text(encoding="utf-8"))
    classes = {
        key: Class(
            bases=tuple(entry["bases"]),
            methods={method: _signatures(texts) for method, texts in entry["methods"].items()},
            properties={
                each: Property(FOREIGN.sub(_renamed, described["type"]), described["writable"])
                for each, described in entry["properties"].items()
            },
            members=tuple(entry["members"]),
        )
        for key, entry in values["classes"].items()
    }
    functions = {key: _signatures(texts) for key, texts in values["functions"].items()}
    return Surface(values["wheel"], functions, values["enums"], classes, values["constants"])


def split(text: str) -> list[str]:
    """Splits at the commas outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[(<") - (character in "])>")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _signatures(texts: list[str]) -> tuple[Signature, ...]:
    return tuple(Signature.parse(text) for text in texts)


def _parameter(text: str) -> Parameter:
    declared, optional, _ = text.partition("=")
    if ":" in declared:
        name, _, kind = declared.removesuffix(" not None").partition(":")
        name = name.rpartition(" ")[2]
    else:
        kind, _, name = declared.removesuffix(" not None").strip().rpartition(" ")
    return Parameter(name.strip(), kind.strip(), bool(optional))


def _renamed(match: re.Match[str]) -> str:
    return RENAMED.get(match[1], match[1])
