"""What each row of the ops' case table (tests/kernels/op_table) is in torch: EXPRESSIONS[op](x, a) gives the
output, or a tuple of outputs, of the inputs x with the attributes a."""
import numpy as np
import torch
import torch.nn.functional as F

from mechanism_expressions import MECHANISMS
from philox import dropout_factor


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


def dropout(x, a):
    shape, extents, offset = x[0].shape, a.ints("global"), a.ints("offset")
    index = np.zeros(tuple(shape), dtype=np.uint64)
    for dim, extent in enumerate(shape):
        step = int(np.prod(extents[dim + 1:], dtype=np.int64))
        along = (np.arange(extent, dtype=np.uint64) + np.uint64(offset[dim])) * np.uint64(step)
        index += along.reshape([-1 if d == dim else 1 for d in range(len(shape))])
    return x[0] * torch.from_numpy(dropout_factor(a.int("seed"), a.int("stream"), index, a.real("rate")))


def layer_norm(x, a):
    return F.layer_norm(x[0], x[0].shape[-1:], x[1], x[2], a.real("epsilon"))


def rms_norm(x, a):
    return F.rms_norm(x[0], x[0].shape[-1:], x[1], a.real("epsilon"))


def embedding(x, a):
    table = x[1].flatten(0, -2) if x[1].ndim > 2 else torch.atleast_2d(x[1])
    ids = x[0] - a.int("first_id")
    inside = (ids >= 0) & (ids < table.shape[0])
    padding = a.int("padding_id") - a.int("first_id") if "padding_id" in a else None
    rows = F.embedding(ids.clamp(0, table.shape[0] - 1), table, padding_idx=padding)
    return rows * inside.unsqueeze(-1)


def gather_rows(x, a):
    rows = x[0][torch.arange(x[0].shape[0]), x[1].clamp(min=0)]
    return rows * (x[1] >= 0).unsqueeze(-1)


def linear(x, a):
    weight = x[1].flatten(1) if x[1].ndim > 2 else x[1]
    weight = weight.t() if a.flag("in_out") else weight
    return F.linear(x[0], weight, x[2] if len(x) > 2 else None)


def cross_entropy_sum(x, a):
    logits = x[0].reshape(-1, x[0].shape[-1])
    return F.cross_entropy(logits, x[1].reshape(-1), ignore_index=a.int("ignore_index"), reduction="sum")


def compare(x, a):
    mask = [torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge][a.int("kind")](x[0], x[1])
    return mask, mask


def scalar_dims(x, a):
    return dict(dim=a.ints("dims"), keepdim=a.flag("keep"))


def cumulative_sum(x, a):
    if a.flag("keep"):   # from the end
        return x[0].flip(a.dim).cumsum(a.dim).flip(a.dim)
    return x[0].cumsum(a.dim)


def segments(x, a, reduce):
    """torch's scatter_reduce along dim 0; what no element belongs to is 0."""
    segment = x[1].reshape(-1, *[1] * (x[0].dim() - 1)).expand_as(x[0])
    zeros = torch.zeros(a.int("count"), *x[0].shape[1:], dtype=x[0].dtype)
    return zeros.scatter_reduce(0, segment, x[0], reduce, include_self=False)


def segment_max(x, a):
    segment = x[1].reshape(-1, *[1] * (x[0].dim() - 1)).expand_as(x[0])
    lowest = torch.full((a.int("count"), *x[0].shape[1:]), -torch.inf, dtype=x[0].dtype)
    largest = lowest.scatter_reduce(0, segment, x[0], "amax")
    return torch.where(largest == -torch.inf, 0, largest)


def segment_softmax(x, a):
    parts = torch.zeros_like(x[0])
    for s in range(a.int("count")):
        mine = (x[1] == s).nonzero().flatten()
        parts = parts.index_copy(0, mine, torch.softmax(x[0][mine], 0))
    return parts


def segment_sum_by_offsets(x, a):
    count = x[1].numel() - 1
    segment = torch.repeat_interleave(torch.arange(count), x[1].diff())
    sums = [x[0][x[1][s]:x[1][s + 1]].sum(0) for s in range(count)]
    return (torch.stack(sums) if sums else x[0][:0]), segment


def group_norm(x, a):
    groups = 1 if x[0].shape[1] == 1 else a.int("groups")
    if x[0].numel() == 0:
        return x[0].clone()
    return F.group_norm(x[0], groups, x[1], x[2], a.real("epsilon"))


