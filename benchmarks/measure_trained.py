"""Measures INT8 on weights that the world trained; writes ``benchmarks/results/trained.json``.

    python -m benchmarks.measure_trained [lite1 lite2] [--seeds 0 1 2 3 4] [--peers onnxruntime …]
        [--built-in] [--int8-min-cosine 0.999]

The checkpoints are those of benchmarks.trained_checkpoints, or align-tiny. Calibration images are crops of some
photographs, and the held-out ones are crops of others. Each INT8 graph, ours for both targets and those of the other
tools, is compared with the FP32 graph that all of them start from: cosine of the embeddings, smallest and mean, also
with the mean of the FP32 embeddings subtracted from both; and how often an image finds the same caption. The graph for
TensorRT runs on the CPU. Results of other checkpoints, draws and tools stay in the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from benchmarks import trained_checkpoints as trained
from benchmarks.int8_share import int8_share
from benchmarks.measure_int8_peers import LIMIT, OURS, all_graphs, environments
from benchmarks.peers.calibrated import TOWERS
from benchmarks.peers.environments import OWN, PEERS
from benchmarks.result_files import RESULTS, ROOT, describe_machine, read_json, write_result
from benchmarks.trained_draws import Draw, Rows, fidelity


def image_agreement(tower: str, actual: Rows, exact: Mapping[str, Rows]) -> float:
    """The share of images that find the same caption with the embeddings `actual` of one `tower`."""
    found = {**exact, tower: actual}
    nearest = [(rows["vision"] @ rows["text"].T).argmax(axis=1) for rows in (found, exact)]
    return float((nearest[0] == nearest[1]).mean())


def measure(draw: Draw, pythons: Mapping[str, Path], effort: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The record of one draw: all graphs, ours first, exported with `options`."""
    draw.export(("int8",), **options)
    exact = {tower: draw.embeds(tower, draw.graph(tower, "fp32")) for tower in TOWERS}
    records = list(all_graphs(draw, pythons, effort))
    for record in records:
        if "file" in record:
            tower = record["tower"]
            file = draw.folder / record["peer"] / tower / record.pop("file")  # an absolute path stays
            try:
                actual = draw.embeds(tower, file)
                record["share"] = int8_share(file, draw.longest(tower))
                record |= fidelity(actual, exact[tower])
                record["agreement"] = image_agreement(tower, actual, exact)
            except Exception as error:  # a graph that does not run is a result
                record["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
        if "error" in record:
            record["error"] = record["error"].replace(f"{draw.folder}/", "")
        print({key: value for key, value in record.items() if key != "versions"}, flush=True)
    return {"graphs": records}


def with_other_tools(found: dict[str, Any], before: Mapping[str, Any], measured: Collection[str]) -> dict[str, Any]:
    """The record `found` of a draw, and those of `before` of tools other than the `measured`.

    They start from the same FP32 graph and see the same samples: what they gave does not depend on our INT8 code.
    """
    kept = [record for record in before.get("graphs", ()) if record["peer"] not in (*OURS, *measured)]
    return {**found, "graphs": [*found["graphs"], *kept]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", default=list(trained.NAMES), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="a draw of calibration data for each seed")
    parser.add_argument("--samples", type=int, default=200, help="calibration images and captions (default: 200)")
    parser.add_argument("--built-in", action="store_true", help="our graphs alone, calibrated on the built-in samples")
    parser.add_argument("--int8-min-cosine", type=float, help="our graphs alone, for this target; the first seed alone")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[OWN], help="other tools (default: onnxruntime)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of CPU time for one recipe of another tool")
    parser.add_argument("--folder", type=Path, default=trained.FOLDER / "draws", help="samples, bundles and graphs")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    pythons, errors = environments(arguments.peers, ROOT / "build" / "peers" / "environments")
    file = RESULTS / "trained.json"
    result = read_json(file) if file.exists() else {"checkpoints": {}}
    for checkpoint in arguments.checkpoints:
        if arguments.built_in:
            draw = Draw(checkpoint, 0, 0, folder / checkpoint / "built-in")
            result.setdefault("built_in", {})[checkpoint] = measure(draw, {}, {})
            write_result("trained", result)
            continue
        if arguments.int8_min_cosine is not None:
            draw = Draw(checkpoint, arguments.seeds[0], arguments.samples, folder / checkpoint / "target")
            found = measure(draw, {}, {}, int8_min_cosine=arguments.int8_min_cosine)
            result.setdefault("targets", {})[checkpoint] = {"min_cosine": arguments.int8_min_cosine, **found}
            write_result("trained", result)
            continue
        for seed in arguments.seeds:
            draw = Draw(checkpoint, seed, arguments.samples, folder / checkpoint / str(seed))
            found = measure(draw, pythons, {"limit": arguments.limit, "slow": False})
            about = result["checkpoints"].setdefault(checkpoint, {})
            if about.get("samples") != arguments.samples:
                about |= {"samples": arguments.samples, "draws": {}}
            before = about["draws"].get(str(seed), {})
            about["draws"][str(seed)] = with_other_tools(found, before, arguments.peers)
            result |= {"machine": describe_machine(), "missing": errors}
            write_result("trained", result)


if __name__ == "__main__":
    main()
