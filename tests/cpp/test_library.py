"""The library as a product: what it exports, how it is installed, found and linked, and its own tests."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from pathlib import Path

import pytest

from support.native import LIBRARY, ROOT, onnxruntime_library

BUILD = LIBRARY.parent
HEADER = (ROOT / "runtime/cpp/include/align_runtime.h").read_text()


def output_of(*command: str | Path, **environment: str) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | environment, timeout=300
    ).stdout


def test_it_exports_the_functions_of_its_header_alone(library: ctypes.CDLL) -> None:
    symbols = [line.split() for line in output_of("nm", "-D", "--defined-only", LIBRARY).splitlines()]
    exported = {name.partition("@")[0] for _, kind, name in symbols if kind != "A"}
    declared = set(re.findall(r"^ALIGN_API [^(]*?(align_\w+)\(", HEADER, re.MULTILINE))
    assert len(declared) == 16
    assert exported == declared


def test_it_needs_the_codecs_and_the_runtimes_of_its_compiler_alone(library: ctypes.CDLL) -> None:
    """Not ONNX Runtime, which is found at run time."""
    needed = re.findall(r"NEEDED\s+(\S+)", output_of("objdump", "-p", LIBRARY))
    known = "libjpeg libz libstdc++ libm libgcc_s libc ld-linux-x86-64 libdl libpthread".split()
    assert {name.partition(".so")[0] for name in needed} <= set(known)
    assert "SONAME               libalign_runtime.so.0\n" in output_of("objdump", "-p", LIBRARY)


def test_it_uses_functions_that_the_oldest_onnxruntime_has(library: ctypes.CDLL) -> None:
    """ONNX Runtime's table of functions ends with those of its release: a later one is not there to be called."""
    headers = Path(os.environ.get("ONNXRUNTIME_INCLUDE_DIR", ROOT / "build/onnxruntime-headers"))
    header = (headers / "onnxruntime_c_api.h").read_text()
    table = header[header.index("struct OrtApi {") :]
    since: dict[str, int] = {}
    version = 0
    for release, *names in re.findall(
        r"\\since Version 1\.(\d+)|ORT_API2_STATUS\((\w+)|\(ORT_API_CALL\* ?(\w+)\)", table
    ):
        version = int(release or version)
        since |= dict.fromkeys(filter(None, names), version)
    assert (since["GetTensorData"], since["GetEpDevices"]) == (23, 22)
    for file in sorted((ROOT / "runtime/cpp/src").glob("*.cpp")):
        newest = 23 if file.name == "plugin_provider.cpp" else 20
        called = re.findall(r"\bapi(?:\(\))?\.([A-Z]\w+)", file.read_text())
        assert {name: since[name] for name in called if since.get(name, 0) > newest} == {}, file.name


@pytest.fixture(scope="module")
def prefix(library: ctypes.CDLL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefix")
    output_of("cmake", "--install", BUILD, "--prefix", folder)
    return folder


PROJECT = """
cmake_minimum_required(VERSION 3.22)
project(user LANGUAGES C CXX)
find_package(align_runtime 0.1 REQUIRED COMPONENTS static)
foreach(kind align_runtime align_runtime_static)
  add_executable(with_${kind} %s)
  target_link_libraries(with_${kind} PRIVATE align_runtime::${kind})
endforeach()
"""


def test_find_package(prefix: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(PROJECT % (ROOT / "runtime/cpp/examples/embed.c"))
    output_of("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    output_of("cmake", "--build", tmp_path / "build")
    variable = {"ALIGN_ONNXRUNTIME_LIBRARY": str(onnxruntime_library())}
    for kind in ("align_runtime", "align_runtime_static"):
        printed = output_of(tmp_path / "build" / f"with_{kind}", tiny_bundle, "a cat", "a cat", **variable)
        assert printed == "1.0000 a cat\n1.0000 a cat\n"


FETCHING = """
cmake_minimum_required(VERSION 3.22)
project(user LANGUAGES C CXX)
include(FetchContent)
FetchContent_Declare(align_runtime SOURCE_DIR %s)
FetchContent_MakeAvailable(align_runtime)
foreach(target align_runtime::align_runtime align_runtime::align_runtime_static)
  if(NOT TARGET ${target})
    message(FATAL_ERROR "no ${target}")
  endif()
endforeach()
if(TARGET align_tests)
  message(FATAL_ERROR "tests in a project of others")
endif()
"""


def test_fetch_content(library: ctypes.CDLL, tmp_path: Path) -> None:
    """As far as CMake's configuration: to compile it all again would take minutes."""
    (tmp_path / "CMakeLists.txt").write_text(FETCHING % (ROOT / "runtime/cpp"))
    output_of("cmake", "-S", tmp_path, "-B", tmp_path / "build")


@pytest.mark.parametrize("kind", ["shared", "static"])
def test_pkg_config(kind: str, prefix: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    folder = next(prefix.rglob("align_runtime.pc")).parent
    options = ["--static"] if kind == "static" else []
    flags = output_of("pkg-config", f"--define-variable=prefix={prefix}", "--cflags", "--libs", *options,
                      "align_runtime", PKG_CONFIG_PATH=str(folder)).split()  # fmt: skip
    if kind == "static":
        flags = [flag.replace("-lalign_runtime", "-l:libalign_runtime.a") for flag in flags]
        folder = tmp_path  # where no shared library lies
    output_of("cc", ROOT / "runtime/cpp/examples/embed.c", "-o", tmp_path / "embed", *flags)
    variables = {"ALIGN_ONNXRUNTIME_LIBRARY": str(onnxruntime_library()), "LD_LIBRARY_PATH": str(folder.parent)}
    assert output_of(tmp_path / "embed", tiny_bundle, "a cat", **variables) == "1.0000 a cat\n"


@pytest.mark.parametrize("header", ["align_runtime.h", "align_runtime.hpp"])
def test_the_example_at_the_top_of_a_header(
    library: ctypes.CDLL, header: str, tmp_path: Path, tiny_bundle: Path
) -> None:
    text = (ROOT / "runtime/cpp/include" / header).read_text()
    lines = [line[len(" *     ") :] for line in text.splitlines() if re.match(r"( \*|//)     |( \*|//)$", line)]
    source = tmp_path / ("example.c" if header.endswith(".h") else "example.cpp")
    source.write_text("\n".join(lines[: lines.index("}") + 1]).replace("build/align-base", str(tiny_bundle)))
    flags = ["-I", ROOT / "runtime/cpp/include", "-L", BUILD, "-lalign_runtime", f"-Wl,-rpath,{BUILD}"]
    output_of("cc" if source.suffix == ".c" else "c++", source, "-o", tmp_path / "example", *flags)
    printed = output_of(tmp_path / "example", ALIGN_ONNXRUNTIME_LIBRARY=str(onnxruntime_library()))
    assert re.search(r"-?0\.\d+", printed)


def test_the_tests_in_cpp(library: ctypes.CDLL, tiny_bundle: Path) -> None:
    """With a bundle and ONNX Runtime, without which ctest leaves some of them out."""
    variables = {"ALIGN_ONNXRUNTIME_LIBRARY": str(onnxruntime_library()), "ALIGN_TEST_BUNDLE": str(tiny_bundle)}
    printed = output_of(BUILD / "align_tests", "--gtest_brief=1", **variables)
    assert "PASSED" in printed
    assert "SKIPPED" not in printed
