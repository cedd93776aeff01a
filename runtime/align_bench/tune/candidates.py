"""What is tried: devices, precisions, threads, streams and batch sizes that can be the fastest for a target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from align_runtime.bundle import Bundle
from align_runtime.computed import computed_on
from align_runtime.devices import BACKENDS, backend_of
from align_runtime.errors import ConfigurationError
from align_runtime.tower_settings import TowerSettings

LATENCY, THROUGHPUT = "latency", "throughput"
BATCHES = {"vision": (2, 4), "text": (8, 16, 64)}  # beside the runtime's own choice
NEVER_FASTER = ("fp16",)  # on a CPU: tried only where it is asked for


def settings_to_try(
    bundle: Bundle, tower: str, target: str, cores: int, devices: Sequence[str] = (), precisions: Sequence[str] = ()
) -> list[TowerSettings]:
    """All settings but batch sizes; the first one is the default that the others are compared with.

    That is what `align_runtime.load` does if nothing else is asked for: fp32 on the CPU, or the first of `devices` and
    `precisions`.

    Args:
        devices, precisions: to be tried; all if empty.

    Raises:
        ConfigurationError: the bundle has nothing for `tower` among them, or lacks one of `precisions` on all devices.
    """
    missing = set(precisions)
    found: list[TowerSettings] = []
    for device in devices or BACKENDS:
        held = [graph.variant for graph in computed_on(device, bundle.manifest.graphs) if graph.tower == tower]
        asked = precisions or dict.fromkeys(held)
        usable = [name for name in asked if name in held and _is_worth_it(name, device, precisions)]
        missing -= set(usable)
        for precision in usable:
            found += [
                TowerSettings(precision, device, threads, streams) for threads, streams in _ways(device, target, cores)
            ]
    if missing or not found:
        wanted = f" in {', '.join(sorted(missing))}" if missing else ""
        raise ConfigurationError(
            f"{bundle.folder} has no {tower} graph{wanted} for {', '.join(devices or BACKENDS)}; align-inspect lists "
            "what it has"
        )
    return found if precisions else sorted(found, key=lambda one: one.precision != "fp32")  # the default first


def batch_sizes(tower: str, target: str, settings: TowerSettings) -> tuple[int, ...]:
    """Batch sizes to try with `settings`; none on a GPU, which is set up for its own, or for single inputs."""
    return BATCHES[tower] if target == THROUGHPUT and settings.on_cpu else ()


def inputs_of_run(tower: str, target: str, device: str, cores: int) -> int:
    """Number of inputs in one timed run: enough for a batch of the largest size on every stream."""
    if target == LATENCY:
        return 1
    if not backend_of(device).on_cpu:
        return {"vision": 64, "text": 512}[tower]
    return max(BATCHES[tower]) * max(cores, 2)


def _is_worth_it(precision: str, device: str, asked: Sequence[str]) -> bool:
    return precision in asked or not (backend_of(device).on_cpu and precision in NEVER_FASTER)


def _ways(device: str, target: str, cores: int) -> Iterator[tuple[int | None, int | None]]:
    """Threads and streams; None is the default. A single input does not see streams, many do not see threads."""
    yield None, None
    if not backend_of(device).on_cpu:
        return
    fewer = {cores >> shift for shift in range(1, cores.bit_length())}  # halves: 8 cores → 4, 2, 1
    if target == LATENCY:
        yield from ((threads, None) for threads in sorted(fewer, reverse=True))
    else:
        yield from ((None, streams) for streams in sorted({cores // 2, 1} & fewer, reverse=True))
