"""Leaves a part of a core for each rank free of what ranks compute, as a node does that has a core for the network:
the thread that computes runs in a group of the kernel's (cgroup v1, cpu.cfs_quota_us), whose time is up for the rest
of each period once it has had its share; a rank's other threads have no such limit. All of them go before other
programs (cpu.shares), so that the share stays free of these too.

The kernel looks whose time is up, and who is to run now that a share has begun anew, when threads change on a core or
at its tick, every 4 ms. Communication lets threads change some 1000 times a second, computing alone does not: beside
other programs it got 0.57 to 0.69 of a core instead of 0.75. So weft-bench-beat wakes on each core every ms, in every
part of the measurement; 0.75 it is then. Needs root."""
import itertools
import os
import subprocess
from pathlib import Path

CONTROLLER = Path("/sys/fs/cgroup/cpu")
PREFIX = "weft-bench-"   # of a group's name, before the process and the group's number in it
# Of ranks in turn: of one period for all, it would be chance, and stay so for a whole run, whether ranks compute at
# the same time on both threads of a core, which slow each other, or one after the other. 1000 is a group's least.
PERIODS_US = (4000, 5000, 7000, 9000)
MOST_SHARES = 1 << 18    # other programs have 1024


def lacking():
    """What is missing, in words; empty: nothing."""
    if os.geteuid() != 0:
        return "spare cores need root"
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
    """A context. ranks: processes whose first thread computes and which share the machine's cores evenly; of each
    rank's part of these, at most a core, that thread leaves `spare` cores free while limited(). The ranks end before
    the context does. beat: the program."""

    numbers = itertools.count()

    def __init__(self, ranks, spare, beat):
        self.ranks = ranks
        self.group = CONTROLLER / f"{PREFIX}{os.getpid()}-{next(SpareCores.numbers)}"
        self.share = min(1, os.cpu_count() / len(ranks)) - spare
        self.beat, self.beats = beat, []

    def __enter__(self):
        delete_abandoned()
        for core in os.sched_getaffinity(0):
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
