"""The attention mechanisms of the ops' case table in torch, with all scores in memory and each formula as its
paper has it (kernels/attention names them)."""
import numpy as np
import torch
import torch.nn.functional as F

from philox import philox_uniform


def softmax_where(scores, visible):
    """Zeros where nothing is visible."""
    weights = torch.softmax(scores.masked_fill(~visible, -1e300), -1)
    return weights * visible


def attend(scores, values, mask):
    weights = softmax_where(scores, (mask != 0).expand_as(scores))
    return weights @ values, weights


def pairs(q, k):
    """[q_i; k_j] for every i and j."""
    shape = q.shape[0], q.shape[1], k.shape[1]
    return torch.cat([q.unsqueeze(2).expand(*shape, -1), k.unsqueeze(1).expand(*shape, -1)], -1)


def additive_attention(x, a):
    values, mask, q, k, w, u, v, b = x[:8]
    if len(x) > 8:
        v = x[8] * v / v.norm()
    hidden = torch.tanh((q @ w.t()).unsqueeze(2) + (k @ u.t()).unsqueeze(1) + b)
    return attend(hidden @ v, values, mask)


def compared(x, a):
    return torch.tanh(x[0].unsqueeze(2) + x[1].unsqueeze(1)) @ x[2]


def luong_dot(x, a):
    values, mask, q, k = x
    return attend(torch.einsum("bid,bjd->bij", q, k[..., 1:]), values, mask)


def luong_general(x, a):
    values, mask, q, k, w = x
    return attend(torch.einsum("bid,de,bje->bij", q, w, k), values, mask)


def luong_concat(x, a):
    values, mask, q, k, w, v, out = x
    context, _ = attend(torch.tanh(pairs(q, k) @ w.t()) @ v, values, mask)
    return context, torch.tanh(torch.cat([context, q], -1) @ out.t())


def luong_location(x, a):
    values, mask, q, w = x
    return attend(F.linear(q, w)[..., :values.shape[1]], values, mask)


def local(scores, values, mask, position, half_width):
    """The weights within [p - D, p + D], and s - p."""
    apart = torch.arange(scores.shape[-1]).double() - position.unsqueeze(-1)
    inside = (apart.detach().abs() <= half_width) & (mask != 0)
    return softmax_where(scores, inside.expand_as(scores)), apart


def local_monotonic(x, a):
    scores, values, mask = x
    position = torch.arange(scores.shape[1]).double() + a.int("first_query")
    weights, _ = local(scores, values, mask, position, a.real("half_width"))
    return weights @ values, weights


def local_predictive(x, a):
    scores, values, mask, position = x
    weights, apart = local(scores, values, mask, position, a.real("half_width"))
    sigma = a.real("half_width") / 2
    weights = weights * torch.exp(-apart ** 2 / (2 * sigma ** 2))
    return weights @ values, weights


def predicted_position(x, a):
    q, w, v, lengths = x
    return lengths.double().unsqueeze(1) * torch.sigmoid(torch.tanh(q @ w.t()) @ v)


def scaled(x, a, visible):
    q, k, v = x
    if a.flag("causal"):
        visible = visible & torch.ones_like(visible).tril()
    return softmax_where(a.real("scale") * q @ k.transpose(-1, -2), visible) @ v


def window_attention(x, a):
    at = torch.arange(x[0].shape[2])
    return scaled(x, a, (at[:, None] - at[None]).abs() <= a.int("width"))


def block_attention(x, a):
    at = torch.arange(x[0].shape[2]) // a.int("width")
    return scaled(x, a, at[:, None] == at[None])


def structured_self_attention(x, a):
    h, w1, w2, valid = x
    scores = w2 @ torch.tanh(w1 @ h.transpose(1, 2))
    return attend(scores, h, valid.unsqueeze(1))


def structured_penalty(x, a):
    overlap = x[0] @ x[0].transpose(1, 2)
    return ((overlap - torch.eye(x[0].shape[1]).double()) ** 2).sum()


