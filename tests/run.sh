#!/usr/bin/env bash
# Installs what is missing, builds Release and runs the tests.
#   tests/run.sh                      the default suite
#   tests/run.sh -L conformance       the tests of a label (see docs/HACKING.md)
#   tests/run.sh -R REGEX             the tests whose name matches
#   tests/run.sh --sanitize address   builds with that sanitizer, into build/asan, the tests that have
#                                     something for it to see, and runs them (also: thread, build/tsan)
#   tests/run.sh --sanitize thread TEST...      only these
set -euo pipefail
cd "$(dirname "$0")/.."

sanitize() {
  local kind=${1:-} preset tests
  local shared=(cluster_rpc_test cluster_process_test cluster_agent_link_test cluster_shepherd_test
    cluster_comm_local_test coordinator_store_test coordinator_launcher_test coordinator_service_test
    coordinator_api_http_test coordinator_api_routes_test kernels_tensor_test)
  case "$kind" in
    address)
      preset=asan
      tests=("${shared[@]}" proto_base_test proto_json_yaml_test proto_json_bad_test
        proto_json_round_trip_test proto_job_rules_test cluster_chunks_test coordinator_scheduler_test
        coordinator_cli_test coordinator_cli_served_test kernels_ops_test kernels_tape_test
        kernels_attention_test worker_checkpoint_test worker_safetensors_test worker_tokenizers_test
        worker_dataset_test worker_recordings_test worker_models_test worker_parallel_test worker_trainer_test
        worker_encoder_trainer_test) ;;
    thread)
      preset=tsan
      tests=("${shared[@]}" worker_parallel_test worker_checkpoint_test) ;;
    *) echo "tests/run.sh: --sanitize address or --sanitize thread" >&2; exit 2 ;;
  esac
  shift
  [ "$#" -eq 0 ] || tests=("$@")
  bash cluster/deploy/setup.sh
  cmake --preset "$preset" >/dev/null
  ninja -C "build/$preset" "${tests[@]}"
  ctest --test-dir "build/$preset" --output-on-failure --no-tests=error \
    -R "^($(IFS='|'; echo "${tests[*]}"))\$"
}

if [ "${1:-}" = --sanitize ]; then
  shift
  sanitize "$@"
  exit
fi
bash cluster/deploy/build.sh
arguments=("$@")
if [ "${#arguments[@]}" -eq 0 ]; then
  arguments=(-LE 'conformance|launch100|kill|bench|meshes|netns_long|nvcc')
fi
start=$SECONDS
ctest --test-dir build/release --output-on-failure -j "$(nproc)" "${arguments[@]}"
echo "Tests passed in $((SECONDS - start)) s"
