"""Requests that are wrong: the status, and an error in OpenAI's form that names the key."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import pytest
from starlette.testclient import TestClient

from support.running_service import NAME, body_of, data_uri, png, post

JSON = {"content-type": "application/json"}


def bomb(width: int = 40_000, height: int = 40_000) -> bytes:
    """A PNG of 1.6 gigapixels in a few hundred bytes; only its head is there."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


WRONG_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "no input": ({}, "input"),
    "null input": ({"input": None}, "input"),
    "empty list": ({"input": []}, "input"),
    "number": ({"input": 3.5}, "input"),
    "token ids": ({"input": [1, 2, 3]}, "input"),
    "lists of token ids": ({"input": [[1, 2], [3]]}, "input"),
    "nested texts": ({"input": [["a cat"]]}, "input"),
    "null item": ({"input": ["a", None]}, "input"),
    "bool item": ({"input": [True]}, "input"),
    "empty object": ({"input": {}}, "input"),
    "object with both": ({"input": {"text": "a", "image": "b"}}, "input"),
    "object with a number": ({"input": [{"image": 3}]}, "input"),
    "unknown object": ({"input": [{"audio": "x"}]}, "input"),
    "braces": ({"input": [{"{x}": "{0} {{ }}"}]}, "input"),
    "too many to look at": ({"input": ["a"] * 70_000}, "input"),
    "unknown key": ({"input": "a", "encodingFormat": "float"}, "encodingFormat"),
    "unknown format": ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    "format as a number": ({"input": "a", "encoding_format": 1}, "encoding_format"),
    "fewer dimensions": ({"input": "a", "dimensions": 32}, "dimensions"),
    "more dimensions": ({"input": "a", "dimensions": 97}, "dimensions"),
    "no dimensions": ({"input": "a", "dimensions": 0}, "dimensions"),
    "dimensions as text": ({"input": "a", "dimensions": "96"}, "dimensions"),
    "dimensions as float": ({"input": "a", "dimensions": 96.0}, "dimensions"),
    "user as number": ({"input": "a", "user": 5}, "user"),
    "model as number": ({"input": "a", "model": 5}, "model"),
    "unknown modality": ({"input": "a", "modality": "audio"}, "modality"),
    "not base64": ({"input": {"image": "@@@@"}}, "input"),
    "not ASCII": ({"input": {"image": "äöü="}}, "input"),
    "data URI without base64": ({"input": "data:image/png,abc"}, "input"),
    "data URI without data": ({"input": "data:image/png;base64,"}, "input"),
    "no image": ({"input": ["a", {"image": base64.b64encode(b"hello").decode()}]}, "input"),
    "cut image": ({"input": [data_uri(png()[:60])]}, "input"),
    "decompression bomb": ({"input": data_uri(bomb())}, "input"),
    "URL": ({"input": {"image": "https://example.com/a.png"}}, "input"),
    "metadata URL": ({"input": {"image": "http://169.254.169.254/latest"}}, "input"),
    "file URL": ({"input": {"image": "file:///etc/passwd"}}, "input"),
    "path": ({"input": {"image": "/etc/passwd"}}, "input"),
}


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_a_wrong_value_is_named(client: TestClient, name: str) -> None:
    values, param = WRONG_VALUES[name]
    answer = client.post("/v1/embeddings", json={"model": NAME} | values)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert 10 < len(error["message"]) <= 500
    assert error["message"].isprintable()


