"""Every attention case of tests/kernels/attention_cases.cc, in float32 and in bf16, against PyTorch in
float64: at most twice (output) or three times (gradients) as far off as PyTorch's own attention is in the
same precision, but for a rounding or two of the largest value."""
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import torch
from safetensors.torch import load_file

BIN = Path(os.environ.get("WEFT_BIN", Path(__file__).parents[2] / "build/release/bin"))
PRECISIONS = {"F32": (torch.float32, 2.0 ** -22), "BF16": (torch.bfloat16, 2.0 ** -8)}


class Case:
    def __init__(self, tensors):
        self.tensors = tensors
        numbers = tensors["numbers"].tolist()
        self.scale, self.cap, self.causal = numbers[0], numbers[1], numbers[2] == 1
        self.left, self.right, self.document, self.padding, self.offset, self.restart = map(int, numbers[3:])
        names = ("q", "k", "v", "bias", "distance_bias", "sinks")
        self.names = [name for name in names if name in tensors]
        self.rows, self.heads, self.queries, _ = tensors["q"].shape
        self.keys = tensors["k"].shape[2]

    def apart(self):
        """Key position - query position, [B, 1, Tq, Tk]."""
        def positions(tokens):
            index = torch.arange(tokens)[None, :].expand(self.rows, -1)
            rows = torch.arange(self.rows)[:, None]
            return (index + rows) % self.restart if self.restart else index
        ahead = positions(self.keys)[:, None, :] - (positions(self.queries) + self.offset)[:, :, None]
        return ahead[:, None]

    def visible(self):
        seen = torch.ones(self.rows, self.heads, self.queries, self.keys, dtype=torch.bool)
        apart = self.apart()
        if self.causal:
            seen &= apart <= 0
        if self.left >= 0:
            seen &= apart >= -self.left
        if self.right >= 0:
            seen &= apart <= self.right
        for row in range(self.rows):
            if self.padding == 1:
                seen[row, ..., :row + 1] = False
            if self.padding == 2:
                seen[row, ..., self.keys - row - 1:] = False
            if self.padding == 3 and row == 0:
                seen[row] = False
            if self.document:
                own, other = ((torch.arange(n) + row) // self.document
                              for n in (self.queries, self.keys))
                seen[row] &= own[:, None] == other[None, :]
        return seen & (self.tensors["mask"] != 0) if "mask" in self.tensors else seen

    def added(self, leaves, dtype):
        """ALiBi, bias, and that by distance, [B, N, Tq, Tk]."""
        total = torch.zeros(self.rows, self.heads, self.queries, self.keys, dtype=dtype)
        if "slopes" in self.tensors:
            slopes = self.tensors["slopes"].to(dtype)
            total = total - slopes[:, None, None] * self.apart().abs().to(dtype)
        if "distance_bias" in leaves:
            table = leaves["distance_bias"]
            reach = table.shape[1] // 2
            entries = self.apart()[:, 0].clamp(-reach, reach) + reach
            total = total + table[:, entries].transpose(0, 1)
        return total + leaves["bias"] if "bias" in leaves else total

    def fused(self, leaves, dtype):
        """PyTorch's own attention, where it has what the case asks for."""
        seen = self.visible()
        empty = ~seen.any(-1, keepdim=True)
        mask = self.added(leaves, dtype).masked_fill(~(seen | empty), -torch.inf)
        y = torch.nn.functional.scaled_dot_product_attention(
            leaves["q"], leaves["k"], leaves["v"], attn_mask=mask, scale=self.scale, enable_gqa=True)
        return y.masked_fill(empty, 0)

    def composed(self, leaves, dtype):
        group = self.heads // leaves["k"].shape[1]
        k, v = (leaves[name].repeat_interleave(group, 1) for name in ("k", "v"))
        scores = self.scale * (leaves["q"] @ k.transpose(-1, -2))
        if self.cap > 0:
            scores = self.cap * torch.tanh(scores / self.cap)
        seen = self.visible()
        scores = (scores + self.added(leaves, dtype)).masked_fill(~seen, -torch.inf)
        empty = ~seen.any(-1, keepdim=True)
        if "sinks" in leaves:
            sinks = leaves["sinks"][None, :, None, None].expand(self.rows, -1, self.queries, 1)
            weights = torch.softmax(torch.cat([scores, sinks], -1), -1)[..., :-1]
        else:
            weights = torch.softmax(scores.masked_fill(empty, 0), -1).masked_fill(empty, 0)
        if "keep" in self.tensors:
            weights = weights * self.tensors["keep"].to(dtype)
        return weights @ v

    def results(self, dtype, exact):
        leaves = {name: self.tensors[name].to(dtype).requires_grad_() for name in self.names}
        special = self.cap > 0 or "sinks" in leaves or "keep" in self.tensors
        compute = self.composed if exact or special else self.fused
        y = compute(leaves, dtype)
        y.backward(self.tensors["cotangent"].to(dtype))
        return {"output": y.detach(), **{f"d_{name}": leaves[name].grad for name in self.names}}


class AttentionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cases.safetensors"
            subprocess.run([BIN / "weft-attention-cases", path], check=True)
            cls.cases = {}
            for name, tensor in load_file(path).items():
                case, rest = name.split("/", 1)
                cls.cases.setdefault(case, {})[rest] = tensor
        assert len(cls.cases) > 35, sorted(cls.cases)

    def compare(self, precision):
        dtype, rounding = PRECISIONS[precision]
        for name, tensors in sorted(self.cases.items()):
            case = Case(tensors)
            exact, peer = case.results(torch.float64, True), case.results(dtype, False)
            for what, expected in exact.items():
                with self.subTest(case=name, what=what):
                    own = (tensors[f"{precision}/{what}"].double() - expected).abs().max().item()
                    theirs = (peer[what].double() - expected).abs().max().item()
                    factor = 2 if what == "output" else 3
                    bound = factor * theirs + rounding * expected.abs().max().item()
                    self.assertLessEqual(own, bound)

    def test_float32(self):
        self.compare("F32")

    def test_bf16(self):
        self.compare("BF16")


if __name__ == "__main__":
    unittest.main()
