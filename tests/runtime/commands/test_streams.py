"""Exit codes and results stay right, whatever the shell made of the standard streams."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import align_runtime
from support.redirected import BROKEN, CLOSED, Ended, redirected

INSPECT, VERIFY, CLASSIFY = (f"align_runtime.commands.{name}" for name in ("inspect", "verify", "classify"))


@pytest.fixture(scope="module")
def calls(tiny_bundle: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Module, arguments and exit code of a call of each command, with success, with a failed check, with an error."""
    damaged = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("damaged") / "bundle"))
    values = json.loads((damaged / "align.json").read_text())
    for graph in values["graphs"]:
        graph["limits"]["max_abs"] = 1e-12
    (damaged / "align.json").write_text(json.dumps(values))
    image = tiny_checkpoint / "demo" / "white-star.jpg"
    labels = ["--labels", *(f"label {number}" for number in range(3000)), "--json"]
    return {
        "inspect": (INSPECT, [tiny_bundle], 0),
        "inspect nothing": (INSPECT, [tiny_bundle / "nowhere", "--json"], 2),
        "verify": (VERIFY, [tiny_bundle], 0),
        "verify a failure": (VERIFY, [damaged, "--json"], 1),
        "classify": (CLASSIFY, [image.parent / ".." / "config.json", "--labels", "a", "--json"], 2),
        "classify, much": (CLASSIFY, [tiny_bundle, image, *labels], 0),  # more than a pipe holds
        "help": (INSPECT, ["--help"], 0),
        "version": (VERIFY, ["--version"], 0),
        "wrong call": (CLASSIFY, ["--colour"], 2),
        "scaling": ("align_bench.command", ["scaling", tiny_bundle, "--texts", "40", "--json"], 0),
    }


CALLS = [
    "inspect", "inspect nothing", "verify", "verify a failure", "classify", "classify, much", "help", "version",
    "wrong call", "scaling",
]  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("redirection", [*CLOSED[2:], BROKEN[1]])
def test_the_exit_code_stays(calls: dict[str, Any], name: str, redirection: str) -> None:
    module, arguments, code = calls[name]
    assert redirected(module, arguments, redirection) == Ended(code, "", "")


@pytest.mark.parametrize("name", ["help", "version", "inspect"])
def test_the_exit_code_stays_without_a_buffer(calls: dict[str, Any], name: str) -> None:
    module, arguments, code = calls[name]
    assert redirected(module, arguments, "| true", unbuffered="1") == Ended(code, "", "")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", BROKEN[2]])
def test_the_result_stays_where_errors_cannot_be_printed(calls: dict[str, Any], redirection: str) -> None:
    module, arguments, _ = calls["verify a failure"]
    ended = redirected(module, arguments, redirection)
    assert (ended.code, ended.stderr) == (1, "")
    assert json.loads(ended.stdout)["ok"] is False


@pytest.mark.parametrize("redirection", [">&-", BROKEN[0]])
def test_errors_stay_where_the_result_cannot_be_printed(calls: dict[str, Any], redirection: str) -> None:
    module, arguments, _ = calls["inspect nothing"]
    ended = redirected(module, arguments, redirection)
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("align-inspect: error: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("name", ["inspect", "classify, much", "help", "version"])
def test_a_full_disk_is_an_error(calls: dict[str, Any], name: str, unbuffered: str) -> None:
    module, arguments, _ = calls[name]
    ended = redirected(module, arguments, ">/dev/full", unbuffered)
    assert ended.code == 2
    assert ended.stderr.endswith("error: [Errno 28] No space left on device\n")
    assert ended.stderr.count("error") == 1


WRITES_BELOW_PYTHON = """
import os, subprocess, sys
from align_runtime.console import CommandParser, run

def body(options):
    with open(sys.argv[1], "wb") as file:
        for descriptor in (1, 2):  # as libraries do, and child processes
            os.write(descriptor, b"a message of a library")
        subprocess.run([sys.executable, "-c", "import os; os.write(1, b'child'); os.write(2, b'child')"], check=True)
        file.write(b"content")
    return 0

sys.exit(run(CommandParser("align-x"), [], body))
"""


@pytest.mark.parametrize("redirection", CLOSED)
def test_nothing_is_written_into_a_file_of_the_result(tmp_path: Path, redirection: str) -> None:
    command = ["/bin/bash", "-c", f'"$@" {redirection}', "bash", sys.executable, "-c", WRITES_BELOW_PYTHON]
    environment = {"PYTHONPATH": str(Path(align_runtime.__file__).parents[1])}
    subprocess.run([*command, str(tmp_path / "file")], env=environment, capture_output=True, check=True)
    assert (tmp_path / "file").read_bytes() == b"content"
