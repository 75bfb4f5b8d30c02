#!/usr/bin/env python3
"""Holds the planner against this machine: for each configuration its memory to 10% of the measured
peak, its pick to 10% of the fastest measured mesh, and "does not fit" right both ways.

Every mesh that the planner looks at is run as MPI ranks of one thread, in rounds over all of them, so
that all see the same machine; a time is the least of the rounds' median steps, as other programs only
add to it. A peak is that of one run more, whose transfers end only when they are waited for: the estimate
is what a rank can hold, and what leaves at once is not held. Rounds may have more, never less. The last
table says of each bar whether it is held; exit status 1 where one is missed.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CORES = 2
OUT_OF_MEMORY = 7  # exit status of weft-bench-plan
MEMORY_BAR, PICK_BAR = 0.10, 1.10

WIDE = {"n_layer": 4, "n_head": 8, "n_embd": 512, "vocab_size": 2000}
DEEP = {"n_layer": 12, "n_head": 8, "n_embd": 256, "vocab_size": 1000}
GROUPED = {"model_type": "llama", "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
           "hidden_size": 512, "intermediate_size": 1408, "vocab_size": 2000}
# name, slots, model, training; of a model that does not say its type: GPT-2
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
    ("grouped", 2, GROUPED, {"batch_size": 4, "sequence_length": 256}),
    ("four rows", 4, WIDE, {"batch_size": 8, "sequence_length": 128}),
    ("four, one row", 4, WIDE, {"batch_size": 1, "sequence_length": 1024}),
    ("four, bf16", 4, WIDE, {"batch_size": 4, "sequence_length": 256, "precision": "bf16"}),
    # The program and what is left to libraries are as much as the tensors.
    ("small", 2, {"n_layer": 4, "n_head": 4, "n_embd": 128, "vocab_size": 300},
     {"batch_size": 16, "sequence_length": 128}),
]
FITS = ["rows", "long row", "vocabulary", "four rows", "small"]


def job_of(model, training, parallel, slots):
    family = model.get("model_type", "gpt2")
    positions = "n_positions" if family == "gpt2" else "max_position_embeddings"
    model = {**model, positions: max(1024, training["sequence_length"])}
    if family == "gpt2":
        model.update(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    return {"name": "bench", "kind": "pretrain", "model": {"family": family, "config": model},
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

    def run(self, model, training, mesh, memory=0, late=False):
        """Median seconds a step, peak of tensors, VmData, tensors between steps; None: out of memory. late:
        with transfers that end only when they are waited for."""
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
        launch = ["mpirun", "-n", str(mesh["slots"]), "--bind-to", "none", "--oversubscribe",
                  "--allow-run-as-root"]
        environment = dict(os.environ, OMPI_MCA_btl="self,vader,tcp", OMPI_MCA_rmaps_base_oversubscribe="1",
                           # as a job's ranks have them (cluster/shepherd/open_mpi.cc)
                           OPENBLAS_NUM_THREADS="1", GLIBC_TUNABLES="glibc.malloc.tcache_count=0")
        told = subprocess.run([*launch, self.program, "run", path, str(self.folder), "threads=1",
                               f"memory={memory}", f"late={int(late)}"], capture_output=True, text=True,
                              env=environment, timeout=600)
        found = re.search(r"seconds (\S+) peak (\S+) process (\S+) kept (\S+)", told.stdout)
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


class Configuration:
    """A configuration with what was predicted and, round by round, measured of each of its meshes."""

    def __init__(self, bench, name, slots, model, training):
        self.name, self.slots, self.model, self.training = name, slots, model, training
        plan = bench.plan(model, training, slots)
        self.meshes, self.chosen = plan["meshes"], plan["chosen"]
        self.times = [[] for _ in self.meshes]

    def run_round(self, bench):
        for mesh, times in zip(self.meshes, self.times):
            seconds, peak, process, _ = bench.run(self.model, self.training, mesh)
            times.append(seconds)
            mesh["measured_peak"] = max(peak, mesh.get("measured_peak", 0))
            mesh["measured_process"] = max(process, mesh.get("measured_process", 0))

    def run_late(self, bench):
        for mesh in self.meshes:
            _, peak, _, _ = bench.run(self.model, self.training, mesh, late=True)
            mesh["measured_peak"] = max(peak, mesh["measured_peak"])

    def rows(self):
        keys = ("data", "sequence", "tensor")
        return [{"configuration": self.name, "mesh": mesh_name(mesh),
                 "picked": all(mesh[key] == self.chosen[key] for key in keys),
                 "predicted_ms": mesh["step_seconds"] * 1e3,
                 "compute_ms": mesh["compute_seconds"] * 1e3,
                 "communication_ms": mesh["communication_seconds"] * 1e3,
                 "hidden_ms": mesh["hidden_seconds"] * 1e3,
                 "measured_ms": min(times) * 1e3, "all_ms": [s * 1e3 for s in times],
                 "tensors": tensors(mesh), "peak": mesh["measured_peak"],
                 "memory": mesh["memory_bytes"], "process": mesh["measured_process"]}
                for mesh, times in zip(self.meshes, self.times)]


def summary_of(rows):
    """One configuration in a line: its memory at the pick and at worst, the pick beside the fastest."""
    pick = next(row for row in rows if row["picked"])
    fastest = min(rows, key=lambda row: row["measured_ms"])
    worst = max((row["tensors"] / row["peak"] for row in rows), key=lambda ratio: abs(ratio - 1))
    return {"configuration": pick["configuration"], "pick": pick["mesh"],
            "predicted_mb": pick["tensors"] / 1e6, "measured_mb": pick["peak"] / 1e6,
            "worst_memory": worst, "pick_ms": pick["measured_ms"],
            "predicted_ms": pick["predicted_ms"], "fastest": fastest["mesh"],
            "fastest_ms": fastest["measured_ms"], "ratio": pick["measured_ms"] / fastest["measured_ms"]}


def print_rows(rows):
    for row in rows:
        print(f"{row['configuration']:<14} {row['mesh']:<12} {'*' if row['picked'] else ' '} predicted "
              f"{row['predicted_ms']:7.1f} ms (arithmetic {row['compute_ms']:.1f}, sent "
              f"{row['communication_ms']:.1f}, hidden {row['hidden_ms']:.1f})  measured "
              f"{row['measured_ms']:7.1f} to {max(row['all_ms']):.1f} ms   tensors "
              f"{row['tensors'] / row['peak']:.3f}, process {row['memory'] / row['process']:.3f} of the "
              f"measured", flush=True)


def print_summary(lines):
    print(f"\n{'configuration':<14} {'MB predicted':>12} {'measured':>9} {'worst mesh':>10}  "
          f"{'pick':<12} {'ms':>7} {'predicted':>9}  {'fastest':<12} {'ms':>7} {'ratio':>6}")
    for line in lines:
        missed = abs(line["worst_memory"] - 1) > MEMORY_BAR or line["ratio"] > PICK_BAR
        print(f"{line['configuration']:<14} {line['predicted_mb']:>12.1f} {line['measured_mb']:>9.1f} "
              f"{line['worst_memory']:>10.3f}  {line['pick']:<12} {line['pick_ms']:>7.1f} "
              f"{line['predicted_ms']:>9.1f}  {line['fastest']:<12} {line['fastest_ms']:>7.1f} "
              f"{line['ratio']:>6.2f}{'  MISSED' if missed else ''}")


def check_fits(bench, configuration):
    """The pick trains under a limit that the planner says it fits, and not under one it does not: what
    went otherwise."""
    chosen = configuration.chosen
    need = chosen["memory_bytes"]
    wrong = []
    for share, expected in ((1.0, True), (0.9, False)):
        trained = bench.run(configuration.model, configuration.training, chosen,
                            memory=int(need * share)) is not None
        went = "trains" if trained else "is out of memory"
        text = (f"{configuration.name} {mesh_name(chosen)} {went} under {need * share / 1e6:.1f} MB, "
                f"{share:.2f} of its need")
        print(text, flush=True)
        if trained != expected:
            wrong.append(text)
    return wrong


def bars_of(rows, summary, checked, wrong):
    """Each bar, of how many it is asked, and which miss it."""
    memory = [f"{row['configuration']} {row['mesh']}: {row['tensors'] / row['peak']:.3f}" for row in rows
              if abs(row["tensors"] / row["peak"] - 1) > MEMORY_BAR]
    picks = [f"{line['configuration']}: {line['pick']} takes {line['ratio']:.2f} times as long as "
             f"{line['fastest']}" for line in summary if line["ratio"] > PICK_BAR]
    bars = {f"memory within {MEMORY_BAR:.0%} of the measured peak": (len(rows), memory),
            f"pick within {PICK_BAR - 1:.0%} of the fastest": (len(summary), picks),
            "fits, and does not fit, as said": (checked, wrong)}
    return [{"bar": words, "of": of, "missed": missed} for words, (of, missed) in bars.items()]


def print_bars(bars):
    print(f"\n{'bar':<42} {'of':>4} {'missed':>7}")
    for bar in bars:
        print(f"{bar['bar']:<42} {bar['of']:>4} {len(bar['missed']):>7}  {'MISSED' if bar['missed'] else 'held'}")
        for each in bar["missed"]:
            print(f"    {each}")


def run_rounds(bench, configurations, rounds, seconds):
    """As many rounds as fit into `seconds`, one at least; each runs every mesh once."""
    start = time.monotonic()
    for done in range(1, rounds + 1):
        for configuration in configurations:
            configuration.run_round(bench)
        spent = time.monotonic() - start
        print(f"round {done} of {rounds}, {spent:.0f} s", flush=True)
        if spent + spent / done > seconds:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", metavar="BIN", help="the folder of weft-bench-plan")
    parser.add_argument("--only", metavar="REGEX", default="", help="configurations whose name matches")
    parser.add_argument("--rounds", type=int, default=3, help="over all meshes (3); at least 1")
    parser.add_argument("--seconds", type=float, default=540, help="no round is begun that would end later")
    parser.add_argument("--json", metavar="FILE", help="write the rows and the bars")
    options = parser.parse_args()
    chosen = [each for each in CONFIGURATIONS if re.search(options.only, each[0])]
    if not chosen:
        parser.error(f"--only must match a configuration: {'; '.join(each[0] for each in CONFIGURATIONS)} "
                     f"(got {options.only})")
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1 (got {options.rounds})")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.binaries, folder)
        configurations = [Configuration(bench, *each) for each in chosen]
        checked = [each for each in configurations if each.name in FITS]
        wrong = [each for configuration in checked for each in check_fits(bench, configuration)]
        run_rounds(bench, configurations, options.rounds, options.seconds)
        for configuration in configurations:
            configuration.run_late(bench)
    rows, summary = [], []
    for configuration in configurations:
        own = configuration.rows()
        print_rows(own)
        rows += own
        summary.append(summary_of(own))
    bars = bars_of(rows, summary, 2 * len(checked), wrong)
    if options.json:
        Path(options.json).write_text(
            json.dumps({"summary": summary, "meshes": rows, "bars": bars}, indent=1))
    print_summary(summary)
    print_bars(bars)
    print(f"load {os.getloadavg()[1]:.1f}")
    return 1 if any(bar["missed"] for bar in bars) else 0


if __name__ == "__main__":
    sys.exit(main())
