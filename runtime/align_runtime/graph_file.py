"""What an ONNX file may hold: no functions, no subgraphs, no foreign operators, and weights in listed files alone.

ONNX Runtime reads whatever a graph names: files of weights beside it, functions, loops that never end. So a graph of a
bundle is walked before it is loaded. The walk knows the fields of onnx.proto that `align-export` writes, skips values
without reading them, and refuses every other field: an unknown one could name a file that is not listed.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from align_runtime.errors import BundleError
from align_runtime.foreign_text import shortened
from align_runtime.regular_files import open_regular

DOMAINS = ("", "ai.onnx")
# Of one file. The graphs of the published sizes have 60,000; a million take a second to walk.
MAX_FIELDS = 1_000_000
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf's wire types; groups (3, 4) are refused
MORE = 0x80  # the bit of a byte that says that a number goes on
ORT_FORMAT = b"ORTM"  # at byte 4: ONNX Runtime would read its own format instead of protobuf

_SKIP, _DOMAIN, _KEY, _VALUE = "skip", "domain", "key", "value"
# Message → number of a field → the message to walk, what to keep, or to skip. Refused with a reason: see `_REFUSED`.
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": dict.fromkeys((1, 2, 3, 4, 5, 6, 8, 14), _SKIP) | {7: "graph"},
    "graph": dict.fromkeys((2, 10, 11, 12, 13, 14, 16), _SKIP) | {1: "node", 5: "tensor"},
    "node": dict.fromkeys((1, 2, 3, 4, 6, 9), _SKIP) | {5: "attribute", 7: _DOMAIN},
    "attribute": dict.fromkeys((1, 2, 3, 4, 7, 8, 9, 13, 20), _SKIP) | {5: "tensor", 10: "tensor"},
    "tensor": dict.fromkeys((1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16), _SKIP) | {13: "entry"},
    "entry": {1: _KEY, 2: _VALUE},
}
_REFUSED = {
    ("model", 20): "training information",
    ("model", 25): "functions",
    ("graph", 15): "sparse weights",
    ("attribute", 6): "subgraphs (If, Loop, Scan)",
    ("attribute", 11): "subgraphs (If, Loop, Scan)",
    ("attribute", 22): "sparse weights",
    ("attribute", 23): "sparse weights",
}


def check_graph_file(file: Path, data: str | None) -> None:
    """Walks the ONNX file `file`. Values are not read: 690 MB of weights inside take no longer than 690 MB beside it.

    Args:
        data: name of the one file, in the folder of `file`, that may hold weights; None where none may.

    Raises:
        BundleError: the file is not ONNX as `align-export` writes it, or names another file.
    """
    with open_regular(file, BundleError) as opened:
        try:
            content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise BundleError(f"{file} is empty; expected an ONNX graph") from None
        with content:
            check_graph_bytes(content, str(file), data)


def check_graph_bytes(content: bytes | mmap.mmap, subject: str, data: str | None) -> None:
    """As `check_graph_file` for the content of a file, which errors call `subject`."""
    try:
        if content[4:8] == ORT_FORMAT:
            raise _RefusedError("it is in ONNX Runtime's own format")
        walk = _Walk(content)
        walk.message("model", 0, len(content))
    except _RefusedError as error:
        raise BundleError(f"{subject} is not an ONNX graph as align-export writes it: {error}") from None
    foreign = sorted(walk.domains - {name.encode() for name in DOMAINS})
    if foreign:
        raise BundleError(
            f"{subject} has operators of the domain {shortened(foreign[0])}; expected those of ONNX alone"
        )
    elsewhere = sorted(walk.locations - ({data.encode()} if data else set()))
    if elsewhere:
        raise BundleError(
            f"{subject} has weights in {shortened(elsewhere[0])}, but the manifest lists "
            f"{'no file of weights' if data is None else data} for it; export the checkpoint again"
        )


class _RefusedError(Exception):
    """Why a file is not a graph as the exporter writes it."""


class _Walk:
    """The fields of one file: domains of its operators, and locations of its external data."""

    def __init__(self, content: bytes | mmap.mmap) -> None:
        self.domains: set[bytes] = set()
        self.locations: set[bytes] = set()
        self._content = content
        self._count = 0

    def message(self, kind: str, start: int, end: int) -> None:
        """Walks the message `kind` in the bytes from `start` to `end`."""
        known = _FIELDS[kind]
        texts: dict[str, list[bytes]] = {_DOMAIN: [], _KEY: [], _VALUE: []}
        for number, wire, begin, stop in self._fields(start, end):
            meaning = known.get(number)
            if meaning is None:
                raise _RefusedError(f"it has {_REFUSED.get((kind, number), f'field {number} in a {kind}')}")
            if meaning == _SKIP:
                continue
            if wire != BYTES:
                raise _RefusedError(f"field {number} of a {kind} has wire type {wire}")
            if meaning in _FIELDS:
                self.message(meaning, begin, stop)
            else:
                texts[meaning].append(self._content[begin:stop])
        self.domains.update(texts[_DOMAIN])
        if b"location" in texts[_KEY]:  # of several keys or values the last one counts for a parser, here all do
            self.locations.update(texts[_VALUE] or [b""])

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Number, wire type, begin and end of every field between `start` and `end`."""
        content, at = self._content, start
        while at < end:
            self._count += 1
            if self._count > MAX_FIELDS:
                raise _RefusedError(f"it has more than {MAX_FIELDS} fields")
            tag, at = (content[at], at + 1) if content[at] < MORE else self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            if wire == BYTES:
                length, begin = self._varint(at, end)
                at = begin + length
            elif wire == VARINT:
                begin, (_, at) = at, self._varint(at, end)
            elif wire in (FIXED64, FIXED32):
                begin, at = at, at + (8 if wire == FIXED64 else 4)
            else:
                raise _RefusedError(f"wire type {wire} at byte {at}")
            if at > end:
                raise _RefusedError(f"it ends within a field at byte {begin}")
            yield number, wire, begin, at

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """The number at `at`, seven bits a byte, and where it ends."""
        content, value = self._content, 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = content[at]
            at += 1
            value |= (byte & (MORE - 1)) << shift
            if byte < MORE:
                return value, at
        raise _RefusedError(f"a number that does not end at byte {at}")
