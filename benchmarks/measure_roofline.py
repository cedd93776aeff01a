"""Measures what limits the graphs on this processor; writes ``benchmarks/results/roofline.json``.

    python -m benchmarks.measure_roofline [--runs 9] [--folder build/bench]

Peaks on one thread and on two: products of two matrices by ONNX Runtime, in FP32 and INT8, and the bytes that a copy
reads and writes. Then ONNX Runtime's profiler on the graphs for CPUs in the published sizes, on one thread: one image,
by side of the feature map that a kernel writes, and one caption of 12 tokens, by kind of operator. Each row has MACs,
bytes of all tensors that kernels read and write, and milliseconds. From the peaks follow two lower bounds of the time:
that of the arithmetic, and that of the memory, if no tensor stayed in a cache. Last, what the INT8 vision graph could
gain by one idea (see benchmarks.one_pass_swish).
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from align_runtime.bundle import Bundle
from align_runtime.console import table
from benchmarks.full_size_bundle import FOLDER, prepare
from benchmarks.measure_profile import WARM_UP, events
from benchmarks.one_pass_swish import measure_swish
from benchmarks.result_files import conditions, write_result
from support.checkpoints import crops

MATRIX_SIDE = 1024
COPIED = 1 << 28  # bytes: more than any cache holds
ROUNDS, SWISH_ROUNDS = 9, 14
PRECISIONS = ("fp32", "int8")
THREADS = (1, 2)
TOKENS = 12
SIZES = {"float": 4, "int32": 4, "int8": 1, "uint8": 1, "int64": 8, "bool": 1, "float16": 2, "double": 8}
PRODUCTS = ("MatMul", "Gemm", "MatMulInteger", "DynamicQuantizeMatMul")
Stage = Callable[[Mapping[str, Any], int], str]


def matrix_product(precision: str, threads: int) -> Callable[[], object]:
    """Multiplies two matrices of `MATRIX_SIDE` with ONNX Runtime's kernels for `precision`."""
    shape = [MATRIX_SIDE, MATRIX_SIDE]
    weights = np.random.default_rng(0).integers(-127, 128, shape)
    if precision == "fp32":
        operator, kinds = "MatMul", (TensorProto.FLOAT, TensorProto.FLOAT)
        factors: tuple[NDArray[Any], NDArray[Any]] = (weights.T.astype(np.float32), weights.astype(np.float32))
    else:
        operator, kinds = "MatMulInteger", (TensorProto.UINT8, TensorProto.INT32)
        factors = (np.abs(weights.T).astype(np.uint8), weights.astype(np.int8))
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind in zip("ac", kinds, strict=True)]
    constant = onnx.numpy_helper.from_array(factors[1], "b")
    node = helper.make_node(operator, ["a", "b"], ["c"])
    graph = helper.make_graph([node], "product", values[:1], values[1:], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {"a": np.ascontiguousarray(factors[0])}
    return lambda: session.run(None, inputs)


def seconds(run: Callable[[], object]) -> float:
    """Median of `ROUNDS` calls, after some to warm up."""
    found = []
    for _ in range(WARM_UP + ROUNDS):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return median(found[WARM_UP:])


def peaks(threads: int) -> dict[str, float]:
    """GMAC/s by precision, and GB/s that a copy reads and writes."""
    source = np.ones(COPIED, np.uint8)
    parts = list(zip(np.split(np.zeros_like(source), threads), np.split(source, threads), strict=True))
    found = {f"{name}_gmacs": MATRIX_SIDE**3 / seconds(matrix_product(name, threads)) / 1e9 for name in PRECISIONS}
    with ThreadPoolExecutor(threads) as pool:
        copy = seconds(lambda: list(pool.map(lambda pair: np.copyto(*pair), parts)))
    return {"threads": threads, **found, "copy_gigabytes": 2 * COPIED / copy / 1e9}


def shapes(entries: Sequence[Mapping[str, list[int]]]) -> list[tuple[str, list[int]]]:
    """Type and shape of each tensor, as the profiler writes them."""
    return [next(iter(entry.items())) for entry in entries if entry]


def weights_of(file: Path) -> dict[str, int]:
    """How many weights each convolution and dense layer of the FP32 graph in `file` has, by name.

    ONNX Runtime's profiler says nothing of weights that a kernel has packed.
    """
    operators = (node for node in ir.load(file).graph if node.op_type in ("Conv", *PRODUCTS))
    constants = {node.name or "": node.inputs[1].const_value for node in operators if node.inputs[1] is not None}
    return {name: constant.size for name, constant in constants.items() if constant is not None}


def layer_of(node: str, operator: str, weights: Mapping[str, int]) -> int:
    """The number of weights of the kernel `node`, which has the name of its layer and perhaps more; 0 without any."""
    computes = operator.endswith("Conv") or operator in PRODUCTS  # what scales its result may have that name too
    names = [name for name in weights if computes and node.startswith(name)]
    return weights[max(names, key=len)] if names else 0


def size_of(arguments: Mapping[str, Any], weights: int, weight_bytes: int) -> int:
    """Bytes of the activations and weights that a kernel reads and writes."""
    outputs = shapes(arguments["output_type_shape"])
    # A Gather reads of its table what it writes.
    found = outputs + (outputs if arguments["op_name"] == "Gather" else shapes(arguments["input_type_shape"]))
    activations = [SIZES[kind] * prod(shape) for kind, shape in found if not weights or prod(shape) != weights]
    return sum(activations) + weights * weight_bytes


def side_of(shape: Sequence[int]) -> int:
    """Height of a square feature map with its channels first or last; 1 for any other tensor."""
    if len(shape) != 4:
        return 1
    return shape[2] if shape[2] == shape[3] else shape[1]


def macs_of(arguments: Mapping[str, Any], weights: int) -> int:
    """MACs of a convolution or matrix product with so many `weights`; 0 for any other kernel."""
    operator, (_, output) = arguments["op_name"], shapes(arguments["output_type_shape"])[0]
    if operator.endswith("Conv"):
        return side_of(output) ** 2 * weights
    return prod(output) * shapes(arguments["input_type_shape"])[0][1][-1] if operator in PRODUCTS else 0


def feature_map(arguments: Mapping[str, Any], weights: int) -> str:
    """The size of the feature map that a kernel writes."""
    side = side_of(shapes(arguments["output_type_shape"])[0][1])
    return f"{side}×{side}"


def kind(arguments: Mapping[str, Any], weights: int) -> str:
    """Whether a kernel is a dense layer, a product of activations, or something else."""
    if arguments["op_name"] not in PRODUCTS:
        return "everything else"
    return "dense layers" if weights else "attention"


def profile(
    file: Path,
    inputs: Mapping[str, NDArray[Any]],
    stage: Stage,
    runs: int,
    weights: Mapping[str, int],
    weight_bytes: int,
) -> dict[str, dict[str, Any]]:
    """A record for each stage, in the order in which they are first reached."""
    records: dict[str, dict[str, Any]] = defaultdict(lambda: {"macs": 0, "bytes": 0, "milliseconds": [0.0] * runs})
    for run, node, arguments, duration in events(file, inputs, runs):
        count = layer_of(node, arguments["op_name"], weights)
        record = records[stage(arguments, count)]
        record["milliseconds"][run] += duration
        if run == 0:
            record["macs"] += macs_of(arguments, count)
            record["bytes"] += size_of(arguments, count, weight_bytes)
    return dict(records)


def image_of(bundle: Bundle) -> NDArray[np.uint8]:
    """One image in the size of the graph, uint8 (1, height, width, 3)."""
    return np.stack([np.asarray(image) for image in crops(1, bundle.manifest.preprocessing.output_size[0])])


def graphs(bundle: Bundle, runs: int) -> dict[str, dict[str, dict[str, Any]]]:
    """The profiles of both towers in both precisions."""
    ids = np.full((1, TOKENS), bundle.manifest.model.pad_token_id + 5, np.int64)
    cases: dict[str, tuple[Mapping[str, NDArray[Any]], Stage]] = {
        "vision": ({"pixels": image_of(bundle)}, feature_map),
        "text": ({"input_ids": ids, "attention_mask": np.ones_like(ids)}, kind),
    }
    found = {}
    for tower, (inputs, stage) in cases.items():
        weights = weights_of(bundle.path(bundle.graph(tower, "fp32", "cpu").file))
        for precision, weight_bytes in zip(PRECISIONS, (4, 1), strict=True):
            name = f"{tower} {precision}"
            file = bundle.path(bundle.graph(tower, precision, "cpu").file)
            found[name] = profile(file, inputs, stage, runs, weights, weight_bytes)
            rows = [
                [label, f"{row['macs'] / 1e9:.3f}", f"{row['bytes'] / 1e6:.1f}", f"{median(row['milliseconds']):.2f}"]
                for label, row in found[name].items()
            ]
            print(table([name, "GMACs", "MB", "ms"], rows, right=(1, 2, 3)), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="runs of each graph (default: 9)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="checkpoint and bundle, made if missing")
    options = parser.parse_args()
    load_before = os.getloadavg()
    bundle = prepare(options.folder).bundle
    found = {"peaks": [peaks(threads) for threads in THREADS], "graphs": graphs(bundle, options.runs)}
    int8 = bundle.path(bundle.graph("vision", "int8", "cpu").file)
    found["one_pass_swish"] = measure_swish(int8, image_of(bundle), SWISH_ROUNDS)
    write_result("roofline", {**conditions(load_before), **found})


if __name__ == "__main__":
    main()
