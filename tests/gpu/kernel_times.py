#!/usr/bin/env python3
"""Sums what Nsight Compute measured by kernel: a table of the time, its share, the launches and the mean of each.

    ncu --profile-from-start off --metrics gpu__time_duration.sum --clock-control none --cache-control none \\
        --csv --print-units base --log-file kernels.csv \\
        ./weft-gpu bench --profile --only '^gpt2 124M BF16 B=8 T=1024 eager$'
    ./kernel_times.py kernels.csv

That is one step, the sixth. Copies and fills by the driver are no kernels and are left out."""
import argparse
import csv
import re
import sys
from collections import defaultdict
from pathlib import Path

NANOSECONDS = {"ns": 1, "nsecond": 1, "us": 1e3, "usecond": 1e3, "ms": 1e6, "msecond": 1e6, "s": 1e9, "second": 1e9}


def durations(lines):
    """Kernel and nanoseconds of each launch."""
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        raise SystemExit("kernel_times: no table of ncu --csv in it")
    for row in csv.DictReader(line for line in lines[start:] if line.startswith('"')):
        if row["Metric Name"] == "gpu__time_duration.sum":
            yield row["Kernel Name"], float(row["Metric Value"].replace(",", "")) * NANOSECONDS[row["Metric Unit"]]


def short(name):
    """Without return type, arguments and our namespaces."""
    name = re.sub(r"\(anonymous namespace\)::|<unnamed>::|weft::|cuda::|ops::|cpu::", "", name)
    depth, end = 0, len(name)
    for at, letter in enumerate(name):
        if letter == "(" and depth == 0:
            end = at
            break
        depth += {"<": 1, ">": -1}.get(letter, 0)
    return name[:end].removeprefix("void ").strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="what ncu wrote; -: the standard input")
    parser.add_argument("--top", type=int, default=30, help="kernels that are told (30)")
    parser.add_argument("--width", type=int, default=100, help="characters of a name (100)")
    options = parser.parse_args()
    text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text()
    launches = defaultdict(list)
    for name, nanoseconds in durations(text.splitlines()):
        launches[short(name)].append(nanoseconds)
    total = sum(map(sum, launches.values()))
    count = sum(map(len, launches.values()))
    print(f"{total / 1e6:.3f} ms in {count} launches of {len(launches)} kernels")
    print(f"{'us':>10} {'share':>6} {'launches':>8} {'mean us':>8}  kernel")
    for name, times in sorted(launches.items(), key=lambda item: -sum(item[1]))[:options.top]:
        print(f"{sum(times) / 1e3:>10.1f} {sum(times) / max(total, 1):>6.1%} {len(times):>8}"
              f" {sum(times) / len(times) / 1e3:>8.2f}  {name[:options.width]}")


if __name__ == "__main__":
    main()
