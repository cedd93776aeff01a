"""What may be chosen about an export. Imports nothing heavy, so that ``align-export --help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass

PIXEL_INPUTS = ("uint8", "float32")
OPSETS = range(18, 25)  # 18: ReduceL2 takes its axes as an input; from 25 on Sigmoid·Mul would become Swish
DEFAULT_OPSET = 20  # the first with Gelu


@dataclass(frozen=True)
class ExportOptions:
    """Options of one export.

    Attributes:
        pixel_input: ``"uint8"``, bytes in and normalisation in the graph, or ``"float32"``, normalised by the caller.
        opset: of the default ONNX domain, one of `OPSETS`.
        allow_pickle: whether ``pytorch_model.bin`` may be read.
    """

    pixel_input: str = "uint8"
    opset: int = DEFAULT_OPSET
    allow_pickle: bool = False