def batch_norm(x, a):
    if x[0].numel() == 0:
        return x[0].clone()
    return F.batch_norm(x[0], None, None, x[1], x[2], True, 0, a.real("epsilon"))


def batch_norm_running(x, a):
    channels = x[0].shape[1]
    mean, variance = torch.full((channels,), 0.5).double(), torch.full((channels,), 2.0).double()
    if x[0].numel() > 0:
        F.batch_norm(x[0].detach(), mean, variance, None, None, True, a.real("momentum"))
    return mean, variance


def batch_norm_evaluation(x, a):
    return F.batch_norm(x[0], x[3].detach(), x[4].detach(), x[1], x[2], False, 0, a.real("epsilon"))


def rotary(x, a):
    """Complex numbers: a pair times e^(i angle)."""
    pairs = a.int("pairs")
    frequencies = a.real("base") ** -(torch.arange(pairs).double() / max(pairs, 1))
    angles = x[1].unsqueeze(-1).double() * frequencies
    if angles.dim() == 3:
        angles = angles.reshape(angles.shape[0], *[1] * (x[0].dim() - 3), *angles.shape[1:])
    turned, kept = x[0][..., :2 * pairs], x[0][..., 2 * pairs:]
    halves = a.flag("halves")
    split = turned.unflatten(-1, (2, pairs)).transpose(-1, -2) if halves else turned.unflatten(-1, (pairs, 2))
    product = torch.complex(split[..., 0], split[..., 1]) * torch.polar(torch.ones_like(angles), angles)
    back = torch.stack([product.real, product.imag], -1)
    back = back.transpose(-1, -2) if halves else back
    return torch.cat([back.flatten(-2), kept], -1)


def smoothed_cross_entropy_sum(x, a):
    logits = x[0].reshape(-1, x[0].shape[-1])
    return F.cross_entropy(logits, x[1].reshape(-1), ignore_index=a.int("ignore_index"), reduction="sum",
                           label_smoothing=a.real("smoothing"))


def ctc_loss(x, a):
    if x[1].shape[0] == 0:
        return torch.zeros(0, dtype=torch.float64)
    return F.ctc_loss(torch.log_softmax(x[0], -1), x[1], x[2], x[3], blank=a.int("blank"), reduction="none",
                      zero_infinity=False)


def numbers(x, a, name, absent):
    """Of each spatial dim."""
    return a.ints(name) if name in a else [absent] * (x[0].dim() - 2)


def pad_each(y, before, after):
    """The spatial dims of y; negative numbers cut."""
    return F.pad(y, [n for pair in zip(reversed(before), reversed(after)) for n in pair])


def convolution(x, a):
    before = numbers(x, a, "before", 0)
    padded = pad_each(x[0], before, a.ints("after") if "after" in a else before)
    conv = F.conv1d if x[0].dim() == 3 else F.conv2d
    return conv(padded, x[1], x[2] if len(x) > 2 else None, numbers(x, a, "stride", 1), 0,
                numbers(x, a, "dilation", 1), a.int("groups"))


def transposed_convolution(x, a):
    before = numbers(x, a, "before", 0)
    after = a.ints("after") if "after" in a else before
    conv = F.conv_transpose1d if x[0].dim() == 3 else F.conv_transpose2d
    whole = conv(x[0], x[1], None, numbers(x, a, "stride", 1), 0, 0, a.int("groups"),
                 numbers(x, a, "dilation", 1))
    more = numbers(x, a, "output_padding", 0)
    y = pad_each(whole, [-n for n in before], [m - n for m, n in zip(more, after)])
    return y + x[2].reshape(-1, *[1] * (x[0].dim() - 2)) if len(x) > 2 else y


def max_pool(x, a):
    pool = F.max_pool1d if x[0].dim() == 3 else F.max_pool2d
    return pool(x[0], a.ints("kernel"), a.ints("stride") if "stride" in a else None,
                numbers(x, a, "padding", 0))


def average_pool(x, a):
    pool = F.avg_pool1d if x[0].dim() == 3 else F.avg_pool2d
    return pool(x[0], a.ints("kernel"), a.ints("stride") if "stride" in a else None,
                numbers(x, a, "padding", 0), count_include_pad=a.flag("count_padding"))


def adaptive_average_pool(x, a):
    pool = F.adaptive_avg_pool1d if x[0].dim() == 3 else F.adaptive_avg_pool2d
    return pool(x[0], a.ints("extents"))


