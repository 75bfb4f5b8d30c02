#!/usr/bin/env python3
"""Whole jobs on GPUs, without one: a machine with two GPUs, of which a library that stands in for
NVML tells the agent, and weft-worker-cuda built over GPUs that are made of fibers. Everything else
is the product: nodes offer GPUs, jobs ask for them, ranks find theirs, talk over NCCL (played over
files) or, where they share one, over MPI by way of pinned memory, train, checkpoint and go on. A
second node of the same cluster computes on the CPU."""
import json
import math
import os
import shutil
import signal
import unittest
import wave
from pathlib import Path

from cluster import BIN, Cluster, free_port, kill, losses

GIB = 1 << 30
GPUS = f"0 {80 * GIB} 0\n1 {40 * GIB} 0\n"
STEPS = 12
MODEL = "{family: gpt2, config: {n_layer: 1, n_head: 2, n_embd: 32, n_positions: 16, vocab_size: 257}}"
JOB = """
name: on-gpu
kind: pretrain
model: MODEL
tokenizer: {type: byte}
tasks: [{name: lm, type: causal_lm, data: {train: texts/, format: text}}]
training: {steps: STEPS, batch_size: 6, sequence_length: 16, seed: 3, dropout: 0.0, precision: PRECISION,
           optimizer: {type: adamw, learning_rate: 3.0e-3}, schedule: {type: constant}}
checkpoint: {every_steps: 4, keep_last: 3}
parallel: {AXIS: RANKS}
resources: {slots: RANKS, nodes: 1, device: DEVICE}
max_restarts: RESTARTS
""".replace("MODEL", MODEL)
# Of an encoder and a decoder, which are evaluated on the way.
WRITES = """
name: writes
kind: pretrain
model: {MODEL}
tokenizer: {type: byte}
tasks: [{TASK}]
training: {steps: 4, batch_size: 4, SETTINGS seed: 3, dropout: 0.1, evaluate_every: 4,
           optimizer: {type: adamw, learning_rate: 3.0e-3}, schedule: {type: constant}}
checkpoint: {every_steps: 2}
parallel: {tensor: RANKS}
resources: {slots: RANKS, nodes: 1, device: DEVICE}
"""
TEXTS = WRITES.replace("MODEL", """family: t5, config: {num_layers: 1, num_heads: 2, d_model: 16, d_kv: 8, d_ff: 24,
  vocab_size: 257, feed_forward_proj: gated-gelu, tie_word_embeddings: false}""").replace(
    "TASK", "type: seq2seq, data: {train: rows.jsonl, validation: rows.jsonl, format: jsonl}").replace(
    "SETTINGS", "sequence_length: 16, target_length: 8,")
RECORDINGS = WRITES.replace("MODEL", """family: whisper, config: {encoder_layers: 1, decoder_layers: 1,
  encoder_attention_heads: 2, decoder_attention_heads: 2, d_model: 16, encoder_ffn_dim: 24, decoder_ffn_dim: 24,
  num_mel_bins: 5, max_source_positions: 50, max_target_positions: 8, vocab_size: 257,
  decoder_start_token_id: 256, pad_token_id: 256, bos_token_id: 256, eos_token_id: 256}""").replace(
    "TASK", "type: speech_recognition, data: {train: tones/, validation: tones/, format: audio}").replace(
    "SETTINGS", "")
# What another order of sums does to a loss in so few steps: four times the most that was measured,
# 5.1e-7 and 2.9e-4.
TOLERANCE = {"fp32": 2e-6, "bf16": 1.2e-3}


