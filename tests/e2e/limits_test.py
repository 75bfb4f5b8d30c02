#!/usr/bin/env python3
"""What the world does: a full disk, a busy port, a missing folder, little memory. Needs root for
the small disk."""
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import unittest
from pathlib import Path

from cluster import BIN, Cluster, Refused, losses

# A checkpoint of it takes 20 MB, more than the log that RocksDB may hold in reserve.
JOB = """
name: disk
kind: pretrain
model: {family: gpt2, config: {n_layer: 2, n_head: 2, n_embd: 256, n_positions: 64, vocab_size: 257}}
tokenizer: {type: byte}
tasks: [{type: causal_lm, data: {train: texts/, format: text}}]
training: {steps: 400, batch_size: 2, sequence_length: 16, seed: 3, schedule: {type: constant}}
checkpoint: {every_steps: 100, keep_last: 2}
parallel: {tensor: 2}
resources: {slots: 2, nodes: 2}
"""


def processes_named(name):
    """Processes of that name, whoever's they are."""
    found = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text().strip() == name:
                found.append(int(comm.parent.name))
        except OSError:
            pass
    return found


class FullDisk(unittest.TestCase):
    def setUp(self):
        self.assertEqual(os.geteuid(), 0, "a small tmpfs needs root")
        self.cluster = Cluster(nodes=2, slots=1)
        self.cluster.data.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m,mode=755", "tmpfs",
                        self.cluster.data], check=True)
        self.cluster.up()
        texts = self.cluster.folder / "texts"
        texts.mkdir()
        (texts / "a.txt").write_text("a disk that is full\n" * 400)
        self.job_file = self.cluster.folder / "job.yaml"
        self.job_file.write_text(JOB)

    def tearDown(self):
        self.cluster.down("--now", check=False)
        subprocess.run(["umount", "-l", self.cluster.data], check=False)
        shutil.rmtree(self.cluster.folder, ignore_errors=True)

    def fill(self):
        with open(self.cluster.data / "ballast", "ab", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while ballast.write(b"x" * size) == size:
                        pass
                except OSError as error:
                    self.assertEqual(error.errno, errno.ENOSPC)

    def step_lines(self, job):
        """What rank 0 printed of each step, as `weft logs` gives it."""
        text = self.cluster.weft("logs", job, "--rank", 0).stdout
        return re.findall(r"step \d+ .* loss .*", text)

    def free(self):
        (self.cluster.data / "ballast").unlink()

    def put_chunk(self, data):
        name = hashlib.sha256(data).hexdigest()
        self.cluster.rest("PUT", f"chunks/{name}", data,
                          headers={"Content-Type": "application/octet-stream"})
        return name

    def use_up_what_is_reserved(self):
        """RocksDB reserves the room of its log ahead: fills the job store's, so that the next event
        finds no room either. A chunk is refused before."""
        one = self.put_chunk(b"x")
        chunks = [{"hash": one, "size": 1}] * 5000
        refused = set()
        for number in range(400):
            self.fill()
            for kind in {"chunk", "record"} - refused:
                try:
                    if kind == "chunk":
                        self.put_chunk(os.urandom(200 << 10))
                    else:
                        self.cluster.rest("POST", "objects", {"files": [
                            {"path": f"file-{number}", "size": len(chunks), "chunks": chunks}]})
                except Refused as error:
                    self.assertRegex(str(error.body), "(?i)disk.*full")
                    self.assertIn(error.status, (503, 507))
                    refused.add(kind)
            if len(refused) == 2:
                return
        self.fail(f"a full disk refused only {refused}")

    def test_submit_checkpoint_event_and_log(self):
        def programs():
            return {name: sorted(self.cluster.pids(name)) for name in
                    ("weft-coordinator", "weft-agent")}

        # Compared with a job that stores none of the same states: a chunk that is stored already
        # needs no room.
        whole = json.loads(self.cluster.weft("submit", "-f", self.job_file, "--json",
                                             "--set", "training.steps=401",
                                             "--set", "checkpoint.every_steps=0").stdout)["id"]
        self.cluster.wait(whole, "succeeded")
        job = json.loads(self.cluster.weft("submit", "-f", self.job_file, "--json").stdout)["id"]
        self.cluster.wait_step(job, 75)
        before = programs()
        ranks = [rank["pid"] for rank in self.cluster.job(job)["ranks"]]
        for pid in ranks:  # the job stands still until its disk is full
            os.kill(pid, signal.SIGSTOP)
        self.use_up_what_is_reserved()
        accepted = []
        for _ in range(30):  # files that RocksDB has done with leave some room now and then
            text = os.urandom(1 << 20).hex()
            (self.cluster.folder / "texts" / "a.txt").write_text(text)
            self.fill()
            refused = self.cluster.weft("submit", "-f", self.job_file, "--json", "--set",
                                        "training.steps=1", check=False)
            if refused.returncode != 0:
                break
            accepted.append(json.loads(refused.stdout)["id"])
        self.assertNotEqual(refused.returncode, 0)
        self.assertRegex(refused.stderr, "(?i)disk.*full")
        for pid in ranks:
            os.kill(pid, signal.SIGCONT)
        until, now = time.monotonic() + 5, {"reason": ""}
        told = re.compile(r"disk full on node \S+ \(0 of 400 MiB free\).*waiting for room")
        while time.monotonic() < until or not told.match(now["reason"]):
            self.fill()
            time.sleep(0.01)
            now = self.cluster.job(job)
            self.assertEqual(now["state"], "running")
            self.assertLess(time.monotonic(), until + 60, now)
        self.assertIn("disk full on node", self.cluster.weft("ls").stdout)
        self.free()
        done = self.cluster.wait(job, "succeeded", timeout=90)
        self.assertEqual(done["attempt"], 1)
        self.assertEqual(programs(), before)
        expected = losses(self.cluster.metrics(whole))
        del expected[401]
        self.assertEqual(losses(self.cluster.metrics(job)), expected)
        events = self.cluster.events(job)
        self.assertEqual([event["sequence"] for event in events], list(range(1, len(events) + 1)))
        expected = self.step_lines(whole)[:400]
        self.assertEqual(len(expected), 400)
        until = time.monotonic() + 60   # lines that waited for room follow the end of the job
        while self.step_lines(job) != expected and time.monotonic() < until:
            time.sleep(0.5)
        self.assertEqual(self.step_lines(job), expected)
        self.assertEqual(self.cluster.job(job)["reason"], "")
        types = [event["type"] for event in events]  # of a wait once when it begins, not each time
        self.assertEqual(types.count("checkpoint_skipped"), types.count("checkpoint_resumed"))
        checkpoints = self.cluster.rest("GET", f"jobs/{job}/checkpoints")["checkpoints"]
        self.assertEqual(max(c["state"]["step"] for c in checkpoints), 400)
        for other in accepted:
            self.cluster.wait(other, "succeeded")
        self.cluster.weft("submit", "-f", self.job_file, "--set", "training.steps=2", "--wait")


class Surroundings(unittest.TestCase):
    def test_a_busy_port_is_named(self):
        with socket.socket() as busy:
            busy.bind(("127.0.0.1", 0))
            busy.listen()
            cluster = Cluster(nodes=1, slots=1)
            cluster.port = busy.getsockname()[1]
            done = cluster.weft("up", "--nodes", 1, "--data", cluster.data, "--port", cluster.port,
                                check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(str(cluster.port), done.stderr)
            cluster.__exit__(None, None, None)

    def test_a_clusters_folder_is_not_taken_for_a_coordinators(self):
        with Cluster(nodes=1, slots=1) as cluster:
            done = subprocess.run([BIN / "weft-coordinator", "--data", cluster.data, "--port", "0", "--agent-port", "0"],
                                  capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 1, done)
            self.assertIn("--data is the folder of a cluster that 'weft up'", done.stderr)
            self.assertFalse((Path(cluster.data) / "jobs" / "CURRENT").exists())

    def test_every_programs_usage_errors_end_with_2(self):
        for program in ("weft", "weft-coordinator", "weft-agent", "weft-worker"):
            done = subprocess.run([BIN / program, "--no-such-option"], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 2, done)
            self.assertNotEqual(done.stderr, "")

    def test_nodes_of_one_machine_share_its_memory(self):
        with Cluster(nodes=1, slots=1) as cluster:
            def memory(count):
                nodes = cluster.rest("GET", "nodes")["nodes"]
                ready = [node["memory_bytes"] for node in nodes if node["state"] == "ready"]
                return sorted(ready) if len(ready) == count else None

            def wait(count, share):
                for _ in range(200):
                    if memory(count) == [share] * count:
                        return
                    time.sleep(0.1)
                self.fail(f"{memory(count)} instead of {share} each")

            whole = memory(1)[0]
            cluster.weft("up", "--nodes", 3)
            wait(3, whole // 3)
            cluster.weft("up", "--memory-bytes", 3 * 10**9)
            wait(3, 10**9)
            self.assertEqual(len(cluster.pids("weft-agent")), 3)

    def processors(self, cluster, nodes):
        """By rank of a job of two: those that each of its threads may run on, by the thread's name."""
        texts = cluster.folder / "texts"
        texts.mkdir(exist_ok=True)
        (texts / "a.txt").write_text("who runs where\n" * 400)
        job = cluster.submit(JOB.replace("texts/", f"{texts}/").replace("steps: 400", "steps: 100000")
                             .replace("every_steps: 100", "every_steps: 0").replace("tensor: 2", "data: 2")
                             .replace("nodes: 2}", f"nodes: {nodes}}}"))
        ranks = cluster.wait_step(job, 3)["ranks"]
        found = []
        for rank in sorted(ranks, key=lambda each: each["rank"]):
            threads = {}
            for thread in Path(f"/proc/{rank['pid']}/task").iterdir():
                threads[(thread / "comm").read_text().strip()] = os.sched_getaffinity(int(thread.name))
            found.append((os.sched_getaffinity(rank["pid"]), threads))
        cluster.weft("cancel", job)
        cluster.wait(job, "cancelled")
        return found

    def test_ranks_are_pinned_where_one_agent_has_the_machine(self):
        ours = os.sched_getaffinity(0)
        if len(ours) < 2:
            self.skipTest("one processor")
        for _ in range(300):  # those of the test before may be ending
            agents = processes_named("weft-agent")
            if not agents:
                break
            time.sleep(0.1)
        self.assertEqual(agents, [], "another agent of this machine")
        # In a container that may use the whole machine others may, too (0xEFFFFFFC: there is none).
        shared = os.stat("/proc/self/ns/pid").st_ino != 0xEFFFFFFC and len(ours) >= os.cpu_count()
        with Cluster(nodes=1, slots=2) as cluster:
            ranks = self.processors(cluster, nodes=1)
            if shared:
                self.assertEqual([own for own, _ in ranks], [ours, ours])
            else:
                self.assertEqual([len(own) for own, _ in ranks], [1, 1])
                self.assertEqual(len(ranks[0][0] | ranks[1][0]), 2)
            for _, threads in ranks:  # what sends and receives is wherever there is room
                self.assertEqual(threads["agent reader"], ours)
                self.assertEqual(threads["communication"], ours)
            cluster.weft("up", "--nodes", 2)
            for own, _ in self.processors(cluster, nodes=2):
                self.assertEqual(own, ours)

    def test_missing_things_are_named(self):
        cluster = Cluster(nodes=1, slots=1)
        absent = cluster.weft("submit", "-f", "absent.yaml", check=False)
        self.assertNotEqual(absent.returncode, 0)
        self.assertIn("absent.yaml", absent.stderr)
        blocked = cluster.folder / "file"
        blocked.write_text("")
        done = cluster.weft("up", "--data", blocked / "below", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("below", done.stderr)
        unreachable = cluster.weft("ls", check=False)
        self.assertNotEqual(unreachable.returncode, 0)
        self.assertRegex(unreachable.stderr, "weft up")
        cluster.__exit__(None, None, None)


LARGE = """
name: large
kind: pretrain
model: {family: gpt2, config: {n_layer: 4, n_head: 8, n_embd: WIDTH, n_positions: 32, vocab_size: 4000}}
tokenizer: {type: byte}
tasks: [{type: causal_lm, data: {train: texts/, format: text}}]
training: {steps: STEPS, batch_size: 1, sequence_length: 8, seed: 3}
checkpoint: {every_steps: 0}
parallel: {tensor: DEGREE}
resources: {slots: DEGREE, nodes: DEGREE}
"""


class Memory(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(nodes=2, slots=1)
        self.limit = self.cluster.folder / "limit"
        self.limit.write_text("unlimited")
        programs = self.cluster.folder / "bin"  # where the ranks' user can reach them
        programs.mkdir()
        for name in ("weft", "weft-coordinator", "weft-agent"):
            shutil.copy(BIN / name, programs)
        shutil.copy(BIN / "weft-worker", programs / "worker")
        limited = programs / "weft-worker"
        limited.write_text(f"#!/bin/sh\nulimit -v $(cat {self.limit})\n"
                           f"exec {programs}/worker \"$@\"\n")
        limited.chmod(0o755)
        self.cluster.bin = programs
        self.cluster.up()
        texts = self.cluster.folder / "texts"
        texts.mkdir()
        (texts / "a.txt").write_text("a model that is large\n" * 40)

    def tearDown(self):
        self.cluster.__exit__(None, None, None)

    def submit(self, degree, width, steps):
        path = self.cluster.folder / "job.yaml"
        path.write_text(LARGE.replace("DEGREE", str(degree)).replace("WIDTH", str(width))
                        .replace("STEPS", str(steps)))
        return json.loads(self.cluster.weft("submit", "-f", path, "--json").stdout)["id"]

    def address_space_kib(self, degree):
        """What a rank of a small model takes on this machine: libraries, thread stacks, buffers."""
        job = self.submit(degree, 16, 100000)
        self.cluster.wait_step(job, 50)
        peaks = []
        for rank in self.cluster.job(job)["ranks"]:
            status = Path(f"/proc/{rank['pid']}/status").read_text()
            peaks.append(int(re.search(r"VmPeak:\s+(\d+)", status)[1]))
        self.cluster.rest("POST", f"jobs/{job}/cancel")
        self.cluster.wait(job, "cancelled")
        self.assertEqual(len(peaks), degree)
        return max(peaks)

    def test_a_model_larger_than_one_ranks_memory_trains_on_two(self):
        # 31 million parameters, their gradients, two moments and a checkpoint's copy: a rank alone
        # takes just over 800 MiB more than one of a small model does, one of two ranks under 700.
        base = max(self.address_space_kib(degree) for degree in (1, 2))
        self.limit.write_text(str(base + (700 << 10)))
        alone = self.cluster.wait(self.submit(1, 768, 2), ("succeeded", "failed"))
        self.assertEqual(alone["state"], "failed", alone)
        self.assertRegex(alone["reason"], "rank 0 reports: out of memory: .* refuses .*memory.*lower "
                                          "training.micro_batch_size")
        self.assertEqual(alone["attempt"], 1)  # another one would end alike
        two = self.cluster.wait(self.submit(2, 768, 2), ("succeeded", "failed"))
        self.assertEqual(two["state"], "succeeded", two)
        self.assertEqual(len({rank["node"] for rank in two["ranks"]}), 2)

    def give_less_memory(self, node, size):
        """Starts the node's agent again, as if its machine had so many bytes."""
        for pid in self.cluster.pids("weft-agent", node):
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
            argv[argv.index("--memory-bytes") + 1] = str(size)
            os.kill(pid, signal.SIGTERM)
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.05)
            with open(self.cluster.data / "log" / f"{node}.log", "ab") as log:
                agent = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
            self.addCleanup(agent.wait)
        while True:
            nodes = {each["name"]: each for each in self.cluster.rest("GET", "nodes")["nodes"]}
            if nodes[node]["memory_bytes"] == size and nodes[node]["state"] == "ready":
                return
            time.sleep(0.1)

    def test_a_rank_that_takes_more_than_its_share_fails_the_job_at_once(self):
        for node in ("node-1", "node-2"):
            self.give_less_memory(node, 10**9)
        # 0.5 GB of parameters and their optimizer, 0.6 GB of activations: too much for 0.9 GB, but
        # not so much that the estimate would tell.
        path = self.cluster.folder / "job.yaml"
        path.write_text(LARGE.replace("DEGREE", "1").replace("WIDTH", "768").replace("STEPS", "2")
                        .replace("batch_size: 1", "batch_size: 360"))
        job = json.loads(self.cluster.weft("submit", "-f", path, "--json").stdout)["id"]
        done = self.cluster.wait(job, ("succeeded", "failed"))
        self.assertEqual((done["state"], done["attempt"]), ("failed", 1),
                         self.cluster.events(job))
        self.assertRegex(done["reason"], "rank 0 reports: out of memory: .* refuses .*; it may take "
                                         "900000000 bytes, its share of the node; lower ")
        small = self.submit(1, 16, 1)
        self.assertEqual(self.cluster.wait(small, ("succeeded", "failed"))["state"], "succeeded")

    def test_what_no_node_can_hold_is_refused_at_submission(self):
        path = self.cluster.folder / "job.yaml"
        path.write_text(LARGE.replace("DEGREE", "1").replace("WIDTH", "768").replace("STEPS", "2"))
        done = self.cluster.weft("submit", "-f", path, "--json", "--set",
                                 "training.batch_size=1048576", check=False)
        self.assertEqual(done.returncode, 1)
        error = json.loads(done.stderr)["error"]
        self.assertEqual((error["field"], error["value"]),
                         ("training.micro_batch_size", "1048576"))
        self.assertRegex(error["rule"], "one needs about .* TiB: .*; a slot there has at most")
        self.assertEqual(self.cluster.rest("GET", "jobs")["jobs"], [])


if __name__ == "__main__":
    unittest.main()
