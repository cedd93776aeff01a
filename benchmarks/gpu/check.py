"""Checks a machine with a GPU, step by step; writes ``benchmarks/results/gpu-<name of the GPU>.json`` after every step.

    python -m benchmarks.gpu.check [--minutes 14] [--devices cuda tensorrt] [--dry-run] [--results FOLDER]
                                   [--work FOLDER [--only STEP ...]]

Exports align-tiny and a model of the published sizes, compares their graphs with the reference on the GPU, and measures
them against PyTorch. A step that fails, hangs or has no time left is recorded and the others still run; the exit code
is 1 then. With ``--dry-run`` it does the same in small on a CPU, and its result is nothing to publish. What it makes
stays in the folder of ``--work``, where ``--only`` runs single steps again; the results of the others are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.gpu.steps import Step, Target, steps
from benchmarks.result_files import RESULTS, ROOT, describe_machine

PACKAGES = re.compile(r"torch|triton|tensorrt.*|cuda-.*|nvidia-.*|onnx.*|transformers|align-onnx")
GPU_FACTS = "name,driver_version,memory.total,power.limit,clocks.max.sm,clocks.max.mem,persistence_mode"
KEPT_CHARACTERS = 4000  # of a step's output
LEAST = 10.0  # seconds that a step is begun with
SLOWNESS = 4  # of a CPU with other work, in a dry run
ENDED, LEFT_OUT = 124, 125  # exit codes of steps that ran past their limit, and of those that were not begun


@dataclass(frozen=True)
class Outcome:
    """The result of a step.

    Attributes:
        exit_code: of the command; `ENDED` after its limit, `LEFT_OUT` without time for it.
        result: its JSON, of a step that was ended as far as it came; None without any.
        output: the end of its other output.
    """

    name: str
    exit_code: int
    seconds: float
    limit: float
    result: Any = None
    output: str = ""


def run_step(step: Step, left: float) -> Outcome:
    """Runs a step in a process group of its own and records its result, also if it fails or runs past its limit.

    Args:
        left: seconds until the machine is given back.
    """
    limit = round(min(step.limit, left), 1)
    print(f"── {step.name} ({max(limit, 0):.0f} s at most)", flush=True)
    if limit < LEAST:
        print("   left out: no time", flush=True)
        return Outcome(step.name, LEFT_OUT, 0.0, limit)
    start = time.monotonic()
    command = [sys.executable, *step.command]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        done = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err, text=True, start_new_session=True)
        try:
            code = done.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(done.pid, signal.SIGKILL)
            done.wait()
            code = ENDED
        out.seek(0)
        err.seek(0)
        printed, output = out.read(), err.read()
    found = step.output.read_text(encoding="utf-8") if step.output is not None and step.output.is_file() else printed
    try:
        result = json.loads(found)
    except ValueError:
        result, output = None, printed + output
    seconds = round(time.monotonic() - start, 1)
    print(f"   {'done' if code == 0 else f'FAILED ({code})'} in {seconds} s", flush=True)
    return Outcome(step.name, code, seconds, limit, result, output[-KEPT_CHARACTERS:])


def without_paths(outcome: Outcome, *folders: Path) -> Outcome:
    """`outcome` with the paths in it relative to `folders`: where they lay is nothing to publish."""
    text = json.dumps(asdict(outcome))
    for folder in folders:
        text = text.replace(json.dumps(f"{folder}{os.sep}")[1:-1], "")
    return Outcome(**json.loads(text))


def gpu_facts() -> dict[str, str]:
    """The first GPU, as nvidia-smi describes it; empty without one."""
    command = ["nvidia-smi", f"--query-gpu={GPU_FACTS}", "--format=csv,noheader", "--id=0"]
    try:
        line = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(GPU_FACTS.split(","), (value.strip() for value in line.split(",")), strict=False))


def result_file(facts: dict[str, str], is_dry: bool, folder: Path) -> Path:
    """Where the result belongs: one file per kind of GPU; that of a dry run has another kind of name."""
    name = re.sub(r"[^a-z0-9]+", "-", facts.get("name", "none").lower()).strip("-")
    return folder / ("dry-run.json" if is_dry else f"gpu-{name}.json")


def write_result(file: Path, facts: dict[str, str], outcomes: Sequence[Outcome]) -> None:
    """Writes all that is known so far; `file` is whole at any time."""
    packages = {entry.name: entry.version for entry in distributions() if PACKAGES.fullmatch(entry.name)}
    result = {
        "machine": describe_machine(),
        "gpu": facts,
        "packages": dict(sorted(packages.items())),
        "steps": [asdict(outcome) for outcome in outcomes],
    }
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)


def read_outcomes(file: Path) -> dict[str, Outcome]:
    """The outcomes that `write_result` wrote into `file`, by step; none without the file."""
    if not file.is_file():
        return {}
    return {entry["name"]: Outcome(**entry) for entry in json.loads(file.read_text(encoding="utf-8"))["steps"]}


def chosen(known: Sequence[Step], names: Sequence[str] | None, parser: argparse.ArgumentParser) -> list[Step]:
    """The steps with `names`, all of them without any; a name that is unknown ends the program."""
    by_name = {step.name: step for step in known}
    if unknown := sorted(set(names or ()) - set(by_name)):
        parser.error(f"--only: expected one of {', '.join(by_name)}; got {', '.join(unknown)}")
    return [step for step in known if names is None or step.name in names]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="that all steps may take together (default: 14, in a dry run 60)")
    parser.add_argument("--devices", nargs="+", default=["cuda"], help="of the runtime (default: cuda)")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, with small models")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    parser.add_argument("--work", type=Path, help="what is made stays in this folder (default: a temporary one)")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="of a run with the same --work, these steps again")
    options = parser.parse_args()
    minutes, facts = options.minutes or (60 if options.dry_run else 14), gpu_facts()
    end = time.monotonic() + 60 * minutes
    if not facts and not options.dry_run:
        print("error: nvidia-smi finds no GPU; --dry-run tries the steps on a CPU", file=sys.stderr)
        return 2
    devices = ("cpu",) if options.dry_run else tuple(options.devices)
    target = Target(devices, options.dry_run, engines="tensorrt" in devices)
    options.results.mkdir(parents=True, exist_ok=True)
    file = result_file(facts, options.dry_run, options.results)
    outcomes = read_outcomes(file) if options.only else {}
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        for step in chosen(steps(work, target), options.only, parser):
            patient = replace(step, limit=step.limit * (SLOWNESS if options.dry_run else 1))
            outcomes[step.name] = without_paths(run_step(patient, end - time.monotonic()), work, ROOT)
            write_result(file, facts, list(outcomes.values()))
    failed = [outcome.name for outcome in outcomes.values() if outcome.exit_code]
    print(f"wrote {file};", f"not passed: {', '.join(failed)}" if failed else "all steps passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
