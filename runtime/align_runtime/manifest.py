"""``align.json``: the schema of the bundle's manifest, the one file that every reader of a bundle starts from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.json_files import of_kind, require
from align_runtime.parity import Limits, Parity
from align_runtime.precision import GraphContent
from align_runtime.preprocessing import ImagePreprocessing

SCHEMA_VERSION = 3
MANIFEST_NAME = "align.json"
# The record of one build: no part of what a bundle is, so the manifest does not list it.
REPORT_NAMES = ("report.html", "report.json")
TOWERS = ("vision", "text")
ANY_TARGET = "any"
TARGETS = (ANY_TARGET, "cpu")
# An INT8 graph was measured faster than every float graph of its tower where it was built, or kept whether or not.
FASTER, ANY_SPEED = "faster", "any"
SPEEDS = (FASTER, ANY_SPEED)
DTYPES = ("uint8", "int64", "float32")


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph. `shape` mixes numbers and the names of free dimensions."""

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
    """Operators side by side that an FP16 graph keeps in FP32 because of their values, or because it was asked for.

    Attributes:
        nodes: their names, in the order of the graph.
        reasons: what was found, one sentence each, e.g. ``"vision_model…/Conv reaches 1.2e+05"``.
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
    """How an INT8 graph came by its scales, and why it is here.

    Attributes:
        scheme: the observer that was best on the samples, e.g. ``"percentile 99.99"``; ``"dynamic"`` where scales
            follow from each input.
        samples: pictures that scales were measured on; 0 where none were needed.
        speed: one of `SPEEDS`.
    """

    scheme: str
    samples: int
    speed: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Quantization:
        speed = require(where, values, "speed", str)
        if speed not in SPEEDS:
            raise ConfigurationError(f"{where}: speed is {speed!r}; known: {', '.join(SPEEDS)}")
        return cls(
            scheme=require(where, values, "scheme", str), samples=require(where, values, "samples", int), speed=speed
        )


@dataclass(frozen=True)
class Graph:
    """One ONNX file: a tower in one variant for one target.

    Attributes:
        tower: ``"vision"`` or ``"text"``.
        variant: the name that `load(precision=…)` takes, e.g. ``"fp32"``.
        precision: of the weights and the arithmetic, e.g. ``"fp32"``.
        target: the device that the graph was made for; ``"any"`` runs everywhere.
        file: path inside the bundle.
        data: path of the file of external data that holds its weights, which other graphs may share; None where
            the graph holds them itself.
        opset: of the default ONNX domain.
        content: what it computes and holds in which types, counted in the written file.
        parity: distance from the reference, measured when it was built.
        limits: what that distance had to keep within.
        islands: what a graph of lower precision keeps in FP32 beyond the rules of its precision.
        quantization: of an INT8 graph, None of any other.
    """

    tower: str
    variant: str
    precision: str
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
        """The variant with the device that the graph was made for, e.g. ``"int8_cpu"``."""
        return self.variant if self.target == ANY_TARGET else f"{self.variant}_{self.target}"

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of all its files: the graph, and its external data where it has any."""
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
            precision=require(where, values, "precision", str),
            target=target,
            file=_inside(require(where, values, "file", str)),
            data=None if data is None else _inside(data),
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


@dataclass(frozen=True)
class FileEntry:
    """Size and content of a file: `bytes`, and `sha256` in hexadecimal."""

    bytes: int
    sha256: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> FileEntry:
        sha256 = require(where, values, "sha256", str)
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ConfigurationError(f"{where}: sha256 is {sha256!r}; 64 hexadecimal digits were expected")
        return cls(bytes=require(where, values, "bytes", int), sha256=sha256)


@dataclass(frozen=True)
class Provenance:
    """What a bundle was made of: the same provenance gives the same bundle.

    Attributes:
        name: the checkpoint folder's name, or the hub id.
        revision: the hub's commit, None for a folder.
        files: sha256 of every file of the checkpoint that was read.
        options: of the export.
        tools: versions of the packages that took part.
    """

    name: str
    revision: str | None
    files: Mapping[str, str]
    options: Mapping[str, Any]
    tools: Mapping[str, str]

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Provenance:
        return cls(
            name=require(where, values, "name", str),
            revision=require(where, values, "revision", (str, type(None))),
            files=_strings(where, require(where, values, "files", dict)),
            options=require(where, values, "options", dict),
            tools=_strings(where, require(where, values, "tools", dict)),
        )


