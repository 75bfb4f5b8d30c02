#!/usr/bin/env bash
# Installs what is missing, builds Release and runs the tests.
#   tests/run.sh                   the default suite
#   tests/run.sh -L conformance    the tests of a label (see docs/HACKING.md)
#   tests/run.sh -R REGEX          the tests whose name matches
set -euo pipefail
cd "$(dirname "$0")/.."
bash cluster/deploy/build.sh
arguments=("$@")
if [ "${#arguments[@]}" -eq 0 ]; then
  arguments=(-LE 'conformance|launch100|kill|bench|netns_long|nvcc')
fi
start=$SECONDS
ctest --test-dir build/release --output-on-failure -j "$(nproc)" "${arguments[@]}"
echo "Tests passed in $((SECONDS - start)) s"
