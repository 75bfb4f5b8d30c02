"""Hosts on one machine, joined by links of a set rate: network namespaces with a veth each on one bridge,
shaped by a token bucket. Needs root and iproute2; processes, files and processors are shared."""
import itertools
import os
import shutil
import subprocess

NETWORK = "10.77.42"   # of every context's own bridge
PREFIX = "weft-bench-"  # of a namespace's name, before the process, its links' number and what it is there


def lacking():
    """What is missing, in words; empty: nothing."""
    if os.geteuid() != 0:
        return "links between namespaces need root"
    missing = [program for program in ("ip", "tc") if not shutil.which(program)]
    return f"links need {' and '.join(missing)} (iproute2)" if missing else ""


def call(*words, check=True):
    subprocess.run(list(map(str, words)), check=check, stderr=None if check else subprocess.DEVNULL)


def delete_abandoned():
    """What interrupted runs left."""
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
        process = name.removeprefix(PREFIX).split("-")[0]
        if name.startswith(PREFIX) and process.isdigit() and not os.path.exists(f"/proc/{process}"):
            call("ip", "netns", "del", name, check=False)


class Links:
    """A context, of which several may be open, in any processes. Its hosts' namespaces are named after this
    process, the context's number in it and their address."""

    numbers = itertools.count()

    def __init__(self, hosts, megabits):
        self.addresses = [f"{NETWORK}.{number + 1}" for number in range(hosts)]
        self.megabits = megabits
        self.prefix = f"{PREFIX}{os.getpid()}-{next(Links.numbers)}-"
        self.bridge = f"{self.prefix}bridge"

    def namespace(self, host):
        return self.prefix + self.addresses[host]

    def __enter__(self):
        delete_abandoned()
        try:
            self.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def make(self):
        call("ip", "netns", "add", self.bridge)
        call("ip", "-n", self.bridge, "link", "add", "sw", "type", "bridge")
        call("ip", "-n", self.bridge, "link", "set", "sw", "up")
        for number, address in enumerate(self.addresses):
            namespace = self.namespace(number)
            call("ip", "netns", "add", namespace)
            call("ip", "link", "add", "eth0", "netns", namespace, "type", "veth",
                 "peer", "name", f"port{number}", "netns", self.bridge)
            call("ip", "-n", self.bridge, "link", "set", f"port{number}", "master", "sw", "up")
            host = ("ip", "-n", namespace)
            call(*host, "address", "add", f"{address}/24", "dev", "eth0")
            call(*host, "link", "set", "eth0", "up")
            call(*host, "link", "set", "lo", "up")
            # The kernel's own default, whatever this machine's is: BBR sends at half the rate for some 0.1 s after a
            # pause of 20 ms, and wakes a core for each segment.
            call(*host, "route", "replace", f"{NETWORK}.0/24", "dev", "eth0", "proto", "kernel", "scope", "link",
                 "src", address, "congctl", "cubic")
            call("tc", "-n", namespace, "qdisc", "add", "dev", "eth0", "root", "tbf",
                 "rate", f"{self.megabits}mbit", "burst", "256kb", "latency", "50ms")

    def __exit__(self, *_):
        for name in (*map(self.namespace, range(len(self.addresses))), self.bridge):
            call("ip", "netns", "del", name, check=False)

    def processes(self, program):
        """Those that run `program`, of each host in turn."""
        found = []
        for host in range(len(self.addresses)):
            told = subprocess.run(["ip", "netns", "pids", self.namespace(host)], check=True, capture_output=True,
                                  text=True).stdout.split()
            found += [int(process) for process in told
                      if os.path.basename(os.readlink(f"/proc/{process}/exe")) == program]
        return found

    def pin(self, processes):
        """Each host's, all their threads, to cores of its own (of more hosts than cores, several have one): else
        the kernel lets two hosts compute on one core for seconds while their communication has the other."""
        cores, hosts = sorted(os.sched_getaffinity(0)), len(self.addresses)
        for number, process in enumerate(processes):
            host = number * hosts // len(processes)
            own = cores[host::hosts] or [cores[host % len(cores)]]
            for thread in os.listdir(f"/proc/{process}/task"):
                os.sched_setaffinity(int(thread), own)

    def mpirun(self):
        """The command, up to the program: one rank a host."""
        return ["ip", "netns", "exec", self.namespace(0), "env", f"WEFT_BENCH_HOSTS={self.prefix}",
                "mpirun", "--allow-run-as-root",
                "--bind-to", "none", "--map-by", "node", "-H", ",".join(self.addresses),
                "--mca", "plm_rsh_agent", os.path.join(os.path.dirname(__file__), "links_shell.sh"),
                "--mca", "plm_rsh_no_tree_spawn", "1", "--mca", "btl", "self,tcp",
                "--mca", "btl_tcp_if_include", f"{NETWORK}.0/24",
                "--mca", "oob_tcp_if_include", f"{NETWORK}.0/24", "-n", str(len(self.addresses))]
