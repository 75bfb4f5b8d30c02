#!/usr/bin/env bash
# One conformance test in the virtual environment of setup.sh:  run.sh golden_test.py [TEST...]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$(bash "$here/setup.sh" | tail -n 1)
export PYTHONPATH=$here:$here/../e2e PYTHONDONTWRITEBYTECODE=1
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false TQDM_DISABLE=1
export CUDA_VISIBLE_DEVICES=
exec "$python" "$here/$1" "${@:2}" --verbose
