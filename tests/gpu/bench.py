#!/usr/bin/env python3
"""Runs the rows of weft-gpu bench beside PyTorch on the GPU of this machine: ours, then the peer's (peer.py),
then ours again. Times are medians; a ratio above 1 means that Weft takes longer. Needs a python3 that has
PyTorch, whose libraries of NVIDIA's the program is given.

Rows (weft-gpu bench --list) come in parts: products, attention, bytes, 124M, 1.5B. Of attention, `backward` is
both ways less forward. Bars: products, attention and steps 1.0 of the best peer; attention by our own kernels
1/0.7 of cuDNN's; what moves bytes 1/0.8 of a copy of as many bytes.

Model FLOPs of a step: 6 N + 12 L H T a token, N the weights of all matrices but the positions (the table once,
as the head), L layers of H features; utilization of 989 TFLOP/s (H100 SXM, dense bf16, NVIDIA's data sheet) and of the best
product that was measured in the same run."""
import argparse
import importlib.util
import json
import os
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = {"products": r"^product ", "attention": r"^attention ", "bytes": r"^(copy|gelu|layer_norm|softmax) ",
         "124M": r"^gpt2 124M ", "1.5B": r"^gpt2 1\.5B "}
PEAK_TFLOPS = 989
MODELS = {"124M": (12, 768, 50257), "1.5B": (48, 1600, 50257)}   # layers, hidden, vocabulary
LOSS_AT = 4   # the fifth step's


def variants_of(row):
    """Of the peer, of which the best one counts."""
    if row.startswith("gpt2 124M"):
        return ["blocks cudnn", "blocks flash", "full cudnn graphs", "full flash graphs"]
    return {"product": ["eager"], "attention": ["flash", "cudnn"], "copy": ["eager"],
            "gpt2": ["blocks cudnn", "blocks flash"]}.get(row.split()[0], ["eager", "compiled"])


class Clock:
    """What is left of the seconds that all may take."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self, most=float("inf")):
        return max(0.0, min(most, self.end - time.monotonic()))


def library_folders():
    """Of the packages by which PyTorch brings NVIDIA's libraries along."""
    found = importlib.util.find_spec("nvidia")
    return [str(folder) for place in (found.submodule_search_locations if found else [])
            for folder in sorted(Path(place).glob("*/lib"))]


