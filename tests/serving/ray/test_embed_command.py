"""``align-embed --ray`` on a cluster of several node processes: the result of a single process, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from align_serving.embed import command
from align_serving.embed.calls import Actors
from align_serving.embed.ledger import LEDGER_NAME, read_ledger
from align_serving.embed.reading import open_embeddings
from support.redirected import ROOMS
from support.sample_folders import image, images, write_files, write_tar

pytestmark = [pytest.mark.slow, pytest.mark.ray]
MAX_SECONDS = 500  # for a machine that starts a worker in half a minute; alone it takes three seconds
CONNECTED = "align_serving.embed.cluster.connected"
Embed = Callable[..., int]


@pytest.fixture
def embed(cluster: Any, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Embed:
    """align-embed in this process, which is connected to the cluster."""
    monkeypatch.setattr(CONNECTED, lambda *_: nullcontext())

    def call(inputs: list[Any], output: Path, *options: Any, bundle: Path = tiny_bundle) -> int:
        arguments = [bundle, *inputs, "-o", output, "--threads", 1, "--quiet", *options]
        return command.main([str(argument) for argument in arguments])

    return call


def check_equal(output: Path, expected: Path) -> None:
    """The same shards, ids and errors, and rows to 1e-6."""
    pairs = zip(open_embeddings(output).decoded(), open_embeddings(expected).decoded(), strict=True)
    for (ids, rows), (expected_ids, expected_rows) in pairs:
        assert ids == expected_ids
        np.testing.assert_allclose(rows, expected_rows, rtol=0, atol=1e-6)
    assert (output / "errors.jsonl").read_bytes() == (expected / "errors.jsonl").read_bytes()
    assert [shard.digest for shard in read_ledger(output).shards] == [
        shard.digest for shard in read_ledger(expected).shards
    ]
    assert read_ledger(output).complete


def test_bad_images_among_others(embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, which actors read, and members of an archive, which the driver reads; shards smaller than a call."""
    good = images(100)
    bad = {"5.png": b"no image", "6.png": b"", "70.png": image(3)[:60]}
    write_files(tmp_path / "a", good | bad)
    write_tar(tmp_path / "b.tar", good | bad)
    (tmp_path / "list.txt").write_text(f"missing.png\na/5.png\nhttps://example.org/a.png\na/{min(good)}\n")
    monkeypatch.chdir(tmp_path)
    inputs = ["a", "b.tar", "list.txt"]
    options = ["--images", "--shard-items", 40]
    assert embed(inputs, tmp_path / "one", *options) == 0
    assert embed(inputs, tmp_path / "many", *options, "--ray", "auto") == 0
    check_equal(tmp_path / "many", tmp_path / "one")
    assert len((tmp_path / "many" / "errors.jsonl").read_bytes().splitlines()) == 2 * 3 + 3


def test_actors_that_die_in_the_middle(embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray starts the first one again, and not the second: the actor that is left computes what it had."""
    monkeypatch.setattr("align_serving.embed.calls.CALL_ITEMS", {"texts": 25})
    (tmp_path / "a.txt").write_text("\n".join(f"a photo of {index}" for index in range(1_500)))
    tries, take, killed = [], Actors._take_rows, []

    def kill(self: Actors, reference: Any) -> None:
        call, _ = self._running[reference]
        take(self, reference)
        tries.append(call.tries)
        busy = next((actor for running, (_, actor) in self._running.items() if not is_done(running)), None)
        if busy is not None and len(killed) < 2 and len(tries) >= (12, 30)[len(killed)]:
            ray.kill(busy, no_restart=bool(killed))
            killed.append(busy)

    monkeypatch.setattr(Actors, "_take_rows", kill)
    assert embed([tmp_path / "a.txt"], tmp_path / "many", "--shard-items", 100, "--ray", "auto") == 0
    assert len(killed) == 2
    assert max(tries) > 0, "no call ran twice, so none was interrupted"
    assert embed([tmp_path / "a.txt"], tmp_path / "one", "--shard-items", 100) == 0
    check_equal(tmp_path / "many", tmp_path / "one")


def is_done(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])


def test_a_driver_that_is_killed(embed: Embed, cluster: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    texts = tmp_path / "a.txt"
    texts.write_text("\n".join(f"a photo of {index}" for index in range(1_500)))
    options = ["--shard-items", 100]
    program = "import sys; from align_serving.embed.command import main; sys.exit(main())"
    arguments = [tiny_bundle, texts, "-o", tmp_path / "many", "--quiet", *options, "--ray", cluster.address]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(ROOMS)}
    driver = subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], env=environment)
    end = time.monotonic() + MAX_SECONDS
    while not (finished := finished_shards(tmp_path / "many")):
        assert driver.poll() is None, "it ended before it was killed"
        assert time.monotonic() < end
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert 0 < finished < 15
    assert embed([texts], tmp_path / "many", *options, "--ray", "auto") == 0
    assert embed([texts], tmp_path / "one", *options) == 0
    check_equal(tmp_path / "many", tmp_path / "one")


def finished_shards(folder: Path) -> int:
    return len(read_ledger(folder).shards) if (folder / LEDGER_NAME).exists() else 0


def test_a_bundle_that_a_node_lacks(
    embed: Embed, bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def without_bundle(*_: Any) -> Iterator[None]:
        bundle_copy.rename(tmp_path / "elsewhere")
        yield

    monkeypatch.setattr(CONNECTED, without_bundle)
    (tmp_path / "a.txt").write_text("text")
    assert embed([tmp_path / "a.txt"], tmp_path / "out", "--ray", "auto", bundle=bundle_copy) == 2
    told = capsys.readouterr().err
    assert "align-embed: error: node " in told
    assert "every node needs the bundle at the same path" in told
    assert "Traceback" not in told


def test_an_image_that_a_node_lacks(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking, exists = tmp_path / "only-here.png", Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path == lacking or exists(path))  # in this process, the driver
    (tmp_path / "a.txt").write_text(str(lacking))
    assert embed([tmp_path / "a.txt"], tmp_path / "out", "--images", "--ray", "auto") == 2
    assert f"{lacking} is not there on a node; images in files must be at the same path" in capsys.readouterr().err
