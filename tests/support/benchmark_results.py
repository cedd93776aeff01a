"""Small made-up results, one for each section of the page; the figures are round, so that a test can tell them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from benchmarks.sections.ideas import IDEAS
from benchmarks.sections.targets import TARGETS
from benchmarks.sections.threads import ONE_CORE, SLEEPING, SPINNING
from support.int8_results import ablation, int8_peers, trained

MACHINE = {
    "processor": "a processor (avx2)",
    "cores": 2,
    "date": "2026-11-25T12:00:00",
    "versions": {"onnxruntime": "1.32", "openvino": "2026.4", "torch": "2.13"},
}
MIB = 2**20
LOAD = {"before": [0.1, 0, 0], "after": [0.2, 0, 0]}


def bench(noise: float = 0.0) -> dict[str, Any]:
    """Every baseline takes a second in every round, our candidate half of it; with `noise`, rounds differ that much."""
    cases: dict[str, dict[str, list[float]]] = {}
    for target in TARGETS:
        seconds = cases.setdefault(target.case, {})
        seconds[target.candidate] = [0.5 * (1 + noise * (turn % 3)) for turn in range(8)]
        seconds[target.baseline] = [1.0 * (1 + noise * (turn % 2)) for turn in range(8)]
    return {
        "machine": MACHINE,
        "load": LOAD,
        "threads": 2,
        "starts": [{"import_seconds": 0.2, "load_seconds": 1.0}] * 8,
        "cases": [{"name": name, "seconds": seconds} for name, seconds in cases.items()],
    }


def case(name: str, **seconds: float) -> dict[str, Any]:
    """Two rounds of the same seconds for each candidate."""
    return {
        "name": name,
        "seconds": {candidate: [value] * 2 for candidate, value in seconds.items()},
        "max_abs_from_baseline": dict.fromkeys(seconds, 1e-6),
    }


def _graph(variant: str, bytes_: int, cosine: float, **macs: int) -> dict[str, Any]:
    parity = {"max_abs": 1e-5, "min_cosine": cosine, "min_centred_cosine": cosine}
    content = {"macs": macs, "weights": {"float32": 50_000_000}}
    file = f"onnx/vision_model_{variant}.onnx"
    return {"file": file, "variant": variant, "target": "any", "bytes": bytes_, "parity": parity, "content": content}


def gpu_check() -> dict[str, Any]:
    """A result of the GPU check on a made-up card: one case, a step that failed and one without time."""
    seconds = case("vision 32", **{"torch eager": 0.04, "torch.compile reduce-overhead": 0.02, "cuda fp16": 0.01})
    check = {"tower": "vision", "variant": "fp16", "parity": {"max_abs": 0.004, "min_cosine": 0.9996}}
    options = {"32": {"batch": 32, "changes": {"prefer_nhwc": "0"}, "ready": 8.0, "seconds": [0.02, 0.03]}}
    steps = [
        {"name": "verify full-size on cuda", "exit_code": 0, "result": {"checks": [check]}},
        {"name": "speed", "exit_code": 0, "result": [{"tower": "vision", "batch": 32, **seconds}]},
        {"name": "options", "exit_code": 124, "result": options},
        {"name": "rtx", "exit_code": 1, "result": None},
        {"name": "speed against autotuning", "exit_code": 125, "result": None},
    ]
    gpu = {"name": "Made-up GPU", "driver_version": "580.1"}
    return {"machine": MACHINE, "gpu": gpu, "packages": {"torch": "2.11"}, "steps": steps}


def made_up() -> dict[str, dict[str, Any]]:
    """Result by name of its file."""
    export = {"seconds": 60.0, "peak_bytes": 2**31}
    results = {
        "bench": bench(),
        "vision": {
            "machine": MACHINE,
            "load": LOAD,
            "cases": [
                {"batch": 1, "clock": clock, "threads": 1, **case(clock, plain=3.0, openvino=2.0, graph=1.0)}
                for clock in ("processor", "wall")
            ],
        },
        "text": {
            "machine": MACHINE,
            "load": LOAD,
            "threads": 2,
            "cases": [
                case("1x12", plain=3.0, openvino=2.0, padded=1.5, graph=1.0),
                {"tokens": [10, 12], **case("captions", plain=8.0, graph=4.0, embed_texts=2.0)},
            ],
        },
        "int8": {
            "machine": MACHINE,
            "load": LOAD,
            "threads": 2,
            "export": export,
            "cases": [
                case("images 1", fp32=2.0, int8=1.0),
                {"max_abs_alone_from_batch": 1e-8, **case("captions", plain=5.0, fp32=2.0, int8=1.0)},
            ],
        },
        "profile": {
            "machine": MACHINE,
            "load": LOAD,
            "graphs": {
                "fp32": {"Conv, 1×1 and stem": {"milliseconds": [75.0]}, "Mul": {"milliseconds": [25.0]}},
                "int8": {"QLinearConv, 1×1 and stem": {"milliseconds": [30.0]}, "QLinearMul": {"milliseconds": [20.0]}},
            },
        },
        "ray": {
            "machine": MACHINE,
            "load": LOAD,
            "texts": 1000,
            "rates": {
                "runtime, one core": [100.0, 110.0],
                "runtime, two cores": [190.0, 209.0],
                "Ray, one actor": [90.0, 100.0],
                "Ray, two actors": [153.0, 170.0],
            },
            "max_abs": 1e-8,
        },
        "roofline": {
            "machine": MACHINE,
            "load": LOAD,
            "peaks": [{"threads": 1, "fp32_gmacs": 50.0, "int8_gmacs": 200.0, "copy_gigabytes": 10.0}],
            "graphs": {
                "vision fp32": {"9×9": {"macs": 4 * 10**9, "bytes": 10**7, "milliseconds": [90.0, 100.0, 130.0]}}
            },
            "one_pass_swish": [{"batch": 1, "seconds": {"as it is": [0.12] * 2, "one look-up": [0.1] * 2}}],
        },
        "align_bench": {
            "machine": MACHINE,
            "load_average": [0.1, 0.2],
            "timings": [
                {
                    "case": {"tower": "text", "precision": "fp32", "batch": 8, "size": "12"},
                    "stages": {"tokenize": [0.001], "compute": [0.01, 0.02, 0.03], "end to end": [0.04]},
                }
            ],
            "starts": [
                {
                    "precision": precision,
                    "import_seconds": 0.1,
                    "load_seconds": 1.0,
                    "first_seconds": {"vision": 0.2, "text": 0.05},
                    "peak_bytes": peak * 2**20,
                }
                for precision, peak in (("fp32", 1000), ("int8", 400))
            ],
        },
        "openvino": {
            "machine": MACHINE,
            "load": LOAD,
            "threads": 2,
            "cases": [
                {"tower": "vision", "batch": 1, **case("images 1", **{"cpu fp32": 0.2, "openvino bf16": 0.1})},
                {
                    "tower": "vision",
                    "batch": 8,
                    "callers": 4,
                    **case("callers", **{"cpu fp32": 1.0, "openvino bf16": 0.5}),
                },
            ],
            "parity": [
                {
                    "file": "onnx/vision_model.onnx",
                    "variant": "bf16",
                    "failures": [],
                    "limits": {"max_abs": 2e-2, "min_cosine": 0.995, "min_centred_cosine": 0.99},
                    "parity": {"max_abs": 3e-3, "min_cosine": 0.9999, "min_centred_cosine": 0.9998},
                }
            ],
        },
        "clients": {
            "machine": MACHINE,
            "load": LOAD,
            "clients": 8,
            "limit": 2,
            "latencies": {"unlimited": [[0.2, 0.4]] * 8, "limited": [[0.1] * 4] * 8},
        },
        "threads": {
            "machine": MACHINE,
            "load": LOAD,
            "tokens": 12,
            "cores": 2,
            "alone": [{"graph": "text fp32", "seconds": {SLEEPING: [0.03] * 8, SPINNING: [0.02] * 8}}],
            "beside": [
                {
                    "graph": "text fp32",
                    "callers": 2,
                    "rates": {SLEEPING: [40.0] * 2, SPINNING: [36.0] * 2, ONE_CORE: [50.0] * 2},
                }
            ],
        },
        "ideas": {
            "machine": MACHINE,
            "load": LOAD,
            "cases": [
                {"idea": idea, "case": "FP32", "seconds": {"before": [0.03] * 8, "after": [0.02] * 8}} for idea in IDEAS
            ],
        },
        "cpp": {
            "machine": MACHINE,
            "load": LOAD,
            "calls": [case("1 caption", **{"Python": 0.03, "C++": 0.02})],
            "parts": [case("tokenize 1 caption", **{"Python": 0.0005, "C++": 0.0001})],
        },
        "http": {
            "machine": MACHINE,
            "load": LOAD,
            "model": "align-tiny",
            "precision": "fp32",
            "clients": 64,
            "rounds": {
                "plain calls of 64 texts": [{"calls": 1000, "seconds": 1.0, "p50": 0.1, "p99": 0.2, "failed": 0}] * 3,
                "service": [
                    {"calls": 500, "seconds": 1.0, "p50": 0.2, "p99": 0.3, "failed": 0, "compared": 9, "wrong": 0}
                ]
                * 3,
            },
        },
        "scaling": {
            "machine": MACHINE,
            "load_average": 0.1,
            "precision": "fp32",
            "points": [
                {"tower": "text", "axis": "length", "at": at, "milliseconds": milliseconds}
                for at, milliseconds in (("4", 5.0), ("8", 10.0))
            ],
        },
        "resident": {
            "machine": MACHINE,
            "load": LOAD,
            "rows": [
                {
                    "options": options,
                    "imported": 40 * MIB,
                    "loaded": 1200 * MIB,
                    "called": 1400 * MIB,
                    "closed": 70 * MIB,
                    "peak": 1500 * MIB,
                }
                for options in ({}, {"towers": ["text"], "streams": 1})
            ],
        },
        "memory": {
            "machine": MACHINE,
            "load_average": 0.1,
            "texts": 1_000_000,
            "resident_bytes": [100 * 2**20, 101 * 2**20],
            "seconds": 100.0,
            "growth": 2**20,
        },
        "embed": {
            "machine": MACHINE,
            "bundle": "made-up",
            "cases": [
                {
                    "name": name,
                    "runs": {
                        "loop": [{"rows": 1000, "seconds": 10.0, "resident_bytes": [MIB]}] * 2,
                        "align-embed": [{"rows": 1000, "seconds": 12.5, "resident_bytes": [9 * MIB, 300 * MIB]}] * 2,
                    },
                }
                for name in ("texts", "images")
            ],
        },
        "dtypes": {
            "machine": MACHINE,
            "bundle": "made-up",
            "cases": [
                {
                    "name": name,
                    "rows": 1000,
                    "dim": 64,
                    "queries": 10,
                    "ways": {"int8": {"bytes": 64, "recall": {"1": 1.0, "10": 0.9876, "100": 0.5}}},
                }
                for name in ("images by images", "images by captions", "random directions")
            ],
        },
        "fp16": {
            "machine": MACHINE,
            "recipes": [
                {"recipe": name, "samples": {"min_centred_cosine": 0.9999999}, "others": {"min_centred_cosine": 0.5}}
                for name in ("nearest", "means", "gates", "both")
            ],
        },
        "evaluation": {
            "shapes": {"top1": 0.98, "labels": ["a", "b"]},
            "digits": {"top1": 0.9, "labels": ["c"]},
            "retrieval_images": 10,
            "text_to_image_recall_at_1": 0.8,
        },
        "ablation": {"machine": MACHINE, **ablation()},
        "int8_peers": {"machine": MACHINE, **int8_peers()},
        "trained": {"machine": MACHINE, **trained()},
        "full_size": {
            "machine": MACHINE,
            "export": export,
            "export_fp16": export,
            "export_int8": {**export, "images": 8},
            "again": export,
            "graphs": [_graph("fp32", 10**8, 0.9999999, float32=10), _graph("fp16", 5 * 10**7, 0.99975, float16=10)],
            "loads": [{"import_seconds": 0.1, "load_seconds": 1.0}],
        },
        "calibration": {
            "machine": MACHINE,
            "cases": [{"images": 500, "trials": False, "runs": 4000, "peak_bytes": 2**31, "cache_bytes": 10**7}],
        },
    }
    engine = {
        "tower": "vision",
        "variant": "fp16",
        "machine": {"compute_capabilities": ["8.6", "8.9"], "tensorrt": "1.7.1.116"},
        "options": {"ranges": True},
        "profiles": [{}, {}, {}],
        "seconds": 12.3,
        "bytes": 10**8,
        "graph_bytes": 10**8,
        "products": {"float16": 200},
    }
    results["engines"] = {"machine": MACHINE, "peak_bytes": 2**31, "engines": [engine]}
    # Nothing is shared, so that a test can damage one of them.
    return {name: copy.deepcopy(result) for name, result in results.items()}


def write(folder: Path, results: dict[str, Any]) -> Path:
    """Writes every result as a file of `folder`."""
    for name, result in results.items():
        (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    return folder
