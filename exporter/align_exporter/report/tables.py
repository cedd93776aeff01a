"""What the report's templates show: rows of tables, pairs of facts and short sentences, computed from the record."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from align_bench.page import formatting
from align_bench.page.formatting import (
    NBSP,
    UNKNOWN,
    cosine,
    milliseconds,
    scientific,
    share,
    shares,
    size,
    times,
)
from align_calibration.ranges import TensorRange
from align_exporter.int8.speed import INT8
from align_exporter.report.record import BuildRecord, GraphRecord
from align_runtime.graph_entry import ANY_TARGET, Graph, TensorSpec
from align_runtime.parity import Parity
from align_runtime.preprocessing import RESAMPLING, ImagePreprocessing

Rows = list[tuple[str, ...]]
Facts = list[tuple[str, str]]
WORST_SAMPLES = 5
WORST_TENSORS = 20
DEVICE_NAMES = {"any": "any device", "cpu": "CPUs", "gpu": "GPUs"}


def title_of(graph: Graph) -> str:
    """Returns how the report names a graph: ``Vision · fp16``, ``Text · fp32 · for cpu``."""
    device = [] if graph.target == ANY_TARGET else [f"for {graph.target}"]
    return " · ".join([graph.tower.capitalize(), graph.variant, *device])


# ── verdict ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def speed_summary(record: GraphRecord) -> str:
    """Returns how fast an INT8 graph was, against the fastest float graph and on the input with the least speedup."""
    found = record.slowest
    if found is None:
        return "speed not measured"
    least = f", the least of {len(record.speed)} inputs" if len(record.speed) > 1 else ""
    return f"{times(found.speedup)} as fast as {found.baseline.upper()} on the build machine ({found.case}{least})"


def is_slower(record: GraphRecord) -> bool:
    """Whether an INT8 graph was measured and not faster than a float graph."""
    return record.slowest is not None and not record.slowest.speedup > 1


def by_variant(graphs: Sequence[GraphRecord]) -> dict[str, list[GraphRecord]]:
    """Returns the graphs of each variant."""
    variants: dict[str, list[GraphRecord]] = {}
    for record in graphs:
        variants.setdefault(record.graph.variant, []).append(record)
    return variants


def variant_facts(members: Sequence[GraphRecord]) -> Facts:
    """Returns the facts about a variant, whose graphs are `members`."""
    parities = [record.graph.parity for record in members]
    worst = max(parities, key=lambda parity: math.inf if math.isnan(parity.max_abs) else parity.max_abs)
    macs = sum((Counter(record.graph.content.macs) for record in members), Counter[str]())
    facts = [
        ("Lowest cosine", cosine(float(np.min([parity.min_cosine for parity in parities])))),
        ("Largest difference", f"{scientific(worst.max_abs)} ({worst.worst['max_abs']})"),
        ("MACs", shares(macs)),
    ]
    if any(record.graph.variant != "fp32" for record in members):
        islands = sum(len(record.graph.islands) for record in members)
        facts.append(("FP32 islands", f"{islands}, besides operators kept by rule"))
    return facts + [(title_of(record.graph), size(record.bytes)) for record in members]


def mean_centred(parity: Parity) -> str:
    """Returns the mean-centred cosine; unknown if there are too few rows for it."""
    return UNKNOWN if math.isnan(parity.min_centred_cosine) else cosine(parity.min_centred_cosine)


# ── size and precision ───────────────────────────────────────────────────────────────────────────────────────────────


def relative_size(record: GraphRecord, graphs: Sequence[GraphRecord]) -> str:
    """Returns the size relative to the FP32 graph for the same device, or for any device if there is none."""
    for target in (record.graph.target, ANY_TARGET):
        for other in graphs:
            same = (other.graph.tower, other.graph.target) == (record.graph.tower, target)
            if same and other.graph.variant == "fp32" and record.graph.variant != "fp32" and other.bytes:
                return f"{record.bytes / other.bytes:.3f}{NBSP}×"
    return UNKNOWN


def amount(counts: Mapping[str, int]) -> str:
    """Returns the sum of `counts`, e.g. ``8.40 G``."""
    return formatting.amount(sum(counts.values()))


def shared_data(graphs: Sequence[GraphRecord]) -> list[str]:
    """Returns the files of weights that several graphs use."""
    return [name for name, uses in Counter(record.graph.data for record in graphs).items() if name and uses > 1]


# ── one graph ────────────────────────────────────────────────────────────────────────────────────────────────────────


def graph_facts(record: GraphRecord) -> Facts:
    """Returns the facts about a graph that need no markup."""
    graph = record.graph
    return [
        ("Size", size(record.bytes)),
        ("Inputs", "; ".join(map(_tensor, graph.inputs))),
        ("Outputs", "; ".join(map(_tensor, graph.outputs))),
        ("Runs on", DEVICE_NAMES[graph.target]),
        ("Precision", f"{graph.variant}; {shares(graph.content.macs)} of the MACs"),
        *([("Graph passes", passes(record))] if record.passes else []),
        *([("Casts", f"{record.casts} between float types")] if record.casts else []),
        ("ONNX opset", str(graph.opset)),
    ]


def passes(record: GraphRecord) -> str:
    """Returns the rewrites of each graph pass: ``FoldQueryScale 12, ConstantReshape 40 of 46 (optional)``."""
    texts = []
    for count in record.passes:
        short = "" if count.is_expected else f" of {count.expected} (optional)"
        texts.append(f"{count.name}{NBSP}{count.rewrites}{short}")
    return ", ".join(texts)


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.dtype} [{', '.join(map(str, spec.shape))}]"


def lowest_cosines(record: GraphRecord) -> dict[str, float]:
    """Returns the lowest cosine of each sample, lowest first; NaN comes before all others."""
    lowest: dict[str, float] = {}
    for label, value in zip(record.labels, record.cosines, strict=True):
        lowest[label] = float(np.minimum(lowest.get(label, np.inf), value))  # keeps NaN
    return dict(sorted(lowest.items(), key=lambda pair: (not math.isnan(pair[1]), pair[1])))


def worst_samples(record: GraphRecord) -> Rows:
    """Returns rows of sample, cosine and 1 − cosine."""
    return [
        (label, cosine(value), scientific(1 - value))
        for label, value in list(lowest_cosines(record).items())[:WORST_SAMPLES]
    ]


# ── quantization ─────────────────────────────────────────────────────────────────────────────────────────────────────


def observers(record: GraphRecord) -> Rows:
    """Returns rows of observer, error and samples."""
    return [(trial.scheme, scientific(trial.error), str(trial.samples)) for trial in record.trials]


def candidates(record: GraphRecord) -> Rows:
    """Returns rows of parts in float, share of MACs in INT8, cosine and top-1 agreement."""
    return [
        (
            str(len(candidate.kept)),
            share(candidate.share, 1.0),
            cosine(candidate.fidelity.cosine),
            share(candidate.fidelity.agreement, 1.0),
        )
        for candidate in record.candidates
    ]


def fidelity(record: GraphRecord, name: str) -> list[float]:
    """Returns ``"cosine"`` or ``"agreement"`` of each candidate."""
    return [getattr(candidate.fidelity, name) for candidate in record.candidates]


def speed(record: GraphRecord) -> Rows:
    """Returns rows of input, baseline, seconds of both and speedup."""
    return [
        (
            comparison.case,
            comparison.baseline,
            *(milliseconds(median(comparison.seconds[name])) for name in (comparison.baseline, INT8)),
            times(comparison.speedup),
        )
        for comparison in record.speed
    ]


# ── activation ranges ────────────────────────────────────────────────────────────────────────────────────────────────


def worst_rounded(tensors: Sequence[TensorRange], kept: Mapping[str, str]) -> TensorRange | None:
    """Returns the FP16 tensor with the largest rounding error; None if all are kept in FP32."""
    rounded = [tensor for tensor in tensors if tensor.tensor not in kept]
    errors = {tensor: math.inf if math.isnan(tensor.rounding_error) else tensor.rounding_error for tensor in rounded}
    return max(rounded, key=errors.__getitem__, default=None)


def worst_tensors(tensors: Sequence[TensorRange], kept: Mapping[str, str]) -> list[tuple[TensorRange, str]]:
    """Returns tensors and why they are kept in FP32, or ``"no"``.

    Those of islands come first, then the largest; those kept by a rule, on which values have no influence, come last.
    """
    order = ("island", "no", "rule")

    def rank(tensor: TensorRange) -> tuple[int, float]:
        largest = tensor.max_abs if math.isfinite(tensor.max_abs) else math.inf
        return order.index(kept.get(tensor.tensor, "no")), -largest

    return [(tensor, kept.get(tensor.tensor, "no")) for tensor in sorted(tensors, key=rank)[:WORST_TENSORS]]


# ── provenance ───────────────────────────────────────────────────────────────────────────────────────────────────────


def model_facts(record: BuildRecord) -> Facts:
    """Returns the facts about the model."""
    model = record.model
    return [
        ("Embedding", f"{model.embedding_dim} values, unit length"),
        ("Temperature", f"{model.temperature:.6g}"),
        (
            "Text",
            f"up to {model.max_length} tokens, {model.vocab_size} in the vocabulary, padding {model.pad_token_id}",
        ),
    ]


def preprocessing_facts(steps: ImagePreprocessing) -> Facts:
    """Returns the steps of image preprocessing."""
    height, width = steps.output_size
    resized = "no" if steps.size is None else ", ".join(f"{key} {value}" for key, value in steps.size.to_json().items())
    resample = "" if steps.resample is None else f" ({RESAMPLING[steps.resample]})"
    rescaled = f"× {steps.rescale_factor!r}{' − 1' if steps.rescale_offset else ''}"
    return [
        ("Resize", f"{resized}{resample}"),
        ("Centre crop", "no" if steps.crop_size is None else f"{steps.crop_size[0]} × {steps.crop_size[1]}"),
        ("Rescale", "no" if steps.rescale_factor is None else rescaled),
        ("Mean", _triple(steps.image_mean)),
        ("Standard deviation", _triple(steps.image_std)),
        ("Divided by it again (include_top)", "yes" if steps.include_top else "no"),
        ("Result", f"{height} × {width} pixels"),
    ]


def _triple(values: tuple[float, float, float] | None) -> str:
    return "none" if values is None else ", ".join(f"{value:g}" for value in values)


def option_facts(record: BuildRecord) -> Facts:
    """Returns the options of the export as JSON."""
    options = record.provenance.options
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in options.items()]
