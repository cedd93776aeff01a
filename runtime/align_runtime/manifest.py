"""``align.json``: the schema of a bundle's manifest, which every reader of a bundle opens first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.foreign_text import printable, shortened
from align_runtime.graph_entry import Graph
from align_runtime.json_files import free_form, number, of_kind, relative_path, require, short_text, text
from align_runtime.preprocessing import ImagePreprocessing

SCHEMA_VERSION = 6
MANIFEST_NAME = "align.json"
MAX_NOTE = 300  # characters of a remark that is printed
# They describe one build and are not part of the bundle's content, so the manifest does not list them.
REPORT_NAMES = ("report.html", "report.json")
MAX_MANIFEST_BYTES = 16 * 1024 * 1024  # those of the published sizes are under 100 kB
MAX_FILES = 10_000
MAX_GRAPHS = 256
MAX_FILE_BYTES = 1 << 36
MAX_SEED = (1 << 63) - 1


@dataclass(frozen=True)
class FileEntry:
    """Size of a file in bytes, and its sha256 in hexadecimal."""

    bytes: int
    sha256: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> FileEntry:
        sha256 = check_sha256(require(where, values, "sha256", str), f"{where}: sha256")
        return cls(bytes=number(where, values, "bytes", int, 0, MAX_FILE_BYTES), sha256=sha256)


def check_sha256(value: Any, name: str = "manifest_sha256") -> str:
    """`value`, if it is a sha256 in lower-case hexadecimal, as sha256sum prints it; otherwise ConfigurationError."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ConfigurationError(f"{name} is {shortened(value, 80)}; expected 64 hexadecimal digits in lower case")
    return value


@dataclass(frozen=True)
class Provenance:
    """The inputs of an export.

    Attributes:
        name: name of the checkpoint folder, or id on the Hub.
        revision: commit on the Hub; None for a folder.
        files: sha256 of every file of the checkpoint that was read.
        options: options of the export.
        tools: versions of the packages that were used; under ``"source"`` a hash of align-onnx's own modules.
        random_weights: seed of the random weights that stand in for those of a checkpoint; None for real ones.
        notes: a line for everything of the checkpoint that was ignored or renamed.
    """

    name: str
    revision: str | None
    files: Mapping[str, str]
    options: Mapping[str, Any]
    tools: Mapping[str, str]
    random_weights: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def random_words(self) -> str | None:
        """What to print where the weights are random; None for those of a checkpoint."""
        if self.random_weights is None:
            return None
        return f"RANDOM WEIGHTS (seed {self.random_weights}): for latency and memory only, embeddings mean nothing"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What everyone who looks at the bundle is told, a line each, safe to print."""
        random = () if self.random_words is None else (self.random_words,)
        return (*random, *(printable(note, MAX_NOTE) for note in self.notes))

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Provenance:
        return cls(
            name=text(where, values, "name"),
            revision=None if values.get("revision", "") is None else text(where, values, "revision"),
            files=_strings(where, require(where, values, "files", dict)),
            options=free_form(f"{where}: options", require(where, values, "options", dict)),
            tools=_strings(where, require(where, values, "tools", dict)),
            random_weights=_seed(where, values),
            notes=tuple(of_kind(f"{where}: notes", note, str) for note in require(where, values, "notes", list)),
        )


# The published model: 640, 0.01, 64, 0 and 30,522. A temperature divides cosines: beyond this range logits overflow in
# float32, or all labels are alike.
MODEL_RANGES = {
    "embedding_dim": (1, 1 << 16),
    "temperature": (1e-6, 1e6),
    "max_length": (2, 1 << 16),
    "pad_token_id": (0, 1 << 24),
    "vocab_size": (1, 1 << 24),
}


@dataclass(frozen=True)
class ModelFacts:
    """Constants of the model.

    Attributes:
        embedding_dim: length of an embedding.
        temperature: logits are cosines divided by it.
        max_length: maximum number of tokens of a text, [CLS] and [SEP] included.
        pad_token_id: id that pads shorter texts of a batch.
        vocab_size: rows of the token embedding table.

    Raises:
        ConfigurationError: a value is out of range: see `MODEL_RANGES`.
    """

    embedding_dim: int
    temperature: float
    max_length: int
    pad_token_id: int
    vocab_size: int

    def __post_init__(self) -> None:
        for name, (least, most) in MODEL_RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:  # NaN never is
                raise ConfigurationError(f"{name} is {shortened(value)}; expected {least} to {most}")
        if self.pad_token_id >= self.vocab_size:
            raise ConfigurationError(
                f"pad_token_id is {self.pad_token_id}; expected an id below vocab_size, {self.vocab_size}"
            )


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
        if not 1 <= len(graphs) <= MAX_GRAPHS or len(files) > MAX_FILES:
            raise ConfigurationError(
                f"{where}: {len(graphs)} graphs and {len(files)} files; expected 1 to {MAX_GRAPHS} graphs, and at most "
                f"{MAX_FILES} files"
            )
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
    kinds = dict.fromkeys(MODEL_RANGES, int) | {"temperature": float}
    facts = {name: require(where, values, name, kind) for name, kind in kinds.items()}
    try:
        return ModelFacts(**facts)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _seed(where: str, values: Mapping[str, Any]) -> int | None:
    given = require(where, values, "random_weights", (int, type(None)))
    return None if given is None else number(where, values, "random_weights", int, 0, MAX_SEED)


def _strings(where: str, values: Mapping[str, Any]) -> dict[str, str]:
    return {short_text(where, key): short_text(f"{where}: {key}", value) for key, value in values.items()}
