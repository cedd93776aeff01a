"""``align-export --calibration-images … --calibration-captions …``: what is recorded, what it changes, and errors."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from align_calibration.dataset.calibration_dataset import DATASET_NAME
from align_exporter.cli.calibration_options import read_dataset
from align_exporter.cli.options import add_options, read_options
from align_exporter.command import main
from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance, staleness
from align_reference.source import resolve
from align_runtime.bundle import Bundle
from align_runtime.graph_entry import Graph
from align_runtime.images import preprocess
from align_runtime.manifest import REPORT_NAMES
from align_runtime.progress import Progress
from support.digests import digests
from support.fp16_emulation import run_emulated
from support.overflowing import overflowing
from support.sample_folders import image, images, write_files, write_zip

CAPTIONS = "a photo of a cat\na caption of my own\n\na photo of a cat\n"
BAD = {"bad/<b>.png": b"no image", "bad/cut.png": image(99)[:300]}


# The parity gate is not tested here: FP16 disturbs random weights of this size more than it allows.
WIDE = ("--parity-max-abs", "fp16=0.1", "--parity-min-cosine", "fp16=0.99")


def export(checkpoint: Path, bundle: Path, *arguments: Any) -> int:
    return main([str(checkpoint), "-o", str(bundle), "--fp16", *map(str, arguments)])


def dataset(folder: Path) -> tuple[Any, ...]:
    """Options that name the images and captions of `samples` or a copy."""
    return ("--calibration-images", folder / "photos", "--calibration-captions", folder / "captions.txt", *WIDE)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 images, two of them undecodable, and two different captions."""
    folder = tmp_path_factory.mktemp("samples")
    write_files(folder / "photos", images(128) | BAD)
    (folder / "captions.txt").write_text(CAPTIONS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bundle(small_checkpoint: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    assert export(small_checkpoint, folder, *dataset(samples), "--quiet") == 0
    return folder


# ── what is recorded ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_bundle_records_the_samples(bundle: Path, samples: Path) -> None:
    record = json.loads((bundle / DATASET_NAME).read_text())
    assert (record["limit"], record["seed"]) == (512, 0)
    assert (record["images"]["source"], record["captions"]["source"]) == ("photos", "captions.txt")
    hashes = {entry["name"]: entry["sha256"] for entry in record["images"]["samples"]}
    assert hashes == {name: hashlib.sha256(content).hexdigest() for name, content in images(128).items()}
    assert {entry["name"] for entry in record["images"]["skipped"]} == set(BAD)
    assert all(entry["reason"] for entry in record["images"]["skipped"])
    assert [entry["name"] for entry in record["captions"]["samples"]] == ["line 1", "line 2"]
    manifest = Bundle.open(bundle).manifest
    assert DATASET_NAME in manifest.files
    options = manifest.provenance.options
    assert {
        "calibration_images": "photos",
        "calibration_captions": "captions.txt",
        "max_calibration_samples": 512,
        "calibration_seed": 0,
    }.items() <= options.items()
    assert re.fullmatch("[0-9a-f]{64}", options["calibration_sha256"])


def test_the_bundle_contains_no_path_and_no_caption(bundle: Path, samples: Path) -> None:
    for file in bundle.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert str(samples).encode() not in content
            assert b"a caption of my own" not in content


def test_the_report_shows_the_dataset(bundle: Path) -> None:
    page, record = ((bundle / name).read_text(encoding="utf-8") for name in REPORT_NAMES)
    assert json.loads((bundle / DATASET_NAME).read_text()) in json.loads(record).values()
    assert re.search(r"128\b[^<]*\b2 skipped[^<]*\b130\b[^<]*photos", page)
    assert re.search(r"2\b[^<]*\b0 skipped[^<]*\b3\b[^<]*captions\.txt", page)
    assert "&lt;b&gt;." in page
    assert "<b>.png" not in page


def test_a_copy_of_the_dataset_gives_the_same_bytes(
    bundle: Path, small_checkpoint: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log has one line for every skipped sample, and one for too few samples of a kind."""
    elsewhere = Path(shutil.copytree(samples, tmp_path / "elsewhere"))
    assert export(small_checkpoint, tmp_path / "again", *dataset(elsewhere)) == 0
    assert digests(tmp_path / "again", REPORT_NAMES) == digests(bundle, REPORT_NAMES)
    lines = capsys.readouterr().err.splitlines()
    for name in BAD:
        assert sum(f"skipped {name!r}: " in line for line in lines) == 1
    assert sum("only 2 calibration captions" in line for line in lines) == 1
    assert not any("only 128 calibration images" in line for line in lines)


def test_a_bundle_is_up_to_date_until_a_sample_changes(
    bundle: Path, small_checkpoint: Path, samples: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(samples, tmp_path / "own"))

    def changed(*more: Any) -> set[str]:
        parser = argparse.ArgumentParser()
        add_options(parser)
        arguments = (small_checkpoint, "-o", bundle, "--fp16", *dataset(own), *more)
        given = parser.parse_args([str(argument) for argument in arguments])
        options = replace(read_options(given), dataset=read_dataset(given, Progress(quiet=True)))
        reason = staleness(bundle, provenance(resolve(str(small_checkpoint)), options))
        return set() if reason is None else set(reason.removeprefix("changed options: ").split(", "))

    assert changed() == set()
    (own / "photos" / "notes.md").write_text("not an image")
    assert changed() == set()
    assert changed("--calibration-seed", 1) == {"calibration_seed", "calibration_sha256"}
    assert changed("--max-calibration-samples", 500) == {"max_calibration_samples", "calibration_sha256"}
    (own / "photos" / "0" / "000.png").write_bytes(image(1000))
    assert changed() == {"calibration_sha256"}


def test_without_a_dataset_nothing_is_recorded(tiny_fp16_bundle: Path) -> None:
    assert not (tiny_fp16_bundle / DATASET_NAME).exists()
    assert not [name for name in Bundle.open(tiny_fp16_bundle).manifest.provenance.options if "calibration" in name]
    assert not [name for name in ExportOptions().record if "calibration" in name]
    page, record = ((tiny_fp16_bundle / name).read_text(encoding="utf-8") for name in REPORT_NAMES)
    assert not [value for value in json.loads(record).values() if isinstance(value, dict) and "seed" in value]
    assert DATASET_NAME not in page


# ── its effect ───────────────────────────────────────────────────────────────────────────────────────────────────────


def vision(folder: Path) -> Graph:
    return next(
        graph for graph in Bundle.open(folder).manifest.graphs if (graph.tower, graph.variant) == ("vision", "fp16")
    )


def test_a_calibration_image_makes_an_fp16_island(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """On blue and yellow stripes, activations of the second stage of align-tiny are three times as large as on all
    built-in samples; without the stripes in the dataset, FP16 overflows on them."""
    checkpoint = overflowing(tiny_checkpoint, tmp_path / "scaled", factor=2.0**12, stage=1)
    _, columns = (np.indices((76, 76)) - 5) // 4  # 76: the resized size, of which 5 are cropped on each side
    stripes = np.where(columns[..., None] % 2, (255, 255, 0), (0, 0, 255)).astype(np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(stripes).save(tmp_path / "photos" / "stripes.png")
    options = ("--quiet", "--fp16-headroom", 1.2)
    assert export(checkpoint, tmp_path / "without", *options) == 0
    assert export(checkpoint, tmp_path / "with", *options, "--calibration-images", tmp_path / "photos") == 0

    assert vision(tmp_path / "without").islands == ()
    (island,) = vision(tmp_path / "with").islands
    assert re.search(r"blocks\.[23]\S* .*1\.3889e\+05", " ".join(island.reasons))

    pixels = preprocess([stripes], Bundle.open(tmp_path / "with").manifest.preprocessing)
    embeds = {}
    for name in ("with", "without"):
        for variant in ("", "_fp16"):
            model = ir.load(tmp_path / name / "onnx" / f"vision_model{variant}.onnx")
            embeds[name + variant] = run_emulated(model, {"pixels": pixels}, tmp_path, batch=1)[0]
    assert embeds["with"] @ embeds["with_fp16"] > 0.999
    assert not np.isfinite(embeds["without_fp16"]).all()


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--calibration-images", "p"], "--calibration-images"),
        (["--calibration-captions", "c.txt"], "--calibration-captions"),
        (["--fp16", "--max-calibration-samples", "3"], "--max-calibration-samples"),
        (["--fp16", "--calibration-seed", "3"], "--calibration-seed"),
        (["--fp16", "--calibration-images", "empty", "--max-calibration-samples", "0"], "--max-calibration-samples"),
        (["--fp16", "--calibration-images", "gone"], "gone"),
        (["--fp16", "--calibration-images", "empty"], "empty contains no samples"),
        (["--fp16", "--calibration-captions", "c.md"], "c.md is not a caption file"),
        (["--fp16", "--calibration-images", "damaged.zip"], "damaged.zip: 3 of 20 samples"),
    ],
)
def test_wrong_options_are_one_line_and_leave_no_bundle(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "c.md").touch()
    write_zip(tmp_path / "damaged.zip", images(17) | {f"{index}.png": b"not an image" for index in range(3)})
    assert main([str(tiny_checkpoint), "-o", "bundle", "--quiet", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert part in error
    assert not (tmp_path / "bundle").exists()
