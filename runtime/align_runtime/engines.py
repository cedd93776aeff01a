"""Engines of a bundle, of TensorRT and of TensorRT for RTX: the JSON description beside each plan.

The manifest does not list engines: an engine is derived from a graph that the manifest lists, fits one kind of GPU and
one TensorRT, and can be added or removed later. ``engines/`` holds the plan and the description of each.
`align_runtime.engine_choice` chooses the one that fits a machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from align_runtime.bundle import Bundle
from align_runtime.engine_targets import BUILD, RTX, TARGET_TYPES, Target
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.graph_entry import MAX_DIMENSIONS, MAX_SIZE, Graph
from align_runtime.json_files import number, of_kind, parse_object, relative_path, require, short_text, text
from align_runtime.manifest import check_sha256
from align_runtime.parity import Limits, Parity
from align_runtime.precision import MAX_COUNT
from align_runtime.regular_files import read_regular

ENGINES = "engines"
ENGINE_SCHEMA = 3
# GPUs that an engine runs on, TensorRT's HardwareCompatibilityLevel: the model that it was built on, every GPU of the
# same compute capability, every GPU from Ampere on.
THIS_GPU, SAME_CAPABILITY, AMPERE_PLUS = "this", "same_compute_capability", "ampere_plus"
HARDWARE = (THIS_GPU, SAME_CAPABILITY, AMPERE_PLUS)
MAX_LEVEL = 5
MAX_WORKSPACE = 1 << 50
MAX_PROFILES = 4096
RANGE = 3  # shapes that say a range: the smallest, the most frequent, the largest
MAX_SECONDS = 1e9
MAX_ENGINES = 256  # descriptions in a bundle
MAX_DESCRIPTION_BYTES = 1 << 20
MAX_PLAN_BYTES = 1 << 32  # an FP32 plan of the published text tower has 700 MB

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class EngineOptions:
    """How an engine was built.

    Attributes:
        level: TensorRT's optimization level, 0 to 5.
        workspace: limit of a layer's scratch memory in bytes; None for all memory of the GPU.
        hardware: one of `HARDWARE`.
        version_compatible: whether later versions of TensorRT run it too.
        without_lean_runtime: whether a version-compatible engine omits the lean runtime of its own version.
        ranges: whether it has one profile, for all shapes between two, and not one for each shape.

    TensorRT for RTX has no level, no limit of scratch memory and no versions to be compatible with.
    """

    level: int = 3
    workspace: int | None = None
    hardware: str = THIS_GPU
    version_compatible: bool = False
    without_lean_runtime: bool = False
    ranges: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> EngineOptions:
        hardware = require(where, values, "hardware", str)
        if hardware not in HARDWARE:
            raise ConfigurationError(f"{where}: hardware is {hardware!r}; known: {', '.join(HARDWARE)}")
        return cls(
            level=number(where, values, "level", int, 0, MAX_LEVEL),
            workspace=None
            if values.get("workspace", 0) is None
            else number(where, values, "workspace", int, 0, MAX_WORKSPACE),
            hardware=hardware,
            version_compatible=require(where, values, "version_compatible", bool),
            without_lean_runtime=require(where, values, "without_lean_runtime", bool),
            ranges=require(where, values, "ranges", bool),
        )


@dataclass(frozen=True)
class EngineEntry:
    """The description of one engine.

    Attributes:
        tower, variant: of the graph that it was built from.
        source: sha256 of that graph's files, by path.
        file: path of the plan inside the bundle, with its size `bytes` and its `sha256`.
        machine: the machine that it was built on, or the GPUs that it was built for.
        options: the options that it was built with.
        profiles: the shape of every input in each optimization profile; a profile has one shape. With
            ``options.ranges``, the smallest, the most frequent and the largest shape of the one profile.
        seconds: duration of the build.
        products: number of matrix multiplications and convolutions by element type, as the engine reports them; in an
            engine of TensorRT for RTX, as the network reports them that it was built from.
        parity, limits: distance from the reference, measured on the engine at build time, and its limits. None where it
            was built without a GPU.
    """

    tower: str
    variant: str
    source: Mapping[str, str]
    file: str
    bytes: int
    sha256: str
    machine: Target
    options: EngineOptions
    profiles: tuple[Shapes, ...]
    seconds: float
    products: Mapping[str, int]
    parity: Parity | None
    limits: Limits

    @property
    def runtime(self) -> str:
        """What runs it, one of `TARGET_TYPES`."""
        return self.machine.runtime

    def to_json(self) -> dict[str, Any]:
        parity = None if self.parity is None else self.parity.to_json()
        return {"schema_version": ENGINE_SCHEMA, "runtime": self.runtime, **asdict(self), "parity": parity}

    @classmethod
    def read(cls, file: Path) -> EngineEntry:
        """Reads the description in `file`, which is that of the plan of the same name.

        Raises:
            BundleError: it cannot be read, is not valid, names another file, or has another schema version.
        """
        where = str(file)
        values = parse_object(read_regular(file, MAX_DESCRIPTION_BYTES, BundleError), where, BundleError)
        if values.get("schema_version") != ENGINE_SCHEMA:
            raise BundleError(
                f"{file}: schema version {values.get('schema_version')!r}; this runtime reads version {ENGINE_SCHEMA}. "
                "Build the engine again with align-export --engine"
            )
        try:
            entry = cls._from_json(values, where)
            if entry.file != f"{ENGINES}/{file.stem}.plan":
                raise ConfigurationError(
                    f"{where}: file is {shortened(entry.file)}; expected {ENGINES}/{file.stem}.plan"
                )
            return entry
        except ConfigurationError as error:
            raise BundleError(
                f"{error} (the description was changed; build the engine again: align-export --engine)"
            ) from None

    @classmethod
    def _from_json(cls, values: Mapping[str, Any], where: str) -> EngineEntry:
        source = require(where, values, "source", dict)
        runtime = require(where, values, "runtime", str)
        if runtime not in TARGET_TYPES:
            raise ConfigurationError(f"{where}: runtime is {shortened(runtime)}; known: {', '.join(TARGET_TYPES)}")
        options = EngineOptions.from_json(require(where, values, "options", dict), f"{where}: options")
        products = require(where, values, "products", dict)
        return cls(
            tower=text(where, values, "tower"),
            variant=text(where, values, "variant"),
            source={relative_path(name): check_sha256(digest, f"{where}: sha256") for name, digest in source.items()},
            file=relative_path(require(where, values, "file", str)),
            bytes=number(where, values, "bytes", int, 1, MAX_PLAN_BYTES),
            sha256=check_sha256(require(where, values, "sha256", str), f"{where}: sha256"),
            machine=TARGET_TYPES[runtime].from_json(require(where, values, "machine", dict), f"{where}: machine"),
            options=options,
            profiles=_profiles(f"{where}: profiles", require(where, values, "profiles", list), options.ranges),
            seconds=number(where, values, "seconds", float, 0, MAX_SECONDS),
            products={
                short_text(where, kind): number(f"{where}: products", products, kind, int, 0, MAX_COUNT)
                for kind in products
            },
            parity=None
            if runtime == RTX and values.get("parity", 0) is None
            else Parity.from_json(require(where, values, "parity", dict), f"{where}: parity"),
            limits=Limits.from_json(require(where, values, "limits", dict), f"{where}: limits"),
        )


def _profiles(where: str, values: list[Any], ranges: bool) -> tuple[dict[str, tuple[int, ...]], ...]:
    counts = (RANGE, RANGE) if ranges else (1, MAX_PROFILES)
    if not counts[0] <= len(values) <= counts[1]:
        raise ConfigurationError(
            f"{where}: {len(values)} shapes; expected {' to '.join(map(str, dict.fromkeys(counts)))}"
        )
    return tuple(_shapes(where, of_kind(where, shapes, dict)) for shapes in values)


def _shapes(where: str, values: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    shapes = {
        short_text(where, name): tuple(of_kind(where, size, int) for size in of_kind(where, shape, list))
        for name, shape in values.items()
    }
    if not shapes or any(not 2 <= len(shape) <= MAX_DIMENSIONS for shape in shapes.values()):
        raise ConfigurationError(f"{where}: {shortened(shapes)}; expected inputs of 2 to {MAX_DIMENSIONS} dimensions")
    if any(not 1 <= size <= MAX_SIZE for shape in shapes.values() for size in shape):
        raise ConfigurationError(f"{where}: {shortened(shapes)}; expected sizes from 1 to {MAX_SIZE}")
    return shapes


def shape_ranges(profiles: tuple[Shapes, ...], options: EngineOptions) -> list[tuple[Shapes, ...]]:
    """The smallest, the most frequent and the largest shapes of every optimization profile."""
    return [profiles] if options.ranges else [(shapes,) * RANGE for shapes in profiles]


def sidecar_of(plan: Path) -> Path:
    """Path of the description of the engine in `plan`."""
    return plan.with_suffix(".json")


@dataclass(frozen=True)
class Engines:
    """The engines of a bundle: `entries`, sorted by file name, and in `skipped` why the others cannot be used."""

    entries: tuple[EngineEntry, ...]
    skipped: tuple[str, ...] = ()


def read_engines(bundle: Bundle) -> Engines:
    """The engines of `bundle`. A description that cannot be read hides neither the others nor the graphs."""
    folder = bundle.folder / ENGINES
    if folder.is_symlink():
        return Engines((), (f"{folder} is a link; expected the folder itself",))
    entries, skipped = [], []
    files = sorted(islice(folder.glob("*.json"), MAX_ENGINES + 1))
    for file in files[:MAX_ENGINES]:
        try:
            entries.append(EngineEntry.read(file))
        except BundleError as error:
            skipped.append(str(error))
    if len(files) > MAX_ENGINES:
        skipped.append(f"{folder} has more than {MAX_ENGINES} descriptions; the others are not read")
    return Engines(tuple(entries), tuple(skipped))


def engines_of(bundle: Bundle) -> list[EngineEntry]:
    """Descriptions of the engines of `bundle` that can be read, sorted by file name."""
    return list(read_engines(bundle).entries)


def source_of(bundle: Bundle, graph: Graph) -> dict[str, str]:
    """sha256 of the files of `graph`, by path."""
    return {name: bundle.manifest.files[name].sha256 for name in graph.files}


def read_plan(bundle: Bundle, entry: EngineEntry) -> bytes:
    """The plan of `entry`, after a check of its size and sha256: TensorRT trusts the bytes that it reads.

    Raises:
        BundleError: it is missing, differs from the description, or is a link.
    """
    path = bundle.folder / entry.file
    if path.is_symlink() or path.parent.is_symlink():
        raise BundleError(f"{bundle.folder}: {entry.file} is a link; {BUILD[entry.runtime]}")
    try:
        plan = read_regular(path, entry.bytes, BundleError)
    except BundleError as error:
        raise BundleError(f"{error}; {BUILD[entry.runtime]}") from None
    if len(plan) != entry.bytes or hashlib.sha256(plan).hexdigest() != entry.sha256:
        raise BundleError(f"{bundle.folder}: {entry.file} is not the engine that was built; {BUILD[entry.runtime]}")
    return plan
