"""How many processors a process may use: its affinity, and quotas of control groups, read from made-up trees."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import align_runtime
from align_runtime import InputError, Model, processors
from align_runtime.processors import available_cores, limited_cores

MOUNT_2 = "30 23 0:26 {root} {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
MOUNT_1 = "32 31 0:29 {root} {mount} rw,relatime - cgroup cgroup rw,cpu,cpuacct"


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


def made(folder: Path, own: str, mounts: list[str], files: dict[str, str]) -> int:
    """`available_cores` with the files ``/proc/self/cgroup`` and ``mountinfo``, and those of control groups."""
    for name, text in ({"proc/self/cgroup": own, "proc/self/mountinfo": "\n".join(mounts)} | files).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return available_cores(folder)


V2 = MOUNT_2.format(root="/", mount="/sys/fs/cgroup")
V1 = MOUNT_1.format(root="/", mount="/sys/fs/cgroup/cpu,cpuacct")


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("100001 100000", 2), ("10000 100000", 1), ("50000 25000", 2),
     ("max 100000", 16), ("9900000 100000", 16), ("", 16), ("-1 100000", 16), ("0 100000", 16), ("200000 0", 16),
     ("200000", 16), ("x y", 16), ("1" * 5000 + " 1", 16)],
)  # fmt: skip
def test_a_quota_of_version_2(tmp_path: Path, quota: str, cores: int) -> None:
    assert made(tmp_path, "0::/", [V2], {"sys/fs/cgroup/cpu.max": quota}) == cores


@pytest.mark.parametrize(
    ("inner", "outer", "cores"), [("max", "300000", 3), ("200000", "300000", 2), ("400000", "300000", 3)]
)
def test_the_smallest_quota_of_the_hierarchy(tmp_path: Path, inner: str, outer: str, cores: int) -> None:
    group = "sys/fs/cgroup/kubepods/pod-1"
    files = {
        f"{group}/box/cpu.max": f"{inner} 100000",
        f"{group}/cpu.max": f"{outer} 100000",
        "sys/fs/cgroup/kubepods/other/cpu.max": "100000 100000",
    }
    assert made(tmp_path, "0::/kubepods/pod-1/box", [V2], files) == cores


@pytest.mark.parametrize(
    ("quota", "period", "cores"), [("250000", "100000", 3), ("-1", "100000", 16), ("100000", "", 16)]
)
def test_a_quota_of_version_1(tmp_path: Path, quota: str, period: str, cores: int) -> None:
    group = "sys/fs/cgroup/cpu,cpuacct/docker/abc"
    files = {f"{group}/cpu.cfs_quota_us": quota, f"{group}/cpu.cfs_period_us": period}
    own = "9:name=systemd:/docker/abc\n4:memory:/elsewhere\n2:cpu,cpuacct:/docker/abc\n0::/"
    assert made(tmp_path, own, [V1, V2], files) == cores


def test_inside_a_container_the_own_group_is_the_root_of_the_mount(tmp_path: Path) -> None:
    """Version 1 without a namespace: the path is that on the host, and the mount shows the own group alone."""
    mount = MOUNT_1.format(root="/docker/abc", mount=r"/sys/fs/cgroup/cpu\040set")
    files = {"sys/fs/cgroup/cpu set/cpu.cfs_quota_us": "200000", "sys/fs/cgroup/cpu set/cpu.cfs_period_us": "100000"}
    assert made(tmp_path, "2:cpu,cpuacct:/docker/abc", [mount], files) == 2
    for elsewhere in ("/docker/xyz", "/../.."):
        assert made(tmp_path, f"2:cpu,cpuacct:{elsewhere}", [mount], files) == 2


def test_no_control_groups_are_no_limit(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 16
    assert made(tmp_path, "nonsense\n\n:::", ["too short", "- -", "1 2 3 4 5 - cgroup"], {}) == 16
    (tmp_path / "sys/fs/cgroup/cpu.max").mkdir(parents=True)  # cannot be read
    assert made(tmp_path, "0::/", [V2], {}) == 16


def test_onnxruntime_chooses_only_where_the_whole_machine_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "available_cores", lambda: 16)
    assert limited_cores() == 16
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert limited_cores() is None


def test_load_follows_the_quota(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(tmp_path, "0::/", [V2], {"sys/fs/cgroup/cpu.max": "250000 100000"}) == 3
    monkeypatch.setattr(available_cores, "__defaults__", (tmp_path,))
    with align_runtime.load(tiny_bundle) as model:
        assert (model.info.threads, model.info.streams) == (3, 3)
        assert model._parts.decoders.count == model._parts.workers.count == 3
        session = model._parts.texts.tower._whole._session  # type: ignore[attr-defined]
        assert session.get_session_options().intra_op_num_threads == 3
    with align_runtime.load(tiny_bundle, threads=2, streams=1, decode_threads=5) as model:
        assert (model._parts.decoders.count, model._parts.workers.count) == (5, 1)


@pytest.mark.parametrize(("threads", "most"), [(1, 1), (3, 3)])
def test_threads_bound_the_tokenizer(tiny_bundle: Path, model: Model, threads: int, most: int) -> None:
    """It runs a batch on all cores, whatever it is told; a single text keeps one busy."""
    texts = [f"a photo of {index} hearts" for index in range(50)]
    with align_runtime.load(tiny_bundle, towers=("text",), threads=threads) as bound:
        backend = bound._parts.texts.tokenizer._backend
        now, seen, sizes = 0, 0, set()
        lock = threading.Lock()

        class Watched:
            def encode_batch_fast(self, batch: list[str]) -> object:
                nonlocal now, seen
                sizes.add(len(batch))
                with lock:
                    now += 1
                    seen = max(seen, now)
                time.sleep(0.002)
                found = backend.encode_batch_fast(batch)
                with lock:
                    now -= 1
                return found

        bound._parts.texts.tokenizer._backend = Watched()  # type: ignore[assignment]
        np.testing.assert_allclose(bound.embed_texts(texts), model.embed_texts(texts), rtol=0, atol=1e-5)
        assert (sizes, seen) == ({1}, most)
        with pytest.raises(InputError) as caught:
            bound.embed_texts([*texts[:40], 3, *texts])  # type: ignore[list-item]
        assert caught.value.index == 40
