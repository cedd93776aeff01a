"""Measures INT8 of this project and of other tools; writes ``benchmarks/results/int8_peers.json``.

    python -m benchmarks.measure_int8_peers [CHECKPOINT …] [--seeds 0 1 2 3 4] [--peers nncf …] [--speed 8]

All tools get the same trained checkpoint, the same calibration images and captions, and the same metrics. They quantize
the FP32 graphs of the bundle, with normalization inside, folded batch norms and no padding, so that only quantization
differs. Weights are stored inside the ONNX files, because some tools cannot read external data. Each tool runs as a
process in its own virtual environment (benchmarks/peers). A tool that cannot be installed, and a recipe that fails or
needs more CPU time than ``--limit``, are in the result with their error. Several draws of the calibration data are
measured, because a single outlier image in a draw can decide the activation ranges. Results of other draws and
checkpoints stay in the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.image_embedding import IMAGE_BATCH
from benchmarks.int8_share import int8_share
from benchmarks.peers.calibrated import TOWERS, CalibratedFolder
from benchmarks.peers.draws import Draw, Subject, runner_of
from benchmarks.peers.environments import PEERS, MissingPeerError, interpreter
from benchmarks.result_files import RESULTS, ROOT, describe_machine, read_json, write_result
from benchmarks.timing import run_batches, time_case
from support.decisions import Embeds, cosine_statistics

OURS = {"align-onnx": "cpu", "align-onnx for TensorRT": "cuda"}  # name in the result → device of the INT8 graph
LIMIT = 1800  # seconds of CPU time; the slowest recipe that finishes takes two thirds of it


def quantized(place: Path, peer: str, python: Path, effort: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Runs every recipe of `peer` on both towers: a record with its `file`, or with its `error`.

    Args:
        place: has ``TOWER.onnx`` and ``TOWER.npz`` of both towers, see `benchmarks.peers.worker.Job`.
        effort: `limit` and `slow` of benchmarks.peers.worker.Job.
    """
    script = ROOT / "benchmarks" / "peers" / f"quantize_with_{peer}.py"
    for tower in TOWERS:
        folder = place / peer / tower
        folder.mkdir(parents=True)
        job = {
            "tower": tower,
            "graph": str(place / f"{tower}.onnx"),
            "samples": str(place / f"{tower}.npz"),
            "folder": str(folder),
        } | effort
        (folder / "job.json").write_text(json.dumps(job))
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        with (folder / "log.txt").open("w") as log:
            done = subprocess.run(
                [str(python), str(script), str(folder / "job.json")],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                check=False,
            )
        result = folder / "result.json"
        done_by_peer = read_json(result) if result.exists() else {"versions": {}, "recipes": {}}
        for recipe, record in done_by_peer["recipes"].items():
            yield {"peer": peer, "tower": tower, "recipe": recipe, "versions": done_by_peer["versions"], **record}
        if done.returncode:
            last = ((folder / "log.txt").read_text(errors="replace").strip().splitlines() or [""])[-1]
            yield {"peer": peer, "tower": tower, "recipe": "the rest", "error": f"exit code {done.returncode}: {last}"}


