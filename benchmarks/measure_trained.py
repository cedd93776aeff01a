"""Measures INT8 on weights that the world trained; writes ``benchmarks/results/trained.json``.

    python -m benchmarks.measure_trained [lite1 lite2] [--seeds 0 1 2 3 4] [--peers onnxruntime …]

The checkpoints are those of benchmarks.trained_checkpoints. Calibration images are crops of some photographs, and the
held-out ones are crops of others. Each INT8 graph, ours for both targets and those of the other tools, is compared with
the FP32 graph that all of them start from: cosine of the embeddings, smallest and mean, also with the mean of the FP32
embeddings subtracted from both; and how often an image finds the same caption. The graph for TensorRT runs on the CPU.
Results of other checkpoints and draws stay in the file.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from align_calibration.dataset.calibration_dataset import select_dataset
from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance
from align_exporter.pipeline import build_bundle
from align_reference.source import resolve
from align_runtime.bundle import Bundle
from align_runtime.images import preprocess
from align_runtime.parity import cosines
from align_runtime.progress import Progress
from align_runtime.tokenizer import Tokenizer
from benchmarks import trained_checkpoints as trained
from benchmarks.int8_share import int8_share
from benchmarks.measure_int8_peers import LIMIT, OURS, environments, quantized
from benchmarks.peers.draws import TOWERS, runner_of
from benchmarks.peers.environments import OWN, PEERS
from benchmarks.result_files import RESULTS, ROOT, describe_machine, read_json, write_result
from benchmarks.trained_captions import captions, held_out_captions

HELD_OUT_IMAGES, HELD_OUT_SEED = 60, 12345
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Draw:
    """The calibration samples of one seed for a checkpoint, and the bundle that is calibrated with them."""

    checkpoint: str
    seed: int
    samples: int
    folder: Path

    def export(self) -> None:
        """Writes samples, bundle, and the FP32 graphs with their weights inside, which the other tools read."""
        shutil.rmtree(self.folder, ignore_errors=True)
        images, texts = self.folder / "images", self.folder / "captions.txt"
        images.mkdir(parents=True)
        sources = tuple(name for name in trained.photographs() if name not in trained.HELD_OUT)
        for index, image in enumerate(trained.crops(sources, self.samples, self.seed)):
            image.save(images / f"{index:04}.png", compress_level=1)
        texts.write_text("\n".join(self.captions) + "\n", encoding="utf-8")
        # Fidelity is what is measured here, so the parity gate accepts every finite result.
        options = ExportOptions(
            precisions=("int8",),
            dataset=select_dataset(images, texts, limit=self.samples, seed=0),
            parity_max_abs={"int8": 2.0},
            parity_min_cosine={"int8": -1.0},
        )
        source = resolve(str(trained.build(self.checkpoint)))
        build_bundle(source, provenance(source, options), self.folder / "bundle", options, Progress(quiet=True))
        pixels = preprocess(sorted(images.iterdir()), self.bundle.manifest.preprocessing)
        np.savez(self.folder / "vision.npz", pixels=pixels)
        ids, mask = self.tokenizer.pad(self.tokenizer.encode(self.captions))
        np.savez(self.folder / "text.npz", input_ids=ids, attention_mask=mask)
        for tower in TOWERS:
            onnx.save(onnx.load(self.graph(tower, "fp32")), self.folder / f"{tower}.onnx")

    @property
    def captions(self) -> list[str]:
        return captions(self.samples, self.seed)

    @cached_property
    def bundle(self) -> Bundle:
        return Bundle.open(self.folder / "bundle")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        facts = self.bundle.manifest.model
        return Tokenizer.from_file(self.bundle.path("tokenizer.json"), facts.max_length, facts.pad_token_id)

    @cached_property
    def held_out(self) -> Mapping[str, Sequence[Mapping[str, NDArray[Any]]]]:
        """Inputs of both towers, one sample each."""
        crops = trained.crops(trained.HELD_OUT, HELD_OUT_IMAGES, HELD_OUT_SEED)
        pixels = preprocess(crops, self.bundle.manifest.preprocessing)
        rows = [self.tokenizer.pad([ids]) for ids in self.tokenizer.encode(held_out_captions(self.captions))]
        return {
            "vision": [{"pixels": image[None]} for image in pixels],
            "text": [{"input_ids": ids, "attention_mask": mask} for ids, mask in rows],
        }

    def graph(self, tower: str, variant: str, device: str = "cpu") -> Path:
        return self.bundle.path(self.bundle.graph(tower, variant, device).file)

    def embeds(self, tower: str, file: Path) -> Rows:
        """The embeddings that the graph in `file` computes of the held-out samples."""
        with closing(runner_of(file)) as runner:
            return np.concatenate([runner.run(sample) for sample in self.held_out[tower]]).astype(np.float64)

    def longest(self, tower: str) -> Mapping[str, NDArray[Any]]:
        """The held-out sample on which MACs are counted."""
        return max(self.held_out[tower], key=lambda sample: next(iter(sample.values())).size)


def fidelity(actual: Rows, exact: Rows) -> dict[str, float]:
    """Cosines of the embeddings `actual` with `exact`, both (n, dim): as they are, and with the mean of `exact`
    subtracted from both."""
    mean = exact.mean(axis=0)
    plain, centred = cosines(actual, exact), cosines(actual - mean, exact - mean)
    return {
        "min_cosine": float(plain.min()),
        "mean_cosine": float(plain.mean()),
        "min_centred": float(centred.min()),
        "mean_centred": float(centred.mean()),
    }


def image_agreement(tower: str, actual: Rows, exact: Mapping[str, Rows]) -> float:
    """The share of images that find the same caption with the embeddings `actual` of one `tower`."""
    found = {**exact, tower: actual}
    nearest = [(rows["vision"] @ rows["text"].T).argmax(axis=1) for rows in (found, exact)]
    return float((nearest[0] == nearest[1]).mean())


def measure(draw: Draw, pythons: Mapping[str, Path], effort: dict[str, Any]) -> dict[str, Any]:
    """The record of one draw: all graphs, ours first."""
    draw.export()
    exact = {tower: draw.embeds(tower, draw.graph(tower, "fp32")) for tower in TOWERS}
    records: list[dict[str, Any]] = [
        {"peer": ours, "tower": tower, "recipe": "--int8", "file": str(draw.graph(tower, "int8", device))}
        for ours, device in OURS.items()
        for tower in TOWERS
    ]
    for peer, python in pythons.items():
        records += quantized(draw.folder, peer, python, effort)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", default=list(trained.LITES), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="a draw of calibration data for each seed")
    parser.add_argument("--samples", type=int, default=200, help="calibration images and captions (default: 200)")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[OWN], help="other tools (default: onnxruntime)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of CPU time for one recipe of another tool")
    parser.add_argument("--folder", type=Path, default=trained.FOLDER / "draws", help="samples, bundles and graphs")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    pythons, errors = environments(arguments.peers, ROOT / "build" / "peers" / "environments")
    file = RESULTS / "trained.json"
    result = read_json(file) if file.exists() else {"checkpoints": {}}
    for checkpoint in arguments.checkpoints:
        for seed in arguments.seeds:
            draw = Draw(checkpoint, seed, arguments.samples, folder / checkpoint / str(seed))
            found = measure(draw, pythons, {"limit": arguments.limit, "slow": False})
            about = result["checkpoints"].setdefault(checkpoint, {})
            if about.get("samples") != arguments.samples:
                about |= {"samples": arguments.samples, "draws": {}}
            about["draws"][str(seed)] = found
            result |= {"machine": describe_machine(), "missing": errors}
            write_result("trained", result)


if __name__ == "__main__":
    main()
