#!/usr/bin/env bash
# Installs what is missing and builds Release into build/release. Idempotent.
#   build.sh [TARGET...]     default: everything
set -euo pipefail
cd "$(dirname "$0")/../.."
bash cluster/deploy/setup.sh
log=build/release/build.log
mkdir -p build/release
start=$SECONDS
if ! cmake --preset release >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
echo "Building (log: $log)"
if [ -t 1 ]; then
  ninja -C build/release "$@"
elif ! ninja -C build/release "$@" >>"$log" 2>&1; then
  grep -B1 -A12 -E 'FAILED|error' "$log" | head -n 80 >&2
  echo "The build failed; the whole log is in $log" >&2
  exit 1
fi
echo "Built in $((SECONDS - start)) s"
