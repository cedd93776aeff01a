"""Measures what bulk jobs do beside computing; writes ``benchmarks/results/scale.json``.

    python -m benchmarks.measure_scale [--vectors 20000] [--rounds 3]

On one thread: reading a tar archive as the driver does, writing shards of Parquet, handing calls of images to an actor
of Ray and back, and building and searching indexes of faiss over clustered unit rows. Rounds of all alternate. Seconds
are those of the process on a processor, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np
import ray
from numpy.typing import NDArray

from align_serving.embed.encodings import ENCODINGS
from align_serving.embed.image_sources import ImageArchive
from align_serving.embed.shard_files import FORMATS, write_whole
from benchmarks.result_files import conditions, write_result

DIM = 640
IMAGE_BYTES = 100_000
CALL = 64  # images
CENTRES = 1_000
QUERIES = 200
LISTS = 256
INDEXES = {"HNSW": "HNSW32", "IVF-SQ8": f"IVF{LISTS},SQ8", "IVF-PQ": f"IVF{LISTS},PQ80np"}


def clustered(count: int, seed: int) -> NDArray[np.float32]:
    """Unit rows around `CENTRES` directions, float32 (count, DIM)."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(CENTRES, DIM))
    rows = centres[generator.integers(CENTRES, size=count)] + 0.7 * generator.normal(size=(count, DIM))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def archive(path: Path, count: int) -> Path:
    content = np.random.default_rng(0).bytes(IMAGE_BYTES)
    with tarfile.open(path, "w") as file:
        for index in range(count):
            member = tarfile.TarInfo(f"{index:06}.jpg")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def read_archive(path: Path) -> int:
    return sum(len(item.load()) > 0 for item in ImageArchive(path, 1 << 30).items())  # type: ignore[arg-type]


def write_shard(folder: Path, rows: NDArray[np.float32], dtype: str) -> int:
    ids = [f"{index:06}.jpg" for index in range(len(rows))]
    (file,) = FORMATS["parquet"](ids, ENCODINGS[dtype].encode(rows), {})
    return write_whole(folder / f"{dtype}.parquet", file.write)


def build(name: str, rows: NDArray[np.float32], found: dict[str, Any]) -> int:
    """Trains and fills an index; its size and the recall of the first ten are noted in `found`."""
    start = time.process_time()
    index = faiss.index_factory(DIM, INDEXES[name], faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    trained = time.process_time() - start
    index.add(rows)
    if hasattr(index, "nprobe"):
        index.nprobe = 16
    queries = clustered(QUERIES, seed=2)
    start = time.process_time()
    _, near = index.search(queries, 10)
    searched = time.process_time() - start
    exact = np.argsort(-queries @ rows.T, axis=1)[:, :10]
    recall = float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(near, exact, strict=True)]))
    size = len(faiss.serialize_index(index))
    found.setdefault(name, []).append({"train": trained, "search": searched / QUERIES, "recall": recall, "bytes": size})
    return len(rows)


class Idle:
    """Takes a call as an actor of align-embed, and gives rows without computing anything."""

    def embed(self, contents: list[bytes]) -> NDArray[np.float32]:
        return np.zeros((len(contents), DIM), np.float32)


def hand_out(actor: Any, calls: int) -> int:
    """`calls` to `actor`, two at a time, as the driver of align-embed does."""
    content = [os.urandom(IMAGE_BYTES) for _ in range(CALL)]
    running: list[Any] = []
    for _ in range(calls):
        running.append(actor.embed.remote(ray.put(content)))
        if len(running) == 2:
            ended, running = ray.wait(running)
            ray.get(ended)
    ray.get(running)
    return calls * CALL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=20_000, help="of the indexes (default: 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    options = parser.parse_args()
    load = os.getloadavg()
    faiss.omp_set_num_threads(1)
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray's name)
    ray.init(address="local", num_cpus=1, object_store_memory=400 << 20, include_dashboard=False, log_to_driver=False)
    actor: Any = ray.remote(Idle).remote()
    rows = clustered(options.vectors, seed=1)
    indexes: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tar = archive(folder / "a.tar", 1_000)
        work: dict[str, Callable[[], int]] = {
            "read a tar archive": lambda: read_archive(tar),
            "write float32": lambda: len(rows) if write_shard(folder, rows, "float32") else 0,
            "write float16": lambda: len(rows) if write_shard(folder, rows, "float16") else 0,
            "hand calls to an actor": lambda: hand_out(actor, 50),
            "compare one row": lambda: (rows[:1] @ rows.T).argpartition(-10).size,
            "compare many rows": lambda: (rows[:QUERIES] @ rows.T).size,
            **{f"build {name}": (lambda name=name: build(name, rows, indexes)) for name in INDEXES},  # type: ignore[misc]
        }
        hand_out(actor, 4)
        for number in range(options.rounds):
            for name in list(work)[:: -1 if number % 2 else 1]:
                start = time.process_time()
                items = work[name]()
                seconds.setdefault(name, []).append((time.process_time() - start) / items)
                print(f"{name:>24}: {1 / seconds[name][-1]:12,.0f}/s", flush=True)
        stored = {dtype: write_shard(folder, rows, dtype) / len(rows) for dtype in ("float32", "float16", "int8")}
    for name, found in indexes.items():
        print(f"{name:>24}: recall {median(one['recall'] for one in found):.3f}, {found[0]['bytes'] / len(rows):.0f} B")
    facts = {
        "vectors": len(rows),
        "dim": DIM,
        "image_bytes": IMAGE_BYTES,
        "queries": QUERIES,
        "factory": INDEXES,
        "lists": LISTS,
    }
    result = facts | {
        "seconds_per_item": seconds,
        "stored_bytes": stored,
        "indexes": indexes,
        "faiss": version("faiss-cpu"),
    }
    write_result("scale", conditions(load) | result)


if __name__ == "__main__":
    main()
