"""A folder takes the place of another in three ways; whatever fails or dies, one of the two is whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import align_runtime
from align_runtime import Bundle, BundleError, folder_exchange
from align_runtime.errors import BuildError, ConfigurationError
from align_runtime.folder_exchange import COMPLETE, check_replaceable, companions, new_folder
from support.dying import MARKER, WAYS, build, content, fill, start, take
from support.mounts import run_with_mounts

TESTS = Path(__file__).parents[1]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    fill(tmp_path / "bundle", "old")
    return tmp_path / "bundle"


def renames_fail(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Path, Path], bool], code: int) -> None:
    """Without an exchange, too."""
    take("move", monkeypatch.setattr)
    real = os.rename

    def rename(source: Any, target: Any, **more: Any) -> None:
        if fails(Path(source), Path(target)):
            raise OSError(code, os.strerror(code), str(source))
        real(source, target, **more)

    monkeypatch.setattr(os, "rename", rename)


def program(*arguments: str) -> str:
    """What a Python process with the rooms and the tests on its path prints."""
    paths = [*map(str, (TESTS, Path(align_runtime.__file__).parents[1]))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


@pytest.mark.parametrize("way", WAYS)
def test_each_way_replaces_and_leaves_nothing(target: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take(way, monkeypatch.setattr)
    (target / "left.over").write_text("old")
    build(target)
    assert content(target) == "new"
    assert sorted(path.name for path in target.iterdir()) == [MARKER, "deep", "one"]
    assert [path.name for path in target.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EBUSY, errno.ESTALE])
def test_whatever_the_exchange_answers_the_slower_way_is_taken(
    target: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Libc:
        def renameat2(self, *arguments: object) -> int:
            folder_exchange.ctypes.set_errno(code)
            return -1

    monkeypatch.setattr(folder_exchange.ctypes, "CDLL", lambda *_, **__: Libc())
    build(target)
    assert content(target) == "new"


@pytest.mark.parametrize("way", WAYS)
def test_killed_before_any_step_one_of_the_two_is_whole(target: Path, way: str) -> None:
    """Every call that changes a folder is, in turn, the one before which the process dies; see `support.dying`."""
    outcomes = json.loads(program("-m", "support.dying", str(target), way))
    assert len(outcomes) > 10
    assert (outcomes[0], outcomes[-1]) == ("old", "new")
    assert (None in outcomes) == (way != "exchange")


@pytest.mark.parametrize("lost", [".", MARKER, "config.json"])
def test_the_reader_is_told_of_an_interrupted_replacement(tiny_bundle: Path, tmp_path: Path, lost: str) -> None:
    target = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    complete = folder_exchange.companion(target, COMPLETE)
    complete.mkdir()
    folder_exchange.remove(target / lost)
    with pytest.raises(BundleError, match="replacement was interrupted: move .*complete-"):
        Bundle.open(target)


def test_an_error_between_the_two_renames_restores_the_previous_content(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renames_fail(monkeypatch, lambda source, to: ".complete-" in source.name, errno.ENOSPC)
    with pytest.raises(BuildError, match="No space left on device.*: it is as it was; the new content is whole at"):
        build(target)
    assert content(target) == "old"
    (complete,) = companions(target, COMPLETE)  # not lost after all the work
    assert content(complete) == "new"


def test_an_interrupt_between_the_two_renames_restores_it_too(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def interrupt(source: Path, to: Path) -> bool:
        if ".complete-" in source.name:
            raise KeyboardInterrupt
        return False

    renames_fail(monkeypatch, interrupt, 0)
    with pytest.raises(KeyboardInterrupt):
        build(target)
    assert content(target) == "old"


def test_what_cannot_be_moved_stays_and_the_new_content_is_kept(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renames_fail(monkeypatch, lambda source, _: source == target, errno.ESTALE)
    with pytest.raises(BuildError, match="it is as it was; the new content is whole at"):
        build(target)
    assert content(target) == "old"
    assert content(companions(target, COMPLETE)[0]) == "new"


def test_a_folder_with_other_content_is_not_touched(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with new_folder(target) as made:
        fill(made, "new")
        complete = made.rename(folder_exchange.companion(target, COMPLETE))
    (target / MARKER).unlink()
    start(target)
    assert (target / "one").read_text() == "old"
    assert content(complete) == "new"


READ_ONLY_CONTENT = """
import os, sys
from pathlib import Path
from support.dying import build
os.chdir(sys.argv[1])
target = Path("bundle")
if os.geteuid() == 0:  # to whom nothing is read-only
    for path in [target.parent, target, *target.rglob("*")]:
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
build(target)
print(*(path.name for path in target.parent.iterdir()))
"""


def test_read_only_content_is_removed_too(target: Path) -> None:
    for folder in (target / "deep", target):
        folder.chmod(0o555)
    assert program("-c", READ_ONLY_CONTENT, str(target.parent)) == "bundle\n"
    assert content(target) == "new"


def test_long_names(tmp_path: Path) -> None:
    target = tmp_path / ("b" * 255)
    fill(target, "old")
    build(target)
    assert content(target) == "new"


# ── before the work ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_check_changes_nothing(target: Path) -> None:
    times = target.stat(), target.parent.stat().st_ino
    for folder in (target, target.parent / "new", target.parent / "new" / "deep" / "bundle"):
        check_replaceable(folder)
    assert content(target) == "old"
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (times[0].st_ino, times[0].st_mtime_ns)
    assert [path.name for path in target.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_where_nothing_can_be_written(target: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdir(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(ConfigurationError, match=os.strerror(code)):
        check_replaceable(target)


CHECK = """
import errno, sys
from pathlib import Path
from align_runtime.errors import ConfigurationError
from align_runtime.folder_exchange import *
try:
    check_replaceable(Path("m/bundle"))
except ConfigurationError as error:
    sys.exit(f"refused: {error}")
with new_folder(Path("m/bundle")) as made:
    (made / "align.json").write_text("new")
    replace(made, Path("m/bundle"), "align.json")
print(*(path.read_text() for path in Path("m").rglob("*") if path.is_file()))
"""
OVERLAY = "mkdir -p l/bundle/deep u w m; echo old > l/bundle/align.json; echo old > l/bundle/deep/one\n"
OVERLAY += "mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m"
EMPTY = "mkdir -p l/bundle u w m; mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m"
BIND = "mkdir -p source m/bundle; echo old > source/align.json; mount --bind source m/bundle"
EMPTY_BIND = "mkdir -p source m/bundle; mount --bind source m/bundle"
READ_ONLY = "mkdir m; mount -t tmpfs none m; mkdir m/bundle; mount -o remount,ro m"
FULL = "mkdir m; mount -t tmpfs -o size=64k none m; mkdir m/bundle; head -c 64k /dev/zero > m/full || true"
TMPFS = "mkdir m; mount -t tmpfs none m; mkdir m/bundle; echo old > m/bundle/align.json"


@pytest.mark.parametrize(("mounts", "refusal"), [
    (OVERLAY, None),
    (EMPTY, None),
    (TMPFS, None),
    (BIND, "m/bundle is a mount point and cannot be replaced"),
    (EMPTY_BIND, "m/bundle is a mount point and cannot be replaced"),
    (READ_ONLY, "Read-only file system"),
    (FULL, "No space left on device"),
])  # fmt: skip
def test_real_mounts(tmp_path: Path, mounts: str, refusal: str | None) -> None:
    done = run_with_mounts(tmp_path, mounts, CHECK)
    if refusal is None:
        assert (done.returncode, done.stdout, done.stderr) == (0, "new\n", "")
    else:
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("refused: ")
        assert refusal in done.stderr
