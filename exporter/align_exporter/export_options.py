"""What may be chosen about an export. Imports nothing heavy, so that ``align-export --help`` answers at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align_calibration.dataset.calibration_dataset import CalibrationDataset

PIXEL_INPUTS = ("uint8", "float32")
OPSETS = range(18, 25)  # 18: ReduceL2 takes its axes as an input; from 25 on Sigmoid·Mul would become Swish
DEFAULT_OPSET = 20  # the first with Gelu
INT8_TARGETS = ("all", "cpu", "gpu")
INT8_OPSET = 19  # the first whose QuantizeLinear takes float16, as in the graph for GPUs
# How far below FP16's end, 65504, the samples' largest value has to stay: other inputs go further than a few samples.
FP16_HEADROOM = 8.0
UNRECORDED = ("samples", "calibration_cache")


@dataclass(frozen=True)
class ExportOptions:
    """Options of one export.

    Attributes:
        pixel_input: ``"uint8"``, bytes in and normalisation in the graph, or ``"float32"``, normalised by the caller.
        opset: of the default ONNX domain, one of `OPSETS`.
        allow_pickle: whether ``pytorch_model.bin`` may be read.
        fp16: whether FP16 graphs are written beside the FP32 ones.
        fp16_keep: patterns (``*``, ``?``, ``[…]``) of the names of operators that stay FP32 in them.
        fp16_headroom: tensors whose largest value on the samples times this exceeds 65504 stay FP32.
        samples: the user's own, which FP16's ranges and text's INT8 scales are measured on too and those of vision
            alone; None for the built-in ones.
        int8: whether INT8 graphs are written, for ONNX Runtime's CPU kernels and for TensorRT.
        int8_target: for which of them, one of `INT8_TARGETS`.
        target_cosine, target_agreement: what is asked of them on samples that nothing was calibrated on (see
            `align_exporter.int8.fidelity.FidelityTarget`); parts stay float until it is met.
        keep_slower: whether those for CPUs are kept where a float graph is faster.
        calibration_cache: folder where what INT8 measures on the samples outlives a killed export; None for nowhere. It
            decides nothing about the bundle.
        max_abs, min_cosine: by variant, what the parity gate allows in place of its table.
    """

    pixel_input: str = "uint8"
    opset: int = DEFAULT_OPSET
    allow_pickle: bool = False
    fp16: bool = False
    fp16_keep: tuple[str, ...] = ()
    fp16_headroom: float = FP16_HEADROOM
    samples: CalibrationDataset | None = None
    int8: bool = False
    int8_target: str = "all"
    target_cosine: float | None = None
    target_agreement: float | None = None
    keep_slower: bool = False
    calibration_cache: Path | None = None
    max_abs: Mapping[str, float] = field(default_factory=dict)
    min_cosine: Mapping[str, float] = field(default_factory=dict)

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that the bundle will hold."""
        chosen = {"fp32": True, "fp16": self.fp16, "int8": self.int8}
        return tuple(variant for variant, wanted in chosen.items() if wanted)

    @property
    def has_target(self) -> bool:
        """Whether anything is asked of INT8 graphs beyond the gate."""
        return (self.target_cosine, self.target_agreement) != (None, None)

    @property
    def int8_for_cpu(self) -> bool:
        """Whether INT8 graphs for ONNX Runtime's CPU kernels are written."""
        return self.int8 and self.int8_target != "gpu"

    @property
    def int8_for_gpu(self) -> bool:
        """Whether INT8 graphs for TensorRT are written, which are FP16 elsewhere."""
        return self.int8 and self.int8_target != "cpu"

    @property
    def record(self) -> dict[str, Any]:
        """What decides over the bundle, in JSON's types. Paths of samples and of the cache are not in it; the contents
        of samples are."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in UNRECORDED}
        return values | ({} if self.samples is None else self.samples.summary)
