#!/usr/bin/env bash
# Checks the C++ runtime on a GPU: runs cpp_gpu_check and compare.py, which lie beside this file, for every precision.
#
#     OUT=results run_cpp.sh BUNDLE [PRECISION...]        BUNDLE: a folder, or a .tar of one; precisions: fp32 fp16
#
# Writes $OUT/cpp-gpu.json and $OUT/cpp-gpu.log; a part that fails does not stop the others,
# and ends the script with 1. Settings, all optional:
# DEVICE (cuda), ROUNDS (50), SECONDS_EACH (60), SOURCE (this checkout), PYTHON (python3), SITE (a folder with packages that
# PYTHON lacks, onnxruntime-gpu among them; without it ALIGN_ONNXRUNTIME_LIBRARY).
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bundle=${1:?usage: run_cpp.sh BUNDLE [PRECISION...]}
shift
DEVICE=${DEVICE:-cuda} ROUNDS=${ROUNDS:-50} SECONDS_EACH=${SECONDS_EACH:-60}
SITE=${SITE:-} SOURCE=${SOURCE:-$here/../../../..} PYTHON=${PYTHON:-python3} OUT=${OUT:-$PWD/cpp-gpu}
mkdir -p "$OUT"
rm -f "$OUT"/cpu-fp32.npz
OUT=$(cd "$OUT" && pwd)
exec > >(tee "$OUT/cpp-gpu.log") 2>&1
[ $# -gt 0 ] || if [ "$DEVICE" = cpu ]; then set -- fp32; else set -- fp32 fp16; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -f "$bundle" ]; then
    tar xf "$bundle" -C "$work"
    bundle=$(dirname "$(find "$work" -name align.json | head -1)")
fi
cp "$here/cpp_gpu_check" "$work/cpp_gpu_check" && chmod +x "$work/cpp_gpu_check"

export PYTHONPATH=$SOURCE/runtime${SITE:+:$SITE} PYTHONUNBUFFERED=1
# CUDA and cuDNN of pip's packages, wherever they are, and then those of the system. Python needs the path, too: it looks
# for them beside onnxruntime alone.
libraries=$("$PYTHON" - <<'PY'
import glob, os, sys
found = {os.path.realpath(one) for path in sys.path for one in glob.glob(os.path.join(path, "nvidia", "*", "lib"))}
print(":".join([*sorted(found), *glob.glob("/usr/local/cuda/lib64")]))
PY
)
for candidate in "$SITE"/onnxruntime/capi/libonnxruntime.so.1.* ${ALIGN_ONNXRUNTIME_LIBRARY:-}; do
    [ -f "$candidate" ] && export ALIGN_ONNXRUNTIME_LIBRARY=$candidate && break
done
echo "bundle $bundle, device $DEVICE, ONNX Runtime ${ALIGN_ONNXRUNTIME_LIBRARY:-missing}, libraries $libraries"
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
nvidia-smi --query-gpu=name,driver_version,memory.used --format=csv,noheader 2>&1 | head -4
provider=${ALIGN_ONNXRUNTIME_LIBRARY:+$(dirname "$ALIGN_ONNXRUNTIME_LIBRARY")/libonnxruntime_providers_cuda.so}
ldd "$provider" 2>&1 | grep 'not found'

for precision in "$@"; do
    folder=$OUT/$precision
    mkdir -p "$folder"
    rm -f "$folder"/*.json "$folder"/*.f32
    echo "== $precision: C++"
    timeout -k 5 "$SECONDS_EACH" "$work/cpp_gpu_check" "$bundle" "$DEVICE" "$precision" "$folder" "$ROUNDS"
    echo "== $precision: C++ ended with $?"
    timeout -k 5 "$SECONDS_EACH" "$PYTHON" "$here/compare.py" "$bundle" "$folder"
    echo "== $precision: compare.py ended with $?"
done

"$PYTHON" - "$OUT" "$@" <<'PY'
import json, pathlib, sys
out, result = pathlib.Path(sys.argv[1]), {}
for precision in sys.argv[2:]:
    result[precision] = {}
    for name in ("cpp", "compare"):
        try:
            result[precision][name] = json.loads((out / precision / f"{name}.json").read_text())
        except (OSError, ValueError) as error:
            result[precision][name] = {"errors": {name: f"{type(error).__name__}: {error}"}}
(out / "cpp-gpu.json").write_text(json.dumps(result, indent=1) + "\n")

print(f"{'':18}{'C++ ms':>9}{'Python ms':>11}{'max abs':>11}{'min cosine':>12}  equal   against FP32 on the CPU")
for precision, parts in result.items():
    cpp, compare = parts["cpp"], parts["compare"]
    for name, call in cpp.get("calls", {}).items():
        mine, found = compare.get("python_calls", {}).get(name, {}), compare.get("cpp_against_python", {}).get(name, {})
        cpu = compare.get("cpp_against_cpu_fp32", {}).get(name, {})
        nan = float("nan")
        print(f"{precision + ' ' + name:18}{call['median_ms']:9.3f}{mine.get('median_ms', nan):11.3f}{found.get('max_abs', nan):11.2g}"
              f"{found.get('min_cosine', nan):12.7f}  {found.get('equal_bytes')!s:6}  {cpu.get('max_abs', nan):.2g}, cosine {cpu.get('min_cosine', nan):.7f}")
    for key in ("threads", "cold_threads"):
        print(f"{precision} {key}: C++ {cpp.get(key)}, Python {compare.get('python_' + key)}")
    for source, errors in (("C++", cpp.get("errors", {})), ("compare.py", compare.get("errors", {}))):
        for name, error in errors.items():
            print(f"{precision} {source} {name}: {error}")
sys.exit(any(part.get("errors") for parts in result.values() for part in parts.values()))
PY
