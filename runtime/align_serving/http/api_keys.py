"""API keys of a service, from a file and from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from align_runtime.errors import ConfigurationError
from align_runtime.regular_files import read_regular

KEY_VARIABLE = "ALIGN_API_KEY"
MAX_KEY_FILE = 1 << 20


def read_keys(path: Path) -> list[str]:
    """The API keys in the file `path`, one per line.

    Raises:
        ConfigurationError: it cannot be read, or holds none, or one that no HTTP header can carry.
    """
    try:
        text = read_regular(path, MAX_KEY_FILE, ConfigurationError).decode("utf-8-sig")
    except UnicodeDecodeError:
        text = ""
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    if not keys or not all(map(_can_be_sent, keys)):
        raise ConfigurationError(f"{path} holds no API key; expected one of printable ASCII characters per line")
    return keys


def environment_keys(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The API key in `KEY_VARIABLE`; none where it is not set.

    Raises:
        ConfigurationError: it is set and empty, as by a secret that is missing, which would open the service to
            everyone; or no HTTP header can carry it. The message does not show it.
    """
    key = environment.get(KEY_VARIABLE)
    if key is None:
        return ()
    if not key.strip():
        raise ConfigurationError(f"{KEY_VARIABLE} is empty; give it a key, or unset it for a service without keys")
    if not _can_be_sent(key.strip()):
        raise ConfigurationError(f"{KEY_VARIABLE} holds no API key; expected one of printable ASCII characters")
    return (key.strip(),)


def _can_be_sent(key: str) -> bool:
    return key.isascii() and key.isprintable() and " " not in key
