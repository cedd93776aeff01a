"""Measures Ray Data with one and two actors against the bare runtime; writes ``benchmarks/results/ray.json``.

    python -m benchmarks.measure_ray [BUNDLE] [--texts 20000] [--rounds 3]

Rates are of the time from the first batch to the last one: neither starts of actors nor reading counts. Rounds of all
candidates alternate. Every row is compared with that of the runtime in this process.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray

import align_runtime
from align_exporter.builtin_samples import captions
from align_serving.ray import BATCH_SIZE, Embedder
from benchmarks.result_files import ROOT, conditions, write_result

Timed = tuple[float, NDArray[np.float32]]  # rows per second, and the rows


class TimedEmbedder(Embedder):
    """Adds the columns ``begin`` and ``end``, seconds of the machine's clock, of each batch."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        begin = time.monotonic()
        embedded = super().__call__(batch)
        for name, value in (("begin", begin), ("end", time.monotonic())):
            embedded = embedded.append_column(name, pa.array([value] * len(batch)))
        return embedded


def plain(bundle: Path, texts: Sequence[str], threads: int) -> Timed:
    """The runtime in this process, in calls of one batch on one core, or of all texts on more."""
    size = BATCH_SIZE if threads == 1 else len(texts)
    with align_runtime.load(bundle, towers=("text",), threads=threads) as model:
        model.warmup()
        start = time.monotonic()
        rows = [model.embed_texts(texts[at : at + size]) for at in range(0, len(texts), size)]
        return len(texts) / (time.monotonic() - start), np.concatenate(rows)


def with_ray(bundle: Path, texts: Sequence[str], actors: int) -> Timed:
    """Ray Data with `actors` of one core."""
    table = pa.table({"id": pa.array(range(len(texts))), "caption": list(texts)})
    blocks = [table.slice(at, 16 * BATCH_SIZE) for at in range(0, len(texts), 16 * BATCH_SIZE)]
    embedded = ray.data.from_arrow(blocks).map_batches(
        TimedEmbedder,
        fn_constructor_kwargs={"bundle": str(bundle), "column": "caption", "tower": "text"},
        batch_size=BATCH_SIZE,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
    )
    found = pa.concat_tables(ray.get(embedded.to_arrow_refs())).sort_by("id")
    seconds = max(found["end"].to_pylist()) - min(found["begin"].to_pylist())
    rows = np.array(found["embedding"].combine_chunks().flatten()).reshape(len(texts), -1)
    return len(texts) / seconds, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, default=ROOT / "build" / "align-tiny")
    parser.add_argument("--texts", type=int, default=20_000, help="in a round (default: 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="of each candidate (default: 3)")
    options = parser.parse_args()
    load, bundle = os.getloadavg(), options.bundle.resolve()
    texts = [captions()[index % len(captions())] for index in range(options.texts)]
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray's name); 15 by default, unlike this process
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(address="local", num_cpus=2, object_store_memory=200 << 20, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().wait_for_min_actors_s = 300
    work: dict[str, Callable[[], Timed]] = {
        "runtime, one core": lambda: plain(bundle, texts, 1),
        "runtime, two cores": lambda: plain(bundle, texts, 2),
        "Ray, one actor": lambda: with_ray(bundle, texts, 1),
        "Ray, two actors": lambda: with_ray(bundle, texts, 2),
    }
    expected = plain(bundle, texts, 2)[1]
    rates: dict[str, list[float]] = {name: [] for name in work}
    worst = 0.0
    for index in range(options.rounds):
        for name in reversed(work) if index % 2 else work:
            rate, rows = work[name]()
            rates[name].append(round(rate, 2))
            worst = max(worst, float(np.abs(rows - expected).max()))
            print(f"{name:>20}: {rate:8.1f} texts/s", flush=True)
    for kind in ("runtime", "Ray"):
        first, second = (values for name, values in rates.items() if name.startswith(kind))
        print(f"{kind}: two / one {median(b / a for a, b in zip(first, second, strict=True)):.2f}")
    print(f"largest difference of a value: {worst:.1e}")
    facts: dict[str, Any] = {"texts": options.texts, "rates": rates, "max_abs": worst}
    write_result("ray", conditions(load) | facts)


if __name__ == "__main__":
    main()
