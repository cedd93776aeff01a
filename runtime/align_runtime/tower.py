"""One graph of a loaded model: a session for the shortest answer and, on a CPU, one for the most answers.

On a CPU a session with all threads answers one input soonest. For many inputs, single-threaded runs side by side,
called streams here, do more: no thread waits for another within an operator. The streams share one session, so its
weights are in memory once more and not once per stream. Measured on two cores: README, "What is verified".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.backends import Runner, StagedRunner
from align_runtime.bundle import Bundle
from align_runtime.errors import AlignError, BundleError, ConfigurationError
from align_runtime.graph_entry import Graph
from align_runtime.opening import open_graph
from align_runtime.scheduling import stream_count


class Tower:
    """A graph that is ready to run. `run` and `run_stream` may be called from many threads at once.

    Attributes:
        graph: what the manifest says of it.
        streams: how many calls of `run_stream` go side by side; 1 where there are none.
    """

    def __init__(self, bundle: Bundle, graph: Graph, whole: Runner, stream: Runner | None, streams: int) -> None:
        self.graph = graph
        self.streams = streams
        self._bundle = bundle
        self._whole: Runner | None = whole
        self._stream = stream

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        graph: Graph,
        device: str,
        threads: int | None = None,
        streams: int | None = None,
        check_hashes: bool = False,
    ) -> Tower:
        """Loads `graph` onto `device`, and a second time with one thread where there are streams.

        Raises:
            BundleError: a file with another hash, with `check_hashes`, or one that cannot be loaded.
            ConfigurationError, BackendUnavailableError: as `open_graph` and `stream_count`.
        """
        whole = open_graph(bundle, graph, device, threads, check_hashes)  # checks `threads`
        try:
            count = stream_count(device, threads, streams)
            stream = open_graph(bundle, graph, device, 1) if count > 1 else None
        except AlignError:
            whole.close()
            raise
        return cls(bundle, graph, whole, stream, count)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Embeddings float32 (batch, dim) of `inputs`, which are those of the graph, with all threads.

        Raises:
            ConfigurationError: the model is closed.
            BundleError: the graph gives something else than embeddings.
        """
        return self._checked(self._whole, inputs)

    def run_stream(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The same in the calling thread alone."""
        return self._checked(self._stream, inputs)

    def staged_seconds(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, float] | None:
        """Seconds of one run by stage, see `StagedRunner`; None where nothing is copied to a device and back."""
        return self._whole.run_staged(inputs)[1] if isinstance(self._whole, StagedRunner) else None

    def _checked(self, runner: Runner | None, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        if runner is None:
            raise ConfigurationError("the model is closed; load the bundle again")
        embeds = runner.run(inputs)
        dim = self._bundle.manifest.model.embedding_dim
        if embeds.shape[1:] != (dim,):
            raise BundleError(
                f"{self._bundle.folder}: the {self.graph.tower} graph gives an array of shape {embeds.shape}, the "
                f"manifest says embeddings of {dim} numbers; it is not the graph of this bundle"
            )
        return embeds

    def prepare(self) -> None:
        """Sets up what the first runs would set up."""
        for runner in (self._whole, self._stream):
            if runner is not None:
                runner.prepare()

    def close(self) -> None:
        """Frees the graph. Closing twice is no error."""
        runners, self._whole, self._stream = (self._whole, self._stream), None, None
        for runner in runners:
            if runner is not None:
                runner.close()
