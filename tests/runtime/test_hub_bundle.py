"""A bundle by its hub id, from a fake hub on the loopback interface, and opened in the hub's cache of links."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import align_runtime
from align_runtime import BackendUnavailableError, Bundle, BundleError, ConfigurationError
from align_runtime.commands import classify, inspect, verify
from align_runtime.hub_bundle import find_bundle
from align_runtime.manifest import MANIFEST_NAME, REPORT_NAMES
from support.fake_hub import COMMIT, OTHER_COMMIT, FakeHub, Repository, serve
from support.hub_client import HubSettings, hub_settings

NAME = "owner/align-tiny"
GRAPH = "onnx/text_model_cpu.onnx"
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def files(tiny_bundle: Path) -> Files:
    """What an upload of the bundle's folder puts on the hub, and more."""
    found = {path.relative_to(tiny_bundle).as_posix(): path for path in tiny_bundle.rglob("*") if path.is_file()}
    return {"README.md": b"", "extra.bin": b"1"} | {name: path.read_bytes() for name, path in found.items()}


@pytest.fixture
def hub(files: Files) -> Iterator[FakeHub]:
    with serve(FakeHub({NAME: Repository({COMMIT: files}, {"main": COMMIT, "v1": COMMIT})})) as running:
        yield running


@pytest.fixture
def settings(hub: FakeHub, tmp_path: Path) -> Iterator[HubSettings]:
    with hub_settings(tmp_path / "home", hub.url) as made:
        yield made


def refused(name: str = NAME, revision: str | None = None) -> str:
    with pytest.raises(BundleError) as caught:
        find_bundle(name, revision)
    return str(caught.value)


def test_a_bundle_by_its_name(hub: FakeHub, settings: HubSettings, tiny_bundle: Path) -> None:
    texts = ["a photo of a cat", "two dogs"]
    with align_runtime.load(NAME, revision="v1") as model, align_runtime.load(tiny_bundle) as local:
        np.testing.assert_array_equal(model.embed_texts(texts), local.embed_texts(texts))
        folder = model._parts.bundle.folder
        assert model._parts.options.check_hashes
    assert folder.is_relative_to(settings.home)
    assert (folder / GRAPH).is_symlink()
    listed = Bundle.open(tiny_bundle).manifest.files.keys() | {MANIFEST_NAME}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == listed
    assert hub.downloaded() == {name.rpartition("/")[2] for name in listed}
    hub.requests.clear()
    assert find_bundle(NAME).folder == folder
    assert hub.downloaded() == set()


def test_the_snapshot_of_a_cache_is_a_bundle(settings: HubSettings) -> None:
    folder = find_bundle(NAME).folder
    bundle = Bundle.open(folder)
    for name in bundle.manifest.files:
        bundle.check_hash(name)
    with align_runtime.load(folder, check_hashes=True, towers=("text",)) as model:
        assert model.embed_texts(["a cat"]).shape[0] == 1


@pytest.mark.parametrize("target", ["../../other/blobs/x", "../../blobs/deep/x", "../../../blobs/x", "../../refs/x"])
def test_other_links_are_refused(tiny_bundle: Path, tmp_path: Path, target: str) -> None:
    snapshot = tmp_path / "home" / "models--owner--name" / "snapshots" / COMMIT
    shutil.copytree(tiny_bundle, snapshot)
    outside = (snapshot / target).resolve()
    outside.parent.mkdir(parents=True, exist_ok=True)
    (snapshot / "config.json").rename(outside)
    (snapshot / "config.json").symlink_to(target)
    with pytest.raises(BundleError, match="link that leaves the bundle"):
        Bundle.open(snapshot)


def test_a_link_from_the_blobs_to_elsewhere_is_refused(settings: HubSettings, tmp_path: Path) -> None:
    folder = find_bundle(NAME).folder
    blob = (folder / "config.json").resolve()
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="link that leaves the bundle"):
        Bundle.open(folder)


