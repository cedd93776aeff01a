"""``python tests/support/fetch_triton.py FOLDER``: a Triton server for the tests, from the package nvidia-pytriton.

The package holds Triton 2.51 with the Python backend alone. It is not installed: its own dependencies would replace
packages of ours. Its Python backend was compiled against NumPy 1, so that models get an environment with NumPy 1.26,
the packages of this interpreter, and the sources of this checkout. The server finds the environment by PATH: the
interpreter that it embeds ignores PYTHONPATH.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER = "nvidia-pytriton==0.7.0"
NUMPY = "numpy==1.26.4"
BUILT_FOR = ((3, 11), (3, 12))  # with a stub in the package and a wheel of NumPy 1.26
READY = "ready"


def main() -> None:
    """Makes the folder, unless it is there already."""
    folder = Path(sys.argv[1]).absolute()
    problem = obstacle()
    if problem:
        sys.exit(f"no Triton server: {problem}")
    if not (folder / READY).exists():
        shutil.rmtree(folder, ignore_errors=True)
        fetch(folder)
    write_paths(folder)
    (folder / READY).touch()
    print(f"a Triton server is in {folder}")


def obstacle() -> str | None:
    """Why this interpreter cannot run the server's Python backend; None where it can."""
    if sys.version_info[:2] not in BUILT_FOR or sysconfig.get_platform() != "linux-x86_64":
        here = f"{sys.version.split()[0]} on {sysconfig.get_platform()}"
        return f"it needs Python 3.11 or 3.12 on Linux, x86-64; this is {here}"
    library = f"{sysconfig.get_config_var('LIBDIR')}/{sysconfig.get_config_var('INSTSONAME')}"
    if not Path(library).exists() or not library.endswith(".so.1.0"):
        return f"this Python has no shared library ({library}), which the server loads"
    return None


def fetch(folder: Path) -> None:
    """Downloads the server and NumPy 1.26, about 75 MB."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as downloads:
        subprocess.run([*pip, "download", "--no-deps", "--dest", downloads, SERVER], check=True)
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    server = folder / "pytriton" / "tritonserver"
    (server / "bin" / "tritonserver").chmod(0o755)
    stub = f"python_backend_stubs/{sys.version_info[0]}.{sys.version_info[1]}/triton_python_backend_stub"
    shutil.copyfile(server / stub, server / "backends" / "python" / "triton_python_backend_stub")
    (server / "backends" / "python" / "triton_python_backend_stub").chmod(0o755)
    venv.create(folder / "python", with_pip=False)
    subprocess.run([*pip, "install", "--no-deps", "--target", str(packages(folder)), NUMPY], check=True)


def write_paths(folder: Path) -> None:
    """What the models import: this checkout before what is installed."""
    paths = [str(ROOT / "runtime"), *(path for path in sys.path if path.endswith(("site-packages", "dist-packages")))]
    (packages(folder) / "align.pth").write_text("\n".join(paths) + "\n", encoding="utf-8")


def packages(folder: Path) -> Path:
    """Where the models' environment has its packages."""
    return folder / "python" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


if __name__ == "__main__":
    main()
