"""An `Embedder` that is slow, and writes down where each batch ran, so that a test can kill it in the middle."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray

from align_serving.ray import Embedder


class NotedEmbedder(Embedder):
    """Pickles (pid, node, handle of the actor) into a new file of `folder` before each batch."""

    def __init__(self, folder: str, pause: float, **options: Any) -> None:
        super().__init__(**options)
        self._folder, self._pause = Path(folder), pause

    def __call__(self, batch: Any) -> Any:
        context = ray.get_runtime_context()
        partial = self._folder / f".{uuid4()}"
        partial.write_bytes(ray.cloudpickle.dumps((os.getpid(), context.get_node_id(), context.current_actor)))
        partial.rename(self._folder / partial.name[1:])
        time.sleep(self._pause)
        return super().__call__(batch)
