"""Pages: every shell and Python block runs, links lead somewhere, generated pages are up to date."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import check_words
import make_cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#([^)]+))?\)")
# Why a block is not run. Any other note is a mistake.
NOT_RUN = (
    "not run: needs a GPU",
    "not run: needs an Intel CPU",
    "not run: needs the network",
    "not run: needs a Triton server",
    "not run: installs packages",
    "not run: takes minutes",
)
MEASURING = ("bench.md", "ray.md")  # pages whose blocks take most of a minute
LANGUAGES = ("sh", "python", "text", "json", "make", "cmake", "")


@dataclass(frozen=True)
class Block:
    """A fenced block; `note` is that of the comment before it."""

    language: str
    code: str
    note: str | None


def blocks(text: str) -> list[Block]:
    return [Block(match["language"], match["code"], match["note"]) for match in FENCE.finditer(text)]


def runnable(page: Path, language: str) -> list[str]:
    found = blocks(page.read_text(encoding="utf-8"))
    return [block.code for block in found if block.language == language and block.note not in NOT_RUN]


def identity(page: Path) -> str:
    return page.name


@pytest.fixture(scope="module")
def workshop(
    tiny_bundle: Path,
    tiny_fp16_bundle: Path,
    tiny_int8_bundle: Path,
    calibration_images: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder like a clone in which align-tiny was exported, so that exports of the pages are up to date at once."""
    folder = tmp_path_factory.mktemp("pages") / "clone"
    folder.mkdir()
    for name in ("reference", "benchmarks", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "images").symlink_to(calibration_images)
    (folder / "captions.txt").write_text("a photo of a red circle\na photo of a green heart\n", encoding="utf-8")
    for name, bundle in (
        ("align-tiny", tiny_bundle),
        ("align-tiny-fp16", tiny_fp16_bundle),
        ("align-tiny-int8", tiny_int8_bundle),
    ):
        shutil.copytree(bundle, folder / "build" / name)
    return folder


def environment() -> dict[str, str]:
    """Where the commands are those of this interpreter, and packages those of this checkout."""
    paths = [str(ROOT / room) for room in ("reference", "calibration", "exporter", "runtime")]
    return os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page.name in MEASURING else ()) for page in PAGES],
    ids=map(identity, PAGES),
)
def test_blocks_run(page: Path, workshop: Path) -> None:
    """Shell blocks one after the other, then all Python blocks as one program, which prints the page's output."""
    for code in runnable(page, "sh"):
        done = run(["bash", "-euo", "pipefail", "-c", code], workshop)
        assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"
    program = "\n".join(runnable(page, "python"))
    if program:
        done = run([sys.executable, "-c", program], workshop)
        assert done.returncode == 0, f"{program}\n{done.stderr}"
        shown = [block.code for block in blocks(page.read_text(encoding="utf-8")) if block.note == "output"]
        assert shown in ([], [done.stdout])


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_blocks_have_a_known_language_and_note(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        assert block.language in LANGUAGES, block
        if block.note and block.note.startswith("not run"):
            assert block.note in NOT_RUN, block
            assert block.language in ("sh", "python"), block


def test_notes_are_seen() -> None:
    text = "<!-- not run: needs a GPU -->\n```sh\nfalse\n```\n\n```python\nx = 1\n```\n"
    assert [(block.language, block.note) for block in blocks(text)] == [("sh", NOT_RUN[0]), ("python", None)]


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in links(page.read_text(encoding="utf-8")):
        file = (page.parent / target).resolve()
        assert file.exists(), f"{page.name}: {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page.name}: {target}#{anchor}"


def links(text: str) -> Iterator[tuple[str, str | None]]:
    for match in LINK.finditer(text):
        if "://" not in match[1]:
            yield match[1], match[2]


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays help out differently in other versions")
def test_the_page_of_the_commands_is_up_to_date() -> None:
    assert make_cli.PAGE.read_text(encoding="utf-8") == make_cli.page(), "run make figures"


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 180


def test_every_page_is_linked() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for page in (ROOT / "docs").glob("*.md"):
        assert f"{page.name})" in text or f"{page.name}#" in text, page.name


def test_words() -> None:
    assert check_words.check() == []
    assert [found[1] for found in check_words.findings("two pictures\nan image")] == ["pictures"]
