"""Ray Data on a cluster of several node processes: rows equal to a single process, whatever is killed in between."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import ray

import align_runtime
from align_serving.ray import embed_dataset
from support.ray_embedders import NotedEmbedder
from support.running_service import png

pytestmark = [pytest.mark.slow, pytest.mark.ray]

COUNT = 400
MAX_SECONDS = 500  # for a machine that starts a worker in half a minute; alone it takes three seconds
TEXTS = [f"a photo of {index}" + " and more" * (index % 7) for index in range(COUNT)]


@pytest.fixture(scope="module")
def expected(tiny_bundle: Path) -> np.ndarray:
    with align_runtime.load(tiny_bundle, towers=("text",), threads=1) as model:
        return model.embed_texts(TEXTS)


def by_id(dataset: Any) -> dict[int, dict[str, Any]]:
    rows = dataset.take_all()
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows), "a row is there twice"
    return found


def check(found: dict[int, dict[str, Any]], expected: np.ndarray) -> None:
    assert sorted(found) == list(range(COUNT))
    assert [found[index]["error"] for index in range(COUNT)] == [None] * COUNT
    embeds = np.array([found[index]["embedding"] for index in range(COUNT)], np.float32)
    np.testing.assert_allclose(embeds, expected, rtol=0, atol=1e-6)


def texts() -> Any:
    table = pa.table({"id": pa.array(range(COUNT)), "caption": TEXTS})
    return ray.data.from_arrow([table.slice(start, 50) for start in range(0, COUNT, 50)])


def test_two_actors_give_the_rows_of_one_process(cluster: Any, tiny_bundle: Path, expected: np.ndarray) -> None:
    found = by_id(embed_dataset(texts(), str(tiny_bundle), "caption", tower="text", actors=2, batch_size=32))
    check(found, expected)
    assert found[3]["caption"] == TEXTS[3]


def test_images_and_what_is_none(cluster: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    values = [png("red"), b"no image", None, b"", png("red")[:50], png("green")]
    table = pa.table({"id": pa.array(range(6)), "bytes": pa.array(values, pa.binary())})
    embedded = embed_dataset(
        ray.data.from_arrow(table), str(tiny_bundle), "bytes", tower="vision", dtype="float16", batch_size=4
    )
    embedded.write_parquet(str(tmp_path / "out"))
    written = parquet.read_table(tmp_path / "out").sort_by("id")
    assert written.column_names == ["id", "embedding", "error"]
    assert written.schema.field("embedding").type == pa.list_(pa.float16(), 96)
    assert [reason is None for reason in written["error"].to_pylist()] == [True, False, False, False, False, True]
    with align_runtime.load(tiny_bundle, towers=("vision",), threads=1) as model:
        wanted = model.embed_images([values[0], values[5]])
    valid = [row for row in written["embedding"].to_pylist() if row is not None]
    np.testing.assert_allclose(valid, wanted, rtol=0, atol=1e-3)


def kill_actor(cluster: Any, pid: int, node: str, actor: Any) -> None:
    ray.kill(actor, no_restart=False)


def kill_worker(cluster: Any, pid: int, node: str, actor: Any) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_node(cluster: Any, pid: int, node: str, actor: Any) -> None:
    (victim,) = [one for one in cluster.worker_nodes if one.node_id == node]
    cluster.remove_node(victim, allow_graceful=False)
    cluster.add_node(num_cpus=1, object_store_memory=100 << 20)


def test_what_is_killed_in_the_middle_is_replaced(
    cluster: Any, tiny_bundle: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    """An actor, then a worker process, then a whole node, each while it computes batches of one job."""

    def notes() -> list[Path]:
        return sorted(tmp_path.glob("[!.]*"), key=lambda file: file.stat().st_mtime_ns)

    embedded = texts().map_batches(
        NotedEmbedder,
        fn_constructor_kwargs={
            "folder": str(tmp_path), "pause": 0.2, "bundle": str(tiny_bundle), "column": "caption", "tower": "text"
        },
        batch_size=10,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=1,
    )  # fmt: skip
    # The job runs in a thread: a node can only be added in the main one, which handles signals.
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(by_id, embedded)
        end, seen = time.monotonic() + MAX_SECONDS, 0
        for kill in (kill_actor, kill_worker, kill_node):
            while len(notes()) < seen + 3:
                assert time.monotonic() < end
                assert not job.done(), "the job ended before all were killed"
                time.sleep(0.02)
            kill(cluster, *ray.cloudpickle.loads(notes()[-1].read_bytes()))
            seen = len(notes())
        found = job.result(MAX_SECONDS)
    check(found, expected)
    assert len(notes()) > COUNT // 10, "no batch ran twice, so none was interrupted"
