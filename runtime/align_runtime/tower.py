"""One loaded graph: a session with the lowest latency and, on a CPU, a second one with the highest throughput.

On a CPU, a session with all threads has the lowest latency for one input. For many inputs, parallel single-threaded
runs, called streams here, have a higher throughput: no thread waits for another within an operator. All streams share
one session, so the weights are in memory twice, not once per stream. A single input that comes while others are
computed takes a stream, too. With ONNX Runtime's own kernels the number of threads changes no bit of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.backends import BucketedRunner, Runner, StagedRunner, open_graph
from align_runtime.bundle import Bundle
from align_runtime.graph_entry import Graph
from align_runtime.lifetime import Lifetime
from align_runtime.load_options import LoadOptions
from align_runtime.memory import MemoryUse, reported
from align_runtime.outputs import check_answer
from align_runtime.runs import Runs
from align_runtime.scheduling import stream_count
from align_runtime.tower_settings import TowerSettings


class Tower:
    """A graph that is ready to run. Any number of threads may call `run` and `run_stream`.

    Attributes:
        graph: its entry in the manifest.
        streams: number of calls of `run_stream` that run in parallel; 1 if there are no streams.
        in_flight: number of calls of `run` that keep the device busy: 1 on a CPU.
    """

    def __init__(
        self,
        bundle: Bundle,
        graph: Graph,
        device: str,
        whole: Runner,
        stream: Runner | None,
        streams: int,
        runs: Runs | None = None,
    ) -> None:
        """`runs` are those of all towers that share the cores; None for a tower by itself."""
        self.graph = graph
        self.streams = streams
        self.in_flight = whole.in_flight if isinstance(whole, BucketedRunner) else 1
        self._batches = whole.batches if isinstance(whole, BucketedRunner) else ()
        self._bundle = bundle
        self._device = device
        self._whole = whole
        self._stream = stream
        self._runs = runs or Runs()
        self._lifetime = Lifetime()

    @classmethod
    def open(
        cls, bundle: Bundle, graph: Graph, settings: TowerSettings, options: LoadOptions, runs: Runs | None = None
    ) -> Tower:
        """Loads `graph` onto the device of `settings`, and once more with one thread if there are streams.

        Of `options`, only how files are read and memory is kept counts. `runs` is as in the constructor.

        Raises:
            BundleError: a file cannot be loaded or, with `check_hashes`, has another hash.
            ConfigurationError, BackendUnavailableError: as in `open_graph` and `stream_count`.
        """
        with ExitStack() as on_error:
            device, threads = settings.device, settings.threads
            memory = MemoryUse({} if options.mmap else bundle.read_data(graph), options.arena)
            whole = open_graph(bundle, graph, device, threads, options.check_hashes, memory)  # checks `threads`
            on_error.callback(whole.close)
            count = stream_count(device, threads, settings.streams)
            stream = open_graph(bundle, graph, device, 1, False, memory, count) if count > 1 else None
            on_error.pop_all()
        return cls(bundle, graph, device, whole, stream, count, runs)

    @property
    def dim(self) -> int:
        """The width of an embedding."""
        return self._bundle.manifest.model.embedding_dim

    def batch_size(self, asked: int | None, default: int) -> int:
        """The number of inputs of one run: `asked`, or else what the device is set up for, or else `default`.

        On a GPU never more than its largest batch: a larger one would be split there, and wait to be complete first.
        """
        largest = max(self._batches, default=asked or default)
        return min(asked or largest, largest)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Embeddings float32 (batch, dim) of `inputs`, the inputs of the graph by name.

        Computed with all threads, or, if there are streams and something else runs already, in the calling thread
        alone.

        Raises:
            ConfigurationError: the model is closed, or was loaded before a fork.
            BundleError: the output has another type or shape than the embeddings of this bundle or, on a CPU, a row
                that is not finite or not of unit length.
            DeviceError: the device failed, gave such a row, or ran out of memory.
        """
        if self._stream is None:
            return self._run(self._whole, inputs)
        with self._runs.entered() as alone:
            return self._run(self._whole if alone else self._stream, inputs)

    def run_stream(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """As `run`, computed in the calling thread alone if there are streams."""
        if self._stream is None:
            return self._run(self._whole, inputs)
        with self._runs.entered():
            return self._run(self._stream, inputs)

    def staged_seconds(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, float] | None:
        """Seconds of one run by stage, see `StagedRunner`; None for a backend without copies to a device."""
        if not isinstance(self._whole, StagedRunner):
            return None
        with self._lifetime.use():
            embeds, seconds = self._whole.run_staged(inputs)
        self._checked(inputs, embeds)
        return seconds

    def _run(self, runner: Runner, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        with self._lifetime.use(), reported(f"embed {len(next(iter(inputs.values())))} inputs"):
            embeds = runner.run(inputs)
        return self._checked(inputs, embeds)

    def _checked(self, inputs: Mapping[str, NDArray[Any]], embeds: NDArray[Any]) -> NDArray[np.float32]:
        return check_answer(self._bundle, self.graph, self._device, inputs, embeds)

    def prepare(self) -> None:
        """Sets up everything that the first runs would set up otherwise."""
        with self._lifetime.use():
            for runner in self._runners:
                runner.prepare()

    def close(self) -> None:
        """Waits for calls of other threads and frees the graph. Closing twice is allowed; in a forked child it does
        nothing."""
        self._lifetime.close(self._free)

    @property
    def _runners(self) -> tuple[Runner, ...]:
        return (self._whole,) if self._stream is None else (self._whole, self._stream)

    def _free(self) -> None:
        with ExitStack() as closing:  # the second one also after an error of the first
            for runner in self._runners:
                closing.callback(runner.close)
