"""What a job shows: rate, share done, time left."""

from __future__ import annotations

import io
import time

import pytest

from align_runtime.progress import Progress
from align_serving.embed.status import Status


def test_rate_share_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    status = Status(Progress(stream=io.StringIO()), "images", units=10_000)
    status.skip(5_000)
    now[0] = 500.0  # what was skipped, and the time until now, do not count in the rate
    status.begin()
    assert str(status) == "0 images · 0/s"
    for _ in range(100):
        status.read(10)
        status.add(1, 0)
    now[0] += 50
    status.add(1, 1)
    assert str(status) == "101 images · 2/s · 60% · 3 min left · 1 errors"
    now[0] += 50_000
    assert str(status).split(" · ")[3] == "2 days left"
    status.read(10_000)
    assert str(status).split(" · ")[2:4] == ["100%", "0 s left"]


def test_a_log_gets_the_status_as_the_line_of_the_running_phase() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, every=0.02)
    status = Status(progress, "texts", units=0)
    with progress.phase("embedding texts"):
        status.begin()
        deadline = time.monotonic() + 20
        while "3 texts" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.3)
            status.add(3 if status.items == 0 else 0, 0)
    assert "… 3 texts · " in stream.getvalue()
