"""The entry of one graph in a bundle's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from align_runtime.errors import ConfigurationError
from align_runtime.json_files import of_kind, relative_path, require
from align_runtime.parity import Limits, Parity
from align_runtime.precision import GraphContent

TOWERS = ("vision", "text")
ANY_TARGET = "any"
CPU_TARGET, GPU_TARGET = "cpu", "gpu"
TARGETS = (ANY_TARGET, CPU_TARGET, GPU_TARGET)
SAMPLE_WORDS = {"vision": "images", "text": "captions"}
DTYPES = ("uint8", "int64", "float32")


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
        return cls(
            name=require(where, values, "name", str),
            dtype=dtype,
            shape=tuple(of_kind(f"{where}: shape", size, (int, str)) for size in shape),
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
        return cls(
            nodes=_texts(f"{where}: nodes", require(where, values, "nodes", list)),
            reasons=_texts(f"{where}: reasons", require(where, values, "reasons", list)),
        )


@dataclass(frozen=True)
class Quantization:
    """How an INT8 graph came by its scales, and what it gains.

    Attributes:
        scheme: the observer that was best on the samples, e.g. ``"percentile 99.99"``; ``"per token"`` where
            scales follow from each input.
        samples: images or captions that scales were measured on; 0 where none were needed.
        speedup: over the fastest float graph of its tower on the build machine, the smallest of the measured cases:
            above 1 where INT8 is faster. None where it was not measured, for want of the device.
        kept: parts that stay float, so that a target is met: blocks or operators.
    """

    scheme: str
    samples: int
    speedup: float | None
    kept: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Quantization:
        speedup = require(where, values, "speedup", (float, type(None)))
        if speedup is not None and speedup <= 0:
            raise ConfigurationError(f"{where}: expected a speedup above 0, got {speedup}")
        return cls(
            scheme=require(where, values, "scheme", str),
            samples=require(where, values, "samples", int),
            speedup=speedup,
            kept=_texts(f"{where}: kept", require(where, values, "kept", list)),
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
        data = require(where, values, "data", (str, type(None)))
        quantization = require(where, values, "quantization", (dict, type(None)))
        return cls(
            tower=tower,
            variant=require(where, values, "variant", str),
            target=target,
            file=relative_path(require(where, values, "file", str)),
            data=None if data is None else relative_path(data),
            opset=require(where, values, "opset", int),
            inputs=_tensors(where, values, "inputs"),
            outputs=_tensors(where, values, "outputs"),
            content=GraphContent.from_json(require(where, values, "content", dict), f"{where}: content"),
            parity=Parity.from_json(require(where, values, "parity", dict), f"{where}: parity"),
            limits=Limits.from_json(require(where, values, "limits", dict), f"{where}: limits"),
            islands=tuple(
                Island.from_json(of_kind(f"{where}: islands", island, dict), f"{where}: islands")
                for island in require(where, values, "islands", list)
            ),
            quantization=None
            if quantization is None
            else Quantization.from_json(quantization, f"{where}: quantization"),
        )


def _tensors(where: str, values: Mapping[str, Any], key: str) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec.from_json(of_kind(f"{where}: {key}", tensor, dict), f"{where}: {key}")
        for tensor in require(where, values, key, list)
    )


def _texts(where: str, values: list[Any]) -> tuple[str, ...]:
    return tuple(of_kind(where, value, str) for value in values)
