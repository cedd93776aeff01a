"""Paths as a user writes them, and what becomes of relative ones when the process changes its folder."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

import align_runtime
from align_runtime import Bundle, BundleError
from align_runtime.bundle_writing import check_destination
from align_runtime.commands import classify, inspect
from align_runtime.user_path import user_path

USER = pwd.getpwuid(os.getuid())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def test_home_folders(home: Path) -> None:
    assert user_path("~") == home
    assert user_path("~/a/b") == home / "a/b"
    assert user_path(f"~{USER.pw_name}/a") == Path(USER.pw_dir) / "a"
    for literal in ("a/~/b", "./~", "./~/a", "~nobody-has-this-name/a", "~backup.jpg", "~\0", "", "a~"):
        assert user_path(literal) == Path(literal)


def test_a_file_with_that_name_wins(home: Path) -> None:
    for name in (f"~{USER.pw_name}", "~"):
        Path(name).touch()
        assert user_path(name) == Path(name)
    Path("~").unlink()
    Path("~").mkdir()
    Path("~/a").touch()
    assert user_path("~/a") == Path("~/a")
    assert user_path("~/b") == home / "b"


def test_a_bundle_in_the_home_folder(
    home: Path, tiny_bundle: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "bundle").symlink_to(tiny_bundle)
    (home / "images").symlink_to(tiny_checkpoint / "demo")
    (home / "labels.txt").write_text("white star\ngreen heart\n")
    assert Bundle.open("~/bundle").folder == home / "bundle"
    assert Bundle.open(Path("~/bundle")).folder == home / "bundle"
    align_runtime.load("~/bundle", towers=("text",)).close()
    assert inspect.main(["~/bundle"]) == 0
    assert classify.main(["~/bundle", "~/images/white-star.jpg", "--labels-file=~/labels.txt"]) == 0
    assert capsys.readouterr().err == ""


def test_files_are_found_after_a_change_of_folder(
    home: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("bundle").symlink_to(tiny_bundle)
    bundle = Bundle.open("bundle")
    with align_runtime.load("bundle", towers=("text",)) as model:
        monkeypatch.chdir(home)
        assert bundle.check_hash("tokenizer.json").is_file()
        assert bundle.graph_file(bundle.graph("text", "fp32", "cpu")).is_file()
        assert model.embed_texts(["a cat"]).shape[0] == 1
        assert model._parts.bundle.check_hash("config.json").is_file()


@pytest.mark.parametrize(
    "name", ["x" * 5000, "a/" * 3000, f"{'x' * 300}/b", "a\0b", "a\0/b", "~\0", "", "\udce9", "a/b/c"]
)
@pytest.mark.parametrize("opens", [Bundle.open, align_runtime.load])
def test_paths_that_no_file_can_have(home: Path, opens: Callable[[str], object], name: str) -> None:
    with pytest.raises(BundleError):
        opens(name)


def test_a_current_folder_that_was_removed(home: Path) -> None:
    Path.cwd().rmdir()
    with pytest.raises(BundleError, match="No such file or directory"):
        Bundle.open("bundle")
    check_destination(home / "bundle")
