"""The folder that align-triton writes: whole or not at all, in versions, and never over anybody else's files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from align_runtime import Bundle, load
from align_runtime.folder_exchange import COMPLETE, companion
from align_runtime.golden import Golden
from align_serving.triton.command import main
from align_serving.triton.repository import MARKER, Repository


@pytest.fixture
def written(tiny_bundle: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    assert main([str(tiny_bundle), str(folder), "--quiet"]) == 0
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([*map(str, arguments), "--quiet"]) == 2
    return capsys.readouterr().err


def test_each_version_has_a_bundle_of_its_tower_alone(written: Path) -> None:
    for name, tower in (("align_texts", "text"), ("align_images", "vision")):
        place = written / name / "1"
        bundle = Bundle.open(place / "bundle")
        assert {graph.tower for graph in bundle.manifest.graphs} == {tower}
        settings = json.loads((place / "settings.json").read_text())
        with load(place / "bundle", **settings) as model:
            assert model.info.towers == (tower,)
    assert Repository.read(written).foreign(written) is None
    assert [path for path in written.parent.iterdir() if path != written] == []


def test_graphs_lie_with_their_weights(graph_repository: Path, golden_rows: Golden) -> None:
    """The very files that a backend loads give the reference's embeddings."""
    onnxruntime = pytest.importorskip("onnxruntime")
    inputs: dict[str, dict[str, Any]] = {
        "text": {"input_ids": golden_rows.input_ids, "attention_mask": golden_rows.attention_mask},
        "vision": {"pixels": golden_rows.pixels},
    }
    expected = {"text": golden_rows.text_embeds, "vision": golden_rows.image_embeds}
    for tower, rows in expected.items():
        file = graph_repository / f"align_{tower}_tower" / "1" / "model.onnx"
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        assert abs(session.run(None, inputs[tower])[0] - rows).max() < 5e-5


