"""Runs the rows of rows.py: for each, our program and its peer are started side by side and take turns,
so that both see the same machine. Times are medians; a ratio above 1 means that Weft takes longer."""
import argparse
import contextlib
import functools
import json
import math
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

from links import Links, lacking as links_lack
from rows import DEGREES, ROWS
from spare_cores import SpareCores, lacking as spare_cores_lack

# PyTorch's memory stays with the process instead of going back to the system after each step.
TUNED_MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
                "MALLOC_TOP_PAD_": str(512 << 20)}
# An OpenBLAS that is older than the processor takes the code of the next older one's instructions.
NEWEST_OPENBLAS = {"OPENBLAS_CORETYPE": "SkylakeX"} if "avx512dq" in Path("/proc/cpuinfo").read_text() else {}
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BIN = Path(os.environ.get("WEFT_BIN", ROOT / "build/release/bin"))


class Program:
    """A process that times itself on request."""

    def __init__(self, command, environment=None):
        self.command = list(map(str, command))
        self.used = {}   # processor seconds of each part of a step, where they are told
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, cwd=ROOT,
                                        env=os.environ | (environment or {}))
        if self.answer() != "ready":
            raise SystemExit(f"bench: {' '.join(self.command)} did not start")

    def answer(self):
        return self.process.stdout.readline().strip()

    def ask(self, request):
        self.process.stdin.write(f"{request}\n")
        self.process.stdin.flush()
        answer = self.answer()
        if not answer:
            raise SystemExit(f"bench: {' '.join(self.command)} ended")
        return answer

    def seconds(self, request):
        seconds, *used = map(float, self.ask(request).split())
        part = "together" if str(request).isdigit() else request.split()[0]
        self.used.setdefault(part, []).extend(used)
        return seconds

    def state(self):
        """The loss of a step's last run and the bytes that the process has grown."""
        return tuple(map(float, self.ask("state").split()))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def mpirun(ranks):
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return ["mpirun", *root, "--bind-to", "none", "--oversubscribe", "-n", str(ranks)]


def words_of(arguments):
    return [f"{key}={value}" for key, value in arguments.items()]


def start_overlap(row, arguments, programs, contexts):
    """A step, the same without communication, and its communication alone. The rank's first thread computes,
    which a row may limit; it also repeats the communication, which then is not limited, as it is not in a step."""
    ranks = math.prod(arguments.get(axis, 1) for axis in DEGREES)
    links = contexts.enter_context(Links(ranks, row.megabits))
    job = Program([*links.mpirun(), BIN / "weft-bench-mesh", *words_of(arguments)])
    programs.append(job)
    processes = links.processes("weft-bench-mesh")
    cores = None
    if row.spare:
        cores = contexts.enter_context(SpareCores(processes, BIN / "weft-bench-beat"))
    else:
        links.pin(processes)

    def part(prefix, count):
        if cores:
            cores.free() if prefix == "communication " else cores.limited()
        return job.seconds(f"{prefix}{count}")
    return [functools.partial(part, prefix) for prefix in ("", "compute ", "communication ")]


def work_that_hides(row, arguments):
    """By what a step's work is to be multiplied for it to compute twice as long as it communicates, as it has to
    for something to hide all of that: on faster cores by more."""
    programs = []
    with contextlib.ExitStack() as contexts:
        try:
            _, compute, communication = (part(1) for part in start_overlap(row, arguments, programs, contexts))
        finally:
            for program in programs:
                program.close()
    return max(1, math.ceil(2 * communication / compute))


def start_mesh(row, arguments, programs, contexts):
    if row.against == "itself":
        return start_overlap(row, arguments, programs, contexts)
    ranks = math.prod(arguments.get(axis, 1) for axis in DEGREES)
    programs.append(Program([*mpirun(ranks), BIN / "weft-bench-mesh", *words_of(arguments)]))
    if row.against == "gloo":
        programs.append(Program([sys.executable, HERE / "peer_mesh.py", *words_of(arguments)]))
    else:
        alone = {key: value for key, value in arguments.items() if key not in (*DEGREES, "ulysses", "zero")}
        programs.append(Program([*mpirun(1), BIN / "weft-bench-mesh", *words_of(alone | {"threads": ranks})]))
    return [program.seconds for program in programs]


