"""The options of ``align-export`` for engines of TensorRT and of TensorRT for RTX."""

from __future__ import annotations

import argparse
from collections.abc import Collection

from align_exporter.engine.request import EngineRequest
from align_exporter.variants import FP32
from align_runtime.backends.buckets import BATCHES
from align_runtime.engine_targets import (
    CAPABILITIES,
    DEFAULT_CAPABILITIES,
    RTX,
    TENSORRT,
    TITLES,
    TURING,
    checked_capabilities,
)
from align_runtime.engines import HARDWARE, MAX_LEVEL, RANGE, THIS_GPU, EngineOptions
from align_runtime.errors import ConfigurationError

MIB = 1 << 20
MAX_SIZE = 4096  # of a batch, and of a text in tokens
DEFAULTS = EngineOptions()
EXAMPLES = {False: "batch=1,8,32 or seq=8,16", True: "batch=1:8:32 or seq=8:16:64"}
TENSORRT_ONLY = ("level", "workspace", "hardware", "version_compatible", "without_lean_runtime")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--engine`` and the options that say how engines are built."""
    group = parser.add_argument_group(
        "TensorRT",
        "Engines are written to engines/ in the bundle. TensorRT builds them for the GPU of this machine, TensorRT for "
        "RTX on any machine for GeForce, RTX, L4, L40S, A10 and A40.",
    )
    group.add_argument("--engine", action="store_true", help="also build engines of the graphs that run on GPUs")
    group.add_argument(
        "--engine-runtime",
        choices=tuple(TITLES),
        default=TENSORRT,
        help=f"what builds and runs the engines: {', '.join(f'{name} is {title}' for name, title in TITLES.items())} "
        f"(default: {TENSORRT})",
    )
    group.add_argument(
        "--engine-compute-capability",
        metavar="X.Y,…",
        help=f"GPUs that TensorRT for RTX builds for, of {', '.join(CAPABILITIES)}; {TURING} gets an engine of its own "
        f"(default: {','.join(DEFAULT_CAPABILITIES)})",
    )
    group.add_argument(
        "--engine-variants", metavar="VARIANT,…", help="build engines of these variants only (default: all)"
    )
    group.add_argument(
        "--engine-profile",
        metavar="batch=N,…|seq=N,…",
        nargs="+",
        default=[],
        help="batch sizes and text lengths to build for; inputs are padded to the next one (default: "
        f"batch={','.join(map(str, BATCHES))} seq=8,16,32,… up to the model's longest text). For rtx also the least, "
        f"the most frequent and the largest of a range, batch={':'.join(map(str, BATCHES))}, which is its default",
    )
    group.add_argument(
        "--engine-level",
        metavar=f"0..{MAX_LEVEL}",
        type=int,
        default=DEFAULTS.level,
        help=f"TensorRT's optimization level; a higher one takes longer to build (default: {DEFAULTS.level})",
    )
    group.add_argument(
        "--engine-workspace", metavar="MIB", type=int, help="limit of a layer's scratch memory (default: no limit)"
    )
    group.add_argument(
        "--engine-hardware",
        choices=HARDWARE,
        default=THIS_GPU,
        help=f"GPUs that the engines run on; compatibility with other GPUs costs speed (default: {THIS_GPU})",
    )
    group.add_argument(
        "--engine-version-compatible",
        action="store_true",
        help="build engines that later TensorRT versions run too, and the lean runtime",
    )
    group.add_argument(
        "--engine-without-lean-runtime",
        action="store_true",
        help="leave the lean runtime out of version-compatible engines; the machine that runs them must have it",
    )


def engine_request(options: argparse.Namespace, exported: Collection[str]) -> EngineRequest | None:
    """Returns the checked engine options, or None without ``--engine``.

    Args:
        exported: the variants that the bundle will hold.

    Raises:
        ConfigurationError: an option out of range, a variant that is not exported, or an option without ``--engine``.
    """
    request = _request(options)
    if not options.engine:
        if request != EngineRequest():
            raise ConfigurationError("--engine-… options have no effect without --engine; add it or leave them out")
        return None
    for variant in request.variants:
        if variant not in exported:
            raise ConfigurationError(
                f"--engine-variants names {variant!r}, but the bundle will hold {', '.join(exported)}; export that "
                "variant too, or leave it out"
            )
    if TURING in request.capabilities and FP32 in (request.variants or exported):
        others = ",".join(variant for variant in exported if variant != FP32) or "fp16"
        raise ConfigurationError(
            f"TensorRT for RTX multiplies no FP32 matrices on compute capability {TURING}; add --engine-variants "
            f"{others}, or leave {TURING} out"
        )
    return request


def _request(options: argparse.Namespace) -> EngineRequest:
    if not 0 <= options.engine_level <= MAX_LEVEL:
        raise ConfigurationError(f"--engine-level: expected 0 to {MAX_LEVEL}, got {options.engine_level}")
    workspace = options.engine_workspace
    if workspace is not None and workspace < 1:
        raise ConfigurationError(f"--engine-workspace: expected at least 1 MiB, got {workspace}")
    if options.engine_without_lean_runtime and not options.engine_version_compatible:
        raise ConfigurationError("--engine-without-lean-runtime has no effect without --engine-version-compatible")
    variants = options.engine_variants
    ranges, sizes = _profile_sizes(options.engine_profile, options.engine_runtime)
    return EngineRequest(
        runtime=options.engine_runtime,
        capabilities=_capabilities(options),
        variants=() if variants is None else tuple(variants.split(",")),
        batches=sizes.get("batch", BATCHES),
        lengths=sizes.get("seq", ()),
        options=EngineOptions(
            level=options.engine_level,
            workspace=None if workspace is None else workspace * MIB,
            hardware=options.engine_hardware,
            version_compatible=options.engine_version_compatible,
            without_lean_runtime=options.engine_without_lean_runtime,
            ranges=ranges,
        ),
    )


def _capabilities(options: argparse.Namespace) -> tuple[str, ...]:
    given = options.engine_compute_capability
    if options.engine_runtime != RTX:
        if given is not None:
            raise ConfigurationError(
                "--engine-compute-capability has no effect with TensorRT, which builds for the GPU of this machine; "
                "add --engine-runtime rtx or leave it out"
            )
        return ()
    values = {f"engine_{name}": getattr(DEFAULTS, name) for name in TENSORRT_ONLY}
    for name, default in values.items():
        if getattr(options, name) not in (default, None):
            raise ConfigurationError(
                f"--{name.replace('_', '-')} has no effect with --engine-runtime rtx; leave it out"
            )
    if given is None:
        return DEFAULT_CAPABILITIES
    try:
        return checked_capabilities(tuple(given.split(",")))
    except ConfigurationError as error:
        raise ConfigurationError(f"--engine-compute-capability: {error}") from None


def _profile_sizes(entries: list[str], runtime: str) -> tuple[bool, dict[str, tuple[int, ...]]]:
    """``["batch=1,8", "seq=16"]`` → ``(False, {"batch": (1, 8), "seq": (16,)})``, with whether they are ranges."""
    kinds = {":" in entry for entry in entries} or {runtime == RTX}
    if kinds != {False} and (len(kinds) > 1 or runtime != RTX):
        raise ConfigurationError(
            f"--engine-profile: got {' '.join(entries)}; expected sizes such as batch=1,8, or, with --engine-runtime "
            "rtx, ranges alone such as batch=1:8:32"
        )
    ranges = kinds.pop()
    found: dict[str, tuple[int, ...]] = {}
    for entry in entries:
        key, _, text = entry.partition("=")
        try:
            sizes = tuple(int(size) for size in text.split(":" if ranges else ","))
        except ValueError:
            sizes = ()
        valid = {size for size in sizes if 1 <= size <= MAX_SIZE}
        ascending = list(sizes) == sorted(sizes if ranges and valid == set(sizes) else valid)
        if (
            key not in ("batch", "seq")
            or key in found
            or not ascending
            or not sizes
            or (ranges and len(sizes) != RANGE)
        ):
            raise ConfigurationError(
                f"--engine-profile: expected {EXAMPLES[ranges]}, each once, with ascending sizes from 1 to {MAX_SIZE}, "
                f"got {entry!r}"
            )
        found[key] = sizes
    return ranges, found