def lstm_gates(x, a):
    i, f, g, o = x[0].chunk(4, -1)
    c = torch.sigmoid(f) * x[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_gates(x, a):
    (ar, az, an), (br, bz, bn) = x[0].chunk(3, -1), x[1].chunk(3, -1)
    z = torch.sigmoid(az + bz)
    return (1 - z) * torch.tanh(an + torch.sigmoid(ar + br) * bn) + z * x[2]


def lstm_cell(x, a):
    return torch.lstm_cell(x[0], (x[1], x[2]), *x[3:])


def gru_cell(x, a):
    return torch.gru_cell(*x)


def lstm(x, a):
    state, outputs = (x[1], x[2]), []
    for step in x[0]:
        state = torch.lstm_cell(step, state, *x[3:])
        outputs.append(state[0])
    return torch.stack(outputs) if outputs else torch.zeros(0, *x[1].shape).double(), *state


def gru(x, a):
    state, outputs = x[1], []
    for step in x[0]:
        state = torch.gru_cell(step, state, *x[2:])
        outputs.append(state)
    return torch.stack(outputs) if outputs else torch.zeros(0, *x[1].shape).double(), state


def linear_fused(x, a):
    curve = [lambda z: F.gelu(z, approximate="tanh"), F.gelu, F.relu, F.silu, torch.tanh, torch.sigmoid]
    y = curve[a.int("activation")](F.linear(x[0], x[1], x[2]))
    return y + x[3] if len(x) > 3 else y


def token_loss(logits, labels, a):
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-1,
                           reduction="sum", label_smoothing=a.real("smoothing") if "smoothing" in a else 0)


def linear_cross_entropy_sum(x, a):
    return token_loss(F.linear(x[0], x[1], x[3] if len(x) > 3 else None), x[2], a)


def vocabulary_parallel_cross_entropy(x, a):
    """The whole loss for each part, with the gradient of the part's own logits."""
    parts = x[0].chunk(2, -1) if x[0].shape[-1] % 2 == 0 else [x[0]]
    return [token_loss(torch.cat([p if q is p else q.detach() for q in parts], -1), x[1], a)
            for p in parts]


