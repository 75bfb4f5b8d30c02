#!/usr/bin/env python3
"""Holds the planner against this machine: for each configuration its memory to 10% of the measured
peak, its pick to 10% of the fastest measured mesh, and "does not fit" right both ways.

Every mesh that the planner looks at is run as MPI ranks of one thread, in turns, so that all see the
same machine; a time is the median of the rounds' median steps. Exit status 1 where a bar is missed.
  plan.py BIN [--only REGEX] [--rounds N] [--json FILE]     BIN: the folder of weft-bench-plan
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CORES = 2
OUT_OF_MEMORY = 7  # exit status of weft-bench-plan
MEMORY_BAR, PICK_BAR = 0.10, 1.10

WIDE = {"n_layer": 4, "n_head": 8, "n_embd": 512, "vocab_size": 2000}
DEEP = {"n_layer": 12, "n_head": 8, "n_embd": 256, "vocab_size": 1000}
# name, slots, model, training
CONFIGURATIONS = [
    ("rows", 2, WIDE, {"batch_size": 8, "sequence_length": 128}),
    ("odd rows", 2, WIDE, {"batch_size": 3, "sequence_length": 256}),
    ("one row", 2, WIDE, {"batch_size": 1, "sequence_length": 512}),
    ("long row", 2, {"n_layer": 2, "n_head": 8, "n_embd": 256, "vocab_size": 300},
     {"batch_size": 1, "sequence_length": 4096}),
    ("deep", 2, DEEP, {"batch_size": 4, "sequence_length": 256}),
    ("deep, bf16", 2, DEEP, {"batch_size": 4, "sequence_length": 256, "precision": "bf16"}),
    ("wide", 2, {"n_layer": 2, "n_head": 16, "n_embd": 1024, "vocab_size": 1000},
     {"batch_size": 2, "sequence_length": 128}),
    ("vocabulary", 2, {"n_layer": 2, "n_head": 8, "n_embd": 256, "vocab_size": 30000},
     {"batch_size": 4, "sequence_length": 128}),
    ("accumulated", 2, WIDE, {"batch_size": 8, "micro_batch_size": 1, "sequence_length": 128}),
    ("recomputed", 2, DEEP,
     {"batch_size": 4, "sequence_length": 256, "activation_checkpointing": "full"}),
    ("selective", 2, DEEP,
     {"batch_size": 4, "sequence_length": 256, "activation_checkpointing": "selective"}),
    ("four rows", 4, WIDE, {"batch_size": 8, "sequence_length": 128}),
    ("four, one row", 4, WIDE, {"batch_size": 1, "sequence_length": 1024}),
    ("four, bf16", 4, WIDE, {"batch_size": 4, "sequence_length": 256, "precision": "bf16"}),
]
FITS = ["rows", "long row", "four rows"]


def job_of(model, training, parallel, slots):
    model = dict(model, n_positions=max(1024, training["sequence_length"]),
                 resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    return {"name": "bench", "kind": "pretrain", "model": {"family": "gpt2", "config": model},
            "tokenizer": {"type": "byte"}, "training": dict(training, steps=6),
            "tasks": [{"type": "causal_lm", "data": {"train": "obj-text"}}],
            "parallel": parallel, "resources": {"slots": slots}}


class Bench:
    def __init__(self, binaries, folder):
        self.program = str(Path(binaries) / "weft-bench-plan")
        self.folder = Path(folder)
        (self.folder / "obj-text").mkdir()
        words = "".join(f"line {i * i} of a text that repeats itself\n" for i in range(20000))
        (self.folder / "obj-text" / "a.txt").write_text(words)

    def write(self, job):
        path = self.folder / "job.json"
        path.write_text(json.dumps(job))
        return str(path)

    def plan(self, model, training, slots, memory=0):
        path = self.write(job_of(model, training, "auto", slots))
        told = subprocess.run([self.program, "predict", path, f"slots={slots}", f"cores={CORES}",
                               f"memory={memory}"], check=True, capture_output=True, text=True)
        return json.loads(told.stdout)

    def run(self, model, training, mesh, memory=0):
        """Median seconds a step, peak of tensors, VmData; None: out of memory."""
        parallel = {key: mesh[key] for key in ("data", "sequence", "tensor", "zero")}
        if mesh["sequence"] > 1:
            ulysses = mesh["ulysses"]
            kind = {1: "ring", mesh["sequence"]: "ulysses"}.get(ulysses, "ulysses_ring")
            parallel["sequence_attention"] = kind
            if kind == "ulysses_ring":
                parallel["ulysses"] = ulysses
        settings = dict(training, micro_batch_size=mesh["micro_batch_size"],
                        activation_checkpointing=mesh["activation_checkpointing"])
        path = self.write(job_of(model, settings, parallel, mesh["slots"]))
        environment = dict(os.environ, OMPI_MCA_btl="self,vader,tcp",
                           OMPI_MCA_rmaps_base_oversubscribe="1")
        told = subprocess.run(
            ["mpirun", "-n", str(mesh["slots"]), "--bind-to", "none", "--oversubscribe",
             "--allow-run-as-root", self.program, "run", path, str(self.folder), "threads=1",
             f"memory={memory}"], capture_output=True, text=True, env=environment, timeout=600)
        found = re.search(r"seconds (\S+) peak (\S+) process (\S+)", told.stdout)
        if found:
            return tuple(float(word) for word in found.groups())
        if told.returncode == OUT_OF_MEMORY or "out of memory" in told.stderr:
            return None
        raise RuntimeError(f"{mesh}: {told.stdout}{told.stderr}")


def tensors(mesh):
    parts = ("parameters", "optimizer", "gradients", "activations", "workspace")
    return sum(mesh["memory"][part] for part in parts)


def mesh_name(mesh):
    return f"{mesh['data']}x{mesh['sequence']}x{mesh['tensor']} z{mesh['zero']}"


def measure(bench, name, slots, model, training, rounds):
    plan = bench.plan(model, training, slots)
    meshes = plan["meshes"]
    times = [[] for _ in meshes]
    for _ in range(rounds):
        for i, mesh in enumerate(meshes):
            seconds, peak, process = bench.run(model, training, mesh)
            times[i].append(seconds)
            mesh["measured_peak"], mesh["measured_process"] = peak, process
    rows = []
    for mesh, seconds in zip(meshes, times):
        rows.append({
            "configuration": name, "mesh": mesh_name(mesh),
            "picked": all(mesh[key] == plan["chosen"][key] for key in ("data", "sequence", "tensor")),
            "predicted_ms": mesh["step_seconds"] * 1e3, "measured_ms": statistics.median(seconds) * 1e3,
            "all_ms": [s * 1e3 for s in seconds],
            "tensors": tensors(mesh), "peak": mesh["measured_peak"],
            "memory": mesh["memory_bytes"], "process": mesh["measured_process"]})
    return rows


def print_rows(rows):
    for row in rows:
        print(f"{row['configuration']:<14} {row['mesh']:<12} {'*' if row['picked'] else ' '} "
              f"predicted {row['predicted_ms']:8.1f} ms  measured {row['measured_ms']:8.1f} ms   "
              f"tensors {row['tensors'] / 1e6:7.1f} MB of {row['peak'] / 1e6:7.1f} "
              f"({row['tensors'] / row['peak']:.3f})  process {row['memory'] / 1e6:7.1f} of "
              f"{row['process'] / 1e6:7.1f} ({row['memory'] / row['process']:.3f})", flush=True)


def misses_of(rows):
    misses = []
    fastest = min(row["measured_ms"] for row in rows)
    for row in rows:
        where = f"{row['configuration']} {row['mesh']}"
        if abs(row["tensors"] / row["peak"] - 1) > MEMORY_BAR:
            misses.append(f"{where}: memory {row['tensors'] / row['peak']:.3f} of the measured peak")
        if row["picked"] and row["measured_ms"] > PICK_BAR * fastest:
            misses.append(f"{where}: picked, {row['measured_ms'] / fastest:.2f} times the fastest")
    return misses


def check_fits(bench, name, slots, model, training):
    """The pick trains under a limit that the planner says it fits, and not under one it does not."""
    chosen = bench.plan(model, training, slots)["chosen"]
    need = chosen["memory_bytes"]
    misses = []
    for share, expected in ((1.0, True), (0.9, False)):
        trained = bench.run(model, training, chosen, memory=int(need * share)) is not None
        print(f"{name:<14} {mesh_name(chosen):<12} limit {need * share / 1e6:.1f} MB, {share:.2f} of the "
              f"need: {'trains' if trained else 'out of memory'}", flush=True)
        if trained != expected:
            misses.append(f"{name}: {'trains' if trained else 'fails'} under {share} of its need")
    return misses


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binaries")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    options = parser.parse_args()
    all_rows, misses = [], []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.binaries, folder)
        for name, slots, model, training in CONFIGURATIONS:
            if not re.search(options.only, name):
                continue
            rows = measure(bench, name, slots, model, training, options.rounds)
            print_rows(rows)
            all_rows += rows
            misses += misses_of(rows)
            if name in FITS:
                misses += check_fits(bench, name, slots, model, training)
    if options.json:
        Path(options.json).write_text(json.dumps(all_rows, indent=1))
    for miss in misses:
        print(f"MISSED {miss}")
    print(f"{len({row['configuration'] for row in all_rows})} configurations, {len(all_rows)} meshes, "
          f"{len(misses)} bars missed")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
