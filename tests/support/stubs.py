"""Type stubs made from the surfaces of the real bindings: mypy checks each name, argument and result against them."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from support.surfaces import Class, Parameter, Signature, Surface

HEADER = """# mypy: ignore-errors
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, overload

"""
PLAIN = {
    "int", "str", "bool", "float", "bytes", "None", "object", "Any", "list", "Sequence", "tuple",
}  # fmt: skip
NUMBERS = re.compile(r"^(const )?(unsigned |signed )?(size_t|int|long long|long|char|short)$")


def write_stub(surface: Surface, package: Path) -> None:
    """Writes `surface` as type stubs into the new folder `package`."""
    package.mkdir(parents=True)
    (package / "__init__.pyi").write_text(HEADER + "\n".join(_Stub(surface).lines()) + "\n")


class _Stub:
    def __init__(self, surface: Surface) -> None:
        self._surface = surface
        self._known = PLAIN | set(surface.classes) | set(surface.enums)

    def lines(self) -> Iterator[str]:
        for name, value in self._surface.constants.items():
            yield f"{name}: {type(value).__name__}"
        for name, members in self._surface.enums.items():
            if "." not in name:
                yield from self._enum(name, members)
        for name, entry in self._surface.classes.items():
            yield from self._class(name, entry)
        for name, signatures in self._surface.functions.items():
            yield from self._function(name, signatures, method=False)

    def _enum(self, name: str, members: Mapping[str, int]) -> Iterator[str]:
        yield f"class {name}:"
        yield "    name: str"
        yield "    value: int"
        yield "    def __int__(self) -> int: ..."
        for member in members:
            yield f"    {member}: ClassVar[{name}]"

    def _class(self, name: str, entry: Class) -> Iterator[str]:
        yield f"class {name}({', '.join(entry.bases)}):"
        for enum, members in self._surface.enums.items():
            if enum.startswith(f"{name}."):
                inner = enum.partition(".")[2]
                yield from (f"    {line.replace(f'[{inner}]', f'[{enum}]')}" for line in self._enum(inner, members))
                yield from (f"    {member}: ClassVar[{enum}]" for member in members if member in entry.members)
        for method, signatures in entry.methods.items():
            yield from (f"    {line}" for line in self._function(method, signatures, method=True))
        for key, found in entry.properties.items():
            yield "    @property"
            yield f"    def {key}(self) -> {self._type(found.kind)}: ..."
            if found.writable:
                yield f"    @{key}.setter"
                yield f"    def {key}(self, value: {self._accepted(found.kind)}) -> None: ..."
        if "nbytes" in entry.properties:  # IHostMemory has the buffer protocol, which is not visible in Python 3.11
            yield "    def __buffer__(self, flags: int, /) -> memoryview: ..."
        if "__getitem__" in entry.methods:
            yield "    def __iter__(self) -> Iterator[int]: ..."
        yield "    ..."

    def _function(self, name: str, signatures: tuple[Signature, ...], method: bool) -> Iterator[str]:
        first = ["self"] if method else []
        if not signatures:
            result = {"__int__": "int", "__len__": "int", "__init__": "None"}.get(name, "Any")
            rest = [] if name in ("__int__", "__len__") else ["*args: Any", "**kwargs: Any"]
            yield f"def {name}({', '.join(first + rest)}) -> {result}: ..."
        for signature in signatures:
            if len(signatures) > 1:
                yield "@overload"
            parameters = first + [self._parameter(parameter) for parameter in signature.parameters]
            yield f"def {name}({', '.join(parameters)}) -> {self._results(signature)}: ..."

    def _parameter(self, parameter: Parameter) -> str:
        if parameter.name.startswith("*"):
            return parameter.name
        name = f"{parameter.name}_" if keyword.iskeyword(parameter.name) else parameter.name
        return f"{name}: {self._accepted(parameter.kind)}{' = ...' if parameter.optional else ''}"

    def _results(self, signature: Signature) -> str:
        kinds = [self._type(kind) for kind in signature.results if kind]
        if not kinds:
            return "Any"
        return kinds[0] if len(signature.results) == 1 and kinds[0] != "cudaError_t" else f"tuple[{', '.join(kinds)}]"

    def _accepted(self, kind: str) -> str:
        """Types of an argument: pybind11 converts any sequence to Dims."""
        return "Dims | Sequence[int]" if kind == "Dims" else self._type(kind)

    def _type(self, kind: str) -> str:
        """`kind` as mypy reads it; Any if the surface does not define it."""
        if NUMBERS.match(kind):
            return "int"
        kind = kind.replace("SupportsInt", "int")  # as an argument; results are int
        if kind.endswith(".Buffer"):
            return "bytes | memoryview"
        words = set(re.findall(r"[A-Za-z_][\w.]*", kind))
        return kind if kind and words <= self._known else "Any"