WRONG_BODIES = {
    "empty": b"",
    "not JSON": b"{model}",
    "array": b"[]",
    "string": b'"a"',
    "null": b"null",
    "NaN": b'{"model": NaN}',
    "infinity": b'{"model": -Infinity}',
    "deep arrays": b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 70 + b"1" + b"}" * 70,
    "key twice": b'{"model": "align-tiny", "input": "a", "input": "b"}',
    "key of an item twice": b'{"model": "align-tiny", "input": {"text": "a", "text": "b"}}',
    "half of a surrogate pair": b'{"model": "align-tiny", "input": "\\ud800"}',
    "not UTF-8": b'{"model": "align-tiny", "input": "\xff"}',
    "UTF-16": '{"model": "align-tiny", "input": "a"}'.encode("utf-16"),
    "long number": b'{"model": "align-tiny", "dimensions": ' + b"9" * 100_000 + b"}",
    "millions of numbers": b'{"input": [' + b"1," * 300_001 + b"1]}",
    "a thousand unknown keys": json.dumps({f"key {index}": 1 for index in range(1000)}).encode(),
    "a long unknown key": json.dumps({"model": NAME, "input": "a", "k" * 1_000_000: 1}).encode(),
    "trailing data": b'{"model": "align-tiny", "input": "a"} {}',
}


@pytest.mark.parametrize("name", WRONG_BODIES)
def test_a_body_that_is_not_an_object_of_strict_json(client: TestClient, name: str) -> None:
    answer = client.post("/v1/embeddings", content=WRONG_BODIES[name], headers=JSON)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert len(answer.content) < 2000


WRONG_HEADS = {
    "no type": {},
    "text": {"content-type": "text/plain"},
    "form": {"content-type": "application/x-www-form-urlencoded"},
    "other JSON": {"content-type": "application/problem+json"},
    "other charset": {"content-type": "application/json; charset=utf-16"},
    "compressed": JSON | {"content-encoding": "gzip"},
}


@pytest.mark.parametrize("name", WRONG_HEADS)
def test_only_plain_json_is_read(client: TestClient, name: str) -> None:
    answer = client.post("/v1/embeddings", content=body_of(input="a"), headers=WRONG_HEADS[name])
    assert (answer.status_code, answer.json()["error"]["type"]) == (415, "invalid_request_error")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'])
def test_utf_8_may_be_named(client: TestClient, kind: str) -> None:
    assert client.post("/v1/embeddings", content=body_of(input="a"), headers={"content-type": kind}).status_code == 200


def test_unknown_models_paths_and_methods(client: TestClient) -> None:
    unknown = post(client, input="a", model="gpt-4")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert client.get("/v1/models/gpt-4").json()["error"]["code"] == "model_not_found"
    assert (client.get("/v2").status_code, client.get("/v2").json()["error"]["code"]) == (404, "not_found")
    method = client.get("/v1/embeddings")
    assert (method.status_code, method.headers["allow"], method.json()["error"]["param"]) == (405, "POST", None)
    for page in ("/docs", "/redoc", "/v1/embeddings/"):
        assert client.get(page).status_code == 404


CLASSIFY = {
    "no labels": ({"input": data_uri(png()), "labels": []}, "labels"),
    "labels as text": ({"input": data_uri(png()), "labels": "cat"}, "labels"),
    "label as number": ({"input": data_uri(png()), "labels": [1]}, "labels"),
    "a hundred thousand labels": ({"input": data_uri(png()), "labels": [1] * 100_000}, "labels"),
    "template without a place": ({"input": data_uri(png()), "labels": ["cat"], "template": "cat"}, "template"),
    "a text": ({"input": {"text": "cat"}, "labels": ["cat"]}, "input"),
    "no images": ({"input": [], "labels": ["cat"]}, "input"),
}


@pytest.mark.parametrize("name", CLASSIFY)
def test_classify_names_the_wrong_value(client: TestClient, name: str) -> None:
    values, param = CLASSIFY[name]
    answer = post(client, "/v1/classify", **values)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_an_error_names_the_place_and_does_not_repeat_the_input(client: TestClient) -> None:
    answer = post(client, input=["a", {"image": "@" * 1_000_000}])
    message = answer.json()["error"]["message"]
    assert message.startswith("input[1]: ")
    assert len(message) <= 500


def test_an_unexpected_error_says_nothing_of_itself(make_client, opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(type(opened.towers), "embed_texts", failing)
    answer = post(make_client(), input="a")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text
