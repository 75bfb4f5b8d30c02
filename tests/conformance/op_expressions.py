"""What each row of the ops' case table (tests/kernels/op_table) is in torch: EXPRESSIONS[op](x, a) gives the
output, or a tuple of outputs, of the inputs x with the attributes a."""
import numpy as np
import torch
import torch.nn.functional as F


class Attributes(dict):
    """Named lists of numbers, as the table has them."""

    def real(self, name):
        (value,) = self[name]
        return value

    def int(self, name):
        return int(self.real(name))

    def ints(self, name):
        return [int(value) for value in self[name]]

    def flag(self, name):
        return name in self and self.int(name) != 0

    @property
    def dim(self):
        return self.int("dim")


def philox_uniform(seed, stream, index):
    """Philox4x32-10 (Salmon et al. 2011), one word an index, as a 24-bit uniform."""
    word = np.uint64(0xFFFFFFFF)
    counter = index // np.uint64(4)
    c = [counter & word, counter >> np.uint64(32),
         np.full_like(counter, stream & 0xFFFFFFFF), np.full_like(counter, stream >> 32)]
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]), p1 & word,
             (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]), p0 & word]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    chosen = np.choose((index % np.uint64(4)).astype(np.int64), c)
    return (chosen >> np.uint64(8)).astype(np.float64) * 2.0 ** -24


def dropout(x, a):
    shape, extents, offset = x[0].shape, a.ints("global"), a.ints("offset")
    index = np.zeros(tuple(shape), dtype=np.uint64)
    for dim, extent in enumerate(shape):
        step = int(np.prod(extents[dim + 1:], dtype=np.int64))
        along = (np.arange(extent, dtype=np.uint64) + np.uint64(offset[dim])) * np.uint64(step)
        index += along.reshape([-1 if d == dim else 1 for d in range(len(shape))])
    kept = philox_uniform(a.int("seed"), a.int("stream"), index) >= np.float64(np.float32(a.real("rate")))
    return x[0] * torch.from_numpy(kept).double() / (1 - a.real("rate"))


def embedding(x, a):
    ids, table = x[0] - a.int("first_id"), x[1]
    inside = (ids >= 0) & (ids < table.shape[0])
    padding = a.int("padding_id") - a.int("first_id") if "padding_id" in a else None
    rows = F.embedding(ids.clamp(0, table.shape[0] - 1), table, padding_idx=padding)
    return rows * inside.unsqueeze(-1)


def gather_rows(x, a):
    rows = x[0][torch.arange(x[0].shape[0]), x[1].clamp(min=0)]
    return rows * (x[1] >= 0).unsqueeze(-1)


def linear(x, a):
    weight = x[1].t() if a.flag("in_out") else x[1]
    return F.linear(x[0], weight, x[2] if len(x) > 2 else None)


def cross_entropy_sum(x, a):
    logits = x[0].reshape(-1, x[0].shape[-1])
    return F.cross_entropy(logits, x[1].reshape(-1), ignore_index=a.int("ignore_index"), reduction="sum")


EXPRESSIONS = {
    # arithmetic
    "add": lambda x, a: x[0] + x[1],
    "subtract": lambda x, a: x[0] - x[1],
    "multiply": lambda x, a: x[0] * x[1],
    "multiply_self": lambda x, a: x[0] * x[0],
    "divide": lambda x, a: x[0] / x[1],
    "scale": lambda x, a: x[0] * a.real("factor"),
    # activations
    "gelu_tanh": lambda x, a: F.gelu(x[0], approximate="tanh"),
    "gelu_erf": lambda x, a: F.gelu(x[0]),
    "relu": lambda x, a: F.relu(x[0]),
    "silu": lambda x, a: F.silu(x[0]),
    "tanh": lambda x, a: torch.tanh(x[0]),
    "sigmoid": lambda x, a: torch.sigmoid(x[0]),
    # reductions
    "sum": lambda x, a: x[0].sum(a.dim, keepdim=a.flag("keep")),
    "sum_in_blocks": lambda x, a: x[0].sum(a.dim, keepdim=a.flag("keep")),
    "mean": lambda x, a: x[0].mean(a.dim, keepdim=a.flag("keep")),
    "sum_all": lambda x, a: x[0].sum(),
    # shapes
    "reshape": lambda x, a: x[0].reshape(a.ints("shape")),
    "permute": lambda x, a: x[0].permute(a.ints("order")),
    "permute_reshape": lambda x, a: x[0].permute(a.ints("order")).reshape(a.ints("shape")),
    "contiguous": lambda x, a: x[0].clone(),
    "slice": lambda x, a: x[0].narrow(a.dim, a.int("start"), a.int("length")),
    "overlapping_slices": lambda x, a: x[0][..., :-1] + x[0][..., 1:],
    "pad": lambda x, a: F.pad(x[0].movedim(a.dim, -1), [a.int("before"), a.int("after")]).movedim(-1, a.dim),
    "split": lambda x, a: x[0].split(a.ints("lengths"), a.dim),
    "concat": lambda x, a: torch.cat(x, a.dim),
    "concat_same": lambda x, a: torch.cat([x[0], x[0]], a.dim),
    # products
    "matmul": lambda x, a: x[0] @ x[1],
    "matmul_in_blocks": lambda x, a: x[0] @ x[1],
    "linear": linear,
    # look-ups and masks
    "embedding": embedding,
    "embedding_padded": embedding,
    "gather_rows": gather_rows,
    "dropout": dropout,
    # norms and losses
    "layer_norm": lambda x, a: F.layer_norm(x[0], x[0].shape[-1:], x[1], x[2], a.real("epsilon")),
    "softmax": lambda x, a: torch.softmax(x[0], a.dim),
    "cross_entropy_sum": cross_entropy_sum,
}
