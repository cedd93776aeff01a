"""Fixtures of the tests of bulk embedding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align_serving.embed import command

Embed = Callable[..., int]


@pytest.fixture
def embed(tiny_bundle: Path) -> Embed:
    """align-embed with align-tiny in this process: inputs, output and options to the exit code."""

    def call(inputs: list[Any], output: Path, *options: Any) -> int:
        arguments = [tiny_bundle, *inputs, "-o", output, "--threads", 1, "--quiet", *options]
        return command.main([str(argument) for argument in arguments])

    return call
