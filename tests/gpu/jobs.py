#!/usr/bin/env python3
"""Whole jobs of a cluster on the GPU of this machine, as a user hands them in, and beside them the same
on its CPU. Stands in the folder that job_folder.sh makes. python3 has to have torch and transformers;
cuBLAS, cuDNN and NCCL are taken from LD_LIBRARY_PATH or from its packages. Where it is root there has
to be a user `weft`, who may read both. A line a step; logs in RESULTS."""
import argparse
import json
import math
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import threading
import time
import traceback
import wave
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "e2e")]
if (HERE / "bin/weft").exists():
    os.environ.setdefault("WEFT_BIN", str(HERE / "bin"))
from cluster import BIN, Cluster, free_port, kill, losses  # noqa: E402

MODEL = ("{family: gpt2, config: {n_layer: LAYERS, n_head: HEADS, n_embd: HIDDEN, n_positions: TOKENS, "
         "vocab_size: 257}}")
JOB = """
name: NAME
kind: KIND
model: MODEL
tokenizer: TOKENIZER
TASKS
training: {steps: STEPS, batch_size: ROWS, sequence_length: TOKENS, seed: SEED, dropout: DROPOUT,
           precision: PRECISION, optimizer: {type: adamw, learning_rate: RATE}, schedule: {type: constant},
           reproducible: REPRODUCIBLE, activation_checkpointing: RECOMPUTE}
checkpoint: {every_steps: EVERY, keep_last: 3}
parallel: {AXIS: RANKS, zero: ZERO}
resources: {slots: RANKS, nodes: 1, device: DEVICE}
max_restarts: 2
"""
DEFAULTS = dict(KIND="pretrain", MODEL=MODEL, TOKENIZER="{type: byte}", DROPOUT="0.0", PRECISION="fp32",
                TASKS="tasks: [{name: lm, type: causal_lm, data: {train: texts/, format: text}}]", RATE="3.0e-4",
                SEED=3, ZERO=0, RECOMPUTE="none", REPRODUCIBLE="mesh", EVERY=0, AXIS="data", RANKS=1, DEVICE="gpu")
TWO_TASKS = """tasks:
  - {name: lm, type: causal_lm, weight: 1.0, data: {train: texts/, format: text}}
  - {name: kind, type: sequence_classification, labels: 2, weight: 1.0,
     data: {train: rows.jsonl, validation: held.jsonl, format: jsonl}}"""
SIZE = dict(LAYERS=4, HIDDEN=256, HEADS=4, TOKENS=256, ROWS=8, STEPS=40)
SMALL = dict(LAYERS=1, HIDDEN=32, HEADS=2, TOKENS=16, ROWS=4, STEPS=12)  # for GPUs made of fibers
LLAMA = ("{family: llama, config: {num_hidden_layers: LAYERS, num_attention_heads: HEADS, num_key_value_heads: 2, "
         "hidden_size: HIDDEN, intermediate_size: 300, max_position_embeddings: TOKENS, vocab_size: 257}}")
# Encoder-decoders, of texts and of recordings.
T5 = ("{family: t5, config: {num_layers: LAYERS, num_heads: HEADS, d_model: HIDDEN, d_kv: 32, d_ff: 300, "
      "feed_forward_proj: gated-gelu, tie_word_embeddings: false, vocab_size: 257}}")
TARGETS = """tasks:
  - {type: seq2seq, data: {train: rows.jsonl, validation: held.jsonl, format: jsonl, target: written}}"""
WHISPER = ("{family: whisper, config: {encoder_layers: LAYERS, decoder_layers: LAYERS, encoder_attention_heads: HEADS, "
           "decoder_attention_heads: HEADS, d_model: HIDDEN, encoder_ffn_dim: 300, decoder_ffn_dim: 300, "
           "num_mel_bins: 20, max_source_positions: TOKENS, max_target_positions: 48, vocab_size: 257, "
           "decoder_start_token_id: 256, pad_token_id: 256, bos_token_id: 256, eos_token_id: 256}}")
