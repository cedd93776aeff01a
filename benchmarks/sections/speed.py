"""Sections on speed: the graphs on a CPU, time by kernel and by stage, and growth with the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from align_bench.interleaved import speedup
from align_bench.statistics import percentile
from benchmarks.sections.layout import Section, gibibytes, mebibytes, milliseconds, plural, share, table

CLOCKS = {"processor": "CPU time", "wall": "wall clock"}
VISION_CANDIDATES = {"graph": "our graph, ONNX Runtime", "openvino": "our graph, OpenVINO in FP32"}
TEXT_CANDIDATES = {
    "embed_texts": "`embed_texts`, which sorts texts by length",
    "graph": "the graph for CPUs",
    "padded": "the graph for all devices",
    "openvino": "the graph for all devices, OpenVINO in FP32",
}
# ONNX Runtime's kernels by what they compute, those of FP32 and of INT8.
KERNELS = {
    "1×1 convolutions and the stem": ("Conv, 1×1 and stem", "QLinearConv, 1×1 and stem"),
    "depthwise convolutions": ("Conv, depthwise", "QLinearConv, depthwise"),
    "SiLU, and multiplication by the squeeze-excite gate": ("QuickGelu", "Mul", "QLinearSigmoid", "QLinearMul"),
    "rest of squeeze-excite": ("squeeze-excite",),
    "layout changes": ("ReorderInput", "ReorderOutput", "Transpose"),
}
STAGES = ("decode", "preprocess", "tokenize", "host to device", "compute", "device to host", "end to end")
BASELINES = {"fp32": "FP32 of the same bundle", "plain": "plain `torch.onnx.export`"}


def _ratio(case: Mapping[str, Any], candidate: str, baseline: str) -> str:
    return f"{speedup(case['seconds'][baseline], case['seconds'][candidate]):.2f}×"


def vision_lines(result: Mapping[str, Any]) -> list[str]:
    """The FP32 vision graph against the plain export."""
    rows = [
        (
            title,
            str(case["batch"]),
            str(case["threads"]),
            CLOCKS[case["clock"]],
            _ratio(case, candidate, "plain"),
            f"{case['max_abs_from_baseline'][candidate]:.1e}",
        )
        for candidate, title in VISION_CANDIDATES.items()
        for case in result["cases"]
    ]
    return [
        "The FP32 vision graph in the published sizes, one session, against the plain `torch.onnx.export` of "
        "transformers' vision tower on ONNX Runtime, without streams. Our graph normalizes uint8 pixels itself; the "
        "plain export gets normalized pixels. OpenVINO does not accept the plain export. CPU time is not disturbed by "
        "other processes, the wall clock is.",
        "",
        *table(("candidate", "batch", "threads", "clock", "speedup", "max abs difference"), rows),
    ]


def text_lines(result: Mapping[str, Any]) -> list[str]:
    """The FP32 text graphs against the plain export: captions of many lengths, then equal lengths."""
    cases = {case["name"]: case for case in result["cases"]}
    captions = cases.pop("captions")
    count, mean = len(captions["tokens"]), sum(captions["tokens"]) / len(captions["tokens"])
    described = [
        ("embed_texts", captions, f"{count} captions", CLOCKS["wall"]),
        ("graph", captions, f"{count} captions, padded to 64 tokens too", CLOCKS["wall"]),
    ]
    for name, case in cases.items():
        batch, length = name.split("x")
        inputs = f"batch {batch}, {length} tokens each"
        described += [(candidate, case, inputs, CLOCKS["processor"]) for candidate in case["seconds"]]
    rows = [
        (
            TEXT_CANDIDATES[candidate],
            inputs,
            clock,
            _ratio(case, candidate, "plain"),
            f"{case['max_abs_from_baseline'][candidate]:.1e}",
        )
        for candidate, case, inputs, clock in described
        if candidate != "plain"
    ]
    return [
        "FP32 text graphs in the published sizes against the plain `torch.onnx.export` of the same tower on ONNX "
        f"Runtime. The {count} captions have {mean:.1f} tokens on average; the plain export gets them in batches of "
        f"32, padded to 64 tokens, with {plural(result['threads'], 'thread')}. The batches of equal length have no "
        "padding to skip and run on 1 thread: most of the speedup comes from skipped padding.",
        "",
        *table(("candidate", "input", "clock", "speedup", "max abs difference"), rows),
    ]


def int8_lines(result: Mapping[str, Any]) -> list[str]:
    """INT8 against FP32 and the plain export."""
    cases = result["cases"]
    rows = [
        (case["name"], candidate, BASELINES[baseline], _ratio(case, candidate, baseline))
        for case in cases
        for baseline in [next(iter(case["seconds"]))]
        for candidate in case["seconds"]
        if candidate.startswith("int8")
    ]
    (difference,) = [case["max_abs_alone_from_batch"] for case in cases if case["name"] == "captions"]
    return [
        f"INT8 graphs for CPUs in the published sizes, {plural(result['threads'], 'thread')}, wall clock. Captions are "
        "embedded by `embed_texts`; the plain export gets them padded to 64 tokens. The embedding of a caption alone "
        f"and in its batch differ by at most {difference:.1e}. The export with `--int8` took "
        f"{result['export']['seconds']:.0f} s and {gibibytes(result['export']['peak_bytes'])} of memory.",
        "",
        *table(("input", "candidate", "baseline", "speedup"), rows),
    ]


def kernel_lines(result: Mapping[str, Any]) -> list[str]:
    """Milliseconds of one image on one thread by kind of kernel, and their share."""
    kinds = {precision: by_kind(kernels) for precision, kernels in result["graphs"].items()}
    totals = {precision: sum(values.values()) for precision, values in kinds.items()}
    rows = [
        [kind, *(f"{values[kind]:.1f} ms, {share(values[kind] / totals[name])}" for name, values in kinds.items())]
        for kind in kinds["fp32"]
    ]
    first, _, silu, *_ = kinds["fp32"]
    shares = {name: [values[kind] / totals[name] for kind in (first, silu)] for name, values in kinds.items()}
    return [
        "Where the time of one image goes: the vision graphs for CPUs in the published sizes on one thread, as in a "
        f"stream, by ONNX Runtime's profiler, medians of single runs. The {first} take {share(shares['fp32'][0])} of "
        f"the time in FP32, which the vector unit limits, and {share(shares['int8'][0])} in INT8. ONNX Runtime "
        "computes an INT8 SiLU in two passes, a table look-up (QLinearSigmoid) and a multiplication (QLinearMul); "
        f"with the gate of squeeze-excite these take {share(shares['int8'][1])}. This limits the speedup of INT8.",
        "",
        *table(["kernels", *(name.upper() for name in kinds)], rows),
    ]


def by_kind(kernels: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Milliseconds by kind of kernel: the sum of its groups' medians. Groups in none of `KERNELS` come last."""
    medians = {group: median(values["milliseconds"]) for group, values in kernels.items()}
    kinds = {kind: sum(medians.pop(group, 0.0) for group in groups) for kind, groups in KERNELS.items()}
    return {**kinds, "everything else": sum(medians.values())}


