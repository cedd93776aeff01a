"""Repositories of align-tiny, and one real server for all tests that ask it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from align_runtime import Bundle, golden
from align_runtime.golden import Golden
from align_serving.triton.command import main
from support.triton_server import MISSING, TritonServer, running
from support.triton_shim import onto_python


@pytest.fixture(scope="session")
def golden_rows(tiny_bundle: Path) -> Golden:
    return golden.read(Bundle.open(tiny_bundle))


@pytest.fixture(scope="session")
def string_repository(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of the Python backend, which the server's tests add versions to."""
    folder = tmp_path_factory.mktemp("triton") / "strings"
    assert main([str(tiny_bundle), str(folder), "--threads", "1", "--quiet"]) == 0
    return folder


@pytest.fixture(scope="session")
def graph_repository(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of the ONNX Runtime backend. Read only."""
    folder = tmp_path_factory.mktemp("triton") / "graphs"
    assert main([str(tiny_bundle), str(folder), "--backend", "onnxruntime", "--quiet"]) == 0
    return folder


@pytest.fixture(scope="session")
def server(
    string_repository: Path, graph_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    """A server of both; it has no ONNX Runtime backend, so that graphs run behind `support.triton_shim`."""
    if MISSING:
        pytest.skip(MISSING)
    folder = tmp_path_factory.mktemp("server")
    shims = onto_python(graph_repository, folder / "shims")
    options = ("--model-control-mode=explicit", "--load-model=*")
    with running([string_repository, shims], folder / "log", *options) as started:
        yield started
