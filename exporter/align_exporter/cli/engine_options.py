"""The options of ``align-export`` for TensorRT engines."""

from __future__ import annotations

import argparse

from align_exporter.engine.request import EngineRequest
from align_runtime.backends.buckets import BATCHES
from align_runtime.engines import HARDWARE, MAX_LEVEL, THIS_GPU, EngineOptions
from align_runtime.errors import ConfigurationError

MIB = 1 << 20
MAX_BATCH = 4096
DEFAULTS = EngineOptions()


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """``--engine`` and how engines are built."""
    group = parser.add_argument_group("TensorRT", "Engines are built for the GPU of this machine and stay beside it.")
    group.add_argument("--engine", action="store_true", help="also build TensorRT engines of the graphs for GPUs")
    group.add_argument(
        "--engine-variants", metavar="VARIANT,…", help="of these variants only (default: all in the bundle)"
    )
    group.add_argument(
        "--profile",
        metavar="batch=N,…|seq=N,…",
        nargs="+",
        default=[],
        help="batches and lengths of texts to build for; inputs are filled up to the next one (default: "
        f"batch={','.join(map(str, BATCHES))} seq=8,16,32,… up to the model's longest)",
    )
    group.add_argument(
        "--engine-level",
        metavar=f"0..{MAX_LEVEL}",
        type=int,
        default=DEFAULTS.level,
        help=f"TensorRT's optimisation level; higher builds longer (default: {DEFAULTS.level})",
    )
    group.add_argument("--engine-workspace", metavar="MIB", type=int, help="scratch memory of a layer (default: all)")
    group.add_argument(
        "--engine-hardware",
        choices=HARDWARE,
        default=THIS_GPU,
        help=f"GPUs that the engines run on; more than this one cost speed (default: {THIS_GPU})",
    )
    group.add_argument(
        "--engine-version-compatible", action="store_true", help="later TensorRT versions run them too, lean ones also"
    )
    group.add_argument(
        "--engine-without-lean-runtime",
        action="store_true",
        help="leave the runtime out of version-compatible engines; the machine that runs them has one",
    )


def engine_request(options: argparse.Namespace) -> EngineRequest | None:
    """The engines asked for; None without ``--engine``.

    Raises:
        ConfigurationError: an option out of range, or one for engines without ``--engine``.
    """
    request = _request(options)
    if options.engine:
        return request
    if request != EngineRequest():
        raise ConfigurationError("--profile and --engine-… do nothing without --engine; add it or leave them out")
    return None


def _request(options: argparse.Namespace) -> EngineRequest:
    if not 0 <= options.engine_level <= MAX_LEVEL:
        raise ConfigurationError(f"--engine-level is {options.engine_level}; 0 to {MAX_LEVEL} is needed")
    workspace = options.engine_workspace
    if workspace is not None and workspace < 1:
        raise ConfigurationError(f"--engine-workspace is {workspace}; at least 1 MiB is needed")
    if options.engine_without_lean_runtime and not options.engine_version_compatible:
        raise ConfigurationError(
            "--engine-without-lean-runtime is for version-compatible engines; add --engine-version-compatible"
        )
    variants = options.engine_variants
    profile = _profile(options.profile)
    return EngineRequest(
        variants=() if variants is None else tuple(variants.split(",")),
        batches=profile.get("batch", BATCHES),
        lengths=profile.get("seq", ()),
        options=EngineOptions(
            level=options.engine_level,
            workspace=None if workspace is None else workspace * MIB,
            hardware=options.engine_hardware,
            version_compatible=options.engine_version_compatible,
            without_lean_runtime=options.engine_without_lean_runtime,
        ),
    )


def _profile(entries: list[str]) -> dict[str, tuple[int, ...]]:
    """``["batch=1,8", "seq=16"]`` → ``{"batch": (1, 8), "seq": (16,)}``."""
    found: dict[str, tuple[int, ...]] = {}
    for entry in entries:
        key, _, text = entry.partition("=")
        try:
            sizes = tuple(int(size) for size in text.split(","))
        except ValueError:
            sizes = ()
        ascending = list(sizes) == sorted({size for size in sizes if 1 <= size <= MAX_BATCH})
        if key not in ("batch", "seq") or key in found or not sizes or not ascending:
            raise ConfigurationError(
                f"--profile has {entry!r}; batch=1,8,32 and seq=8,16 are understood, each once, with ascending numbers "
                f"from 1 to {MAX_BATCH}"
            )
        found[key] = sizes
    return found
