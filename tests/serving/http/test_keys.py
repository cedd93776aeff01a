"""API keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align_runtime.errors import ConfigurationError
from align_serving.http.api_keys import KEY_VARIABLE, environment_keys, read_keys
from align_serving.http.opening import ServiceOptions
from support.running_service import post

KEYS = ("first-key", "second-key")
REFUSED: dict[str, dict[str, str]] = {
    "none": {},
    "another": {"authorization": "Bearer third-key"},
    "part": {"authorization": "Bearer first"},
    "empty": {"authorization": "Bearer "},
    "basic": {"authorization": "Basic first-key"},
    "without scheme": {"authorization": "first-key"},
    "both": {"authorization": "Bearer first-key second-key"},
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/openapi.json", "/nope"])
def test_without_a_key_nothing_is_told(make_client: Any, name: str, path: str) -> None:
    answer = make_client(api_keys=KEYS).get(path, headers=REFUSED[name])
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("key", KEYS)
def test_each_key_opens(make_client: Any, key: str) -> None:
    client = make_client(api_keys=KEYS)
    client.headers["authorization"] = f"bearer {key}"
    assert post(client, input="a cat").status_code == 200


def test_health_needs_no_key(make_client: Any) -> None:
    assert make_client(api_keys=KEYS).get("/healthz").json() == {"status": "ok"}


def test_a_file_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("\ufeffone\n\n  two  \r\n", encoding="utf-8")
    assert read_keys(file) == ["one", "two"]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"two words\n", "schlüssel".encode(), b"\xff\n"])
def test_a_file_without_keys(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError):
        read_keys(file)


def test_a_key_in_the_environment() -> None:
    assert environment_keys({}) == ()
    assert environment_keys({KEY_VARIABLE: " secret\n"}) == ("secret",)


@pytest.mark.parametrize("value", ["", " ", "two words", "schlüssel", "a\nb"])
def test_a_variable_without_a_key_does_not_open_the_service(value: str) -> None:
    with pytest.raises(ConfigurationError, match=KEY_VARIABLE) as caught:
        environment_keys({KEY_VARIABLE: value})
    assert not value.strip() or value not in str(caught.value)


def test_a_repr_does_not_tell_keys() -> None:
    assert "first-key" not in repr(ServiceOptions(api_keys=KEYS))
