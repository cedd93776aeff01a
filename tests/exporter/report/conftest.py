"""The record that the report's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from align_exporter.report.record import BuildRecord
from support.build_records import tiny_record


@pytest.fixture(scope="session")
def record(tiny_bundle: Path) -> BuildRecord:
    return tiny_record(tiny_bundle)
