#!/usr/bin/env bash
# Measures Weft beside its peers (PyTorch, transformers, tokenizers, safetensors, MPI): prints a table,
# and with --json writes the rows with their raw times.
#   tests/bench/run.sh [--only REGEX] [--json FILE] [--list] [--samples N] [--seconds S] [--cpu-time]
# Builds what it needs; the peers come from the virtual environment of tests/conformance/setup.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bash "$here/../../cluster/deploy/build.sh" weft-bench weft-bench-all-reduce weft-bench-mesh weft-bench-beat >&2
python=$(bash "$here/../conformance/setup.sh" | tail -n 1)
export PYTHONDONTWRITEBYTECODE=1 CUDA_VISIBLE_DEVICES= HF_HUB_OFFLINE=1
exec "$python" "$here/bench.py" "$@"
