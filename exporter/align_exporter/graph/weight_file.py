"""Weights beside the graphs: one file of ONNX external data that several graphs of a tower refer to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx_ir as ir

from align_runtime.errors import BuildError

ALIGNMENT = 4096  # a page: what the ONNX standard asks for, so that readers can map the file instead of copying it
INLINE_BYTES = 1024  # smaller ones stay in the graph: among them are the constants that shape inference has to see


class WeightFile:
    """External data of the graphs that lie in the same folder. The same content is stored once.

    The order is that of the graphs and, in each, of its initializers: the same graphs give the same bytes.

    Args:
        path: the file to write; created by the first `move`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[tuple[int, bytes], int] = {}  # offset by length and sha256
        self._end = 0

    def move(self, model: ir.Model) -> None:
        """Moves the initializers of `model` here, all but the small ones; it must be saved in the file's folder.

        Raises:
            BuildError: an initializer without a value.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None:
                raise BuildError(f"the initializer {value.name} has no value; the traced graph is incomplete")
            if tensor.nbytes < INLINE_BYTES:
                continue
            value.const_value = ir.ExternalTensor(
                location=self.path.name,
                offset=self._store(tensor.tobytes()),
                length=tensor.nbytes,
                dtype=tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name or "",
                base_dir=self.path.parent,
            )

    def _store(self, content: bytes) -> int:
        """Offset of `content` in the file, to which it is added unless it is there."""
        key = (len(content), hashlib.sha256(content).digest())
        if key not in self._places:
            offset = -(-self._end // ALIGNMENT) * ALIGNMENT
            with self.path.open("ab") as file:
                file.write(bytes(offset - self._end) + content)
            self._places[key] = offset
            self._end = offset + len(content)
        return self._places[key]
