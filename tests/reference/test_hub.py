"""Download from a hub: a fake one on the loopback interface, and the client in its own process, set up by variables."""

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
from align_reference.hub import wanted_files
from align_runtime.errors import CheckpointError
from support.checkpoints import build_model, small_config, write_checkpoint
from support.fake_hub import COMMIT, OTHER_COMMIT, FakeHub, Repository, serve

ROOT = Path(__file__).parents[2]
NAME = "owner/align-tiny"

# resolve() for a hub id, without torch: what it adds is the CheckpointSource.
CLIENT = """
import json, sys
from align_reference.hub import download
from align_runtime.errors import CheckpointError
try:
    folder, commit = download(sys.argv[1], sys.argv[2] or None, allow_pickle=sys.argv[3] == "pickle")
    print(json.dumps({"folder": str(folder), "commit": commit}))
except CheckpointError as error:
    print(json.dumps({"error": str(error)}))
"""
RESOLVE = """
import json, sys
from align_reference.checkpoint import load_model
from align_reference.source import resolve
source = resolve(sys.argv[1], sys.argv[2] or None, allow_pickle=sys.argv[3] == "pickle")
load_model(source)
print(json.dumps({"folder": str(source.folder), "commit": source.revision, "name": source.name}))
"""

NAMES = (
    "config.json model.safetensors pytorch_model.bin tf_model.h5 flax_model.msgpack README.md onnx/model.safetensors "
    "tokenizer.json vocab.txt preprocessor_config.json"
).split()
SMALL_FILES = {name: f"content of {name}".encode() for name in NAMES}  # all different: the cache stores equal ones once
USED = {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "preprocessor_config.json"}


class Client:
    """Runs the client with one cache; `url` is what HF_ENDPOINT says."""

    def __init__(self, home: Path, url: str) -> None:
        self.home, self.url = home, url

    def run(
        self, name: str = NAME, revision: str = "", pickle: str = "", code: str = CLIENT, **variables: str
    ) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment = {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join((str(ROOT / "reference"), str(ROOT / "runtime"))),
            "NO_PROXY": "127.0.0.1",
            **variables,
        }
        command = [sys.executable, "-c", code, name, revision, pickle]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        answer: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def error(self, name: str = NAME, revision: str = "", pickle: str = "", **variables: str) -> str:
        message = self.run(name, revision, pickle, **variables)["error"]
        assert "\n" not in message
        return message


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serve(FakeHub({NAME: Repository({COMMIT: SMALL_FILES})})) as running:
        yield running


@pytest.fixture
def client(hub: FakeHub, tmp_path: Path) -> Client:
    return Client(tmp_path / "home", hub.url)


