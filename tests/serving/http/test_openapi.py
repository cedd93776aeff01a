"""The OpenAPI document, and schemathesis on it: thousands of right and wrong requests against the running server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from align_serving.http.opening import Opened, ServiceOptions, application
from support.running_service import NAME, running

CONFIG = Path(__file__).with_name("schemathesis.toml")
PROGRAM = "import sys; from schemathesis.cli import schemathesis; schemathesis()"


def test_every_error_is_described_and_in_one_form(make_client: Any) -> None:
    document = make_client(api_keys=("k",)).get("/openapi.json", headers={"authorization": "Bearer k"}).json()
    assert set(document["paths"]) == {
        "/v1/embeddings", "/v1/classify", "/v1/models", "/v1/models/{model}", "/healthz", "/metrics"
    }  # fmt: skip
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            assert ("401" in operation["responses"]) == (path != "/healthz")
            errors = {status: answer for status, answer in operation["responses"].items() if status != "200"}
            assert {json.dumps(answer["content"]) for answer in errors.values()} == {
                '{"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}'
            }
    assert document["components"]["schemas"]["EmbeddingsRequest"]["properties"]["model"]["enum"] == [NAME]


def test_the_examples_are_answered(make_client: Any) -> None:
    client = make_client()
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for path, name in (("/v1/embeddings", "EmbeddingsRequest"), ("/v1/classify", "ClassifyRequest")):
        answer = client.post(path, json=schemas[name]["examples"][0])
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("keys", [(), ("secret",)])
def test_schemathesis_finds_nothing(opened: Opened, keys: tuple[str, ...], tmp_path: Path) -> None:
    with running(application(opened, ServiceOptions(api_keys=keys))) as address:
        command = [
            sys.executable, "-c", PROGRAM, "--config-file", str(CONFIG), "run", f"{address}/openapi.json",
            "--max-examples", "25", "--seed", "7", *(["-H", "Authorization: Bearer secret"] if keys else []),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 selected / 6 total" in done.stdout
