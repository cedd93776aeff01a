"""What users have without this project, for ``align-bench run --against``: torch, and its plain ONNX export.

All of them need the checkpoint. They compute whole towers in float32, as transformers does, with a global mean in place
of its pooling window.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from align_bench.peers import EmbedCall, PeerRequest, needs_checkpoint
from align_exporter.graph.towers import NormalizedVisionTower
from align_exporter.graph.trace import quiet
from align_reference.checkpoint import load_model
from align_reference.model import AlignModel, unit_length
from align_reference.source import CheckpointSource, resolve
from align_runtime.backends import Runner, open_runner
from align_runtime.bundle import Bundle
from align_runtime.errors import ConfigurationError
from align_runtime.user_path import user_path


class PlainTextTower(nn.Module):
    """The reference's text tower unchanged: all tokens of all layers."""

    def __init__(self, model: AlignModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return unit_length(self.model.get_text_features(input_ids, attention_mask))


def find_checkpoint(checkpoint: str, bundle: Bundle) -> CheckpointSource:
    """The files of `checkpoint`; of a hub id those of the commit that `bundle` was exported from, if that is known.

    Raises:
        CheckpointError: it is not found, or cannot be downloaded.
    """
    return _source(checkpoint, *_exported_from(bundle))


def _exported_from(bundle: Bundle) -> tuple[str, str | None]:
    return bundle.manifest.provenance.name, bundle.manifest.provenance.revision


@cache
def _source(checkpoint: str, name: str, revision: str | None) -> CheckpointSource:
    local = user_path(checkpoint).exists()
    return resolve(checkpoint, None if local or checkpoint != name else revision)


@needs_checkpoint(find_checkpoint)
def open_torch(request: PeerRequest) -> EmbedCall:
    """The reference in eager mode."""
    return _torch_call(request, lambda tower: tower)


@needs_checkpoint(find_checkpoint)
def open_torch_compile(request: PeerRequest) -> EmbedCall:
    """The reference through `torch.compile`, compiled before the measurement."""
    return _torch_call(request, torch.compile)


@needs_checkpoint(find_checkpoint)
def open_onnx_plain(request: PeerRequest) -> EmbedCall:
    """The reference through a plain `torch.onnx.export`, on ONNX Runtime with the threads of the case."""
    size = request.bundle.manifest.preprocessing.output_size
    runner = _plain_runner(_checkpoint(request), request.case.tower, size, request.case.threads)
    inputs = _inputs(request)
    return lambda: runner.run(inputs)


@cache
def _plain_runner(checkpoint: CheckpointSource, tower: str, size: tuple[int, int], threads: int | None) -> Runner:
    with tempfile.TemporaryDirectory(prefix="align-peer-") as folder:
        file = Path(folder) / f"{tower}.onnx"
        export_plainly(_model(checkpoint), tower, size, file)
        return open_runner(file, "cpu", threads)  # reads the file whole


def export_plainly(model: AlignModel, tower: str, size: tuple[int, int], file: Path) -> None:
    """Writes the plain export of the tower: images of `size` (height, width) or texts of any length, in any batch."""
    batch, limit = torch.export.Dim("batch"), model.config.text.max_position_embeddings
    if tower == "vision":
        examples = {"pixel_values": torch.zeros(2, 3, *size)}
        sizes: dict[str, dict[int, Any]] = {"pixel_values": {0: batch}}
    else:
        examples = {name: torch.ones(2, 7, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
        sizes = {name: {0: batch, 1: torch.export.Dim("sequence", max=limit)} for name in examples}
    with quiet():
        program = torch.onnx.export(
            _tower(model, tower), tuple(examples.values()), dynamo=True, dynamic_shapes=sizes, verbose=False
        )
        assert program is not None
        program.save(file)


def _torch_call(request: PeerRequest, prepared: Callable[[nn.Module], Any]) -> EmbedCall:
    if request.case.threads is not None:
        torch.set_num_threads(request.case.threads)
    tower = prepared(_tower(_model(_checkpoint(request)), request.case.tower))
    inputs = [torch.from_numpy(value) for value in _inputs(request).values()]

    def run() -> NDArray[np.float32]:
        with torch.inference_mode():
            embeds: Tensor = tower(*inputs)
        return embeds.numpy()

    run()
    return run


def _inputs(request: PeerRequest) -> dict[str, NDArray[Any]]:
    """Normalized pixels; normalizing them is not measured."""
    if request.case.tower == "vision":
        return {"pixel_values": np.ascontiguousarray(request.pixel_values)}
    return dict(request.tensors)


def _tower(model: AlignModel, tower: str) -> nn.Module:
    return (NormalizedVisionTower(model) if tower == "vision" else PlainTextTower(model)).eval()


def _checkpoint(request: PeerRequest) -> CheckpointSource:
    if request.checkpoint is None:
        name = request.bundle.manifest.provenance.name
        raise ConfigurationError(f"this peer runs the checkpoint itself; name it with --checkpoint (it was {name})")
    return find_checkpoint(request.checkpoint, request.bundle)


@cache
def _model(checkpoint: CheckpointSource) -> AlignModel:
    return load_model(checkpoint).eval()
