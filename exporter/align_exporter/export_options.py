"""What may be chosen about an export. Imports nothing heavy, so that ``align-export --help`` answers at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_exporter.variants import FIRST_OPSET, FP16, INT8, VARIANTS, Variant
from align_runtime.graph_entry import CPU_TARGET, GPU_TARGET

if TYPE_CHECKING:
    from align_calibration.dataset.calibration_dataset import CalibrationDataset
    from align_exporter.engine.request import EngineRequest

PIXEL_INPUTS = ("uint8", "float32")
OPSETS = range(FIRST_OPSET, 25)  # from 25 on the exporter would write Swish, which ONNX Runtime's CPU provider lacks
DEFAULT_OPSET = 20  # the first with Gelu
INT8_DEVICES = ("all", CPU_TARGET, GPU_TARGET)
# A tensor stays FP32 where its largest value on the calibration inputs times this exceeds the FP16 maximum, 65504:
# other inputs reach further than a few samples.
FP16_HEADROOM = 8.0
GRAPH_STAGES = ("traced", "final")
# Not among the options of a bundle: what decides nothing about it, or has a place of its own in its provenance.
UNRECORDED = ("random_weights", "dataset", "calibration_cache", "require_faster", "dump_graph", "engines")


@dataclass(frozen=True)
class ExportOptions:
    """Options of one export.

    Attributes:
        precisions: variants to build beside FP32, of `align_exporter.variants.PRECISIONS`.
        pixel_input: ``"uint8"``, RGB bytes in and normalization in the graph, or ``"float32"``, normalized by the
            caller.
        opset: of the default ONNX domain, one of `OPSETS`.
        allow_pickle: whether ``pytorch_model.bin`` may be read.
        ignore_unknown_keys: whether keys of the checkpoint's configuration files that are unknown here are ignored.
        random_weights: seed of random weights in place of the checkpoint's; None to read these.
        fp16_keep: patterns (``*``, ``?``, ``[…]``) of the names of operators that stay FP32 in FP16 graphs.
        fp16_headroom: tensors whose largest value times this exceeds 65504 stay FP32.
        dataset: the calibration dataset; None for the built-in images and captions alone.
        int8_device: for which devices INT8 graphs are written, one of `INT8_DEVICES`.
        int8_min_cosine, int8_min_agreement: what INT8 graphs have to reach on held-out samples (see
            `align_exporter.int8.fidelity.FidelityTarget`); parts stay float until they do.
        require_faster: whether an INT8 graph for CPUs that is not faster than the float graphs fails the export.
        calibration_cache: folder of the cached statistics; None for no cache. It decides nothing about the bundle.
        parity_max_abs, parity_min_cosine: by precision, what the parity gate allows instead of the table's limits.
        dump_graph: stage (one of `GRAPH_STAGES`) and file for the FP32 graphs as they are at that stage.
        engines: TensorRT engines that will be built from the bundle: what does not fit the checkpoint is said first.
    """

    precisions: tuple[str, ...] = ()
    pixel_input: str = "uint8"
    opset: int = DEFAULT_OPSET
    allow_pickle: bool = False
    ignore_unknown_keys: bool = False
    random_weights: int | None = None
    fp16_keep: tuple[str, ...] = ()
    fp16_headroom: float = FP16_HEADROOM
    dataset: CalibrationDataset | None = None
    int8_device: str = INT8_DEVICES[0]
    int8_min_cosine: float | None = None
    int8_min_agreement: float | None = None
    require_faster: bool = False
    calibration_cache: Path | None = None
    parity_max_abs: Mapping[str, float] = field(default_factory=dict)
    parity_min_cosine: Mapping[str, float] = field(default_factory=dict)
    dump_graph: tuple[str, Path] | None = None
    engines: EngineRequest | None = None

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The rows of the table that are built from FP32 graphs."""
        return tuple(row for row in VARIANTS if row.builder is not None and self._wants(row))

    @property
    def has_int8_target(self) -> bool:
        """Whether INT8 graphs have to reach a fidelity beyond the parity gate's."""
        return (self.int8_min_cosine, self.int8_min_agreement) != (None, None)

    @property
    def record(self) -> dict[str, Any]:
        """What decides about the bundle, in JSON's types: options of precisions that are not built are left out, and
        the dataset stands with its contents, not with its path."""
        idle = [] if INT8 in self.precisions else [INT8]
        idle += [] if any(row.has_fp16 for row in self.variants) else [FP16]
        names = [entry.name for entry in fields(self) if entry.name not in UNRECORDED]
        values = {name: getattr(self, name) for name in names if name.partition("_")[0] not in idle}
        return values | ({} if self.dataset is None else self.dataset.summary)

    def _wants(self, row: Variant) -> bool:
        if row.name == INT8 and self.int8_device not in (INT8_DEVICES[0], row.target):
            return False
        return row.name in self.precisions
