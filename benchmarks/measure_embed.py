"""Measures `align-embed` against the runtime's own loop; writes ``benchmarks/results/embed.json``.

    python -m benchmarks.measure_embed build/align-tiny [--texts 100000] [--images 5000]

Every run is a fresh process on Linux. The loop reads the same items, embeds them with `iter_embed_texts` or
`iter_embed_images`, and throws the rows away; align-embed also compares, stores and syncs them. Both are run in an
order that is reversed in every second round, and each is timed from the loaded model to the last row. Resident memory
is read once a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.result_files import conditions, write_result
from support.calibration_images import draw_captions, draw_images

ROUNDS = 7
PROGRAM = """
import json, sys, threading, time
from pathlib import Path
import align_runtime
from align_serving.embed import command

way, bundle, place, output = sys.argv[1:]
resident, started = [], time.monotonic()

def watch():
    while True:
        lines = open("/proc/self/status").read().splitlines()
        resident.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")))
        time.sleep(1)

def loop():
    kind = "texts" if place.endswith(".txt") else "images"
    model = align_runtime.load(bundle, towers=("text" if kind == "texts" else "vision",))
    begin, rows = time.monotonic(), 0
    if kind == "texts":
        parts = model.iter_embed_texts(line.rstrip("\\n") for line in open(place, encoding="utf-8"))
    else:
        parts = model.iter_embed_images(sorted(Path(place).iterdir()))
    for part in parts:
        rows += len(part.indices)
    return rows, time.monotonic() - begin

threading.Thread(target=watch, daemon=True).start()
if way == "loop":
    rows, seconds = loop()
else:
    told = {}
    command.say_json = told.update
    assert command.main([bundle, place, "-o", output, "--json", "--quiet"]) == 0
    rows, seconds = told["rows"], told["seconds"]
print(json.dumps({"rows": rows, "seconds": seconds, "resident_bytes": resident}))
"""


def run(way: str, bundle: Path, place: Path, output: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", PROGRAM, way, str(bundle), str(place), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(name: str, bundle: Path, place: Path, folder: Path) -> dict[str, Any]:
    """Rows, seconds and resident memory of each round of both ways."""
    runs: dict[str, list[dict[str, Any]]] = {"loop": [], "align-embed": []}
    for number in range(ROUNDS):
        for way in list(runs)[:: -1 if number % 2 else 1]:
            runs[way].append(run(way, bundle, place, folder / f"{name}-{number}"))
            last = runs[way][-1]
            print(f"{name:>8} {way:<12} {last['rows'] / last['seconds']:8,.0f}/s", flush=True)
    ratios = [ours["seconds"] / bare["seconds"] for bare, ours in zip(*runs.values(), strict=True)]
    print(f"{name:>8} throughput of align-embed: {1 / median(ratios):.3f} × that of the loop", flush=True)
    return {"name": name, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=5_000)
    options = parser.parse_args()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        texts = folder / "texts.txt"
        texts.write_text("\n".join(draw_captions(options.texts, seed=103)) + "\n", encoding="utf-8")
        images = draw_images(folder / "images", options.images, seed=104)
        cases = [measure("texts", options.bundle, texts, folder), measure("images", options.bundle, images, folder)]
    write_result("embed", {**conditions(load), "bundle": options.bundle.name, "cases": cases})


if __name__ == "__main__":
    main()
