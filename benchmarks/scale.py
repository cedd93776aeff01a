"""Calculates throughput, cost and indexes of a bulk job from measured rates.

    python -m benchmarks.scale [--gpus 8] [--images 1e9] [--image-kb 100] [--cores 16] [--jobs 1] [--network 100] …

Prints the tables of docs/scale.md for these values; `benchmarks.figures` writes the page with those by default. Rates
are measured (`benchmarks/results`), on the machines that the files name. That more GPUs, cores and jobs do as much as
one of them does, times their number, is an assumption, and so are all options.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import median
from typing import Any, Protocol

from benchmarks.sections.layout import table

GPU_FILE = "gpu-nvidia-h100-80gb-hbm3"
DIM = 640
SEARCHED = (10**6, 10**8, 10**9)
HOURS, DAYS = 3600, 86_400


class ResultFiles(Protocol):
    """Result files by name, as `benchmarks.figures.Results`."""

    def __getitem__(self, source: str) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Plan:
    """A job, and what it may use. All of it is an assumption.

    Attributes:
        gpus: 0 computes on the cores.
        cores: of each GPU, for decoding; without GPUs, of all machines.
        jobs: align-embed processes, each with some of the inputs.
        network: of storage to nodes, all together, Gbit/s.
        gpu_price: of a GPU with its host, US dollars an hour.
        core_price: of a core without a GPU, likewise.
    """

    images: float = 1e9
    image_kb: float = 100
    gpus: int = 1
    cores: int = 16
    jobs: int = 1
    network: float = 100
    gpu_price: float = 3.0
    core_price: float = 0.04

    @property
    def price(self) -> float:
        return self.gpus * self.gpu_price if self.gpus else self.cores * self.core_price


@dataclass(frozen=True)
class Measured:
    """Seconds for an image (`gpu_text`: a text), of one GPU, core or process."""

    gpu: float
    gpu_text: float
    cpu: float
    decode: float
    driver: float
    write: float

    @classmethod
    def of(cls, results: ResultFiles) -> Measured:
        """From the result files.

        Raises:
            LookupError: a file lacks a value.
        """
        speed = next(step for step in results[GPU_FILE]["steps"] if step["name"] == "speed")["result"]
        gpu, text = (
            next(case for case in speed if case["tower"] == tower and case["batch"] == 32)
            for tower in ("vision", "text")
        )
        cpu = next(case for case in results["vision"]["cases"] if case["name"] == "processor 8")
        timings = results["align_bench"]["timings"]
        stages = next(one for one in timings if one["case"]["tower"] == "vision" and one["case"]["size"] == "640x480")
        other = results["scale"]["seconds_per_item"]
        return cls(
            gpu=median(gpu["seconds"]["cuda fp16"]) / gpu["batch"],
            gpu_text=median(text["seconds"]["cuda fp16"]) / text["batch"],
            cpu=median(cpu["seconds"]["graph"]) / cpu["batch"],
            decode=sum(median(stages["stages"][stage]) for stage in ("decode", "preprocess")),
            driver=median(other["read a tar archive"]) + median(other["hand calls to an actor"]),
            write=median(other["write float16"]),
        )


def rates(plan: Plan, measured: Measured) -> dict[str, float]:
    """Images per second that each stage is capable of. Without GPUs, cores decode and compute."""
    if plan.gpus:
        computing = {
            "compute": plan.gpus / measured.gpu,
            "decode": plan.gpus * plan.cores / measured.decode,
        }
    else:
        computing = {"compute": plan.cores / (measured.cpu + measured.decode)}
    return computing | {
        "network": plan.network * 1e9 / 8 / (1000 * plan.image_kb),
        "driver": plan.jobs / (measured.driver * plan.image_kb / 100),
        "write": plan.jobs / measured.write,
    }


STAGES = ("compute", "decode", "network", "driver", "write")
HEADINGS = ("GPUs", "cores", "jobs", *STAGES, "slowest", "time", "$ per million", "$ in all")
PLANS = (
    Plan(gpus=0, cores=1), Plan(gpus=0, cores=64), Plan(gpus=1, cores=4), Plan(gpus=1), Plan(gpus=8), Plan(gpus=32),
    Plan(gpus=100), Plan(gpus=100, jobs=16), Plan(gpus=100, jobs=32, network=400),
)  # fmt: skip


def throughput_table(plans: Sequence[Plan], measured: Measured) -> list[str]:
    """Rates of the stages of each plan, the slowest, and what follows."""
    return table(HEADINGS, [_row(plan, rates(plan, measured)) for plan in plans])


def _row(plan: Plan, found: Mapping[str, float]) -> list[str]:
    slowest = min(found, key=found.__getitem__)
    seconds = plan.images / found[slowest]
    cost = plan.price * seconds / HOURS
    return [
        str(plan.gpus or "none"),
        f"{plan.cores * max(plan.gpus, 1):,}",
        str(plan.jobs),
        *(_count(found[stage]) if stage in found else "in compute" for stage in STAGES),
        slowest,
        duration(seconds),
        f"{cost / plan.images * 1e6:,.2f}",
        f"{cost:,.0f}",
    ]


def _count(value: float) -> str:
    """Three digits: ``"1,250"``, ``"4.71"``."""
    digits = max(0, 2 - math.floor(math.log10(value)))
    return f"{round(value, 2 - math.floor(math.log10(value))):,.{digits}f}"


def duration(seconds: float) -> str:
    """In the largest unit of which there are two or more."""
    for name, unit in (("years", 365 * DAYS), ("days", DAYS), ("h", HOURS), ("min", 60), ("s", 1)):
        if seconds >= 2 * unit:
            return f"{_count(seconds / unit)} {name}"
    return f"{1000 * seconds:.3g} ms"


@dataclass(frozen=True)
class Index:
    """Bytes of a vector in memory, and seconds of one core to add it and to search among `count`."""

    name: str
    size: float
    add: float
    search: float
    recall: str


def indexes(count: float, result: Mapping[str, Any]) -> list[Index]:
    """What indexes of `count` vectors need. The lists of IVF are 4 √count, of which a search reads 16 of 256, or 16."""
    seconds = {name: median(values) for name, values in result["seconds_per_item"].items()}
    one, many = seconds["compare one row"], seconds["compare many rows"]
    lists, base = 4 * math.sqrt(count), result["lists"]
    depth = math.log(count) / math.log(result["vectors"])
    exact = (
        Index("exact, float32", 4 * DIM, 0, count * one, "1"),
        Index("exact, float16", 2 * DIM, 0, count * one, "1"),
    )

    def measured(name: str, what: str) -> float:
        return median(found[what] for found in result["indexes"][name])

    built = [
        Index("HNSW32", measured("HNSW", "bytes") / result["vectors"], seconds["build HNSW"] * depth,
              measured("HNSW", "search") * depth, f"{measured('HNSW', 'recall'):.2f}")
    ]  # fmt: skip
    for name, size in (("IVF-SQ8", DIM), ("IVF-PQ", 80)):
        train = measured(name, "train") / result["vectors"]
        add = seconds[f"build {name}"] - train - base * many + lists * many
        read = (measured(name, "search") - base * one) * (count / lists) / (result["vectors"] / base)
        built.append(Index(f"{name}80" if name == "IVF-PQ" else name, size + 8, max(add, 0), max(read, 0) + lists * one,
                           f"{measured(name, 'recall'):.2f}"))  # fmt: skip
    return [*exact, *built]


def index_table(result: Mapping[str, Any], counts: Sequence[float] = SEARCHED) -> list[str]:
    headings = ["index", "bytes a vector", "recall at 10, measured"]
    for count in counts:
        headings += [f"{_vectors(count)}: memory", "build, core hours", "search, one core"]
    rows = []
    for place, name in enumerate(index.name for index in indexes(1e6, result)):
        cells = [name]
        for count in counts:
            index = indexes(count, result)[place]
            if len(cells) == 1:
                cells += [f"{index.size:,.0f}", index.recall]
            hours = index.add * count / HOURS
            cells += [_bytes(index.size * count), _count(hours) if hours else "none", duration(index.search)]
        rows.append(cells)
    return table(headings, rows)


def _vectors(count: float) -> str:
    return f"{count / 1e9:g} billion" if count >= 1e9 else f"{count / 1e6:g} million"


def _bytes(count: float) -> str:
    return f"{count / 1e12:.3g} TB" if count >= 1e12 else f"{count / 1e9:.3g} GB"


def main() -> None:
    from benchmarks.figures import Results  # which makes the page with this module

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in fields(Plan):
        name, default = option.name.replace("_", "-"), option.default
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"(default: {default:g})")
    plan = replace(Plan(), **vars(parser.parse_args()))
    if min(plan.images, plan.image_kb, plan.cores, plan.jobs, plan.network) <= 0 or plan.gpus < 0:
        parser.error("expected numbers above 0, and GPUs of 0 or more")
    results = Results()
    lines = throughput_table([plan], Measured.of(results))
    sys.stdout.write("\n".join([*lines, "", *index_table(results["scale"], [plan.images])]) + "\n")


if __name__ == "__main__":
    main()