class Machine(Cluster):
    """Node node-1 computes on the two GPUs; node `host`, which joins it, on the CPU."""

    def __init__(self, slots):
        super().__init__(nodes=1, slots=slots)
        self.bin, self.library = self.folder / "bin", self.folder / "lib"
        self.agent_port = free_port()
        self.arguments = ["--agent-port", self.agent_port]
        self.place_library(self.library, GPUS)
        self.place_programs(self.bin)
        shutil.copy(BIN / "weft-worker-cuda-on-cpu", self.bin / "weft-worker-cuda")
        texts = self.folder / "texts"
        texts.mkdir()
        (texts / "a.txt").write_text("a text that is told again\n" * 40)
        (self.folder / "rows.jsonl").write_text("".join(
            json.dumps({"text": "read " * (1 + i % 3), "target": f"row {i}"}) + "\n" for i in range(12)))
        self.record_tones(self.folder / "tones")
        self.joined = []

    def record_tones(self, folder):
        folder.mkdir()
        for i in range(8):
            with wave.open(str(folder / f"{i}.wav"), "wb") as file:
                file.setparams((1, 2, 16000, 0, "NONE", ""))
                file.writeframes(b"".join(
                    round(9000 * math.sin((i + 2) * at / 20)).to_bytes(2, "little", signed=True)
                    for at in range(2000 * (1 + i % 3))))
        (folder / "metadata.jsonl").write_text("".join(
            json.dumps({"file_name": f"{i}.wav", "transcription": f"tone {i}"}) + "\n" for i in range(8)))

    def place_programs(self, folder):
        folder.mkdir()
        for name in ("weft", "weft-coordinator", "weft-agent", "weft-worker"):
            shutil.copy(BIN / name, folder / name)

    def place_library(self, folder, gpus):
        folder.mkdir()
        shutil.copy(os.environ["WEFT_STAND_IN_NVML"], folder / "libnvidia-ml.so.1")
        (folder / "gpus").write_text(gpus)

    def set_machine(self, gpus, absent=""):
        """What the driver shows, and libraries that are not installed."""
        (self.library / "gpus").write_text(gpus)
        (self.library / "absent").write_text(absent)

    def environment(self):
        return {**super().environment(), "LD_LIBRARY_PATH": str(self.library)}

    def join(self, name, *, programs=None, library=None, slots=3):
        """A further node of this machine, which has `programs` of its own and sees the GPUs of a
        folder with a library of NVML."""
        folder = self.folder / name
        seen = self.environment()
        seen.update(LD_LIBRARY_PATH=str(library or ""))
        if library is None:
            seen.update(CUDA_VISIBLE_DEVICES="")
        environment, bin_folder = self.environment, self.bin
        self.environment, self.bin = lambda: seen, programs or self.bin
        try:
            self.weft("join", f"127.0.0.1:{self.agent_port}", "--token", self.data / "join-secret",
                      "--name", name, "--slots", slots, "--data", folder)
        finally:
            self.environment, self.bin = environment, bin_folder
        self.joined.append(folder)
        return folder

    def node(self, name):
        return next(node for node in self.rest("GET", "nodes")["nodes"] if node["name"] == name)

    def __exit__(self, kind, value, trace):
        for folder in self.joined:
            self.weft("down", "--now", "--data", folder, check=False)
        super().__exit__(kind, value, trace)


class GpuTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.machine = Machine(slots=3)
        cls.machine.up()
        cls.machine.join("host")
        cls.host_curves = {}

    @classmethod
    def tearDownClass(cls):
        if os.environ.get("WEFT_E2E_LOGS"):
            cls.machine.show_logs()
        cls.machine.__exit__(None, None, None)

    def tearDown(self):
        self.machine.set_machine(GPUS)

    def submit(self, device="gpu", ranks=1, axis="data", precision="fp32", steps=STEPS, restarts=0,
               text=JOB):
        for key, value in {"DEVICE": device, "RANKS": ranks, "AXIS": axis, "PRECISION": precision,
                           "STEPS": steps, "RESTARTS": restarts}.items():
            text = text.replace(key, str(value))
        path = self.machine.folder / "job.yaml"
        path.write_text(text)
        return json.loads(self.machine.weft("submit", "-f", path, "--json").stdout)["id"]

    def succeed(self, job):
        done = self.machine.wait(job, "succeeded")
        return done, losses(self.machine.metrics(job))

    def host_curve(self, precision="fp32"):
        """The same job's losses on the CPU."""
        if precision not in self.host_curves:
            done, curve = self.succeed(self.submit("cpu", precision=precision))
            self.assertEqual({rank["node"] for rank in done["ranks"]}, {"host"})
            self.host_curves[precision] = curve
        return self.host_curves[precision]

    def assert_near_host(self, curve, precision="fp32"):
        expected = self.host_curve(precision)
        self.assertEqual(sorted(curve), sorted(expected))
        for step, loss in curve.items():
            self.assertLess(abs(loss - expected[step]), TOLERANCE[precision], f"step {step}")

    def log_of(self, job):
        return self.machine.weft("logs", job, "--rank", "all").stdout

    def test_a_node_offers_its_gpus(self):
        node = self.machine.node("node-1")
        self.assertEqual((node["gpus"], node["slots"]), (2, 3))
        self.assertEqual(node["gpu_memory_bytes"], 40 * GIB)  # of the smaller one
        self.assertIn("2 x 40.0 GiB", self.machine.weft("nodes").stdout)
        self.assertEqual(self.machine.node("host").get("gpus", 0), 0)

    def test_a_rank_trains_on_a_gpu_and_the_model_comes_back(self):
        job = self.submit()
        done, curve = self.succeed(job)
        self.assertEqual([rank["node"] for rank in done["ranks"]], ["node-1"])
        self.assert_near_host(curve)
        self.assertLess(curve[STEPS], 0.9 * curve[1])
        values = [metric["values"] for metric in self.machine.metrics(job)
                  if "loss" in metric["values"]]
        self.assertTrue(all(value["tokens_per_second"] > 0 for value in values), values[0])
        # At least the parameters, their gradients and the two moments.
        self.assertGreater(values[-1]["memory_peak_bytes"], 4 * 4 * 12 * 32 * 32)
        out = self.machine.folder / "export"
        self.machine.weft("export", done["checkpoint"], "--to", out)
        more = JOB.replace("kind: pretrain", "kind: fine_tune").replace(MODEL, f"{{from: {out}}}")
        for device in ("gpu", "cpu"):
            _, further = self.succeed(self.submit(device, steps=1, text=more))
            self.assertLess(further[1], 0.9 * curve[1])

    def test_ranks_with_a_gpu_each_talk_over_nccl(self):
        for axis in ("data", "tensor"):
            job = self.submit(ranks=2, axis=axis)
            done, curve = self.succeed(job)
            self.assertEqual([rank["node"] for rank in done["ranks"]], ["node-1"] * 2)
            self.assert_near_host(curve)
            log = self.log_of(job)
            for gpu in (0, 1):
                self.assertIn(f"GPU-{gpu:08x}", log)
            self.assertIn("NCCL", log)

    def test_ranks_that_share_a_gpu_talk_over_mpi(self):
        job = self.submit(ranks=3)
        done, curve = self.succeed(job)
        self.assertEqual([rank["node"] for rank in done["ranks"]], ["node-1"] * 3)
        self.assert_near_host(curve)
        self.assertNotIn("NCCL", self.log_of(job))

    def test_bf16(self):
        _, curve = self.succeed(self.submit(precision="bf16", ranks=2))
        self.assert_near_host(curve, "bf16")

    def test_topology_invariant_training_has_the_bits_of_one_gpu(self):
        text = JOB.replace("batch_size: 6", "batch_size: 8, reproducible: topology")
        _, one = self.succeed(self.submit(text=text, steps=4))
        self.assertEqual(len(one), 4)
        for axis in ("data", "sequence", "tensor"):
            done, curve = self.succeed(self.submit(ranks=2, axis=axis, text=text, steps=4))
            self.assertEqual({rank["node"] for rank in done["ranks"]}, {"node-1"})
            self.assertEqual(curve, one, axis)

    def test_encoder_decoders_train_and_come_back(self):
        for text in (TEXTS, RECORDINGS):
            curves, ends = {}, {}
            for device, node in (("gpu", "node-1"), ("cpu", "host")):
                done, curves[device] = self.succeed(self.submit(device, ranks=2, text=text))
                self.assertEqual({rank["node"] for rank in done["ranks"]}, {node})
                ends[device] = [record["values"]["validation_loss"] for record in self.machine.metrics(done["id"])
                                if "validation_loss" in record["values"]][-1]
                if device == "gpu":
                    checkpoint = done["checkpoint"]
            self.assertEqual(sorted(curves["gpu"]), [1, 2, 3, 4])
            for step, loss in curves["gpu"].items():
                self.assertLess(abs(loss - curves["cpu"][step]), TOLERANCE["fp32"], f"step {step}")
            self.assertLess(abs(ends["gpu"] - ends["cpu"]), TOLERANCE["fp32"])
            # The CPU finds of the checkpoint what the GPUs did.
            data = "rows.jsonl" if text is TEXTS else "tones"
            said = json.loads(self.machine.weft("evaluate", checkpoint, self.machine.folder / data, "--json").stdout)
            self.assertLess(abs(said["loss"] - ends["gpu"]), 10 * TOLERANCE["fp32"], said)

    def test_a_killed_rank_goes_on_from_the_checkpoint(self):
        job = self.submit(ranks=2, restarts=3)
        self.machine.wait_step(job, 6)
        kill(self.machine.job(job)["ranks"][1]["pid"])
        done, curve = self.succeed(job)
        self.assertEqual(done["attempt"], 2)
        self.assertIn("bit for bit", done["resume_note"])
        self.assert_near_host(curve)

    def test_a_job_for_one_device_waits_rather_than_take_the_other(self):
        first = self.submit(ranks=3, steps=10000)
        self.machine.wait_step(first, 1)
        waiting = self.submit()
        done, _ = self.succeed(self.submit("cpu", steps=2))
        self.assertEqual([rank["node"] for rank in done["ranks"]], ["host"])
        self.assertEqual(self.machine.job(waiting)["state"], "queued")
        for job in (first, waiting):
            self.machine.weft("cancel", job)
            self.machine.wait(job, "cancelled")

    def test_too_many_or_too_large_ranks_are_refused(self):
        for ranks, old, new, words in ((8, "batch_size: 6", "batch_size: 8", "ranks, one a slot, but all known nodes"),
                                       (1, "n_layer: 1, n_head: 2, n_embd: 32",
                                        "n_layer: 96, n_head: 2, n_embd: 8192", "GPU")):
            with self.assertRaises(AssertionError) as refused:
                self.submit(ranks=ranks, text=JOB.replace(old, new))
            self.assertIn(words, str(refused.exception))

    def test_what_is_missing_is_named(self):
        for absent, ranks in (("libcublasLt.so.13", 1), ("libnccl.so.2", 2)):
            self.machine.set_machine(GPUS, absent)
            end = self.machine.wait(self.submit(ranks=ranks), "failed")
            self.assertIn(f"cannot load {absent}", end["reason"])
            self.assertIn("LD_LIBRARY_PATH", end["reason"])

    def test_a_gpu_that_is_gone_is_named(self):
        self.machine.set_machine(f"1 {40 * GIB} 0\n")
        end = self.machine.wait(self.submit(), "failed")
        self.assertIn("GPU-00000000-0000-0000-0000-000000000000, is gone", end["reason"])
        self.machine.set_machine("")
        end = self.machine.wait(self.submit(), "failed")
        self.assertIn("no GPU: no CUDA-capable device is detected", end["reason"])

    def test_a_gpu_in_mig_mode_is_the_instance_that_ranks_see(self):
        library = self.machine.folder / "lib-of-mig"
        self.machine.place_library(library, f"2 {40 * GIB} 1\n")
        folder = self.machine.join("mig", library=library, slots=4)
        self.assertEqual(self.machine.node("mig")["gpu_memory_bytes"], 10 * GIB)
        job = self.submit(ranks=4, steps=2, text=JOB.replace("batch_size: 6", "batch_size: 8"))
        done, _ = self.succeed(job)
        self.assertEqual([rank["node"] for rank in done["ranks"]], ["mig"] * 4)
        log = self.log_of(job)
        self.assertIn("GPU-40000002", log)
        self.assertNotIn("GPU-00000002", log)
        self.machine.weft("down", "--now", "--data", folder)

    def test_an_agent_without_the_program_says_that_gpus_are_idle(self):
        programs = self.machine.folder / "bin-of-cpu"
        self.machine.place_programs(programs)
        folder = self.machine.join("plain", programs=programs, library=self.machine.library)
        self.assertEqual(self.machine.node("plain").get("gpus", 0), 0)
        log = "".join(path.read_text() for path in Path(folder).rglob("plain*.log"))
        self.assertIn("2 GPUs are left idle", log)
        self.assertIn("weft-worker-cuda", log)
        self.machine.weft("down", "--now", "--data", folder)


