"""What `support.build_once` shares between test processes: a change is noticed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.build_once import build_once, changed, shared_folder


def built(folder: Path) -> None:
    folder.mkdir()
    for name in ("kept", "written", "removed"):
        (folder / name).write_text("as built")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return SimpleNamespace(getbasetemp=lambda: tmp_path)


def test_a_folder_is_built_once(temporary: Any) -> None:
    folder = build_once(temporary, "bundle", built)
    assert build_once(temporary, "bundle", lambda _: pytest.fail("it was there")) == folder
    assert changed(shared_folder(temporary)) == []


def test_what_a_test_writes_is_noticed(temporary: Any) -> None:
    folder = build_once(temporary, "bundle", built)
    build_once(temporary, "other", built)
    (folder / "written").write_text("by a test")
    (folder / "removed").unlink()
    (folder / "added").touch()
    assert changed(shared_folder(temporary)) == ["bundle/added", "bundle/removed", "bundle/written"]
