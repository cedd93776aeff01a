"""Jobs that are stopped: whenever they die, the same command ends with the result of an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align_serving.embed import command
from align_serving.embed.ledger import LEDGER_NAME, open_ledger, read_ledger
from support.dying_embedding import content
from support.mounts import run_with_mounts
from support.redirected import ROOMS, TESTS, redirected
from support.sample_folders import image, images, write_files, write_tar

Embed = Callable[..., int]
MODULE = "align_serving.embed.command"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([*ROOMS, TESTS]), "OMP_NUM_THREADS": "1"}


def start(arguments: list[Any]) -> subprocess.Popen[str]:
    # A shell that starts the tests in its background has them ignore SIGINT, and what they start inherits that.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heeding}; import sys; from {MODULE} import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(f"a photo of {index} green hearts" for index in range(100)))
    return path


@pytest.mark.parametrize("file_format", ["parquet", "npy"])
def test_a_death_before_any_step(file_format: str, tiny_bundle: Path, tmp_path: Path) -> None:
    """At every change of the disk, and in the middle of every write."""
    command = [sys.executable, "-m", "support.dying_embedding", str(tmp_path), str(tiny_bundle), file_format]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps, wrong = json.loads(done.stdout.splitlines()[-1])
    assert wrong == []
    assert steps.count("replace") == (2 if file_format == "parquet" else 4)
    assert len(steps) > 20


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_at_random_moments(kills: int, tiny_bundle: Path, tmp_path: Path) -> None:
    """Images, some of which cannot be used; a process is killed some time after it has begun."""
    files = images(60 * kills) | {f"{index}.png": b"no image" for index in range(0, 60 * kills, 7)}
    base = [tiny_bundle, write_tar(tmp_path / "a.tar", files), "--shard-items", 10, "--threads", 1, "-q", "-o"]
    whole = start([*base, tmp_path / "whole"])
    assert (whole.wait(), whole.stderr.read() if whole.stderr else "") == (0, "")
    out, draw, killed = tmp_path / "out", random.Random(kills), 0
    for _ in range(kills):
        process = start([*base, out])
        before = size(out / LEDGER_NAME)
        while process.poll() is None and size(out / LEDGER_NAME) <= before:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= kills // 2
    ended = start([*base, out])
    assert ended.wait() == 0
    assert content(out) == content(tmp_path / "whole")


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 130), (signal.SIGINT, 130)])
def test_a_signal_ends_the_job_which_says_how_to_go_on(
    stop: signal.Signals, code: int, embed: Embed, tiny_bundle: Path, tmp_path: Path
) -> None:
    place, out = write_tar(tmp_path / "a.tar", images(800)), tmp_path / "out"
    base = [tiny_bundle, place, "--shard-items", 20, "--threads", 1, "-q", "-o"]
    process = start([*base, out])
    while process.poll() is None and size(out / LEDGER_NAME) < 2000:
        time.sleep(0.01)
    process.send_signal(stop)
    _, told = process.communicate()
    finished = sum(shard.items for shard in read_ledger(out).shards)
    assert process.returncode == code
    assert f"align-embed: {finished:,} items are finished; run the same command to resume\n" in told
    assert 0 < finished < 800
    assert "Traceback" not in told
    assert embed([place], out, "--shard-items", 20) == 0
    assert sum(shard.items for shard in read_ledger(out).shards) == 800


def test_a_full_disk_ends_the_job_which_goes_on_when_there_is_space(tiny_bundle: Path, tmp_path: Path) -> None:
    program = f"""
