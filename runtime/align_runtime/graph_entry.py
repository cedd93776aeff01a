"""The entry of one graph in a bundle's manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.json_files import number, of_kind, relative_path, require, short_text, text
from align_runtime.parity import Limits, Parity
from align_runtime.precision import GraphContent

TOWERS = ("vision", "text")
ANY_TARGET = "any"
CPU_TARGET, GPU_TARGET = "cpu", "gpu"
TARGETS = (ANY_TARGET, CPU_TARGET, GPU_TARGET)
SAMPLE_WORDS = {"vision": "images", "text": "captions"}
# Inputs that a tower may take: their names, dtypes and numbers of dimensions, the first of which is the batch.
INPUTS: Mapping[str, tuple[tuple[tuple[str, str, int], ...], ...]] = {
    "vision": ((("pixels", "uint8", 4),), (("pixel_values", "float32", 4),)),
    "text": ((("input_ids", "int64", 2), ("attention_mask", "int64", 2)),),
}
DTYPES = ("uint8", "int64", "float32")
MAX_OPSET = 1000
MAX_SIZE = 1 << 20  # of a dimension
MAX_DIMENSIONS = 8
MAX_ENTRIES = 4096  # of a list: operators of an island, parts that stay float
MAX_SAMPLES = 1 << 40
MAX_SPEEDUP = 1e6
VARIANT = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph. A dimension of `shape` is a size, or a name where it is free."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> TensorSpec:
        dtype = require(where, values, "dtype", str)
        if dtype not in DTYPES:
            raise ConfigurationError(f"{where}: dtype is {dtype!r}; known: {', '.join(DTYPES)}")
        shape = require(where, values, "shape", list)
        if len(shape) > MAX_DIMENSIONS:
            raise ConfigurationError(f"{where}: shape has {len(shape)} dimensions; expected at most {MAX_DIMENSIONS}")
        return cls(
            name=text(where, values, "name"),
            dtype=dtype,
            shape=tuple(_size(f"{where}: shape", size) for size in shape),
        )


@dataclass(frozen=True)
class Island:
    """An FP32 region of an FP16 graph: connected operators, kept because of their range or by request.

    Attributes:
        nodes: names of the operators, in the order of the graph.
        reasons: one sentence each, e.g. ``"vision_model…/Conv reaches 1.2e+05"``.
    """

    nodes: tuple[str, ...]
    reasons: tuple[str, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Island:
        island = cls(nodes=_texts(where, values, "nodes"), reasons=_texts(where, values, "reasons"))
        if not island.nodes or not island.reasons:
            raise ConfigurationError(f"{where}: an island has no nodes or no reasons; expected at least one of each")
        return island


@dataclass(frozen=True)
class Quantization:
    """How an INT8 graph came by its scales, and what it gains.

    Attributes:
        scheme: the observer that was best on the samples, e.g. ``"percentile 99.99"``; ``"per token"`` where
            scales follow from each input.
        samples: images or captions that scales were measured on; 0 where none were needed.
        speedup: over the fastest float graph of its tower on the build machine, the smallest of the measured cases:
            above 1 where INT8 is faster. None where it was not measured, for want of the device.
        kept: parts that stay float for accuracy, first layers or what a target needs: blocks or operators.
    """

    scheme: str
    samples: int
    speedup: float | None
    kept: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Quantization:
        speedup = require(where, values, "speedup", (float, type(None)))
        return cls(
            scheme=text(where, values, "scheme"),
            samples=number(where, values, "samples", int, 0, MAX_SAMPLES),
            speedup=None if speedup is None else number(where, values, "speedup", float, 1 / MAX_SPEEDUP, MAX_SPEEDUP),
            kept=_texts(where, values, "kept"),
        )


@dataclass(frozen=True)
class Graph:
    """One ONNX graph: a tower in one variant for one target.

    Attributes:
        tower: ``"vision"`` or ``"text"``.
        variant: the precision, which `load(precision=…)` takes, e.g. ``"fp32"``.
        target: the kind of device that the graph was built for, one of `TARGETS`; ``"any"`` runs everywhere.
        file: path inside the bundle.
        data: path of the external data with its weights, which graphs may share; None if the graph contains them.
        opset: version of the default ONNX domain.
        inputs, outputs: names, dtypes and shapes.
        content: MACs and weights by element type, counted in the written file.
        parity: distance from the reference, measured at export.
        limits: limits of that distance.
        islands: FP32 regions of a graph of lower precision, beyond the rules of its precision.
        quantization: of an INT8 graph; None for others.
    """

    tower: str
    variant: str
    target: str
    file: str
    data: str | None
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    content: GraphContent
    parity: Parity
    limits: Limits
    islands: tuple[Island, ...] = ()
    quantization: Quantization | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"parity": self.parity.to_json()}

    @property
    def exact_variant(self) -> str:
        """The variant with the suffix ``_cpu`` if the target is a CPU, e.g. ``"int8_cpu"``; unique within a tower."""
        return f"{self.variant}_{self.target}" if self.target == CPU_TARGET else self.variant

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the graph and, if it has any, its external data."""
        return (self.file,) if self.data is None else (self.file, self.data)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Graph:
        tower = require(where, values, "tower", str)
        if tower not in TOWERS:
            raise ConfigurationError(f"{where}: tower is {tower!r}; known: {', '.join(TOWERS)}")
        target = require(where, values, "target", str)
        if target not in TARGETS:
            raise ConfigurationError(f"{where}: target is {target!r}; known: {', '.join(TARGETS)}")
        variant = require(where, values, "variant", str)
        if not VARIANT.fullmatch(variant):
            raise ConfigurationError(f"{where}: variant is {shortened(variant)}; expected a name such as 'fp16'")
        quantization = require(where, values, "quantization", (dict, type(None)))
        file, data = _graph_files(where, values)
        return cls(
            tower=tower,
            variant=variant,
            target=target,
            file=file,
            data=data,
            opset=number(where, values, "opset", int, 1, MAX_OPSET),
            inputs=_inputs(where, values, tower),
            outputs=_outputs(where, values),
            content=GraphContent.from_json(require(where, values, "content", dict), f"{where}: content"),
            parity=Parity.from_json(require(where, values, "parity", dict), f"{where}: parity"),
            limits=Limits.from_json(require(where, values, "limits", dict), f"{where}: limits"),
            islands=tuple(
                Island.from_json(of_kind(f"{where}: islands", island, dict), f"{where}: islands")
                for island in _entries(where, values, "islands")
            ),
            quantization=None
            if quantization is None
            else Quantization.from_json(quantization, f"{where}: quantization"),
        )


