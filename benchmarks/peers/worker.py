"""What the scripts of all peers share: the job in, quantised graphs and a record out. Runs in a peer's own environment.

    python quantize_with_….py JOB.json

A job names the tower, its FP32 graph, the samples and a folder. Every way of the peer writes one graph into the folder;
``result.json`` there says which, or with which error a way ended. Needs nothing but numpy.
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
    """What is to be quantised.

    Attributes:
        tower: ``"vision"`` or ``"text"``.
        graph: the FP32 graph, ONNX.
        samples: an .npz file; `pixels` uint8 (n, height, width, 3), or `input_ids` and `attention_mask` int64
            (n, sequence) padded with zeros.
        folder: where the quantised graphs go.
        limit: seconds of processor time that one way may take.
        slow: whether slow ways are gone too.
    """

    tower: str
    graph: Path
    samples: Path
    folder: Path
    limit: float
    slow: bool

    def feeds(self) -> list[dict[str, NDArray[Any]]]:
        """The samples one by one, texts without their padding."""
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
        """Begins again."""
        self._rest: Iterator[dict[str, NDArray[Any]]] = iter(self.feeds)

    def get_first(self) -> dict[str, NDArray[Any]]:
        """The first sample; the iteration stays where it is."""
        return next(iter(self.feeds))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next sample, None after the last."""
        return next(self._rest, None)

    def __len__(self) -> int:
        return len(self.feeds)


Way = Callable[[Job], Path]


def work(ways: Mapping[str, Mapping[str, Way]], packages: Collection[str], slow: Collection[str] = ()) -> None:
    """Does the job named on the command line.

    Args:
        ways: by tower and name; each writes a graph and returns its path.
        packages: whose versions are recorded.
        slow: names of the ways that are left out where the job says so.
    """
    values = json.loads(Path(sys.argv[1]).read_text())
    paths = (Path(values[key]) for key in ("graph", "samples", "folder"))
    job = Job(values["tower"], *paths, values["limit"], values["slow"])
    done: dict[str, Any] = {}
    for name, way in ways[job.tower].items():
        if name in slow and not job.slow:
            continue
        done[name] = _in_a_process(way, job)
        result = {"versions": {package: version(package) for package in packages}, "ways": done}
        (job.folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")


def _in_a_process(way: Way, job: Job) -> dict[str, Any]:
    """The record of a way that runs in a process of its own, which the kernel ends when its processor time is used up.

    A signal and an exception in this one would not do: a tool may be where neither gets through for minutes.
    """
    record = job.folder / "record.json"
    record.unlink(missing_ok=True)
    process = os.fork()
    if not process:
        seconds = math.ceil(job.limit)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        record.write_text(json.dumps(_gone(way, job)))
        os._exit(0)  # what the parent has to do at its end is not done twice
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        return {"error": f"not finished after {job.limit:g} s of processor time"}
    return json.loads(record.read_text()) if status == 0 else {"error": f"exit code {status}"}


def _gone(way: Way, job: Job) -> dict[str, Any]:
    start = time.monotonic()
    try:
        file = way(job)
    except Exception as error:  # a peer's error is a result
        traceback.print_exc()
        return {"error": last_line(error)}
    return {"file": file.name, "seconds": round(time.monotonic() - start, 1)}


def last_line(error: Exception) -> str:
    """The error in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1]}"
