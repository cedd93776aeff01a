"""Names from a stranger on a terminal: none moves the cursor, clears the screen, or begins a line of its own."""

from __future__ import annotations

import json
import logging
import os
import shutil
import unicodedata
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

import align_runtime
from align_runtime.commands import classify, inspect, verify
from align_runtime.console import CommandParser, run, say, say_json, table
from align_runtime.progress import Progress

ESCAPES = ("\x1b[2J", "\x1b]0;title\x07", "\r", "\n", "\x08", "\x9b31m", "\u202e", "\u2066", "\u2028", "\0", "\x7f")
NAME = f"name{''.join(ESCAPES)}end"
SHOWN = r"name\x1b[2J\x1b]0;title\x07\r\n\x08\x9b31m\u202e\u2066\u2028\x00\x7fend"


def is_harmless(text: str) -> bool:
    """Whether no character but the ends of lines controls a terminal."""
    return not any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in text if each != "\n")


def forge(bundle: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    file = bundle / "align.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    change(values)
    file.write_text(json.dumps(values), encoding="utf-8")
    return bundle


def name_everything(values: dict[str, Any]) -> None:
    """Every string of the manifest that is not a path, a hash or one of a few words."""
    provenance = values["provenance"]
    provenance |= {"name": NAME, "revision": NAME, "options": {NAME: NAME, "list": [NAME], "dict": {NAME: NAME}}}
    provenance["tools"] |= {NAME: NAME}
    for graph in values["graphs"]:
        graph["islands"] = [{"nodes": [NAME, NAME], "reasons": [NAME, NAME]}]
        graph["parity"]["worst"] = dict.fromkeys(graph["parity"]["worst"], NAME)
        graph["quantization"] = {"scheme": NAME, "samples": 3, "speedup": 2.0, "kept": [NAME]}


def test_inspect(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forge(bundle_copy, name_everything)
    assert inspect.main([str(bundle_copy)]) == 0
    printed = capsys.readouterr().out
    assert is_harmless(printed)
    assert printed.count(SHOWN) >= 8
    assert "\nend" not in printed
    assert inspect.main([str(bundle_copy), "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed)["provenance"]["name"] == NAME  # exact, in JSON's own escapes


def test_verify(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forge(bundle_copy, name_everything)
    assert verify.main([str(bundle_copy)]) == 0
    printed = capsys.readouterr()
    assert is_harmless(printed.out)
    assert is_harmless(printed.err)
    assert SHOWN in printed.out


def test_an_error(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forge(bundle_copy, lambda values: values["graphs"][0].update(variant=NAME))
    assert verify.main([str(bundle_copy)]) == 2
    printed = capsys.readouterr()
    assert is_harmless(printed.err)
    assert "variant is" in printed.err


def test_folders_images_and_labels_of_any_name(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "\x1b[31m\u202e"
    bundle = Path(shutil.copytree(tiny_bundle, folder / "bundle"))
    image = Path(shutil.copy(tiny_checkpoint / "demo" / "white-star.jpg", folder / "star\n.jpg"))
    command = [str(bundle), str(image), "--labels", "a star", "a \x1b[2J", "heart\u202e"]
    for main, arguments in ((inspect.main, [str(bundle)]), (verify.main, [str(bundle)]), (classify.main, command)):
        assert main(arguments) == 0
        printed = capfd.readouterr()
        assert is_harmless(printed.out)
        assert is_harmless(printed.err)
        assert r"\x1b[31m\u202e" in printed.out
        assert main([*arguments, "--json"]) == 0
        result = json.loads(capfd.readouterr().out)
        name = result["images"][0]["image"] if main is classify.main else result["bundle"]
        assert name.startswith(str(folder))
    assert classify.main([str(folder / "gone"), str(image), "--labels", "a", "b"]) == 2
    assert is_harmless(capfd.readouterr().err)


def test_names_that_are_not_utf8(tiny_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Names on Linux are bytes. ONNX Runtime opens no such file, which is an error of one line."""
    bundle = Path(shutil.copytree(tiny_bundle, Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xff"))))
    assert inspect.main([str(bundle)]) == 0
    assert r"/caf\udcff: ALIGN bundle" in capfd.readouterr().out
    assert inspect.main([str(bundle), "--json"]) == 0
    printed = capfd.readouterr().out
    assert printed.isascii()
    assert json.loads(printed)["bundle"] == str(bundle)
    assert verify.main([str(bundle), "--json"]) == 2
    printed = capfd.readouterr().out
    assert printed.isascii()
    assert json.loads(printed)["error"]["type"] == "BundleError"


def test_lines_and_tables(capsys: pytest.CaptureFixture[str]) -> None:
    say([NAME, *table(["heading", NAME], [["cell", NAME], [NAME, "x"]])])
    printed = capsys.readouterr().out
    assert is_harmless(printed)
    lines = printed.splitlines()
    assert len(lines) == 5
    assert lines[0] == SHOWN
    assert lines[1] == f"{'heading':{len(SHOWN)}}  {SHOWN}"  # as wide as what is shown
    say_json({"name": f"{NAME}\ud800"})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed) == {"name": f"{NAME}\ud800"}


@pytest.mark.parametrize("terminal", [False, True])
def test_progress(terminal: bool) -> None:
    stream = StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    progress = Progress(stream=stream)
    with progress.phase(NAME):
        progress.show(NAME)
    list(progress.bar(NAME, [1, 2], 2))
    progress.warn(NAME)
    printed = stream.getvalue().replace("\r\x1b[K", "")
    assert is_harmless(printed)
    assert SHOWN in printed


def test_errors_and_log_messages(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])

    def fail(options: object) -> int:
        logging.getLogger("align_runtime").warning("loaded %s", NAME)
        raise OSError(2, NAME, NAME)

    assert run(CommandParser(prog="align-x"), [], fail) == 2
    printed = capsys.readouterr().err
    assert is_harmless(printed)
    assert printed.startswith(f"align-x: loaded {SHOWN}\n")


def test_the_repr_of_a_model(bundle_copy: Path) -> None:
    forge(bundle_copy, lambda values: values["provenance"].update(name=NAME + "x" * 4000))
    with align_runtime.load(bundle_copy, towers=("text",)) as model:
        shown = repr(model)
    assert shown.isprintable()
    assert len(shown) < 200
