"""`make fuzz`: every reader under libFuzzer (atheris), guided by the coverage of our Python code.

The time of a target is that of the processor, so that a busy machine tries as much as an idle one.

Each target runs in a process of its own, so that a crash, a hang or too much memory is found too. Inputs that fail are
kept in OUT/TARGET/, the figures are printed and written to OUT/fuzz.json.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

MAX_BYTES = 1 << 20
INPUT_SECONDS = 20  # for one input
MEMORY_MIB = 3072
MOST_FAULTS = 10
INSTRUMENTED = ["align_runtime", "align_calibration"]
STATISTICS = {"executions": r"number_of_executed_units:\s+(\d+)", "edges": r"cov: (\d+)"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m attacks.fuzzing", description=__doc__)
    parser.add_argument("bundle", type=Path, help="a small bundle, e.g. build/align-tiny")
    parser.add_argument("--targets", nargs="+", help="default: all")
    parser.add_argument("--seconds", type=int, default=600, help="of CPU time for each target (default: 600)")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the process of one target
    options = parser.parse_args()
    if options.one is not None:
        _fuzz(options.bundle, options.one, options.seconds, options.out)
    names = options.targets or _names(options.bundle)
    results = {name: _run(options, name) for name in names}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fuzz.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    failed = [name for name, result in results.items() if result["failures"]]
    print(f"faults: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _names(bundle: Path) -> list[str]:
    from attacks.fuzzing.targets import open_targets

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        return list(open_targets(bundle, Path(folder)))


def _run(options: argparse.Namespace, name: str) -> dict[str, object]:
    """Fuzzes one target until its time is over. After a fault the process begins again with what is left."""
    kept = options.out / name
    kept.mkdir(parents=True, exist_ok=True)
    executions, edges, failures, used, before = 0, 0, list[str](), 0.0, _cpu_of_children()
    while (left := options.seconds - used) > 1 and len(failures) < MOST_FAULTS:
        command = [sys.executable, "-m", "attacks.fuzzing", str(options.bundle), "--one", name]
        command += ["--seconds", str(math.ceil(left)), "--out", str(kept)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
        )
        used = _cpu_of_children() - before
        found = {key: re.findall(pattern, done.stdout) for key, pattern in STATISTICS.items()}
        executions += int(found["executions"][-1]) if found["executions"] else 0
        edges = max([edges, *map(int, found["edges"])])
        if done.returncode:
            failures.append(_described(done.stdout))
            print(f"{name}: {failures[-1]}", file=sys.stderr)
            if not found["executions"]:  # it never started
                break
    print(f"{name}: {executions} inputs, {edges} edges, {used:.0f} s of CPU, {len(failures)} faults", flush=True)
    return {"executions": executions, "edges": edges, "cpu_seconds": round(used), "failures": failures}


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _described(output: str) -> str:
    """Of what a failed process printed, the lines that tell the fault: a traceback, libFuzzer's summary, the file."""
    lines = [line for line in output.splitlines() if not line.startswith(("INFO", "WARNING", "#", "0x", "stat::"))]
    return "\n".join(line[:300] for line in lines)[-3000:]


def _fuzz(bundle: Path, name: str, seconds: int, kept: Path) -> None:
    """Runs libFuzzer in this process; it ends the process."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from attacks.fuzzing.targets import open_targets

    folder = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="fuzz-"))
    target = open_targets(bundle, folder)[name]
    corpus = kept / "corpus"
    corpus.mkdir(exist_ok=True)
    for index, seed in enumerate(target.seeds):
        (corpus / f"seed-{index}").write_bytes(seed)

    def check(data: bytes) -> None:
        target.check(data)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.3:
            return atheris.Mutate(data, max_size)
        return target.mutate(data, random)[:max_size]

    flags = [f"-max_total_time={seconds}", f"-timeout={INPUT_SECONDS}", f"-rss_limit_mb={MEMORY_MIB}"]
    flags += [f"-max_len={MAX_BYTES}", f"-artifact_prefix={kept}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