def test_a_path_that_exists_wins(
    hub: FakeHub, settings: HubSettings, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    local = Path(shutil.copytree(tiny_bundle, tmp_path / NAME))
    assert not find_bundle(NAME).downloaded
    assert Bundle.open(NAME).folder == local
    with pytest.raises(ConfigurationError, match="revision 'v1' was given with the path owner/align-tiny"):
        align_runtime.load(NAME, revision="v1")
    local.rename(local.with_name(f".align-tiny.complete-{'host'}-1"))  # the rest of an export that was killed
    with pytest.raises(BundleError, match="was interrupted: move"):
        align_runtime.load(NAME)
    assert hub.requests == []


def test_a_path_object_is_a_path(hub: FakeHub, settings: HubSettings) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        align_runtime.load(Path(NAME))
    assert hub.requests == []


def test_what_is_not_the_described_file_is_not_taken(hub: FakeHub, settings: HubSettings, files: Files) -> None:
    other = bytearray(files[GRAPH])
    other[-1] ^= 1
    hub.repositories = {NAME: Repository({COMMIT: {**files, GRAPH: bytes(other)}})}
    for _ in range(2):  # it does not stay in the cache
        assert f"{NAME}: {GRAPH} is not the file that align.json describes" in refused()
    hub.repositories = {NAME: Repository({COMMIT: files})}
    Bundle.open(find_bundle(NAME).folder).check_hash(GRAPH)


def test_a_file_that_was_changed_in_the_cache(settings: HubSettings) -> None:
    file = find_bundle(NAME).folder / "onnx" / "vision_model.onnx"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.resolve().write_bytes(content)
    with pytest.raises(BundleError, match=r"onnx/vision_model\.onnx has sha256"):
        align_runtime.load(NAME)


def test_what_is_no_whole_bundle(hub: FakeHub, settings: HubSettings, files: Files) -> None:
    hub.repositories = {
        NAME: Repository({COMMIT: {"config.json": b"{}"}}),
        "owner/part": Repository({COMMIT: {name: data for name, data in files.items() if name != GRAPH}}),
        "owner/bad": Repository({COMMIT: files | {MANIFEST_NAME: b"[]"}}),
        "owner/old": Repository({COMMIT: files | {MANIFEST_NAME: json.dumps({"schema_version": 1}).encode()}}),
    }
    assert f"{NAME} on {hub.url} is not a bundle: it has no align.json; if it is a checkpoint, export it" in refused()
    assert f"lacks '{GRAPH}', which its align.json lists" in refused("owner/part")
    assert "align.json" in refused("owner/bad")
    assert "schema version 1" in refused("owner/old")
    assert hub.downloaded() == {MANIFEST_NAME}


def test_errors_of_the_hub(hub: FakeHub, settings: HubSettings) -> None:
    assert "owner/nothing not found, neither as a local folder nor on the hub" in refused("owner/nothing")
    assert f"{NAME} has no revision 'v9'" in refused(revision="v9")
    hub.failures = {f"/{NAME}/resolve": (403, "GatedRepo")}
    assert f"{NAME} is gated" in refused()
    settings.set(HF_ENDPOINT="http://127.0.0.1:9")
    assert "cannot be reached" in refused()


def test_offline(hub: FakeHub, settings: HubSettings) -> None:
    settings.set(HF_HUB_OFFLINE="1")
    assert "is not in the cache" in refused()
    settings.set(HF_HUB_OFFLINE="0")
    online = find_bundle(NAME)
    hub.requests.clear()
    settings.set(HF_HUB_OFFLINE="1")
    assert find_bundle(NAME) == online
    assert hub.requests == []
    (online.folder / GRAPH).unlink()
    assert f"lacks {GRAPH}) and HF_HUB_OFFLINE is set" in refused()


def test_another_revision(hub: FakeHub, settings: HubSettings, files: Files) -> None:
    other = {name: data for name, data in files.items() if name not in REPORT_NAMES}
    hub.repositories = {NAME: Repository({COMMIT: {}, OTHER_COMMIT: other}, {"main": COMMIT, "v2": OTHER_COMMIT})}
    assert find_bundle(NAME, "v2").folder.name == OTHER_COMMIT
    assert find_bundle(NAME, OTHER_COMMIT).folder.name == OTHER_COMMIT


def test_without_the_client(hub: FakeHub, settings: HubSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'align-onnx\[hub\]'"):
        align_runtime.load(NAME)


def test_options_are_checked_before_the_download(hub: FakeHub, settings: HubSettings) -> None:
    with pytest.raises(ConfigurationError, match="towers"):
        align_runtime.load(NAME, towers=())
    assert hub.requests == []


def test_commands_take_the_name(
    settings: HubSettings, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    revision = ["--revision", "v1", "--json"]
    image = str(tiny_checkpoint / "demo" / "white-star.jpg")
    assert inspect.main([NAME, *revision]) == 0
    assert verify.main([NAME, *revision]) == 0
    assert classify.main([NAME, image, *revision, "--labels", "white star", "green heart"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert json.loads(printed.out.splitlines()[-1])["images"][0]["best"] == "white star"
    assert inspect.main(["owner/nothing"]) == 2
    assert "owner/nothing not found" in capsys.readouterr().err
