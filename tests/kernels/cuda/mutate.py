#!/usr/bin/env python3
"""Writes one C++ file with a copy of the kernels for each mutation of mutations.py, in a namespace
of its own, and the table of them (cases.h: mutants()). Fails if a mutation's text does not stand in
its file exactly once. Usage: mutate.py SOURCE_ROOT OUTPUT"""
import re
import sys
from pathlib import Path

from mutations import MUTATIONS

INCLUDE = re.compile(r"^#(include|pragma).*\n", re.MULTILINE)


def body(text, name):
    """The text without includes, with its namespace nested one deeper: what it does not define
    itself is found in weft::cuda."""
    text = INCLUDE.sub("", text)
    return text.replace("namespace weft::cuda {", f"namespace weft::cuda::{name} {{")


def mutant(folder, name, files, old, new):
    parts = []
    for index, file in enumerate(files):
        text = (folder / file).read_text()
        if index == 0:
            if text.count(old) != 1:
                sys.exit(f"{name}: its text stands {text.count(old)} times in {file}, not once")
            text = text.replace(old, new)
        parts.append(body(text, name))
    return f"// ---- {name}\n" + "\n".join(parts)


def main():
    root, output = Path(sys.argv[1]), Path(sys.argv[2])
    folder = root / "kernels/cuda"
    headers = sorted(path.name for path in folder.glob("*.cuh")) + ["kernels.h", "launch.h"]
    parts = [f'#include "kernels/cuda/{header}"\n' for header in headers]
    parts.append('#include "tests/kernels/cuda/cases.h"\n')
    rows = []
    for name, case, functions, files, old, new in MUTATIONS:
        parts.append(mutant(folder, name, files, old, new))
        sets = " ".join(f"set.{f} = &{name}::{f};" for f in functions)
        rows.append(f'      {{"{name}", "{case}", [](KernelSet& set) {{ {sets} }}}}')
    table = ",\n".join(rows)
    parts.append("namespace weft::cuda {\nconst std::vector<Mutant>& mutants() {\n"
                 f"  static const std::vector<Mutant> all{{\n{table}}};\n  return all;\n}}\n"
                 "}  // namespace weft::cuda\n")
    output.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
