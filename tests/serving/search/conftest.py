"""Embeddings of the demo images and of captions, and searches in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align_serving.embed import command as embed_command
from align_serving.search import command

pytest.importorskip("faiss")

ROOT = Path(__file__).parents[3]
CAPTIONS = ("a photo of a green heart", "a photo of a white star", "a handwritten three", "a photo of a red heart")

Search = Callable[..., int]


@pytest.fixture(scope="session")
def embedded(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos``, ``captions.txt``, and embeddings of both in ``images`` and ``texts``."""
    folder = tmp_path_factory.mktemp("search")
    shutil.copytree(ROOT / "reference/align-tiny/demo", folder / "photos")
    (folder / "captions.txt").write_text("\n".join(CAPTIONS) + "\n", encoding="utf-8")
    for source, output in (("photos", "images"), ("captions.txt", "texts")):
        arguments = [tiny_bundle, folder / source, "-o", folder / output, "--threads", 1, "--quiet", "--shard-items", 3]
        assert embed_command.main([str(argument) for argument in arguments]) == 0
    return folder


@pytest.fixture
def folders(embedded: Path, tmp_path: Path) -> Path:
    """A copy of the outputs, without an index, that a test may change; the inputs are those of `embedded`."""
    for name in ("images", "texts"):
        shutil.copytree(embedded / name, tmp_path / name, ignore=shutil.ignore_patterns("index-*"))
    return tmp_path


@pytest.fixture
def search(tiny_bundle: Path) -> Search:
    """align-search with align-tiny in this process: subcommand, folders and options to the exit code."""

    def call(subcommand: str, *arguments: Any) -> int:
        return command.main([subcommand, str(tiny_bundle), *map(str, arguments), "--quiet"])

    return call
