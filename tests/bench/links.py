"""Hosts on one machine, joined by links of a set rate: network namespaces with a veth each on one bridge,
shaped by a token bucket. Needs root and iproute2; processes, files and processors are shared."""
import os
import shutil
import subprocess

NETWORK = "10.77.42"
BRIDGE = "weft-bench-sw"


def lacking():
    """What is missing, in words; empty: nothing."""
    if os.geteuid() != 0:
        return "links between namespaces need root"
    missing = [program for program in ("ip", "tc") if not shutil.which(program)]
    return f"links need {' and '.join(missing)} (iproute2)" if missing else ""


def call(*words, check=True):
    subprocess.run(list(map(str, words)), check=check, stderr=None if check else subprocess.DEVNULL)


class Links:
    """A context. shell: what mpirun calls to start its daemon on a host, which is named by its address."""

    def __init__(self, hosts, megabits):
        self.addresses = [f"{NETWORK}.{number + 1}" for number in range(hosts)]
        self.megabits = megabits

    def __enter__(self):
        self.__exit__()   # what an interrupted run left
        try:
            self.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def make(self):
        call("ip", "netns", "add", BRIDGE)
        call("ip", "-n", BRIDGE, "link", "add", "sw", "type", "bridge")
        call("ip", "-n", BRIDGE, "link", "set", "sw", "up")
        for number, address in enumerate(self.addresses):
            call("ip", "netns", "add", f"weft-bench-{address}")
            call("ip", "link", "add", "eth0", "netns", f"weft-bench-{address}", "type", "veth",
                 "peer", "name", f"port{number}", "netns", BRIDGE)
            call("ip", "-n", BRIDGE, "link", "set", f"port{number}", "master", "sw", "up")
            host = ("ip", "-n", f"weft-bench-{address}")
            call(*host, "address", "add", f"{address}/24", "dev", "eth0")
            call(*host, "link", "set", "eth0", "up")
            call(*host, "link", "set", "lo", "up")
            call("tc", "-n", f"weft-bench-{address}", "qdisc", "add", "dev", "eth0", "root", "tbf",
                 "rate", f"{self.megabits}mbit", "burst", "256kb", "latency", "50ms")

    def __exit__(self, *_):
        for name in (*(f"weft-bench-{address}" for address in self.addresses), BRIDGE):
            call("ip", "netns", "del", name, check=False)

    def mpirun(self):
        """The command, up to the program: one rank a host."""
        return ["ip", "netns", "exec", f"weft-bench-{self.addresses[0]}", "mpirun", "--allow-run-as-root",
                "--bind-to", "none", "--map-by", "node", "-H", ",".join(self.addresses),
                "--mca", "plm_rsh_agent", os.path.join(os.path.dirname(__file__), "links_shell.sh"),
                "--mca", "plm_rsh_no_tree_spawn", "1", "--mca", "btl", "self,tcp",
                "--mca", "btl_tcp_if_include", f"{NETWORK}.0/24",
                "--mca", "oob_tcp_if_include", f"{NETWORK}.0/24", "-n", str(len(self.addresses))]
