"""TensorRT engines of a bundle: the JSON description beside each plan, and which engine fits this machine.

Engines are no part of the manifest: they fit one GPU and one TensorRT, follow from a graph that the manifest lists, and
come and go while the bundle stays. ``engines/`` holds for each the plan, which TensorRT reads, and this description.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align_runtime.bundle import Bundle, sha256_of
from align_runtime.bundle_paths import inside
from align_runtime.errors import BackendUnavailableError, BundleError, ConfigurationError
from align_runtime.graph_entry import Graph
from align_runtime.json_files import of_kind, read_object, require
from align_runtime.parity import Limits, Parity

ENGINES = "engines"
ENGINE_SCHEMA = 1
# Which GPUs an engine runs on, as TensorRT's HardwareCompatibilityLevel: the one that it was built on, all of its
# compute capability, all from Ampere (8.0) on.
THIS_GPU, SAME_CAPABILITY, AMPERE_PLUS = "this", "same_compute_capability", "ampere_plus"
HARDWARE = (THIS_GPU, SAME_CAPABILITY, AMPERE_PLUS)
MAX_LEVEL = 5
SHA256 = re.compile(r"[0-9a-f]{64}")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Machine:
    """What an engine depends on.

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
                raise ConfigurationError(f"{where}: {version!r} is no version")
        return machine


@dataclass(frozen=True)
class EngineOptions:
    """How an engine was built.

    Attributes:
        level: TensorRT's optimisation level, 0 to 5.
        workspace: bytes that a layer may use for scratch, None for all that the GPU has.
        hardware: one of `HARDWARE`.
        version_compatible: whether later versions of TensorRT run it too.
        without_lean_runtime: whether a version-compatible engine leaves out the runtime of its own version.
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
    """One engine.

    Attributes:
        tower, variant: of the graph that it was built from.
        source: that graph's files and their sha256.
        file: path of the plan inside the bundle; `bytes` and `sha256` are its size and content.
        machine: where it was built.
        options: how it was built.
        profiles: the shape of every input in each of its optimisation profiles, which are for one shape each.
        seconds: that the build took.
        products: layers that multiply matrices or convolve, by the type that they compute in, as the engine says.
        parity, limits: distance from the reference, measured on the engine when it was built, and what is allowed.
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
        """The description in `file`.

        Raises:
            BundleError: it is unreadable, damaged or of another schema.
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
            raise BundleError(f"{error} (damaged or edited; build the engine again: align-export --engine)") from None

    @classmethod
    def _from_json(cls, values: Mapping[str, Any], where: str) -> EngineEntry:
        source = require(where, values, "source", dict)
        profiles = require(where, values, "profiles", list)
        products = require(where, values, "products", dict)
        return cls(
            tower=require(where, values, "tower", str),
            variant=require(where, values, "variant", str),
            source={inside(name): _sha256(where, digest) for name, digest in source.items()},
            file=inside(require(where, values, "file", str)),
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
        raise ConfigurationError(f"{where}: {shapes} cannot be the shapes of inputs")
    return shapes


def _sha256(where: str, value: Any) -> str:
    if not SHA256.fullmatch(of_kind(f"{where}: sha256", value, str)):
        raise ConfigurationError(f"{where}: sha256 is {value!r}; 64 hexadecimal digits were expected")
    return value


AMPERE = (8, 0)
BUILD = "build one on this machine: align-export … --engine"


def sidecar_of(plan: Path) -> Path:
    """Where the description of the engine in `plan` lies."""
    return plan.with_suffix(".json")


def engines_of(bundle: Bundle) -> list[EngineEntry]:
    """All engines that `bundle` describes, in the order of their names.

    Raises:
        BundleError: a description that cannot be read.
    """
    return [EngineEntry.read(file) for file in sorted((bundle.folder / ENGINES).glob("*.json"))]


def source_of(bundle: Bundle, graph: Graph) -> dict[str, str]:
    """sha256 of the files that an engine of `graph` is built from."""
    return {name: bundle.manifest.files[name].sha256 for name in graph.files}


def choose_engine(bundle: Bundle, graph: Graph, machine: Machine) -> EngineEntry:
    """The engine of `graph` that runs on `machine`; where several do, one that was built on the like of it.

    Raises:
        BackendUnavailableError: there is none; the message says what differs.
        BundleError: a description that cannot be read.
    """
    built = [entry for entry in engines_of(bundle) if (entry.tower, entry.variant) == (graph.tower, graph.variant)]
    if not built:
        raise BackendUnavailableError(
            f"the bundle {bundle.folder} holds no TensorRT engine of the {graph.tower} tower in {graph.variant}; "
            f"{BUILD}"
        )
    reasons = {entry.file: list(_obstacles(entry, machine, source_of(bundle, graph))) for entry in built}
    usable = [entry for entry in built if not reasons[entry.file]]
    if not usable:
        told = "; ".join(f"{file}: {' and '.join(found)}" for file, found in reasons.items())
        raise BackendUnavailableError(f"no TensorRT engine of the bundle {bundle.folder} runs here. {told}; {BUILD}")
    return min(usable, key=lambda entry: (entry.machine != machine, entry.file))


def _obstacles(entry: EngineEntry, machine: Machine, source: dict[str, str]) -> Iterator[str]:
    if entry.source != source:
        yield "it was built from another graph than the bundle holds now"
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
    """Path of the plan of `entry`, once it was found to be the file that was built: TensorRT trusts what it reads.

    Raises:
        BundleError: it is missing, another file, or a link that leaves the bundle.
    """
    path = bundle.folder / entry.file
    if not path.is_file() or not path.resolve().is_relative_to(bundle.folder.resolve()):
        raise BundleError(f"{bundle.folder}: {entry.file} is missing or leaves the bundle; {BUILD}")
    if path.stat().st_size != entry.bytes or sha256_of(path) != entry.sha256:
        raise BundleError(f"{bundle.folder}: {entry.file} is not the engine that was built; {BUILD}")
    return path


def version(text: str) -> tuple[int, ...]:
    """``"11.4.0"`` → ``(11, 4, 0)``, for comparing."""
    return tuple(int(part) for part in text.split("."))
