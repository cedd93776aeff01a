"""A model whose graphs run on a Triton server: tokenizes and preprocesses here, as the bundle says."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.backends.buckets import Buckets, check_inputs, row_count
from align_runtime.bundle import Bundle
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.graph_entry import TOWERS, Graph
from align_runtime.hub_bundle import find_bundle
from align_runtime.image_embedding import ImageEmbedder
from align_runtime.image_options import DEFAULT_IMAGES, ImageOptions
from align_runtime.load_options import LoadOptions
from align_runtime.loading import Parts
from align_runtime.model import Model, TowerName
from align_runtime.processors import available_cores
from align_runtime.text_embedding import TextEmbedder
from align_runtime.tokenizer import Tokenizer
from align_runtime.tower import Tower
from align_runtime.workers import Workers
from align_serving.triton.contract import BATCHES, CONTRACT, LENGTHS, PRECISION, contract_of, graph_model_name
from align_serving.triton.transport import GRPC, Protocol, ServerModel, Transport


@dataclass(frozen=True)
class ClientOptions:
    """How to reach the models that ``align-triton --backend onnxruntime`` or ``tensorrt`` wrote.

    Attributes:
        protocol: ``"grpc"`` or ``"http"``; HTTP sends one request at a time.
        name: what the names of the models begin with, as for ``align-triton``.
        version: of the models; empty for the newest that is served.
        towers: those that are used.
        timeout: seconds for one request.
        ssl: whether the connection is encrypted.
        headers: sent with every request, e.g. for authorization.
        images: which images are decoded.
    """

    protocol: Protocol = GRPC
    name: str = "align"
    version: str = ""
    towers: Sequence[TowerName] = TOWERS  # type: ignore[assignment]
    timeout: float = 60.0
    ssl: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    images: ImageOptions = DEFAULT_IMAGES


DEFAULTS = ClientOptions()


def connect(url: str, bundle: str | os.PathLike[str], options: ClientOptions = DEFAULTS) -> TritonModel:
    """A model on the server at `url`, ``host:port``; it has the methods of `align_runtime.Model`.

    Args:
        bundle: the one that the server has, or one with the same preprocessing and tokenizer. Its graphs are not read
            and need not be there.

    Raises:
        BackendUnavailableError: no server answers, or tritonclient is missing.
        ConfigurationError: the server does not have the models, or they take other inputs than this bundle prepares.
        BundleError: the bundle is missing, or its tokenizer was changed.
    """
    return TritonModel(url, bundle, options)


class TritonModel(Model):
    """An `align_runtime.Model` whose graphs run on a server; `connect` makes one.

    An answer is checked as that of a graph here: width, finite values, unit length. A request that fails is a
    DeviceError; nothing is sent twice.
    """

    def __init__(self, url: str, bundle: str | os.PathLike[str], options: ClientOptions) -> None:
        """See `connect`."""
        self._made_of = (url, bundle, options)
        opened = Bundle.open(find_bundle(bundle).folder, complete=False)
        with ExitStack() as on_error:
            transport = Transport(url, options.protocol, options.timeout, options.ssl, options.headers)
            on_error.callback(transport.close)
            parts, precision = _parts(opened, transport, options)
            on_error.pop_all()
        super().__init__(parts)
        self._transport = transport
        self._info = replace(self.info, precision=precision, device=place_of(url), threads=None, settings={})

    def __reduce__(self) -> tuple[Any, ...]:
        return connect, self._made_of

    def close(self) -> None:
        """Waits for running calls and ends the connection."""
        super().close()
        self._transport.close()


def place_of(url: str) -> str:
    """What a server is called where a device would be."""
    return f"Triton at {url}"


class GraphOnServer:
    """The `Runner` of a graph on a server: sends batches of the sizes and lengths that it is set up for.

    Attributes:
        batches: the batch sizes that it takes.
        in_flight: requests that are sent at once.
    """

    def __init__(self, transport: Transport, model: ServerModel, graph: Graph) -> None:
        self.in_flight = transport.in_flight
        self._transport = transport
        self._model = model
        parameters = model.config.get("parameters", {})
        self._fixed = bool(_numbers(parameters, BATCHES))
        self.batches = _numbers(parameters, BATCHES) or (int(model.config["max_batch_size"]),)
        self._buckets = Buckets(self.batches, _numbers(parameters, LENGTHS))
        self._takes = {spec.name: (np.dtype(spec.dtype), spec.shape) for spec in graph.inputs}
        (self._output,) = (spec.name for spec in graph.outputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Embeddings of `inputs`; a request for each piece of them.

        Texts are padded to one of a few lengths, since Triton makes a batch only of requests with one shape.
        """
        check_inputs(inputs, self._takes)
        if self._buckets.lengths:
            length = self._buckets.length(next(iter(inputs.values())).shape[1])
            inputs = {name: _padded(values, 1, length) for name, values in inputs.items()}
        return np.concatenate(list(self._answers(inputs)))

    def _answers(self, inputs: Mapping[str, NDArray[Any]]) -> Iterator[NDArray[Any]]:
        for piece in self._buckets.pieces(row_count(inputs)):
            rows = {name: values[piece.rows] for name, values in inputs.items()}
            count = row_count(rows)
            if self._fixed:
                rows = {name: _padded(values, 0, piece.batch) for name, values in rows.items()}
            yield self._transport.infer(self._model, rows, self._output)[:count]

    def prepare(self) -> None:
        """The server has warmed up before it calls the model ready."""

    def close(self) -> None:
        """The connection is that of all graphs, and is not closed here."""


