"""``align.json``: the schema of a bundle's manifest, which every reader of a bundle opens first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.graph_entry import Graph
from align_runtime.json_files import of_kind, relative_path, require
from align_runtime.preprocessing import ImagePreprocessing

SCHEMA_VERSION = 6
MANIFEST_NAME = "align.json"
# They describe one build and are not part of the bundle's content, so the manifest does not list them.
REPORT_NAMES = ("report.html", "report.json")


@dataclass(frozen=True)
class FileEntry:
    """Size of a file in bytes, and its sha256 in hexadecimal."""

    bytes: int
    sha256: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> FileEntry:
        sha256 = require(where, values, "sha256", str)
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ConfigurationError(f"{where}: sha256 is {sha256[:80]!r}; expected 64 hexadecimal digits")
        return cls(bytes=require(where, values, "bytes", int), sha256=sha256)


@dataclass(frozen=True)
class Provenance:
    """The inputs of an export.

    Attributes:
        name: name of the checkpoint folder, or id on the Hub.
        revision: commit on the Hub; None for a folder.
        files: sha256 of every file of the checkpoint that was read.
        options: options of the export.
        tools: versions of the packages that were used; under ``"source"`` a hash of align-onnx's own modules.
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
    """Constants of the model.

    Attributes:
        embedding_dim: length of an embedding.
        temperature: logits are cosines divided by it.
        max_length: maximum number of tokens of a text, [CLS] and [SEP] included.
        pad_token_id: id that pads shorter texts of a batch.
        vocab_size: rows of the token embedding table.
    """

    embedding_dim: int
    temperature: float
    max_length: int
    pad_token_id: int
    vocab_size: int


@dataclass(frozen=True)
class Manifest:
    """The content of ``align.json``. `files` lists every other file of the bundle by its path."""

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
        """Size of `graph` in bytes, external data included."""
        return sum(self.files[name].bytes for name in graph.files)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Manifest:
        """Reads what `to_json` wrote.

        Raises:
            BundleError: another schema version, a missing key, a value of the wrong type, a path that leaves the
                bundle, or a graph whose file is not listed.
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
            raise BundleError(f"{error} ({MANIFEST_NAME} is not as align-export wrote it; export again)") from None
        for graph in manifest.graphs:
            for name in graph.files:
                if name not in manifest.files:
                    raise BundleError(f"{where}: {name}, the file of a graph, is not in the list of files")
        return manifest

    @classmethod
    def _read(cls, values: Mapping[str, Any], where: str) -> Manifest:
        model, files = require(where, values, "model", dict), require(where, values, "files", dict)
        graphs = require(where, values, "graphs", list)
        if MANIFEST_NAME in files:
            raise ConfigurationError(f"{where}: {MANIFEST_NAME} lists itself; it is not a plain path inside the bundle")
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
                relative_path(name): FileEntry.from_json(of_kind(f"{where}: {name}", entry, dict), f"{where}: {name}")
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
        raise ConfigurationError(
            f"{where}: embedding_dim is {facts.embedding_dim}, max_length {facts.max_length}, temperature "
            f"{facts.temperature}; expected at least 1, at least 2, and not 0"
        )
    return facts


def _strings(where: str, values: Mapping[str, Any]) -> dict[str, str]:
    return {key: of_kind(f"{where}: {key}", value, str) for key, value in values.items()}