RECORDINGS = """tasks:
  - {type: speech_recognition, data: {train: tones/, validation: tones/, format: audio}}"""
GPT2_124M = ("{family: gpt2, config: {n_layer: 12, n_head: 12, n_embd: 768, n_positions: 1024, "
             "vocab_size: 50257}}")
# How far losses may be apart, over all steps: another order of sums, and another precision. That is
# why the rate is low: at 1e-3 what was 1e-5 apart at step 33 was 0.15 apart at step 38, a spike.
SUMS, PRECISIONS = 2e-4, 0.1


def library_path():
    found = [str(file.parent) for name in ("cublasLt.so.13", "cudnn.so.9", "nccl.so.2") for path in sys.path
             for file in Path(path).glob(f"nvidia/*/lib/lib{name}")]
    return ":".join(filter(None, [os.environ.get("LD_LIBRARY_PATH"), *dict.fromkeys(found)]))


class Steps:
    """Functions that run side by side, each after the ones it needs; each ends in a line."""

    def __init__(self, results, seconds):
        self.results, self.end = results, time.monotonic() + seconds
        self.lock, self.lines, self.threads = threading.Lock(), [], {}

    def say(self, name, passed, seconds, figures):
        with self.lock:
            self.lines.append(passed)
            print(f"{'passed' if passed else 'FAILED'}  {name:<22} {seconds:6.1f} s  {figures}", flush=True)

    def run(self, name, function, *after):
        def body():
            for each in after:
                each.join()
            start = time.monotonic()
            try:
                said = function()
                self.say(name, True, time.monotonic() - start, said or "")
            except Exception as error:
                (self.results / f"failed-{name}.txt").write_text(traceback.format_exc())
                self.say(name, False, time.monotonic() - start, " | ".join(str(error).split("\n"))[:400])
        self.threads[name] = threading.Thread(target=body, daemon=True)
        self.threads[name].start()
        return self.threads[name]

    def wait(self):
        for name, thread in list(self.threads.items()):
            thread.join(max(0.1, self.end - time.monotonic()))
            if thread.is_alive():
                self.say(name, False, 0, "not finished in time")


