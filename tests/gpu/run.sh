#!/bin/sh
# Runs everything of this folder on the GPU of this machine; results go to $1 (default: results).
# Needs the driver and cuBLAS (libcublasLt.so.13), for several GPUs NCCL, where the loader finds
# them. Exit status: how many parts failed.
set -u
here=$(cd "$(dirname "$0")" && pwd)
results=${1:-results}
mkdir -p "$results"
failed=0
part() {
  name=$1
  shift
  if "$@" >"$results/$name.txt" 2>&1; then echo "$name: passed"; else
    failed=$((failed + 1))
    echo "$name: FAILED, see $results/$name.txt"
  fi
}
nvidia-smi >"$results/device.txt" 2>&1 || true
part self-test "$here/weft-gpu" self-test
part ops "$here/weft-gpu" ops
part golden-fp32 "$here/weft-gpu" golden --device cuda "$here"/golden/*
part golden-bf16 "$here/weft-gpu" golden --device cuda --precision bf16 "$here"/golden/*
part golden-shared "$here/weft-gpu" golden --device cuda --mesh tensor=2 "$here"/golden/gpt2-causal
if command -v compute-sanitizer >/dev/null 2>&1; then
  part sanitizer compute-sanitizer --error-exitcode 1 "$here/weft-gpu" self-test
fi
part bench "$here/weft-gpu" bench
exit "$failed"