class Ours:
    def __init__(self, options):
        self.options = options
        self.environment = dict(os.environ)
        folders = [*library_folders(), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        if folders:
            self.environment["LD_LIBRARY_PATH"] = ":".join(folders)
        self.command = [options.program, "bench", *(["--small"] if options.small else []),
                        *(["--any-order"] if options.any_order else [])]

    def names(self):
        listed = subprocess.run([*self.command, "--list"], capture_output=True, text=True, env=self.environment)
        if listed.returncode != 0:
            raise SystemExit(f"bench: {listed.stderr.strip()}")
        return listed.stdout.splitlines()

    def measure(self, names, seconds_max, environment=None):
        """By name; what was not measured in time is absent."""
        only = "^(" + "|".join(map(re.escape, names)) + ")$"
        command = [*self.command, "--only", only, "--json", "--runs", self.options.runs, "--seconds",
                   seconds_of(self.options, names)]
        with tempfile.TemporaryFile("w+") as rows:
            try:
                subprocess.run(list(map(str, command)), stdout=rows, env=self.environment | (environment or {}),
                               timeout=seconds_max)
            except subprocess.TimeoutExpired:
                print(f"bench: ours was ended after {seconds_max:.0f} s", file=sys.stderr)
            rows.seek(0)
            lines = [line for line in rows.read().splitlines() if line.endswith("}")]
        return {row["name"]: row for row in map(json.loads, lines)}


class Peer:
    """A process, started where there is none."""

    def __init__(self, options):
        self.command = [sys.executable, str(HERE / "peer.py"), "--device", options.device, "--runs", str(options.runs),
                        *(["--small"] if options.small else []), *(["--cache", options.cache] if options.cache else [])]
        self.process = None

    def start(self):
        if self.process is None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def measure(self, row, variant, seconds, seconds_max):
        """The answer; without one the process is ended."""
        self.start()
        answer, end = b"", time.monotonic() + seconds_max
        try:
            request = {"row": row, "variant": variant, "seconds": seconds}
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            while not answer.endswith(b"\n"):
                ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
                if not ready:
                    self.process.kill()
                    raise TimeoutError(f"no answer within {seconds_max:.0f} s")
                piece = os.read(self.process.stdout.fileno(), 1 << 16)
                if not piece:
                    raise BrokenPipeError("the peer has ended")
                answer += piece
        except OSError as error:
            self.close()
            return {"error": str(error)}
        return json.loads(answer)

    def close(self):
        if self.process is None:
            return
        try:
            self.process.stdin.close()
            self.process.wait(10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process = None


def seconds_of(options, names):
    return options.seconds * (3 if names[0].startswith("gpt2") else 1)


def peer_row(name):
    """The peer has one way to run a step's passes."""
    return re.sub(" (eager|graphs)$", "", name)


class Results:
    """What was measured, by name, and of the peer by name and variant."""

    def __init__(self):
        self.ours, self.own, self.peers = {}, {}, {}

    @staticmethod
    def add(all_rows, key, row):
        known = all_rows.setdefault(key, row)
        if known is not row and "samples" in row and "samples" in known:
            known["samples"] += row["samples"]

    def seconds(self, row):
        return statistics.median(row["samples"]) if row and row.get("samples") and not row.get("error") else None

    def peers_of(self, name):
        """Seconds by variant."""
        found = {variant: self.seconds(row) for (row_name, variant), row in self.peers.items()
                 if row_name == peer_row(name)}
        return {variant: seconds for variant, seconds in found.items() if seconds}


def run_part(part, names, results, ours, peer, options, clock):
    def ours_once():
        start = time.monotonic()
        for name, row in ours.measure(names, clock.left(options.patience)).items():
            results.add(results.ours, name, row)
        if options.own and part == "attention":
            variable, value = options.own.split("=", 1)
            for name, row in ours.measure(names, clock.left(options.patience), {variable: value}).items():
                results.add(results.own, name, row)
        print(f"bench: {part}, ours: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)

    def peer_once():
        start = time.monotonic()
        for row in dict.fromkeys(map(peer_row, names)):
            for variant in filter(re.compile(options.peers).search, variants_of(row)):
                if clock.left() <= 0:
                    return
                answer = peer.measure(row, variant, seconds_of(options, names), clock.left(options.patience))
                results.add(results.peers, (row, variant), answer)
                if "error" in answer or row.startswith("gpt2"):
                    told = answer.get("error") or f"{answer['seconds']:.1f} s"
                    print(f"bench: {row}, {variant}: {told}", file=sys.stderr, flush=True)
        print(f"bench: {part}, peer: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)

    for _ in range(options.turns):
        peer.start()   # imports PyTorch meanwhile
        ours_once()
        peer_once()
        if part == "1.5B":
            peer.close()   # whatever memory it keeps
    ours_once()


def result(name, ours, peer, peer_name, bar, raw, unit="ms", scale=1e3):
    return {"name": name, "ours": ours * scale, "peer": peer * scale, "unit": unit, "ratio": ours / peer, "bar": bar,
            "within_bar": ours / peer <= bar, "peer_name": peer_name, "raw": raw}


def rate(row, ours, peer, work, unit):
    return row | {"rate": {"ours": work / ours, "peer": work / peer}, "rate_unit": unit}


def work_of(row):
    return row["rate"] * row["seconds"]   # of one run, in the unit of the rate


def plain_rows(results, names):
    """Products and steps, beside the best peer."""
    for name in names:
        row, peers = results.ours.get(name), results.peers_of(name)
        seconds = results.seconds(row)
        if not seconds or not peers:
            continue
        best = min(peers, key=peers.get)
        raw = {"ours": row["samples"]} | {f"peer {variant}": results.peers[peer_row(name), variant]["samples"]
                                          for variant in peers}
        done = result(name, seconds, peers[best], f"torch, {best}", 1.0, raw)
        done["peers_ms"] = {variant: 1e3 * each for variant, each in peers.items()}
        done = rate(done, seconds, peers[best], work_of(row), row["unit"])
        if not name.startswith("gpt2"):
            yield done
            continue
        other = results.peers[peer_row(name), best]
        done["gigabytes"] = {"ours": row["peak_bytes"] / 1e9, "peer": other["peak_bytes"] / 1e9}
        yield with_utilization(done, results)
        ours, theirs = row["losses"][LOSS_AT], other["losses"][LOSS_AT]
        loss = result(f"{name} loss", ours, theirs, f"torch, {best}", 1.01,
                      {"ours": row["losses"], "peer": other["losses"]}, "nats", 1)
        loss["within_bar"] = abs(loss["ratio"] - 1) <= 1e-2
        yield loss


def with_utilization(step, results):
    found = re.match(r"gpt2 (\S+) \w+ B=\d+ T=(\d+)", step["name"])
    layers, hidden, vocabulary = MODELS[found[1]]
    weights = 12 * layers * hidden * hidden + vocabulary * hidden
    per_token = 6 * weights + 12 * layers * hidden * int(found[2])
    measured = [work_of(row) / results.seconds(row) for name, row in results.ours.items()
                if name.startswith("product BF16") and results.seconds(row)]
    for key, peak in (("utilization", PEAK_TFLOPS), ("of_measured", max(measured, default=0))):
        if peak:
            step[key] = {side: per_token * speed / peak / 1e12 for side, speed in step["rate"].items()}
    return step


def attention_rows(results, names):
    """Forward and backward beside the best peer, and our own kernels beside cuDNN's."""
    for name in [name for name in names if name.endswith(" forward")]:
        base = name.removesuffix(" forward")
        both = f"{base} both ways"

        def ways(get):
            forward, all_ways = get(name), get(both)
            return {"forward": forward,
                    "backward": all_ways - forward if forward and all_ways and all_ways > forward else None}
        chosen = ways(lambda row: results.seconds(results.ours.get(row)))
        own = ways(lambda row: results.seconds(results.own.get(row))) if results.own else chosen
        peers = {variant: ways(lambda row, variant=variant: results.seconds(results.peers.get((row, variant))))
                 for variant in variants_of(name)}
        for way, products in (("forward", 2), ("backward", 5)):
            theirs = {variant: seconds[way] for variant, seconds in peers.items() if seconds[way]}
            if not chosen[way] or not theirs:
                continue
            work = work_of(results.ours[name]) / 2 * products
            raw = {side: {each: rows[each].get("samples", []) for each in (name, both) if each in rows}
                   for side, rows in (("ours", results.ours), ("own", results.own),
                                      *((f"peer {variant}", {row: each for (row, word), each in
                                                             results.peers.items() if word == variant})
                                        for variant in theirs))}
            best = min(theirs, key=theirs.get)
            done = rate(result(f"{base} {way}", chosen[way], theirs[best], f"torch, {best}", 1.0, raw),
                        chosen[way], theirs[best], work, "TFLOP/s")
            done["rates"] = {"own": work / own[way] if own[way] else 0, "chosen": work / chosen[way],
                             **{variant: work / seconds for variant, seconds in theirs.items()}}
            yield done
            if own[way] and "cudnn" in theirs:
                yield rate(result(f"{base} {way} own", own[way], theirs["cudnn"], "torch, cudnn", 1 / 0.7, {}),
                           own[way], theirs["cudnn"], work, "TFLOP/s")


def byte_rows(results, names):
    """Beside a copy of as many bytes by ours, and beside the best peer."""
    for name in names:
        row, peers = results.ours.get(name), results.peers_of(name)
        copies = [each for key, each in results.ours.items()
                  if key.startswith("copy " + " ".join(name.split()[1:3])) and results.seconds(each)]
        seconds = results.seconds(row)
        if not seconds or not copies:
            continue
        work = work_of(row)
        copy = work / (work_of(copies[0]) / results.seconds(copies[0]))
        raw = {"ours": row["samples"], "copy": copies[0]["samples"]}
        done = rate(result(name, seconds, copy, "a copy of as many bytes", 1 / 0.8, raw), seconds, copy, work, "GB/s")
        yield done | {"peers_ms": {variant: 1e3 * each for variant, each in peers.items()}}


ROWS_OF = {"products": plain_rows, "attention": attention_rows, "bytes": byte_rows, "124M": plain_rows,
           "1.5B": plain_rows}


def line_of(row):
    over = "" if row["within_bar"] else "  over its bar"
    if "rates" in row:
        rates = "".join(f" {name} {value:4.0f}" for name, value in row["rates"].items())
        against = f"  own/cudnn {row['rates']['own'] / row['rates']['cudnn']:.2f}" if "cudnn" in row["rates"] else ""
        return f"{row['name']:<46} TFLOP/s{rates}{against}  ratio {row['ratio']:.2f}{over}"
    text = f"{row['name']:<46}{row['ours']:>10.4f}{row['peer']:>10.4f} {row['ratio']:>5.2f}{row['bar']:>5.2f}"
    if "rate" in row:
        text += f" {row['rate']['ours']:>8.0f}{row['rate']['peer']:>8.0f} {row['rate_unit']}"
    if "utilization" in row:
        text += "  MFU " + " / ".join(f"{row['utilization'][side]:.1%}" for side in ("ours", "peer"))
    if "gigabytes" in row:
        text += "  GB " + " / ".join(f"{row['gigabytes'][side]:.1f}" for side in ("ours", "peer"))
    if "peers_ms" in row:
        text += "  " + ", ".join(f"{name} {value:.3f}" for name, value in row["peers_ms"].items())
    return text + over


def machine():
    asked = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
                           capture_output=True, text=True) if any(
        os.access(f"{folder}/nvidia-smi", os.X_OK) for folder in os.environ["PATH"].split(":")) else None
    version = importlib.util.find_spec("torch") and importlib.import_module("importlib.metadata").version("torch")
    return {"gpu": asked.stdout.strip() if asked else "", "torch": version,
            "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(HERE / "weft-gpu"), help="weft-gpu (beside this file)")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--only", metavar="REGEX", default="BF16", help="rows whose name matches (BF16)")
    parser.add_argument("--peers", metavar="REGEX", default="", help="variants of the peer that match")
    parser.add_argument("--own", metavar="NAME=VALUE", help="environment in which attention is our own kernels'")
    parser.add_argument("--any-order", action="store_true", help="ours as in jobs with training.reproducible: none")
    parser.add_argument("--turns", type=int, default=1, help="of the peer; ours has one more (1)")
    parser.add_argument("--runs", type=int, default=7, help="samples a turn (7)")
    parser.add_argument("--seconds", type=float, default=0.03, help="that a sample lasts, of steps thrice that")
    parser.add_argument("--seconds-max", type=float, default=540, help="of all: what is not measured by then is left out")
    parser.add_argument("--patience", type=float, default=120, help="seconds that ours has for a part, and the peer for a row")
    parser.add_argument("--cache", metavar="DIR", help="where what PyTorch compiles is kept for a later run")
    parser.add_argument("--json", metavar="FILE", help="write the rows with their raw times")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="the peer's")
    parser.add_argument("--small", action="store_true", help="sizes that show that it runs, not how fast")
    options = parser.parse_args()
    if unknown := set(options.parts.split(",")) - set(PARTS):
        parser.error(f"--parts: {', '.join(sorted(unknown))} is none of {', '.join(PARTS)}")
    if options.own and "=" not in options.own:
        parser.error("--own: must be NAME=VALUE")
    return options


def main():
    options = arguments()
    clock, results, rows = Clock(options.seconds_max), Results(), []
    ours, peer, about = Ours(options), Peer(options), machine()
    parts = options.parts.split(",")
    wanted = [name for name in ours.names() if re.search(options.only, name)
              and any(re.search(PARTS[part], name) for part in parts)]
    for part in parts:
        if names := [name for name in wanted if re.search(PARTS[part], name)]:
            run_part(part, names, results, ours, peer, options, clock)
            rows += ROWS_OF[part](results, names)
            if options.json:
                Path(options.json).write_text(json.dumps([row | {"machine": about} for row in rows], indent=1) + "\n")
    peer.close()
    print(f"{about['gpu']}, torch {about['torch']}, {about['when']}; ms, medians; ratio: ours over the peer's")
    print(f"{'name':<46}{'ours':>10}{'peer':>10} {'ratio':>5}{'bar':>5}")
    for row in rows:
        if not row["name"].endswith(" own"):   # those stand in the line before
            print(line_of(row))
    failed = {name: row["error"] for rows in (results.ours, results.own) for name, row in rows.items() if row["error"]}
    failed |= {f"{name}, {variant}": row["error"] for (name, variant), row in results.peers.items() if "error" in row}
    for name, error in failed.items():
        print(f"{name}: {error}")
    missing = [name for name in wanted if name not in results.ours]
    if missing:
        print(f"not measured: {', '.join(missing)}")
    for name in dict.fromkeys(map(peer_row, missing)):
        for variant, seconds in results.peers_of(name).items():
            print(f"{name}, {variant}: {1e3 * seconds:.4f} ms, the peer alone")
    return 1 if missing or any(row["error"] for row in results.ours.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
