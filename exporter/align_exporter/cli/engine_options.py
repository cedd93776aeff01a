"""The options of ``align-export`` for TensorRT engines."""

from __future__ import annotations

import argparse
from collections.abc import Collection

from align_exporter.engine.request import EngineRequest
from align_runtime.backends.buckets import BATCHES
from align_runtime.engines import HARDWARE, MAX_LEVEL, THIS_GPU, EngineOptions
from align_runtime.errors import ConfigurationError

MIB = 1 << 20
MAX_SIZE = 4096  # of a batch, and of a text in tokens
DEFAULTS = EngineOptions()


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--engine`` and the options that say how engines are built."""
    group = parser.add_argument_group(
        "TensorRT", "Engines are built for the GPU of this machine and written to engines/ in the bundle."
    )
    group.add_argument(
        "--engine", action="store_true", help="also build TensorRT engines of the graphs that run on GPUs"
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
        f"batch={','.join(map(str, BATCHES))} seq=8,16,32,… up to the model's longest text)",
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
    sizes = _profile_sizes(options.engine_profile)
    return EngineRequest(
        variants=() if variants is None else tuple(variants.split(",")),
        batches=sizes.get("batch", BATCHES),
        lengths=sizes.get("seq", ()),
        options=EngineOptions(
            level=options.engine_level,
            workspace=None if workspace is None else workspace * MIB,
            hardware=options.engine_hardware,
            version_compatible=options.engine_version_compatible,
            without_lean_runtime=options.engine_without_lean_runtime,
        ),
    )


def _profile_sizes(entries: list[str]) -> dict[str, tuple[int, ...]]:
    """``["batch=1,8", "seq=16"]`` → ``{"batch": (1, 8), "seq": (16,)}``."""
    found: dict[str, tuple[int, ...]] = {}
    for entry in entries:
        key, _, text = entry.partition("=")
        try:
            sizes = tuple(int(size) for size in text.split(","))
        except ValueError:
            sizes = ()
        ascending = list(sizes) == sorted({size for size in sizes if 1 <= size <= MAX_SIZE})
        if key not in ("batch", "seq") or key in found or not sizes or not ascending:
            raise ConfigurationError(
                f"--engine-profile: expected batch=1,8,32 or seq=8,16, each once, with ascending sizes from 1 to "
                f"{MAX_SIZE}, got {entry!r}"
            )
        found[key] = sizes
    return found
