#!/usr/bin/env python3
"""Two hosts on one machine: namespaces (network, mounts, processes, host name) joined by a veth
pair, in each of which the other's files and processes do not exist. The coordinator and one node
are on the first, the other node joins from the second.

Needs root, iproute2 and util-linux. Where it cannot make namespaces it fails, unless
WEFT_LEAVE_OUT=netns says to leave it out.
"""
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import unittest
from pathlib import Path

from cluster import BIN, FINISHED, losses

STEPS = 200
JOB = f"""
name: two-hosts
kind: pretrain
model:
  family: gpt2
  config: {{n_layer: 2, n_head: 2, n_embd: 128, n_positions: 64, vocab_size: 257}}
tokenizer: {{type: byte}}
tasks: [{{type: causal_lm, data: {{train: texts/, format: text}}}}]
training: {{steps: {STEPS}, batch_size: 16, sequence_length: 64, seed: 3}}  # seconds, for things to happen meanwhile
checkpoint: {{every_steps: 20}}
parallel: {{tensor: 2}}
resources: {{slots: 2, nodes: 2}}
"""
LEASE_SECONDS = 5

# A host's first process: private folders, then it only reaps.
FIRST = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/bin  # the programs, wherever they were built
mount --bind "$2" /mnt/bin
for folder in /tmp /run /dev/shm /var/lib; do mount -t tmpfs tmpfs $folder; done
chmod 1777 /tmp /dev/shm
# Ranks' user has a login shell here, of the kind that mpirun has read a profile first.
sed 's|^\\(weft:.*:\\)[^:]*$|\\1/bin/sh|' /etc/passwd >/run/passwd
mount --bind /run/passwd /etc/passwd
hostname "$1"
ip link set lo up
mkdir -p /mnt/home /var/lib/weft
chown weft: /var/lib/weft 2>/dev/null || true
touch /tmp/ready
exec python3 -c '
import os, time
while True:
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        time.sleep(0.05)'
"""


def lacking():
    """What these tests need of the machine and do not find, each with what mends it."""
    lacks = []
    if os.geteuid() != 0:
        lacks.append("the rights of root: run the tests as root")
    for program, package in (("unshare", "util-linux"), ("nsenter", "util-linux"),
                             ("mount", "mount"), ("hostname", "hostname"), ("ip", "iproute2"),
                             ("pgrep", "procps"), ("curl", "curl")):
        if not shutil.which(program):
            lacks.append(f"the program {program}: apt-get install {package}")
    try:
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        if "/" not in mounts:
            lacks.append("a root folder that is a mount point, to be made private: before the"
                         " chroot, 'mount --bind ROOT ROOT'")
    except OSError:
        lacks.append("/proc: mount -t proc proc /proc")
    for folder in ("/mnt", "/tmp", "/run", "/dev/shm", "/var/lib"):
        if not Path(folder).is_dir():
            lacks.append(f"the folder {folder}: mkdir -p {folder}")
    for kind in ("net", "mnt", "pid", "uts", "ipc"):
        if Path("/proc/self").exists() and not Path(f"/proc/self/ns/{kind}").exists():
            lacks.append(f"a kernel with {kind} namespaces")
    return lacks


class Host:
    """Namespaces of its own; everything in them ends with their first process."""

    def __init__(self, name, address):
        self.name, self.address, self.link = name, address, name
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child",
             "--mount-proc", "sh", "-c", FIRST, "sh", name, str(BIN)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.pid = None

    def wait_ready(self):
        limit = time.monotonic() + 20
        children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        while time.monotonic() < limit:
            if self.holder.poll() is not None:
                raise AssertionError(self.holder.stderr.read().strip())
            self.pid = int((children.read_text().split() or [0])[0])
            if self.pid and self.run("test", "-e", "/tmp/ready", check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError(f"{self.name} does not come up")

    def run(self, *argv, check=True, timeout=60, stdin=""):
        # --root: else a test in a chroot would find itself in the machine's own root.
        inside = ["nsenter", "--target", str(self.pid), "--root", "--net", "--mount", "--pid",
                  "--uts", "--ipc", "env", "-i", "PATH=/mnt/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                  "HOME=/mnt/home", "WEFT_DATA=/mnt/data", "NO_COLOR=1",
                  "sh", "-c", 'cd /mnt/home 2>/dev/null; exec "$@"', "sh"]
        done = subprocess.run([*inside, *map(str, argv)], capture_output=True, text=True,
                              timeout=timeout, input=stdin)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {shlex.join(map(str, argv))}: exit"
                                 f" {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *argv):
        return json.loads(self.run(*argv, "--json").stdout)

    def workers(self):
        return self.run("pgrep", "-x", "weft-worker", check=False).stdout.split()

    def set_link(self, state):
        self.run("ip", "link", "set", self.link, state)

    def logs(self):
        return self.run("sh", "-c", "for f in $(find /mnt/data /var/lib/weft -name '*.log'"
                        " -not -path '*/chunks/*' -not -path '*/jobs/*'); do echo \"--- $f\";"
                        " tail -n 25 $f; done", check=False).stdout

    def close(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stderr.close()


class TwoHosts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.hosts = []
        try:
            if lacks := lacking():
                raise AssertionError("this machine lacks " + "; ".join(lacks))
            tag = os.getpid() % 1000000
            for letter, address in (("a", "10.77.1.1"), ("b", "10.77.1.2")):
                cls.hosts.append(Host(f"w{letter}{tag}", address))
            for host in cls.hosts:
                host.wait_ready()
            cls.a, cls.b = cls.hosts
            subprocess.run(["nsenter", "--target", str(cls.a.pid), "--net", "ip", "link", "add",
                            cls.a.link, "type", "veth", "peer", "name", cls.b.link, "netns",
                            f"/proc/{cls.b.pid}/ns/net"], check=True, capture_output=True,
                           text=True)
            for host in cls.hosts:
                host.run("ip", "addr", "add", f"{host.address}/24", "dev", host.link)
                host.set_link("up")
        except (AssertionError, OSError, subprocess.CalledProcessError) as error:
            cls.tearDownClass()
            told = getattr(error, "stderr", "") or error
            if os.environ.get("WEFT_LEAVE_OUT", "") == "netns":
                print(f"left out as told: no network namespaces here: {told}")
                sys.exit(0)
            raise AssertionError(f"cannot make two hosts of network namespaces: {told}"
                                 " (WEFT_LEAVE_OUT=netns leaves the test out)") from None

    @classmethod
    def tearDownClass(cls):
        for host in cls.hosts:
            host.close()

    # ---- helpers ------------------------------------------------------------------------------
    def until(self, what, seconds, done):
        limit = time.monotonic() + seconds
        while not (value := done()):
            self.assertLess(time.monotonic(), limit, what() if callable(what) else what)
            time.sleep(0.1)
        return value

    def told(self, text):
        return lambda: "\n".join([text, *(f"===== {host.name}\n{host.logs()}"
                                          for host in self.hosts)])

    def ready_nodes(self):
        nodes = self.a.json("weft", "nodes")["nodes"]
        return nodes if sum(node["state"] == "ready" for node in nodes) == 2 else None

    def submit(self):
        return self.a.json("weft", "submit", "-f", "job.yaml")["id"]

    def show(self, job):
        return self.a.json("weft", "show", job)

    def follow(self, job, done):
        """The job once done(job); it may take any time, as long as it gets on: the machine may be
        busy."""
        last, limit = None, 0
        while not done(now := self.show(job)):
            place = (now["state"], now["attempt"], now["step"])
            if place != last:
                last, limit = place, time.monotonic() + 60
            if now["state"] in FINISHED or time.monotonic() > limit:
                self.fail(self.told(f"{job} does not get on: {now}")())
            time.sleep(0.1)
        return now

    def at_step(self, job, step):
        return self.follow(job, lambda now: now["state"] == "running" and now["step"] >= step
                           and now["ranks"])

    def succeeded(self, job):
        return self.follow(job, lambda now: now["state"] == "succeeded")

    def curve(self, job):
        token = self.a.run("cat", "/mnt/data/token").stdout.strip()
        url = f"http://{self.a.address}:7070/api/v1/jobs/{job}/metrics?limit=1000"
        text = self.a.run("curl", "-sSf", "-H", "@-", url, stdin=f"Authorization: Bearer {token}\n")
        return losses(json.loads(text.stdout)["metrics"])

    def coordinator(self):
        return self.a.run("pgrep", "-x", "weft-coordinato").stdout.split()[0]  # 15 letters kept

    def restart_coordinator(self, *more):
        """With further options, as a service manager would after a kill."""
        pid = self.coordinator()
        argv = self.a.run("cat", f"/proc/{pid}/cmdline").stdout.split("\0")[:-1]
        self.a.run("kill", "-KILL", pid)
        self.a.run("sh", "-c", f"setsid {shlex.join([*argv, *more])}"
                               " >>/mnt/data/log/again.log 2>&1 &")
        self.until(self.told("no coordinator"), 20,
                   lambda: self.a.run("weft", "nodes", "--json", check=False).returncode == 0)

    # ---- the test -----------------------------------------------------------------------------
    def test_two_hosts(self):
        with self.subTest("join"):
            self.join()
        with self.subTest("job"):
            whole = self.run_whole()
        with self.subTest("a rank of the second host is killed"):
            self.kill_rank(whole)
        with self.subTest("the second host is cut off"):
            self.cut_off(whole)
        with self.subTest("a node that the other host cannot reach"):
            self.loopback_node()

    def join(self):
        a, b = self.a, self.b
        a.run("weft", "up", "--nodes", 1, "--slots-per-node", 1, "--address", a.address)
        token = a.run("weft", "token", "--join").stdout.strip()
        b.run("weft", "join", f"{a.address}:7071", "--token", "-", "--slots", 1, stdin=token)
        nodes = self.until(self.told("two nodes"), 30, self.ready_nodes)
        self.assertEqual({node["address"] for node in nodes}, {a.address, b.address})
        a.run("sh", "-c", "mkdir -p texts && yes 'a text of two hosts' | head -n 400 > texts/a.txt")
        a.run("tee", "job.yaml", stdin=JOB)

    def run_whole(self):
        job = self.submit()
        running = self.at_step(job, 1)
        self.assertEqual(len({rank["node"] for rank in running["ranks"]}), 2)
        for host in self.hosts:
            self.assertEqual(len(host.workers()), 1)
        done = self.succeeded(job)
        self.assertEqual(done["attempt"], 1)
        self.assertEqual(self.b.run("ls", "/mnt/home").stdout, "")  # nothing of the submitter's
        self.a.run("weft", "export", done["checkpoint"], "--to", "out")
        self.assertIn("model.safetensors", self.a.run("ls", "out").stdout)
        curve = self.curve(job)
        self.assertEqual(sorted(curve), list(range(1, STEPS + 1)))
        return curve

    def kill_rank(self, whole):
        job = self.submit()
        self.at_step(job, 25)
        workers = self.b.workers()
        self.assertEqual(len(workers), 1)
        self.b.run("kill", "-KILL", *workers)
        done = self.succeeded(job)
        self.assertEqual(done["attempt"], 2)
        self.assertEqual(self.curve(job), whole)

    def cut_off(self, whole):
        self.restart_coordinator("--lease-seconds", str(LEASE_SECONDS))
        self.until(self.told("two nodes"), 30, self.ready_nodes)
        job = self.submit()
        self.at_step(job, 25)
        self.b.set_link("down")
        self.until(self.told("the cut-off host's ranks go on"), 2 * LEASE_SECONDS + 5,
                   lambda: not self.b.workers())
        waits = self.until(self.told("the job is not queued"), 20, lambda: (
            now if (now := self.show(job))["state"] == "queued" else None))
        self.assertIn("not reachable", self.until(
            self.told(f"{waits}"), 10, lambda: (
                reason if "not reachable" in (reason := self.show(job)["reason"]) else None)))
        self.b.set_link("up")
        done = self.succeeded(job)
        self.assertEqual(done["attempt"], 2)
        self.assertEqual(self.curve(job), whole)

    def loopback_node(self):
        """A cluster of its own whose first node dials, and so announces, 127.0.0.1."""
        a, b = self.a, self.b
        a.run("kill", "-KILL", self.coordinator())  # the one of restart_coordinator
        for host in (b, a):
            host.run("weft", "down", "--now")
            host.run("rm", "-r", "/mnt/data")
        a.run("weft", "up", "--nodes", 1, "--slots-per-node", 1, "--address", "0.0.0.0")
        token = a.run("weft", "token", "--join").stdout.strip()
        b.run("weft", "join", f"{a.address}:7071", "--token", "-", "--slots", 1, stdin=token)
        nodes = self.until(self.told("two nodes"), 30, self.ready_nodes)
        self.assertEqual({node["address"] for node in nodes}, {"127.0.0.1", b.address})
        job = self.submit()
        reason = self.until(self.told("no reason"), 20, lambda: self.show(job)["reason"])
        self.assertIn("cannot reach node-1 at 127.0.0.1", reason)
        self.assertIn("--address", reason)
        a.run("weft", "down")  # and what it told mends it
        a.run("weft", "up", "--address", a.address)
        self.succeeded(job)


if __name__ == "__main__":
    unittest.main()
