#!/usr/bin/env python3
"""Each program is killed by SIGKILL at random moments under a client that records every 2xx.
Afterwards everything that was acknowledged is there, once.

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
        "checkpoint": {"every_steps": every}, "parallel": {"tensor": 2},
        "resources": {"slots": 2, "nodes": 2},
    }


class Client(threading.Thread):
    """Submits jobs until it is told to stop; keeps what was acknowledged."""

    def __init__(self, cluster, data):
        super().__init__()
        self.cluster, self.data = cluster, data
        self.acknowledged = {}  # name -> id
        self.stop = threading.Event()

    def run(self):
        number = 0
        while not self.stop.is_set():
            number += 1
            name, key = f"kept-{number}", str(uuid.uuid4())
            while not self.stop.is_set():
                try:
                    job = self.cluster.rest("POST", "jobs",
                                            job_of(name, 1, 0, self.data, priority=-5),
                                            headers={"Idempotency-Key": key}, timeout=10)
                    self.acknowledged[name] = job["id"]
                    break
                except (OSError, http.client.HTTPException, Refused) as error:
                    if isinstance(error, Refused) and error.status < 500:
                        raise
                    time.sleep(0.05)
            time.sleep(0.02)


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

    def test_coordinator(self):
        client = Client(self.cluster, self.data)
        client.start()
        for _ in range(KILLS):
            time.sleep(self.random.uniform(0.05, 0.8))
            for pid in self.cluster.pids("weft-coordinator"):
                kill(pid)
            self.cluster.up()
        client.stop.set()
        client.join()
        self.assertGreater(len(client.acknowledged), KILLS)
        found, after = {}, ""
        while True:
            page = self.cluster.rest("GET", f"jobs?limit=100&after={after}" if after
                                     else "jobs?limit=100")
            for job in page["jobs"]:
                self.assertNotIn(job["name"] if job["name"].startswith("kept") else "", found)
                found[job["name"]] = job["id"]
            after = page.get("next", "")
            if not after:
                break
        for name, job in client.acknowledged.items():
            self.assertEqual(found.get(name), job)
        for job in client.acknowledged.values():
            events = [event["sequence"] for event in self.cluster.events(job)]
            self.assertEqual(events, list(range(1, len(events) + 1)))

    def test_agents(self):
        steps = self.steps_in(1.5 * KILLS)
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
        done = self.check_curve(job, self.reference(steps))
        self.assertEqual(done["attempt"], 1)

    def test_ranks_and_shepherds(self):
        steps = self.steps_in(6)
        expected = self.reference(steps)
        left = KILLS
        while left > 0:  # four a job, as the wait before a restart doubles with each
            job = self.start_long(steps, max(1, steps // 40))
            kills = 0
            while kills < min(4, left):
                self.cluster.wait(job, "running")
                time.sleep(self.random.uniform(0.05, 1.0))
                now = self.cluster.job(job)
                self.assertNotEqual(now["state"], "succeeded", "it ended before it was killed")
                if now["state"] != "running" or not now["ranks"]:
                    continue
                shepherds = self.cluster.pids("weft-agent", "--shepherd")
                if kills % 3 == 2 and shepherds:
                    kill(self.random.choice(shepherds))
                else:
                    kill(self.random.choice(now["ranks"])["pid"])
                kills += 1
                self.wait_other_attempt(job, now["attempt"])
            left -= kills
            self.assertEqual(self.check_curve(job, expected)["attempt"], kills + 1)

    def wait_other_attempt(self, job, attempt):
        limit = time.monotonic() + 120
        while self.cluster.job(job)["attempt"] == attempt:
            self.assertLess(time.monotonic(), limit, f"{job} was killed and does not start again")
            time.sleep(0.05)


if __name__ == "__main__":
    unittest.main()
