"""Replaces a folder again and again and dies before each step in turn: ``python -m support.dying FOLDER WAY``.

A program of its own, because it forks: a test process has threads of other tests.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from align_runtime import folder_exchange
from align_runtime.folder_exchange import COMPLETE, companions, finish_interrupted, interrupted, new_folder, replace

MARKER = "align.json"
NAMES = (MARKER, "one", "deep/two", "deep/three")
CHANGES = ("mkdir", "rename", "unlink", "rmdir")
WAYS = ("exchange", "move", "remove")


def fill(folder: Path, text: str) -> None:
    for name in NAMES:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def content(folder: Path) -> str | None:
    """What is whole at `folder`; None where it is missing or incomplete."""
    found = {(folder / name).read_text() if (folder / name).is_file() else None for name in NAMES}
    return found.pop() if len(found) == 1 else None


def build(folder: Path, text: str = "new") -> None:
    with new_folder(folder) as made:
        fill(made, text)
        replace(made, folder, MARKER)


def start(folder: Path) -> None:
    """What the next process does first."""
    finish_interrupted(folder, MARKER, lambda: content(folder) is not None)


def take(way: str, set_attribute: Callable[[object, str, Any], None]) -> None:
    """From here on a replacement has to go one of `WAYS`; `set_attribute` is `setattr` or monkeypatch's."""
    rename = os.rename

    def refused(source: Any, target: Any, **more: Any) -> None:
        if Path(source).name == "bundle":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
        rename(source, target, **more)

    if way != "exchange":
        set_attribute(folder_exchange, "_exchange", lambda left, right: False)
    if way == "remove":
        set_attribute(os, "rename", refused)


def sweep(target: Path, way: str) -> list[str | None]:
    """What the folder alone holds after a death before each step; the last entry is that of a process that lives."""
    outcomes: list[str | None] = []
    finished = False
    while not finished:
        build(target, "old")
        finished = _dies(target, way, before=len(outcomes))
        outcomes.append(content(target))
        if outcomes[-1] is None:  # what is beside it holds the new content, and the reader is told
            (complete,) = companions(target, COMPLETE)
            assert content(complete) == "new"
            assert f"interrupted: move {complete}, which is whole, to {target}" in (interrupted(target) or "")
        start(target)
        assert content(target) == (outcomes[-1] or "new")
        assert [path.name for path in target.parent.iterdir()] == [target.name]
    return outcomes


def _dies(target: Path, way: str, before: int) -> bool:
    """Whether a replacement in a child process came to its end before step number `before`."""
    child = os.fork()
    if child == 0:
        take(way, setattr)
        steps = itertools.count()
        for name in CHANGES:
            setattr(os, name, _dying(getattr(os, name), steps, before))
        build(target)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _dying(call: Callable[..., Any], steps: itertools.count[int], before: int) -> Callable[..., Any]:
    def counted(*arguments: Any, **more: Any) -> Any:
        if next(steps) == before:
            os._exit(9)
        return call(*arguments, **more)

    return counted


if __name__ == "__main__":
    sys.stdout.write(json.dumps(sweep(Path(sys.argv[1]), sys.argv[2])))
