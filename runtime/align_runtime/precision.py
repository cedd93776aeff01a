"""Which types a graph computes and stores in, as the manifest says, and which precision a graph may be labelled with.

The exporter counts every graph that it writes (`align_exporter.graph.content`). Nothing is counted at run time: the
manifest holds the counts and the sha256 of the counted file, so a file with that hash is the one that was counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from align_runtime.errors import ConfigurationError, PrecisionError
from align_runtime.json_files import number, require

FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")
INT8_TYPES = ("int8", "uint8")
STORED_TYPES = (*FLOAT_TYPES, *INT8_TYPES, "int32")  # int32: biases of quantized convolutions
# At least this share of the MACs must be in the type that a variant is named after. Not more, because leaving sensitive
# layers in float is how INT8 becomes accurate; the share itself is in the manifest.
MIN_SHARE = 0.5
RULES = {
    "fp32": ("float32", 1.0),
    "bf16": ("bfloat16", MIN_SHARE),
    "fp16": ("float16", MIN_SHARE),
    "int8": ("int8", MIN_SHARE),
}
MAX_COUNT = 1 << 63


@dataclass(frozen=True)
class GraphContent:
    """What a graph computes and holds, by element type under numpy's name.

    Attributes:
        macs: multiply-accumulates of one image, or of one text of the model's maximal length.
        weights: elements of all float constants, and of the integer constants that are multiplied or dequantized.
    """

    macs: Mapping[str, int]
    weights: Mapping[str, int]

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> GraphContent:
        """Reads the counts of a manifest. Raises ConfigurationError for an unknown type or an impossible count."""
        return cls(*(_counts(require(where, values, key, dict), f"{where}: {key}") for key in ("macs", "weights")))


def _counts(values: Mapping[str, Any], where: str) -> dict[str, int]:
    for dtype in values:
        if dtype not in STORED_TYPES:
            raise ConfigurationError(f"{where}: unknown type {dtype!r}; known: {', '.join(STORED_TYPES)}")
        number(where, values, dtype, int, 0, MAX_COUNT - 1)
    return dict(values)


def check_precision(subject: str, precision: str, content: GraphContent) -> None:
    """Checks the label of a graph: ``fp32`` if all its MACs are in float32, ``fp16`` if at least `MIN_SHARE` of them
    are in float16, ``int8`` if as many are in INT8.

    Raises:
        PrecisionError: the counts do not agree with the label, or there is no rule for it.
    """
    if precision not in RULES:
        raise PrecisionError(f"{subject} is labelled {precision!r}; there are rules for {', '.join(RULES)} only")
    dtype, least = RULES[precision]
    total, computed = sum(content.macs.values()), content.macs.get(dtype, 0)
    if total == 0 or computed < least * total:
        raise PrecisionError(
            f"{subject} is labelled {precision}, but only {percentage(computed, total)} of its MACs are in {dtype}; "
            f"at least {100 * least:.0f} % must be. Export it again under the precision that it computes in"
        )


def describe(counts: Mapping[str, int]) -> str:
    """The shares of `counts` by type for a reader, the largest first: ``"float16 96.9 %, float32 3.1 %"``."""
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{dtype} {percentage(count, total)}" for dtype, count in ordered) or "nothing"


def percentage(part: int, whole: int) -> str:
    """`part` of `whole` with one decimal, never rounded to all or nothing: ``"100 %"`` and ``"0 %"`` are exact."""
    if whole == 0 or part in (0, whole):
        return "100 %" if part else "0 %"
    return f"{min(max(round(1000 * part / whole), 1), 999) / 10} %"
