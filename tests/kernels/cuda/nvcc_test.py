#!/usr/bin/env python3
"""Compiles every .cu of the tree for sm_80 and sm_90a (what ends in _sm90.cu for sm_90a alone) with
warnings as errors, and says which kernels spill registers; more than SPILL_BYTES_MAX is an error, and
for products of warp groups any, and that they wait for each other. Usage: nvcc_test.py SOURCE_ROOT NVCC"""
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FLAGS = ["-std=c++20", "-c", "-o", "/dev/null", "--Werror=all-warnings", "-Xptxas=-v",
         "-Xcompiler=-Wall,-Wextra,-Werror", "-gencode=arch=compute_90a,code=sm_90a"]
FLAGS_OF_OTHERS = ["-gencode=arch=compute_80,code=sm_80"]
SPILL_BYTES_MAX = 32
SPILL = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'"
                   r"(?:(?!Compiling entry)[\s\S])*? ([1-9]\d*) bytes spill stores")


def compile_one(root, nvcc, source):
    of_sm90 = source.name.endswith("_sm90.cu")
    flags = FLAGS if of_sm90 else FLAGS + FLAGS_OF_OTHERS
    done = subprocess.run([nvcc, *flags, f"-I{root}", str(source)], capture_output=True, text=True)
    name = source.relative_to(root)
    if done.returncode != 0:
        return False, f"{name}: does not compile\n{done.stderr}"
    spills = SPILL.findall(done.stderr)
    lines = [f"{kernel} for {arch} spills {size} bytes" for kernel, arch, size in spills]
    good = all(int(size) <= (0 if of_sm90 else SPILL_BYTES_MAX) for _, _, size in spills)
    serial = [line for line in done.stderr.splitlines() if "are serialized" in line]
    return good and not serial, "\n".join([f"{name}: compiled", *lines, *serial])


def main():
    root, nvcc = Path(sys.argv[1]), sys.argv[2]
    sources = sorted([*root.glob("kernels/cuda/*.cu"), *root.glob("tests/kernels/cuda/*/*.cu")],
                     key=lambda path: -path.stat().st_size)
    if not sources:
        sys.exit("no .cu files")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda source: compile_one(root, nvcc, source), sources))
    for _, text in results:
        print(text)
    sys.exit(0 if all(good for good, _ in results) else 1)


if __name__ == "__main__":
    main()
