#!/usr/bin/env python3
"""Each program is killed by SIGKILL at random moments under a client that records every 2xx.
Afterwards everything that was acknowledged is there, once, and ends as it should.

WEFT_KILLS says how often each program is killed (default 20), WEFT_SEED where (default: printed).
"""
import http.client
import json
import os
import random
import threading
import time
import unittest
import uuid

from cluster import Cluster, Refused, kill, losses

KILLS = int(os.environ.get("WEFT_KILLS", "20"))
SEED = int(os.environ.get("WEFT_SEED", str(random.SystemRandom().randrange(1 << 31))))


def job_of(name, steps, every, data, priority=0):
    return {
        "name": name, "kind": "pretrain", "priority": priority, "max_restarts": 1000,
        "model": {"family": "gpt2", "config": {"n_layer": 1, "n_head": 2, "n_embd": 16,
                                               "n_positions": 32, "vocab_size": 257}},
        "tokenizer": {"type": "byte"},
        "tasks": [{"type": "causal_lm", "data": {"train": data, "format": "text"}}],
        "training": {"steps": steps, "batch_size": 4, "sequence_length": 16, "seed": 5},
        "checkpoint": {"every_steps": every, "keep_last": 3}, "parallel": {"tensor": 2},
        "resources": {"slots": 2, "nodes": 2},
    }


class Client(threading.Thread):
    """Submits jobs until it is told to stop and cancels most of them; keeps what was acknowledged."""

    def __init__(self, cluster, data, name, pause, kept_of=10):
        super().__init__(name=name)
        self.cluster, self.data, self.pause, self.kept_of = cluster, data, pause, kept_of
        self.acknowledged = {}  # name -> id
        self.cancelled = set()  # ids
        self.problem = None
        self.stop = threading.Event()

    def until_answered(self, *request, **more):
        """The answer to a request that is sent again until there is one; None: told to stop."""
        while not self.stop.is_set():
            try:
                return self.cluster.rest(*request, **more, timeout=10)
            except (OSError, http.client.HTTPException, Refused) as error:
                if isinstance(error, Refused) and error.status < 500:
                    raise
                time.sleep(0.05)
        return None

    def run(self):
        try:
            number = 0
            while not self.stop.is_set():
                number += 1
                name, key = f"{self.name}-{number}", str(uuid.uuid4())
                job = self.until_answered("POST", "jobs",
                                          job_of(name, 1, 0, self.data, priority=-5),
                                          headers={"Idempotency-Key": key})
                if job is None:
                    return
                self.acknowledged[name] = job["id"]
                if number % self.kept_of and self.cancel(job["id"]):
                    self.cancelled.add(job["id"])
                self.stop.wait(self.pause)
        except Exception as error:  # told by the test
            self.problem = error

    def cancel(self, job):
        try:
            return self.until_answered("POST", f"jobs/{job}/cancel") is not None
        except Refused as error:
            if error.body["code"] != "failed_precondition":  # it has succeeded meanwhile
                raise
            return False


