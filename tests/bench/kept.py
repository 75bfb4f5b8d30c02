#!/usr/bin/env python3
"""What data-parallel ranks keep between two steps and take within one, beside the formula: the rows of
docs/PERFORMANCE.md, "What data-parallel ranks keep and send"."""
import argparse
import tempfile

from plan import Bench

LAYERS, HIDDEN, VOCABULARY, POSITIONS = 12, 256, 4096, 1024
MODEL = {"n_layer": LAYERS, "n_head": 8, "n_embd": HIDDEN, "vocab_size": VOCABULARY}
TRAINING = {"batch_size": 16, "sequence_length": 16}
NORMS = (2 * LAYERS + 1) * 2 * HIDDEN
PARAMETERS = LAYERS * (12 * HIDDEN + 9) * HIDDEN + (VOCABULARY + POSITIONS) * HIDDEN + NORMS
MIB = 1 << 20


def formula(ranks, zero, bf16):
    """Values, the rest of masters and moments, as each rank keeps them."""
    norms = NORMS if bf16 else 0   # in fp32 all the same, and their own masters
    others = PARAMETERS - norms
    values, state = (2, 10) if bf16 else (4, 8)
    whole = values * others + 4 * norms
    shared = state * others + 8 * norms
    if zero == 0:
        return whole + shared
    if zero == 3:   # values are gathered when they are used
        return 12 * PARAMETERS / ranks
    # What a rank holds whole in fp32 beside masters in the shares: norms of half precision.
    return whole + (shared + 4 * norms) / ranks


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binaries", help="folder of weft-bench-plan")
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2, 4, 8])
    options = parser.parse_args()
    print(f"P {PARAMETERS / 1e6:.2f} million")
    print("| ranks, `zero` | fp32 kept | formula | fp32 most | bf16 kept | formula | bf16 most |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.binaries, folder)
        for ranks in options.ranks:
            for zero in (1, 2, 3) if ranks > 1 else (0,):
                mesh = dict(data=ranks, sequence=1, tensor=1, zero=zero, slots=ranks, micro_batch_size=1,
                            activation_checkpointing="none")
                cells = [f"{ranks}, {zero}" if zero else str(ranks)]
                for precision in ("fp32", "bf16"):
                    _, peak, _, kept = bench.run(MODEL, TRAINING | {"precision": precision}, mesh)
                    cells += [kept / MIB, formula(ranks, zero, precision == "bf16") / MIB, peak / MIB]
                print("| " + " | ".join(each if isinstance(each, str) else f"{each:.1f}" for each in cells)
                      + " |", flush=True)


if __name__ == "__main__":
    main()