class Machine(Cluster):
    """A node on the GPU, and one, `host`, on the CPU."""

    def __init__(self, options, results):
        super().__init__(nodes=1, slots=options.slots)
        self.results, self.size = results, SMALL if options.small else SIZE
        self.agent_port = free_port()
        self.arguments = ["--agent-port", self.agent_port]
        self.host, self.files = self.folder / "host", self.folder / "files"
        (self.files / "texts").mkdir(parents=True)
        self.lock, self.numbers = threading.Lock(), 0
        self.curves, self.folders, self.process = {}, {}, None

    def gather_texts(self, size):
        """Python's own sources; rows of them are of two kinds."""
        text = ""
        for path in sorted(Path(os.__file__).parent.rglob("*.py")):
            text += path.read_text(errors="ignore")
            if len(text) > size:
                break
        (self.files / "texts" / "a.txt").write_text(text)
        rows = [row.strip()[:self.size["TOKENS"]] for row in text[:200_000].splitlines() if len(row.strip()) > 10]
        for name, part in (("rows", rows[:400]), ("held", rows[400:500])):
            (self.files / f"{name}.jsonl").write_text("".join(
                json.dumps({"text": row, "label": int("def " in row or "class " in row),
                            "written": " ".join(reversed(row.split()))}) + "\n" for row in part))

    def record_tones(self):
        """Recordings of one to three tones each, 16 kHz, and what they are."""
        tones, lines = self.files / "tones", []
        tones.mkdir()
        for i in range(24):
            hertz = [200 + 50 * ((7 * i + 5 * j) % 24) for j in range(1 + i % 3)]
            levels = [round(9000 * math.sin(2 * math.pi * each * at / 16000)) for each in hertz for at in range(4000)]
            with wave.open(str(tones / f"{i}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(16000)
                file.writeframes(struct.pack(f"<{len(levels)}h", *levels))
            lines.append(json.dumps({"file_name": f"{i}.wav", "transcription": " ".join(map(str, hertz))}) + "\n")
        (tones / "metadata.jsonl").write_text("".join(lines))

    def text(self, name, **more):
        text = JOB
        values = {"NAME": name.replace("=", "-"), **DEFAULTS, **self.size, **more}
        for _ in range(2):  # MODEL holds other words
            for key, value in values.items():
                text = re.sub(rf"\b{key}\b", str(value), text)
        return text

    def send(self, name, **more):
        with self.lock:
            self.numbers += 1
            path = self.files / f"job{self.numbers}.yaml"
        path.write_text(self.text(name, **more))
        return json.loads(self.weft("submit", "-f", path, "--json").stdout)["id"]

    def succeed(self, job, name):
        done = self.wait(job, "succeeded", 90)
        self.curves[name] = losses(self.metrics(job))
        return done, self.curves[name]

    def export(self, done, name):
        self.folders[name] = self.folder / "export" / name
        self.folders[name].parent.mkdir(exist_ok=True)
        self.weft("export", done["checkpoint"], "--to", self.folders[name])

    def peer(self, *words):
        done = subprocess.run([sys.executable, HERE / "jobs_peer.py", *map(str, words)], capture_output=True,
                              text=True, timeout=90,
                              env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""})
        assert done.returncode == 0, done.stderr[-400:]
        return done.stdout.strip().splitlines()[-1]

    # ---- the cluster --------------------------------------------------------------------------------
    def start_all(self):
        doctor = self.weft("doctor", check=False)
        said = doctor.stdout + self.up().stdout
        seen = {**self.environment(), "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([BIN / "weft", "join", f"127.0.0.1:{self.agent_port}", "--token", self.data / "join-secret",
                        "--name", "host", "--slots", "2", "--data", self.host], env=seen, check=True,
                       capture_output=True, timeout=60)
        nodes = self.weft("nodes", "--json").stdout
        (self.results / "cluster.txt").write_text(said + self.weft("nodes").stdout + nodes)
        node = next(node for node in json.loads(nodes)["nodes"] if node["name"] == "node-1")
        assert doctor.returncode == 0 and node.get("gpus", 0) > 0, said
        return f"{node['gpus']} GPU of {node['gpu_memory_bytes'] / 2**30:.1f} GiB, {node['slots']} slots"

    def down_and_up(self):
        states = {job["id"]: job["state"] for job in self.pages_of_jobs()}
        self.down()
        self.up()
        assert states == {job["id"]: job["state"] for job in self.pages_of_jobs()}
        return f"{len(states)} jobs are as they were"

    def pages_of_jobs(self):
        return self.rest("GET", "jobs?limit=1000")["jobs"]

    def stop_all(self):
        lines = []
        for job in self.pages_of_jobs():
            lines.append(f"===== {job['id']} {job['name']} {job['state']} {job.get('reason', '')}")
            for words in (["events", job["id"]], ["logs", job["id"], "--rank", "all"]):
                lines += self.weft(*words, check=False).stdout.splitlines()
        (self.results / "jobs.log").write_text("\n".join(lines))
        self.weft("down", "--now", "--data", self.host, check=False)
        self.down("--now", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- speed --------------------------------------------------------------------------------------
    def speed(self):
        """GPT-2 124M in bf16, alone on the GPU."""
        vocabulary = self.peer("tokenizer", self.files / "tokenizer.json", self.files / "texts" / "a.txt")
        start = time.monotonic()
        steps = 60
        job = self.send("124M", MODEL=GPT2_124M, TOKENIZER="{type: tokenizer_json, from: tokenizer.json}",
                        STEPS=steps, ROWS=8, TOKENS=1024, PRECISION="bf16", RATE="3.0e-4")
        self.wait_step(job, 1)
        first = time.monotonic() - start
        done, curve = self.succeed(job, "124M")
        whole = time.monotonic() - start
        records = [record for record in self.metrics(job) if "loss" in record["values"]]
        rate = statistics.median(record["values"]["tokens_per_second"] for record in records[20:])
        times = {record["step"]: record["time_ms"] for record in records}
        start = time.monotonic()
        self.export(done, f"124M-{job}")
        return (f"{rate:.0f} tokens/s, the median of steps 21 to {steps}; {(times[steps] - times[20]) / (steps - 20):.2f} "
                f"ms from step to step; first step after {first:.1f} s, whole {whole:.1f} s, exported in "
                f"{time.monotonic() - start:.1f} s; loss {curve[1]:.4f} to {curve[steps]:.4f}; {vocabulary}")

    # ---- curves -------------------------------------------------------------------------------------
    def curve(self, name, export=False, **more):
        def body():
            done, curve = self.succeed(self.send(name, **more), name)
            node = "host" if more.get("DEVICE") == "cpu" else "node-1"
            assert {rank["node"] for rank in done["ranks"]} == {node}, done["ranks"]
            if export:
                self.export(done, name)
            results = " ".join(f"{key} {value:.5f}" for key, value in sorted(done["results"].items()))
            return f"loss {curve[1]:.6f} to {curve[max(curve)]:.6f}; {results}"
        return body

    def apart(self, name, other, bar):
        def body():
            a, b = self.curves[name], self.curves[other]
            assert sorted(a) == sorted(b), (len(a), len(b))
            most = max(abs(a[step] - b[step]) for step in a)
            assert most <= bar, f"{most:.3g} apart, bar {bar:.3g}"
            return f"at most {most:.3g} apart over {len(a)} steps (bar {bar:.3g})"
        return body

    def same_bits(self, name, other):
        def body():
            assert self.curves[name] == self.curves[other]
            a, b = ((self.folders[each] / "model.safetensors").read_bytes() for each in (name, other))
            assert a == b
            return f"losses and {len(a)} bytes of exported weights are the same"
        return body

    def noise(self):
        """How far bf16 is from fp32 on the GPU and on the CPU, over the last half of the steps."""
        kinds = {"fp32": ("fp32", "gpu"), "gpu": ("bf16", "gpu"), "cpu": ("bf16", "cpu")}
        sent = {(kind, seed): self.send(f"{kind} {seed}", PRECISION=precision, DEVICE=device, SEED=seed)
                for seed in range(11, 15) for kind, (precision, device) in kinds.items()}
        curves = {key: self.succeed(job, str(key))[1] for key, job in sent.items()}
        steps, said = range(self.size["STEPS"] // 2 + 1, self.size["STEPS"] + 1), []
        for kind in ("gpu", "cpu"):
            means = [statistics.mean(curves[kind, seed][step] - curves["fp32", seed][step] for step in steps)
                     for seed in range(11, 15)]
            said.append(f"{kind} " + " ".join(f"{mean:+.4f}" for mean in means))
            assert max(map(abs, means)) < PRECISIONS, said
        return "loss in bf16 less that in fp32, by seed: " + "; ".join(said)

    # ---- what happens to a job that runs ------------------------------------------------------------
    def long_job(self, name):
        return self.send(name, STEPS=self.long, EVERY=max(4, self.long // 6), DROPOUT="0.1")

    def undisturbed(self):
        job = self.long_job("long")
        self.wait_step(job, 3)
        self.running = job
        pid = self.job(job)["ranks"][0]["pid"]
        sizes = " ".join(re.findall(r"Vm(?:Size|Data|RSS):\s+\d+ kB", Path(f"/proc/{pid}/status").read_text()))
        _, curve = self.succeed(job, "long")
        return f"loss {curve[1]:.4f} to {curve[self.long]:.4f}; {sizes}"

    def watched(self):
        while self.running is None:
            time.sleep(0.05)
        said = {}
        for words in (["show"], ["stack"], ["stack", "--threads"], ["metrics"],
                      ["trace", "--steps", "3", "-o", self.folder / "trace.json"]):
            start = time.monotonic()
            text = self.weft(words[0], self.running, *words[1:]).stdout
            (self.results / ("".join(map(str, words[:2])).replace("-", "") + ".txt")).write_text(text)
            said[" ".join(map(str, words[:2]))] = f"{time.monotonic() - start:.2f} s"
        shown = json.loads(self.weft("show", self.running, "--json").stdout)
        assert shown["state"] == "running", shown
        events = json.loads((self.folder / "trace.json").read_text())["traceEvents"]
        assert len(events) > 10
        return ", ".join(f"{key} {value}" for key, value in said.items()) + f"; {len(events)} events in the trace"

    def killed(self):
        job = self.long_job("killed")
        self.wait_step(job, self.long // 2)
        kill(self.job(job)["ranks"][0]["pid"])
        done, _ = self.succeed(job, "killed")
        assert done["attempt"] == 2, done["attempt"]
        return done["resume_note"]

    def paused(self):
        job = self.long_job("paused")
        self.wait_step(job, self.long // 3)
        self.weft("pause", job)
        self.wait(job, "paused")
        self.weft("resume", job)
        return self.succeed(job, "paused")[0]["resume_note"]

    # ---- folders of transformers --------------------------------------------------------------------
    def make_folder(self):
        return self.peer("make", self.files / "hf", *(self.size[key] for key in ("LAYERS", "HIDDEN", "HEADS", "TOKENS")))

    def from_folder(self, name, **more):
        return self.curve(name, export=True, KIND="fine_tune", MODEL=f"{{from: {self.files / 'hf'}}}", **more)

    def generated(self):
        count, files = (8 if self.size is SMALL else 60), []
        for prompt in ("def ", "x = ", "a("):
            files.append(self.folder / f"said{len(files)}.json")
            said = self.weft("generate", self.folders["tuned"], "--prompt", prompt, "--max-tokens", count,
                             "--temperature", "0", "--json").stdout
            files[-1].write_text(json.dumps({"prompt": prompt, **json.loads(said)}))
        return self.peer("greedy", self.folders["tuned"], count, *files)


def run_all(machine, run):
    make = run("make folder", machine.make_folder)
    long = run("long", machine.undisturbed)
    run("watched", machine.watched)
    one = run("fp32", machine.curve("fp32"))
    cpu = run("fp32 cpu", machine.curve("fp32 cpu", DEVICE="cpu"))
    run("fp32 = cpu", machine.apart("fp32", "fp32 cpu", SUMS), one, cpu)
    for name in ("killed", "paused"):
        run(f"{name} = long", machine.apart(name, "long", 0), long, run(name, getattr(machine, name)))
    chains = [one] * 3  # the node has slots for several at a time
    variants = {f"{axis}=2": dict(AXIS=axis, RANKS=2) for axis in ("tensor", "data", "sequence")}
    variants |= {f"zero={stage}": dict(RANKS=2, ZERO=stage) for stage in (1, 2, 3)}
    variants |= {f"recomputed {what}": dict(RECOMPUTE=what) for what in ("selective", "full")}
    variants |= {precision: dict(PRECISION=precision) for precision in ("bf16", "fp16")}
    for i, (name, more) in enumerate(variants.items()):
        chains[i % 3] = run(name, machine.curve(name, **more), chains[i % 3])
        bar = PRECISIONS if "PRECISION" in more else SUMS
        run(f"{name} = fp32", machine.apart(name, "fp32", bar), chains[i % 3], one)
    alike = dict(PRECISION="bf16", REPRODUCIBLE="topology", DROPOUT="0.1", export=True)
    last = run("topology", machine.curve("topology", **alike), cpu)
    for axis in ("tensor", "data", "sequence"):
        name = f"topology {axis}=2"
        last = run(name, machine.curve(name, AXIS=axis, RANKS=2, **alike), last)
        run(f"{name} = one", machine.same_bits(name, "topology"), last)
    tuned = run("tuned", machine.from_folder("tuned"), make, one)
    on_cpu = run("tuned cpu", machine.from_folder("tuned cpu", DEVICE="cpu"), make, cpu)
    run("tuned = cpu", machine.apart("tuned", "tuned cpu", SUMS), tuned, on_cpu)
    run("generated", machine.generated, tuned)
    left = run("left as it was", machine.from_folder("left", RATE="1.0e-30", STEPS=3), tuned)
    run("left = folder", lambda: machine.peer("same", machine.files / "hf", machine.folders["left"]), left)
    llama = [run(f"llama{name}", machine.curve(f"llama{name}", MODEL=LLAMA, DEVICE=device), on_cpu)
             for name, device in (("", "gpu"), (" cpu", "cpu"))]
    run("llama = cpu", machine.apart("llama", "llama cpu", SUMS), *llama)
    cut = run("llama tensor=2", machine.curve("llama tensor=2", MODEL=LLAMA, AXIS="tensor", RANKS=2), *llama)
    run("llama tensor=2 = one", machine.apart("llama tensor=2", "llama", SUMS), cut)
    both = [run(f"two tasks{name}", machine.curve(f"two tasks{name}", KIND="multi_task", TASKS=TWO_TASKS, DEVICE=device),
                on_cpu) for name, device in (("", "gpu"), (" cpu", "cpu"))]
    run("two tasks = cpu", machine.apart("two tasks", "two tasks cpu", 1e-3), *both)
    for name, more in (("t5", dict(MODEL=T5, TASKS=TARGETS)),
                       ("whisper", dict(MODEL=WHISPER, TASKS=RECORDINGS, TOKENS=50))):  # of a second
        pair = [run(f"{name}{on}", machine.curve(f"{name}{on}", DEVICE=device, export=True, **more), *both)
                for on, device in (("", "gpu"), (" cpu", "cpu"))]
        run(f"{name} = cpu", machine.apart(name, f"{name} cpu", SUMS), *pair)
        cut = run(f"{name} tensor=2", machine.curve(f"{name} tensor=2", AXIS="tensor", RANKS=2, **more), *pair)
        run(f"{name} tensor=2 = one", machine.apart(f"{name} tensor=2", name, SUMS), cut)
    run("noise of bf16", machine.noise, *both)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="folder for logs")
    parser.add_argument("--speed", action="store_true", help="only a step of GPT-2 124M, alone on the GPU")
    parser.add_argument("--slots", type=int, default=8, help="of the node on the GPU (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=150, help="what is not done by then has failed")
    parser.add_argument("--small", action="store_true", help="for GPUs that are played")
    options = parser.parse_args()
    options.slots = 0 if options.speed else options.slots
    options.results.mkdir(parents=True, exist_ok=True)
    os.environ.update(PATH=f"{BIN}:{os.environ['PATH']}", LD_LIBRARY_PATH=library_path())
    steps = Steps(options.results, options.seconds)
    machine = Machine(options, options.results)
    machine.long, machine.running = (40 if options.small else 1500), None
    machine.gather_texts(200_000 if options.small else 8_000_000)
    machine.record_tones()
    run = steps.run
    try:
        run("cluster", machine.start_all).join()
        if options.speed:
            run("124M again", machine.speed, run("124M", machine.speed))
        else:
            run_all(machine, run)
        steps.wait()
        run("down and up", machine.down_and_up).join(30)
    finally:
        machine.stop_all()
    failed = steps.lines.count(False)
    print(f"{len(steps.lines) - failed} passed, {failed} failed")
    os._exit(1 if failed else 0)  # threads may be left


if __name__ == "__main__":
    main()
