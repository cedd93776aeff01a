"""The client of the hub in this process, with settings of its own."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants


class HubSettings:
    """The environment variables of huggingface_hub; `home` is that of its cache."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path, url: str) -> None:
        self.home, self._patch = home, monkeypatch
        for name in [name for name in os.environ if name.startswith("HF_")]:
            monkeypatch.delenv(name)
        self.set(HF_HOME=str(home), HF_ENDPOINT=url, NO_PROXY="127.0.0.1")

    def set(self, **variables: str) -> None:
        """huggingface_hub reads its variables once, when its constants are imported."""
        for name, value in variables.items():
            self._patch.setenv(name, value)
        close_session()
        importlib.reload(constants)


@contextmanager
def hub_settings(home: Path, url: str) -> Iterator[HubSettings]:
    """Settings that are taken back at the end."""
    with pytest.MonkeyPatch.context() as patch:
        yield HubSettings(patch, home, url)
    close_session()
    importlib.reload(constants)
