"""Short studies of a bundle on a GPU; each writes its JSON after every part, so that a limit of time costs one part.

python -m benchmarks.gpu.studies {machine,options,callers,memory,profile,rtx} BUNDLE --device cuda -o RESULT.json
"""

from __future__ import annotations

import argparse
import ctypes.util
import importlib.util
import json
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime

import align_runtime
from align_bench.statistics import percentile
from align_runtime.backends.buckets import Buckets
from align_runtime.backends.cuda import CudaRunner
from align_runtime.backends.cuda_provider import Provider, provider_of
from align_runtime.backends.onnxruntime import keep_float_biases
from align_runtime.bundle import Bundle
from benchmarks.gpu.measure import vision_inputs
from benchmarks.gpu.rtx import rtx

BATCH, ROUNDS, PROFILED, SECONDS = 32, 20, 5, 4.0
CALLERS = (1, 4, 16)
FP16 = provider_of("fp16")
# Batch of images, and what differs from the options of `FP16`.
SWEEP: tuple[tuple[int, dict[str, str]], ...] = (
    (32, {}),
    (32, {"cudnn_conv_algo_search": "EXHAUSTIVE"}),
    (32, {"prefer_nhwc": "0"}),
    (1, {}),
    (1, {"enable_cuda_graph": "0"}),
    (8, {}),
    (32, {"fuse_conv_bias": "1"}),
    (32, {"use_tf32": "0"}),
)
LIBRARIES = ("nvinfer", "nvonnxparser", "cudnn", "cublasLt", "cuda")
MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "onnxruntime", "torch", "transformers", "skimage")
Part = tuple[str, Any]


def machine(bundle: Path, device: str, dry: bool) -> Iterator[Part]:
    """What is installed: TensorRT above all, which such machines mostly lack."""
    yield "libraries", {name: ctypes.util.find_library(name) for name in LIBRARIES}
    yield "modules", {name: importlib.util.find_spec(name) is not None for name in MODULES}
    yield "providers", onnxruntime.get_available_providers()


def options(bundle: Path, device: str, dry: bool) -> Iterator[Part]:
    """Seconds until a batch of images is through for the first time, and later, with options of the CUDA provider."""
    opened = Bundle.open(bundle)
    file = opened.graph_file(opened.graph("vision", "fp16", device))
    for rows, changes in SWEEP:
        batch = min(rows, 2) if dry else rows
        inputs = vision_inputs(opened, batch)
        provider = Provider("CPUExecutionProvider", "cpu", {}) if dry else Provider(options={**FP16.options, **changes})
        start = time.perf_counter()
        runner = CudaRunner(file, Buckets((batch,)), provider)
        runner.run(inputs)
        ready = time.perf_counter() - start
        seconds = _timed(lambda: runner.run(inputs), dry)  # noqa: B023
        yield f"{rows} {json.dumps(changes)}", {"batch": batch, "changes": changes, "ready": ready, "seconds": seconds}
        runner.close()


def callers(bundle: Path, device: str, dry: bool) -> Iterator[Part]:
    """Latency of one image from several threads at once, and images per second."""
    pixels = vision_inputs(Bundle.open(bundle), 1)["pixels"]
    seconds = 0.2 if dry else SECONDS
    with align_runtime.load(bundle, precision="fp16", device=device, towers=("vision",)) as model:
        start = time.perf_counter()
        model.warmup()
        yield "warmup", time.perf_counter() - start
        for count in CALLERS:
            latencies, start = list[float](), time.perf_counter()

            def call(end: float = start + seconds, found: list[float] = latencies) -> None:
                while (begun := time.perf_counter()) < end:
                    model.embed_pixels(pixels)
                    found.append(time.perf_counter() - begun)

            threads = [threading.Thread(target=call) for _ in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            quantiles = {f"p{at}": percentile(latencies, at / 100) for at in (50, 95, 99)}
            yield str(count), quantiles | {"per_second": len(latencies) / (time.perf_counter() - start)}


def memory(bundle: Path, device: str, dry: bool) -> Iterator[Part]:
    """MiB of the GPU in use before a model is loaded, with it, and after a large batch."""
    pixels = vision_inputs(Bundle.open(bundle), 2 if dry else BATCH)["pixels"]
    for precision in ("fp32", "fp16"):
        before = _used()
        with align_runtime.load(bundle, precision=precision, device=device) as model:
            loaded = _used()
            model.embed_pixels(pixels)
            yield precision, {"before": before, "loaded": loaded, "called": _used()}


def profile(bundle: Path, device: str, dry: bool) -> Iterator[Part]:
    """Microseconds by kind of kernel in one run of the vision graph in FP16, which has the most of them."""
    opened = Bundle.open(bundle)
    inputs = vision_inputs(opened, 2 if dry else BATCH)
    settings = onnxruntime.SessionOptions()
    keep_float_biases(settings)
    settings.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        settings.profile_file_prefix = f"{folder}/profile"
        file = opened.graph_file(opened.graph("vision", "fp16", device))
        changes = {"enable_cuda_graph": "0"}  # inside of a CUDA graph nothing is timed
        provider: Any = "CPUExecutionProvider" if dry else (FP16.name, {**FP16.options, **changes})
        session = onnxruntime.InferenceSession(str(file), settings, providers=[provider])
        for _ in range(PROFILED):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times = defaultdict[tuple[str, str], list[int]](list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"], event["name"]].append(event["dur"])
    kinds = Counter[str]()
    for (kind, _), durations in times.items():
        kinds[kind] += round(median(durations))  # the first run, which plans the convolutions, is no median
    yield "microseconds of a run", dict(kinds.most_common(20))


def _timed(call: Callable[[], object], dry: bool) -> list[float]:
    found = []
    for _ in range(2 if dry else ROUNDS):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


def _used() -> int | None:
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return int(subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


STUDIES = {study.__name__: study for study in (machine, options, callers, memory, profile, rtx)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry", action="store_true", help="few rounds, without a GPU")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    result: dict[str, Any] = {}
    for name, value in STUDIES[given.study](given.bundle, given.device, given.dry):
        result[name] = value
        given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {str(value)[:200]}", flush=True)


if __name__ == "__main__":
    main()
