#!/usr/bin/env bash
# Installs what `make cpp` and `make cpp-test` need on Debian 12 or 13 (as root, or with sudo), and the packages that are
# named (clang and libclang-rt-dev, for `make cpp-fuzz`), and unpacks the headers of ONNX Runtime into
# build/onnxruntime-headers. Set ONNXRUNTIME_INCLUDE_DIR to use other headers. What is there already is left alone, so a
# second run needs no network.
set -euo pipefail
cd "$(dirname "$0")/../.."

PACKAGES=(build-essential cmake ninja-build pkg-config nlohmann-json3-dev libjpeg-dev zlib1g-dev libgtest-dev
          libcpp-httplib-dev "$@")
HEADERS=build/onnxruntime-headers
SUITE=forky # Debian 12 has no ONNX Runtime; the headers are those of the newest suite that is not unstable
SUDO=; [ "$(id -u)" = 0 ] || SUDO=sudo

missing=()
for package in "${PACKAGES[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    $SUDO apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $SUDO apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ -n "${ONNXRUNTIME_INCLUDE_DIR:-}" ] || [ -f "$HEADERS/onnxruntime_c_api.h" ]; then
    exit 0
fi
# A private list and state: the machine's own list of packages stays as it is, and nothing of the suite is installed.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial" "$HEADERS"
mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } |
    sed -nE 's/^(URIs:|deb( \[[^]]*\])?) *([a-z]+:[^ ]*\/debian)\/?( .*)?$/\3/p' | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} $SUITE main" \
    >"$work/sources.list"
private=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$work/lists"
         -o "Dir::Cache=$work" -o APT::Sandbox::User=root
         -o Acquire::Check-Valid-Until=false) # a mirror that lags is signed, and recent enough for headers
apt-get "${private[@]}" -qq update
(cd "$work" && apt-get "${private[@]}" -qq download libonnxruntime-dev && dpkg -x libonnxruntime-dev_*.deb unpacked)
cp "$(dirname "$(find "$work/unpacked" -name onnxruntime_c_api.h | head -1)")"/*.h "$HEADERS/"
