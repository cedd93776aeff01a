"""Measures what limits the vision tower on this processor; writes ``benchmarks/results/roofline.json``.

    python -m benchmarks.measure_roofline [--runs 9] [--folder build/bench]

Peaks of one thread: the products of two matrices by ONNX Runtime, in FP32 and INT8, and the bytes that a copy reads and
writes. Then ONNX Runtime's profiler on the vision graphs for CPUs in the published sizes, with one thread and one
image. By side of the feature map that a kernel writes: MACs, bytes of all tensors that kernels read and write, and
milliseconds. From the peaks follow two lower bounds of the time: that of the arithmetic, and that of the memory, if no
tensor stayed in a cache.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from align_runtime.console import table
from benchmarks.full_size_bundle import FOLDER, prepare
from benchmarks.measure_profile import WARM_UP, events
from benchmarks.result_files import conditions, write_result
from support.checkpoints import crops

SIDE = 1024  # of the matrices
COPIED = 1 << 28  # bytes: more than any cache holds
ROUNDS = 9
PRECISIONS = ("fp32", "int8")
SIZES = {"float": 4, "int32": 4, "int8": 1, "uint8": 1, "int64": 8, "bool": 1, "float16": 2, "double": 8}


def matrix_product(precision: str) -> Callable[[], object]:
    """Multiplies two matrices of `SIDE` on one thread, with the kernels that convolutions of `precision` use."""
    shape = [SIDE, SIDE]
    if precision == "fp32":
        nodes = [helper.make_node("MatMul", ["a", "b"], ["c"])]
        types = {"a": TensorProto.FLOAT, "b": TensorProto.FLOAT, "c": TensorProto.FLOAT}
        weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        inputs = {"a": weights.T.copy()}
    else:
        nodes = [helper.make_node("MatMulInteger", ["a", "b"], ["c"])]
        types = {"a": TensorProto.UINT8, "b": TensorProto.INT8, "c": TensorProto.INT32}
        weights = np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)
        inputs = {"a": np.abs(weights.T).astype(np.uint8)}
    values = {name: helper.make_tensor_value_info(name, kind, shape) for name, kind in types.items()}
    constant = onnx.numpy_helper.from_array(weights, "b")
    graph = helper.make_graph(nodes, "product", [values["a"]], [values["c"]], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def seconds(run: Callable[[], object]) -> list[float]:
    """Of `ROUNDS` calls, after some to warm up."""
    found = []
    for _ in range(WARM_UP + ROUNDS):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found[WARM_UP:]


def peaks() -> dict[str, float]:
    """GMAC/s by precision, and GB/s of a copy, both of one thread."""
    source = np.ones(COPIED, np.uint8)
    target = np.zeros_like(source)
    found = {f"{name}_gmacs": SIDE**3 / median(seconds(matrix_product(name))) / 1e9 for name in PRECISIONS}
    return found | {"copy_gigabytes": 2 * COPIED / median(seconds(lambda: np.copyto(target, source))) / 1e9}


def shapes(entries: Sequence[Mapping[str, list[int]]]) -> list[tuple[str, list[int]]]:
    """Type and shape of each tensor, as the profiler writes them."""
    return [next(iter(entry.items())) for entry in entries if entry]


def size_of(entries: Sequence[Mapping[str, list[int]]]) -> int:
    """Bytes of these tensors."""
    return sum(SIZES[kind] * prod(shape) for kind, shape in shapes(entries))


def side_of(shape: Sequence[int]) -> int:
    """Height of a square feature map in either layout, of which batch and channels may be first or last; 1 for none."""
    if len(shape) != 4:
        return 1
    return shape[2] if shape[2] == shape[3] else shape[1]


def macs_of(arguments: Mapping[str, Any]) -> int:
    """MACs of a kernel; 0 for all but convolutions, which have nearly all."""
    if not arguments["op_name"].endswith("Conv"):
        return 0
    (_, output), *_ = shapes(arguments["output_type_shape"])
    weights = [shape for _, shape in shapes(arguments["input_type_shape"])[1:] if len(shape) == 4]
    return side_of(output) ** 2 * prod(weights[0])


def profile(file: Path, pixels: np.ndarray, runs: int) -> list[dict[str, Any]]:
    """A record for each side of feature maps, the largest first."""
    milliseconds: dict[int, list[float]] = defaultdict(lambda: [0.0] * runs)
    macs: dict[int, int] = defaultdict(int)
    read_and_written: dict[int, int] = defaultdict(int)
    for run, _, arguments, duration in events(file, pixels, runs):
        (_, output), *_ = shapes(arguments["output_type_shape"])
        side = side_of(output)
        milliseconds[side][run] += duration
        if run == 0:
            macs[side] += macs_of(arguments)
            read_and_written[side] += size_of(arguments["input_type_shape"]) + size_of(arguments["output_type_shape"])
    return [
        {
            "side": side,
            "macs": macs[side],
            "bytes": read_and_written[side],
            "milliseconds": [round(value, 3) for value in milliseconds[side]],
        }
        for side in sorted(milliseconds, reverse=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="runs of each graph (default: 9)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="checkpoint and bundle, made if missing")
    options = parser.parse_args()
    load_before = os.getloadavg()
    bundle = prepare(options.folder).bundle
    pixels = np.stack([np.asarray(image) for image in crops(1, bundle.manifest.preprocessing.output_size[0])])
    result: dict[str, Any] = {"peaks": peaks(), "graphs": {}}
    for precision in PRECISIONS:
        file = bundle.path(bundle.graph("vision", precision, "cpu").file)
        result["graphs"][precision] = found = profile(file, pixels, options.runs)
        rows = [
            [
                str(row["side"]),
                f"{row['macs'] / 1e9:.2f}",
                f"{row['bytes'] / 1e6:.0f}",
                f"{median(row['milliseconds']):.1f}",
            ]
            for row in found
        ]
        print(table([precision, "GMACs", "MB", "ms"], rows, right=(1, 2, 3)), flush=True)
    write_result("roofline", {**conditions(load_before), **result})


if __name__ == "__main__":
    main()
