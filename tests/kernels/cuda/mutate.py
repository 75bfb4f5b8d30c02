#!/usr/bin/env python3
"""Writes one C++ file with a copy of the kernels for each mutation of mutations.py, in a namespace
of its own, and the table of them (cases.h: mutants()). Fails if a mutation's text does not stand in
its file exactly once. Usage: mutate.py SOURCE_ROOT OUTPUT"""
import re
import sys
from pathlib import Path

from mutations import MUTATIONS

INCLUDE = re.compile(r"^#(include|pragma).*\n", re.MULTILINE)
# Mutants are instantiated where they are named only, and attention for one width.
INSTANCES = re.compile(r"^#define WEFT_INSTANTIATE.*?^#undef WEFT_INSTANTIATE\n|^template void [^;]*;\n",
                       re.MULTILINE | re.DOTALL)
ONE_WIDTH = """namespace weft::cuda {
template <typename Act>
void with_one_width(int, const Act& act) {
  act.template run<64>();
}
}  // namespace weft::cuda
"""


def body(text, name, files):
    """The text without includes, with its namespace nested one deeper: what it does not define
    itself is found in weft::cuda. A call whose arguments are weft::cuda's alone would find both: it
    names the mutant's."""
    if "attention_rules.cuh" in files:
        text = re.sub(r"\b((?:check_attention|make_ranges)\(shape|seen_by_index\((?=rules\)))", rf"{name}::\1", text)
    if "attention_sm90.cuh" in files:
        text = re.sub(r"\b(copy_tile<|map_heads\((?=[a-z_]+,)|view_at\((?=view)|view_of\((?=stage))", rf"{name}::\1", text)
    if "outside.cuh" in files:
        text = re.sub(r"\b(noted_inside\((?!const)|note\((?!const))", rf"{name}::\1", text)
    text = INSTANCES.sub("", INCLUDE.sub("", text)).replace("with_width(", "with_one_width(")
    text = text.replace("with_panels(", "with_one_width(")
    return text.replace("namespace weft::cuda {", f"namespace weft::cuda::{name} {{")


def setter(name, function):
    """function: "TYPE:member" (member<TYPE>), "TYPE:member=expression", "member" or "member=expression"."""
    kind, colon, member = function.rpartition(":")
    member, _, expression = member.partition("=")
    if not colon:
        return f"set.{member} = &{name}::{expression or member};"
    return f"set.typed<{kind}>().{member} = &{name}::{expression or f'{member}<{kind}>'};"


def mutant(folder, name, files, old, new):
    parts = []
    for file in sorted(files, key=lambda file: file.endswith(".cu")):  # headers first
        text = (folder / file).read_text()
        if file == files[0]:
            if text.count(old) != 1:
                sys.exit(f"{name}: its text stands {text.count(old)} times in {file}, not once")
            text = text.replace(old, new)
        parts.append(body(text, name, files))
    return f"// ---- {name}\n" + "\n".join(parts)


def main():
    root, output = Path(sys.argv[1]), Path(sys.argv[2])
    folder = root / "kernels/cuda"
    headers = sorted(path.name for path in folder.glob("*.cuh")) + ["kernels.h", "launch.h", "attention.h"]
    parts = [f'#include "kernels/cuda/{header}"\n' for header in headers]
    parts.append('#include "tests/kernels/cuda/cases.h"\n')
    parts.append(ONE_WIDTH)
    rows = []
    for name, case, functions, files, old, new in MUTATIONS:
        parts.append(mutant(folder, name, files, old, new))
        sets = " ".join(setter(name, function) for function in functions)
        rows.append(f'      {{"{name}", "{case}", [](KernelSet& set) {{ {sets} }}}}')
    table = ",\n".join(rows)
    parts.append("namespace weft::cuda {\nconst std::vector<Mutant>& mutants() {\n"
                 f"  static const std::vector<Mutant> all{{\n{table}}};\n  return all;\n}}\n"
                 "}  // namespace weft::cuda\n")
    output.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
