"""From a graph of a bundle to something that runs it on a device."""

from __future__ import annotations

from align_runtime.backends import Runner, open_runner
from align_runtime.backends.buckets import BATCHES, Buckets, default_lengths
from align_runtime.bundle import Bundle
from align_runtime.errors import ConfigurationError
from align_runtime.graph_entry import GPU_DEVICES, Graph


def open_graph(bundle: Bundle, graph: Graph, device: str, threads: int | None, check_hashes: bool = False) -> Runner:
    """Loads `graph` onto `device`; on ``"tensorrt"`` its engine that fits this machine.

    Args:
        threads: of one call on the CPU, all cores when None.
        check_hashes: compare the sha256 of the graph's files with the manifest; an engine's always is compared.

    Raises:
        ConfigurationError: no such device, or threads for a GPU.
        BackendUnavailableError: the package or library for it is missing or does not work, or there is no engine.
        BundleError: a file that is damaged or cannot be loaded.
    """
    if device in GPU_DEVICES and threads is not None:
        raise ConfigurationError(f"threads is {threads!r}, but on {device} the GPU computes; leave it out")
    if device == "tensorrt":
        return open_engine_of(bundle, graph)
    find = bundle.check_hash if check_hashes else bundle.path
    file, *_ = [find(name) for name in graph.files]
    if device == "cuda":
        from align_runtime.backends.cuda import CudaRunner

        return CudaRunner(file, buckets_of(bundle, graph))
    return open_runner(file, device, threads)


def open_engine_of(bundle: Bundle, graph: Graph) -> Runner:
    """The engine of `graph` in `bundle` that fits this machine, checked and loaded."""
    from align_runtime.backends.tensorrt.machine import this_machine
    from align_runtime.backends.tensorrt.runner import TensorRtRunner
    from align_runtime.engines import check_plan, choose_engine

    entry = choose_engine(bundle, graph, this_machine())
    return TensorRtRunner(check_plan(bundle, entry), entry)


def buckets_of(bundle: Bundle, graph: Graph) -> Buckets:
    """The shapes that a GPU runs `graph` in where no engine says it."""
    lengths = default_lengths(bundle.manifest.model.max_length) if graph.tower == "text" else ()
    return Buckets(BATCHES, lengths)