@dataclass(frozen=True)
class ModelFacts:
    """What a caller has to know about the model.

    Attributes:
        embedding_dim: length of an embedding.
        temperature: logits are cosines divided by it.
        max_length: tokens of a text at most, [CLS] and [SEP] included.
        pad_token_id: fills shorter texts of a batch.
        vocab_size: rows of the embedding table.
    """

    embedding_dim: int
    temperature: float
    max_length: int
    pad_token_id: int
    vocab_size: int


@dataclass(frozen=True)
class Manifest:
    """Everything in ``align.json``. `files` lists every other file of the bundle by its path."""

    provenance: Provenance
    model: ModelFacts
    preprocessing: ImagePreprocessing
    graphs: tuple[Graph, ...]
    files: Mapping[str, FileEntry]

    def to_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "provenance": asdict(self.provenance),
            "model": asdict(self.model),
            "preprocessing": self.preprocessing.to_json(),
            "graphs": [graph.to_json() for graph in self.graphs],
            "files": {name: asdict(entry) for name, entry in sorted(self.files.items())},
        }

    def graph_bytes(self, graph: Graph) -> int:
        """Size of `graph` with its external data."""
        return sum(self.files[name].bytes for name in graph.files)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Manifest:
        """Reads what `to_json` wrote.

        Raises:
            BundleError: another schema version, a missing key, a value of the wrong type, a path that leaves the
                bundle, a graph whose file is not listed.
        """
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{where}: schema version {version!r}; this runtime reads version {SCHEMA_VERSION}. Export the "
                "checkpoint again, or use the release that wrote the bundle"
            )
        try:
            manifest = cls._read(values, where)
        except ConfigurationError as error:
            raise BundleError(f"{error} (align.json is damaged or was edited; export the checkpoint again)") from None
        for graph in manifest.graphs:
            for name in graph.files:
                if name not in manifest.files:
                    raise BundleError(f"{where}: {name} of a graph is not in the list of files")
        return manifest

    @classmethod
    def _read(cls, values: Mapping[str, Any], where: str) -> Manifest:
        model, files = require(where, values, "model", dict), require(where, values, "files", dict)
        graphs = require(where, values, "graphs", list)
        return cls(
            provenance=Provenance.from_json(require(where, values, "provenance", dict), f"{where}: provenance"),
            model=_model_facts(model, f"{where}: model"),
            preprocessing=ImagePreprocessing.from_json(
                require(where, values, "preprocessing", dict), f"{where}: preprocessing"
            ),
            graphs=tuple(
                Graph.from_json(of_kind(f"{where}: graphs", graph, dict), f"{where}: graph {index}")
                for index, graph in enumerate(graphs)
            ),
            files={
                _inside(name): FileEntry.from_json(of_kind(f"{where}: {name}", entry, dict), f"{where}: {name}")
                for name, entry in files.items()
            },
        )


def _model_facts(values: Mapping[str, Any], where: str) -> ModelFacts:
    facts = ModelFacts(
        embedding_dim=require(where, values, "embedding_dim", int),
        temperature=require(where, values, "temperature", float),
        max_length=require(where, values, "max_length", int),
        pad_token_id=require(where, values, "pad_token_id", int),
        vocab_size=require(where, values, "vocab_size", int),
    )
    if facts.embedding_dim < 1 or facts.max_length < 2 or facts.temperature == 0:
        raise ConfigurationError(f"{where}: {facts} cannot be")
    return facts


def _tensors(where: str, values: Mapping[str, Any], key: str) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec.from_json(of_kind(f"{where}: {key}", tensor, dict), f"{where}: {key}")
        for tensor in require(where, values, key, list)
    )


def _texts(where: str, values: list[Any]) -> tuple[str, ...]:
    return tuple(of_kind(where, value, str) for value in values)


def _strings(where: str, values: Mapping[str, Any]) -> dict[str, str]:
    return {key: of_kind(f"{where}: {key}", value, str) for key, value in values.items()}


def _inside(name: str) -> str:
    """`name` if it is a plain relative path that cannot leave the bundle."""
    path = PurePosixPath(name)
    plain = bool(name) and not path.is_absolute() and str(path) == name and ".." not in path.parts
    if not plain or "\\" in name or ":" in name or "\0" in name or name in (".", MANIFEST_NAME):
        raise ConfigurationError(f"the path {name!r} is not a plain path inside the bundle")
    return name
