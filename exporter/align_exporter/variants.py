"""The table of variants: every kind of graph that an export can write. A new precision is a new row and its builder.

Builders and emulations are named and not imported, so that ``align-export --help`` answers at once and without the
packages of the ``[export]`` extra. docs/accuracy.md says where the limits come from; tests/exporter/test_parity_gate.py
shows what does not pass them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from align_runtime.backends.onnxruntime import INEXACT_WITHOUT_VNNI
from align_runtime.graph_entry import ANY_TARGET, CPU_TARGET, GPU_TARGET
from align_runtime.parity import Limits

FP32, FP16, INT8 = "fp32", "fp16", "int8"
FIRST_OPSET = 18  # ReduceL2 takes its axes as an input from there on

# The precisions beside FP32: each has an option of `align-export`, with this help.
PRECISIONS: Mapping[str, str] = {
    FP16: "also write FP16 graphs; operators whose values FP16 cannot represent stay FP32 and are listed",
    INT8: "also write INT8 graphs, for CPUs (ONNX Runtime) and for TensorRT; calibrated on --calibration-images, or on "
    "the few built-in images without it",
}


@dataclass(frozen=True)
class Variant:
    """One row.

    Attributes:
        name: what `align_runtime.load(precision=…)` takes.
        target: the devices that it is made for, see `align_runtime.graph_entry.TARGETS`.
        element_type: of its MACs.
        min_share: of the MACs that have to be in `element_type`, from 0 to 1.
        limits: what the parity gate allows, by tower.
        builder: ``"module:function"``, takes a `BaseGraph` and returns a `Draft`; None for FP32, which is traced.
        base: target of the FP32 graph that it is made from.
        emulation: ``"module:function"``, takes the written graph and returns one that computes on a CPU what the
            target's hardware computes; None where a CPU computes the graph as it is.
        baselines: variants whose speed it is compared with on the build machine.
        min_opset: the first ONNX opset that can express it.
        has_fp16: whether parts of it compute in FP16, so that FP16's range matters and its options apply.
        note: the graph's doc_string: what another program than align_runtime must know to compute the same.
    """

    name: str
    target: str
    element_type: str
    min_share: float
    limits: Mapping[str, Limits]
    builder: str | None = None
    base: str = ANY_TARGET
    emulation: str | None = None
    baselines: tuple[str, ...] = ()
    min_opset: int = FIRST_OPSET
    has_fp16: bool = False
    note: str = ""

    @property
    def exact_name(self) -> str:
        """The name of this row alone: with ``_cpu`` where the graph is made for CPUs."""
        return f"{self.name}_{self.target}" if self.target == CPU_TARGET else self.name

    @property
    def is_for_tensorrt(self) -> bool:
        """Whether TensorRT may build it, so that its rules apply (see `align_exporter.trt_lint`)."""
        return self.target != CPU_TARGET

    def file(self, tower: str) -> str:
        """Path of the graph of `tower` in the bundle."""
        suffix = self.exact_name.removeprefix(FP32).strip("_")
        return f"onnx/{tower}_model{f'_{suffix}' if suffix else ''}.onnx"

    def title(self, tower: str) -> str:
        """How progress calls the graph of `tower`."""
        return f"{tower} {self.exact_name}"


_FP32_LIMITS = Limits(max_abs=5e-5, min_cosine=0.999999, min_centred_cosine=0.99999)
_FP16_LIMITS = Limits(max_abs=2e-2, min_cosine=0.9995, min_centred_cosine=0.9995)
_INT8_VISION_LIMITS = Limits(max_abs=0.1, min_cosine=0.95, min_centred_cosine=0.94)

VARIANTS: tuple[Variant, ...] = (
    Variant(
        name=FP32,
        target=ANY_TARGET,
        element_type="float32",
        min_share=1.0,
        limits={"vision": _FP32_LIMITS, "text": _FP32_LIMITS},
    ),
    Variant(
        name=FP32,
        target=CPU_TARGET,
        element_type="float32",
        min_share=1.0,
        limits={"text": _FP32_LIMITS},
    ),
    Variant(
        name=FP16,
        target=ANY_TARGET,
        element_type="float16",
        min_share=0.5,
        limits={"vision": _FP16_LIMITS, "text": _FP16_LIMITS},
        builder="align_exporter.fp16.build:build_fp16",
        emulation="align_exporter.fp16.convert:emulate_fp16",
        has_fp16=True,
    ),
    Variant(
        name=INT8,
        target=CPU_TARGET,
        element_type="int8",
        min_share=0.5,
        limits={
            "vision": _INT8_VISION_LIMITS,
            "text": Limits(max_abs=0.02, min_cosine=0.999, min_centred_cosine=0.995),
        },
        builder="align_exporter.int8.build:build_for_cpu",
        base=CPU_TARGET,
        baselines=(FP32, FP16),
        note=INEXACT_WITHOUT_VNNI,
    ),
    Variant(
        name=INT8,
        target=GPU_TARGET,
        element_type="int8",
        min_share=0.5,
        limits={
            "vision": _INT8_VISION_LIMITS,
            "text": Limits(max_abs=0.03, min_cosine=0.995, min_centred_cosine=0.98),
        },
        builder="align_exporter.int8.build:build_for_tensorrt",
        emulation="align_exporter.fp16.convert:emulate_fp16",
        has_fp16=True,
        min_opset=19,  # the first whose QuantizeLinear takes float16
    ),
)


def variant_of(name: str, target: str) -> Variant:
    """The row of `name` for `target`; KeyError where there is none."""
    return {(row.name, row.target): row for row in VARIANTS}[name, target]


def imported(path: str) -> Callable[..., Any]:
    """The function that a row names as ``"module:function"``."""
    module, _, function = path.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
