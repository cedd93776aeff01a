"""Backends: what runs a graph on a device. `align_runtime.devices` lists them; each is imported on demand."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from align_runtime.backends.runner import BucketedRunner, Runner, StagedRunner
from align_runtime.bundle import Bundle
from align_runtime.devices import BACKENDS, backend_of, split_device
from align_runtime.errors import ConfigurationError
from align_runtime.graph_entry import Graph
from align_runtime.lifetime import keep_in_forks
from align_runtime.memory import MAPPED, MemoryUse
from align_runtime.onnxruntime_import import check_onnxruntime

__all__ = ["BucketedRunner", "Runner", "StagedRunner", "open_graph", "open_runner"]


def open_graph(
    bundle: Bundle,
    graph: Graph,
    device: str,
    threads: int | None,
    check_hashes: bool = False,
    memory: MemoryUse = MAPPED,
    streams: int = 1,
) -> Runner:
    """Loads `graph` of `bundle` onto `device`; on devices that run engines its engine that fits this machine.

    Args:
        threads: of one run on a CPU; None for all cores.
        check_hashes: compare the sha256 of the graph's files with the manifest. Those of engines are always compared.
        memory: on a CPU; a GPU has its own copy of everything.
        streams: on a CPU, the number of runs side by side, each with `threads`.

    Raises:
        ConfigurationError: there is no such device, or threads for a GPU.
        BackendUnavailableError: its package or library is missing, too old or does not work, or there is no engine.
        BundleError: a file is damaged or cannot be loaded.
    """
    backend, (_, gpu) = backend_of(device), split_device(device)
    if threads is not None and not backend.on_cpu:
        raise ConfigurationError(f"threads is {threads!r}, but {device} computes on the GPU; leave threads out")
    if backend.on_cpu:
        check_onnxruntime(graph.variant, graph.target)
        return open_runner(bundle.graph_file(graph, check_hashes), device, threads, memory, graph.variant, streams)
    runner: Runner = import_module(backend.module).open_graph(bundle, graph, gpu, check_hashes)
    return keep_in_forks(runner)


def open_runner(
    file: Path,
    device: str,
    threads: int | None,
    memory: MemoryUse = MAPPED,
    precision: str = "fp32",
    streams: int = 1,
) -> Runner:
    """Loads the plain ONNX file `file`, which need not be part of a bundle, on a CPU.

    Args:
        threads: of one run; None for all cores.
        precision: that it is computed in, where the device decides and not the file.
        streams: the number of runs side by side, each with `threads`.

    Raises:
        ConfigurationError: there is no such device, or it runs only graphs of bundles.
        BackendUnavailableError: its package is missing.
        BundleError: the file cannot be loaded.
        DeviceError: there is not enough memory, or the threads cannot be started.
    """
    backend = backend_of(device)
    if not backend.on_cpu:
        known = ", ".join(name for name, row in BACKENDS.items() if row.on_cpu)
        raise ConfigurationError(f"device is {device!r}, which runs graphs of bundles; plain ONNX files run on {known}")
    runner: Runner = import_module(backend.module).open_file(file, threads, memory, precision, streams)
    return keep_in_forks(runner)
