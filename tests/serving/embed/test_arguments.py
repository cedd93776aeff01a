"""Options of align-embed that do not go together, or need a package that is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Embed = Callable[..., int]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray", "here"], "argument --ray: expected auto or host:port, got 'here'; put --ray behind the inputs"),
        (["--actors", 2], "--actors is for --ray; give both, or leave it out"),
        (["--gpus", 1], "--gpus is for --ray; give both, or leave it out"),
        (["--ray", "--gpus", 1], "--gpus is for a device that is a GPU, not for cpu; say --device cuda"),
        (["--ray", "--gpus", "1.5"], "expected an integer, or a number between 0 and 1, got '1.5'"),
        (["--ray", "--gpus", "nan"], "expected an integer, or a number between 0 and 1, got 'nan'"),
        (["--ray", "--device", "auto"], "with --ray the nodes choose the GPU, so --device cannot be auto"),
        (["--ray", "--device", "cuda:1"], "with --ray the nodes choose the GPU, so --device cannot be cuda:1"),
    ],
)
def test_options_of_ray(
    options: list[Any], message: str, embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert embed([tmp_path / "a.txt"], tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ray_is_needed_for_a_cluster_alone(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "align_serving.embed.cluster", raising=False)
    assert embed([tmp_path / "a.txt"], tmp_path / "out", "--ray") == 2
    assert "install it with: pip install 'align-onnx[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert embed([tmp_path / "a.txt"], tmp_path / "out") == 0
