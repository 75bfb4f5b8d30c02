"""Every case of the ops' case table: outputs and gradients of weft-op-table against torch in float64."""
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import torch
from safetensors import safe_open

from op_expressions import EXPRESSIONS, Attributes

BIN = Path(os.environ.get("WEFT_BIN", Path(__file__).parents[2] / "build/release/bin"))
TOLERANCE = 1e-11   # of 1 + the largest element


def gap(ours, theirs):
    """The largest difference of two tensors; infinite where shapes or NaNs differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    if not ours.is_floating_point():
        return 0.0 if torch.equal(ours.long(), theirs.long()) else float("inf")
    if not torch.equal(ours.isnan(), theirs.isnan()):
        return float("inf")
    different = (ours != theirs) & ~ours.isnan()
    if not different.any():
        return 0.0
    return ((ours - theirs)[different].abs().max() / (1 + theirs[different].abs().max())).item()


class OpTable(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.set_num_threads(1)   # the cases are small
        cls.place = tempfile.TemporaryDirectory(prefix="weft-op-table-")
        path = Path(cls.place.name) / "table.safetensors"
        subprocess.run([BIN / "weft-op-table", path], check=True)
        cls.file = safe_open(path, framework="pt")
        cls.names = set(cls.file.keys())
        cls.cases = json.loads(cls.file.metadata()["cases"])

    @classmethod
    def tearDownClass(cls):
        cls.place.cleanup()

    def tensor(self, name):
        return self.file.get_tensor(name) if name in self.names else None

    def check_case(self, case, expression):
        prefix = f"{case['op']}/{case['case']}/"
        inputs = [self.tensor(f"{prefix}input{i}") for i in range(case["inputs"])]
        for x in inputs:
            x.requires_grad_(x.is_floating_point())
        outputs = expression(inputs, Attributes(case["attributes"]))
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        self.assertEqual(len(outputs), case["outputs"])
        total = torch.zeros((), dtype=torch.float64)
        for i, output in enumerate(outputs):
            ours = self.tensor(f"{prefix}output{i}")
            self.assertLessEqual(gap(ours, output.detach()), TOLERANCE, f"output {i}")
            if ours.is_floating_point():
                total = total + (output * self.tensor(f"{prefix}cotangent{i}")).sum()
        if total.requires_grad:
            total.backward()
        for i, x in enumerate(inputs):
            ours = self.tensor(f"{prefix}gradient{i}")
            if ours is None:
                continue   # a constant, or nothing depends on it
            theirs = torch.zeros_like(x) if x.grad is None else x.grad
            self.assertLessEqual(gap(ours, theirs), TOLERANCE, f"gradient of input {i}")

    def test_agrees_with_torch(self):
        for case in self.cases:
            shapes = [tuple(self.tensor(f"{case['op']}/{case['case']}/input{i}").shape)
                      for i in range(case["inputs"])]
            with self.subTest(op=case["op"], shapes=shapes, attributes=case["attributes"]):
                self.check_case(case, EXPRESSIONS[case["op"]])

    def test_names_every_row_and_no_other(self):
        self.assertEqual({case["op"] for case in self.cases}, set(EXPRESSIONS))

    def test_finds_what_is_wrong(self):
        """The comparison has teeth: the other GELU is told apart."""
        cases = [case for case in self.cases if case["op"] == "gelu_erf"]
        with self.assertRaises(AssertionError):
            for case in cases:
                self.check_case(case, EXPRESSIONS["gelu_tanh"])


if __name__ == "__main__":
    unittest.main()
