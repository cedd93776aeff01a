"""Contract: engines run in buckets and from many threads; every failure is reported and leaks nothing.

The double of the GPU runs work only when its stream is synchronized, checks every pointer and size, and knows what was
not freed (`support.gpu_doubles.installed` then fails).
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from align_exporter.engine.build import build_engines
from align_exporter.engine.request import EngineRequest
from align_exporter.engine.toolkits import open_toolkits
from align_runtime.backends.tensorrt.runner import LANES
from align_runtime.bundle import sha256_of
from align_runtime.commands import inspect, verify
from align_runtime.engines import EngineOptions
from align_runtime.errors import BackendUnavailableError, BundleError, ConfigurationError, DeviceError, InputError
from align_runtime.golden import Golden
from align_runtime.progress import Progress
from support.gpu_doubles import CLOSE, GpuDoubles, installed, open_model

QUIET = Progress(quiet=True)


def test_contract_embeddings_are_those_of_the_graph(
    engine_bundle: Path, doubles: GpuDoubles, answers: Golden, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    texts, images = expected
    with open_model(engine_bundle) as model:
        np.testing.assert_allclose(model.embed_texts(answers.texts), texts, rtol=0, atol=CLOSE)
        for count in (0, 1, 2, 4, 5, 7):  # buckets of 1 and 4
            embeds = model.embed_pixels(answers.pixels[:count])
            np.testing.assert_allclose(embeds, images[:count], rtol=0, atol=CLOSE)


def test_contract_warmup_captures_all_shapes_and_running_allocates_nothing(
    engine_bundle: Path, doubles: GpuDoubles, answers: Golden
) -> None:
    with open_model(engine_bundle) as model:
        model.warmup()
        calls = doubles.cuda.calls
        profiles = 2 + 2 * 3
        assert calls["cudaGraphInstantiate"] == LANES * profiles
        before = calls.copy()
        model.embed_texts(answers.texts)
        model.embed_pixels(answers.pixels)
        made = calls - before
        assert set(made) == {"cudaGetDevice", "cudaGraphLaunch", "cudaStreamSynchronize"}


def test_contract_large_inputs_use_several_lanes_at_once(
    engine_bundle: Path, doubles: GpuDoubles, answers: Golden
) -> None:
    with open_model(engine_bundle) as model:
        model.warmup()
        busy = []
        launch = doubles.cuda.cudaGraphLaunch

        def watched(**arguments: object) -> tuple[object, ...]:
            done = launch(**arguments)
            busy.append(sum(bool(stream.pending) for stream in doubles.cuda.streams.values()))
            return done

        doubles.cuda.cudaGraphLaunch = watched  # type: ignore[method-assign]
        model.embed_pixels(answers.pixels)
    assert max(busy) == LANES


def test_contract_threads_share_a_model(
    engine_bundle: Path, doubles: GpuDoubles, answers: Golden, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    failures: list[BaseException] = []
    with open_model(engine_bundle) as model:

        def work(seed: int) -> None:
            order = np.random.default_rng(seed).permutation(len(answers.pixels))
            try:
                for _ in range(3):
                    embeds = model.embed_pixels(answers.pixels[order])
                    np.testing.assert_allclose(embeds, expected[1][order], rtol=0, atol=CLOSE)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaHostAlloc"])
def test_contract_out_of_memory_is_reported_and_leaks_nothing(
    engine_bundle: Path, doubles: GpuDoubles, function: str
) -> None:
    with open_model(engine_bundle):
        pass
    for call in range(1, doubles.cuda.calls[function] + 1):
        doubles.cuda.calls.clear()
        doubles.cuda.failures = {function: (call, "cudaErrorMemoryAllocation")}
        with pytest.raises(DeviceError, match="out of memory"):
            open_model(engine_bundle)
        assert doubles.cuda.leaks() == {}


@pytest.mark.parametrize(
    "function",
    [
        "cudaMemcpyAsync", "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphLaunch",
        "cudaStreamSynchronize",
    ],
)  # fmt: skip
def test_contract_a_model_works_again_after_an_error(
    engine_bundle: Path, doubles: GpuDoubles, answers: Golden, expected: tuple[np.ndarray, np.ndarray], function: str
) -> None:
    with open_model(engine_bundle) as model:
        doubles.cuda.failures = {function: (doubles.cuda.calls[function] + 1, "cudaErrorIllegalAddress")}
        with pytest.raises(DeviceError, match=r"cudaErrorIllegalAddress \(error 700\)"):
            model.embed_pixels(answers.pixels[:1])
        np.testing.assert_allclose(model.embed_pixels(answers.pixels), expected[1], rtol=0, atol=CLOSE)


def test_contract_no_lane_returns_busy(engine_bundle: Path, doubles: GpuDoubles, answers: Golden) -> None:
    """The run on the first lane fails while the second one computes."""
    with open_model(engine_bundle) as model:
        model.warmup()
        done = doubles.cuda.calls["cudaStreamSynchronize"]
        doubles.cuda.failures = {"cudaStreamSynchronize": (done + 1, "cudaErrorIllegalAddress")}
        with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
            model.embed_pixels(answers.pixels)
        assert doubles.cuda.calls["cudaGraphLaunch"] > 1
        assert not any(stream.pending for stream in doubles.cuda.streams.values())


def test_contract_a_gpu_that_fails_until_close_leaks_nothing(
    engine_bundle: Path, doubles: GpuDoubles, answers: Golden
) -> None:
    model = open_model(engine_bundle)
    model.embed_pixels(answers.pixels)
    doubles.cuda.failures = {
        "cudaStreamSynchronize": (doubles.cuda.calls["cudaStreamSynchronize"] + 1, "cudaErrorIllegalAddress")
    }
    with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
        model._parts.images.tower.close()
    model._parts.texts.tower.close()


def test_contract_a_missing_execution_context_is_reported(
    engine_bundle: Path, doubles: GpuDoubles, answers: Golden
) -> None:
    doubles.tensorrt.no_contexts = True
    with open_model(engine_bundle) as model:
        with pytest.raises(DeviceError, match="execution context: Out of memory"):
            model.embed_pixels(answers.pixels)
        doubles.tensorrt.no_contexts = False
        assert model.embed_pixels(answers.pixels).shape == answers.image_embeds.shape


def test_contract_a_closed_model_refuses_to_run(engine_bundle: Path, doubles: GpuDoubles, answers: Golden) -> None:
    model = open_model(engine_bundle)
    tower = model._parts.images.tower
    model.close()
    model.close()
    with pytest.raises(ConfigurationError, match="closed"):
        tower.run({"pixels": answers.pixels})


def test_contract_wrong_inputs_are_refused(engine_bundle: Path, doubles: GpuDoubles, answers: Golden) -> None:
    ids, mask = answers.input_ids, answers.attention_mask
    with open_model(engine_bundle) as model:
        text, vision = model._parts.texts.tower, model._parts.images.tower
        with pytest.raises(InputError, match="pixels.*float32.*uint8"):
            vision.run({"pixels": answers.pixels.astype(np.float32)})
        with pytest.raises(InputError, match="attention_mask"):
            text.run({"input_ids": ids})
        with pytest.raises(InputError, match=r"attention_mask.*, 4\).*32"):
            text.run({"input_ids": ids, "attention_mask": mask[:, :4]})
        with pytest.raises(InputError, match="64 tokens.*32"):
            text.run({"input_ids": np.tile(ids, 2), "attention_mask": np.tile(mask, 2)})


def test_contract_verify_runs_the_engines(
    engine_bundle: Path, doubles: GpuDoubles, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify.main([str(engine_bundle), "--device", "tensorrt", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [(check["tower"], check["variant"]) for check in result["checks"]] == [
        ("vision", "fp32"), ("vision", "fp16"), ("text", "fp32"), ("text", "fp16"),
    ]  # fmt: skip


# Machine and options in the description of an engine, and what the error must name.
OBSTACLES = [
    ({"tensorrt": "11.3.0.1"}, {}, r"TensorRT 11\.3\.0\.1.*11\.4\.0\.106"),
    ({"tensorrt": "11.5.0.1"}, {"version_compatible": True}, r"TensorRT 11\.5\.0\.1 or newer.*11\.4"),
    ({"compute_capability": "8.6"}, {}, r"capability 8\.6.*9\.0"),
    ({"compute_capability": "8.6"}, {"hardware": "same_compute_capability"}, r"capability 8\.6"),
    ({"gpu": "NVIDIA H200"}, {}, "NVIDIA H200.*NVIDIA Double 80GB"),
    ({"driver": "14.1"}, {}, r"CUDA 14.*13\.0"),
]
ALLOWED = [
    ({"driver": "13.2"}, {}),
    ({"gpu": "NVIDIA H200"}, {"hardware": "same_compute_capability"}),
    ({"compute_capability": "8.6", "gpu": "NVIDIA A10"}, {"hardware": "ampere_plus"}),
]


def describe(folder: Path, machine: dict[str, str], options: dict[str, object]) -> None:
    for sidecar in (folder / "engines").glob("*.json"):
        values = json.loads(sidecar.read_text())
        values["machine"] |= machine
        values["options"] |= options
        sidecar.write_text(json.dumps(values))


@pytest.mark.parametrize(("machine", "options", "difference"), OBSTACLES)
def test_contract_an_engine_for_another_machine_is_refused(
    engine_copy: Path, doubles: GpuDoubles, machine: dict[str, str], options: dict[str, object], difference: str
) -> None:
    describe(engine_copy, machine, options)
    with pytest.raises(BackendUnavailableError, match=f"{difference}.*align-export … --engine"):
        open_model(engine_copy)
    assert doubles.cuda.calls["cudaMalloc"] == 0


@pytest.mark.parametrize(("machine", "options"), ALLOWED)
def test_contract_an_engine_that_runs_here_is_accepted(
    engine_copy: Path, doubles: GpuDoubles, machine: dict[str, str], options: dict[str, object]
) -> None:
    describe(engine_copy, machine, options)
    open_model(engine_copy).close()


def test_contract_a_changed_plan_is_not_loaded(engine_copy: Path, doubles: GpuDoubles) -> None:
    for plan in (engine_copy / "engines").glob("*.plan"):
        plan.write_bytes(plan.read_bytes()[:-1] + b" ")
    with pytest.raises(BundleError, match=r"\.plan"):
        open_model(engine_copy)


def test_contract_a_description_with_other_profiles_is_refused(engine_copy: Path, doubles: GpuDoubles) -> None:
    for sidecar in (engine_copy / "engines").glob("vision*.json"):
        values = json.loads(sidecar.read_text())
        values["profiles"] = values["profiles"][:1]
        sidecar.write_text(json.dumps(values))
    with pytest.raises(BundleError, match="profiles"):
        open_model(engine_copy)


def test_contract_profiles_with_a_gap_are_refused(engine_copy: Path, doubles: GpuDoubles) -> None:
    """Both the plan and its description lack the profile of the largest batch and length."""
    for sidecar in (engine_copy / "engines").glob("text*.json"):
        values, plan = json.loads(sidecar.read_text()), sidecar.with_suffix(".plan")
        content = json.loads(plan.read_text())
        content["profiles"] = content["profiles"][:-1]
        plan.write_text(json.dumps(content))
        values |= {"profiles": values["profiles"][:-1], "bytes": plan.stat().st_size, "sha256": sha256_of(plan)}
        sidecar.write_text(json.dumps(values))
    with pytest.raises(BundleError, match="cover"):
        open_model(engine_copy)


def test_contract_the_lean_runtime_runs_version_compatible_engines_only(
    engine_copy: Path, answers: Golden, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    request = EngineRequest(("fp16",), (1, 4), options=EngineOptions(version_compatible=True))
    with installed("tensorrt-10"):
        build_engines(engine_copy, request, open_toolkits(request), force=False, progress=QUIET)
    for sidecar in (engine_copy / "engines").glob("*.11.4*.json"):
        sidecar.unlink()
    with installed("tensorrt_lean-11"):
        with open_model(engine_copy) as model:
            np.testing.assert_allclose(model.embed_pixels(answers.pixels), expected[1], rtol=0, atol=CLOSE)
        with pytest.raises(BackendUnavailableError, match="lean runtime"):
            open_toolkits(request)


def test_contract_inspect_lists_engines(engine_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without TensorRT: a description is plain JSON."""
    assert inspect.main([str(engine_bundle)]) == 0
    text = capsys.readouterr().out
    assert text.count("NVIDIA Double 80GB") == text.count("TensorRT 11.4.0.106") == 4
    assert inspect.main([str(engine_bundle), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["engines"]) == 4
