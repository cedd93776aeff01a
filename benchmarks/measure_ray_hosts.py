"""Runs ``align-embed --ray`` on three hosts, and kills in the middle; writes ``benchmarks/results/ray_hosts.json``.

    PYTHONPATH=tests python -m benchmarks.measure_ray_hosts build/align-tiny [--images 3000]

The hosts are network namespaces of this machine, joined by a bridge, each with an address and a /tmp of its own; only
root may make them, with ``ip`` and ``nsenter``. A head without CPUs, where the driver runs, and two workers with one.
While the job runs an actor is killed, then the process of one, then all of a host. It holds for all rows that they are
those of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align_serving.embed.ledger import LEDGER_NAME, read_ledger
from align_serving.embed.reading import open_embeddings
from benchmarks.result_files import ROOT, conditions, write_result
from support.sample_folders import images, write_files, write_tar

PORT, SHARD_ITEMS, MAX_SECONDS = 6379, 200, 400
ACTOR_KILLED_AT = 8  # calls that came back
PROCESS_KILLED_AT, HOST_KILLED_AT = 4, 7  # shards in the ledger
PROGRAM = f"""
import json, sys
import ray
from align_serving.embed import calls, command
take, tries = calls.Actors._take_rows, []
def hooked(self, reference):
    call, _ = self._running[reference]
    take(self, reference)
    tries.append(call.tries)
    if len(tries) == {ACTOR_KILLED_AT}:
        ray.kill(next(actor for _, actor in self._running.values()), no_restart=False)
