"""The model of the published sizes that the speed measurements share: checkpoint, bundle and plain exports.

Its weights are random and conditioned (see `align_reference.random_weights`): suited to time, memory and FP32 parity.
They say nothing about the accuracy of INT8, so the parity gate accepts every finite INT8 result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance
from align_exporter.pipeline import build_bundle
from align_reference.checkpoint import load_model
from align_reference.source import resolve
from align_runtime.bundle import Bundle
from align_runtime.progress import Progress
from benchmarks.result_files import ROOT
from support.checkpoints import full_size_checkpoint, full_size_config
from support.oracle import oracle_of
from support.plain_export import export_text_plainly, export_vision_plainly

FOLDER = ROOT / "build" / "bench"
OPTIONS = ExportOptions(
    precisions=("int8",), int8_device="cpu", parity_max_abs={"int8": 2.0}, parity_min_cosine={"int8": -1.0}
)


@dataclass(frozen=True)
class FullSize:
    """What `prepare` made.

    Attributes:
        plain_vision, plain_text: the towers as `torch.onnx.export` writes them.
    """

    checkpoint: Path
    bundle: Bundle
    plain_vision: Path
    plain_text: Path


def prepare(folder: Path) -> FullSize:
    """Checkpoint, bundle (FP32 and INT8 for CPUs) and plain exports in `folder`; what is there already is kept."""
    checkpoint, target = folder / "checkpoint", folder / "bundle"
    plain_vision, plain_text = folder / "vision.onnx", folder / "text.onnx"
    if not (checkpoint / "config.json").is_file():
        full_size_checkpoint(checkpoint)
    if not (target / "align.json").is_file():
        export(checkpoint, target)
    if not plain_text.is_file():  # written last
        model = load_model(checkpoint)
        export_vision_plainly(oracle_of(model, full_size_config()).vision_model, plain_vision)
        export_text_plainly(model, plain_text)
    return FullSize(checkpoint, Bundle.open(target), plain_vision, plain_text)


def export(checkpoint: Path, target: Path) -> None:
    """Exports `checkpoint` with `OPTIONS`."""
    source = resolve(str(checkpoint))
    build_bundle(source, provenance(source, OPTIONS), target, OPTIONS, Progress())
