"""Drives the real programs for the end-to-end tests: a cluster under a folder of its own, spoken to
over HTTP. Standard library only."""
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("WEFT_BIN", ROOT / "build/release/bin"))
FINISHED = {"succeeded", "failed", "cancelled"}


class Refused(Exception):
    """An answer that is not 2xx; body is the error object."""

    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status, self.body = status, body


def free_port():
    """Free, as is the next one, which agents dial. None of those that the kernel gives to clients,
    one of which would hold it while a coordinator is away: even an agent that dials that port."""
    while True:
        port = random.randrange(10000, 32000)
        try:
            for each in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", each))
            return port
        except OSError:
            continue


class Cluster:
    def __init__(self, nodes=2, slots=1, arguments=()):
        self.folder = Path(tempfile.mkdtemp(prefix="weft-e2e-"))
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.port = free_port()
        self.nodes, self.slots, self.arguments = nodes, slots, list(arguments)
        self.bin = BIN

    # ---- programs ---------------------------------------------------------------------------------
    def environment(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("WEFT_")}
        env.update(WEFT_DATA=str(self.data), HOME=str(self.folder), NO_COLOR="1")
        return env

    def start(self, *arguments):
        return subprocess.Popen([str(self.bin / "weft"), *map(str, arguments)], text=True,
                                env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def weft(self, *arguments, check=True, stdin=None, timeout=300):
        done = subprocess.run([str(self.bin / "weft"), *map(str, arguments)], env=self.environment(),
                              input=stdin, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"weft {' '.join(map(str, arguments))}: exit {done.returncode}\n"
                                 f"{done.stdout}\n{done.stderr}")
        return done

    def up(self, *more):
        return self.weft("up", "--nodes", self.nodes, "--slots-per-node", self.slots, "--data",
                         self.data, "--port", self.port, *self.arguments, *more)

    def down(self, *more, check=True):
        return self.weft("down", "--data", self.data, *more, check=check)

    def __enter__(self):
        self.up()
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            self.show_logs()
        self.down("--now", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def show_logs(self, lines=30):
        for log in sorted(self.data.rglob("*.log")):
            if "rocksdb" in str(log) or "/chunks/" in str(log):
                continue
            tail = log.read_text(errors="replace").splitlines()[-lines:]
            print(f"--- {log}", *tail, sep="\n", file=sys.stderr)

    def pids(self, program, *words):
        """Processes of this cluster that run `program`, by the data folder in their arguments."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if Path(argv[0]).name == program and str(self.data) in " ".join(argv) \
                    and all(word in argv for word in words):
                found.append(int(entry.name))
        return found

    @staticmethod
    def below(parents, program):
        """Processes that run `program` and descend from one of `parents`."""
        names, parent_of = {}, {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            names[int(entry.name)] = Path(argv[0]).name
            parent_of[int(entry.name)] = int(fields[1])
        found = []
        for pid, name in names.items():
            above = parent_of.get(pid)
            while above and above not in parents:
                above = parent_of.get(above)
            if above and name == program:
                found.append(pid)
        return found

    # ---- REST -------------------------------------------------------------------------------------
    def token(self):
        for name in ("token", "admin.token", "coordinator/token"):
            path = self.data / name
            if path.exists():
                return path.read_text().strip()
        raise AssertionError(f"no token under {self.data}")

    def rest(self, method, path, body=None, headers=None, timeout=60, raw=False):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        send = {"Authorization": f"Bearer {self.token()}"}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body)
            send["Content-Type"] = "application/json"
        send.update(headers or {})
        try:
            connection.request(method, f"/api/v1/{path}", body=body, headers=send)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            try:
                data = json.loads(data)["error"]
            except (ValueError, KeyError):
                pass
            raise Refused(answer.status, data)
        return data if raw else (json.loads(data) if data else None)

    def job(self, job):
        return self.rest("GET", f"jobs/{job}")

    def events(self, job):
        return self.pages(f"jobs/{job}/events", "events")

    def metrics(self, job):
        return self.pages(f"jobs/{job}/metrics", "metrics")

    def pages(self, path, key):
        items, after = [], 0
        while True:
            page = self.rest("GET", f"{path}?after={after}&limit=1000")
            items += page[key]
            if not page.get("more"):
                return items
            after = page["next"]

    def submit(self, text, *more):
        done = self.weft("submit", "-f", "-", "--json", *more, stdin=text)
        return json.loads(done.stdout)["id"]

    def until(self, job, done, expected, timeout):
        """The job once done(job); it may take any time, as long as it gets on: the machine may
        be busy. `timeout`: seconds without a new state, attempt or step."""
        last, limit = None, 0
        while True:
            now = self.job(job)
            if done(now):
                return now
            place = (now["state"], now["attempt"], now["step"])
            if place != last:
                last, limit = place, time.monotonic() + timeout
            if now["state"] in FINISHED or time.monotonic() > limit:
                raise AssertionError(f"{job} is {now['state']} at step {now['step']}, not "
                                     f"{expected}: {now.get('reason')}\n{self.events(job)}")
            time.sleep(0.03)

    def wait(self, job, states, timeout=120):
        states = {states} if isinstance(states, str) else set(states)
        return self.until(job, lambda now: now["state"] in states, sorted(states), timeout)

    def wait_step(self, job, step, timeout=120):
        return self.until(job, lambda now: now["step"] >= step, f"at step {step}", timeout)


def kill(pid, signum=signal.SIGKILL):
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass


def losses(metrics):
    """step -> training loss, of the last attempt that reached the step."""
    return {record["step"]: record["values"]["loss"] for record in metrics
            if "loss" in record["values"]}