def choice(x, a):
    """Drawn keys and the weights that they were drawn from; -1 where nothing is visible."""
    scores, values, mask = x
    weights = softmax_where(scores, mask != 0)
    (first, left), columns = a.ints("offset"), a.ints("global")[1]
    rows = np.arange(scores.shape[0], dtype=np.uint64)[:, None] + np.uint64(first)
    index = rows * np.uint64(columns) + np.arange(scores.shape[1], dtype=np.uint64) + np.uint64(left)
    uniform = torch.from_numpy(philox_uniform(a.int("seed"), a.int("stream"), index)).unsqueeze(-1)
    key = (weights.detach().cumsum(-1) <= uniform).sum(-1)
    return torch.where((mask != 0).any(-1), key, -1), weights


def hard_attention(x, a):
    key, weights = choice(x, a)
    drawn = key.clamp(min=0)
    seen = key >= 0
    context = x[1][torch.arange(x[1].shape[0]).unsqueeze(1), drawn] * seen.unsqueeze(-1)
    probability = weights.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
    log_probability = torch.where(seen, probability, 1).log()
    entropy = -(weights * torch.where(weights > 0, weights, 1).log()).sum(-1)
    return context, log_probability, entropy, weights, key


def straight_through(x, a):
    key, weights = choice(x, a)
    drawn = F.one_hot(key.clamp(min=0), x[0].shape[-1]) * (key >= 0).unsqueeze(-1)
    return (drawn + weights - weights.detach()) @ x[1]


def linear_attention(x, a):
    q, k, v = x[:3]
    scores = (F.elu(q) + 1) @ (F.elu(k) + 1).transpose(-1, -2)
    if len(x) > 3:
        scores = scores * (x[3] != 0)[:, None, None, :]
    if a.flag("causal"):
        scores = scores.tril()
    total = scores.sum(-1, keepdim=True)
    return scores @ v / torch.where(total == 0, 1, total)


def prefix_product(x, a):
    scores = x[0] @ x[1].transpose(-1, -2)
    return (scores.triu() if a.flag("reversed") else scores.tril()) @ x[2]


def relative_attention(x, a):
    q, k, v, r, content, position, mask = x[:7]
    if 1 < len(r) < len(q):
        r = r.repeat_interleave(len(q) // len(r), dim=0)
    queries, keys = q.shape[2], k.shape[2]
    scores = (q + content[:, None]) @ k.transpose(-1, -2)
    by_distance = (q + position[:, None]) @ r.transpose(-1, -2)
    at = queries - 1 - torch.arange(queries)[:, None] + torch.arange(keys)
    if a.flag("placed"):
        at = keys - 1 - x[-1][:, None, :, None] + torch.arange(keys)
    scores = scores + by_distance.gather(-1, at.expand(scores.shape))
    if len(x) > 8:
        segment, segments, own, others = x[7:11]
        terms = torch.einsum("bnid,snd->bnis", q + segment[:, None], segments)
        alike = own[:, None, :, None] == others[:, None, None, :]
        scores = scores + torch.where(alike, terms[..., :1], terms[..., 1:])
    return softmax_where(scores * a.real("scale"), mask != 0) @ v


MECHANISMS = {
    "additive_attention": additive_attention,
    "additive_attention_normalized": additive_attention,
    "compared": compared,
    "luong_dot": luong_dot,
    "luong_general": luong_general,
    "luong_concat": luong_concat,
    "luong_location": luong_location,
    "local_monotonic": local_monotonic,
    "local_predictive": local_predictive,
    "predicted_position": predicted_position,
    "window_attention": window_attention,
    "block_attention": block_attention,
    "structured_self_attention": structured_self_attention,
    "structured_penalty": structured_penalty,
    "hard_attention": hard_attention,
    "straight_through": straight_through,
    "reinforce": lambda x, a: ((x[1].detach() - 0.75) * x[0]).sum(),
    "linear_attention": linear_attention,
    "prefix_product": prefix_product,
    "relative_attention": relative_attention,
}
