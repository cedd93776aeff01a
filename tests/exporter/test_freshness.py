"""An export that would change nothing does nothing, and says why when it does."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from align_exporter import freshness
from align_exporter.command import main
from align_exporter.export_options import ExportOptions
from align_exporter.freshness import SOURCES, TOOLS, provenance, source_hash, staleness, tool_version
from align_reference.source import resolve
from support.imports import imported_modules


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "align-tiny"))


def why(checkpoint: Path, bundle: Path, **options: Any) -> str | None:
    return staleness(bundle, provenance(resolve(str(checkpoint)), ExportOptions(**options)))


def test_unchanged_is_up_to_date(checkpoint: Path, tiny_bundle: Path) -> None:
    assert why(checkpoint, tiny_bundle) is None


def test_a_folder_whose_name_is_not_utf8(checkpoint: Path) -> None:
    """The manifest is UTF-8: its name stands as it is printed."""
    folder = checkpoint.rename(os.fsdecode(os.fsencode(checkpoint.parent) + b"/caf\xff"))
    assert provenance(resolve(str(folder)), ExportOptions()).name == r"caf\udcff"


def test_no_bundle(checkpoint: Path, tmp_path: Path) -> None:
    assert why(checkpoint, tmp_path / "nowhere") == "no bundle yet"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json", "tokenizer.json"])
def test_a_changed_file(checkpoint: Path, tiny_bundle: Path, name: str) -> None:
    with (checkpoint / name).open("ab") as file:
        file.write(b" ")
    assert why(checkpoint, tiny_bundle) == f"changed files: {name}"


def test_a_file_that_came_or_went(checkpoint: Path, tiny_bundle: Path) -> None:
    (checkpoint / "added_tokens.json").write_text("{}")
    assert why(checkpoint, tiny_bundle) == "changed files: added_tokens.json"


def test_another_option(checkpoint: Path, tiny_bundle: Path) -> None:
    assert why(checkpoint, tiny_bundle, opset=21) == "changed options: opset"


def test_where_a_calibration_is_kept_decides_nothing(checkpoint: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    assert why(checkpoint, tiny_bundle, calibration_cache=tmp_path) is None


@pytest.mark.parametrize(
    "name",
    [
        "align_bench/interleaved.py",  # it measures the speed that is recorded
        "align_calibration/dataset/calibration_dataset.py",
        "align_exporter/graph/passes/order.py",
        "align_exporter/report/templates/page.html.j2",
        "align_exporter/sample_data/captions.txt",
        "align_reference/vision.py",
        "align_runtime/preprocessing.py",
    ],
)
def test_a_changed_file_of_ours(
    checkpoint: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The version stays the same while somebody works on a pass."""
    changed, file = name.split("/", 1)
    package = ModuleType(changed)
    (original,) = [part.__path__[0] for part in SOURCES if part.__name__ == changed]
    package.__path__ = [shutil.copytree(original, tmp_path / changed)]
    monkeypatch.setattr(freshness, "SOURCES", tuple(package if part.__name__ == changed else part for part in SOURCES))
    for text, expected in (("", None), ("\n", "changed tools: source")):
        with (tmp_path / changed / file).open("a") as opened:
            opened.write(text)
        (tmp_path / changed / f".{text == ''}.swp").touch()  # an editor's
        source_hash.cache_clear()
        assert why(checkpoint, tiny_bundle) == expected
    source_hash.cache_clear()


def test_all_packages_that_an_export_imports_are_hashed() -> None:
    """And all third-party packages that these import are among the tools."""
    own = {package.__name__ for package in SOURCES}
    modules = {package.__name__: Path(package.__path__[0]).rglob("*.py") for package in SOURCES}
    imported = {
        module.partition(".")[0]
        for name, files in modules.items()
        if name not in ("align_bench", "align_runtime")  # optional backends and peers
        for file in files
        for module in imported_modules(file.read_text(encoding="utf-8"))
    }
    assert {name for name in imported if name.startswith("align_")} <= own
    others = {name for name in imported if name not in sys.stdlib_module_names and name not in own}
    distributions = importlib.metadata.packages_distributions()
    known = {canonical(tool) for tool in TOOLS}
    harmless = {"huggingface-hub", "markupsafe", "tensorrt"}  # a download, a part of jinja2, engines have their own
    for name in others:
        assert {canonical(found) for found in distributions.get(name, [name])} & (known | harmless), name


def canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def test_another_tool(checkpoint: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "version", lambda tool: "0.0" if tool == "torch" else freshness_version(tool))
    assert why(checkpoint, tiny_bundle) == "changed tools: torch"


freshness_version = freshness.version


def test_another_checkpoint(checkpoint: Path, tiny_bundle: Path) -> None:
    renamed = checkpoint.rename(checkpoint.with_name("other"))
    assert why(renamed, tiny_bundle) == "it was built from align-tiny"


def test_a_damaged_bundle(checkpoint: Path, bundle_copy: Path) -> None:
    graph = bundle_copy / "onnx" / "text_model.onnx"
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(content)
    reason = why(checkpoint, bundle_copy)
    assert reason is not None
    assert "onnx/text_model.onnx has sha256" in reason


def test_the_command_says_so_and_leaves_the_files(
    tiny_checkpoint: Path, bundle_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph, manifest = bundle_copy / "onnx" / "text_model.onnx", bundle_copy / "align.json"
    times = graph.stat().st_mtime_ns, manifest.stat().st_mtime_ns
    assert main([str(tiny_checkpoint), "-o", str(bundle_copy)]) == 0
    assert "is up to date" in capsys.readouterr().out
    assert graph.stat().st_mtime_ns == times[0]
    assert manifest.stat().st_mtime_ns > times[1]  # so that make is content
    assert main([str(tiny_checkpoint), "-o", str(bundle_copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["built"] is False


def test_force_builds(tiny_checkpoint: Path, bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = bundle_copy / "onnx" / "text_model.onnx"
    before, content = graph.stat().st_mtime_ns, graph.read_bytes()
    assert main([str(tiny_checkpoint), "-o", str(bundle_copy), "--force", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["built"], result["reason"]) == (True, "--force")
    assert graph.stat().st_mtime_ns > before
    assert graph.read_bytes() == content


def test_onnxruntime_with_cuda_is_known_by_its_other_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(name: str) -> str:
        if name == "onnxruntime-gpu":
            return "1.31.1"
        raise PackageNotFoundError(name)

    monkeypatch.setattr("align_exporter.freshness.version", installed)
    assert tool_version("onnxruntime") == "1.31.1"
    with pytest.raises(PackageNotFoundError, match="torch"):
        tool_version("torch")