calls.Actors._take_rows = hooked
code = command.main(sys.argv[1:])
print(json.dumps({{"answers": len(tries), "interrupted": sum(t > 0 for t in tries)}}))
sys.exit(code)
"""


@dataclass(frozen=True)
class Host:
    """A network namespace with a mount namespace, alive as long as its process `keeper`."""

    name: str
    keeper: subprocess.Popen[bytes]
    address: str

    def command(self, *arguments: Any) -> list[str]:
        return ["nsenter", "-t", str(self.keeper.pid), "-n", "-m", "--wd=.", *map(str, arguments)]

    def processes(self, beginning: str) -> list[int]:
        """Those in the namespace whose command line starts with `beginning`, or whose program is called so."""
        own, found = Path(f"/proc/{self.keeper.pid}/ns/net").readlink(), []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if (entry / "ns" / "net").readlink() == own and (
                    words[0].startswith(beginning) or Path(words[0]).name == beginning
                ):
                    found.append(int(entry.name))
            except OSError:  # it has ended
                continue
        return found


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """`count` hosts on one bridge."""
    keepers = [
        subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", "mount -t tmpfs none /tmp; exec sleep infinity"])
        for _ in range(count + 1)
    ]
    try:
        time.sleep(1)
        switch, *others = keepers
        made = [Host(f"host{index}", keeper, f"10.77.0.{index + 1}") for index, keeper in enumerate(others)]
        at_switch = Host("switch", switch, "").command
        run(at_switch("ip", "link", "add", "bridge", "type", "bridge"))
        run(at_switch("ip", "link", "set", "bridge", "up"))
        for host in made:
            pid = host.keeper.pid
            run(at_switch(*f"ip link add {host.name} type veth peer name eth0 netns {pid}".split()))
            run(at_switch(*f"ip link set {host.name} master bridge up".split()))
            run(host.command(*f"ip address add {host.address}/24 dev eth0".split()))
            run(host.command(*"ip link set eth0 up".split()))
            run(host.command(*"ip link set lo up".split()))
        yield made
    finally:
        for keeper in keepers:
            keeper.kill()
            keeper.wait()


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def start_ray(host: Host, environment: dict[str, str], head: Host | None) -> None:
    place = (
        ["--head", "--port", PORT, "--num-cpus", 0, "--include-dashboard=false"] if head is None else ["--num-cpus", 1]
    )
    address = [] if head is None else ["--address", f"{head.address}:{PORT}"]
    options = ["--node-ip-address", host.address, "--object-store-memory", 200 << 20, "--disable-usage-stats"]
    code = "from ray.scripts.scripts import main; main()"
    command = host.command(sys.executable, "-c", code, "start", *place, *address, *options)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"ray start on {host.name}: {done.stdout[-2000:]} {done.stderr[-2000:]}")


def kill(processes: list[int]) -> int:
    for process in processes:
        os.kill(process, signal.SIGKILL)
    return len(processes)


def shards(output: Path) -> int:
    return len(read_ledger(output).shards) if (output / LEDGER_NAME).exists() else 0


def embed_and_kill(made: list[Host], arguments: list[Any], output: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Runs the job in the first host; what was killed after how many shards, and what the driver saw."""
    head, worker, victim = made
    address = f"{head.address}:{PORT}"
    driver = subprocess.Popen(
        head.command(sys.executable, "-c", PROGRAM, *arguments, "-o", output, "--ray", address, "--actors", 2),
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    begin, killed = time.monotonic(), []
    steps = ((PROCESS_KILLED_AT, "process", worker, "ray::EmbeddingActor"), (HOST_KILLED_AT, "host", victim, "raylet"))
    for at, what, host, name in steps:
        while shards(output) < at or not (found := host.processes(name)):
            if driver.poll() is not None or time.monotonic() - begin > MAX_SECONDS:
                sys.exit("the job ended, or took too long, before all were killed")
            time.sleep(0.05)
        killed.append({"what": what, "host": host.name, "shards": shards(output), "processes": kill(found)})
        print(killed[-1], flush=True)
    told, _ = driver.communicate(timeout=MAX_SECONDS)
    if driver.returncode:
        sys.exit(f"align-embed: exit code {driver.returncode}")
    seen: dict[str, Any] = json.loads(told.splitlines()[-1])
    return {
        "killed": [{"what": "actor", "calls": ACTOR_KILLED_AT}, *killed],
        "seconds": time.monotonic() - begin,
        **seen,
    }


def compared(output: Path, expected: Path) -> dict[str, Any]:
    pairs = zip(open_embeddings(output).decoded(), open_embeddings(expected).decoded(), strict=True)
    worst, rows, same_ids = 0.0, 0, True
    for (ids, found), (expected_ids, wanted) in pairs:
        same_ids &= ids == expected_ids
        rows += len(ids)
        worst = max(worst, float(np.abs(found - wanted).max()))
    same_errors = (output / "errors.jsonl").read_bytes() == (expected / "errors.jsonl").read_bytes()
    return {"rows": rows, "same_ids": same_ids, "same_errors": same_errors, "max_abs": worst}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=3_000)
    options = parser.parse_args()
    load = os.getloadavg()
    rooms = [str(ROOT / room) for room in ("runtime", "tests")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(rooms), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as temporary, hosts(3) as made:
        folder = Path(temporary)
        drawn = images(options.images // 2) | {"bad.png": b"no image", "empty.png": b""}
        inputs = [write_files(folder / "images", drawn), write_tar(folder / "images.tar", drawn)]
        arguments = [options.bundle.resolve(), *inputs, "--shard-items", SHARD_ITEMS, "--threads", 1, "--quiet"]
        for host in made:
            start_ray(host, environment, None if host is made[0] else made[0])
        try:
            result = embed_and_kill(made, arguments, folder / "many", environment)
        finally:
            for host in made:
                kill([process for process in host.processes("") if process != host.keeper.pid])
        program = "import sys; from align_serving.embed.command import main; sys.exit(main())"
        run([sys.executable, "-c", program, *map(str, arguments), "-o", str(folder / "one")])
        result |= compared(folder / "many", folder / "one")
    print(json.dumps(result))
    facts = {"bundle": options.bundle.name, "items": 2 * len(drawn), "hosts": [host.address for host in made]}
    write_result("ray_hosts", conditions(load) | facts | result)


if __name__ == "__main__":
    main()
