"""The steps of the GPU check, in their order: the ones whose results matter most come first.

Each is a command of its own with a limit of time, so that one that hangs or fails costs no more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from align_runtime.manifest import MANIFEST_NAME
from benchmarks.result_files import ROOT

VERIFY = "import sys; from align_runtime.commands.verify import main; sys.exit(main())"
TINY, FULL = "align-tiny", "full-size"


@dataclass(frozen=True)
class Step:
    """A command to run.

    Attributes:
        command: arguments of the Python interpreter.
        limit: seconds after which it is ended; what it has written until then is kept.
        output: the JSON file that it writes, after every part of its work; None if it prints JSON, or has no result.
    """

    name: str
    command: Sequence[str]
    limit: float
    output: Path | None = None


@dataclass(frozen=True)
class Target:
    """What is checked.

    Attributes:
        devices: of the runtime, e.g. ``("cuda", "tensorrt")``; ``("cpu",)`` for a dry run.
        is_dry: small models and few rounds.
        engines: whether TensorRT engines are built.
    """

    devices: tuple[str, ...] = ("cuda",)
    is_dry: bool = False
    engines: bool = False


def steps(work: Path, target: Target) -> list[Step]:
    """All steps of `target`, which write into the folder `work`; bundles there serve unless engines are built."""
    tiny, full, checkpoint = work / TINY, work / FULL, work / "checkpoint"
    engine = ["--engine"] if target.engines else []
    device, dry = target.devices[0], ["--dry"] if target.is_dry else []

    def study(name: str, limit: float) -> Step:
        output = work / f"{name}.json"
        command = ["-m", "benchmarks.gpu.studies", name, str(full), "--device", device, "-o", str(output)]
        return Step(name, [*command, *dry], limit, output)

    def export(source: Path, bundle: Path, *options: str) -> list[str]:
        return ["-m", "align_exporter", str(source), "-o", str(bundle), "--json", *options]

    def exported(source: Path, bundle: Path, limit: float, *options: str) -> list[Step]:
        there = not engine and (bundle / MANIFEST_NAME).is_file()
        return [] if there else [Step(f"export {bundle.name}", export(source, bundle, *options, *engine), limit)]

    def verify(name: str, bundle: Path, limit: float) -> list[Step]:
        command = ["-c", VERIFY, str(bundle), "--accept-limits", "--json", "--device"]
        return [Step(f"verify {name} on {device}", [*command, device], limit) for device in target.devices]

    def speed(name: str, limit: float, *options: str) -> Step:
        output = work / f"{name.replace(' ', '-')}.json"
        command = ["-m", "benchmarks.gpu.measure", str(checkpoint), str(full), "-o", str(output)]
        return Step(name, [*command, "--devices", *target.devices, *options, *dry], limit, output)

    # Random weights say nothing about the accuracy of FP16 and INT8: their distance is measured, and not judged.
    loose = ["--parity-max-abs", "fp16=2", "--parity-min-cosine", "fp16=-1"]
    loose8 = [*loose, "--parity-max-abs", "int8=2", "--parity-min-cosine", "int8=-1"]
    kind = "cpu" if target.is_dry else "gpu"
    return [
        study("machine", 30),
        *exported(ROOT / "reference" / TINY, tiny, 150, "--fp16", "--int8"),
        *verify(TINY, tiny, 60),
        Step("checkpoint", ["-m", "benchmarks.gpu.checkpoint", str(checkpoint), *dry], 60),
        *exported(checkpoint, full, 240, "--fp16", *loose),
        *verify(FULL, full, 60),
        speed("speed", 150, "--compile", "none"),
        study("options", 150),
        study("profile", 40),
        study("memory", 30),
        study("callers", 90),
        speed("speed against torch.compile", 200, "--precisions", "fp16", "--compile", "reduce-overhead"),
        study("rtx", 40),
        Step(
            f"export {FULL} in INT8",
            export(checkpoint, full, "--fp16", "--int8", "--int8-device", kind, *loose8, *engine),
            240,
        ),
        *verify(f"{FULL} in INT8", full, 60),
        speed("speed of INT8", 100, "--precisions", "int8", "--compile", "none"),
        speed("speed against autotuning", 200, "--precisions", "fp16", "--compile", "max-autotune"),
        Step("tests", ["-m", "pytest", "-q", "-m", "gpu", "tests/gpu"], 60),
    ]