class SlotsTest(unittest.TestCase):
    """What `weft up` makes of the machine's GPUs where nobody says how many slots there are."""

    def setUp(self):
        self.machine = Machine(slots=0)

    def tearDown(self):
        self.machine.__exit__(None, None, None)

    def up(self, *arguments):
        self.machine.down("--now", check=False)
        return self.machine.weft("up", "--data", self.machine.data, "--port", self.machine.port,
                                 *arguments).stdout

    def slots(self):
        nodes = self.machine.rest("GET", "nodes")["nodes"]
        return {node["name"]: (node["slots"], node.get("gpus", 0)) for node in nodes}

    def test_each_gpu_is_a_slot(self):
        self.assertIn("with 2 slots on 2 GPUs.\n", self.up())
        self.assertEqual(self.slots(), {"node-1": (2, 2)})
        shown = self.machine.weft("nodes").stdout
        self.assertRegex(shown, r"node-1 +ready +2 .* 2 x 40.0 GiB ")
        self.assertEqual(len(shown.splitlines()), 2, shown)

        self.assertIn("with 2 slots on 2 GPUs.\n", self.up("--nodes", 2))
        self.assertEqual(self.slots(), {"node-1": (1, 1), "node-2": (1, 1)})
        told = self.up("--nodes", 3)
        self.assertIn("with 2 slots on 2 GPUs and 1 on the CPU.\n", told)
        self.assertIn("node-1: no GPU for weft-worker-cuda: --gpus or CUDA_VISIBLE_DEVICES leaves "
                      "none of 2\n", told)
        self.assertEqual(self.slots(), {"node-1": (1, 0), "node-2": (1, 1), "node-3": (1, 1)})

    def test_slots_that_were_asked_for_stay_until_0_is(self):
        told = self.up("--slots-per-node", 1)
        self.assertIn("with 1 slot on 2 GPUs.\nnode-1: 1 of 2 GPUs are left idle", told)
        self.assertIn("node-1: 1 of 2 GPUs are left idle", self.machine.weft("nodes").stdout)
        self.assertIn("with 1 slot on 2 GPUs.\n", self.up())
        self.assertIn("with 3 slots on 2 GPUs, which some share.\nThe token", self.up("--slots-per-node", 3))
        self.assertIn("with 2 slots on 2 GPUs.\nThe token", self.up("--slots-per-node", 0))

    def test_without_a_gpu_there_is_one(self):
        self.machine.set_machine("")
        told = self.up()
        self.assertIn("with 1 slot on the CPU.\n", told)
        self.assertIn("node-1: no GPU for weft-worker-cuda: the driver shows none", told)
        self.assertEqual(self.slots(), {"node-1": (1, 0)})

        (self.machine.bin / "weft-worker-cuda").unlink()
        self.assertIn("with 1 slot on the CPU.\nThe token", self.up())
        self.machine.set_machine(GPUS)
        self.assertIn("node-1: 2 GPUs are left idle: the ranks' program is", self.up())

    def test_of_gpus_in_mig_mode_ranks_see_one_instance(self):
        self.machine.set_machine(f"0 {80 * GIB} 0\n1 {40 * GIB} 1\n2 {40 * GIB} 1\n")
        told = self.up()
        self.assertIn("with 1 slot on 1 GPU.\n", told)
        self.assertRegex(told, "node-1: of 3 GPUs ranks see one instance only, since GPU-00000001-.*"
                               " is in MIG mode")


if __name__ == "__main__":
    signal.alarm(600)
    unittest.main()
