"""`align-bench tune` on align-tiny: one real search, and calls that end before anything is measured."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import align_runtime
from align_bench import command as bench
from align_bench.tune import command as tune_command
from align_bench.tune.inputs import MOST_INPUTS, own_images, own_texts, spread
from align_bench.tune.lab import Lab
from align_runtime import Bundle, golden
from align_runtime.errors import ConfigurationError, InputError
from align_runtime.tower_settings import TowerSettings
from align_runtime.tuning import FILE_NAME, read_tuning

DEMO = Path(__file__).parents[2] / "reference/align-tiny/demo"
LITTLE = ["--devices", "cpu", "--seconds-budget", "1", "--towers", "text"]


def test_a_search_writes_what_load_reads(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = bundle_copy.parent / "captions.txt"
    captions.write_text("a photo of a green heart\n\na white star\n", encoding="utf-8")
    texts = ["--texts", str(captions)]
    assert bench.main(["tune", str(bundle_copy), *LITTLE, *texts, "--target", "latency", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""  # not a terminal
    values = json.loads(printed.out)
    file = bundle_copy / FILE_NAME
    assert (values["target"], values["file"]) == ("latency", str(file))
    text = values["towers"]["text"]
    assert text["inputs"] == "golden, own"
    default, *others = text["candidates"]
    assert (default["verdict"], default["speedup"]) in (("default", 1.0), ("chosen", 1.0))
    assert {(one["precision"], one["device"], one["threads"]) for one in others} <= {
        ("fp32", "cpu", n) for n in range(1, 1024)
    }
    assert all(one["cosine"] > 0.999999 for one in text["candidates"] if one["cosine"] is not None)
    (entry,) = read_tuning(file)
    assert entry.towers["text"].settings == TowerSettings(**text["chosen"])
    assert bench.main(["tune", str(bundle_copy), *LITTLE]) == 0
    table = capsys.readouterr().out
    assert "text, throughput" in table
    assert f"written to {file}; load with tuned='throughput'" in table
    assert [entry.target for entry in read_tuning(file)] == ["latency", "throughput"]
    with align_runtime.load(bundle_copy, towers=("text",), tuned="latency") as model:
        assert model.info.settings == {"text": entry.towers["text"].settings}
        assert model.info.tuned == (file, "latency")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--target", "speed"], "--target"),
        (["--min-cosine", "1.5"], "--min-cosine"),
        (["--min-cosine", "nan"], "--min-cosine"),
        (["--seconds-budget", "0"], "--seconds-budget"),
        (["--seconds-budget", "inf"], "--seconds-budget"),
        (["--towers", "audio"], "--towers"),
        (["--devices", "tpu"], "'tpu'"),
        (["--precisions", "int4"], "int4"),
        (["--precisions", "bf16", "--devices", "cpu"], "bf16"),
        (["--texts", "nowhere.txt"], "nowhere.txt"),
        (["--images", "nowhere.jpg"], "nowhere.jpg"),
        (["--images", "/proc/self/fd"], "no images"),
        (["-o", "/"], "is a folder"),
        (["-o", "nowhere/a.json"], "nowhere/a.json"),
        (["-o", str(DEMO / "green-heart.png")], "not UTF-8"),
        (["-o", "/proc/a.json"], "/proc/a.json cannot be written"),
        (["--revision", "main"], "revision"),
    ],
)
def test_a_wrong_argument_ends_before_anything_is_measured(
    tiny_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    match: str,
) -> None:
    def measured(*_: object, **__: object) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr(tune_command, "Lab", measured)
    assert bench.main(["tune", str(tiny_bundle), *options]) == 2
    printed = capsys.readouterr()
    assert match in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not (tiny_bundle / FILE_NAME).exists()


def test_a_bundle_that_is_read_only_needs_an_output(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tune_command, "TemporaryFile", read_only)
    assert bench.main(["tune", str(tiny_bundle), *LITTLE]) == 2
    assert "cannot be written (Read-only file system); name another file: --output FILE" in capsys.readouterr().err


def test_a_bundle_in_the_cache_of_the_hub_needs_an_output(
    bundle_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "models--owner--tiny"
    snapshot, blobs = repository / "snapshots" / "0123", repository / "blobs"
    shutil.copytree(bundle_copy, snapshot)
    blobs.mkdir()
    (snapshot / "align.json").rename(blobs / "abc")
    (snapshot / "align.json").symlink_to("../../blobs/abc")
    assert bench.main(["tune", str(snapshot), *LITTLE]) == 2
    assert "--output FILE" in capsys.readouterr().err


def test_a_floor_above_everything_fails(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """FP32 itself is not bit-equal to the reference."""
    output = tmp_path / "a.json"
    assert bench.main(["tune", str(tiny_bundle), *LITTLE, "--min-cosine", "1", "-o", str(output), "--json"]) == 1
    error: dict[str, Any] = json.loads(capsys.readouterr().out)["error"]
    assert (error["type"], error["metric"]) == ("ParityError", "min_cosine")
    assert not output.exists()


def test_a_candidate_of_another_model_has_the_cosine_of_its_worst_input(tiny_bundle: Path) -> None:
    """The accuracy is that of the worst of the golden inputs and the caller's own."""
    bundle = Bundle.open(tiny_bundle)
    answers = golden.read(bundle)
    wrong = answers.text_embeds.copy()
    wrong[1] = -wrong[1]
    turned = golden.Golden(**{**vars(answers), "text_embeds": wrong})
    inputs = tune_command.built_in(bundle, "text")
    for expected, cosine, worst in ((answers, 1.0, None), (turned, -1.0, answers.texts[1])):
        with Lab(bundle, "text", "latency", inputs, expected).open(TowerSettings()) as loaded:
            assert loaded.cosine == pytest.approx(cosine, abs=1e-5)
            assert worst in (None, loaded.worst)
            assert loaded.items == 4


def test_own_inputs_are_spread_over_what_is_there(tmp_path: Path) -> None:
    assert spread(list(map(str, range(640)))) == list(map(str, range(0, 640, 10)))
    assert len(own_images([DEMO]).own) == min(len(list(DEMO.glob("*.[jp][pn]g"))), MOST_INPUTS)
    with pytest.raises(InputError):
        own_images([tmp_path / "nothing.jpg"])
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ConfigurationError, match="no texts"):
        own_texts(tmp_path / "empty.txt")
