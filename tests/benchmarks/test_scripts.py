"""Scripts that no test runs, for they take minutes or hours: all that they import is there."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

SCRIPTS = sorted(file.stem for file in Path(__file__).parent.glob("*.py") if not file.stem.startswith("test_"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_can_be_imported(script: str) -> None:
    import_module(f"benchmarks.{script}")
