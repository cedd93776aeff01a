"""The public names of the runtime, its documentation, and the API as a user calls it."""

from __future__ import annotations

import doctest
import importlib.metadata
import inspect
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest
from tests.runtime import typed_usage

import align_runtime
from align_runtime import Bundle, ConfigurationError, Device, InputError, Model, devices, errors, golden
from align_runtime.backends import open_runner

ROOT = Path(__file__).parents[2]


def test_every_public_name_exists_and_nothing_else_is_public() -> None:
    names = {
        name
        for name, value in vars(align_runtime).items()
        if not isinstance(value, ModuleType) and (name == "__version__" or not name.startswith("_"))
    }
    assert sorted(names) == align_runtime.__all__ == sorted(align_runtime.__all__)
    assert all(getattr(align_runtime, name) is not None for name in align_runtime.__all__)


def test_every_error_is_public() -> None:
    defined = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, errors.AlignError)
    }
    assert {"AlignError", "DeviceError", "InputError"} <= defined <= set(align_runtime.__all__)
    assert all(getattr(align_runtime, name) is getattr(errors, name) for name in defined)


def test_the_version_is_that_of_the_distribution() -> None:
    assert align_runtime.__version__ == importlib.metadata.version("align-onnx")


def test_everything_public_is_documented() -> None:
    documented = [align_runtime, align_runtime.load, align_runtime.Model, align_runtime.ModelInfo, align_runtime.Bundle]
    documented += [method for name, method in inspect.getmembers(Model) if not name.startswith("_")]
    for value in documented:
        assert inspect.getdoc(value), value


def test_arguments_after_the_first_are_keywords() -> None:
    first, *others = inspect.signature(align_runtime.load).parameters.values()
    assert first.name == "bundle"
    assert {parameter.kind for parameter in others} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_type_of_devices_names_every_backend() -> None:
    names, any_text = get_args(Device)
    assert (get_args(names), any_text) == ((*devices.BACKENDS, devices.AUTO), str)


def test_the_example_of_the_model_runs(tiny_bundle: Path) -> None:
    text = inspect.getdoc(Model)
    assert text is not None
    for word in ("Threads:", "Fork:", "asyncio.to_thread"):
        assert word in text
    text = text.replace("build/align-tiny", str(tiny_bundle)).replace("reference/", f"{ROOT}/reference/")
    example = doctest.DocTestParser().get_doctest(text, {}, "Model", None, None)
    assert len(example.examples) == 3
    result = doctest.DocTestRunner().run(example)
    assert (result.attempted, result.failed) == (3, 0)


def test_the_library_configures_no_logging(tiny_bundle: Path) -> None:
    """Without a configuration nothing is printed; with one, INFO shows what was loaded."""
    assert [type(handler) for handler in logging.getLogger("align_runtime").handlers] == [logging.NullHandler]
    assert logging.getLogger("align_runtime").level == logging.NOTSET
    program = "import sys, logging, align_runtime\n{}align_runtime.load(sys.argv[1], device='auto').close()"
    for setting, expected in (("", ""), ("logging.basicConfig(level='INFO')\n", "INFO:align_runtime.loading:loaded ")):
        done = subprocess.run(
            [sys.executable, "-c", program.format(setting), str(tiny_bundle)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == ""
        assert expected in done.stderr
        assert bool(done.stderr) == bool(expected)


def test_the_api_as_a_user_calls_it(tiny_bundle: Path, tmp_path: Path) -> None:
    demo = ROOT / "reference/align-tiny/demo"
    images = [demo / "white-star.jpg", demo / "green-heart.png"]
    labels = ["white star", "green heart", "handwritten seven"]
    assert typed_usage.search(tiny_bundle, images[1], labels) == "green heart"
    with align_runtime.load(tiny_bundle) as model:
        embeds = typed_usage.embed_every_form(model, images[0])
        assert len(embeds) == 9
        np.testing.assert_allclose(embeds, np.tile(embeds[:1], (9, 1)), rtol=0, atol=1e-5)
        np.testing.assert_allclose(typed_usage.embed_in_two_steps(model, images[:1]), embeds[:1], rtol=0, atol=1e-5)
        assert typed_usage.count_rows(model, labels, images) == 5
        found = typed_usage.rows_and_errors(model, [images[0], b"no image", images[1]], labels)
        assert [type(found[index]) for index in range(3)] == [np.ndarray, str, np.ndarray]
        assert typed_usage.first_part(model, images).indices.tolist() == [0, 1]
        assert typed_usage.best_labels(model, images, labels) == ["white star", "green heart"]
        with pytest.raises(InputError):
            typed_usage.best_labels(model, [tmp_path / "missing.jpg"], labels)
    info = typed_usage.describe(tiny_bundle)
    assert info is not None
    assert info.towers == ("text",)
    assert typed_usage.describe(tmp_path) is None


def test_plain_onnx_files_run_on_cpus_only(tiny_bundle: Path) -> None:
    file, answers = tiny_bundle / "onnx/vision_model.onnx", golden.read(Bundle.open(tiny_bundle))
    runner = open_runner(file, "cpu", 1)
    np.testing.assert_allclose(runner.run({"pixels": answers.pixels}), answers.image_embeds, rtol=0, atol=2e-5)
    runner.close()
    for device in ("cuda", "tensorrt", "tpu"):
        with pytest.raises(align_runtime.ConfigurationError, match=f"device is '{device}'"):
            open_runner(file, device, None)


class _NoPath:
    def __fspath__(self) -> str:
        raise RuntimeError("gone")


class _Number:
    def __fspath__(self) -> int:
        return 5


@pytest.mark.parametrize(
    "options",
    [
        {"precision": ["fp32"]}, {"device": 5}, {"check_hashes": 1}, {"mmap": None}, {"arena": "no"},
        {"alpha": np.zeros(2)}, {"alpha": "rgb(300,1,1)"}, {"threads": np.zeros(2)}, {"formats": 7}, {"towers": 1},
    ],
)  # fmt: skip
def test_options_of_another_kind_are_errors_of_ours(tiny_bundle: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        align_runtime.load(tiny_bundle, **options)


@pytest.mark.parametrize("bundle", [None, 5, ["a"], b"/path"])
def test_a_bundle_that_is_no_path(bundle: Any) -> None:
    with pytest.raises(ConfigurationError, match="a path is"):
        align_runtime.load(bundle)


def test_arguments_of_another_kind_are_errors_of_ours(tiny_bundle: Path) -> None:
    with align_runtime.load(tiny_bundle) as model:
        rows = model.embed_texts(["a", "b"])
        wrong_calls: list[Callable[[], object]] = [
            lambda: model.embed_images(np.array(3, np.uint8)),
            lambda: model.embed_texts(np.array("abc")),  # type: ignore[call-overload]
            lambda: model.embed_pixels([[1], [1, 2]]),  # type: ignore[arg-type]
            lambda: model.embed_images([""]),
            lambda: model.cosine(rows.astype(complex), rows),
            lambda: model.cosine([["1"]], rows),
        ]
        for call in wrong_calls:
            with pytest.raises(InputError):
                call()
        with pytest.raises(ConfigurationError):
            model.embed_texts(["a"], on_error=np.array(["skip", "raise"]))  # type: ignore[call-overload]
        for images in ([_NoPath(), _Number()], iter([_NoPath(), _Number()])):
            skipped = model.embed_images(images, on_error="skip")  # type: ignore[arg-type, list-item]
            assert [error.index for error in skipped.errors] == [0, 1]
