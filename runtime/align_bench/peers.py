"""Other ways to run the same towers, and their comparison with the bundle by interleaved A/B timing.

A peer is a function from `PeerRequest` to a call that returns the embeddings of the request's inputs. What it prepares
beforehand (an export, a compilation, the normalization of pixels) is not timed. Peers are optional and imported when
they are asked for. Packages add their own as entry points of the group ``align_bench.peers``; align-onnx itself adds
three that need torch and the checkpoint.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from align_bench.interleaved import time_interleaved
from align_bench.record import Case, PeerComparison
from align_bench.statistics import MIN_PAIRS
from align_bench.subject import Subject
from align_runtime.bundle import Bundle
from align_runtime.errors import BackendUnavailableError, ConfigurationError, InputError
from align_runtime.graph_entry import ANY_TARGET, Graph
from align_runtime.load_options import LoadOptions
from align_runtime.loading import Parts, open_parts

GROUP = "align_bench.peers"
OURS = "align-onnx"
EmbedCall = Callable[[], NDArray[np.float32]]


@dataclass(frozen=True)
class PeerRequest:
    """What a peer is asked to run.

    Attributes:
        tensors: ``pixels`` uint8 (batch, height, width, 3), or ``input_ids`` and ``attention_mask`` int64 (batch,
            sequence).
        checkpoint: what the bundle was exported from, a folder or a hub id, if the user named it.
    """

    bundle: Bundle
    case: Case
    tensors: Mapping[str, NDArray[Any]]
    checkpoint: str | None

    @property
    def pixel_values(self) -> NDArray[np.float32]:
        """The pixels normalized, float32 (batch, 3, height, width)."""
        return self.bundle.manifest.preprocessing.normalize(self.tensors["pixels"])


OpenPeer = Callable[[PeerRequest], EmbedCall]
# Of a checkpoint and the bundle: raises an AlignError where it is missing, and downloads what is on the hub.
FindCheckpoint = Callable[[str, Bundle], object]
P = TypeVar("P", bound=OpenPeer)


def needs_checkpoint(find: FindCheckpoint) -> Callable[[P], P]:
    """Marks a peer that runs the checkpoint itself, so that `check_peers` asks for one and calls `find` with it."""

    def mark(peer: P) -> P:
        peer.find_checkpoint = find  # type: ignore[attr-defined]
        return peer

    return mark


def find_peer(name: str) -> OpenPeer:
    """The peer called `name`.

    Raises:
        ConfigurationError: no such peer.
        BackendUnavailableError: the peer cannot be imported.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    installed = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
    if name not in installed:
        raise ConfigurationError(f"unknown peer {name!r}; known: {', '.join([*BUILT_IN, *installed])}")
    try:
        peer: OpenPeer = installed[name].load()
    except ImportError as error:
        raise BackendUnavailableError(
            f"the peer {name} cannot be imported ({error}); install it with: pip install 'align-onnx[export]'"
        ) from None
    return peer


def check_peers(bundle: Bundle, peers: Sequence[str], checkpoint: str | None, rounds: int) -> None:
    """Checks, before anything is measured, that `peers` can run.

    Raises:
        ConfigurationError: an unknown peer, no checkpoint, or too few rounds.
        CheckpointError: a checkpoint that is not found, or that cannot be downloaded.
        BackendUnavailableError: a peer that cannot be imported.
    """
    exported_from = bundle.manifest.provenance.name
    for name in peers:
        peer = find_peer(name)
        if peer in (open_openvino, open_openvino_bf16):
            _import_openvino()
        find: FindCheckpoint | None = getattr(peer, "find_checkpoint", None)
        if find is not None and checkpoint is None:
            raise ConfigurationError(f"the peer {name} runs the checkpoint; name {exported_from} with --checkpoint")
        if find is not None and checkpoint is not None:
            find(checkpoint, bundle)
    if checkpoint is not None and not any(hasattr(find_peer(name), "find_checkpoint") for name in peers):
        raise ConfigurationError(f"--checkpoint {checkpoint} has no effect: no peer of --against runs the checkpoint")
    if peers:
        _check_rounds(rounds)


def _check_rounds(rounds: int) -> None:
    if rounds < MIN_PAIRS:
        raise ConfigurationError(f"expected at least {MIN_PAIRS} rounds for a speedup, got {rounds}")