class KillTest(unittest.TestCase):
    def setUp(self):
        print(f"WEFT_SEED={SEED}", flush=True)
        self.random = random.Random(SEED)
        self.cluster = Cluster(nodes=2, slots=1)
        self.cluster.up()
        texts = self.cluster.folder / "texts"
        texts.mkdir()
        (texts / "a.txt").write_text("what is killed comes back\n" * 400)
        first = self.cluster.folder / "first.json"
        first.write_text(json.dumps(job_of("first", 1, 0, "texts/")))
        done = self.cluster.weft("submit", "-f", first, "--json")
        job = json.loads(done.stdout)["id"]
        self.cluster.wait(job, "succeeded")
        self.data = self.cluster.job(job)["spec"]["tasks"][0]["data"]["train"]

    def tearDown(self):
        self.cluster.__exit__(None, None, None)

    def start_long(self, steps, every):
        job = self.cluster.rest("POST", "jobs", job_of("long", steps, every, self.data, 9))["id"]
        self.cluster.wait_step(job, 1)
        return job

    def steps_in(self, seconds):
        """How many steps a job makes in that time on this machine."""
        job = self.start_long(100000, 0)
        before, start = self.cluster.wait_step(job, 20)["step"], time.monotonic()
        time.sleep(2)
        done = self.cluster.job(job)["step"] - before
        rate = done / (time.monotonic() - start)
        self.cluster.rest("POST", f"jobs/{job}/cancel")
        self.cluster.wait(job, "cancelled")
        return int(rate * seconds) + 20

    def reference(self, steps):
        job = self.cluster.rest("POST", "jobs", job_of("whole", steps, 0, self.data, 9))["id"]
        self.cluster.wait(job, "succeeded", timeout=600)
        return losses(self.cluster.metrics(job))

    def check_curve(self, job, expected):
        done = self.cluster.wait(job, "succeeded", timeout=600)
        self.assertEqual(losses(self.cluster.metrics(job)), expected)
        events = [event["sequence"] for event in self.cluster.events(job)]
        self.assertEqual(events, list(range(1, len(events) + 1)))
        return done

    def check_client(self, client):
        """Every acknowledged job is there, once, with all its events, and ends as asked."""
        client.stop.set()
        client.join()
        if client.problem is not None:
            raise client.problem
        found, after = {}, ""
        while True:
            page = self.cluster.rest("GET", "jobs?limit=100" + (f"&after={after}" if after else ""))
            for job in page["jobs"]:
                if job["name"].startswith(client.name + "-"):
                    self.assertNotIn(job["name"], found)
                    found[job["name"]] = job["id"]
            after = page["next"]
            if not after:
                break
        for name, job in client.acknowledged.items():
            self.assertEqual(found.get(name), job)
        for job in client.acknowledged.values():
            done = self.cluster.wait(job, {"succeeded", "cancelled"}, timeout=600)
            if job not in client.cancelled:
                self.assertEqual(done["state"], "succeeded", done)
            events = [event["sequence"] for event in self.cluster.events(job)]
            self.assertEqual(events, list(range(1, len(events) + 1)))
        print(f"{len(client.acknowledged)} jobs acknowledged, {len(client.cancelled)} cancelled",
              flush=True)

    def test_coordinator(self):
        client = Client(self.cluster, self.data, "coordinator", 0.02, kept_of=25)
        client.start()
        for _ in range(KILLS):
            time.sleep(self.random.uniform(0.05, 0.8))
            for pid in self.cluster.pids("weft-coordinator"):
                kill(pid)
            self.cluster.up()
        self.assertGreater(len(client.acknowledged), KILLS)
        self.check_client(client)

    def test_agents(self):
        steps = self.steps_in(1.5 * KILLS)
        client = Client(self.cluster, self.data, "agents", 1)
        client.start()
        job = self.start_long(steps, 0)
        while_running = 0
        for _ in range(KILLS):
            time.sleep(self.random.uniform(0.05, 0.5))
            agents = [pid for pid in self.cluster.pids("weft-agent")
                      if pid not in self.cluster.pids("weft-agent", "--shepherd")]
            kill(self.random.choice(agents))
            while_running += self.cluster.job(job)["state"] == "running"
            self.cluster.up()
        self.assertGreaterEqual(while_running, KILLS // 2)
        self.check_client(client)
        done = self.check_curve(job, self.reference(steps))
        self.assertEqual(done["attempt"], 1)

    def test_attempts(self):
        """Ranks, shepherds, mpirun and orted: the job starts again by itself, from its last
        checkpoint, and its losses are those of a job that nobody killed."""
        steps = self.steps_in(KILLS)
        expected = self.reference(steps)
        for program in ("weft-worker", "weft-agent", "mpirun", "orted"):
            with self.subTest(program=program):
                start = time.monotonic()
                self.kill_attempts(program, steps, expected)
                print(f"{program}: {time.monotonic() - start:.0f} s", flush=True)

    def kill_attempts(self, program, steps, expected):
        client = Client(self.cluster, self.data, program, 2)
        client.start()
        jobs, kills = [], 0
        while kills < KILLS:
            jobs.append(self.start_long(steps, max(1, steps // 100)))
            kills += self.kill_attempts_of(jobs[-1], program, KILLS - kills)
        for job in jobs:
            self.check_curve(job, expected)
        self.check_client(client)

    def kill_attempts_of(self, job, program, most):
        """Returns how often; fewer than `most` only where the job succeeded before."""
        kills = 0
        attempt = self.cluster.job(job)["attempt"]
        while kills < most:
            self.wait_progress(job)
            time.sleep(self.random.uniform(0, 2))  # while it starts, or trains
            victims = self.processes(program)
            now = self.cluster.job(job)
            if now["state"] == "succeeded":
                break
            if now["attempt"] != attempt or now["state"] not in ("starting", "running"):
                attempt = now["attempt"]
                continue
            if not victims:
                continue
            kill(self.random.choice(victims))
            kills += 1
            attempt = self.next_attempt(job, attempt)
        return kills

    def processes(self, program):
        shepherds = self.cluster.pids("weft-agent", "--shepherd")
        if program == "weft-agent":
            return shepherds
        return self.cluster.below(shepherds, program)

    def wait_progress(self, job):
        """After two restarts in a row it may write a checkpoint, or the waits would double on."""
        limit = time.monotonic() + 300
        while True:
            now = self.cluster.job(job)
            if now["restarts"] < 2 or now["state"] == "succeeded":
                return
            self.assertLess(time.monotonic(), limit, f"{job} does not get on: {now}")
            time.sleep(0.05)

    def next_attempt(self, job, attempt):
        limit = time.monotonic() + 300
        while True:
            now = self.cluster.job(job)
            if now["attempt"] != attempt or now["state"] == "succeeded":
                return now["attempt"]
            self.assertLess(time.monotonic(), limit, f"{job} was killed and does not start again")
            time.sleep(0.05)


if __name__ == "__main__":
    unittest.main()
