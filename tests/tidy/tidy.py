#!/usr/bin/env python3
"""Checks the shape of the source: include arrows, library pins, sizes, leftover markers.

Rules (docs/ARCHITECTURE.md gives the reasons):
  arrow    an include runs from a layer to itself or to one further down:
           coordinator > cluster > worker > kernels > proto
  library  a library is included only in the folders that it is pinned to
  size     file <= 600 lines, function <= 70 lines, line <= 100 columns
  marker   no leftover work markers
Usage: tidy.py ROOT. Prints one line a finding; exit status 1 if there is one.
"""
import re
import subprocess
import sys
from pathlib import Path

LAYERS = ["proto", "kernels", "worker", "cluster", "coordinator"]
FILE_LINES, FUNCTION_LINES, LINE_COLUMNS = 600, 70, 100

# Header prefix -> folders (or files) that may include it. tests/ mirrors the tree and may use all.
PINS = {
    r"boost/(asio|beast)": ["coordinator/api", "coordinator/cli", "coordinator/launcher",
                            "coordinator/main.cc", "cluster/rpc", "cluster/agent",
                            "cluster/shepherd", "cluster/process"],
    r"rocksdb/": ["coordinator/store", "cluster/chunks"],
    r"mpi\.h": ["cluster/comm/mpi"],
    r"nccl\.h": ["cluster/comm/nccl"],
    r"cuda|cublas|cudnn": ["kernels/cuda", "cluster/comm/nccl"],
    r"cblas\.h|openblas": ["kernels/cpu"],
    r"dnnl|omp\.h": ["kernels/cpu"],
    r"png\.h": ["worker/data/images"],
    r"(jpeglib|jerror)\.h": ["worker/data/images"],
    r"(sndfile|soxr)\.h": ["worker/data/audio"],
    r"oniguruma\.h": ["worker/data/tokenizers"],
    r"utf8proc\.h": ["worker/data/tokenizers", "coordinator/cli"],
    r"libfyaml\.h": ["proto/json"],
    r"nlohmann/": ["proto/json", "worker/data", "worker/models", "worker/checkpoint",
                   "worker/serve", "worker/golden", "coordinator/api", "coordinator/cli"],
    r"spdlog/": ["proto/base"],
    r"openssl/": ["proto/base", "cluster/rpc", "coordinator/api", "coordinator/cli"],
    r"CLI/": ["coordinator/cli", "coordinator/options", "cluster/agent", "cluster/process",
              "cluster/golden", "proto/json/reference_main.cc"],
}
MARKERS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SOURCES = {".h", ".cc", ".cu", ".cuh"}


def tracked(root):
    listed = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard"],
                            capture_output=True, text=True)
    if listed.returncode == 0:
        return [name for name in listed.stdout.splitlines() if (root / name).is_file()]
    skip = {"build", ".git", ".venv"}
    return [str(path.relative_to(root)) for path in root.rglob("*")
            if path.is_file() and not skip & set(path.relative_to(root).parts)]


def check_includes(name, lines):
    top = name.split("/")[0]
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = match.group(2)
        to = target.split("/")[0]
        if top in LAYERS and match.group(1) == '"' and to in LAYERS:
            if LAYERS.index(to) > LAYERS.index(top):
                yield f"{name}:{number}: arrow: {top} includes {target}"
        if top not in LAYERS:
            continue
        if target.endswith(".pb.h") or target.startswith(tuple(f"{x}/" for x in LAYERS)):
            continue
        for pattern, places in PINS.items():
            if re.match(pattern, target) and not name.startswith(tuple(places)):
                yield f"{name}:{number}: library: {target} is pinned to {', '.join(places)}"


def strip(line):
    """The line without string and character literals and line comments."""
    line = re.sub(r'"(\\.|[^"\\])*"', '""', line)
    line = re.sub(r"'(\\.|[^'\\])'", "' '", line)
    return line.split("//")[0]


def check_functions(name, lines):
    """A function is an opening brace after `)` at namespace or class level, to its closing brace."""
    depth_stack, start = [], None
    in_raw = False
    head = ""
    for number, line in enumerate(lines, 1):
        if in_raw:
            in_raw = ')"' not in line and not re.search(r'\)\w*"', line)
            continue
        if re.search(r'R"\w*\(', line) and not re.search(r'R"\w*\(.*\)\w*"', line):
            in_raw = True
            line = line.split('R"')[0]
        code = strip(line)
        if code.lstrip().startswith("#"):
            continue
        for char in code:
            if char == "{":
                scope = re.search(r"\b(namespace|class|struct|enum|union)\b[^()]*$|extern\s+$", head)
                kind = "scope" if scope else "block"
                if kind == "block" and start is None and ")" in head:
                    start = (number, len(depth_stack))
                depth_stack.append(kind)
                head = ""
            elif char == "}":
                if depth_stack:
                    depth_stack.pop()
                if start and len(depth_stack) == start[1]:
                    length = number - start[0] + 1
                    if length > FUNCTION_LINES:
                        yield (f"{name}:{start[0]}: size: function of {length} lines,"
                               f" at most {FUNCTION_LINES}")
                    start = None
                head = ""
            elif char == ";":
                head = ""
            else:
                head += char
        head += " "


def check_file(root, name):
    path = root / name
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    suffix = path.suffix
    if suffix in SOURCES | {".proto", ".py", ".sh", ".cmake"} or path.name == "CMakeLists.txt":
        for number, line in enumerate(lines, 1):
            if MARKERS.search(line) and name != "tests/tidy/tidy.py" \
                    and name != "tests/tidy/tidy_test.py":
                yield f"{name}:{number}: marker: {line.strip()[:60]}"
    if suffix in SOURCES | {".py", ".sh"}:
        if len(lines) > FILE_LINES:
            yield f"{name}:1: size: file of {len(lines)} lines, at most {FILE_LINES}"
    if suffix in SOURCES:
        for number, line in enumerate(lines, 1):
            if len(line) > LINE_COLUMNS:
                yield f"{name}:{number}: size: line of {len(line)} columns, at most {LINE_COLUMNS}"
        yield from check_includes(name, lines)
        yield from check_functions(name, lines)


def findings(root):
    for name in sorted(tracked(root)):
        if not name.startswith("tests/fixtures/"):
            yield from check_file(root, name)


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    count = 0
    for finding in findings(root):
        print(finding)
        count += 1
    print(f"{count} findings" if count else "tidy")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