def compare_with_peers(
    subject: Subject, case: Case, peers: Sequence[str], rounds: int, checkpoint: str | None
) -> PeerComparison:
    """Times our embedding of preprocessed inputs, streams included, against `peers` on the same inputs.

    Raises:
        ConfigurationError, BackendUnavailableError: a peer that cannot run.
        InputError: a peer that returns another shape, or values that are not finite.
    """
    inputs = subject.inputs(case)
    if case.tower == "vision":
        pixels = subject.pixels(inputs)
        tensors: dict[str, NDArray[Any]] = {"pixels": pixels}
        ours: EmbedCall = partial(subject.model.embed_pixels, pixels)
    else:
        texts = subject.parts.texts
        rows = texts.tokenizer.encode(inputs)
        tensors = dict(zip(("input_ids", "attention_mask"), texts.tokenizer.pad(rows), strict=True))
        ours = partial(texts.embed_rows, rows)
    request = PeerRequest(subject.bundle, case, tensors, checkpoint)
    candidates = {OURS: ours} | {name: find_peer(name)(request) for name in peers}
    return compare_calls(case, candidates, rounds)


def compare_calls(case: Case, candidates: Mapping[str, EmbedCall], rounds: int) -> PeerComparison:
    """Interleaved timing of `candidates` and the largest difference of their embeddings from those of the first one.

    Raises:
        ConfigurationError: fewer rounds than a speedup needs.
        InputError: a candidate that returns another shape than the first one, or values that are not finite.
    """
    _check_rounds(rounds)
    results = {name: call() for name, call in candidates.items()}
    first = next(iter(results.values()))
    for name, embeds in results.items():
        if embeds.shape != first.shape or not np.isfinite(embeds).all():
            raise InputError(f"{name}: expected finite embeddings of shape {first.shape}, got {embeds.shape}")
    differences = {name: float(np.abs(embeds - first).max()) for name, embeds in results.items()}
    return PeerComparison(case, time_interleaved(candidates, rounds, warmup=0), differences)


def open_fp32(request: PeerRequest) -> EmbedCall:
    """The bundle's own FP32 graphs, loaded like the bundle under test: the speedup of another precision."""
    case = request.case
    parts = _fp32_parts(request.bundle.folder, case.device, case.threads, case.streams)
    if case.tower == "vision":
        return partial(parts.images.embed_pixels, np.asarray(request.tensors["pixels"]))
    mask = request.tensors["attention_mask"]
    rows = [ids[kept == 1] for ids, kept in zip(request.tensors["input_ids"], mask, strict=True)]
    return partial(parts.texts.embed_rows, rows)


@cache
def _fp32_parts(folder: Path, device: str, threads: int | None, streams: int) -> Parts:
    return open_parts(folder, LoadOptions(device=device, threads=threads, streams=streams))


def open_openvino(request: PeerRequest) -> EmbedCall:
    """The bundle's portable FP32 graph on OpenVINO, computed in float32."""
    return _openvino(request, "f32")


def open_openvino_bf16(request: PeerRequest) -> EmbedCall:
    """The same in bfloat16, OpenVINO's default where the processor supports it."""
    return _openvino(request, "bf16")


def _openvino(request: PeerRequest, precision: str) -> EmbedCall:
    openvino: Any = _import_openvino()
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
    slices = [
        {name: np.array_split(value, streams)[index] for name, value in inputs.items()} for index in range(streams)
    ]

    def run() -> NDArray[np.float32]:
        for one, batch in zip(requests, slices, strict=True):
            one.start_async(batch)
        for one in requests:
            one.wait()
        return np.concatenate([np.array(one.get_output_tensor().data) for one in requests])

    return run


def _import_openvino() -> ModuleType:
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailableError(
            f"openvino cannot be imported ({error}); install it with: pip install openvino"
        ) from None
    module: ModuleType = openvino
    return module


def _vision_input(request: PeerRequest, graph: Graph) -> NDArray[Any]:
    return request.tensors["pixels"] if graph.inputs[0].name == "pixels" else request.pixel_values


BUILT_IN: Mapping[str, OpenPeer] = {"fp32": open_fp32, "openvino": open_openvino, "openvino-bf16": open_openvino_bf16}
