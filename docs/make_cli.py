"""Writes docs/cli.md from the commands' ``--help``: ``python docs/make_cli.py``, part of `make figures`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("cli.md")
COMMANDS = (
    ("align-export", "align_exporter.command", ()),
    ("align-verify", "align_runtime.commands.verify", ()),
    ("align-inspect", "align_runtime.commands.inspect", ()),
    ("align-classify", "align_runtime.commands.classify", ()),
    ("align-embed", "align_serving.embed.command", ()),
    ("align-triton", "align_serving.triton.command", ()),
    ("align-serve", "align_serving.http.command", ()),
    ("align-search", "align_serving.search.command", ("find", "index", "serve")),
    ("align-bench", "align_bench.command", ("run", "compare", "scaling", "show")),
)
INTRODUCTION = """# Commands

Generated from `--help` (`make figures`). All commands: exit code 0 done, 1 a check failed, 2 a wrong call or input;
`--json` prints the result, or the error, as one JSON object; `--version`.
"""


def help_of(module: str, arguments: tuple[str, ...]) -> str:
    """What ``COMMAND ARGUMENTS --help`` prints at a width of 100 columns."""
    code = f"import sys\nfrom {module} import main\nsys.exit(main({[*arguments, '--help']!r}))"
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "PYTHON_COLORS": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip()


def page() -> str:
    """The whole page."""
    sections = [INTRODUCTION]
    for command, module, subcommands in COMMANDS:
        sections.append(f"## {command}\n\n```text\n{help_of(module, ())}\n```\n")
        for name in subcommands:
            sections.append(f"### {command} {name}\n\n```text\n{help_of(module, (name,))}\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
