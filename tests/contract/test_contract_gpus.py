"""Contract: the GPU with an index, from any thread, and versions of TensorRT with a suffix."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

import align_runtime
from align_runtime.bundle import sha256_of
from align_runtime.errors import BackendUnavailableError
from align_runtime.golden import Golden
from support.gpu_doubles import CLOSE, GpuDoubles, open_model

OTHER_GPU = (b"NVIDIA Small 24GB", 8, 9)


def test_contract_a_gpu_is_chosen_by_its_index(
    engine_copy: Path, doubles: GpuDoubles, answers: Golden, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    """Every call is on that GPU, from any thread, and leaves the thread's own GPU as it was; the double checks."""
    doubles.cuda.gpus = (OTHER_GPU, *doubles.cuda.gpus)
    results = {}
    with align_runtime.load(engine_copy, precision="fp16", device="tensorrt:1") as model:
        assert model.info.device == "tensorrt:1"
        model.warmup()

        def work(gpu: int) -> None:
            doubles.cuda.cudaSetDevice(gpu)
            results[gpu] = model.embed_pixels(answers.pixels), doubles.cuda.cudaGetDevice()[1]

        for gpu in (0, 1):
            thread = threading.Thread(target=work, args=(gpu,))
            thread.start()
            thread.join()
        assert set(doubles.cuda.owners.values()) == {1}
    for gpu, (embeds, after) in results.items():
        np.testing.assert_allclose(embeds, expected[1], rtol=0, atol=CLOSE)
        assert after == gpu


def test_contract_engines_are_chosen_by_the_facts_of_that_gpu(engine_copy: Path, doubles: GpuDoubles) -> None:
    doubles.cuda.gpus = (*doubles.cuda.gpus, OTHER_GPU)
    with pytest.raises(BackendUnavailableError, match=r"capability 9\.0, NVIDIA Small 24GB has 8\.9"):
        align_runtime.load(engine_copy, precision="fp16", device="tensorrt:1")
    with pytest.raises(BackendUnavailableError, match="CUDA sees 2 GPUs, none with the index 2"):
        align_runtime.load(engine_copy, precision="fp16", device="tensorrt:2")


def test_contract_a_version_of_tensorrt_with_a_suffix(engine_copy: Path, doubles: GpuDoubles) -> None:
    doubles.tensorrt.module.__dict__["__version__"] = "11.4.0.106+cuda13"
    plans = engine_copy / "engines"
    for plan in plans.glob("*.plan"):  # the double compares the texts
        plan.write_text(plan.read_text().replace("11.4.0.106", "11.4.0.106+cuda13"))
        values = json.loads(plan.with_suffix(".json").read_text())
        plan.with_suffix(".json").write_text(
            json.dumps(values | {"bytes": plan.stat().st_size, "sha256": sha256_of(plan)})
        )
    open_model(engine_copy).close()
    doubles.tensorrt.module.__dict__["__version__"] = "newest"
    with pytest.raises(BackendUnavailableError, match="TensorRT cannot be used: 'newest' is not a version"):
        open_model(engine_copy)