import sys; sys.path.insert(0, {TESTS!r})
import os
from pathlib import Path
from support.dying_embedding import content, embed
Path("texts.txt").write_text("\\n".join(f"text {{i}}" for i in range(400)))
base = [{str(tiny_bundle)!r}, "texts.txt", "--shard-items", "50", "-o"]
assert embed([*base, "small/out"]) == 2
done = len(list(Path("small/out/embeddings").glob("*.parquet")))
assert 0 < done < 8, done
os.unlink("small/filler")
assert embed([*base, "small/out"]) == 0 and embed([*base, "whole"]) == 0
assert content(Path("small/out")) == content(Path("whole"))
"""
    mounts = "mkdir small; mount -t tmpfs -o size=512k none small; head -c 400000 /dev/zero > small/filler"
    done = run_with_mounts(tmp_path, mounts, program)
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stderr
    assert "items are finished; run the same command to resume" in done.stderr


def test_two_processes_do_not_write_into_one_output(
    embed: Embed, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert embed([texts], out) == 0
    before = content(out)
    with open_ledger(out):
        assert embed([texts], out) == 2
    told = capsys.readouterr().err
    assert f"another process ({os.getpid()}) embeds into {out}; wait for its end, or take another output" in told
    assert content(out) == before


@pytest.mark.parametrize("redirection", ["2>&-", ">&-", ">&- 2>&-", "| true", "2> >(true)"])
def test_closed_and_broken_streams_do_not_stop_the_job(
    redirection: str, tiny_bundle: Path, texts: Path, tmp_path: Path
) -> None:
    done = redirected(MODULE, [tiny_bundle, texts, "-o", tmp_path / "out"], redirection)
    assert done.code == 0, done.stderr
    assert read_ledger(tmp_path / "out").complete


# ── what has changed meanwhile ───────────────────────────────────────────────────────────────────────────────────────


def begin(embed: Embed, inputs: list[Any], out: Path, *options: Any) -> None:
    """Embeds two shards of five items, as if the process had died then."""
    assert embed(inputs, out, "--shard-items", 5, *options) == 0
    ledger = out / LEDGER_NAME
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:4]))
    assert b'{"shard"' in lines[3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dtype", "int8"], "out was begun with dtype 'float32', now it is 'int8'; take another output"),
        (["--shard-items", 6], "out was begun with shard_items 5, now it is 6"),
        (["--threads", 2], "out was begun with threads 1, now it is 2"),
        (["--batch-size", 2], "out was begun with batch_size None, now it is 2"),
        (["--format", "npy"], "out was begun with format 'parquet', now it is 'npy'"),
    ],
)
def test_other_options_are_an_error(
    options: list[Any], message: str, embed: Embed, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    begin(embed, [texts], out)
    before = content(out)
    assert embed([texts], out, *(options if "--shard-items" in options else ["--shard-items", 5, *options])) == 2
    assert message in capsys.readouterr().err
    assert content(out) == before


def test_a_call_that_failed_before_it_had_done_anything_binds_nothing(
    embed: Embed, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for wrong in (["--precision", "fp99"], ["--batch-size", 1 << 30]):
        assert embed([texts], out, *wrong) == 2
        assert "resume" not in capsys.readouterr().err
    assert embed([texts], out) == 0
    assert read_ledger(out).complete


def test_another_bundle_is_an_error(
    embed: Embed, texts: Path, bundle_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    begin(embed, [texts], out)
    manifest = bundle_copy / "align.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    assert command.main([str(bundle_copy), str(texts), "-o", str(out), "--shard-items", "5"]) == 2
    assert "out was begun with bundle '" in capsys.readouterr().err


def test_without_threads_a_job_goes_on_with_those_that_it_was_begun_with(
    embed: Embed, texts: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    begin(embed, [texts], out)
    done = redirected(MODULE, [tiny_bundle, texts, "-o", out, "--shard-items", 5], "")
    assert done.code == 0, done.stderr
    assert read_ledger(out).complete
    assert (read_ledger(out).job or {})["threads"] == 1


def test_changed_texts_are_an_error(
    embed: Embed, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, before = tmp_path / "out", texts.read_text()
    begin(embed, [texts], out)
    texts.write_text(before.replace("of 7 green", "of 7 black"))
    assert embed([texts], out, "--shard-items", 5) == 2
    assert "the inputs have changed: items 5 to 9 are not those that were embedded before" in capsys.readouterr().err
    texts.write_text(before + "\none more")
    assert embed([texts], out, "--shard-items", 5) == 2
    assert "out was begun with other inputs: " in capsys.readouterr().err
    texts.write_text(before)
    assert embed([texts, texts], out, "--shard-items", 5) == 2
    assert "out was begun with 1 inputs, now there are 2" in capsys.readouterr().err
    assert embed([texts], out, "--shard-items", 5) == 0


def test_changed_images_are_an_error(embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, out = write_files(tmp_path / "a", {f"{index:02}.png": image(index) for index in range(12)}), tmp_path / "out"
    begin(embed, [place], out)
    (place / "07.png").write_bytes(image(99))
    assert embed([place], out, "--shard-items", 5) == 2
    assert "the inputs have changed: items 5 to 9 are not those" in capsys.readouterr().err
    (place / "11.png").rename(place / "99.png")
    assert embed([place], out, "--shard-items", 5) == 2
    assert "out was begun with other inputs: " in capsys.readouterr().err


def test_a_complete_output_notices_more_items(
    embed: Embed, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, before = tmp_path / "out", texts.read_text()
    assert embed([texts], out, "--shard-items", 50) == 0
    texts.write_text("\n".join([*before.splitlines()[:-1], "x", "y".ljust(len(before.splitlines()[-1]) - 2)]))
    assert texts.stat().st_size == len(before)
    assert embed([texts], out, "--shard-items", 50) == 2
    assert "the inputs have changed: items 50 to 99" in capsys.readouterr().err


def test_a_finished_file_that_is_gone_is_an_error(
    embed: Embed, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    begin(embed, [texts], out)
    lost = out / "embeddings" / "part-000000.parquet"
    kept = lost.read_bytes()
    for change, message in ((b"short", "has 5 bytes, expected"), (None, "is missing; restore it")):
        lost.write_bytes(change) if change else lost.unlink()
        assert embed([texts], out, "--shard-items", 5) == 2
        assert f"part-000000.parquet {message}" in capsys.readouterr().err
    lost.write_bytes(kept)
    assert embed([texts], out, "--shard-items", 5) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"notes of mine\n{}\n", "line 1 is not as align-embed writes it"),
        (b"notes of mine", "line 1 is not as align-embed writes it"),
        (b"{}", "line 1 is not as align-embed writes it"),
        (b'{"align_embed": 2, "job": {}}\n', "schema version 2; this release reads version 1"),
        (b'{"align_embed": 1, "job": {}}\n\x00\x00\n{"run": {}}\n', "line 2 is not as align-embed writes it"),
        (b'{"align_embed": 1, "job": {}}\n{"shard": {"items": 3}}\n', "line 2 is not as align-embed writes it"),
    ],
)
def test_a_foreign_ledger_is_refused_and_kept(
    content: bytes, message: str, embed: Embed, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / LEDGER_NAME).write_bytes(content)
    assert embed([texts], out) == 2
    assert message in capsys.readouterr().err
    assert (out / LEDGER_NAME).read_bytes() == content
