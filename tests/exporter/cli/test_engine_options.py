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


def test_engines_of_rtx_have_one_profile_for_all_shapes() -> None:
    ranges = EngineOptions(ranges=True)
    default = EngineRequest(options=ranges, runtime="rtx", capabilities=("8.6", "8.9", "12.0"))
    assert request("--engine", "--engine-runtime", "rtx") == default
    chosen = request(
        "--engine", "--engine-runtime", "rtx", "--engine-variants", "fp16", "--engine-compute-capability", "7.5,12.1",
        "--engine-profile", "batch=1:1:4", "seq=8:16:64",
    )  # fmt: skip
    assert chosen == EngineRequest(("fp16",), (1, 1, 4), (8, 16, 64), ranges, "rtx", ("7.5", "12.1"))
    shapes = request("--engine", "--engine-runtime", "rtx", "--engine-profile", "batch=1,4")
    assert shapes == EngineRequest(batches=(1, 4), runtime="rtx", capabilities=default.capabilities)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--engine-runtime", "rtx"], "without --engine"),
        (["--engine", "--engine-compute-capability", "8.9"], "add --engine-runtime rtx"),
        (["--engine", "--engine-profile", "batch=1:8:32"], "with --engine-runtime rtx"),
        (["--engine", "--engine-runtime", "rtx", "--engine-level", "5"], "--engine-level has no effect"),
        (["--engine", "--engine-runtime", "rtx", "--engine-workspace", "1"], "--engine-workspace has no effect"),
        (["--engine", "--engine-runtime", "rtx", "--engine-version-compatible"], "version-compatible has no effect"),
        (["--engine", "--engine-runtime", "rtx", "--engine-compute-capability", "9.0"], "'9.0'; expected some of 7.5"),
        (["--engine", "--engine-runtime", "rtx", "--engine-compute-capability", "8.9,8.6"], "ascending"),
        (["--engine", "--engine-runtime", "rtx", "--engine-compute-capability", "7.5"], "fp16,int8, or leave 7.5 out"),
        (["--engine", "--engine-runtime", "rtx", "--engine-profile", "batch=1:8"], "got 'batch=1:8'"),
        (["--engine", "--engine-runtime", "rtx", "--engine-profile", "batch=8:1:9"], "got 'batch=8:1:9'"),
        (["--engine", "--engine-runtime", "rtx", "--engine-profile", "batch=1:8:9", "seq=8,16"], "ranges alone"),
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


def test_a_range_has_three_shapes(tiny_bundle: Path) -> None:
    """The least, the most frequent and the largest; of a text the middle one of the lengths up to the longest."""
    bundle = Bundle.open(tiny_bundle)
    longest = bundle.manifest.model.max_length
    text, vision = (bundle.graph(tower, "fp32", "tensorrt") for tower in ("text", "vision"))
    wanted = EngineRequest(batches=(1, 8, 32), options=EngineOptions(ranges=True))
    assert [shapes["input_ids"] for shapes in profiles_of(text, wanted, longest)] == [(1, 8), (8, 16), (32, longest)]
    assert [shapes["pixels"][0] for shapes in profiles_of(vision, wanted, longest)] == [1, 8, 32]


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
