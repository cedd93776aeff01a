"""Where a calibration is kept: the user's cache, a folder of their choice, or nowhere."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from align_exporter.cli.cache_options import add_cache_options, calibration_cache
from align_runtime.errors import ConfigurationError


def chosen(*arguments: str) -> Path | None:
    parser = argparse.ArgumentParser()
    group = parser.add_argument_group("INT8")
    group.add_argument("--int8", action="store_true")
    add_cache_options(group)
    return calibration_cache(parser.parse_args(arguments))


def test_the_default_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert chosen("--int8") == tmp_path / "xdg" / "align-onnx" / "calibration"
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert chosen("--int8") == tmp_path / "home" / ".cache" / "align-onnx" / "calibration"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert chosen("--int8") == tmp_path / "home" / ".cache" / "align-onnx" / "calibration"
    assert list(tmp_path.iterdir()) == []  # nothing is created by choosing


def test_a_folder_or_none(tmp_path: Path) -> None:
    assert chosen("--int8", "--calibration-cache", str(tmp_path / "new")) == tmp_path / "new"
    assert chosen("--int8", "--no-calibration-cache") is None
    assert chosen() is None


@pytest.mark.parametrize("arguments", [["--calibration-cache", "x"], ["--no-calibration-cache"]])
def test_without_int8_they_do_nothing(arguments: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="do nothing without --int8"):
        chosen(*arguments)


def test_one_of_them_only() -> None:
    with pytest.raises(SystemExit):
        chosen("--int8", "--no-calibration-cache", "--calibration-cache", "x")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigurationError, match=r"--calibration-cache is .*file, which is a file"):
        chosen("--int8", "--calibration-cache", str(file))


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigurationError, match="no home folder to keep a calibration cache in; name one"):
        chosen("--int8")
    assert chosen("--int8", "--no-calibration-cache") is None
