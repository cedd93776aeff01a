"""INT8 of this project and of other tools on trained checkpoints; writes ``benchmarks/results/int8_peers.json``.

    python benchmarks/measure_int8_peers.py [CHECKPOINT …] [--seeds 0 1 2 3 4] [--peers nncf …] [--race 8]

Same checkpoint, same images and captions to calibrate on, same metric. Peers quantise the FP32 graphs of the bundle,
with normalisation, folded batch norms and without padding, so that nothing but quantisation differs; weights are put
into the files, for not all of them read external data. Each runs as a process in a virtual environment of its own
(figures/peers); one that cannot be installed, or a way that fails or needs more processor time than ``--limit``, is in
the result with its error. Draws of images are repeated: a single one may hold a image on which the network runs
away, and that decides over ranges. Results of other draws and checkpoints that are in the file stay there.
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
from benchmarks.machine import describe
from benchmarks.peers.draws import TOWERS, Draw, Subject, runner_of
from benchmarks.peers.environments import PEERS, MissingPeerError, interpreter
from benchmarks.race import race, run_all
from support.decisions import Embeds, cosine_statistics

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "int8_peers.json"
OURS = {"align-onnx": "cpu", "align-onnx for TensorRT": "cuda"}  # and the device whose INT8 graph that is
LIMIT = 1800  # seconds of processor time; the slowest way that ends takes two thirds of it


def quantized(draw: Draw, peer: str, python: Path, effort: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every way of `peer` on both towers: a record with its `file`, or with its `error`.

    Args:
        effort: `limit` and `slow` of benchmarks.peers.worker.Job.
    """
    script = ROOT / "benchmarks" / "peers" / f"quantize_with_{peer}.py"
    for tower in TOWERS:
        folder = draw.folder / peer / tower
        folder.mkdir(parents=True)
        job = {
            "tower": tower,
            "graph": str(draw.folder / f"{tower}.onnx"),
            "samples": str(draw.folder / f"{tower}.npz"),
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
        ways = json.loads(result.read_text()) if result.exists() else {"versions": {}, "ways": {}}
        for way, record in ways["ways"].items():
            yield {"peer": peer, "tower": tower, "way": way, "versions": ways["versions"], **record}
        if done.returncode:
            last = ((folder / "log.txt").read_text(errors="replace").strip().splitlines() or [""])[-1]
            yield {"peer": peer, "tower": tower, "way": "the rest", "error": f"exit code {done.returncode}: {last}"}


def measured(draw: Draw, record: dict[str, Any], file: Path, embeds: Embeds, float_twin: Mapping[str, Embeds]) -> None:
    """Adds to `record` what the graph in `file` is worth, the other tower being the float one."""
    tower = record["tower"]
    record["share"] = int8_share(file, draw.one_item(tower))
    record |= cosine_statistics(embeds, draw.subject.reference[tower]) | draw.subject.decide(
        {**float_twin, tower: embeds}
    )


def measure(draw: Draw, pythons: Mapping[str, Path], effort: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """All graphs of one draw, each with the float graph of the other tower; then each vision graph with the text graph
    of the same peer that is nearest to the reference."""
    draw.export()
    twin = {tower: draw.embeds(tower, draw.graph(tower, "fp32")) for tower in TOWERS}
    records: list[dict[str, Any]] = [
        {"peer": ours, "tower": tower, "way": "--int8", "file": str(draw.graph(tower, "int8", device))}
        for ours, device in OURS.items()
        for tower in TOWERS
    ]
    for peer, python in pythons.items():
        records += quantized(draw, peer, python, effort)
    embeds = {}
    for index, record in enumerate(records):
        if "file" in record:
            file = draw.folder / record["peer"] / record["tower"] / record.pop("file")  # an absolute path stays
            try:
                embeds[index] = draw.embeds(record["tower"], file)
                measured(draw, record, file, embeds[index], twin)
            except Exception as error:  # a graph that does not run is a result
                record["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
            else:
                record["graph"] = str(file)
        if "error" in record:
            record["error"] = record["error"].replace(f"{draw.folder}/", "")
        print({key: value for key, value in record.items() if key not in ("versions", "graph")}, flush=True)
    both = list(pairs(draw, records, embeds))
    result: dict[str, Any] = {
        "float": draw.subject.decide(twin),
        "longest_text": draw.longest_text,
        "graphs": records,
        "both": both,
    }
    if rounds:
        result["race"] = raced(draw, records, rounds)
    for record in records:
        record.pop("graph", None)
    return result


def pairs(draw: Draw, records: list[dict[str, Any]], embeds: Mapping[int, Embeds]) -> Iterator[dict[str, Any]]:
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
            decisions = draw.subject.decide({"vision": embeds[index], "text": embeds[text]})
            yield {"peer": record["peer"], "vision": record["way"], "text": records[text]["way"], **decisions}


def raced(draw: Draw, records: list[dict[str, Any]], rounds: int) -> list[dict[str, Any]]:
    """Every graph against the float one: eight images, and all calibration captions in batches of 32."""
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
            f"{record['peer']}, {record['way']}": Path(record["graph"])
            for record in records
            if record["tower"] == tower and "graph" in record
        }
        runners = {name: runner_of(file) for name, file in files.items()}
        cases.append(race(tower, {name: run_all(runner, batches) for name, runner in runners.items()}, rounds))
    return cases


def environments(names: list[str], folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Interpreters of the peers that can be installed, and the errors of those that cannot."""
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
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of the draws of samples")
    parser.add_argument("--slow-seeds", nargs="*", type=int, default=[0], help="of those that slow ways are gone for")
    parser.add_argument("--samples", type=int, default=128, help="images and captions of a draw (default: 128)")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--limit", type=float, default=LIMIT, help="processor seconds of one way of a peer")
    parser.add_argument("--race", type=int, default=0, metavar="ROUNDS", help="measure speed too; an even number")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "peers", help="environments and graphs")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    pythons, errors = environments(arguments.peers, folder / "environments")
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {"checkpoints": {}}
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
            draws[str(seed)] = measure(draw, pythons, effort, arguments.race)
            result["checkpoints"][checkpoint.name] = {**about, "draws": draws}
            result |= {"machine": describe(), "missing": errors}
            RESULT.write_text(json.dumps(result, indent=1) + "\n")
            print(f"wrote {RESULT.relative_to(ROOT)}: {checkpoint.name}, seed {seed}", flush=True)


if __name__ == "__main__":
    main()
