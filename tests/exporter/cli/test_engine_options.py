"""The options for engines: what is understood, and what is refused before anything is built."""

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
    return engine_request(parser.parse_args(arguments))


def test_none_without_the_option() -> None:
    assert request() is None


def test_what_is_chosen_is_taken() -> None:
    assert request("--engine") == EngineRequest()
    chosen = request(
        "--engine", "--engine-variants", "fp16,int8", "--profile", "batch=2,4", "seq=16,64", "--engine-level", "5",
        "--engine-workspace", "2", "--engine-hardware", "ampere_plus", "--engine-version-compatible",
        "--engine-without-lean-runtime",
    )  # fmt: skip
    options = EngineOptions(5, 2 << 20, "ampere_plus", version_compatible=True, without_lean_runtime=True)
    assert chosen == EngineRequest(("fp16", "int8"), (2, 4), (16, 64), options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "batch=2"], "do nothing without --engine"),
        (["--engine-level", "1"], "do nothing without --engine"),
        (["--engine", "--engine-level", "6"], "--engine-level is 6; 0 to 5"),
        (["--engine", "--engine-workspace", "0"], "--engine-workspace is 0"),
        (["--engine", "--engine-without-lean-runtime"], "add --engine-version-compatible"),
        (["--engine", "--profile", "batch=8,1"], "--profile has 'batch=8,1'"),
        (["--engine", "--profile", "batch=0"], "--profile has 'batch=0'"),
        (["--engine", "--profile", "batch=1", "batch=2"], "--profile has 'batch=2'"),
        (["--engine", "--profile", "height=8"], "--profile has 'height=8'"),
        (["--engine", "--profile", "checkpoint"], "--profile has 'checkpoint'"),
        (["--engine", "--profile", "seq=a"], "--profile has 'seq=a'"),
    ],
)
def test_what_is_not_understood_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
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
        with pytest.raises(ConfigurationError, match=f"longest text has {longest} tokens; let it end"):
            profiles_of(text, EngineRequest(lengths=lengths), longest)
