"""Graphs that give statistics of their own tensors have the memory of an ordinary run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.redirected import ROOMS

STEPS, MEBIBYTES = 30, 16  # tensors of the graph, and the size of each

PEAK = """
import sys
from pathlib import Path
import numpy as np
import onnx_ir as ir
from align_calibration import run_instrumented
from align_runtime.memory import MemoryUse

steps, elements, in_order, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "in order", Path(sys.argv[4])
run_instrumented.MemoryUse = lambda **_: MemoryUse(in_order=in_order)
x = ir.val("x", dtype=ir.DataType.FLOAT, shape=ir.Shape([elements]))
tape, values = ir.tape.Tape(), [x]
for _ in range(steps):
    values.append(tape.op("Sin", [values[-1]]))
largest = [tape.op("ReduceMax", [value], {"keepdims": 1}) for value in values[1:]]
graph = ir.Graph([x], [values[-1]], nodes=tape.nodes, opset_imports={"": 20}, name="g")
run_instrumented.set_output(graph, ir.tape.Tape(graph), largest, [steps])
model = ir.Model(graph, ir_version=10)
lines = Path("/proc/self/status").read_text().splitlines()
before = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
(output,) = run_instrumented.run_batches(model, [{"x": np.ones(elements, np.float32)}], folder)
assert output.shape == (steps,)
lines = Path("/proc/self/status").read_text().splitlines()
print((next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) - before) >> 10)
"""


def peak(order: str, folder: Path) -> int:
    """Mebibytes that a run takes at most."""
    arguments = [STEPS, MEBIBYTES << 18, order, folder]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(ROOMS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_tensors_are_freed_while_the_graph_runs(tmp_path: Path) -> None:
    assert peak("in order", tmp_path) < 8 * MEBIBYTES
    assert peak("usual", tmp_path) > STEPS * MEBIBYTES / 2  # so the order is what frees them
