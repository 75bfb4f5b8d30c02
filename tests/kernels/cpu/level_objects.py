"""level_objects.py LIBRARY: nothing of an object that is compiled for some processors may run on others. So it has
no code that runs before main(), and no function that the linker could take for another object's of the same name."""
import re
import subprocess
import sys


def lines_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def main():
    library, member, seen, wrong = sys.argv[1], "", set(), []
    for line in lines_of("nm", "--demangle", library) + lines_of("readelf", "--wide", "--sections", library):
        if named := re.fullmatch(r"(?:File: .*\()?(\S+\.o)(?::|\))", line):
            member = named[1]
        elif re.search(r"_(v2|v3|v4|avx512bf16|amx)\.", member):
            seen.add(member)
            if re.match(r"[0-9a-f ]{16} [WVu] | +\[ *\d+\] \.(init_array|ctors)", line):
                wrong.append(f"{member}: {line.strip()}")
    print("\n".join(wrong) or f"{len(seen)} objects")
    return 1 if wrong or not seen else 0


if __name__ == "__main__":
    sys.exit(main())
