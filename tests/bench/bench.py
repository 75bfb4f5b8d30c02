"""Runs the rows of rows.py: for each, our program and its peer are started side by side and take turns,
so that both see the same machine. Times are medians; a ratio above 1 means that Weft takes longer."""
import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows import ROWS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BIN = Path(os.environ.get("WEFT_BIN", ROOT / "build/release/bin"))


class Program:
    """A process that times itself on request."""

    def __init__(self, command):
        self.command = list(map(str, command))
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, cwd=ROOT)
        if self.answer() != "ready":
            raise SystemExit(f"bench: {' '.join(self.command)} did not start")

    def answer(self):
        return self.process.stdout.readline().strip()

    def seconds(self, request):
        self.process.stdin.write(f"{request}\n")
        self.process.stdin.flush()
        answer = self.answer()
        if not answer:
            raise SystemExit(f"bench: {' '.join(self.command)} ended")
        return float(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def start_sides(row, arguments, programs):
    """Two functions, ours and the peer's, from a count of runs to the seconds of one."""
    words = [f"{key}={value}" for key, value in arguments.items()]
    if row.what == "all_reduce":   # ranks spin while they wait: one job takes both sides' turns
        mpirun = ["mpirun", "--bind-to", "none", "--oversubscribe", "-n", "2"]
        if os.geteuid() == 0:
            mpirun.append("--allow-run-as-root")
        programs.append(Program([*mpirun, BIN / "weft-bench-all-reduce", *words]))
        job = programs[0]
        return [lambda count, side=side: job.seconds(f"{side} {count}") for side in ("ours", "peer")]
    programs.append(Program([BIN / "weft-bench", row.what, *words]))
    programs.append(Program([sys.executable, HERE / "peer.py", row.what, *words]))
    return [program.seconds for program in programs]


def english_texts(folder):
    """Text that every Debian has, and a byte-level BPE trained on it."""
    texts = folder / "texts"
    texts.mkdir()
    parts = [path for path in sorted(Path("/usr/share/common-licenses").iterdir())
             if path.is_file() and not path.is_symlink()]
    parts += [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for number, path in enumerate(path for path in parts if path.is_file()):
        (texts / str(number)).write_text(path.read_text(errors="replace"))
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train(sorted(map(str, texts.iterdir())), trainers.BpeTrainer(
        vocab_size=4096, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.save(str(folder / "tokenizer.json"))
    size = sum(path.stat().st_size for path in texts.iterdir())
    return {"tokenizer": folder / "tokenizer.json", "texts": texts}, size


def measure(row, samples, sample_seconds, cpu_time):
    folder = Path(tempfile.mkdtemp(prefix="weft-bench-", dir=ROOT / "build"))
    programs = []
    try:
        arguments, work = dict(row.arguments), row.work
        if "texts" in row.needs:
            more, work = english_texts(folder)
            arguments |= more
        if "folder" in row.needs:
            arguments["folder"] = folder
        if cpu_time:
            arguments["cpu_time"] = 1
        sides = start_sides(row, arguments, programs)
        once = max(1e-7, max(side(2) for side in sides))   # also warms them up
        count = max(1, min(10000, int(sample_seconds / once)))
        times = [[], []]
        for _ in range(samples):
            for side, taken in zip(sides, times):
                taken.append(1e3 * side(count))
    finally:
        for program in programs:
            program.close()
        shutil.rmtree(folder, ignore_errors=True)
    ours, peer = map(statistics.median, times)
    result = {"name": row.name, "ours": ours, "peer": peer, "unit": "ms", "ratio": ours / peer,
              "bar": row.bar, "within_bar": ours / peer <= row.bar, "peer_name": row.peer,
              "raw": {"ours": times[0], "peer": times[1]}}
    if work:
        scale = 1e9 if row.rate.startswith("G") else 1e6
        result["rate_unit"] = row.rate
        result["rate"] = {"ours": work / scale / ours * 1e3, "peer": work / scale / peer * 1e3}
    return result


def machine():
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":")[1].strip()
            break
    versions = subprocess.run([sys.executable, "-c",
                               "import torch, transformers, tokenizers, safetensors as s;"
                               "print(torch.__version__, transformers.__version__,"
                               "tokenizers.__version__, s.__version__)"],
                              capture_output=True, text=True).stdout.split()
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(),
            "load_1_minute": os.getloadavg()[0], "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "peers": dict(zip(("torch", "transformers", "tokenizers", "safetensors"), versions))}


def main():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    parser.add_argument("--only", metavar="REGEX", default="", help="rows whose name matches")
    parser.add_argument("--json", metavar="FILE", help="write the rows with their raw times")
    parser.add_argument("--list", action="store_true", help="names of the rows")
    parser.add_argument("--samples", type=int, default=7, help="of each side (7)")
    parser.add_argument("--seconds", type=float, default=0.3, help="that a sample lasts (0.3)")
    parser.add_argument("--cpu-time", action="store_true",
                        help="processor time instead of the clock's: for rows of one thread on a busy machine")
    options = parser.parse_args()
    rows = [row for row in ROWS if re.search(options.only, row.name)]
    if options.list or not rows:
        print("\n".join(row.name for row in (rows or ROWS)))
        return 0 if rows else 2
    about = machine()
    print(f"{about['cpu']}, {about['cores']} cores, load {about['load_1_minute']:.1f}, {about['when']}")
    print(", ".join(f"{name} {version}" for name, version in about["peers"].items()))
    clock = "processor time" if options.cpu_time else "times"
    print(f"{clock}, medians of {options.samples}, taking turns; ratio: our time over the peer's\n")
    print(f"{'name':<46}{'ours ms':>11}{'peer ms':>11}{'ratio':>7}{'bar':>5}  {'ours':>7}{'peer':>8}")
    results = []
    for row in rows:
        result = measure(row, options.samples, options.seconds, options.cpu_time)
        results.append(result)
        rates = ""
        if "rate" in result:
            rates = f"  {result['rate']['ours']:>7.2f}{result['rate']['peer']:>8.2f} {row.rate}"
        over = "" if result["within_bar"] else "  over its bar"
        print(f"{row.name:<46}{result['ours']:>11.4f}{result['peer']:>11.4f}{result['ratio']:>7.2f}"
              f"{row.bar:>5.2f}{rates}{over}", flush=True)
    if options.json:
        for result in results:
            result["machine"] = about
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
