#!/usr/bin/env bash
# From a fresh machine to a fine-tuned model: installs what is missing, builds, starts a coordinator and
# two nodes on this machine, and runs three jobs on the licence texts that every Debian has:
#   (a) pretrain a small byte-level language model, tensor parallel over the two nodes
#   (b) from its checkpoint, learn two tasks at once: the language, and which of eight licence families
#       a paragraph comes from
#   (c) the same as (b) from scratch, to show what the transfer is worth
# Idempotent: a second run goes on with the same cluster and submits the jobs again.
#
#   quickstart.sh [--data DIR] [--port N] [--keep]
#     --data DIR  default: build/quickstart
#     --port N    of the REST API; default: the one that DIR's cluster has, else the next free from 7070 on
#     --keep      leave the cluster up
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
data=$root/build/quickstart
keep=false
port=()
while [ $# -gt 0 ]; do
  case "$1" in
    --data) data=$(realpath -m "${2:?--data needs a folder}"); shift 2 ;;
    --port) port=(--port "${2:?--port needs a number}"); shift 2 ;;
    --keep) keep=true; shift ;;
    -h|--help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "quickstart.sh: unknown option $1 (try --help)" >&2; exit 2 ;;
  esac
done

bash cluster/deploy/build.sh weft weft-coordinator weft-agent weft-worker
start=$SECONDS
export WEFT_DATA=$data/cluster PATH=$root/build/release/bin:$PATH
work=$data/jobs
mkdir -p "$work"
step() { printf '\n== %s\n' "$*"; }
field() { python3 -c 'import json,sys; v=json.load(sys.stdin)
for k in sys.argv[1].split("/"): v=v[k]
print(v)' "$1"; }

step "The data: /usr/share/common-licenses"
python3 cluster/deploy/licences.py "$work"

step "A coordinator and two nodes"
weft up --nodes 2 --slots-per-node 1 --data "$WEFT_DATA" "${port[@]}"
if ! $keep; then
  trap 'weft down --now --data "$WEFT_DATA" >/dev/null 2>&1 || true' EXIT
fi

model='{family: gpt2, config: {n_layer: 4, n_head: 4, n_embd: 96, n_positions: 256, vocab_size: 257}}'
cat >"$work/pretrain.yaml" <<EOF
name: licences-pretrain
kind: pretrain
model: $model
tokenizer: {type: byte}
tasks:
  - {name: lm, type: causal_lm, data: {train: texts/, format: text}}
training: {steps: 1500, batch_size: 8, sequence_length: 128, seed: 17, dropout: 0,
           optimizer: {type: adamw, learning_rate: 3.0e-3, betas: [0.9, 0.95]},
           schedule: {type: cosine, warmup_steps: 60}}
checkpoint: {every_steps: 500, keep_last: 2}
parallel: {tensor: 2}
resources: {slots: 2, nodes: 2}
EOF
multi_task() {  # name, model
  cat <<EOF
name: $1
kind: multi_task
model: $2
tokenizer: {type: byte}
tasks:
  - {name: lm, type: causal_lm, weight: 1.0, data: {train: texts/, format: text}}
  - {name: licence, type: sequence_classification, weight: 3.0, labels: 8,
     data: {train: train.jsonl, validation: held.jsonl, format: jsonl}}
training: {steps: 240, batch_size: 16, sequence_length: 128, seed: 17, evaluate_every: 80, dropout: 0.1,
           optimizer: {type: adamw, learning_rate: 2.0e-3, betas: [0.9, 0.95]},
           schedule: {type: cosine, warmup_steps: 20}}
checkpoint: {every_steps: 100, keep_last: 2}
parallel: {tensor: 2}
resources: {slots: 2, nodes: 2}
EOF
}

submit() { weft submit -f "$1" --json | field id; }
step "(a) Pretraining on two nodes, tensor parallel"
pretrain=$(submit "$work/pretrain.yaml")
weft watch "$pretrain"
base=$(weft show "$pretrain" --json | field checkpoint)

step "(b) Two tasks at once, from checkpoint $base"
multi_task licences-transfer "{from: $base}" >"$work/transfer.yaml"
transfer=$(submit "$work/transfer.yaml")
weft watch "$transfer"

step "(c) The same from scratch"
multi_task licences-scratch "$model" >"$work/scratch.yaml"
scratch=$(submit "$work/scratch.yaml")
weft watch "$scratch"

step "Jobs"
weft ls
tuned=$(weft show "$transfer" --json | field checkpoint)

step "Held-out accuracy: which licence family a paragraph comes from"
weft show "$transfer" --json >"$work/transfer.json"
weft show "$scratch" --json >"$work/scratch.json"
python3 cluster/deploy/accuracy.py "$work/summary.json" "$work/transfer.json" "$work/scratch.json"

step "A sample of the tuned model"
weft generate "$tuned" --prompt "This License " --max-tokens 120 --seed 1

step "Checkpoints"
weft checkpoints "$transfer"
rm -rf "$data/export"
weft export "$tuned" --to "$data/export" --task lm
ls -l "$data/export"
echo
echo "The model stands in $data/export in the Hugging Face format."
echo "Checkpoints and every fact about the jobs are in RocksDB under $WEFT_DATA."
echo "Done in $((SECONDS - start)) s after the build."
if $keep; then
  echo "The cluster is up: export WEFT_DATA=$WEFT_DATA; weft ls; weft down"
fi
