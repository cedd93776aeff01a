"""align-classify as a user calls it: output, JSON, exit codes, errors."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from align_runtime import Bundle
from align_runtime.commands import classify
from align_runtime.machine_key import MachineKey
from align_runtime.tower_settings import TowerSettings
from align_runtime.tuning import TunedTower, TuningEntry, add_entry


def test_classify_prints_a_table(tiny_bundle: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = sorted(str(path) for path in (tiny_checkpoint / "demo").glob("*.png"))
    assert classify.main([str(tiny_bundle), *images, "--labels", "red circle", "blue square", "--top", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "label", "probability"]
    assert len(lines) == 2 + len(images)
    assert all(line.endswith("%") for line in lines[2:])


def test_classify_as_json_with_a_file_of_labels(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.txt").write_text("red circle\n\nblue square\n")
    image = str(next((tiny_checkpoint / "demo").glob("*.png")))
    assert classify.main([str(tiny_bundle), image, "--labels-file", str(tmp_path / "labels.txt"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["labels"] == ["red circle", "blue square"]
    (image,) = result["images"]
    assert sum(image["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert image["best"] in result["labels"]


def test_names_that_are_no_unicode_and_labels_of_a_windows_editor(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / os.fsdecode(b"caf\xe9.png")
    shutil.copy(tiny_checkpoint / "demo" / "green-heart.png", image)
    (tmp_path / "labels.txt").write_bytes("\ufeffgreen heart\r\nred star é\r\n".encode())
    arguments = [str(tiny_bundle), str(image), "--labels-file", str(tmp_path / "labels.txt")]
    assert classify.main([*arguments, "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()  # the same bytes in every locale
    result = json.loads(printed)
    assert result["labels"] == ["green heart", "red star é"]
    assert os.fsencode(result["images"][0]["image"]) == os.fsencode(image)
    assert classify.main(arguments) == 0
    assert r"caf\udce9.png" in capsys.readouterr().out


def test_an_image_that_cannot_be_used_leaves_the_others(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = tiny_checkpoint / "demo"
    images = [str(path) for path in sorted(demo.iterdir()) if path.suffix in (".png", ".jpg")]
    (tmp_path / "bad.jpg").write_bytes(Path(images[0]).read_bytes()[:99])
    bad = {3: str(tmp_path / "bad.jpg"), 5: str(tmp_path / "missing.png"), 9: str(tmp_path)}
    given = [bad[index] if index in bad else images.pop(0) for index in range(len(images) + 3)]
    good = [image for image in given if image not in bad.values()]
    arguments = ["--labels", "white star", "green heart", "--top", "1"]
    assert classify.main([str(tiny_bundle), *good, *arguments, "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["images"]

    assert classify.main([str(tiny_bundle), *given, *arguments, "--json"]) == 2
    printed = capsys.readouterr()
    found = json.loads(printed.out)["images"]
    assert [entry["image"] for entry in found] == given
    assert [entry["best"] for entry in found if "best" in entry] == [entry["best"] for entry in expected]
    errors = {index: entry["error"] for index, entry in enumerate(found) if "error" in entry}
    assert list(errors) == [error["index"] for error in errors.values()] == list(bad)
    assert {error["type"] for error in errors.values()} == {"InputError"}
    assert [line.split(": ")[2] for line in printed.err.splitlines()] == ["input 3", "input 5", "input 9"]

    assert classify.main([str(tiny_bundle), *given, *arguments]) == 2
    printed = capsys.readouterr()
    lines = printed.out.splitlines()[2:]
    assert len(lines) == len(given)
    assert [index for index, line in enumerate(lines) if line.endswith("(error)")] == list(bad)
    assert printed.err.count("\n") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.jpg", "--labels", "a"], "input 0: nothing.jpg"),
        (["{image}", "--labels", "a", "--top", "0"], "--top: expected an integer of 1 or more, got '0'"),
        (["{image}", "--labels-file", "nowhere.txt"], "nowhere.txt"),
        (["{image}", "--labels", "a", "--precision", "fp8"], "'fp8'"),
        (["{image}", "--labels", "a", "--device", "cuda:x"], "'cuda:x'"),
        (["{image}", "--labels", "a", "--device", "cuda", "--threads", "2"], "--threads"),
        (["{image}", "--labels", "a", "--threads", "0"], "--threads"),
        (["{image}", "--labels", "a", "--template", "no place"], "'no place'"),
        (["{image}", "--labels", "a", "--tuned", "latency"], "align-bench tune"),
        (["{image}", "--labels", "a", "--tuned", "latency", "--precision", "fp32"], "leave out precision, or tuned"),
        (["{image}", "--labels", "a", "--tuned", "latency", "--device", "cpu"], "leave out device, or tuned"),
        (["{image}", "--labels", "a", "--tuned", "latency", "--threads", "2"], "leave out threads, or tuned"),
        (["{image}"], "--labels"),
    ],
)
def test_classify_says_what_is_wrong(
    tiny_bundle: Path, tiny_checkpoint: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(tiny_checkpoint / "demo" / "green-heart.png")
    assert classify.main([str(tiny_bundle), *(argument.format(image=image) for argument in arguments)]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_classify_with_measured_settings(tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    file, opened = tmp_path / "settings.json", Bundle.open(tiny_bundle)
    one = TunedTower(TowerSettings(threads=1), 0.99, 1.0, "golden", 1.0, 1.5, 1.4, 1.6, "2026-11-27T12:00:00+00:00")
    towers = {"vision": one, "text": one}
    add_entry(file, TuningEntry(MachineKey.here(), "latency", "align-tiny", opened.manifest_sha256, towers))
    call = [str(tiny_bundle), str(tiny_checkpoint / "demo/green-heart.png"), "--labels", "green heart", "white star"]
    assert classify.main([*call, "--tuned", str(file)]) == 0
