"""Result files in ``benchmarks/results``: written by the measurements, read by the generator of the pages."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from align_bench.machine import describe

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
EVALUATION = ROOT / "reference" / "align-tiny" / "evaluation.json"


class ResultFileError(Exception):
    """A result file is missing or malformed.

    Attributes:
        file: the file.
    """

    def __init__(self, file: Path, problem: str) -> None:
        super().__init__(f"{file}: {problem}")
        self.file = file


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """Hardware, system, versions and date for the head of a result file."""
    machine = describe(device)
    machine["versions"] = {**machine["versions"], "onnx": version("onnx")}
    return machine


def conditions(load_before: tuple[float, float, float]) -> dict[str, Any]:
    """The machine, and the load averages before and after the measurement (now)."""
    return {"machine": describe_machine(), "load": {"before": load_before, "after": os.getloadavg()}}


def write_result(name: str, result: Mapping[str, Any]) -> None:
    """Writes `result` as ``benchmarks/results/NAME.json``."""
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {file.relative_to(ROOT)}", flush=True)


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`.

    Raises:
        ResultFileError: the file is missing, or not a JSON object.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultFileError(file, f"not found; `make benchmarks` and `make peers` write results ({error})") from None
    except ValueError as error:
        raise ResultFileError(file, f"not JSON: {error}; restore the file or measure again") from None
    if not isinstance(values, dict):
        raise ResultFileError(file, f"expected a JSON object, got {type(values).__name__}")
    return values
