#!/usr/bin/env python3
"""The real programs over HTTP on loopback: two nodes, tensor parallel 2."""
import hashlib
import json
import os
import signal
import threading
import time
import unittest
from pathlib import Path

from cluster import Cluster, Refused, kill, losses

JOB = """
name: thread
kind: multi_task
model: {family: gpt2, config: {n_layer: 2, n_head: 2, n_embd: 32, n_positions: 64, vocab_size: 257}}
tokenizer: {type: byte}
tasks:
  - {name: lm, type: causal_lm, weight: 1, data: {train: texts/, format: text}}
  - {name: kind, type: sequence_classification, labels: 2,
     data: {train: rows.jsonl, validation: rows.jsonl, format: jsonl}}
training: {steps: STEPS, batch_size: 4, micro_batch_size: 2, sequence_length: 32, seed: 3,
           dropout: 0.1, optimizer: {type: adamw, learning_rate: 1.0e-3}}
checkpoint: {every_steps: EVERY, keep_last: 3}
parallel: {tensor: 2}
resources: {slots: 2, nodes: 2}
"""


def job_text(steps, every=10):
    return JOB.replace("STEPS", str(steps)).replace("EVERY", str(every))


class LoopbackTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(nodes=2, slots=1)
        cls.cluster.up()
        cls.inputs = cls.cluster.folder / "inputs"
        (cls.inputs / "texts").mkdir(parents=True)
        (cls.inputs / "texts" / "a.txt").write_text("a text that is told again\n" * 200)
        with open(cls.inputs / "rows.jsonl", "w", encoding="utf-8") as rows:
            for i in range(40):
                rows.write(json.dumps({"text": "ab"[i % 2] * 12, "label": i % 2}) + "\n")

    @classmethod
    def tearDownClass(cls):
        if os.environ.get("WEFT_E2E_LOGS"):
            cls.cluster.show_logs()
        cls.cluster.__exit__(None, None, None)

    def submit(self, steps, every=10, *more):
        path = self.inputs / "job.yaml"
        path.write_text(job_text(steps, every))
        done = self.cluster.weft("submit", "-f", path, "--json", *more)
        return json.loads(done.stdout)["id"]

    curves = {}  # steps -> the uninterrupted run's losses

    def whole_curve(self, steps):
        if steps not in self.curves:
            job = self.submit(steps, 50)
            self.cluster.wait(job, "succeeded")
            self.curves[steps] = losses(self.cluster.metrics(job))
        return self.curves[steps]

    def rank_pids(self, job):
        return [rank["pid"] for rank in self.cluster.job(job)["ranks"]]

    def test_trains_exports_and_generates(self):
        job = self.submit(2000)
        running = self.cluster.wait_step(job, 3)
        self.assertEqual(running["state"], "running")
        self.assertEqual(sorted(rank["node"] for rank in running["ranks"]),
                         sorted(node["name"] for node in self.cluster.rest("GET", "nodes")["nodes"]))
        for rank in running["ranks"]:
            argv = Path(f"/proc/{rank['pid']}/cmdline").read_bytes().split(b"\0")
            self.assertEqual(Path(argv[0].decode()).name, "weft-worker")
            self.assertNotEqual(Path(f"/proc/{rank['pid']}").stat().st_uid, 0)
        self.cluster.weft("cancel", job)
        cancelled = self.cluster.wait(job, "cancelled")
        checkpoint = cancelled["checkpoint"]
        self.assertTrue(checkpoint)
        out = self.cluster.folder / "export"
        self.cluster.weft("export", checkpoint, "--to", out, "--task", "lm")
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            self.assertTrue((out / name).stat().st_size > 0, name)
        text = self.cluster.weft("generate", checkpoint, "--prompt", "a text", "--max-tokens", 8)
        self.assertIn("a text", text.stdout)
        self.assertEqual(self.cluster.weft("submit", "-f", self.inputs / "job.yaml", "--set",
                                           "training.steps=3", "--wait").returncode, 0)
        self.fine_tune(out)

    def fine_tune(self, model):
        """What the command derives fits the model and the data, and the job trains."""
        rows = self.cluster.folder / "rows.jsonl"
        rows.write_text("".join(json.dumps({"text": f"row {i}", "label": f"class {i % 3}"}) + "\n"
                                for i in range(12)))
        done = json.loads(self.cluster.weft(
            "fine-tune", model, rows, "--steps", 3, "--batch-size", 4, "--file",
            self.cluster.folder / f"{model.name}.yaml", "--wait", "--json").stdout)
        self.assertEqual((done["state"], done["step"], done["steps"]), ("succeeded", 3, 3))
        config = json.loads((model / "config.json").read_text())
        positions = config.get("n_positions") or config["max_position_embeddings"]
        self.assertEqual(done["spec"]["training"]["sequence_length"], min(positions, 128))
        self.assertEqual(done["spec"]["tasks"][0]["labels"], 3)

    def evaluates_as_the_job_did(self, job, folder=None, precision="fp32"):
        """On one rank, where the job had two: from the job's checkpoint and, in fp32, from its export."""
        told = [record["values"] for record in self.cluster.metrics(job)
                if "validation_loss" in record["values"]][-1]
        rows = self.inputs / "rows.jsonl"
        for model in [(job, "--task", "kind")] + ([(folder,)] if folder else []):
            found = json.loads(self.cluster.weft("evaluate", model[0], rows, *model[1:],
                                                 "--json").stdout)
            self.assertEqual(found["precision"], precision)
            self.assertAlmostEqual(found["loss"], told["validation_loss"],
                                   delta=(1e-5 if precision == "fp32" else 1e-2) * found["loss"])
            self.assertEqual(found["labels"], 40)
        lines = self.cluster.weft("classify", job, "--file", rows, "--json").stdout.splitlines()
        hits = [json.loads(line)["label"] == i % 2 for i, line in enumerate(lines)]
        self.assertEqual(sum(hits) / 40, found["accuracy"])
        if precision == "fp32":
            self.assertEqual(found["accuracy"], told["validation_accuracy"])

    def test_an_adapter_trains_and_is_exported_both_ways(self):
        base = self.submit(60, 30)
        self.cluster.wait(base, "succeeded")
        rows = self.cluster.folder / "adapter-rows.jsonl"
        rows.write_text("".join(json.dumps({"text": f"row {i}", "label": i % 3}) + "\n"
                                for i in range(12)))
        done = json.loads(self.cluster.weft(
            "fine-tune", base, rows, "--lora-rank", 2, "--lora-targets", "all-linear", "--steps", 20,
            "--batch-size", 4, "--file", self.cluster.folder / "adapter.yaml", "--wait", "--json").stdout)
        self.assertEqual(done["state"], "succeeded")
        shown = self.cluster.weft("show", done["id"]).stdout
        self.assertRegex(shown, r"adapter: +lora, rank 2, of all-linear\n")
        numbers = self.cluster.events(done["id"])[0]["data"]
        self.assertLess(int(numbers["trained_parameters"]), int(numbers["parameters"]) / 2)
        self.assertIn(f"{numbers['trained_parameters']} of {numbers['parameters']} parameters", shown)
        checkpoint, folder = done["checkpoint"], self.cluster.folder
        self.cluster.weft("export", checkpoint, "--to", folder / "merged")
        self.cluster.weft("export", checkpoint, "--to", folder / "adapter", "--adapter")
        self.assertEqual(sorted(path.name for path in (folder / "adapter").iterdir()),
                         ["adapter_config.json", "adapter_model.safetensors"])
        self.assertLess((folder / "adapter/adapter_model.safetensors").stat().st_size,
                        (folder / "merged/model.safetensors").stat().st_size / 2)
        # Checkpoints refer to the same frozen tensors.
        kept = [self.cluster.rest("GET", f"checkpoints/{each['id']}") for each in
                self.cluster.rest("GET", f"jobs/{done['id']}/checkpoints")["checkpoints"]]
        self.assertGreater(len(kept), 1)
        frozen = [next(tensor["tiles"] for tensor in each["tensors"]
                       if tensor["name"] == "transformer.wte.weight") for each in kept]
        self.assertTrue(all(tiles == frozen[0] for tiles in frozen))
        self.fine_tune(folder / "merged")

    def test_a_llama_whose_ranks_share_its_head_of_keys(self):
        """From nothing to folders, and on from both, of which the classifier's lacks a head of tokens."""
        config = ("{num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 1, hidden_size: 32,"
                  " intermediate_size: 48, max_position_embeddings: 64, vocab_size: 257,"
                  " eos_token_id: [256, 2]}")
        job = self.submit(60, 30, "--set", "model.family=llama", "--set", f"model.config={config}")
        checkpoint = self.cluster.wait(job, "succeeded")["checkpoint"]
        curve = losses(self.cluster.metrics(job))
        self.assertLess(curve[60], 0.9 * curve[1])
        for task, head in (("lm", "CausalLM"), ("kind", "SequenceClassification")):
            folder = self.cluster.folder / f"llama-{task}"
            self.cluster.weft("export", checkpoint, "--to", folder, "--task", task)
            exported = json.loads((folder / "config.json").read_text())
            self.assertEqual(exported["architectures"], [f"LlamaFor{head}"])
            self.assertEqual(exported["eos_token_id"], [256, 2])
            self.fine_tune(folder)
        self.evaluates_as_the_job_did(job, self.cluster.folder / "llama-kind")
        onward = self.submit(1, 1, "--set", f"model={{from: {self.cluster.folder / 'llama-lm'}}}",
                             "--set", "training.precision=bf16")
        self.cluster.wait(onward, "succeeded")
        self.evaluates_as_the_job_did(onward, precision="bf16")
        self.assertLess(losses(self.cluster.metrics(onward))[1], 0.95 * curve[1])

    def test_pause_and_resume_give_the_same_curve(self):
        whole = self.whole_curve(1000)
        job = self.submit(1000, 50)
        self.cluster.wait_step(job, 15)
        self.cluster.weft("pause", job)
        self.cluster.wait(job, "paused")
        self.cluster.weft("resume", job)
        done = self.cluster.wait(job, "succeeded")
        self.assertEqual(losses(self.cluster.metrics(job)), whole)
        self.assertIn("bit for bit", done["resume_note"])

    def test_a_paused_job_goes_on_on_another_mesh(self):
        steps = 300
        whole = self.whole_curve(steps)
        job = self.submit(steps, 50)
        paused_at = self.cluster.wait_step(job, 15)["step"]
        self.cluster.weft("pause", job)
        self.cluster.wait(job, "paused")
        resumed = json.loads(self.cluster.weft("resume", job, "--parallel", "data=2", "--json").stdout)
        self.assertEqual((resumed["state"], resumed["spec"]["parallel"]["data"],
                          resumed["spec"]["parallel"]["tensor"]), ("queued", 2, 1))
        done = self.cluster.wait(job, "succeeded")
        self.assertEqual(sorted(rank["data"] for rank in done["ranks"]), [0, 1])
        self.assertIn("to 1e-4, for the mesh changed from data 1 x sequence 1 x tensor 2 to data 2 x "
                      "sequence 1 x tensor 1", done["resume_note"])
        curve = losses(self.cluster.metrics(job))
        self.assertEqual(sorted(curve), sorted(whole))
        for step, loss in curve.items():
            if step <= paused_at:
                self.assertEqual(loss, whole[step])
            self.assertLess(abs(loss - whole[step]), 1e-4 * max(1, whole[step]), step)
        before = [event for event in self.cluster.events(job) if "mesh_before" in event.get("data", {})]
        self.assertEqual([event["data"]["mesh_before"] for event in before],
                         ["data 1 x sequence 1 x tensor 2"])
        self.assertEqual(self.cluster.weft("resume", job, "--parallel", "tensor=2",
                                           check=False).returncode, 1)

    def test_a_killed_rank_restarts_the_job_from_its_checkpoint(self):
        whole = self.whole_curve(1000)
        job = self.submit(1000, 50)
        for death, step in enumerate((70, 250), 1):
            self.cluster.wait_step(job, step)
            kill(self.rank_pids(job)[death % 2])
            limit = time.monotonic() + 60
            while self.cluster.job(job)["attempt"] <= death:
                self.assertLess(time.monotonic(), limit, "no new attempt")
                time.sleep(0.1)
        done = self.cluster.wait(job, "succeeded")
        self.assertEqual(done["attempt"], 3)
        self.assertEqual(losses(self.cluster.metrics(job)), whole)

    def test_a_running_job_is_looked_into(self):
        job = self.submit(100000, 0)
        self.cluster.wait_step(job, 3)
        stack = json.loads(self.cluster.weft("stack", job, "--json").stdout)
        self.assertEqual([rank["now"]["pid"] for rank in stack["ranks"]], self.rank_pids(job))
        for rank in stack["ranks"]:
            self.assertEqual(rank["problem"], "")
            self.assertGreater(rank["now"]["step"], 3)
            self.assertGreater(len(rank["threads"]), 2)
            frames = "\n".join(frame for thread in rank["threads"] for frame in thread["frames"])
            self.assertIn("weft::", frames)
        self.assertIn(f"rank 1 ", self.cluster.weft("stack", job, "--threads").stdout)
        path = self.cluster.folder / "trace.json"
        told = json.loads(self.cluster.weft("trace", job, "--steps", 4, "-o", path, "--json").stdout)
        self.assertEqual((told["state"], told["steps"]), ("complete", 4))
        for rank in told["ranks"]:
            self.assertGreater(rank["compute_seconds"], 0)
            self.assertGreater(rank["communication_seconds"], 0)
            self.assertLess(abs(rank["clock_offset_ns"]), 1e9)
        self.check_trace(json.loads(path.read_text()), told)
        self.cluster.weft("cancel", job)
        self.cluster.wait(job, "cancelled")
        self.assertEqual(self.cluster.weft("stack", job, check=False).returncode, 1)
        self.assertEqual(self.cluster.weft("trace", "job-absent", "-o", path,
                                           check=False).returncode, 102)

    def check_trace(self, trace, told):
        """Tracks are named; on each, events are in order and lie within each other or apart."""
        names, tracks = {}, {}
        for event in trace["traceEvents"]:
            track = (event["pid"], event["tid"])
            if event["ph"] == "M":
                if event["name"] == "thread_name":
                    names[track] = event["args"]["name"]
            else:
                self.assertEqual(event["ph"], "X")
                tracks.setdefault(track, []).append(event)
        for track, events in tracks.items():
            self.assertIn(track, names)
            open_until, last = [], 0
            for event in events:
                start, end = event["ts"], event["ts"] + event["dur"]
                self.assertGreaterEqual(start, last)
                last = start
                while open_until and open_until[-1] <= start + 1e-3:
                    open_until.pop()
                if open_until:
                    self.assertLessEqual(end, open_until[-1] + 1e-3, event)
                open_until.append(end)
        for rank in (0, 1):
            steps = [event["name"] for event in tracks[rank, 1] if event["name"].startswith("step")]
            first = told["first_step"]
            self.assertEqual(steps, [f"step {first + i}" for i in range(4)])
            phases = {event["name"] for event in tracks[rank, 1]}
            self.assertLessEqual({"forward", "backward", "layer 0", "layer 1", "optimizer"}, phases)
            sums = [event for event in tracks[rank, 2] if event["args"]["axis"] == "tensor"]
            self.assertGreater(len(sums), 8)
            self.assertEqual(len(sums), len([event for event in tracks[1 - rank, 2]
                                             if event["args"]["axis"] == "tensor"]))
            self.assertTrue(all(event["args"]["bytes"] > 0 for event in sums))

    def test_a_stopped_rank_is_found_and_named(self):
        job = self.submit(100000, 0, "--set", "hang_seconds=4")
        self.cluster.wait_step(job, 3)
        os.kill(self.rank_pids(job)[1], signal.SIGSTOP)
        self.cluster.until(job, lambda now: now["attempt"] == 2 and now["state"] == "running",
                           "running again", 60)
        why = next(event["message"] for event in self.cluster.events(job)
                   if event["type"] == "restarted")
        self.assertRegex(why, r"hung: no rank has got anything done for [0-9]+ s: rank 0 waits since "
                              r"[0-9]+ s in [a-z_]+ .*on the [a-z]+ axis .*, step [0-9]+.*; "
                              r"what is missing: rank 1 is stopped \(process [0-9]+\)")
        self.cluster.weft("cancel", job)
        self.cluster.wait(job, "cancelled")

    def is_traced(self, job):
        try:
            return self.cluster.rest("GET", f"jobs/{job}/trace")["state"] == "recording"
        except Refused:
            return False

    def test_a_stopped_rank_is_named_by_its_trace_and_stack(self):
        job = self.submit(100000, 0, "--set", "hang_seconds=0")
        self.cluster.wait_step(job, 3)
        path = self.cluster.folder / "stopped.json"
        traced = self.cluster.start("trace", job, "--steps", 1000, "--timeout", 6, "-o", path, "--json")
        while not self.is_traced(job):
            self.assertIsNone(traced.poll())
            time.sleep(0.01)
        self.cluster.wait_step(job, self.cluster.job(job)["step"] + 200)
        os.kill(self.rank_pids(job)[1], signal.SIGSTOP)
        out, err = traced.communicate(timeout=60)
        self.assertEqual(traced.returncode, 0, err)
        told = json.loads(out)
        self.assertEqual(told["state"], "incomplete")
        self.assertIn("1 of 2 ranks", told["problem"])
        missing = {rank["rank"]: rank for rank in told["missing"]}
        self.assertEqual(missing[1]["problem"], "its process is stopped")
        self.assertIn("rank 0 waits", missing[0]["problem"])
        self.assertEqual([rank["rank"] for rank in told["ranks"]], [0])
        spans = [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X"]
        self.assertGreater(len(spans), 10)
        last = max(spans, key=lambda event: event["ts"] + event["dur"])
        self.assertGreater(last["dur"], 1e6, "the collective that it waits in")
        stack = json.loads(self.cluster.weft("stack", job, "--json").stdout)["ranks"]
        self.assertEqual(stack[1]["now"]["process"], "stopped")
        self.assertIn("stopped", stack[1]["problem"])
        self.assertTrue(stack[0]["now"]["collective"]["site"].startswith("worker/"), stack[0])
        self.assertIn("rank 1 is stopped", self.cluster.weft("stack", job).stdout)
        os.kill(self.rank_pids(job)[1], signal.SIGCONT)
        self.cluster.weft("cancel", job)
        self.cluster.wait(job, "cancelled")

    def test_coordinator_and_agents_killed_while_the_job_runs(self):
        job = self.submit(100000, 200)
        self.cluster.wait_step(job, 5)
        pids = self.rank_pids(job)
        for program in ("weft-coordinator", "weft-agent"):
            victims = [pid for pid in self.cluster.pids(program)
                       if b"--shepherd" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
            self.assertTrue(victims, program)
            for pid in victims:
                kill(pid)
            time.sleep(1)
            self.cluster.up()
            step = self.cluster.job(job)["step"]
            self.cluster.wait_step(job, step + 20)
            now = self.cluster.job(job)
            self.assertEqual((now["state"], now["attempt"]), ("running", 1))
            self.assertEqual(self.rank_pids(job), pids)
        self.cluster.weft("cancel", job)
        self.cluster.wait(job, "cancelled")
        steps = [metric["step"] for metric in self.cluster.metrics(job)
                 if "loss" in metric["values"]]
        self.assertEqual(steps, list(range(1, len(steps) + 1)))

    def test_down_and_up_repeat_no_step(self):
        job = self.submit(100000, 0)
        self.cluster.wait_step(job, 10)
        told = json.loads(self.cluster.down("--json").stdout)
        self.assertTrue(told["stopped"])
        self.assertEqual([stopped["id"] for stopped in told["jobs"]], [job])
        stopped = told["jobs"][0]
        self.assertEqual((stopped["state"], stopped["repeated_steps"]), ("queued", 0))
        self.assertGreaterEqual(stopped["step"], 10)
        self.assertEqual(stopped["checkpoint_step"], stopped["step"])
        self.assertIn(f"checkpoint at step {stopped['step']}; goes on", stopped["fate"])
        self.assertEqual(self.cluster.pids("weft-agent"), [])
        self.cluster.up()
        self.cluster.wait_step(job, stopped["step"] + 5)
        self.assertEqual(self.cluster.job(job)["restarts"], 0)  # a planned stop is no failure
        told = json.loads(self.cluster.down("--now", "--json").stdout)["jobs"][0]
        self.assertEqual(told["checkpoint_step"], stopped["step"])
        self.assertGreaterEqual(told["repeated_steps"], 5)
        self.assertIn("steps are repeated", told["fate"])
        self.cluster.up()
        self.cluster.until(job, lambda now: (now["state"], now["attempt"]) == ("running", 3)
                           and now["step"] > stopped["step"], "in its third attempt", 120)
        self.cluster.weft("cancel", job)
        self.cluster.wait(job, "cancelled")
        attempts = {}
        for metric in self.cluster.metrics(job):
            if "loss" in metric["values"]:
                attempts.setdefault(metric["attempt"], []).append(metric["step"])
        first, second, third = (attempts[number] for number in sorted(attempts))
        self.assertEqual(first + second, list(range(1, second[-1] + 1)))
        self.assertEqual(third[0], stopped["step"] + 1)

    def test_events_reach_a_stream_soon_and_a_slow_reader_does_not_matter(self):
        import http.client
        job = self.submit(100000, 50)
        seen = []

        def read():
            connection = http.client.HTTPConnection("127.0.0.1", self.cluster.port, timeout=60)
            connection.request("GET", f"/api/v1/jobs/{job}/events", headers={
                "Authorization": f"Bearer {self.cluster.token()}",
                "Accept": "text/event-stream"})
            answer = connection.getresponse()
            for line in answer:
                if line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    if "sequence" in event:
                        seen.append((event, time.time() * 1000 - event["time_ms"]))
                if line.startswith(b"event: end"):
                    break
            connection.close()

        reader = threading.Thread(target=read)
        reader.start()
        step = 0
        while sum(event["type"] == "checkpoint" for event, _ in seen) < 8:
            step = self.cluster.wait_step(job, step + 1)["step"]
        self.cluster.weft("cancel", job)
        self.cluster.wait(job, "cancelled")
        reader.join(timeout=20)
        self.assertFalse(reader.is_alive())
        sequences = [event["sequence"] for event, _ in seen]
        self.assertEqual(sequences, list(range(1, len(sequences) + 1)))
        self.assertEqual(len(sequences), len(self.cluster.events(job)))
        # Not all: the processors or the disk may be busy with something else for a while.
        late = sorted(delay for event, delay in seen if event["type"] == "checkpoint")
        self.assertLess(late[len(late) // 4], 200)

    def test_errors_are_told(self):
        with self.assertRaises(Refused) as refused:
            self.cluster.rest("GET", "jobs/job-absent")
        self.assertEqual(refused.exception.status, 404)
        with self.assertRaises(Refused) as refused:
            self.cluster.rest("POST", "jobs", {"name": "x", "kind": "pretrain", "stpes": 1})
        self.assertEqual(refused.exception.body["field"], "stpes")
        self.assertTrue(refused.exception.body["request_id"])
        path = self.inputs / "bad.yaml"
        path.write_text(job_text(10).replace("batch_size: 4", "batch_size: 0"))
        bad = self.cluster.weft("submit", "-f", path, check=False)
        self.assertNotEqual(bad.returncode, 0)
        self.assertIn("training.batch_size", bad.stderr)
        path.write_text(job_text(10).replace("tensor: 2", "tensor: 64").replace("slots: 2", "slots: 64")
                        .replace("n_head: 2", "n_head: 64").replace("n_embd: 32", "n_embd: 64"))
        bad = self.cluster.weft("submit", "-f", path, check=False)
        self.assertNotEqual(bad.returncode, 0)
        self.assertIn("resources", bad.stderr)
        self.assertEqual(self.cluster.weft("show", "job-absent", check=False).returncode, 102)

    def test_bad_rows_that_were_uploaded_end_the_job_for_good(self):
        rows = b'{"text": "a"}\n\n{"text": 7}\n'
        chunk = {"hash": hashlib.sha256(rows).hexdigest(), "size": len(rows)}
        self.cluster.rest("PUT", f"chunks/{chunk['hash']}", rows,
                          {"Content-Type": "application/octet-stream"})
        made = self.cluster.rest("POST", "objects", {"files": [
            {"path": "deep/rows.jsonl", "size": len(rows), "chunks": [chunk]}]})
        spec = self.cluster.job(self.submit(1))["spec"]
        spec["tasks"][0]["data"] = {"train": made["id"], "format": "jsonl"}
        job = self.cluster.rest("POST", "jobs", spec)["id"]
        end = self.cluster.wait(job, "failed")
        self.assertEqual(end["attempt"], 1)
        self.assertIn("tasks[0].data.train: deep/rows.jsonl line 3: text must be a string, or a list of messages (got 7)",
                      end["reason"])
        self.assertNotIn(str(self.cluster.data), end["reason"])

    def test_two_jobs_take_turns_and_say_why_they_wait(self):
        first, second = self.submit(100000, 0), self.submit(5)
        self.cluster.wait_step(first, 1)
        waiting = self.cluster.job(second)
        self.assertEqual(waiting["state"], "queued")
        self.assertIn("slot", waiting["reason"])
        self.cluster.weft("cancel", first)
        self.cluster.wait(second, "succeeded")

    def test_no_secret_in_arguments_or_environment(self):
        job = self.submit(100000, 0)
        self.cluster.wait_step(job, 1)
        secrets = [self.cluster.token()]
        for path in self.cluster.data.rglob("*secret*"):
            if path.is_file():
                self.assertEqual(path.stat().st_mode & 0o077, 0, path)
                secrets.append(path.read_text(errors="replace").strip())
        for pid in self.rank_pids(job) + self.cluster.pids("weft-agent"):
            told = Path(f"/proc/{pid}/cmdline").read_bytes() + \
                Path(f"/proc/{pid}/environ").read_bytes()
            for secret in secrets:
                self.assertNotIn(secret.encode(), told)
        self.cluster.weft("cancel", job)
        self.cluster.wait(job, "cancelled")


if __name__ == "__main__":
    signal.alarm(900)
    unittest.main()