def start_sides(row, arguments, programs, contexts):
    """Functions, ours and each peer's, from a count of runs to the seconds of one."""
    words = words_of(arguments)
    if row.what == "mesh":
        return start_mesh(row, arguments, programs, contexts)
    if row.what == "all_reduce":   # ranks spin while they wait: one job takes both sides' turns
        programs.append(Program([*mpirun(2), BIN / "weft-bench-all-reduce", *words]))
        job = programs[0]
        return [lambda count, side=side: job.seconds(f"{side} {count}") for side in ("ours", "peer")]
    programs.append(Program([BIN / "weft-bench", row.what, *words]))
    for variant in row.variants:
        more = words_of(variant)
        if "library" in variant:
            programs.append(Program([BIN / "weft-bench", "library_" + row.what, *words, *more], NEWEST_OPENBLAS))
            continue
        programs.append(Program([sys.executable, HERE / "peer.py", row.what, *words, *more], TUNED_MALLOC))
    return [program.seconds for program in programs]


def english_texts(folder, alphabet):
    """Text that every Debian has, and a BPE trained on it: GPT-2's kind or Llama 2's."""
    texts = folder / "texts"
    texts.mkdir()
    parts = [path for path in sorted(Path("/usr/share/common-licenses").iterdir())
             if path.is_file() and not path.is_symlink()]
    parts += [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for number, path in enumerate(path for path in parts if path.is_file()):
        (texts / str(number)).write_text(path.read_text(errors="replace"))
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer, letters, special = Tokenizer(models.BPE()), [], []
    if alphabet == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        letters = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.model = models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
        special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train(sorted(map(str, texts.iterdir())), trainers.BpeTrainer(
        vocab_size=4096, initial_alphabet=letters, special_tokens=special, show_progress=False))
    file = json.loads(tokenizer.to_str())
    if alphabet == "characters":   # as published: bytes are tokens of the model only, a text is one word
        file["added_tokens"] = file["added_tokens"][:1]
        file["pre_tokenizer"]["split"] = False
    (folder / "tokenizer.json").write_text(json.dumps(file))
    size = sum(path.stat().st_size for path in texts.iterdir())
    return {"tokenizer": folder / "tokenizer.json", "texts": texts}, size


def fresh_weights(row, folder):
    """A Hugging Face folder that both sides of a step start from."""
    what = "gpt2_step" if row.what == "mesh" else row.what
    subprocess.run([sys.executable, HERE / "peer.py", what, *words_of(row.arguments), f"weights={folder}",
                    "make_weights=1"], check=True)


def row_result(name, row, ours, peer, unit, bar, raw):
    return {"name": name, "ours": ours, "peer": peer, "unit": unit, "ratio": ours / peer, "bar": bar,
            "within_bar": bar is None or ours / peer <= bar, "peer_name": row.peer, "raw": raw}


def loss_result(row, losses):
    loss = row_result(f"{row.name}_loss", row, losses[0], losses[1], "nats", 1.001,
                      {"ours": losses[:1], "peer": losses[1:]})
    loss["within_bar"] = abs(loss["ratio"] - 1) <= 1e-3
    return loss


def state_results(row, programs):
    """Of a step: peak memory, what of it is beyond weights, gradients and moments, and the loss, which
    tells that both did the same work."""
    states = [program.state() for program in programs]
    losses, peaks = ([state[i] for state in states] for i in (0, 1))
    beyond = [(peak - row.state_bytes) / 1e6 for peak in peaks]
    peaks = [peak / 1e6 for peak in peaks]
    return [row_result(f"{row.name}_memory", row, peaks[0], min(peaks[1:]), "MB", 0.85,
                       {"ours": peaks[:1], "peer": peaks[1:]}),
            row_result(f"{row.name}_memory_beyond_state", row, beyond[0], min(beyond[1:]), "MB", 0.6,
                       {"ours": beyond[:1], "peer": beyond[1:]}), loss_result(row, losses)]


def mesh_results(row, arguments, programs, times):
    """Of a mesh: the loss beside the peer's, and the largest process beside one rank's; of overlap, what
    share of the communication still takes time, and what share has a core do nothing: the first has the
    processor time of communication, which no core is free for, beside it."""
    ours = programs[0].state()
    if row.against == "itself":
        together, compute, communication = map(statistics.median, times)
        cores = min(math.prod(row.arguments.get(axis, 1) for axis in DEGREES), os.cpu_count())
        used = programs[0].used
        busy = {part: 1e3 * statistics.median(used[part][-len(times[0]):]) / cores
                for part in ("together", "compute")}
        idle = (together - busy["together"]) - (compute - busy["compute"])
        raw = {"together": times[0], "compute": times[1], "communication": times[2], "processor": used,
               "bytes_sent": ours[2],
               "batch": arguments["batch"], "tokens": arguments["tokens"]}
        lacks = {"exposed": together - compute, "idle": idle}
        if row.spare:   # what is left free is idle, too
            del lacks["idle"]
        bar = None if row.bar is None else 0.15
        return [row_result(f"{row.name}_{what}", row, max(0, value), communication, "ms", bar, raw)
                for what, value in lacks.items()]
    peer = programs[1].state()
    results = [loss_result(row, [ours[0], peer[0]])]
    if row.against == "one rank":
        results.append(row_result(f"{row.name}_memory", row, ours[1] / 1e6, peer[1] / 1e6, "MB", 1.0,
                                  {"ours": ours[1:], "peer": peer[1:]}))
    return results


def measure(row, samples, sample_seconds, cpu_time):
    """The results of a row: its time, and of a training step also memory and loss."""
    folder = Path(tempfile.mkdtemp(prefix="weft-bench-", dir=ROOT / "build"))
    programs, more, contexts = [], [], contextlib.ExitStack()
    try:
        arguments, work = dict(row.arguments), row.work
        if "texts" in row.needs:
            texts, work = english_texts(folder, row.arguments["alphabet"])
            arguments |= texts
        if "folder" in row.needs:
            arguments["folder"] = folder
        if "weights" in row.needs:
            fresh_weights(row, folder)
            arguments["weights"] = folder
        if cpu_time:
            arguments["cpu_time"] = 1
        if row.against == "itself" and row.bar is not None:
            factor = work_that_hides(row, arguments)
            # Of more rows each step of a ring sends and computes more, of longer ones it computes more of what it sends.
            arguments["tokens" if "sequence" in arguments else "batch"] *= factor
            work *= factor
        sides = start_sides(row, arguments, programs, contexts)
        # Also warms them up; a mesh's first steps are behind it when it is ready.
        once = max(1e-7, max(side(1 if row.what == "mesh" else 2) for side in sides))
        count = max(1, min(10000, int(sample_seconds / once)))
        times = [[] for _ in sides]
        for _ in range(samples):
            for side, taken in zip(sides, times):
                taken.append(1e3 * side(count))
        if row.state_bytes:
            more = state_results(row, programs)
        if row.what == "mesh":
            more = mesh_results(row, arguments, programs, times)
    finally:
        for program in programs:
            program.close()
        contexts.close()
        shutil.rmtree(folder, ignore_errors=True)
    ours, *peers = map(statistics.median, times)
    peer = max(peers) if row.against == "itself" else min(peers)
    result = row_result(row.name, row, ours, peer, "ms", row.bar,
                        {"ours": times[0], "peer": times[1 + peers.index(peer)]})
    for variant, taken in zip(row.variants if len(row.variants) > 1 else (), times[1:]):
        result["raw"][f"peer {variant}"] = taken
    if work:
        scale = {"G": 1e9, "M": 1e6}.get(row.rate[0], 1)
        result["rate_unit"] = row.rate
        result["rate"] = {"ours": work / scale / ours * 1e3, "peer": work / scale / peer * 1e3}
    return [result, *more]


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
    print(f"{clock}, medians of {options.samples} in ms, taking turns; ratio: ours over the peer's\n")
    print(f"{'name':<46}{'ours':>11}{'peer':>11}{'ratio':>7}{'bar':>5}  {'ours':>7}{'peer':>8}")
    results = []
    for row in rows:
        lack = (links_lack() if row.megabits else "") or (spare_cores_lack() if row.spare else "")
        if lack:
            print(f"{row.name:<46} left out: {lack}")
            continue
        for result in measure(row, options.samples, options.seconds, options.cpu_time):
            results.append(result)
            rates = ""
            if "rate" in result:
                rates = f"  {result['rate']['ours']:>7.2f}{result['rate']['peer']:>8.2f} {row.rate}"
            over = "" if result["within_bar"] else "  over its bar"
            bar = "-" if result["bar"] is None else f"{result['bar']:.2f}"
            print(f"{result['name']:<46}{result['ours']:>11.4f}{result['peer']:>11.4f}{result['ratio']:>7.2f}"
                  f"{bar:>5}{rates}{over}", flush=True)
    if options.json:
        for result in results:
            result["machine"] = about
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