def all_graphs(draw: CalibratedFolder, pythons: Mapping[str, Path], effort: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A record for each graph: ours of `draw`, then those of the other tools as in `quantized`."""
    for ours, device in OURS.items():
        for tower in TOWERS:
            yield {"peer": ours, "tower": tower, "recipe": "--int8", "file": str(draw.graph(tower, "int8", device))}
    for peer, python in pythons.items():
        yield from quantized(draw.folder, peer, python, effort)


def add_accuracy(draw: Draw, record: dict[str, Any], file: Path, embeds: Embeds, fp32: Mapping[str, Embeds]) -> None:
    """Adds to `record` the share of MACs in INT8 and the accuracy of the graph in `file`.

    Args:
        embeds: the graph's embeddings of the held-out set.
        fp32: those of both FP32 graphs; the other tower is taken from them.
    """
    tower = record["tower"]
    record["share"] = int8_share(file, draw.one_item(tower))
    record |= cosine_statistics(embeds, draw.subject.reference[tower]) | draw.subject.decide({**fp32, tower: embeds})


def measure(draw: Draw, pythons: Mapping[str, Path], effort: dict[str, Any], rounds: int) -> dict[str, Any]:
    """The record of one draw: all graphs, each with the FP32 graph of the other tower, and the pairs of both towers."""
    draw.export()
    fp32 = {tower: draw.embeds(tower, draw.graph(tower, "fp32")) for tower in TOWERS}
    records = list(all_graphs(draw, pythons, effort))
    embeds = {}
    for index, record in enumerate(records):
        if "file" in record:
            file = draw.folder / record["peer"] / record["tower"] / record.pop("file")  # an absolute path stays
            try:
                embeds[index] = draw.embeds(record["tower"], file)
                add_accuracy(draw, record, file, embeds[index], fp32)
            except Exception as error:  # a graph that does not run is a result
                record["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
            else:
                record["graph"] = str(file)
        if "error" in record:
            record["error"] = record["error"].replace(f"{draw.folder}/", "")
        print({key: value for key, value in record.items() if key not in ("versions", "graph")}, flush=True)
    both = list(pairs(draw, records, embeds))
    result: dict[str, Any] = {
        "float": draw.subject.decide(fp32),
        "longest_text": draw.longest_text,
        "graphs": records,
        "both": both,
    }
    if rounds:
        result["speed"] = measure_speed(draw, records, rounds)
    for record in records:
        record.pop("graph", None)
    return result


def pairs(draw: Draw, records: list[dict[str, Any]], embeds: Mapping[int, Embeds]) -> Iterator[dict[str, Any]]:
    """The accuracy of both towers in INT8: every vision graph with the text graph of the same tool that is nearest to
    the reference."""
    texts: dict[str, int] = {}
    good = [index for index, record in enumerate(records) if "graph" in record]
    for index in good:
        record = records[index]
        best = texts.get(record["peer"])
        if record["tower"] == "text" and (best is None or record["mean_cosine"] > records[best]["mean_cosine"]):
            texts[record["peer"]] = index
    for index in good:
        record = records[index]
        if record["tower"] == "vision" and record["peer"] in texts:
            text = texts[record["peer"]]
            accuracy = draw.subject.decide({"vision": embeds[index], "text": embeds[text]})
            yield {"peer": record["peer"], "vision": record["recipe"], "text": records[text]["recipe"], **accuracy}


def measure_speed(draw: Draw, records: list[dict[str, Any]], rounds: int) -> list[dict[str, Any]]:
    """Every graph against the FP32 one: eight images, and all calibration captions in batches of 32.

    Graphs whose embeddings are not finite are left out.
    """
    with np.load(draw.folder / "vision.npz") as arrays:
        inputs: dict[str, list[dict[str, NDArray[Any]]]] = {"vision": [{"pixels": arrays["pixels"][:IMAGE_BATCH]}]}
    with np.load(draw.folder / "text.npz") as arrays:
        texts = dict(arrays)
    starts = range(0, draw.samples, 32)
    inputs["text"] = [{name: rows[start : start + 32] for name, rows in texts.items()} for start in starts]
    cases = []
    for tower, batches in inputs.items():
        files = {"fp32": draw.graph(tower, "fp32")}
        files |= {
            f"{record['peer']}, {record['recipe']}": Path(record["graph"])
            for record in records
            if record["tower"] == tower and "graph" in record
        }
        candidates = {name: run_batches(runner_of(file), batches) for name, file in files.items()}
        finite = {name: candidate for name, candidate in candidates.items() if np.isfinite(candidate()).all()}
        cases.append(time_case(tower, finite, rounds))
    return cases


def environments(names: list[str], folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The interpreters of the tools that can be installed, and the errors of the others."""
    pythons, errors = {}, {}
    for peer in names:
        try:
            pythons[peer] = interpreter(peer, folder)
        except MissingPeerError as error:
            errors[peer] = str(error)
            print(f"{peer} cannot be installed: {error}", flush=True)
    return pythons, errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, default=[ROOT / "reference" / "align-tiny"])
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="a draw of calibration data for each seed"
    )
    parser.add_argument("--slow-seeds", nargs="*", type=int, default=[0], help="seeds for which slow recipes run too")
    parser.add_argument(
        "--samples", type=int, default=128, help="calibration images and captions in a draw (default: 128)"
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of CPU time for one recipe")
    parser.add_argument(
        "--speed", type=int, default=0, metavar="ROUNDS", help="measure speed too, an even number of rounds"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "peers", help="environments and graphs")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    pythons, errors = environments(arguments.peers, folder / "environments")
    file = RESULTS / "int8_peers.json"
    result = read_json(file) if file.exists() else {"checkpoints": {}}
    for checkpoint in arguments.checkpoints:
        subject = Subject.read(checkpoint)
        about = {
            "weights_sha256": hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest(),
            "samples": arguments.samples,
            "reference": subject.decide(subject.reference),
        }
        before = result["checkpoints"].get(checkpoint.name, {})
        draws = before["draws"] if before.items() >= about.items() else {}
        for seed in arguments.seeds:
            effort = {"limit": arguments.limit, "slow": seed in arguments.slow_seeds}
            draw = Draw(subject, seed, arguments.samples, folder / "draws" / checkpoint.name / str(seed))
            draws[str(seed)] = measure(draw, pythons, effort, arguments.speed)
            result["checkpoints"][checkpoint.name] = {**about, "draws": draws}
            result |= {"machine": describe_machine(), "missing": errors}
            print(f"{checkpoint.name}, seed {seed}", flush=True)
            write_result("int8_peers", result)


if __name__ == "__main__":
    main()
