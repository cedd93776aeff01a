"""Records of builds for the report's tests.

`tiny_record` is measured on an exported bundle without FP16 graphs: its FP16 graphs are the FP32 ones with embeddings
rounded to FP16, and invented shares and islands. `with_int8` adds an INT8 graph with invented measurements.
`large_record` has as many tensors as the published model, with invented values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from align_calibration.ranges import TensorRange
from align_exporter.int8.calibrate import ObserverTrial
from align_exporter.int8.fidelity import Fidelity, FidelityTarget
from align_exporter.int8.mixed_precision import Candidate
from align_exporter.int8.speed import SpeedComparison
from align_exporter.report.record import BuildRecord, ErrorHistogram, GraphRecord, Phase
from align_runtime import golden
from align_runtime.bundle import Bundle
from align_runtime.golden import Golden
from align_runtime.graph_entry import Graph, Island, Quantization
from align_runtime.parity import Limits, compare, cosines
from align_runtime.precision import GraphContent

HEADROOM = 8.0
FP16_LIMITS = Limits(max_abs=5e-3, min_cosine=0.9995, min_centred_cosine=0.9995)
MACHINE = {"cpu": "a processor", "cores": "2", "system": "Linux"}
PHASES = (
    Phase("read align-tiny", 1.4),
    Phase("vision fp32: trace", 15.9),
    Phase("vision fp32: checks", 0.1),
    Phase("vision fp32: parity with the reference", 0.4),
    Phase("text fp32: trace", 148.2),
    Phase("bundle and self-test", 0.5),
)


def tiny_record(folder: Path) -> BuildRecord:
    """The record of the bundle in `folder`, with an FP16 variant of two of its graphs."""
    bundle = Bundle.open(folder)
    manifest, answers = bundle.manifest, golden.read(bundle)
    outputs = [_run(folder / graph.file, _inputs(graph, answers)) for graph in manifest.graphs]
    graphs = [
        _graph_record(bundle, graph, output, answers) for graph, output in zip(manifest.graphs, outputs, strict=True)
    ]
    ranges = {
        graph.tower: _ranges(folder / graph.file, _inputs(graph, answers))
        for graph in manifest.graphs
        if graph.target == "any"
    }
    for record, output in list(zip(graphs, outputs, strict=True))[:2]:
        graphs.append(_as_fp16(record, output, answers, ranges[record.graph.tower]))
    return BuildRecord(
        provenance=manifest.provenance,
        model=manifest.model,
        preprocessing=manifest.preprocessing,
        graphs=tuple(graphs),
        ranges=ranges,
        headroom=HEADROOM,
        phases=PHASES,
        built="2026-11-25T15:00:00Z",
        machine=MACHINE,
    )


def large_record(tiny: BuildRecord) -> BuildRecord:
    """`tiny` with as many tensors as the published model, 700 and 400, of which some stay in FP32."""
    ranges = {
        "vision": _made_up("vision_model.encoder.blocks", 700, 55, seed=1),
        "text": _made_up("text_model.encoder.layer", 400, 12, seed=2),
    }
    islands = {tower: _islands(tensors) for tower, tensors in ranges.items()}
    graphs = [
        replace(record, graph=replace(record.graph, islands=islands[record.graph.tower]))
        if record.graph.variant == "fp16"
        else record
        for record in tiny.graphs
    ]
    return replace(tiny, graphs=tuple(graphs), ranges=ranges)


def with_int8(record: BuildRecord, speedups: Mapping[str, float]) -> BuildRecord:
    """`record` with an INT8 vision graph for CPUs, `speedups` times as fast as FP32, by input."""
    twin = next(each for each in record.graphs if each.graph.tower == "vision")
    quantization = Quantization("percentile 99.99", 8, min(speedups.values(), default=None), ("blocks.0", "blocks.3"))
    content = GraphContent({"int8": 90, "float32": 10}, {"int8": 9, "float32": 1})
    graph = replace(
        twin.graph,
        variant="int8",
        target="cpu",
        file="onnx/vision_model_int8_cpu.onnx",
        content=content,
        quantization=quantization,
    )
    int8 = replace(
        twin,
        graph=graph,
        trials=(ObserverTrial("percentile 99.99", 1e-3, 200), ObserverTrial("min-max", 2e-3, 33)),
        target=FidelityTarget(cosine=0.995),
        candidates=(
            Candidate(("blocks.0", "blocks.3"), 0.9, Fidelity(cosine=0.996, agreement=0.98)),
            Candidate((), 1.0, Fidelity(cosine=0.99, agreement=0.9)),
        ),
        speed=tuple(
            SpeedComparison(case, {"fp32": (ratio,) * 8, "fp16": (9.0,) * 8, "int8": (1.0,) * 8})
            for case, ratio in speedups.items()
        ),
    )
    return replace(record, graphs=(*record.graphs, int8))


def _inputs(graph: Graph, answers: Golden) -> dict[str, NDArray[np.generic]]:
    return {spec.name: getattr(answers, spec.name) for spec in graph.inputs}


def _expected(graph: Graph, answers: Golden) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    if graph.tower == "vision":
        return answers.image_embeds, tuple(image.name for image in answers.images)
    return answers.text_embeds, tuple(map(repr, answers.texts))


def _run(file: Path, inputs: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, dict(inputs))[0]


def _graph_record(bundle: Bundle, graph: Graph, output: NDArray[np.float32], answers: Golden) -> GraphRecord:
    expected, labels = _expected(graph, answers)
    return GraphRecord(
        graph=graph,
        bytes=bundle.manifest.graph_bytes(graph),
        errors=ErrorHistogram.of(output - expected),
        cosines=_cosines(output, expected),
        labels=labels,
        casts=0,
        kept_by_rule=(),
    )


def _as_fp16(
    record: GraphRecord, output: NDArray[np.float32], answers: Golden, ranges: tuple[TensorRange, ...]
) -> GraphRecord:
    expected, labels = _expected(record.graph, answers)
    rounded = output.astype(np.float16).astype(np.float32)
    graph = replace(
        record.graph,
        variant="fp16",
        file=record.graph.file.replace(".onnx", "_fp16.onnx"),
        data=None,
        parity=compare(rounded, expected, labels),
        limits=FP16_LIMITS,
        islands=_islands(ranges),
        content=_halved(record.graph.content),
    )
    return replace(
        record,
        graph=graph,
        bytes=record.bytes // 2,
        errors=ErrorHistogram.of(rounded - expected),
        cosines=_cosines(rounded, expected),
        casts=4,
        kept_by_rule=(ranges[0].tensor,),
    )


def _halved(content: GraphContent) -> GraphContent:
    """The same counts, all but 120 in float16."""
    return GraphContent(
        *({"float16": counts["float32"] - 120, "float32": 120} for counts in (content.macs, content.weights))
    )


def _cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(cosines(left.astype(np.float64), right.astype(np.float64)).tolist())


def _islands(ranges: tuple[TensorRange, ...]) -> tuple[Island, ...]:
    """Two islands: the largest tensor with its neighbours, and the smallest."""
    largest = max(range(len(ranges)), key=lambda index: ranges[index].max_abs)
    smallest = min(ranges, key=lambda tensor: tensor.max_abs)
    around = ranges[max(largest - 3, 0) : largest + 3]
    return (
        Island(
            tuple(tensor.tensor for tensor in around),
            tuple(f"{tensor.tensor} reaches {tensor.max_abs:.2g}" for tensor in around[:4]),
        ),
        Island((smallest.tensor,), (f"{smallest.tensor} falls to {smallest.max_abs:.2g}",)),
    )


def _ranges(file: Path, inputs: Mapping[str, NDArray[np.generic]]) -> tuple[TensorRange, ...]:
    """Ranges of every float tensor that a node of the graph in `file` computes."""
    model = onnx.load(file)
    nodes = {output: node for node in model.graph.node for output in node.output}
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in nodes)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(list(nodes), dict(inputs))
    return tuple(
        _range(nodes[name].name, nodes[name].op_type, value)
        for name, value in zip(nodes, values, strict=True)
        if value.dtype == np.float32
    )


def _range(name: str, operator: str, value: NDArray[np.float32]) -> TensorRange:
    exact = value.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        change = np.linalg.norm(value.astype(np.float16).astype(np.float64) - exact) / np.linalg.norm(exact)
    return TensorRange(
        tensor=name,
        operator=operator,
        max_abs=float(np.abs(exact).max()),
        rms=float(np.sqrt(np.mean(exact**2))),
        rounding_error=float(change) if np.isfinite(change) else float("nan"),
    )


def _made_up(prefix: str, count: int, units: int, seed: int) -> tuple[TensorRange, ...]:
    """A random walk of magnitudes with one peak above the FP16 maximum and one valley in the subnormals."""
    random = np.random.default_rng(seed)
    logarithms = np.convolve(random.normal(0, 1.6, count + 7), np.full(8, 1 / 8), "valid") + random.normal(
        0, 0.3, count
    )
    logarithms[count // 3 : count // 3 + 3] = 5.1
    logarithms[count // 2] = -5.2
    return tuple(
        TensorRange(
            tensor=f"{prefix}.{index * units // count}.squeeze_excite.expand/Conv_{index}",
            operator=("Conv", "Sigmoid", "Mul")[index % 3],
            max_abs=float(10**logarithm),
            rms=float(10 ** (logarithm - random.uniform(0.3, 1.5))),
            rounding_error=float("nan") if 10**logarithm > 65504 else 2.4e-4,
        )
        for index, logarithm in enumerate(logarithms)
    )