def stage_lines(result: Mapping[str, Any]) -> list[str]:
    """`align-bench`: median time of each stage, and what a fresh process pays."""
    names = {name for timing in result["timings"] for name in timing["stages"]}
    stages = sorted(names, key=lambda name: (STAGES.index(name) if name in STAGES else len(STAGES), name))
    rows = [
        [
            _case_title(timing["case"]),
            *(milliseconds(median(timing["stages"][name])) if name in timing["stages"] else "—" for name in stages),
        ]
        for timing in result["timings"]
    ]
    return [
        "`align-bench` on a bundle of the published sizes: median milliseconds of a call by stage. Stages overlap in "
        "the whole call (end to end), which is what a user waits for. The result file also has every sample and the "
        "latencies under load.",
        "",
        *table(["case", *stages], rows),
        "",
        "A fresh process: import, load, the first call of each tower (medians), and peak memory (maximum).",
        "",
        *table(("variant", "import", "load", "first image", "first text", "peak memory"), _start_rows(result)),
    ]


def _case_title(case: Mapping[str, Any]) -> str:
    unit = "" if case["tower"] == "vision" else " tokens"
    return f"{case['tower']} {case['precision'].upper()}, batch {case['batch']} of {case['size']}{unit}"


def _start_rows(result: Mapping[str, Any]) -> list[list[str]]:
    variants: dict[str, list[Mapping[str, Any]]] = {}
    for start in result["starts"]:
        variants.setdefault(start["precision"], []).append(start)
    rows = []
    for precision, starts in variants.items():
        seconds = [median(start[key] for start in starts) for key in ("import_seconds", "load_seconds")]
        seconds += [median(start["first_seconds"][tower] for start in starts) for tower in ("vision", "text")]
        peak = max(start["peak_bytes"] for start in starts)
        rows.append([precision.upper(), *(f"{value:.3f} s" for value in seconds), mebibytes(peak)])
    return rows


