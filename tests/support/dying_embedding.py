"""Runs align-embed again and again, and dies before each step in turn: ``python -m support.dying_embedding FOLDER``.

A program of its own, because it forks. Its model is a double, so that a run takes milliseconds; steps are calls that
change what is on the disk, and a write also dies in its middle.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet  # noqa: F401  (before the forks: it takes longer than a run)

from align_runtime.embedded_rows import EmbeddedRows
from align_runtime.errors import InputError
from align_runtime.model_info import ModelInfo
from align_serving.embed import command

DIM = 96
STEPS = ("write", "fsync", "replace", "ftruncate", "mkdir", "unlink")
BAD = "no embedding"


class ModelDouble:
    """Rows that depend on the text alone."""

    info = ModelInfo("double", None, DIM, (8, 8), 64, 1.0, "fp32", "cpu", ("text",), 1, 1, None)  # type: ignore[arg-type]

    def __enter__(self) -> ModelDouble:
        return self

    def __exit__(self, *_: object) -> None: ...

    def iter_embed_texts(self, texts: Iterable[str], **_: Any) -> Iterator[EmbeddedRows]:
        for index, text in enumerate(texts):
            if text.startswith(BAD):
                yield EmbeddedRows(np.empty(0, np.int64), np.empty((0, DIM), np.float32), (InputError(text, index),))
                continue
            row = np.random.default_rng(list(text.encode())).normal(size=(1, DIM)).astype(np.float32)
            yield EmbeddedRows(np.array([index]), row / np.linalg.norm(row))


def content(folder: Path) -> dict[str, bytes]:
    """What a job has made, without what tells of its starts."""
    ledger = folder / "ledger.jsonl"
    lines = [line for line in ledger.read_bytes().splitlines() if not line.startswith(b'{"run"')]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return files | {"ledger.jsonl": b"\n".join(lines)}


def embed(arguments: list[str]) -> int:
    command.load = lambda *_, **__: ModelDouble()  # type: ignore[assignment]
    return command.main([*arguments, "--quiet", "--threads", "1"])


def run(arguments: list[str], dies_before: int | None = None, torn: bool = False) -> tuple[int, list[str]]:
    """Exit code and steps of a child process, which is killed before step `dies_before`; half of a torn write is done.

    Its steps are those up to its death.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        steps = itertools.count()
        write = os.write

        def counted(name: str, call: Any) -> Any:
            def step(*given: Any, **more: Any) -> Any:
                if next(steps) == dies_before:
                    if torn:
                        write(given[0], given[1][: len(given[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                write(writing, f"{name} ".encode())
                return call(*given, **more)

            return step

        for name in STEPS:
            setattr(os, name, counted(name, getattr(os, name)))
        os._exit(embed(arguments))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        steps_done = pipe.read().split()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), steps_done


def sweep(folder: Path, bundle: str, file_format: str) -> tuple[list[str], list[str]]:
    """The steps of an uninterrupted run, and the deaths after which the same command did not end with its result."""
    texts = folder / "texts.txt"
    texts.write_text("\n".join(BAD if index % 7 == 3 else f"text {index}" for index in range(12)))
    base = [bundle, str(texts), "--format", file_format, "--shard-items", "8", "-o"]
    code, steps = run([*base, str(folder / "whole")])
    assert code == 0
    expected, wrong = content(folder / "whole"), []
    for step, name in enumerate(steps):
        for torn in (False, True)[: 2 if name == "write" else 1]:
            out = folder / f"{step}-{name}{'-torn' * torn}"
            assert run([*base, str(out)], step, torn)[0] == -signal.SIGKILL
            if run([*base, str(out)])[0] != 0 or content(out) != expected:
                wrong.append(out.name)
    return steps, wrong


if __name__ == "__main__":
    sys.stdout.write(json.dumps(sweep(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