def _graph_files(where: str, values: Mapping[str, Any]) -> tuple[str, str | None]:
    """The paths of a graph and of its external data. ONNX Runtime takes a file's format from the end of its name."""
    file = relative_path(require(where, values, "file", str))
    if not file.endswith(".onnx"):
        raise ConfigurationError(f"{where}: file is {shortened(file)}; expected a name that ends with .onnx")
    data = require(where, values, "data", (str, type(None)))
    if data is not None and PurePosixPath(relative_path(data)).parent != PurePosixPath(file).parent:
        raise ConfigurationError(f"{where}: data is {shortened(data)}; expected a file in the folder of {file}")
    return file, data


def _inputs(where: str, values: Mapping[str, Any], tower: str) -> tuple[TensorSpec, ...]:
    inputs = _tensors(where, values, "inputs")
    found = tuple((tensor.name, tensor.dtype, len(tensor.shape)) for tensor in inputs)
    if found not in INPUTS[tower]:
        wanted = " or ".join(", ".join(name for name, *_ in names) for names in INPUTS[tower])
        raise ConfigurationError(f"{where}: inputs of the {tower} tower are {shortened(found)}; expected {wanted}")
    return inputs


def _outputs(where: str, values: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    outputs = _tensors(where, values, "outputs")
    if [(tensor.dtype, len(tensor.shape)) for tensor in outputs] != [("float32", 2)]:
        raise ConfigurationError(
            f"{where}: outputs are {shortened(outputs)}; expected embeddings, float32 (batch, dim)"
        )
    return outputs


def _tensors(where: str, values: Mapping[str, Any], key: str) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec.from_json(of_kind(f"{where}: {key}", tensor, dict), f"{where}: {key}")
        for tensor in _entries(where, values, key)
    )


def _size(name: str, size: Any) -> int | str:
    """A dimension: a size, or the name of a free one."""
    if isinstance(of_kind(name, size, (int, str)), str):
        return short_text(name, size)
    if not 1 <= size <= MAX_SIZE:
        raise ConfigurationError(f"{name} has a dimension of {shortened(size)}; expected 1 to {MAX_SIZE}")
    return int(size)


def _entries(where: str, values: Mapping[str, Any], key: str) -> list[Any]:
    entries: list[Any] = require(where, values, key, list)
    if len(entries) > MAX_ENTRIES:
        raise ConfigurationError(f"{where}: {key} has {len(entries)} entries; expected at most {MAX_ENTRIES}")
    return entries


def _texts(where: str, values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(short_text(f"{where}: {key}", value) for value in _entries(where, values, key))