def _padded(values: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    """`values` with zeros at the end of `axis` up to `size`."""
    widths = [(0, 0)] * values.ndim
    widths[axis] = (0, size - values.shape[axis])
    return np.ascontiguousarray(np.pad(values, widths))


def _parts(bundle: Bundle, transport: Transport, options: ClientOptions) -> tuple[Parts, str]:
    """What a model is made of, with towers on the server, and the precision that it says it has."""
    loaded = LoadOptions(towers=options.towers, images=options.images)
    towers, precisions = {}, []
    for name in loaded.towers:
        model = transport.model(graph_model_name(options.name, name), options.version)
        graph = _graph(bundle, name, model, transport.url)
        runner = GraphOnServer(transport, model, graph)
        towers[name] = Tower(bundle, graph, place_of(transport.url), runner, None, 1)
        precisions.append(_text(model.config.get("parameters", {}), PRECISION))
    decoders, workers = Workers(available_cores()), Workers(transport.in_flight)
    vision, text, preprocessing = towers.get("vision"), towers.get("text"), bundle.manifest.preprocessing
    parts = Parts(
        bundle=bundle,
        options=loaded,
        settings=dict.fromkeys(loaded.towers, loaded.settings),
        tuned=None,
        threads=None,
        decoders=decoders,
        workers=workers,
        vision=None if vision is None else ImageEmbedder(vision, preprocessing, options.images, decoders, workers),
        text=None if text is None else TextEmbedder(text, Tokenizer.of_bundle(bundle), workers),
    )
    return parts, " and ".join(dict.fromkeys(precisions))


def _graph(bundle: Bundle, tower: str, model: ServerModel, url: str) -> Graph:
    """A graph of `bundle` with the inputs that `model` takes."""
    graphs = [graph for graph in bundle.manifest.graphs if graph.tower == tower]
    if not graphs:
        raise BundleError(f"{bundle.folder}: the manifest lists no {tower} graph; take the bundle that is served")
    served = _text(model.config.get("parameters", {}), CONTRACT)
    for graph in graphs:
        if contract_of(bundle, graph) == served:
            return graph
    if not served:
        raise ConfigurationError(
            f"Triton at {url}: {model.name} has no parameter {CONTRACT}; expected a model that align-triton wrote"
        )
    raise ConfigurationError(
        f"Triton at {url}: {model.name} takes other inputs than {bundle.folder} prepares (another tokenizer, "
        "preprocessing, size or type); take the bundle that align-triton was given"
    )


def _text(parameters: Mapping[str, Any], key: str) -> str:
    return str(parameters.get(key, {}).get("string_value", ""))


def _numbers(parameters: Mapping[str, Any], key: str) -> tuple[int, ...]:
    text = _text(parameters, key)
    try:
        return tuple(int(number) for number in text.split())
    except ValueError:
        raise ConfigurationError(f"the parameter {key} of a model is {shortened(text)}; expected numbers") from None
