"""The engine options of align-export: what they mean, and what is refused before anything is built."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from align_exporter.cli.engine_options import add_engine_options, engine_request
from align_exporter.engine.request import EngineRequest, profiles_of
from align_runtime.bundle import Bundle
from align_runtime.engines import EngineOptions
from align_runtime.errors import ConfigurationError


def request(*arguments: str) -> EngineRequest | None:
    parser = argparse.ArgumentParser()
    add_engine_options(parser)
    return engine_request(parser.parse_args(arguments), exported=("fp32", "fp16", "int8"))


def test_without_the_option_no_engine_is_requested() -> None:
    assert request() is None


def test_every_option_reaches_the_request() -> None:
    assert request("--engine") == EngineRequest()
    chosen = request(
        "--engine", "--engine-variants", "fp16,int8", "--engine-profile", "batch=2,4", "seq=16,64",
        "--engine-level", "5",
        "--engine-workspace", "2", "--engine-hardware", "ampere_plus", "--engine-version-compatible",
        "--engine-without-lean-runtime",
    )  # fmt: skip
    options = EngineOptions(5, 2 << 20, "ampere_plus", version_compatible=True, without_lean_runtime=True)
    assert chosen == EngineRequest(("fp16", "int8"), (2, 4), (16, 64), options)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--engine-profile", "batch=2"], "without --engine"),
        (["--engine-level", "1"], "without --engine"),
        (["--engine", "--engine-level", "6"], "got 6"),
        (["--engine", "--engine-workspace", "0"], "got 0"),
        (["--engine", "--engine-without-lean-runtime"], "--engine-version-compatible"),
        (["--engine", "--engine-variants", "fp16,int4"], "'int4'"),
        (["--engine", "--engine-profile", "batch=8,1"], "got 'batch=8,1'"),
        (["--engine", "--engine-profile", "batch=0"], "got 'batch=0'"),
        (["--engine", "--engine-profile", "batch=1", "batch=2"], "got 'batch=2'"),
        (["--engine", "--engine-profile", "height=8"], "got 'height=8'"),
        (["--engine", "--engine-profile", "checkpoint"], "got 'checkpoint'"),
        (["--engine", "--engine-profile", "seq=a"], "got 'seq=a'"),
    ],
)
def test_a_wrong_option_is_refused(arguments: list[str], value: str) -> None:
    with pytest.raises(ConfigurationError, match=value):
        request(*arguments)


def test_profiles_are_all_batches_and_lengths(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    longest = bundle.manifest.model.max_length
    text, vision = (bundle.graph(tower, "fp32", "tensorrt") for tower in ("text", "vision"))
    wanted = EngineRequest(batches=(1, 4), lengths=(8, longest))
    assert [shapes["input_ids"] for shapes in profiles_of(text, wanted, longest)] == [
        (1, 8), (1, longest), (4, 8), (4, longest),
    ]  # fmt: skip
    assert [shapes["pixels"][0] for shapes in profiles_of(vision, wanted, longest)] == [1, 4]
    for lengths in ((8, 16), (8, longest + 1)):
        with pytest.raises(ConfigurationError, match=f"seq=…,{longest}"):
            profiles_of(text, EngineRequest(lengths=lengths), longest)
