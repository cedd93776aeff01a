"""Prints the surface of one importable module as JSON; run by `make_surfaces.py` in a process of its own.

A signature is the text that the bindings give for it, ``(self, name: str, min: Dims) -> None``, types without their
package. A function or method has as many as it has overloads.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import re
import sys
from types import ModuleType
from typing import Any


def surface(module: ModuleType, package: str) -> dict[str, Any]:
    """Functions, enums, classes and constants of `module`, names that begin with an underscore left out."""
    found: dict[str, Any] = {"functions": {}, "enums": {}, "classes": {}, "constants": {}}
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or isinstance(value, ModuleType):
            continue
        if hasattr(value, "__members__"):
            found["enums"][name] = {key: int(member) for key, member in value.__members__.items()}
        elif inspect.isclass(value):
            found["classes"][name] = _class(value, package)
        elif callable(value):
            found["functions"][name] = _signatures(name, value, package)
        elif isinstance(value, int | str):
            found["constants"][name] = value
    return found


def _class(value: type, package: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "bases": [base.__name__ for base in value.__bases__ if base.__module__ == value.__module__],
        "methods": {},
        "properties": {},
        "members": [],
    }
    for name, member in sorted(vars(value).items()):
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(member, property):
            kind = _returned((member.fget and member.fget.__doc__) or "", package)
            entry["properties"][name] = {"type": kind, "writable": member.fset is not None}
        elif inspect.isgetsetdescriptor(member):  # Cython: neither its type nor whether it can be set is told
            entry["properties"][name] = {"type": "", "writable": True}
        elif callable(member) and not inspect.isclass(member):
            entry["methods"][name] = _signatures(name, member, package)
        elif isinstance(member, enum.Enum) or hasattr(type(member), "__members__"):
            entry["members"].append(name)
    return entry


def _signatures(name: str, value: Any, package: str) -> list[str]:
    """Of pybind11: ``name(self: Class, …) -> Type``, once or under numbers; of Cython: ``name(size_t size)``."""
    if inspect.isfunction(value):
        return [re.sub(r"'", "", str(inspect.signature(value)))]
    lines = [re.sub(r"^\d+\. ", "", line.strip()) for line in (value.__doc__ or "").splitlines()]
    lines = [line.removeprefix(name) for line in lines if line.startswith(f"{name}(")]
    results = _results(value.__doc__ or "")
    return [_plain(line, package) + results for line in lines if line != "(*args, **kwargs)"]


def _results(documentation: str) -> str:
    """Of Cython, whose functions return tuples: `` -> cudaError_t, Any`` from the section Returns of numpy's style."""
    _, found, section = documentation.partition("Returns\n-------\n")
    if not found:
        return ""
    lines = re.split(r"\n\n|\nSee Also", section)[0].splitlines()
    entries = [line for line in lines if line and not line.startswith(" ")]
    kinds = [re.sub(r".*~\.|`.*", "", entry.rpartition(" : ")[2]).split(".")[0] for entry in entries]
    return f" -> {', '.join(kinds)}"


def _returned(text: str, package: str) -> str:
    _, arrow, kind = _plain(text.strip().partition("\n")[0], package).rpartition("-> ")
    return kind if arrow else ""


def _plain(text: str, package: str) -> str:
    plain = re.sub(rf"\b{package}\.(\w+\.)?", "", text)
    return re.sub(r"\b(typing|collections\.abc)\.", "", re.sub(r"\bself: \w+", "self", plain))


if __name__ == "__main__":
    name = sys.argv[1]
    imported = importlib.import_module(name)
    result = {"module": name, **surface(imported, name)}
    sys.stdout.write(json.dumps(result))
