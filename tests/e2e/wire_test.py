#!/usr/bin/env python3
"""What leaves a host's interface in a training step is what its rank counts as sent, up to the headers
of TCP and of Open MPI's messages: two hosts in network namespaces, one rank each, along each axis.

Needs root and iproute2. Where it cannot make namespaces it fails, unless WEFT_LEAVE_OUT=netns says to
leave it out.
"""
import os
import subprocess
import sys
import unittest
from pathlib import Path

from cluster import BIN

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
from links import Links, lacking  # noqa: E402 (found by the line before)

STEPS = 4
MODEL = ("threads=1", "layers=2", "heads=4", "hidden=256", "vocabulary=2048", "tokens=512", "batch=2",
         "dropout=0")
MOST = 1.05  # bytes of the interface to one of payload


class Wire(unittest.TestCase):
    def sent(self, links, host):
        """Bytes that left the host's interface so far."""
        counter = subprocess.run(
            ["ip", "netns", "exec", links.namespace(host), "cat",
             "/sys/class/net/eth0/statistics/tx_bytes"], check=True, capture_output=True, text=True)
        return int(counter.stdout)

    def ratio(self, *degrees):
        """Of a step's bytes on the busier interface to those that the busier rank counts."""
        with Links(2, 10000) as links:
            bench = subprocess.Popen([*links.mpirun(), BIN / "weft-bench-mesh", *MODEL, *degrees],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            try:
                def ask(line):
                    bench.stdin.write(f"{line}\n")
                    bench.stdin.flush()
                    return bench.stdout.readline()

                self.assertEqual(bench.stdout.readline().strip(), "ready")
                before = [self.sent(links, host) for host in range(2)]
                self.assertTrue(ask(STEPS).strip())
                after = [self.sent(links, host) for host in range(2)]
                counted = float(ask("state").split()[2])
            finally:
                bench.stdin.close()
                bench.stdout.close()
                self.assertEqual(bench.wait(timeout=60), 0)
        self.assertGreater(counted, 1e6)
        return max(b - a for a, b in zip(before, after)) / STEPS / counted

    def test_counters(self):
        if lacks := lacking():
            if os.environ.get("WEFT_LEAVE_OUT", "") == "netns":
                self.skipTest(f"left out as told: {lacks}")
            self.fail(f"{lacks} (WEFT_LEAVE_OUT=netns leaves the test out)")
        for degrees in (("data=2",), ("data=2", "zero=3"), ("tensor=2",), ("sequence=2",),
                        ("sequence=2", "ulysses=2"), ("data=2", "bf16=1")):
            with self.subTest(degrees=degrees):
                ratio = self.ratio(*degrees)
                print(f"{' '.join(degrees)}: {ratio:.4f} bytes on the wire to one of payload")
                self.assertGreaterEqual(ratio, 1)
                self.assertLessEqual(ratio, MOST)


if __name__ == "__main__":
    unittest.main()
