"""``align-export --images … --captions …``: what the bundle records, what changes, and what is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from align_exporter.command import main
from align_exporter.export_options import ExportOptions
from align_runtime.bundle import Bundle
from align_runtime.bundle_paths import REPORT_NAMES
from align_runtime.graph_entry import Graph
from align_runtime.images import preprocess
from support.fp16_emulation import run_emulated
from support.overflowing import overflowing
from support.sample_folders import image, images, write_files, write_zip

CAPTIONS = "a photo of a cat\na caption of my own\n\na photo of a cat\n"
BAD = {"bad/<b>.png": b"no image", "bad/cut.png": image(99)[:300]}


# The gate is no matter here: FP16 disturbs random weights of this size more than it allows.
WIDE = ("--parity-max-abs", "fp16=0.1", "--parity-min-cosine", "fp16=0.99")


def export(checkpoint: Path, bundle: Path, *arguments: Any) -> int:
    return main([str(checkpoint), "-o", str(bundle), "--fp16", *map(str, arguments)])


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in REPORT_NAMES
    }


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 images, two of them bad, and two captions."""
    folder = tmp_path_factory.mktemp("samples")
    write_files(folder / "photos", images(128) | BAD)
    (folder / "captions.txt").write_text(CAPTIONS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bundle(small_checkpoint: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    chosen = (
        "--calibration-images",
        samples / "photos",
        "--calibration-captions",
        samples / "captions.txt",
        "--quiet",
        *WIDE,
    )
    assert export(small_checkpoint, folder, *chosen) == 0
    return folder


# ── what is recorded ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_bundle_records_what_was_used(bundle: Path, samples: Path) -> None:
    record = json.loads((bundle / "samples.json").read_text())
    assert (record["limit"], record["seed"]) == (512, 0)
    used = {entry["name"]: entry["sha256"] for entry in record["images"]["used"]}
    assert used == {name: hashlib.sha256(content).hexdigest() for name, content in images(128).items()}
    assert {entry["name"] for entry in record["images"]["skipped"]} == set(BAD)
    assert all(entry["reason"] for entry in record["images"]["skipped"])
    assert [entry["name"] for entry in record["captions"]["used"]] == ["line 1", "line 2"]
    manifest = Bundle.open(bundle).manifest
    assert "samples.json" in manifest.files
    options = manifest.provenance.options
    assert {
        "images": "photos",
        "captions": "captions.txt",
        "samples": 512,
        "samples_seed": 0,
    }.items() <= options.items()
    assert re.fullmatch("[0-9a-f]{64}", options["samples_sha256"])


def test_nothing_in_the_bundle_names_this_machine(bundle: Path, samples: Path) -> None:
    for file in bundle.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert str(samples).encode() not in content
            assert b"a caption of my own" not in content


def test_the_report_tells_of_them(bundle: Path) -> None:
    page, record = ((bundle / name).read_text(encoding="utf-8") for name in REPORT_NAMES)
    assert json.loads(record)["samples"] == json.loads((bundle / "samples.json").read_text())
    assert "128 used, 2 skipped, of 130 in photos" in page
    assert "2 used, 0 skipped, of 3 in captions.txt" in page
    assert "at most 512 of each, seed 0" in page
    assert "&lt;b&gt;." in page
    assert "<b>.png" not in page


def test_the_same_samples_give_the_same_bytes_from_anywhere(
    bundle: Path, small_checkpoint: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And an error or a warning is one line in the log, for every sample that was skipped."""
    elsewhere = Path(shutil.copytree(samples, tmp_path / "elsewhere"))
    chosen = ("--calibration-images", elsewhere / "photos", "--calibration-captions", elsewhere / "captions.txt", *WIDE)
    assert export(small_checkpoint, tmp_path / "again", *chosen) == 0
    assert digests(tmp_path / "again") == digests(bundle)
    log = capsys.readouterr().err
    assert "! skipped of photos: 'bad/<b>.png': the image of 10 bytes is no image" in log
    assert "! skipped of photos: 'bad/cut.png': " in log
    assert "! only 2 captions of your own are used; 128 or more" in log
    assert "only 128 images" not in log


def test_an_export_is_fresh_until_a_sample_changes(
    bundle: Path, small_checkpoint: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, own = Path(shutil.copytree(bundle, tmp_path / "bundle")), Path(shutil.copytree(samples, tmp_path / "own"))
    chosen = ("--calibration-images", own / "photos", "--calibration-captions", own / "captions.txt", "--json", *WIDE)

    def reason(*more: Any) -> str | None:
        assert export(small_checkpoint, copy, *chosen, *more) == 0
        return json.loads(capsys.readouterr().out)["reason"]

    assert reason() is None
    (own / "photos" / "notes.md").write_text("no image")
    assert reason() is None
    (own / "photos" / "0" / "000.png").write_bytes(image(1000))
    assert reason() == "other options: samples_sha256"
    assert reason() is None
    assert reason("--calibration-seed", 1) == "other options: samples_seed, samples_sha256"


def test_without_samples_nothing_is_recorded(tiny_fp16_bundle: Path) -> None:
    assert not (tiny_fp16_bundle / "samples.json").exists()
    assert not [name for name in Bundle.open(tiny_fp16_bundle).manifest.provenance.options if "samples" in name]
    assert not {"samples", "images", "captions"} & ExportOptions().record.keys()
    page, record = ((tiny_fp16_bundle / name).read_text(encoding="utf-8") for name in REPORT_NAMES)
    assert json.loads(record)["samples"] is None
    assert "Samples of the user" not in page


# ── what they are for ────────────────────────────────────────────────────────────────────────────────────────────────


def vision(folder: Path) -> Graph:
    return next(
        graph for graph in Bundle.open(folder).manifest.graphs if (graph.tower, graph.variant) == ("vision", "fp16")
    )


def test_a_sample_makes_an_island_that_the_built_in_ones_do_not(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Stripes of blue and yellow make the second stage of align-tiny three times as large as all built-in samples do;
    without them, FP16 would overflow on such a image."""
    checkpoint = overflowing(tiny_checkpoint, tmp_path / "scaled", factor=2.0**12, stage=1)
    _, columns = (np.indices((76, 76)) - 5) // 4  # 76: the checkpoint resizes to it, and crops 5 of each side
    stripes = np.where(columns[..., None] % 2, (255, 255, 0), (0, 0, 255)).astype(np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(stripes).save(tmp_path / "photos" / "stripes.png")
    options = ("--quiet", "--fp16-headroom", 1.2)
    assert export(checkpoint, tmp_path / "without", *options) == 0
    assert export(checkpoint, tmp_path / "with", *options, "--calibration-images", tmp_path / "photos") == 0

    assert vision(tmp_path / "without").islands == ()
    (island,) = vision(tmp_path / "with").islands
    assert re.search(r"blocks\.[23]\S* reaches 1\.39e\+05", " ".join(island.reasons))

    pixels = preprocess([stripes], Bundle.open(tmp_path / "with").manifest.preprocessing)
    embeds = {}
    for name in ("with", "without"):
        for variant in ("", "_fp16"):
            model = ir.load(tmp_path / name / "onnx" / f"vision_model{variant}.onnx")
            embeds[name + variant] = run_emulated(model, {"pixels": pixels}, tmp_path, batch=1)[0]
    assert embeds["with"] @ embeds["with_fp16"] > 0.999
    assert not np.isfinite(embeds["without_fp16"]).all()


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibration-images", "p"], "--images does nothing without --fp16 or --int8"),
        (["--calibration-captions", "c.txt"], "--captions does nothing without --fp16 or --int8"),
        (
            ["--fp16", "--max-calibration-samples", "3"],
            "--samples and --samples-seed do nothing without --images or --captions",
        ),
        (["--fp16", "--calibration-seed", "3"], "do nothing without --images or --captions"),
        (
            ["--fp16", "--calibration-images", "p", "--max-calibration-samples", "0"],
            "--samples is 0; a number of at least 1 is needed",
        ),
        (["--fp16", "--calibration-images", "gone"], "gone does not exist"),
        (["--fp16", "--calibration-images", "empty"], "empty holds no samples"),
        (["--fp16", "--calibration-captions", "c.md"], "c.md is no caption file"),
        (["--fp16", "--calibration-images", "spoilt.zip"], "spoilt.zip: 3 of 20 samples cannot be used, at most 10%"),
    ],
)
def test_wrong_calls_leave_nothing(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "c.md").touch()
    write_zip(tmp_path / "spoilt.zip", images(17) | {f"{index}.png": b"no image" for index in range(3)})
    assert main([str(tiny_checkpoint), "-o", "bundle", "--quiet", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "bundle").exists()