def test_checkpoint_from_the_hub_is_the_model(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", small_config())
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with serve(FakeHub({NAME: Repository({COMMIT: files})})) as hub:
        answer = Client(tmp_path / "home", hub.url).run(code=RESOLVE)
    assert (answer["name"], answer["commit"]) == (NAME, COMMIT)
    downloaded = Path(answer["folder"])
    assert downloaded.is_relative_to(tmp_path / "home")
    assert {path.name for path in downloaded.iterdir()} == set(files)
    expected = build_model(small_config()).state_dict()
    state = load_model(downloaded).state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_only_what_is_needed_is_downloaded(hub: FakeHub, client: Client) -> None:
    answer = client.run()
    assert answer["commit"] == COMMIT
    assert {path.name for path in Path(answer["folder"]).iterdir()} == USED == hub.downloaded()


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_of_the_download_is_shown_unless_quiet(client: Client, quiet: bool) -> None:
    code = f"""
import io, json, sys
from align_reference.source import resolve
sys.stderr = io.StringIO()
resolve(sys.argv[1], quiet={quiet})
print(json.dumps({{"printed": sys.stderr.getvalue()}}))
"""
    assert ("Fetching" in client.run(code=code)["printed"]) != quiet
    assert (client.run(code=code)["printed"] == "") == quiet


def test_second_time_comes_from_the_cache(hub: FakeHub, client: Client) -> None:
    first = client.run()
    hub.requests.clear()
    assert client.run() == first
    assert hub.downloaded() == set()


def test_revision(hub: FakeHub, client: Client) -> None:
    other = {**SMALL_FILES, "config.json": b'{"other": 1}'}
    refs = {"main": COMMIT, "v2": OTHER_COMMIT, "refs/pr/1": OTHER_COMMIT}
    hub.repositories = {NAME: Repository({COMMIT: SMALL_FILES, OTHER_COMMIT: other}, refs)}
    assert client.run()["commit"] == COMMIT
    for revision in ("v2", "refs/pr/1", OTHER_COMMIT):
        answer = client.run(revision=revision)
        assert answer["commit"] == OTHER_COMMIT
        assert (Path(answer["folder"]) / "config.json").read_bytes() == b'{"other": 1}'


def test_unknown_revision(hub: FakeHub, client: Client) -> None:
    message = f"{NAME} has no revision 'v9' on {hub.url}: give a branch, a tag or a full commit of it"
    assert client.error(revision="v9") == message


def test_unknown_model(hub: FakeHub, client: Client) -> None:
    assert client.error("owner/nothing") == (
        f"there is no folder owner/nothing here, and the hub {hub.url} shows no such model: check the spelling; if it "
        "is private, log in with `hf auth login` or set HF_TOKEN"
    )


@pytest.mark.parametrize("status", [401, 403])
def test_gated_model(hub: FakeHub, client: Client, status: int) -> None:
    # The hub lists the files of a gated model to everybody, and refuses their content.
    hub.failures = {f"/{NAME}/resolve": (status, "GatedRepo")}
    assert client.error() == (
        f"{NAME} is gated: accept its conditions on {hub.url}/{NAME}, then log in with `hf auth login` or set HF_TOKEN"
    )


@pytest.mark.parametrize("path", ["/api/models", f"/{NAME}/resolve"])
def test_access_refused(hub: FakeHub, client: Client, path: str) -> None:
    hub.failures = {path: (403, "")}
    message = client.error()
    assert f"the hub {hub.url} refuses {NAME} (HTTP status 403)" in message
    assert "log in with `hf auth login` or set a valid HF_TOKEN" in message


def test_hub_that_fails(hub: FakeHub, client: Client) -> None:
    hub.failures = {"/api/models": (503, "")}
    message = (
        f"the hub {hub.url} refuses {NAME} at revision 'v2' (HTTP status 503): check HF_ENDPOINT, or try again later"
    )
    assert client.error(revision="v2") == message


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_unreachable_hub(hub: FakeHub, client: Client) -> None:
    client.run()  # a copy in the cache is not used silently: the hub may have moved on
    client.url = f"http://127.0.0.1:{unused_port()}"
    message = client.error()
    assert f"the hub {client.url} cannot be reached for {NAME}" in message
    assert "Connection refused" in message
    assert (
        "check the network and HF_ENDPOINT, set HF_HUB_OFFLINE=1 to use a copy in the cache, or give a local" in message
    )


def test_server_that_is_no_hub(hub: FakeHub, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeHub, "answer", lambda self, path: (200, {}, b"<html>Please log in</html>"))
    message = client.error()
    assert f"the hub {hub.url} cannot be reached for {NAME}, or is no Hugging Face hub (JSONDecodeError" in message


def test_offline_uses_the_cache(hub: FakeHub, client: Client) -> None:
    online = client.run()
    hub.requests.clear()
    assert client.run(HF_HUB_OFFLINE="1") == online
    assert hub.requests == []


def test_offline_without_a_copy(client: Client) -> None:
    assert client.error(revision="v2", HF_HUB_OFFLINE="1") == (
        f"{NAME} at revision 'v2' is not in the cache {client.home}/hub and HF_HUB_OFFLINE is set: unset it to "
        "download, or give a local folder"
    )


def test_offline_with_half_a_copy(client: Client) -> None:
    (Path(client.run()["folder"]) / "model.safetensors").unlink()
    assert f"{NAME} in the cache" in (message := client.error(HF_HUB_OFFLINE="1"))
    assert "holds no weights; one of model.safetensors" in message


def test_hub_that_moves_on_and_fails_during_the_download(hub: FakeHub, client: Client) -> None:
    client.run()
    hub.repositories = {NAME: Repository({OTHER_COMMIT: SMALL_FILES}, {"main": OTHER_COMMIT})}
    hub.failures = {f"/api/models/{NAME}/revision": (503, "")}  # the client's second request; it then uses its cache
    message = client.error()
    assert f"{NAME} is at commit {OTHER_COMMIT} on the hub, but {COMMIT} was fetched" in message


@pytest.mark.parametrize(("pickle", "fetched"), [("", False), ("pickle", True)])
def test_pickle_is_downloaded_only_with_consent(hub: FakeHub, client: Client, pickle: str, fetched: bool) -> None:
    files = {name: content for name, content in SMALL_FILES.items() if name != "model.safetensors"}
    hub.repositories = {NAME: Repository({COMMIT: files})}
    answer = client.run(pickle=pickle)
    assert ("pytorch_model.bin" in hub.downloaded()) == fetched
    if not fetched:
        assert f"{NAME} on {hub.url} holds its weights only as pytorch_model.bin" in answer["error"]
        assert hub.downloaded() == set()


def test_repository_without_a_checkpoint(hub: FakeHub, client: Client) -> None:
    hub.repositories = {NAME: Repository({COMMIT: {"README.md": b""}})}
    assert client.error() == f"{NAME} on {hub.url} holds no config.json: it is not a transformers checkpoint"


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
