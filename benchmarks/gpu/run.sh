#!/usr/bin/env bash
# On the machine with the GPU: unpacks what pack.sh packed beside this file and runs the check; its result and its log
# are in $OUT (this folder without it). Arguments go to the check: --dry-run tries it on a CPU, --minutes 10 is a limit,
# --only runs single steps again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here}
mkdir -p "$here/source" "$here/site" "$here/work" "$out"
python=${PYTHON:-python3}
unpacked=$here/unpacked # a second run with --only and --work goes on with what the first one unpacked
for archive in "$here"/source.tar.gz "$here"/*.tar.xz.aa; do
  if [ ! -f "$archive" ] || [ "$unpacked" -nt "$archive" ]; then
    continue
  elif [ "$archive" = "$here/source.tar.gz" ]; then
    tar xzf "$archive" -C "$here/source"
  elif "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))'; then
    into=$here/site
    [ "$(basename "$archive")" != bundles.tar.xz.aa ] || into=$here/work
    cat "${archive%aa}"* | tar xJ -C "$into"
  else
    echo "error: the packed packages are for Python 3.12; got $("$python" --version). Set PYTHON" >&2
    exit 2
  fi
done
touch "$unpacked"
cd "$here/source"
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' runtime/align_runtime/__init__.py)
mkdir -p "$here/site/align_onnx-$version.dist-info" # the packages are read from the source, and ask for their version
printf 'Metadata-Version: 2.1\nName: align-onnx\nVersion: %s\n' "$version" >"$here/site/align_onnx-$version.dist-info/METADATA"
export PYTHONPATH=runtime:reference:exporter:calibration:.:tests:$here/site PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
# ONNX Runtime looks for CUDA's packages beside its own; here they are where torch is.
LD_LIBRARY_PATH=$("$python" -c 'import glob, sys; print(":".join(d for p in sys.path for d in glob.glob(p + "/nvidia/*/lib")))')
export LD_LIBRARY_PATH
"$python" -m benchmarks.gpu.check --results "$out" --work "$here/work" "$@" 2>&1 | tee "$out/log"
