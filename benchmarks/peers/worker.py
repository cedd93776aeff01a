"""Runs the recipes of a quantization tool; shared by the scripts of all tools.

    python quantize_with_….py JOB.json

A job names the tower, its FP32 graph, the calibration samples and a folder. Every recipe writes one quantized graph
into the folder. ``result.json`` there names the graph of every recipe, or its error. Runs in the environment of the
tool and needs only numpy.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Job:
    """A graph to quantize.

    Attributes:
        tower: ``"vision"`` or ``"text"``.
        graph: the FP32 graph, ONNX.
        samples: an .npz file; `pixels` uint8 (n, height, width, 3), or `input_ids` and `attention_mask` int64
            (n, sequence) padded with zeros.
        folder: where the quantized graphs go.
        limit: seconds of CPU time for one recipe.
        slow: whether slow recipes run too.
    """

    tower: str
    graph: Path
    samples: Path
    folder: Path
    limit: float
    slow: bool

    def feeds(self) -> list[dict[str, NDArray[Any]]]:
        """The samples as batches of one, texts without padding."""
        with np.load(self.samples) as arrays:
            whole = {name: arrays[name] for name in arrays.files}
        return [self._feed(whole, row) for row in range(len(next(iter(whole.values()))))]

    def _feed(self, whole: Mapping[str, NDArray[Any]], row: int) -> dict[str, NDArray[Any]]:
        batch = {name: values[row : row + 1] for name, values in whole.items()}
        if self.tower == "vision":
            return batch
        length = int(batch["attention_mask"].sum())
        return {name: np.ascontiguousarray(values[:, :length]) for name, values in batch.items()}


class Feeds:
    """An iterator of samples with the interface of onnxruntime's `CalibrationDataReader`."""

    def __init__(self, feeds: Collection[dict[str, NDArray[Any]]]) -> None:
        self.feeds = feeds
        self.rewind()

    def rewind(self) -> None:
        """Starts again from the first sample."""
        self._rest: Iterator[dict[str, NDArray[Any]]] = iter(self.feeds)

    def get_first(self) -> dict[str, NDArray[Any]]:
        """The first sample; does not advance the iteration."""
        return next(iter(self.feeds))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next sample; None after the last."""
        return next(self._rest, None)

    def __len__(self) -> int:
        return len(self.feeds)


Recipe = Callable[[Job], Path]


def run_recipes(
    recipes: Mapping[str, Mapping[str, Recipe]], packages: Collection[str], slow: Collection[str] = ()
) -> None:
    """Does the job that the command line names.

    Args:
        recipes: by tower and name; each writes a graph and returns its path.
        packages: whose versions are recorded.
        slow: names of the recipes that run only if the job asks for them.
    """
    values = json.loads(Path(sys.argv[1]).read_text())
    paths = (Path(values[key]) for key in ("graph", "samples", "folder"))
    job = Job(values["tower"], *paths, values["limit"], values["slow"])
    done: dict[str, Any] = {}
    for name, recipe in recipes[job.tower].items():
        if name in slow and not job.slow:
            continue
        done[name] = _run_in_process(recipe, job)
        result = {"versions": {package: version(package) for package in packages}, "recipes": done}
        (job.folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")


def _run_in_process(recipe: Recipe, job: Job) -> dict[str, Any]:
    """The record of a recipe that runs in a child process, which the kernel ends after its limit of CPU time.

    A signal handler or an exception would not be enough: native code of a tool may ignore both for minutes.
    """
    record = job.folder / "record.json"
    record.unlink(missing_ok=True)
    process = os.fork()
    if not process:
        seconds = math.ceil(job.limit)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        record.write_text(json.dumps(_run(recipe, job)))
        os._exit(0)  # the parent's exit handlers must not run twice
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        return {"error": f"not finished after {job.limit:g} s of CPU time"}
    return json.loads(record.read_text()) if status == 0 else {"error": f"exit code {status}"}


def _run(recipe: Recipe, job: Job) -> dict[str, Any]:
    start = time.monotonic()
    try:
        file = recipe(job)
    except Exception as error:  # a tool's error is a result
        traceback.print_exc()
        return {"error": last_line(error)}
    return {"file": file.name, "seconds": round(time.monotonic() - start, 1)}


def last_line(error: Exception) -> str:
    """The type and the last line of an error."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1]}"
