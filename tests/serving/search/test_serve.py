"""``align-search serve`` as a process, and who may ask it."""

from __future__ import annotations

import argparse
import signal
import time
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

from align_runtime.errors import ConfigurationError
from align_serving.http.listening import add_listening_options, chosen_keys, warn_if_open
from serving.search.conftest import CAPTIONS, Search
from support.running_service import served

PROGRAM = "import sys; from align_serving.search.command import main; sys.exit(main(sys.argv[1:]))"
KEY = {"authorization": "Bearer first-key"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("first-key\nsecond-key\n")
    return path


def test_a_process_finds_shows_and_ends_with_0(embedded: Path, tiny_bundle: Path, keys: Path) -> None:
    """Its page is open, and tells nothing; all the rest needs a key."""
    folders = [str(embedded / "images"), str(embedded / "texts")]
    arguments = ["serve", str(tiny_bundle), *folders, "--port", "0", "--threads", "1", "--api-key-file", str(keys)]
    with (
        served(PROGRAM, arguments, r"search at (http://127\.0\.0\.1:\d+)/\n") as (process, address),
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        assert "<h1>align-search</h1>" in client.get("/").text
        for path in ("/search.js", "/search.css"):
            assert client.get(path).status_code == 200
        refused = [client.get("/v1/folders"), client.get("/thumbnails/0/0"), client.get("/openapi.json")]
        refused += [client.post("/v1/search", json={"input": "a"}), client.get("/", headers={"host": "evil.example"})]
        assert [answer.status_code for answer in refused] == [401, 401, 401, 401, 400]
        assert [folder["rows"] for folder in client.get("/v1/folders", headers=KEY).json()["data"]] == [8, 4]
        best = found(client, input=CAPTIONS[0])[0]
        assert Path(str(best["id"])).name == "green-heart.png"
        assert found(client, like={"folder": 0, "row": best["row"]}, folder=1)[0]["text"] == CAPTIONS[0]
        with Image.open(BytesIO(client.get(str(best["thumbnail"]), headers=KEY).content)) as image:
            assert image.format == "JPEG"
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - start < 10
        assert process.stderr is not None
        assert "error" not in process.stderr.read()


def found(client: httpx.Client, **body: object) -> list[dict[str, object]]:
    answer = client.post("/v1/search", json=body, headers=KEY)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_listening_options(parser, port=8080)
    return parser.parse_args(arguments)


def test_keys_are_those_of_the_environment_and_of_the_file(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALIGN_API_KEY", raising=False)
    assert chosen_keys(parsed()) == ()
    monkeypatch.setenv("ALIGN_API_KEY", "third-key")
    assert chosen_keys(parsed("--api-key-file", str(keys))) == ("third-key", "first-key", "second-key")
    with pytest.raises(ConfigurationError):
        chosen_keys(parsed("--api-key-file", str(keys.parent / "missing")))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "203.0.113.7"])
def test_an_address_for_others_without_keys_is_said(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    warn_if_open("align-search", parsed("--host", host), (), "sees the images and texts")
    said = capsys.readouterr().err
    assert "no API key is set: whoever reaches this address sees the images and texts; see --api-key-file" in said
    warn_if_open("align-search", parsed("--host", host), ("key",), "sees the images and texts")
    warn_if_open("align-search", parsed(), (), "sees the images and texts")
    assert capsys.readouterr().err == ""


def test_a_wrong_port_is_told_before_an_index_is_built(
    search: Search, embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search("serve", embedded / "images", "--port", 99999, "--index-folder", tmp_path / "kept") == 2
    assert "--port is 99999" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
