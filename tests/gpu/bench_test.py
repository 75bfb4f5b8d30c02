"""bench.py at its smallest, on a GPU made of fibers beside PyTorch on the CPU, and what its tables say."""
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(os.environ.get("WEFT_BIN", HERE.parents[1] / "build/release/bin"))
sys.path.insert(0, str(HERE))
import bench
import kernel_times


def run(*words):
    return subprocess.run([sys.executable, HERE / "bench.py", *map(str, words)], capture_output=True, text=True)


class Run(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "rows.json")
            cls.done = run("--program", BIN / "weft-gpu-on-cpu", "--small", "--device", "cpu", "--runs", 2,
                           "--seconds", 0.0005, "--json", file)
            cls.rows = {row["name"]: row for row in json.loads(file.read_text())}

    def test_every_row_is_there(self):
        self.assertEqual(self.done.returncode, 0, self.done.stderr)
        for name in ("product BF16 32x16x64", "attention BF16 2x16 T=32 causal forward", "copy BF16 8x32",
                     "attention BF16 2x32 T=32 forward", "layer_norm BF16 8x32 both ways",
                     "gpt2 124M BF16 B=2 T=16 graphs", "gpt2 1.5B BF16 B=1 T=16 eager"):
            self.assertIn(name, self.done.stdout)
            self.assertGreater(self.rows[name]["ours"], 0)
            self.assertGreater(self.rows[name]["peer"], 0)
        self.assertFalse([name for name in self.rows if "F32" in name.split()])
        self.assertEqual(len(self.rows["product BF16 32x16x64"]["raw"]["ours"]), 4)   # of two turns
        self.assertIn("cudnn: RuntimeError: cuDNN's attention is a GPU's", self.done.stdout)

    def test_both_sides_train_the_same(self):
        losses = [row for name, row in self.rows.items() if name.endswith(" loss")]
        self.assertEqual(len(losses), 6)
        for row in losses:
            self.assertAlmostEqual(row["ratio"], 1, delta=2e-4)
            self.assertLess(row["raw"]["ours"][4], row["raw"]["ours"][0])

    def test_utilization(self):
        row = self.rows["gpt2 124M BF16 B=2 T=16 graphs"]
        per_token = 6 * (12 * 12 * 768 ** 2 + 50257 * 768) + 12 * 12 * 768 * 16
        self.assertAlmostEqual(row["utilization"]["ours"] / (row["rate"]["ours"] * per_token / 989e12), 1, places=6)

    def test_bad_arguments(self):
        self.assertIn("--parts: fast is none of products", run("--parts", "124M,fast").stderr)
        self.assertIn("must be NAME=VALUE", run("--own", "cudnn").stderr)


class Tables(unittest.TestCase):
    @staticmethod
    def measured(seconds, rate):
        return {"samples": [seconds], "seconds": seconds, "rate": rate, "error": ""}

    def test_attention_beside_two_peers(self):
        results = bench.Results()
        base = "attention BF16 16x64 T=512"
        forward, both = f"{base} forward", f"{base} both ways"
        results.ours = {forward: self.measured(2e-3, 100), both: self.measured(7e-3, 100)}
        results.own = {forward: self.measured(4e-3, 50), both: self.measured(9e-3, 78)}
        results.peers = {(forward, "flash"): {"samples": [3e-3]}, (both, "flash"): {"samples": [7e-3]},
                         (forward, "cudnn"): {"samples": [2e-3]}, (both, "cudnn"): {"samples": [8e-3]}}
        rows = {row["name"]: row for row in bench.attention_rows(results, [forward, both])}
        self.assertEqual(set(rows), {f"{base} {way}{own}" for way in ("forward", "backward") for own in ("", " own")})
        self.assertAlmostEqual(rows[f"{base} forward"]["ratio"], 1)
        self.assertAlmostEqual(rows[f"{base} forward own"]["ratio"], 2)
        self.assertFalse(rows[f"{base} forward own"]["within_bar"])
        self.assertAlmostEqual(rows[f"{base} backward"]["ratio"], 5 / 4)   # flash's
        self.assertAlmostEqual(rows[f"{base} backward own"]["ratio"], 5 / 6)
        self.assertAlmostEqual(rows[f"{base} backward"]["rates"]["chosen"], 100)
        self.assertAlmostEqual(rows[f"{base} backward"]["rates"]["flash"], 125)
        self.assertIn("own/cudnn 0.50", bench.line_of(rows[f"{base} forward"]))

    def test_kernels_are_summed(self):
        text = '\n'.join([
            '==PROF== Connected', '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"',
            '"0","void weft::cuda::(anonymous namespace)::norm<float, 4>(Args<int>, int)","gpu__time_duration.sum","ns","1,500"',
            '"1","nvjet_hsh_128x256","gpu__time_duration.sum","usecond","2"',
            '"2","void weft::cuda::(anonymous namespace)::norm<float, 4>(Args<int>, int)","gpu__time_duration.sum","ns","500"'])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "kernels.csv")
            file.write_text(text)
            told = io.StringIO()
            sys.argv = ["kernel_times.py", str(file)]
            with contextlib.redirect_stdout(told):
                kernel_times.main()
        self.assertIn("0.004 ms in 3 launches of 2 kernels", told.getvalue())
        self.assertRegex(told.getvalue(), r"2\.0  50\.0% +2 +1\.00  norm<float, 4>\n")


if __name__ == "__main__":
    unittest.main()
