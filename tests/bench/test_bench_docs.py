"""docs/bench.md documents every key of a result file, and none that does not exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from align_bench import command as bench
from align_bench.metrics import CSV_COLUMNS, UNITS

PAGE = Path(__file__).parents[2] / "docs" / "bench.md"
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)


def documented(kind: str) -> dict[str, str]:
    """Types by key, from the table under the heading of `kind`."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(f"\n### {kind}\n")
    return dict(ROW.findall(re.split(r"\n##", rest)[0]))


def keys_of(value: Any, known: dict[str, str], prefix: str = "") -> Iterator[str]:
    """Paths of the keys in `value`; a documented key is not followed into its list or map."""
    if prefix in known:
        yield prefix
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from keys_of(item, known, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and value:
        for item in value:
            yield from keys_of(item, known, f"{prefix}[]")
    else:
        yield prefix


def test_every_key_of_a_run_is_documented(tiny_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    small = ["--batch", "1", "--length", "8", "--image-size", "80x60", "--samples", "7", "--seconds", "0.01"]
    loops = ["--clients", "1", "--rates", "0.5", "--load-seconds", "0.05", "--starts", "1"]
    peers = ["--against", "fp32", "--rounds", "7"]
    assert bench.main(["run", str(tiny_bundle), *small, *loops, *peers, "-o", str(file), "--quiet"]) == 0
    known = documented("run")
    assert set(keys_of(json.loads(file.read_text()), known)) == set(known)


@pytest.mark.parametrize("kind", ["scaling", "memory"])
def test_every_key_of_the_other_results_is_documented(kind: str) -> None:
    values = json.loads((PAGE.parents[1] / "benchmarks" / "results" / f"{kind}.json").read_text())
    for key in ("schema", "kind", "machine", "load_average", "bundle"):
        del values[key]
    known = documented(kind)
    assert set(keys_of(values, known)) == set(known)


def test_every_key_has_a_type_and_a_known_unit() -> None:
    units = {"bytes", "seconds", "milliseconds", "inputs/s", "pixels", "tokens"}
    for kind in ("run", "scaling", "memory"):
        for key, described in documented(kind).items():
            _, comma, unit = described.partition(", ")
            assert not comma or unit in units, key
            assert unit == "milliseconds" or not key.endswith("_ms"), key
            assert unit == "seconds" or not key.endswith("_seconds"), key
            assert unit == "bytes" or not key.endswith("_bytes"), key


def test_the_units_in_the_file_are_the_documented_ones() -> None:
    known = documented("run")
    assert {key: known[key].rpartition(", ")[2].strip() for key in UNITS} == UNITS


def test_the_columns_of_the_csv_are_documented() -> None:
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("The CSV has a row")
    assert tuple(re.findall("`([^`]+)`", rest.partition("\n\n")[0])) == CSV_COLUMNS


def test_the_options_in_the_page_exist(capsys: pytest.CaptureFixture[str]) -> None:
    helps = ""
    for command in ("run", "show", "compare", "scaling"):
        with pytest.raises(SystemExit):
            bench.main([command, "--help"])
        helps += capsys.readouterr().out
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE.read_text(encoding="utf-8"))):
        assert option in helps, option