def client_lines(result: Mapping[str, Any]) -> list[str]:
    """Latency and throughput of many clients at once, without and with a limit of concurrent calls."""
    rounds, limit = result["latencies"], result["limit"]
    titles = {"unlimited": "no limit", "limited": f"{limit}, first come, first served"}
    rows = []
    for name, title in titles.items():
        pooled = [value for values in rounds[name] for value in values]
        latency = [milliseconds(percentile(pooled, share)) for share in (0.5, 0.95, 1)]
        rows.append([title, *latency, f"{_calls_per_second(result, pooled):.1f}"])
    gain = speedup(*([1 / _calls_per_second(result, values) for values in rounds[name]] for name in titles))
    return [
        f"{result['clients']} clients that each embed one caption after the other in FP32, published sizes. Latency is "
        "from request to answer, waiting in the queue included. The limit raises the throughput by a factor of "
        f"{gain:.2f} (median of the paired rounds).",
        "",
        *table(("calls at once", "median, ms", "95th percentile, ms", "longest, ms", "calls per second"), rows),
    ]


def _calls_per_second(result: Mapping[str, Any], latencies: Sequence[float]) -> float:
    """Throughput of a round: every client always waits for one answer, so it is clients by mean latency."""
    return float(result["clients"] * len(latencies) / sum(latencies))


def scaling_lines(result: Mapping[str, Any]) -> list[str]:
    """How the time of one input grows, a row for each axis."""
    axes: dict[tuple[str, str], list[str]] = {}
    for point in result["points"]:
        cell = f"{point['at']}: {milliseconds(point['milliseconds'] / 1000)}"
        axes.setdefault((point["tower"], point["axis"]), []).append(cell)
    rows: Sequence[Sequence[str]] = [[tower, axis, ", ".join(cells)] for (tower, axis), cells in axes.items()]
    return [
        f"Milliseconds per input in {result['precision'].upper()} as one quantity grows (`align-bench scaling`). The "
        "others stay at 8 inputs, 12 tokens, and JPEG files of 640×480. A batch of the graph runs on all threads; "
        "everything else is a call of `embed_images` or `embed_texts`.",
        "",
        *table(("tower", "axis", "value: ms per input"), rows),
    ]


SECTIONS = (
    Section("Vision graph on a CPU", "vision", vision_lines),
    Section("Text graph on a CPU", "text", text_lines),
    Section("INT8 on a CPU", "int8", int8_lines),
    Section("Time by kernel", "profile", kernel_lines),
    Section("Time by stage and cold start", "align_bench", stage_lines),
    Section("Many clients at once", "clients", client_lines),
    Section("Scaling", "scaling", scaling_lines),
)
