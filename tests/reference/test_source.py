"""From a name to a folder: local folders first, then hub ids, downloaded from a fake hub on the loopback interface."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from align_reference.checkpoint import load_model
from align_reference.files import PROCESSOR_FILES
from align_reference.source import CheckpointSource, resolve, resolve_configuration, wanted_files
from align_runtime.errors import CheckpointError, ConfigurationError
from support.fake_hub import COMMIT, OTHER_COMMIT, FakeHub, Repository, serve
from support.hub_client import HubSettings, hub_settings

ROOT = Path(__file__).parents[2]
NAME = "owner/align-tiny"

NAMES = (
    "config.json model.safetensors pytorch_model.bin tf_model.h5 flax_model.msgpack README.md onnx/model.safetensors "
    "tokenizer.json vocab.txt preprocessor_config.json"
).split()
SMALL_FILES = {name: f"content of {name}".encode() for name in NAMES}  # all different: the cache stores equal ones once
USED = {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "preprocessor_config.json"}


# --- local folders ---------------------------------------------------------------------------------------------------


def test_local_folder(small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(str(small_checkpoint)) == CheckpointSource(small_checkpoint, "small", None)
    monkeypatch.chdir(small_checkpoint)
    assert resolve(".") == CheckpointSource(Path(), "small", None)
    monkeypatch.chdir(small_checkpoint.parent.parent)
    relative = f"{small_checkpoint.parent.name}/small"  # looks like a hub id, but a folder takes precedence
    assert resolve(relative) == CheckpointSource(Path(relative), "small", None)


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/align-\xff\x1b[2J"))
    folder.mkdir()
    (folder / "config.json").touch()
    for source in (resolve(str(folder)), resolve_configuration(str(folder))):
        assert source == CheckpointSource(folder, r"align-\udcff\x1b[2J", None)


def test_home_folder(small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(small_checkpoint.parent))
    assert resolve("~/small").folder == small_checkpoint


def test_revision_of_a_local_folder(small_checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match="revision 'main'"):
        resolve(str(small_checkpoint), "main")


@pytest.mark.parametrize(
    "name", ["./nowhere", "../a/b", "/a/b", "~/nowhere", "a/b/c", "nowhere", "a\\b", "", "a /b", "-a/b", "a/", "x\0/y"]
)
def test_neither_folder_nor_hub_id(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="neither an existing folder nor a hub id") as caught:
        resolve(name)
    assert str(caught.value).startswith(repr(name.replace("\0", " ")))


def test_name_too_long() -> None:
    with pytest.raises(CheckpointError, match="File name too long") as caught:
        resolve("x" * 5000)
    assert len(str(caught.value)) < 500


def test_file_instead_of_a_folder(small_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is a file"):
        resolve(str(small_checkpoint / "config.json"))


# --- the hub ---------------------------------------------------------------------------------------------------------


class Client:
    """`resolve` with settings of its own."""

    def __init__(self, settings: HubSettings) -> None:
        self.home, self.set = settings.home, settings.set

    def resolve(self, name: str = NAME, revision: str | None = None, *, allow_pickle: bool = False) -> CheckpointSource:
        source = resolve(name, revision, allow_pickle=allow_pickle, quiet=True)
        assert source.name == name
        assert source.folder.is_relative_to(self.home)
        return source

    def error(self, name: str = NAME, revision: str | None = None) -> str:
        with pytest.raises(CheckpointError) as caught:
            self.resolve(name, revision)
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 500
        return message


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serve(FakeHub({NAME: Repository({COMMIT: SMALL_FILES})})) as running:
        yield running


@pytest.fixture
def client(hub: FakeHub, tmp_path: Path) -> Iterator[Client]:
    with hub_settings(tmp_path / "home", hub.url) as settings:
        yield Client(settings)


def run_client(code: str, *arguments: str, **variables: str) -> dict[str, str]:
    """Runs `code` in a process of its own, with `variables` and no other setting of the hub; it prints JSON."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    path = os.pathsep.join((str(ROOT / "reference"), str(ROOT / "runtime")))
    environment = {**kept, "PYTHONPATH": path, "NO_PROXY": "127.0.0.1", **variables}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return answer


