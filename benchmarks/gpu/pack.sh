#!/usr/bin/env bash
# Packs into .gpu/ what the GPU check needs on a machine with one H100 or H200, Python 3.12, torch, onnx, onnxscript and
# transformers, and no network: folders of at most 64 MiB, one for each transfer. There, copy all of them into one folder
# and run `bash run.sh`. The bundles are made here: an export takes minutes of a machine that one has for fifteen. With
# --source nothing large is packed, to try run.sh on a CPU. PYTHON: with pip and the exporter.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3} out=$PWD/.gpu work=$(mktemp -d) architecture=${ARCHITECTURE:-90}
trap 'rm -rf "$work"' EXIT
rm -rf "$out"
mkdir -p "$out/1"
git archive --format=tar.gz -o "$out/1/source.tar.gz" HEAD
cp benchmarks/gpu/run.sh "$out/1/"

# Splits the folder $1 into compressed pieces $2.*, each in a folder of its own. $3: options of xz.
pieces() {
  tar cf - -C "$1" . | xz -T2 "$3" | split -b 50M - "$work/$2.tar.xz."
  for piece in "$work/$2".tar.xz.*; do
    n=$(($(find "$out" -mindepth 1 -maxdepth 1 -type d | wc -l) + 1))
    mkdir -p "$out/$n"
    mv "$piece" "$out/$n/"
  done
}

if [ "${1:-}" != --source ]; then
  for packages in onnxruntime-gpu "tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs"; do
    name=${packages%% *}
    site=$work/$name
    # shellcheck disable=SC2086
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary=:all: \
      --python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
      --target "$site" $packages
    provider=$site/onnxruntime/capi/libonnxruntime_providers_cuda.so
    if [ -f "$provider" ]; then
      "$python" -m benchmarks.gpu.keep_sm "$provider" "$work/kept.so" "$architecture"
      mv "$work/kept.so" "$provider"
      rm -rf "$site/onnxruntime/transformers" "$site/onnxruntime/tools"
    fi
    if [ -d "$site/tensorrt_rtx_bindings" ]; then # the package of that name, which is no wheel, is this import
      mkdir "$site/tensorrt_rtx"
      printf 'from tensorrt_rtx_bindings import *\nfrom tensorrt_rtx_bindings import __version__\n' >"$site/tensorrt_rtx/__init__.py"
    fi
    pieces "$site" "$name" -6
  done
  bundles=$work/bundles
  export PYTHONPATH=runtime:reference:exporter:calibration:.:tests
  "$python" -m benchmarks.gpu.checkpoint "$work/checkpoint"
  # Random weights say nothing about the accuracy of FP16.
  "$python" -m align_exporter "$work/checkpoint" -o "$bundles/full-size" --quiet --fp16 \
    --parity-max-abs fp16=2 --parity-min-cosine fp16=-1
  "$python" -m align_exporter reference/align-tiny -o "$bundles/align-tiny" --quiet --fp16 --int8
  pieces "$bundles" bundles --lzma2=preset=2,lc=0,lp=1,pb=1 # weights of 2 and of 4 bytes
fi
du -sh "$out"/*
