"""A bundle is written completely or not at all, and never replaces a folder that is not a bundle."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from align_runtime import ConfigurationError
from align_runtime.bundle_writing import check_destination, staged
from align_runtime.manifest import MANIFEST_NAME


def make_bundle(folder: Path, content: str) -> None:
    folder.mkdir()
    (folder / MANIFEST_NAME).write_text(content)


def test_a_bundle_takes_the_place_of_the_previous_one(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    make_bundle(target, "old")
    (target / "left.over").write_text("old")
    with staged(target) as folder:
        (folder / MANIFEST_NAME).write_text("new")
        assert (target / MANIFEST_NAME).read_text() == "old"
    assert [path.name for path in target.iterdir()] == [MANIFEST_NAME]
    assert (target / MANIFEST_NAME).read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o777 & ~mask


def test_an_error_leaves_the_previous_bundle(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    make_bundle(target, "old")

    def fail() -> None:
        with staged(target) as folder:
            (folder / MANIFEST_NAME).write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (target / MANIFEST_NAME).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_empty_folder_may_be_taken_and_new_parents_are_made(tmp_path: Path) -> None:
    for target in (tmp_path / "empty", tmp_path / "deep" / "down"):
        if target.name == "empty":
            target.mkdir()
        with staged(target) as folder:
            (folder / MANIFEST_NAME).write_text("new")
        assert (target / MANIFEST_NAME).read_text() == "new"


def test_a_folder_that_is_not_a_bundle_is_never_changed(tmp_path: Path) -> None:
    target = tmp_path / "photos"
    target.mkdir()
    (target / "cat.jpg").write_text("precious")
    with (
        pytest.raises(ConfigurationError, match="not a bundle"),
        staged(target),
    ):
        pytest.fail("never reached")
    assert (target / "cat.jpg").read_text() == "precious"
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="not a folder"), staged(tmp_path / "file"):
        pytest.fail("never reached")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(ConfigurationError, match="link to"):
        check_destination(tmp_path / "link")


@pytest.mark.parametrize("name", [".", "..", "../../bundle", "absolute"])
def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "bundle" / "onnx").mkdir(parents=True)
    (tmp_path / "bundle" / MANIFEST_NAME).write_text("old")
    inner = tmp_path / "bundle" / "onnx"
    monkeypatch.chdir(inner)
    output = inner if name == "absolute" else Path(name)
    with pytest.raises(ConfigurationError, match="current folder"):
        check_destination(output)
    check_destination(Path("new"))


def test_files_that_appear_during_the_build_stay(tmp_path: Path) -> None:
    target = tmp_path / "bundle"

    def build() -> None:
        with staged(target) as folder:
            (folder / MANIFEST_NAME).write_text("new")
            target.mkdir()
            (target / "cat.jpg").write_text("precious")

    with pytest.raises(ConfigurationError, match="not a bundle"):
        build()
    assert (target / "cat.jpg").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_next_build_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    target = tmp_path / "bu[n]dle"
    make_bundle(target, "old")
    program = (
        "import sys, os, signal\nfrom pathlib import Path\nfrom align_runtime.bundle_writing import staged\n"
        "with staged(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'align.json').write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert killed.returncode == -9
    assert (target / MANIFEST_NAME).read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    with staged(target) as folder:
        (folder / MANIFEST_NAME).write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert (target / MANIFEST_NAME).read_text() == "new"


REPLACE = """
import itertools, sys
from pathlib import Path
from align_runtime.bundle_writing import staged
for generation in itertools.count():
    with staged(Path(sys.argv[1])) as folder:
        for number in range(20):
            (folder / f"{number}.txt").write_text(f"{generation:09d}")
        (folder / "align.json").write_text(f"{generation:09d}")
    print(generation, flush=True)
"""


def test_a_bundle_is_complete_when_the_replacement_is_killed(tmp_path: Path) -> None:
    """It is the previous or the new one: never missing, never a mixture."""
    target, generations = tmp_path / "bundle", set()
    draw = random.Random(0)
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", REPLACE, str(target)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # the first one is complete
        time.sleep(draw.uniform(0, 0.15))
        process.kill()
        process.communicate()
        contents = {path.name: path.read_text() for path in target.iterdir()}
        assert len(contents) == 21
        assert len(set(contents.values())) == 1
        generations |= set(contents.values())
    assert len(generations) > 2  # the kills happened while bundles were being replaced


def test_a_parallel_build_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with staged(target) as first:
        with staged(target) as second:
            (second / MANIFEST_NAME).write_text("second")
        assert first.is_dir()
        (first / MANIFEST_NAME).write_text("first")
    assert (target / MANIFEST_NAME).read_text() == "first"
