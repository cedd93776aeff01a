#!/usr/bin/env bash
# On the machine with the GPU: unpacks what pack.sh packed beside this file and runs the check; its result and its log
# are in $OUT (this folder without it). Arguments go to the check: --dry-run tries it on a CPU, --minutes 10 is a limit.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here}
mkdir -p "$here/source" "$here/site" "$out"
tar xzf "$here/source.tar.gz" -C "$here/source"
for first in "$here"/*.tar.xz.aa; do
  if [ -f "$first" ]; then cat "${first%aa}"* | tar xJ -C "$here/site"; fi
done
cd "$here/source"
export PYTHONPATH=runtime:reference:exporter:calibration:.:tests:$here/site PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
"${PYTHON:-python3}" -m benchmarks.gpu.check --results "$out" "$@" 2>&1 | tee "$out/log"
