"""What else could run the same towers, to be compared with. Each peer is optional and imported when it is asked for.

A peer is a function from `PeerRequest` to a call that gives the embeddings of the request's inputs. What it prepares
before (an export, a compilation, the normalisation of pixels) is not measured. Packages add peers of their own as
entry points of the group ``align_runtime.peers``; align-onnx itself has some that need torch and the checkpoint.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_bench.record import Case
from align_runtime.bundle import Bundle
from align_runtime.errors import BackendUnavailableError, ConfigurationError
from align_runtime.graph_entry import ANY_TARGET
from align_runtime.loading import Parts, open_parts

GROUP = "align_runtime.peers"
Contestant = Callable[[], NDArray[np.float32]]


@dataclass(frozen=True)
class PeerRequest:
    """What a peer shall run.

    Attributes:
        tensors: ``pixels`` uint8 (batch, height, width, 3), or ``input_ids`` and ``attention_mask`` int64 (batch,
            sequence).
        checkpoint: what the bundle was made from, where the user named it.
    """

    bundle: Bundle
    case: Case
    tensors: Mapping[str, NDArray[Any]]
    checkpoint: Path | None

    @property
    def pixel_values(self) -> NDArray[np.float32]:
        """The pixels normalised, float32 (batch, 3, height, width)."""
        return self.bundle.manifest.preprocessing.normalize(self.tensors["pixels"])


OpenPeer = Callable[[PeerRequest], Contestant]


def find_peer(name: str) -> OpenPeer:
    """The peer called `name`.

    Raises:
        ConfigurationError: there is none.
        BackendUnavailableError: it is there and cannot be imported.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    installed = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
    if name not in installed:
        raise ConfigurationError(f"there is no peer {name!r}; known: {', '.join([*BUILT_IN, *installed])}")
    try:
        peer: OpenPeer = installed[name].load()
    except ImportError as error:
        raise BackendUnavailableError(
            f"the peer {name} cannot be imported ({error}); install it with: pip install 'align-onnx[export]'"
        ) from None
    return peer


def open_fp32(request: PeerRequest) -> Contestant:
    """The bundle's own FP32 graphs, loaded as the contestant is: what another precision gains."""
    case = request.case
    parts = _fp32_parts(request.bundle.folder, case.device, case.threads, case.streams)
    if case.tower == "vision":
        return partial(parts.images.embed_pixels, np.asarray(request.tensors["pixels"]))
    mask = request.tensors["attention_mask"]
    rows = [ids[kept == 1] for ids, kept in zip(request.tensors["input_ids"], mask, strict=True)]
    return partial(parts.texts.embed_rows, rows)


@cache
def _fp32_parts(folder: Path, device: str, threads: int | None, streams: int) -> Parts:
    return open_parts(folder, precision="fp32", device=device, threads=threads, streams=streams)


def open_openvino(request: PeerRequest) -> Contestant:
    """The bundle's FP32 graph for all targets on OpenVINO, strictly in float32."""
    return _openvino(request, "f32")


def open_openvino_bf16(request: PeerRequest) -> Contestant:
    """The same in bfloat16, which OpenVINO takes by itself where the processor has it."""
    return _openvino(request, "bf16")


def _openvino(request: PeerRequest, precision: str) -> Contestant:
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailableError(
            f"openvino cannot be imported ({error}); install it with: pip install openvino"
        ) from None
    case, bundle = request.case, request.bundle
    graph = bundle.graph(case.tower, "fp32", ANY_TARGET)
    inputs = dict(request.tensors) if case.tower == "text" else {graph.inputs[0].name: _vision_input(request, graph)}
    streams = case.streams if case.streams <= case.batch else 1
    properties: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": str(streams),
    }
    if case.threads is not None:
        properties["INFERENCE_NUM_THREADS"] = case.threads
    compiled = openvino.Core().compile_model(str(bundle.path(graph.file)), "CPU", properties)
    requests = [compiled.create_infer_request() for _ in range(streams)]
    parts = [
        {name: np.array_split(value, streams)[index] for name, value in inputs.items()} for index in range(streams)
    ]

    def run() -> NDArray[np.float32]:
        for one, part in zip(requests, parts, strict=True):
            one.start_async(part)
        for one in requests:
            one.wait()
        return np.concatenate([np.array(one.get_output_tensor().data) for one in requests])

    return run


def _vision_input(request: PeerRequest, graph: Any) -> NDArray[Any]:
    return request.tensors["pixels"] if graph.inputs[0].name == "pixels" else request.pixel_values


BUILT_IN: Mapping[str, OpenPeer] = {"fp32": open_fp32, "openvino": open_openvino, "openvino-bf16": open_openvino_bf16}
