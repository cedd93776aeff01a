"""A module made from the surface of a real one: it has the same names only, and checks arguments in the same way.

Behaviours, one class per class of the surface, implement the calls; a call without implementation fails the test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from support.surfaces import Class, Parameter, Signature, Surface

Arguments = dict[str, Any]


class Violation(AssertionError):  # noqa: N818 (a failed check, not an error of the product)
    """Our code uses a library in a forbidden way."""


def complain(logger: Any, message: str) -> None:
    """Logs an error as TensorRT does."""
    logger.log(type(logger).ERROR, message)


def make_module(name: str, surface: Surface, behaviours: Mapping[str, type], functions: object) -> ModuleType:
    """The module `name` with the names of `surface`.

    Args:
        behaviours: classes, by the name of the class whose methods and properties they implement.
        functions: an object whose methods implement functions of the module.
    """
    module = ModuleType(name)
    types: dict[str, type] = {}
    for enum, members in surface.enums.items():
        types[enum] = _enum(enum, members)
    for kind in surface.classes:
        _add_class(kind, surface, types, behaviours)
    for kind, made in types.items():
        owner, _, inner = kind.rpartition(".")
        setattr(types[owner] if owner else module, inner, made)
    for kind, entry in surface.classes.items():
        for member in entry.members:
            setattr(types[kind], member, getattr(types[f"{_enum_of(kind, surface, member)}"], member))
    for function, signatures in surface.functions.items():
        setattr(module, function, _function(function, signatures, types, functions))
    for constant, value in surface.constants.items():
        setattr(module, constant, value)
    return module


def _add_class(kind: str, surface: Surface, types: dict[str, type], behaviours: Mapping[str, type]) -> None:
    """Adds the class `kind` to `types`, its bases first."""
    entry = surface.classes[kind]
    for base in entry.bases:
        if base in surface.classes and base not in types:
            _add_class(base, surface, types, behaviours)
    if kind not in types:
        types[kind] = _class(kind, entry, types, behaviours.get(kind, object))


def _enum_of(kind: str, surface: Surface, member: str) -> str:
    return next(enum for enum, members in surface.enums.items() if enum.startswith(f"{kind}.") and member in members)


class _Member:
    """A value of an enum, which compares equal to itself only."""

    def __init__(self, name: str, value: int) -> None:
        self.name, self.value = name, value

    def __int__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self.value}>"


def _enum(name: str, members: Mapping[str, int]) -> type:
    made = type(name.rpartition(".")[2], (_Member,), {"__members__": members})
    for member, value in members.items():
        setattr(made, member, made(member, value))
    return made


def _class(name: str, entry: Class, types: dict[str, type], behaviour: type) -> type:
    properties = entry.properties

    def set_attribute(self: Any, key: str, value: Any) -> None:
        known = properties.get(key)
        subclassed = type(self) is not made  # our subclasses have attributes of their own
        if not key.startswith("_") and not subclassed and (known is None or not known.writable):
            raise AttributeError(f"{name} has no attribute {key!r} that can be set")
        if known is not None and not _accepts(known.kind, value, types):
            raise TypeError(f"{name}.{key} is a {known.kind}, not {value!r}")
        object.__setattr__(self, key, value)

    namespace: dict[str, Any] = {"__setattr__": set_attribute, "_initialized": False}
    for key, value in vars(behaviour).items():
        if key.startswith("_"):
            if key not in ("__module__", "__dict__", "__weakref__", "__doc__", "__init__"):
                namespace[key] = value
        elif isinstance(value, property) and key in properties:
            namespace[key] = value
        elif key not in entry.methods:
            raise TypeError(f"the behaviour of {name} has {key}, which the real class lacks")
    for method, signatures in entry.methods.items():
        namespace[method] = _method(name, method, signatures, types, getattr(behaviour, method, None))
    if not entry.methods.get("__init__"):
        namespace["__init__"] = _no_constructor(name)
    bases = tuple(types[base] for base in entry.bases if base in types)
    made = type(name, bases, namespace)
    return made


def _no_constructor(name: str) -> Any:
    def refuse(self: Any, *_: Any, **__: Any) -> None:
        raise TypeError(f"{name}: No constructor defined!")

    return refuse


def _method(owner: str, name: str, signatures: tuple[Signature, ...], types: dict[str, type], does: Any) -> Any:
    def call(self: Any, *positional: Any, **named: Any) -> Any:
        arguments = _bound(f"{owner}.{name}", signatures, positional, named, types)
        if name == "__init__":
            object.__setattr__(self, "_initialized", True)
            return does(self, **arguments) if does is not object.__init__ and does is not None else None
        if does is None:
            raise Violation(f"{owner}.{name} is called, which the double does not know")
        return does(self, **arguments)

    return call


def _function(name: str, signatures: tuple[Signature, ...], types: dict[str, type], functions: object) -> Any:
    def call(*positional: Any, **named: Any) -> Any:
        arguments = _bound(name, signatures, positional, named, types)
        does = getattr(functions, name, None)
        if does is None:
            raise Violation(f"{name} is called, which the double does not know")
        return does(**arguments)

    return call


def _bound(
    title: str, signatures: tuple[Signature, ...], positional: tuple[Any, ...], named: Arguments, types: dict[str, type]
) -> Arguments:
    """Binds the arguments to the first signature that accepts them."""
    for signature in signatures:
        names = [parameter.name for parameter in signature.parameters]
        if len(positional) > len(names) or set(named) - set(names[len(positional) :]):
            continue
        arguments = dict(zip(names, positional, strict=False)) | named
        if all(_fits(parameter, arguments, types) for parameter in signature.parameters):
            return arguments
    raise TypeError(f"{title} takes {signatures}, not {positional} {named}")


def _fits(parameter: Parameter, arguments: Arguments, types: dict[str, type]) -> bool:
    if parameter.name not in arguments:
        return parameter.optional
    return _accepts(parameter.kind, arguments[parameter.name], types)


def _accepts(kind: str, value: Any, types: dict[str, type]) -> bool:
    """Whether pybind11 or Cython would take `value` for a parameter of type `kind`."""
    if kind in types:
        given = (tuple, list) if kind == "Dims" else ()
        return isinstance(value, (types[kind], *given)) and getattr(value, "_initialized", True)
    if kind.endswith(".Buffer"):
        return isinstance(value, bytes | bytearray | memoryview)
    if re.search(r"\b(SupportsInt|int|size_t|long)\b", kind) and "[" not in kind:
        return isinstance(value, int)
    plain = {"str": str, "bool": bool, "tuple": tuple, "list": list, "float": (int, float)}
    return isinstance(value, plain[kind]) if kind in plain else True