RESOLVE_TWICE = """
import json, sys
from align_reference import resolve
first, second = (resolve(sys.argv[1]) for _ in range(2))
assert first == second and "torch" not in sys.modules
print(json.dumps({"folder": str(first.folder), "commit": first.revision, "name": first.name}))
"""


def test_checkpoint_from_the_hub_is_the_model(small_checkpoint: Path, tmp_path: Path) -> None:
    """In a process of its own: the settings are huggingface_hub's variables, and a download takes no torch."""
    files = {path.name: path.read_bytes() for path in small_checkpoint.iterdir()}
    settings = {"HF_HOME": str(tmp_path / "home")}
    with serve(FakeHub({NAME: Repository({COMMIT: files})})) as hub:
        answer = run_client(RESOLVE_TWICE, NAME, HF_ENDPOINT=hub.url, **settings)
        hub.requests.clear()
        assert run_client(RESOLVE_TWICE, NAME, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1", **settings) == answer
        assert hub.requests == []
    assert (answer["name"], answer["commit"]) == (NAME, COMMIT)
    downloaded = Path(answer["folder"])
    assert downloaded.is_relative_to(tmp_path / "home")
    assert {path.name for path in downloaded.iterdir()} == set(files)
    expected = load_model(small_checkpoint).state_dict()
    state = load_model(downloaded).state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_only_what_is_needed_is_downloaded(hub: FakeHub, client: Client) -> None:
    source = client.resolve()
    assert source.revision == COMMIT
    assert {path.name for path in source.folder.iterdir()} == USED == hub.downloaded()


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_of_the_download_is_shown_unless_quiet(
    client: Client, quiet: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    resolve(NAME, quiet=quiet)
    assert ("Fetching" in capsys.readouterr().err) != quiet
    resolve(NAME, quiet=quiet)
    assert (capsys.readouterr().err == "") == quiet


def test_second_time_comes_from_the_cache(hub: FakeHub, client: Client) -> None:
    first = client.resolve()
    hub.requests.clear()
    assert client.resolve() == first
    assert hub.downloaded() == set()


def test_revision(hub: FakeHub, client: Client) -> None:
    other = {**SMALL_FILES, "config.json": b'{"other": 1}'}
    refs = {"main": COMMIT, "v2": OTHER_COMMIT, "refs/pr/1": OTHER_COMMIT}
    hub.repositories = {NAME: Repository({COMMIT: SMALL_FILES, OTHER_COMMIT: other}, refs)}
    assert client.resolve().revision == COMMIT
    for revision in ("v2", "refs/pr/1", OTHER_COMMIT):
        source = client.resolve(revision=revision)
        assert source.revision == OTHER_COMMIT
        assert (source.folder / "config.json").read_bytes() == b'{"other": 1}'


def test_unknown_revision(hub: FakeHub, client: Client) -> None:
    message = client.error(revision="v9")
    assert f"{NAME} has no revision 'v9' on {hub.url}" in message


def test_unknown_model(hub: FakeHub, client: Client) -> None:
    message = client.error("owner/nothing")
    assert "owner/nothing not found" in message
    assert hub.url in message
    assert "HF_TOKEN" in message


@pytest.mark.parametrize("status", [401, 403])
def test_gated_model(hub: FakeHub, client: Client, status: int) -> None:
    # The hub lists the files of a gated model to everybody, and refuses their content.
    hub.failures = {f"/{NAME}/resolve": (status, "GatedRepo")}
    message = client.error()
    assert f"{NAME} is gated" in message
    assert f"{hub.url}/{NAME}" in message
    assert "hf auth login" in message


@pytest.mark.parametrize("path", ["/api/models", f"/{NAME}/resolve"])
def test_access_refused(hub: FakeHub, client: Client, path: str) -> None:
    hub.failures = {path: (403, "")}
    message = client.error()
    assert f"{hub.url} refused {NAME} (HTTP status 403)" in message
    assert "HF_TOKEN" in message


def test_hub_that_fails(hub: FakeHub, client: Client) -> None:
    hub.failures = {"/api/models": (503, "")}
    message = client.error(revision="v2")
    assert f"{hub.url} refused {NAME} at revision 'v2' (HTTP status 503)" in message
    assert "try again later" in message


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_unreachable_hub(hub: FakeHub, client: Client) -> None:
    client.resolve()  # a copy in the cache is not used silently: the hub may have moved on
    url = f"http://127.0.0.1:{unused_port()}"
    client.set(HF_ENDPOINT=url)
    message = client.error()
    assert f"the hub {url} cannot be reached for {NAME}" in message
    assert "Connection refused" in message
    assert "HF_HUB_OFFLINE=1" in message


def test_server_that_is_no_hub(hub: FakeHub, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeHub, "answer", lambda self, path: (200, {}, b"<html>Please log in</html>"))
    message = client.error()
    assert f"{hub.url} cannot be reached for {NAME}, or is not a Hugging Face hub (JSONDecodeError" in message


def test_offline_uses_the_cache(hub: FakeHub, client: Client) -> None:
    online = client.resolve()
    hub.requests.clear()
    client.set(HF_HUB_OFFLINE="1")
    assert client.resolve() == online
    assert hub.requests == []


def test_offline_without_a_copy(client: Client) -> None:
    client.set(HF_HUB_OFFLINE="1")
    message = client.error(revision="v2")
    assert f"{NAME} at revision 'v2' is not in the cache {client.home}/hub" in message
    assert "HF_HUB_OFFLINE is set" in message


def test_offline_with_half_a_copy(client: Client) -> None:
    (client.resolve().folder / "model.safetensors").unlink()
    client.set(HF_HUB_OFFLINE="1")
    message = client.error()
    assert f"{NAME} in the cache" in message
    assert "has no weights" in message


def test_hub_that_moves_on_and_fails_during_the_download(hub: FakeHub, client: Client) -> None:
    client.resolve()
    hub.repositories = {NAME: Repository({OTHER_COMMIT: SMALL_FILES}, {"main": OTHER_COMMIT})}
    hub.failures = {f"/api/models/{NAME}/revision": (503, "")}  # the client's second request; it then uses its cache
    message = client.error()
    assert f"{NAME} is at commit {OTHER_COMMIT} on the hub, but {COMMIT} was downloaded" in message


def test_pickle_is_downloaded_only_with_consent(hub: FakeHub, client: Client) -> None:
    files = {name: content for name, content in SMALL_FILES.items() if name != "model.safetensors"}
    hub.repositories = {NAME: Repository({COMMIT: files})}
    message = client.error()
    assert f"{NAME} on {hub.url} holds its weights only as pytorch_model.bin" in message
    assert hub.downloaded() == set()
    client.resolve(allow_pickle=True)
    assert "pytorch_model.bin" in hub.downloaded()


def test_repository_without_a_checkpoint(hub: FakeHub, client: Client) -> None:
    hub.repositories = {NAME: Repository({COMMIT: {"README.md": b""}})}
    assert f"{NAME} on {hub.url} has no config.json" in client.error()


@pytest.mark.parametrize("name", ["owner/a..b", "owner/" + "x" * 200])
def test_name_that_no_hub_accepts(client: Client, name: str) -> None:
    assert f"'{name}' is neither an existing folder nor a hub id: " in client.error(name)


def test_wanted_files_of_a_sharded_checkpoint() -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    pickles = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    indexes = ["model.safetensors.index.json", "pytorch_model.bin.index.json"]
    others = ["sub/model-00001-of-00002.safetensors", "training_args.bin", "optimizer.bin", "adapter.safetensors"]
    names = ["config.json", *PROCESSOR_FILES, *shards, *pickles, *indexes, *others]
    safe = sorted(["config.json", *PROCESSOR_FILES, *shards, indexes[0]])
    assert wanted_files(names, "here", allow_pickle=True) == safe
    left = [name for name in names if name not in safe or name == "config.json"]
    assert wanted_files(left, "here", allow_pickle=True) == sorted(["config.json", *pickles, indexes[1]])
    with pytest.raises(CheckpointError, match="here holds its weights only as"):
        wanted_files(left, "here", allow_pickle=False)
