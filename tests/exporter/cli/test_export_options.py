"""The options for INT8, the calibration cache among them: the user's cache, a folder of their choice, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from align_exporter.cli.options import add_options, read_options
from align_exporter.command import _asked_for
from align_exporter.export_options import ExportOptions
from align_runtime.console import CommandParser
from align_runtime.errors import ConfigurationError


def read(*arguments: str) -> ExportOptions:
    parser = CommandParser("align-export")
    add_options(parser)
    return read_options(parser.parse_args(["checkpoint", "-o", "bundle", *arguments]))


def cache(*arguments: str) -> Path | None:
    return read(*arguments).calibration_cache


def test_the_default_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache("--int8") == tmp_path / "xdg" / "align-onnx" / "calibration"
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache("--int8") == tmp_path / "home" / ".cache" / "align-onnx" / "calibration"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache("--int8") == tmp_path / "home" / ".cache" / "align-onnx" / "calibration"
    assert list(tmp_path.iterdir()) == []  # reading options creates nothing


def test_a_folder_or_none(tmp_path: Path) -> None:
    assert cache("--int8", "--calibration-cache", str(tmp_path / "new")) == tmp_path / "new"
    assert cache("--int8", "--no-calibration-cache") is None
    assert cache() is None


def test_one_of_them_only() -> None:
    with pytest.raises(ConfigurationError, match="not allowed with"):
        cache("--int8", "--no-calibration-cache", "--calibration-cache", "x")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigurationError, match="--calibration-cache"):
        cache("--int8", "--calibration-cache", str(file))


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigurationError, match="--no-calibration-cache"):
        cache("--int8")
    assert cache("--int8", "--no-calibration-cache") is None


@pytest.mark.parametrize(("device", "targets"), [("all", {"cpu", "gpu"}), ("cpu", {"cpu"}), ("gpu", {"gpu"})])
def test_the_device_chooses_rows_of_the_table(device: str, targets: set[str]) -> None:
    rows = read("--int8", "--int8-device", device, "--no-calibration-cache").variants
    assert {row.target for row in rows} == targets


@pytest.mark.parametrize(
    "arguments",
    [
        ["--require-faster"],
        ["--int8-min-cosine", "0.9"],
        ["--int8-min-agreement", "0.9"],
        ["--int8-device", "cpu"],
        ["--calibration-cache", "x"],
        ["--no-calibration-cache"],
    ],
)
def test_without_int8_they_have_no_effect_which_is_an_error(arguments: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=f"{arguments[0]} has no effect without --int8"):
        read(*arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--int8", "--opset", "18"], "--opset 19"),
        (["--int8", "--int8-min-cosine", "1.5"], "--int8-min-cosine"),
        (["--int8", "--int8-min-agreement", "nan"], "--int8-min-agreement"),
        (["--int8", "--int8-min-cosine", "0.9"], "--calibration-images"),
        (["--int8", "--int8-device", "gpu", "--require-faster"], "--require-faster"),
        (["--int8", "--int8-device", "cpu", "--fp16-keep", "*"], "--fp16-keep"),
        (["--calibration-images", "x"], "--calibration-images has no effect without --fp16 or --int8"),
        (["--calibration-captions", "x.txt"], "--calibration-captions has no effect without --fp16 or --int8"),
        (["--fp16", "--alpha", "white"], "--alpha, --formats and --max-pixels have no effect"),
        (["--fp16", "--alpha", "whitish"], "alpha is 'whitish'"),
        (["--int8", "--int8-device", "cpu", "--calibration-captions", "x.txt"], "for TensorRT or a target"),
        (["--int8", "--calibration-images", "gone"], "gone not found"),
        (["--int8", "--max-calibration-samples", "3"], "--calibration-images"),
        (["--dump-graph", "traced", "gone/graph.onnx"], "--dump-graph"),
        (["--dump-graph", "middle", "graph.onnx"], "traced or final"),
        (["--parity-max-abs", "fp16=1"], "--parity-max-abs"),
        (["--fp16", "--parity-min-cosine", "int8=1"], "fp32 or fp16"),
        (["--parity-max-abs", "much"], "'much'"),
        (["--parity-max-abs", "inf"], "'inf'"),
        (["--fp16-headroom", "2"], "--fp16-headroom"),
        (["--fp16", "--fp16-headroom", "0.5"], "0.5"),
    ],
)
def test_wrong_values_and_combinations_name_the_option(arguments: list[str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "reason"),
    [([], None), (["--force"], "--force"), (["--dump-graph", "final", "graph.onnx"], "--dump-graph")],
)
def test_what_builds_a_bundle_that_is_up_to_date(given: list[str], reason: str | None) -> None:
    parser = CommandParser("align-export")
    add_options(parser)
    assert _asked_for(parser.parse_args(["checkpoint", "-o", "bundle", *given])) == reason
