"""One file of ONNX external data for the weights that several graphs of a tower share."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx_ir as ir

from align_exporter.graph.ir_helpers import name_of
from align_runtime.errors import BuildError

ALIGNMENT = 4096  # a page, as the ONNX standard recommends: the file can be mapped instead of copied
INLINE_BYTES = 1024  # smaller tensors stay in the graph: shape inference needs the values of some of them


class WeightFile:
    """External data of graphs in the same folder. Equal tensors are stored once.

    Tensors are in the order of the graphs and of their initializers, so the same graphs give the same bytes.

    Args:
        path: the file to write; created by the first `move`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[tuple[int, bytes], int] = {}  # offset by length and sha256
        self._end = 0

    def move(self, model: ir.Model) -> None:
        """Moves all but the small initializers of `model` to the file; `model` must be saved in the same folder.

        Raises:
            BuildError: an initializer without a value.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None:
                raise BuildError(f"the initializer {value.name!r} of the traced graph has no value")
            if tensor.nbytes < INLINE_BYTES:
                continue
            value.const_value = ir.ExternalTensor(
                location=self.path.name,
                offset=self._store(tensor.tobytes()),
                length=tensor.nbytes,
                dtype=tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=name_of(value),
                base_dir=self.path.parent,
            )

    def _store(self, content: bytes) -> int:
        """Offset of `content` in the file; appended unless the file has it."""
        key = (len(content), hashlib.sha256(content).digest())
        if key not in self._places:
            offset = -(-self._end // ALIGNMENT) * ALIGNMENT
            with self.path.open("ab") as file:
                file.write(bytes(offset - self._end) + content)
            self._places[key] = offset
            self._end = offset + len(content)
        return self._places[key]
