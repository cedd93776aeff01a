"""Contract: engines run on TensorRT for RTX through the names of its real bindings, which no GPU has confirmed yet."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import align_runtime
from align_exporter.engine.request import EngineRequest, profiles_of
from align_runtime import Model
from align_runtime.backends.runner import STAGES, StagedRunner
from align_runtime.bundle import Bundle
from align_runtime.commands import verify
from align_runtime.engine_files import put_engine
from align_runtime.engine_targets import DEFAULT_CAPABILITIES, RtxTarget
from align_runtime.engines import EngineEntry, EngineOptions, shape_ranges, source_of
from align_runtime.errors import AlignError, BackendUnavailableError, BundleError, DeviceError
from align_runtime.golden import Golden
from support.gpu_doubles import CLOSE, GpuDoubles, installed
from support.rtx import rtx_request

VERSION = "1.7.1.116"
L4 = (b"NVIDIA L4", 8, 9)


def put_double(folder: Path, tower: str, request: EngineRequest, **target: Any) -> Path:
    """Writes an FP16 engine of the double into the bundle `folder`; returns its plan."""
    bundle = Bundle.open(folder)
    graph = bundle.graph(tower, "fp16", "tensorrt-rtx")
    options, profiles = request.options, profiles_of(graph, request, bundle.manifest.model.max_length)
    built = [
        {name: [list(shapes[name]) for shapes in limits] for name in limits[0]}
        for limits in shape_ranges(profiles, options)
    ]
    content = {"graph": str(folder / graph.file), "profiles": built, "version": VERSION, "host_code": False}
    plan = json.dumps({**content, "scaled": 1.0}).encode()
    machine = RtxTarget(**{"compute_capabilities": DEFAULT_CAPABILITIES, "tensorrt": VERSION, **target})
    file = f"engines/{tower}_fp16.{machine.place}.plan"
    facts = {"bytes": len(plan), "sha256": hashlib.sha256(plan).hexdigest(), "seconds": 1.0}
    entry = EngineEntry(
        tower, "fp16", source_of(bundle, graph), file, **facts, machine=machine, options=options, profiles=profiles,
        products={"float16": 1}, parity=None, limits=graph.limits,
    )  # fmt: skip
    put_engine(folder, entry, plan)
    return folder / file


@pytest.fixture
def bundle(tiny_fp16_bundle: Path, tmp_path: Path) -> Path:
    """align-tiny with FP16 engines of the double for a range of shapes."""
    folder = Path(shutil.copytree(tiny_fp16_bundle, tmp_path / "bundle"))
    for tower in ("vision", "text"):
        put_double(folder, tower, rtx_request("fp16"))
    return folder


@pytest.fixture
def doubles() -> Iterator[GpuDoubles]:
    with installed("tensorrt_rtx-1") as made:
        made.cuda.gpus = (L4,)
        yield made


def open_rtx(folder: Path) -> Model:
    return align_runtime.load(folder, precision="fp16", device="tensorrt-rtx")


@pytest.mark.parametrize("ranges", [True, False])
def test_contract_rtx_embeds_as_the_cpu_does(
    bundle: Path, doubles: GpuDoubles, answers: Golden, expected: tuple[np.ndarray, np.ndarray], ranges: bool
) -> None:
    """In every number of rows, with one profile for all shapes and with one for each."""
    if not ranges:
        request = EngineRequest(("fp16",), (1, 4), (8, 32), EngineOptions(), "rtx", DEFAULT_CAPABILITIES)
        for tower in ("vision", "text"):
            put_double(bundle, tower, request)
    with open_rtx(bundle) as model:
        for rows in (1, 2, 5, len(answers.pixels), 1):
            np.testing.assert_allclose(model.embed_pixels(answers.pixels[:rows]), expected[1][:rows], atol=CLOSE)
            np.testing.assert_allclose(model.embed_texts(answers.texts[:rows]), expected[0][:rows], atol=CLOSE)
    assert doubles.cuda.calls["cudaStreamBeginCapture"] == 0  # the library captures


def test_contract_rtx_verify_takes_the_device(bundle: Path, doubles: GpuDoubles) -> None:
    assert verify.main([str(bundle), "--device", "tensorrt-rtx", "--precision", "fp16", "--quiet"]) == 0


def test_contract_rtx_keeps_what_was_compiled(bundle: Path, doubles: GpuDoubles, answers: Golden) -> None:
    """Each shape is compiled once, for both lanes; the next start compiles none, that of another GPU all of them."""
    sizes = 6  # of batches from 1 to 32: powers of two
    with align_runtime.load(bundle, precision="fp16", device="tensorrt-rtx", towers=("vision",)) as model:
        model.warmup()
        assert doubles.tensorrt.compiled == sizes
    (kept,) = (bundle / "engines").glob("*.compiled")
    assert kept.name == f"vision_fp16.rtx-sm86-sm89-sm120.{VERSION}.nvidia-l4.cuda13.0.compiled"
    with align_runtime.load(bundle, precision="fp16", device="tensorrt-rtx", towers=("vision",)) as model:
        model.warmup()
    assert doubles.tensorrt.compiled == sizes
    doubles.cuda.gpus = ((b"NVIDIA A10", 8, 6),)
    with align_runtime.load(bundle, precision="fp16", device="tensorrt-rtx", towers=("vision",)) as model:
        model.warmup()
    assert doubles.tensorrt.compiled == 2 * sizes
    assert len(list((bundle / "engines").glob("*.compiled"))) == 2
    put_double(bundle, "vision", rtx_request("fp16"))
    assert not list((bundle / "engines").glob("*.compiled"))


@pytest.mark.parametrize("content", [b"of another GPU", None], ids=["refused", "a link"])
def test_contract_rtx_compiles_again_what_it_cannot_read(
    bundle: Path, doubles: GpuDoubles, answers: Golden, content: bytes | None, tmp_path: Path
) -> None:
    place = bundle / f"engines/vision_fp16.rtx-sm86-sm89-sm120.{VERSION}.nvidia-l4.cuda13.0.compiled"
    if content is None:
        (tmp_path / "elsewhere").write_bytes(b"not ours")
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.write_bytes(content)
    with open_rtx(bundle) as model:
        model.embed_pixels(answers.pixels[:1])
    assert doubles.tensorrt.compiled == 1
    assert json.loads(place.read_bytes())["for"] == "NVIDIA L4"
    assert not place.is_symlink()
    assert content is not None or (tmp_path / "elsewhere").read_bytes() == b"not ours"


def test_contract_rtx_runs_without_a_place_for_what_was_compiled(
    bundle: Path,
    doubles: GpuDoubles,
    answers: Golden,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("align_runtime.backends.tensorrt.rtx.put_file", refuse)
    with open_rtx(bundle) as model:
        model.embed_pixels(answers.pixels[:1])
    assert "compiled kernels cannot be kept" in caplog.text


GPUS = [
    ((b"NVIDIA H100", 9, 0), r"does not run on compute capability 9\.0 \(NVIDIA H100\); use device='tensorrt'$"),
    ((b"NVIDIA B200", 10, 0), r"does not run on compute capability 10\.0 \(NVIDIA B200\); use device='tensorrt'$"),
    ((b"Tesla V100", 7, 0), r"needs compute capability 7\.5 or newer, Tesla V100 has 7\.0; use device='cuda'$"),
    ((b"NVIDIA T4", 7, 5), r"built for compute capability 8\.6, 8\.9, 12\.0 and newer, NVIDIA T4 has 7\.5.*rtx$"),
    ((b"NVIDIA A100", 8, 0), r"NVIDIA A100 has 8\.0"),
]


@pytest.mark.parametrize(("gpu", "message"), GPUS)
def test_contract_rtx_refuses_gpus_that_it_does_not_run_on(
    bundle: Path, doubles: GpuDoubles, gpu: tuple[bytes, int, int], message: str
) -> None:
    doubles.cuda.gpus = (gpu,)
    with pytest.raises(BackendUnavailableError, match=message):
        open_rtx(bundle)
    assert doubles.cuda.calls["cudaMalloc"] == 0


@pytest.mark.parametrize("gpu", [(b"NVIDIA A10", 8, 6), (b"RTX 5090", 12, 0), (b"DGX Spark", 12, 1)])
def test_contract_rtx_runs_on_listed_gpus_and_later_ones(
    bundle: Path, doubles: GpuDoubles, gpu: tuple[bytes, int, int]
) -> None:
    doubles.cuda.gpus = (gpu,)
    open_rtx(bundle).close()


def test_contract_rtx_prefers_the_engine_for_its_gpu(bundle: Path, doubles: GpuDoubles, answers: Golden) -> None:
    """That for Turing runs on an L4 too, and is first by name if it were not for that."""
    put_double(bundle, "vision", rtx_request("fp16"), compute_capabilities=("7.5",))
    with align_runtime.load(bundle, precision="fp16", device="tensorrt-rtx", towers=("vision",)) as model:
        model.embed_pixels(answers.pixels[:1])
    (kept,) = (bundle / "engines").glob("*.compiled")
    assert kept.name.startswith("vision_fp16.rtx-sm86")
    doubles.cuda.gpus = ((b"NVIDIA T4", 7, 5),)
    with align_runtime.load(bundle, precision="fp16", device="tensorrt-rtx", towers=("vision",)) as model:
        model.embed_pixels(answers.pixels[:1])
    assert list((bundle / "engines").glob("vision_fp16.rtx-sm75.*.nvidia-t4.*"))


def test_contract_rtx_refuses_engines_of_another_version(bundle: Path, doubles: GpuDoubles) -> None:
    for sidecar in (bundle / "engines").glob("*.json"):
        values = json.loads(sidecar.read_text())
        values["machine"]["tensorrt"] = "1.6.0.1"
        sidecar.write_text(json.dumps(values))
    with pytest.raises(BackendUnavailableError, match=r"needs TensorRT for RTX 1\.6\.0\.1, here is 1\.7\.1\.116"):
        open_rtx(bundle)


VERDICTS = [
    (("INVALID", 2, ""), BackendUnavailableError, "does not run on NVIDIA L4: it was not built for this compute cap"),
    (("INVALID", 5, ""), BackendUnavailableError, "another version of TensorRT for RTX and the driver is too old"),
    (("INVALID", 16, ""), BackendUnavailableError, "the GPU has too little memory"),
    (("INVALID", 32, ""), BundleError, "not an engine that this version reads; build one, on any machine: align-exp"),
    (("INVALID", 0, "no properties"), BackendUnavailableError, "NVIDIA L4: no properties; build one"),
]


@pytest.mark.parametrize(("verdict", "error", "message"), VERDICTS)
def test_contract_rtx_asks_before_it_loads(
    bundle: Path, doubles: GpuDoubles, verdict: tuple[str, int, str], error: type[AlignError], message: str
) -> None:
    doubles.tensorrt.validity = verdict
    with pytest.raises(error, match=message) as caught:
        open_rtx(bundle)
    assert len(str(caught.value)) <= 500
    assert doubles.cuda.calls["cudaMalloc"] == 0


def test_contract_rtx_says_when_an_engine_is_not_the_best(
    bundle: Path, doubles: GpuDoubles, caplog: pytest.LogCaptureFixture
) -> None:
    doubles.tensorrt.validity = ("SUBOPTIMAL", 2, "")
    open_rtx(bundle).close()
    assert "runs slower on NVIDIA L4 than it could: it was not built for this compute capability" in caplog.text


def test_contract_rtx_frees_everything_after_errors(
    bundle: Path, doubles: GpuDoubles, answers: Golden, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    doubles.tensorrt.no_contexts = True
    with open_rtx(bundle) as model:
        with pytest.raises(DeviceError, match="TensorRT for RTX gives no execution context: Out of memory"):
            model.embed_pixels(answers.pixels)
        doubles.tensorrt.no_contexts = False
        for function in ("cudaMemcpyAsync", "cudaStreamSynchronize"):
            doubles.cuda.failures = {function: (doubles.cuda.calls[function] + 1, "cudaErrorIllegalAddress")}
            with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
                model.embed_pixels(answers.pixels)
        np.testing.assert_allclose(model.embed_pixels(answers.pixels), expected[1], rtol=0, atol=CLOSE)


def test_contract_rtx_stages(bundle: Path, doubles: GpuDoubles, answers: Golden, expected: Any) -> None:
    """What `align-bench` asks for: the seconds of copies and of the computation."""
    with open_rtx(bundle) as model:
        found, seconds = _staged(model).run_staged({"pixels": answers.pixels})
    np.testing.assert_allclose(found, expected[1], rtol=0, atol=CLOSE)
    assert tuple(seconds) == STAGES


def _staged(model: Model) -> StagedRunner:
    runner = model._parts.images.tower._whole
    assert isinstance(runner, StagedRunner)
    return runner