EXPRESSIONS = {
    **MECHANISMS,
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
    "cast": lambda x, a: x[0].float().double(),
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
    "linear_fused": linear_fused,
    # recurrent cells
    "lstm_gates": lstm_gates,
    "gru_gates": gru_gates,
    "lstm_cell": lstm_cell,
    "gru_cell": gru_cell,
    "lstm": lstm,
    "gru": gru,
    # convolution and pooling
    "convolution": convolution,
    "convolution_in_blocks": convolution,
    "transposed_convolution": transposed_convolution,
    "max_pool": max_pool,
    "average_pool": average_pool,
    "adaptive_average_pool": adaptive_average_pool,
    # look-ups and masks
    "embedding": embedding,
    "embedding_padded": embedding,
    "gather_rows": gather_rows,
    "dropout": dropout,
    # norms and losses
    "layer_norm": layer_norm,
    "layer_norm_fp32_weights": layer_norm,
    "softmax": lambda x, a: torch.softmax(x[0], a.dim),
    "cross_entropy_sum": cross_entropy_sum,
    "rms_norm": rms_norm,
    "rms_norm_fp32_weights": rms_norm,
    "log_softmax": lambda x, a: torch.log_softmax(x[0], a.dim),
    "group_norm": group_norm,
    "batch_norm": batch_norm,
    "batch_norm_in_blocks": batch_norm,
    "batch_norm_running": batch_norm_running,
    "batch_norm_evaluation": batch_norm_evaluation,
    "rotary": rotary,
    # functions of one tensor
    "negate": lambda x, a: -x[0],
    "abs": lambda x, a: x[0].abs(),
    "exp": lambda x, a: x[0].exp(),
    "log": lambda x, a: x[0].log(),
    "sqrt": lambda x, a: x[0].sqrt(),
    "rsqrt": lambda x, a: x[0].rsqrt(),
    "square": lambda x, a: x[0].square(),
    "power": lambda x, a: x[0] ** a.real("exponent"),
    "clamp": lambda x, a: x[0].clamp(a.real("low"), a.real("high")),
    "softplus": lambda x, a: F.softplus(x[0]),
    "leaky_relu": lambda x, a: F.leaky_relu(x[0], a.real("slope")),
    "elu": lambda x, a: F.elu(x[0], a.real("alpha")),
    # F.hardsigmoid's gradient has a sixth in float32, whatever the dtype
    "hard_sigmoid": lambda x, a: (x[0] / 6 + 0.5).clamp(0, 1),
    "hard_swish": lambda x, a: F.hardswish(x[0]),
    "elu_plus_one": lambda x, a: F.elu(x[0]) + 1,
    "quick_gelu": lambda x, a: x[0] * torch.sigmoid(1.702 * x[0]),
    "swiglu": lambda x, a: F.silu(x[0]) * x[1],
    # of two
    "minimum": lambda x, a: torch.minimum(x[0], x[1]),
    "maximum": lambda x, a: torch.maximum(x[0], x[1]),
    "compare": compare,
    "where": lambda x, a: torch.where(x[0] != 0, x[1], x[2]),
    # reductions over several dims, extremes, sums along a dim
    "sum_dims": lambda x, a: x[0].sum(**scalar_dims(x, a)),
    "sum_dims_in_blocks": lambda x, a: x[0].sum(**scalar_dims(x, a)),
    "mean_dims": lambda x, a: x[0].mean(**scalar_dims(x, a)),
    "variance": lambda x, a: torch.var(x[0], correction=a.real("correction"), **scalar_dims(x, a)),
    "max": lambda x, a: tuple(torch.max(x[0], a.dim, a.flag("keep"))),
    "min": lambda x, a: tuple(torch.min(x[0], a.dim, a.flag("keep"))),
    "argmax": lambda x, a: (x[0].argmax(a.dim, a.flag("keep")), x[0].argmin(a.dim, a.flag("keep"))),
    "cumulative_sum": cumulative_sum,
    # movement
    "flip": lambda x, a: x[0].flip(a.dim),
    "roll": lambda x, a: x[0].roll(a.int("shift"), a.dim),
    "stack": lambda x, a: torch.stack(x, a.dim),
    "expand": lambda x, a: x[0].expand(a.ints("shape")),
    "repeat": lambda x, a: torch.cat([x[0]] * a.int("times"), a.dim) if a.int("times")
    else x[0].narrow(a.dim, 0, 0),
    "repeat_interleave": lambda x, a: x[0].repeat_interleave(a.int("times"), a.dim),
    "lower_triangle": lambda x, a: x[0].tril(a.int("diagonal")),
    "upper_triangle": lambda x, a: x[0].triu(a.int("diagonal")),
    # by number, and order
    "gather": lambda x, a: x[0].gather(a.dim, x[1]),
    "scatter_add": lambda x, a: x[0].scatter_add(a.dim, x[1], x[2]),
    "index_select": lambda x, a: x[0].index_select(a.dim, x[1]),
    "index_add": lambda x, a: x[0].index_add(a.dim, x[1], x[2]),
    "one_hot": lambda x, a: F.one_hot(x[0], a.int("classes")),
    "sort": lambda x, a: tuple(torch.sort(x[0], dim=a.dim, descending=a.flag("down"), stable=True)),
    "top_k": lambda x, a: tuple(torch.topk(x[0], a.int("k"), a.dim, a.flag("down"))),
    "argsort_of_ties": lambda x, a: torch.argsort(x[0], dim=a.dim, descending=a.flag("down"), stable=True),
    # segments
    "segment_sum": lambda x, a: segments(x, a, "sum"),
    "segment_mean": lambda x, a: segments(x, a, "mean"),
    "segment_max": segment_max,
    "segment_softmax": segment_softmax,
    "segment_sum_by_offsets": segment_sum_by_offsets,
    # losses
    "squared_error_sum": lambda x, a: F.mse_loss(x[0], x[1], reduction="sum"),
    "absolute_error_sum": lambda x, a: F.l1_loss(x[0], x[1], reduction="sum"),
    "huber_sum": lambda x, a: F.huber_loss(x[0], x[1], reduction="sum", delta=a.real("delta")),
    "bce_sum": lambda x, a: F.binary_cross_entropy_with_logits(x[0], x[1], reduction="sum"),
    "bce_weighted_sum": lambda x, a: F.binary_cross_entropy_with_logits(
        x[0], x[1], reduction="sum", pos_weight=x[2].detach()),
    "kl_divergence_sum": lambda x, a: F.kl_div(x[0], x[1], reduction="sum"),
    "smoothed_cross_entropy_sum": smoothed_cross_entropy_sum,
    "ctc_loss": ctc_loss,
    "linear_cross_entropy_sum": linear_cross_entropy_sum,
    "linear_cross_entropy_biased": linear_cross_entropy_sum,
    "linear_cross_entropy_smoothed": linear_cross_entropy_sum,
    "vocabulary_parallel_cross_entropy": vocabulary_parallel_cross_entropy,
}
