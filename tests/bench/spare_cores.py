"""Leaves half of the machine's cores to communication, as a node does that has cores for its network: the threads
that compute have the other half, an equal share of it each, which the kernel holds them to (cgroup v1,
cpu.cfs_quota_us) also while another of them waits, as a rank has no use of another node's cores. A rank's other
threads and the interrupts of what they send stay on the network's cores: the kernel charges an interrupt to the
thread that it interrupts, and of a share of a quarter it would cost four times as much of the clock. All of them go
before other programs (cpu.shares), so that the share stays free of these too.

The kernel looks whose time is up, and who is to run now that a share has begun anew, when threads change on a core or
at its tick, every 4 ms. Communication lets threads change some 1000 times a second, computing alone does not: beside
other programs it got 0.57 to 0.69 of a core instead of 0.75. So weft-bench-beat wakes on each core every ms, in every
part of the measurement. Needs root and two cores."""
import itertools
import os
import subprocess
from pathlib import Path

CONTROLLER = Path("/sys/fs/cgroup/cpu")
PREFIX = "weft-bench-"   # of a group's name, before the process and the group's number in it
# Of ranks in turn: of one period for all, it would be chance, and stay so for a whole run, in which order they have
# their shares. 1000 is a quota's least.
PERIODS_US = (5000, 6000, 7000, 9000)
LEFT = 0.04              # of a core that computes: of one shared out whole, who is late in a period lacks some of it
MOST_SHARES = 1 << 18    # other programs have 1024


def lacking():
    """What is missing, in words; empty: nothing."""
    if os.geteuid() != 0:
        return "spare cores need root"
    if len(os.sched_getaffinity(0)) < 2:
        return "spare cores need two cores"
    there = (CONTROLLER / "cpu.cfs_quota_us").exists()
    return "" if there else f"spare cores need the cpu controller of cgroup v1 at {CONTROLLER}"


def delete(group):
    """With those in it."""
    for each in (*filter(Path.is_dir, group.iterdir()), group):
        each.rmdir()


def delete_abandoned():
    """What interrupted runs left."""
    for group in CONTROLLER.glob(f"{PREFIX}*"):
        process = group.name.removeprefix(PREFIX).split("-")[0]
        if process.isdigit() and not os.path.exists(f"/proc/{process}"):
            delete(group)


class SpareCores:
    """A context. ranks: processes whose first thread computes; it has its share of the cores that compute while
    limited(). The ranks end before the context does. beat: the program."""

    numbers = itertools.count()

    def __init__(self, ranks, beat):
        self.ranks = ranks
        self.group = CONTROLLER / f"{PREFIX}{os.getpid()}-{next(SpareCores.numbers)}"
        self.cores = sorted(os.sched_getaffinity(0))
        self.computing = self.cores[:len(self.cores) // 2]
        self.share = min(1, len(self.computing) / len(ranks)) * (1 - LEFT)
        self.beat, self.beats = beat, []

    def pin(self):
        network = self.cores[len(self.computing):]
        for number, rank in enumerate(self.ranks):
            for thread in map(int, os.listdir(f"/proc/{rank}/task")):
                own = self.computing if thread == rank else network
                os.sched_setaffinity(thread, [own[number % len(own)]])

    def __enter__(self):
        delete_abandoned()
        self.pin()
        for core in self.cores:
            beat = subprocess.Popen([self.beat, str(core)], stdout=subprocess.PIPE, text=True)
            self.beats.append(beat)
            if beat.stdout.readline() != "ready\n":
                self.stop_beats()
                raise RuntimeError(f"{self.beat} does not start on core {core}; it needs real-time scheduling")
        self.group.mkdir()
        (self.group / "cpu.shares").write_text(str(MOST_SHARES))
        for rank, period in zip(self.ranks, itertools.cycle(PERIODS_US)):
            (self.group / "cgroup.procs").write_text(str(rank))
            own = self.group / str(rank)
            own.mkdir()
            (own / "cpu.cfs_period_us").write_text(str(period))
            (own / "cpu.cfs_quota_us").write_text(str(int(period * self.share)))
        return self

    def limited(self):
        for rank in self.ranks:
            (self.group / str(rank) / "tasks").write_text(str(rank))

    def free(self):
        for rank in self.ranks:
            (self.group / "tasks").write_text(str(rank))

    def stop_beats(self):
        for beat in self.beats:
            beat.kill()
            beat.wait()
            beat.stdout.close()

    def __exit__(self, *_):
        self.stop_beats()
        delete(self.group)
