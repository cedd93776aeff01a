"""align-export in a process of its own: killed at any moment, or without standard streams."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from align_runtime.bundle import Bundle
from support.digests import digests
from support.redirected import BROKEN, ROOMS, TESTS, Ended, redirected
from support.trace_cache import TraceCache

# What is killed need not trace anew, and waits for it before the last graph: the rest takes a fraction of a second.
EXPORT_THAT_WAITS = """
import sys, time
from pathlib import Path
import align_exporter.pipeline
from align_exporter.command import main
from align_exporter.graph.towers import PackedTextTower
from support.trace_cache import TraceCache

class Waiting(TraceCache):
    def __call__(self, tower, *options):
        if isinstance(tower, PackedTextTower):
            time.sleep(300)
        return super().__call__(tower, *options)

align_exporter.pipeline.trace = Waiting(Path(sys.argv.pop(1)))
sys.exit(main())
"""


@pytest.mark.parametrize("killer", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_any_moment_the_previous_bundle_is_intact(
    small_checkpoint: Path, tiny_bundle: Path, traces: TraceCache, tmp_path: Path, killer: signal.Signals
) -> None:
    target = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    before = digests(target)
    command = [sys.executable, "-c", EXPORT_THAT_WAITS, str(traces.folder), str(small_checkpoint), "-o", str(target)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*ROOMS, TESTS])}
    for phase in ("find ", "text fp32: passes"):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        assert process.stderr is not None
        for line in process.stderr:
            if phase in line:
                process.send_signal(killer)
                break
        else:
            pytest.fail(f"the export never reported the phase {phase!r}")
        process.stderr.read()
        code = process.wait()
        assert code == (-9 if killer == signal.SIGKILL else 130)
        assert digests(target) == before
        if killer == signal.SIGTERM:
            assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("redirection", [">&- 2>&-", BROKEN[1]])
def test_an_export_without_standard_streams(
    small_checkpoint: Path, traces: TraceCache, tmp_path: Path, redirection: str
) -> None:
    """Nothing that a library prints gets into a file of the bundle, and the exit code says that it is there.

    Where streams are closed, a file may get their numbers, so torch, which prints, traces anew.
    """
    arguments = [small_checkpoint, "-o", tmp_path / "bundle"]
    if redirection == BROKEN[1]:
        done = redirected("support.cached_export", [traces.folder, *arguments], redirection)
    else:
        done = redirected("align_exporter.command", arguments, redirection)
    assert done == Ended(0, "", "")
    bundle = Bundle.open(tmp_path / "bundle")
    for name in bundle.manifest.files:
        bundle.check_hash(name)
