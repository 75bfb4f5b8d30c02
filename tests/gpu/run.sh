#!/bin/sh
# Runs what is in this folder on the GPU of this machine, or only the parts that are named.
# Usage: run.sh [RESULTS [PART...]]     results go to RESULTS (default: results)
# Needs the driver, cuBLAS 13 and NCCL 2; of those that the loader does not find, the ones among the
# packages of $PYTHON (default: python3) are taken, or set LD_LIBRARY_PATH.
# Exit status: how many parts failed.
case ${1:-} in -*) sed -n '2,6s/^# \{0,1\}//p' "$0"; [ "$1" = --help ] || [ "$1" = -h ]; exit ;; esac
set -u
here=$(cd "$(dirname "$0")" && pwd)
gpu=$here/weft-gpu
results=${1:-results}
[ $# -eq 0 ] || shift
chosen=" $* "
mkdir -p "$results"
results=$(cd "$results" && pwd)
jobs=$(nproc)
[ "$jobs" -le 16 ] || jobs=16
failed=0 ran=" "

# Puts the folder of library $1 on the loader's path where it is not found without.
provide() {
  if PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -q "$1"; then return; fi
  for folder in $(echo "${LD_LIBRARY_PATH:-}" | tr : ' '); do
    if [ -e "$folder/$1" ]; then return; fi
  done
  folder=$("${PYTHON:-python3}" -c '
import glob, os, sys
found = [f for p in sys.path for f in glob.glob(p + "/nvidia/*/lib/" + sys.argv[1])]
print(os.path.dirname(found[0]) if found else "")' "$1" 2>/dev/null)
  if [ -z "$folder" ]; then
    echo "$1: not found; where it is needed, set LD_LIBRARY_PATH to its folder"
    return
  fi
  echo "$1: from $folder"
  export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
}

# part NAME SECONDS COMMAND...   the command may take so long
part() {
  name=$1 seconds=$2
  shift 2
  case $chosen in "  " | *" $name "*) ;; *) return ;; esac
  ran="$ran$name "
  start=$(date +%s)
  timeout -k 5 "$seconds" "$@" >"$results/$name.txt" 2>&1
  status=$?
  took=$(($(date +%s) - start))
  if [ "$status" -eq 0 ]; then echo "$name: passed in $took s"; else
    failed=$((failed + 1))
    [ "$status" -ne 124 ] || status="$status (more than $seconds s)"
    echo "$name: FAILED after $took s, status $status, see $results/$name.txt"
  fi
}

provide libcublasLt.so.13
provide libnccl.so.2
provide libcudnn.so.9
nvidia-smi >"$results/device.txt" 2>&1 || true
part self-test 120 "$gpu" self-test
part ops 400 "$here/ops.sh" "$gpu" "$results/ops" "$jobs"
part golden-fp32 120 "$gpu" golden --device cuda "$here"/golden/*
with_bars=$(dirname "$here"/golden/*/bf16.json)
# shellcheck disable=SC2086
part golden-bf16 120 "$gpu" golden --device cuda --precision bf16 $with_bars
part golden-shared 120 "$gpu" golden --device cuda --mesh tensor=2 "$here"/golden/gpt2-causal
part topology 120 "$gpu" topology
part nccl-alone 120 "$gpu" collectives --ranks 1
part nccl-shared 300 "$gpu" collectives --ranks 2 --seconds 40
part nccl-killed 130 "$gpu" lost-rank --how killed
part nccl-absent 130 "$gpu" lost-rank --how absent
part nccl-tensor 120 "$gpu" trajectory --mesh tensor=2 "$here"/golden/gpt2-causal
part nccl-data 120 "$gpu" trajectory --mesh data=2 "$here"/golden/gpt2-causal
if command -v compute-sanitizer >/dev/null 2>&1; then
  part sanitizer 300 compute-sanitizer --error-exitcode 1 "$gpu" self-test
fi
part bench 300 "$gpu" bench
for name in $chosen; do
  case $ran in *" $name "*) continue ;; esac
  echo "$name: FAILED, there is no such part here"
  failed=$((failed + 1))
done
exit "$failed"
