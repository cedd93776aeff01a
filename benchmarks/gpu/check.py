"""Checks a GPU host and writes one file, ``benchmarks/results/gpu-<name of the GPU>.json``.

    make gpu-check

Exports align-tiny and a model of the published sizes with engines of all their graphs, compares them with the reference
on CUDA and on TensorRT, runs the tests that need a GPU, and measures. A failed step is recorded and the others still
run; the exit code is 1 then.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.result_files import RESULTS, ROOT, describe_machine
from support.checkpoints import full_size_checkpoint

BIN = Path(sys.executable).parent
PACKAGES = re.compile(r"torch|triton|tensorrt.*|cuda-.*|nvidia-.*|onnxruntime.*")
GPU_FACTS = "name,driver_version,memory.total,power.limit,clocks.max.sm,clocks.max.mem,persistence_mode"
KEPT_CHARACTERS = 4000  # of a step's output


@dataclass(frozen=True)
class Step:
    """A command to run.

    Attributes:
        output: the JSON file that it writes; None if it prints JSON, or has no result.
    """

    name: str
    command: Sequence[str]
    output: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of a step.

    Attributes:
        result: its JSON; None without any.
        output: the end of its other output.
    """

    name: str
    exit_code: int
    seconds: float
    result: Any = None
    output: str = ""


def steps(work: Path, checkpoint: Path) -> list[Step]:
    """All steps, in `work`; `checkpoint` is the one of the published sizes."""
    models = {"align-tiny": ROOT / "reference" / "align-tiny", "full-size": checkpoint}
    found = []
    for name, source in models.items():
        bundle = str(work / name)
        export = ["align-export", str(source), "-o", bundle, "--fp16", "--int8", "--engine", "--json"]
        found.append(Step(f"export {name}", export))
        for device in ("cuda", "tensorrt"):
            found.append(Step(f"verify {name} on {device}", ["align-verify", bundle, "--device", device, "--json"]))
    found.append(Step("tests", ["pytest", "-q", "-m", "gpu", "tests/gpu"]))
    full = str(work / "full-size")
    cases, record = work / "cases.json", work / "bench.json"
    measure = ["python", "-m", "benchmarks.gpu.measure", str(checkpoint), full, "-o", str(cases)]
    found.append(Step("against torch", measure, cases))
    found.append(Step("bench", ["align-bench", "run", full, "--device", "cuda", "tensorrt", "-o", str(record)], record))
    return found


def run_step(step: Step) -> Outcome:
    """Runs a step and records its result, also if it fails."""
    print(f"── {step.name}", flush=True)
    start = time.monotonic()
    try:
        command = [str(BIN / step.command[0]), *step.command[1:]]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        code, out, output = done.returncode, done.stdout, done.stderr
    except OSError as error:
        code, out, output = 127, "", str(error)
    if step.output is not None and step.output.is_file():
        out = step.output.read_text(encoding="utf-8")
    try:
        result = json.loads(out)
    except ValueError:
        result, output = None, out + output
    seconds = round(time.monotonic() - start, 1)
    print(f"   {'done' if code == 0 else f'FAILED ({code})'} in {seconds} s", flush=True)
    return Outcome(step.name, code, seconds, result, output[-KEPT_CHARACTERS:])


def gpu_facts() -> dict[str, str]:
    """The first GPU, as nvidia-smi describes it; empty without one."""
    command = ["nvidia-smi", f"--query-gpu={GPU_FACTS}", "--format=csv,noheader", "--id=0"]
    try:
        line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(zip(GPU_FACTS.split(","), (value.strip() for value in line.split(",")), strict=False))


def write_result(outcomes: Sequence[Outcome], folder: Path) -> Path:
    """Writes the one file to send, into `folder`; returns its path."""
    facts = gpu_facts()
    packages = {entry.name: entry.version for entry in distributions() if PACKAGES.fullmatch(entry.name)}
    result = {
        "machine": describe_machine(),
        "gpu": facts,
        "packages": dict(sorted(packages.items())),
        "steps": [asdict(outcome) for outcome in outcomes],
    }
    name = re.sub(r"[^a-z0-9]+", "-", facts.get("name", "none").lower()).strip("-")
    file = folder / f"gpu-{name}.json"
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return file


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = full_size_checkpoint(Path(folder) / "checkpoint")
        outcomes = [run_step(step) for step in steps(Path(folder), checkpoint)]
    file = write_result(outcomes, RESULTS)
    failed = [outcome.name for outcome in outcomes if outcome.exit_code]
    print(f"wrote {file.relative_to(ROOT)};", f"failed: {', '.join(failed)}" if failed else "all steps passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
