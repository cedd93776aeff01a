"""Commands treat SIGTERM as an interrupt while they run, and run in any thread."""

from __future__ import annotations

import argparse
import signal
import threading
from importlib import import_module
from pathlib import Path

from align_runtime.console import CommandParser, run

DEMO = Path(__file__).parents[2] / "reference/align-tiny/demo"


def parser() -> CommandParser:
    made = CommandParser("align-x", "Does x.")
    made.add_argument("--size", type=int)
    return made


def test_sigterm_interrupts_a_command_and_only_that() -> None:
    def body(options: argparse.Namespace) -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    def own(number: int, frame: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGTERM, own)
    try:
        assert run(parser(), [], body) == 130
        assert signal.getsignal(signal.SIGTERM) is own
        assert run(parser(), ["--size", "x"], body) == 2
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_every_command_runs_in_a_thread(tiny_bundle: Path) -> None:
    image = str(DEMO / "white-star.jpg")
    calls: dict[str, list[str]] = {
        "align_runtime.commands.inspect": [str(tiny_bundle)],
        "align_runtime.commands.verify": [str(tiny_bundle)],
        "align_runtime.commands.classify": [str(tiny_bundle), image, "--labels", "white star", "red heart"],
        "align_bench.command": ["run", "nowhere"],
        "align_exporter.command": ["nowhere", "-o", "nowhere"],
    }
    codes: dict[str, int] = {}

    def call(module: str) -> None:
        codes[module] = import_module(module).main(calls[module])

    for module in calls:
        thread = threading.Thread(target=call, args=[module])
        thread.start()
        thread.join(120)
    assert list(codes.values()) == [0, 0, 0, 2, 2]
