"""Prints the surface of one importable module as JSON; run by `make_surfaces.py` in a process of its own.

A signature is the text that the bindings give for it, ``(self: Class, name: str, min: Dims) -> None``, types without
their package. A function or method has as many as it has overloads.
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

DUNDERS = ("__init__", "__getitem__", "__len__", "__int__")


def surface(module: ModuleType, package: str) -> dict[str, Any]:
    """Functions, enums, classes and constants of `module`; of names with a leading underscore only `DUNDERS`."""
    version = {"__version__": module.__version__} if hasattr(module, "__version__") else {}
    found: dict[str, Any] = {"functions": {}, "enums": {}, "classes": {}, "constants": version}
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or isinstance(value, ModuleType):
            continue
        if inspect.isclass(value) and hasattr(value, "__members__"):
            found["enums"][name] = {key: int(member) for key, member in value.__members__.items()}
        elif inspect.isclass(value):
            found["classes"][name] = _class(value, package)
            for key, member in vars(value).items():
                if inspect.isclass(member) and hasattr(member, "__members__"):
                    found["enums"][f"{name}.{key}"] = {each: int(one) for each, one in member.__members__.items()}
        elif inspect.isroutine(value) or (callable(value) and not hasattr(value, "__members__")):
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
    members = dict(vars(value))
    for base in value.__mro__[1:]:  # a base of another module is not in the surface
        if base.__module__ not in (value.__module__, "builtins", "pybind11_builtins"):
            members = {**vars(base), **members}
    for name, member in sorted(members.items()):
        if name.startswith("_") and name not in DUNDERS:
            continue
        if isinstance(member, property):
            kind = _returned((member.fget and member.fget.__doc__) or "", package)
            entry["properties"][name] = {"type": kind, "writable": member.fset is not None}
        elif inspect.isgetsetdescriptor(member):  # Cython tells neither its type nor whether it is writable
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
    return re.sub(r"\b(typing|collections\.abc)\.", "", plain)


if __name__ == "__main__":
    name = sys.argv[1]
    imported = importlib.import_module(name)
    result = {"module": name, **surface(imported, name)}
    sys.stdout.write(json.dumps(result))
