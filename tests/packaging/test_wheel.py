"""The wheel: built, installed alone, its contents pinned."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from align_calibration.package_hash import package_hash

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ROOMS = {
    "align_reference": ROOT / "reference/align_reference",
    "align_calibration": ROOT / "calibration/align_calibration",
    "align_exporter": ROOT / "exporter/align_exporter",
    "align_bench": ROOT / "runtime/align_bench",
    "align_runtime": ROOT / "runtime/align_runtime",
    "align_serving": ROOT / "runtime/align_serving",
}
COMMANDS = tuple(f"align-{name}" for name in "export verify inspect classify bench embed triton serve".split())


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in ROOMS.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == expected
    assert {f"{package}/py.typed" for package in ROOMS} <= names
    assert "align_exporter/sample_data/captions.txt" in names


def test_is_known_by_the_hash_of_its_sources(wheel: Path, tmp_path: Path) -> None:
    """A bundle that was built from the repository is up to date for the wheel of the same files."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    packages = {place: [ModuleType(name) for name in ROOMS] for place in ("installed", "sources")}
    for installed, source in zip(*packages.values(), strict=True):
        installed.__path__, source.__path__ = [str(tmp_path / installed.__name__)], [str(ROOMS[source.__name__])]
    assert package_hash(packages["installed"]) == package_hash(packages["sources"])


def test_carries_the_licence_and_the_commands(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        text = archive.read(entry_points).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    for command in COMMANDS:
        assert f"{command} = align_" in text


def test_installs_alone_and_says_what_is_missing(wheel: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """In an environment that holds the runtime's three dependencies and no others."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)], check=True, capture_output=True)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    imported = run(str(python), "-c", "import align_runtime, sys; print(sorted(align_runtime.__all__)[-1])")
    assert (imported.returncode, imported.stdout) == (0, "load\n"), imported.stderr
    for command in ("align-verify", "align-inspect", "align-classify", "align-bench", "align-triton", "align-serve"):
        assert run(str(environment / "bin" / command), "--help").returncode == 0
    export = run(str(environment / "bin" / "align-export"), str(tiny_checkpoint), "-o", "bundle", "--quiet")
    assert export.returncode == 2
    missing = (
        r"align-export: error: the package '\w+' is missing; install .* with: pip install 'align-onnx\[export\]'\n"
    )
    assert re.fullmatch(missing, export.stderr), export.stderr
