#!/usr/bin/env python3
"""What the planner's model says of the steps over links that run.sh has measured, beside what was measured:
the model that weft-bench-scaling extrapolates, on hosts with a link between them.

  run.sh --only 'mesh_.*_1gbit_spare' --json FILE
  links_plan.py build/release/bin FILE --gflops N --copy-gb N

Of such rows half of the machine's cores compute, an equal share of them each rank. A core's rates are given, as
those that a busy machine has at the moment are not those that it had: 1e9 operations a second in large products,
and 1e9 bytes a second that a copy reads and writes.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rows import DEGREES, ROWS

MEASURED = ("compute", "communication", "together")  # seconds, of a row's raw times in ms


def job_of(arguments):
    """A job whose step is the row's: all rows of a rank at once."""
    model = {"n_layer": arguments["layers"], "n_head": arguments["heads"], "n_embd": arguments["hidden"],
             "n_positions": arguments["tokens"], "vocab_size": arguments["vocabulary"],
             "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
    parallel = {axis: arguments.get(axis, 1) for axis in DEGREES}
    parallel["zero"] = arguments.get("zero", 0)
    if parallel["sequence"] > 1:
        parallel["sequence_attention"] = "ulysses" if arguments.get("ulysses", 1) > 1 else "ring"
    return {"name": "bench", "kind": "pretrain", "model": {"family": "gpt2", "config": model},
            "tokenizer": {"type": "byte"},
            "training": {"steps": 6, "batch_size": arguments["batch"], "sequence_length": arguments["tokens"],
                         "micro_batch_size": arguments["batch"] // parallel["data"]},
            "tasks": [{"type": "causal_lm", "data": {"train": "obj-text"}}], "parallel": parallel}


def ranks_of(arguments):
    ranks = 1
    for axis in DEGREES:
        ranks *= arguments.get(axis, 1)
    return ranks


def predicted(program, row, arguments, gflops, copy_gb):
    """The planner's mesh; rates are those of a rank's share of a core."""
    ranks = ranks_of(arguments)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as job:
        json.dump(job_of(arguments), job)
        job.flush()
        told = subprocess.run(
            [program, "predict", job.name, f"slots={ranks}", f"hosts={ranks}", f"cores={ranks}",
             f"megabits={row.megabits}", f"gflops={gflops:.0f}", f"copy_mb={copy_gb * 1e3:.0f}"],
            check=True, capture_output=True, text=True)
    return json.loads(told.stdout)["meshes"][0]


def line_of(program, row, measured, options):
    raw = measured["raw"]
    arguments = row.arguments | {key: raw[key] for key in ("batch", "tokens") if key in raw}
    share = measured["machine"]["cores"] / 2 / ranks_of(arguments)
    mesh = predicted(program, row, arguments, options.gflops * share, options.copy_gb * share)
    sent = sum(int(mesh[f"{axis}_bytes"]) for axis in ("tensor", "sequence", "replica"))
    return {"row": row.name, "sent": sent, "counted": raw["bytes_sent"],
            "predicted": [mesh["compute_seconds"], mesh["communication_seconds"], mesh["step_seconds"]],
            "measured": [statistics.median(raw[name]) / 1e3 for name in MEASURED]}


def read(parser, file):
    try:
        return json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        parser.error(f"FILE {file} must be what run.sh --json has written: {error}")


def above_0(text):
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", metavar="BIN", help="the folder of weft-bench-plan")
    parser.add_argument("files", metavar="FILE", nargs="+", help="what run.sh --json has written")
    parser.add_argument("--gflops", type=above_0, required=True, help="of one core")
    parser.add_argument("--copy-gb", type=above_0, required=True, help="of one core")
    options = parser.parse_args()
    program = str(Path(options.binaries) / "weft-bench-plan")
    if not Path(program).is_file():
        parser.error(f"BIN {options.binaries} must hold weft-bench-plan (ninja -C build/release weft-bench-plan)")
    rows = {f"{row.name}_exposed": row for row in ROWS if row.megabits > 0 and row.spare}
    measured = [each for file in options.files for each in read(parser, file)
                if each["name"] in rows]
    if not measured:
        parser.error("FILE must have rows of mesh_.*_1gbit_spare")
    print(f"{'row':<30} {'alone, s':>15} {'communication':>15} {'step':>15} {'ratio':>6} {'MB sent':>15}"
          "   (predicted, measured)")
    for each in measured:
        line = line_of(program, rows[each["name"]], each, options)
        pairs = [f"{said:7.2f} {was:7.2f}" for said, was in zip(line["predicted"], line["measured"])]
        print(f"{line['row']:<30} {' '.join(pairs)} {line['predicted'][2] / line['measured'][2]:>6.2f} "
              f"{line['sent'] / 1e6:7.1f} {line['counted'] / 1e6:7.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
