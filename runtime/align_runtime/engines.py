"""TensorRT engines of a bundle: the JSON description beside each plan, and the choice of one that fits the machine.

The manifest does not list engines: an engine is derived from a graph that the manifest lists, fits one kind of GPU and
one TensorRT, and can be added or removed later. ``engines/`` holds the plan and the description of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align_runtime.bundle import Bundle, sha256_of
from align_runtime.errors import BackendUnavailableError, BundleError, ConfigurationError
from align_runtime.graph_entry import Graph
from align_runtime.json_files import of_kind, read_object, relative_path, require
from align_runtime.parity import Limits, Parity

ENGINES = "engines"
ENGINE_SCHEMA = 2
# GPUs that an engine runs on, TensorRT's HardwareCompatibilityLevel: the model that it was built on, every GPU of the
# same compute capability, every GPU from Ampere on.
THIS_GPU, SAME_CAPABILITY, AMPERE_PLUS = "this", "same_compute_capability", "ampere_plus"
HARDWARE = (THIS_GPU, SAME_CAPABILITY, AMPERE_PLUS)
AMPERE = (8, 0)
MAX_LEVEL = 5
MAX_REASONS = 2  # engines that an error describes
SHA256 = re.compile(r"[0-9a-f]{64}")
BUILD = "build one on this machine: align-export … --engine"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Machine:
    """The hardware and software that an engine depends on.

    Attributes:
        gpu: its name, e.g. ``"NVIDIA H100 80GB HBM3"``.
        compute_capability: e.g. ``"9.0"``.
        driver: the newest CUDA version that the driver supports, e.g. ``"13.0"``.
        tensorrt: version, e.g. ``"11.4.0.106"``.
    """

    gpu: str
    compute_capability: str
    driver: str
    tensorrt: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> Machine:
        machine = cls(
            gpu=require(where, values, "gpu", str),
            compute_capability=require(where, values, "compute_capability", str),
            driver=require(where, values, "driver", str),
            tensorrt=require(where, values, "tensorrt", str),
        )
        for version in (machine.compute_capability, machine.driver, machine.tensorrt):
            if not re.fullmatch(r"\d+(\.\d+)+", version):
                raise ConfigurationError(f"{where}: {version!r} is not a version")
        return machine


@dataclass(frozen=True)
class EngineOptions:
    """How an engine was built.

    Attributes:
        level: TensorRT's optimization level, 0 to 5.
        workspace: limit of a layer's scratch memory in bytes; None for all memory of the GPU.
        hardware: one of `HARDWARE`.
        version_compatible: whether later versions of TensorRT run it too.
        without_lean_runtime: whether a version-compatible engine omits the lean runtime of its own version.
    """

    level: int = 3
    workspace: int | None = None
    hardware: str = THIS_GPU
    version_compatible: bool = False
    without_lean_runtime: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> EngineOptions:
        hardware = require(where, values, "hardware", str)
        if hardware not in HARDWARE:
            raise ConfigurationError(f"{where}: hardware is {hardware!r}; known: {', '.join(HARDWARE)}")
        return cls(
            level=require(where, values, "level", int),
            workspace=require(where, values, "workspace", (int, type(None))),
            hardware=hardware,
            version_compatible=require(where, values, "version_compatible", bool),
            without_lean_runtime=require(where, values, "without_lean_runtime", bool),
        )


@dataclass(frozen=True)
class EngineEntry:
    """The description of one engine.

    Attributes:
        tower, variant: of the graph that it was built from.
        source: sha256 of that graph's files, by path.
        file: path of the plan inside the bundle, with its size `bytes` and its `sha256`.
        machine: the machine that it was built on.
        options: the options that it was built with.
        profiles: the shape of every input in each optimization profile; a profile has one shape.
        seconds: duration of the build.
        products: number of matrix multiplications and convolutions by element type, as the engine reports them.
        parity, limits: distance from the reference, measured on the engine at build time, and its limits.
    """

    tower: str
    variant: str
    source: Mapping[str, str]
    file: str
    bytes: int
    sha256: str
    machine: Machine
    options: EngineOptions
    profiles: tuple[Shapes, ...]
    seconds: float
    products: Mapping[str, int]
    parity: Parity
    limits: Limits

    def to_json(self) -> dict[str, Any]:
        return {"schema_version": ENGINE_SCHEMA, **asdict(self), "parity": self.parity.to_json()}

    @classmethod
    def read(cls, file: Path) -> EngineEntry:
        """Reads the description in `file`.

        Raises:
            BundleError: it cannot be read, is not valid, or has another schema version.
        """
        values, where = read_object(file, BundleError), str(file)
        if values.get("schema_version") != ENGINE_SCHEMA:
            raise BundleError(
                f"{file}: schema version {values.get('schema_version')!r}; this runtime reads version {ENGINE_SCHEMA}. "
                "Build the engine again with align-export --engine"
            )
        try:
            return cls._from_json(values, where)
        except ConfigurationError as error:
            raise BundleError(
                f"{error} (the description was changed; build the engine again: align-export --engine)"
            ) from None

    @classmethod
    def _from_json(cls, values: Mapping[str, Any], where: str) -> EngineEntry:
        source = require(where, values, "source", dict)
        profiles = require(where, values, "profiles", list)
        products = require(where, values, "products", dict)
        return cls(
            tower=require(where, values, "tower", str),
            variant=require(where, values, "variant", str),
            source={relative_path(name): _sha256(where, digest) for name, digest in source.items()},
            file=relative_path(require(where, values, "file", str)),
            bytes=require(where, values, "bytes", int),
            sha256=_sha256(where, require(where, values, "sha256", str)),
            machine=Machine.from_json(require(where, values, "machine", dict), f"{where}: machine"),
            options=EngineOptions.from_json(require(where, values, "options", dict), f"{where}: options"),
            profiles=tuple(_shapes(f"{where}: profiles", of_kind(where, shapes, dict)) for shapes in profiles),
            seconds=require(where, values, "seconds", float),
            products={kind: of_kind(f"{where}: products", count, int) for kind, count in products.items()},
            parity=Parity.from_json(require(where, values, "parity", dict), f"{where}: parity"),
            limits=Limits.from_json(require(where, values, "limits", dict), f"{where}: limits"),
        )


def _shapes(where: str, values: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    shapes = {
        name: tuple(of_kind(where, size, int) for size in of_kind(where, shape, list)) for name, shape in values.items()
    }
    if not shapes or any(size < 1 for shape in shapes.values() for size in shape):
        raise ConfigurationError(f"{where}: {shapes}; expected inputs whose sizes are 1 or more")
    return shapes


def _sha256(where: str, value: Any) -> str:
    if not SHA256.fullmatch(of_kind(f"{where}: sha256", value, str)):
        raise ConfigurationError(f"{where}: sha256 is {value[:80]!r}; expected 64 hexadecimal digits")
    return value


def sidecar_of(plan: Path) -> Path:
    """Path of the description of the engine in `plan`."""
    return plan.with_suffix(".json")


def engines_of(bundle: Bundle) -> list[EngineEntry]:
    """Descriptions of all engines of `bundle`, sorted by file name.

    Raises:
        BundleError: a description cannot be read.
    """
    return [EngineEntry.read(file) for file in sorted((bundle.folder / ENGINES).glob("*.json"))]


def source_of(bundle: Bundle, graph: Graph) -> dict[str, str]:
    """sha256 of the files of `graph`, by path."""
    return {name: bundle.manifest.files[name].sha256 for name in graph.files}


def choose_engine(bundle: Bundle, graph: Graph, machine: Machine) -> EngineEntry:
    """The engine of `graph` that runs on `machine`; of several, one that was built on such a machine.

    Raises:
        BackendUnavailableError: there is none; the message says what differs.
        BundleError: a description cannot be read.
    """
    built = [entry for entry in engines_of(bundle) if (entry.tower, entry.variant) == (graph.tower, graph.variant)]
    if not built:
        raise BackendUnavailableError(
            f"the bundle {bundle.folder} has no TensorRT engine of the {graph.tower} tower in {graph.variant}; {BUILD}"
        )
    reasons = {entry.file: list(_obstacles(entry, machine, source_of(bundle, graph))) for entry in built}
    usable = [entry for entry in built if not reasons[entry.file]]
    if not usable:
        differences = "; ".join(f"{file}: {' and '.join(found)}" for file, found in list(reasons.items())[:MAX_REASONS])
        raise BackendUnavailableError(
            f"no TensorRT engine of the bundle {bundle.folder} runs here. {differences}; {BUILD}"
        )
    return min(usable, key=lambda entry: (entry.machine != machine, entry.file))


def _obstacles(entry: EngineEntry, machine: Machine, source: dict[str, str]) -> Iterator[str]:
    if entry.source != source:
        yield "it was built from another graph than the one now in the bundle"
    built, options = entry.machine, entry.options
    if options.version_compatible:
        if version(machine.tensorrt) < version(built.tensorrt):
            yield f"it needs TensorRT {built.tensorrt} or newer, here is {machine.tensorrt}"
    elif machine.tensorrt != built.tensorrt:
        yield f"it needs TensorRT {built.tensorrt}, here is {machine.tensorrt}"
    capability = version(machine.compute_capability)
    if options.hardware == AMPERE_PLUS:
        if capability < AMPERE:
            yield f"it needs compute capability 8.0 or newer, {machine.gpu} has {machine.compute_capability}"
    elif machine.compute_capability != built.compute_capability:
        yield f"it needs compute capability {built.compute_capability}, {machine.gpu} has {machine.compute_capability}"
    elif options.hardware != SAME_CAPABILITY and machine.gpu != built.gpu:
        yield f"it was built for {built.gpu}, here is {machine.gpu}"
    if version(machine.driver)[0] < version(built.driver)[0]:
        yield f"it needs a driver for CUDA {version(built.driver)[0]}, the one here supports {machine.driver}"


def check_plan(bundle: Bundle, entry: EngineEntry) -> Path:
    """Path of the plan of `entry`, after a check of its size and sha256: TensorRT trusts the bytes that it reads.

    Raises:
        BundleError: it is missing, differs from the description, or is a link that leaves the bundle.
    """
    path = bundle.folder / entry.file
    if not path.is_file() or not path.resolve().is_relative_to(bundle.folder.resolve()):
        raise BundleError(f"{bundle.folder}: {entry.file} is missing or leaves the bundle; {BUILD}")
    if path.stat().st_size != entry.bytes or sha256_of(path) != entry.sha256:
        raise BundleError(f"{bundle.folder}: {entry.file} is not the engine that was built; {BUILD}")
    return path


def version(text: str) -> tuple[int, ...]:
    """``"11.4.0"`` → ``(11, 4, 0)``, for comparisons."""
    return tuple(int(part) for part in text.split("."))