def test_a_version_is_added_beside_others(written: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(written)
    capsys.readouterr()
    assert main([str(tiny_bundle), str(written), "--towers", "text", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert {name: list(model["versions"]) for name, model in models.items()} == {
        "align_texts": ["1", "2"],
        "align_images": ["1"],
    }
    after = content(written)
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed <= {MARKER, "align_texts/config.pbtxt"}
    assert after["align_texts/config.pbtxt"] == before["align_texts/config.pbtxt"]
    assert Repository.read(written).foreign(written) is None


def test_old_versions_go(written: Path, tiny_bundle: Path) -> None:
    for keep, expected in ((2, ["1", "2"]), (2, ["2", "3"]), (3, ["2", "3", "4"]), (1, ["5"])):
        assert main([str(tiny_bundle), str(written), "--keep", str(keep), "--quiet"]) == 0
        assert list(Repository.read(written).models["align_texts"]["versions"]) == expected
        folders = {path.name for path in (written / "align_texts").iterdir()}
        assert folders == {*expected, "warmup", "config.pbtxt"}
        assert Repository.read(written).foreign(written) is None


def test_a_version_that_was_removed_is_forgotten(written: Path, tiny_bundle: Path) -> None:
    assert main([str(tiny_bundle), str(written), "--quiet"]) == 0
    shutil.rmtree(written / "align_texts" / "2")
    assert main([str(tiny_bundle), str(written), "--towers", "text", "--quiet"]) == 0
    assert list(Repository.read(written).models["align_texts"]["versions"]) == ["1", "2"]


def test_a_version_for_other_inputs_is_refused(
    graph_repository: Path, bundle_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(graph_repository, tmp_path / "repository"))
    manifest = bundle_copy / "align.json"
    manifest.write_text(manifest.read_text().replace('"pad_token_id": 0', '"pad_token_id": 1'))
    arguments = (bundle_copy, folder, "--backend", "onnxruntime")
    assert "align_text_tower takes other inputs than this bundle" in error_of(capsys, *arguments)
    assert content(folder) == content(graph_repository)
    assert main([*map(str, arguments), "--name", "other", "--quiet"]) == 0
    assert (folder / "other_text_tower" / "1" / "model.onnx").exists()
    assert (folder / "align_text_tower" / "1" / "model.onnx").exists()


def test_links_share_the_files_of_the_bundle(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    for backend, file in (
        ("python", "align_images/1/bundle/onnx/vision_model.onnx"),
        ("onnxruntime", "align_vision_tower/1/model.onnx"),
    ):
        folder = tmp_path / backend
        assert main([str(bundle), str(folder), "--backend", backend, "--link", "--quiet"]) == 0
        assert (folder / file).samefile(bundle / "onnx" / "vision_model.onnx")
    shutil.rmtree(bundle)
    Bundle.open(tmp_path / "python" / "align_images" / "1" / "bundle").check_hash("onnx/vision_model.onnx")


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("align_texts/config.pbtxt", "align_texts/config.pbtxt"),
        ("align_texts/3/model.py", "align_texts/3/model.py"),
        ("resnet/1/model.onnx", "resnet/1/model.onnx"),
        ("notes.txt", "notes.txt"),
    ],
)
def test_what_somebody_changed_or_added_is_not_lost(
    written: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], place: str, named: str
) -> None:
    (written / place).parent.mkdir(parents=True, exist_ok=True)
    edited = "# ours\n" if not (written / place).exists() else (written / place).read_text().replace("1000", "2000")
    (written / place).write_text(edited)
    assert f"{written / named} was changed or added" in error_of(capsys, tiny_bundle, written)
    assert (written / place).read_text() == edited


def test_what_a_server_leaves_is_no_obstacle(written: Path, tiny_bundle: Path) -> None:
    for place in (
        "align_texts/1/tools/__pycache__/tool.cpython-311.pyc",
        "align_texts/1/bundle/engines/a.gpu.cuda13.0.compiled",
    ):
        (written / place).parent.mkdir(parents=True, exist_ok=True)
        (written / place).write_bytes(b"\0")
    assert main([str(tiny_bundle), str(written), "--quiet"]) == 0


def test_strangers_are_refused(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stranger = tmp_path / "models"
    (stranger / "resnet").mkdir(parents=True)
    assert "is not a repository that align-triton wrote" in error_of(capsys, tiny_bundle, stranger)
    (tmp_path / "link").symlink_to(stranger)
    assert "is a link to" in error_of(capsys, tiny_bundle, tmp_path / "link")
    (tmp_path / "file").touch()
    assert "exists and is not a folder" in error_of(capsys, tiny_bundle, tmp_path / "file")
    (stranger / MARKER).write_text('{"schema_version": 99}')
    assert "is not as this version writes it" in error_of(capsys, tiny_bundle, stranger)
    for hostile in (
        '{"../out": {"contract": "", "versions": {"1": {}}}}',
        '{"x": {"contract": "", "versions": {"../1": {}}}}',
    ):
        (stranger / MARKER).write_text(f'{{"schema_version": 1, "models": {hostile}, "files": {{}}}}')
        assert "is not as this version writes it" in error_of(capsys, tiny_bundle, stranger)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_interrupted_replacement_is_finished(written: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Killed between the two renames, where a file system has no exchange: the new content lies beside, whole."""
    written.rename(companion(written, COMPLETE))
    assert main([str(tiny_bundle), str(written), "--quiet"]) == 0
    assert list(Repository.read(written).models["align_texts"]["versions"]) == ["1", "2"]


def test_a_failed_write_changes_nothing(
    written: Path, tiny_bundle: Path, bundle_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(written)
    weights = bundle_copy / "onnx" / "vision_model.onnx"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert "sha256" in error_of(capsys, bundle_copy, written)
    assert content(written) == before
    assert [path.name for path in written.parent.iterdir() if path.name.startswith(".repository")] == []
