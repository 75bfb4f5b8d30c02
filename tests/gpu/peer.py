"""PyTorch's side of bench.py. A line on stdin, {"row": NAME, "variant": WORDS, "seconds": that a
sample lasts}, asks for one row of weft-gpu bench; the answer is a line {"samples": seconds of one run, "losses": a step's first ones,
"peak_bytes": a step's, "seconds": what the measurement took} or {"error": why}.

Variants: of attention "flash" and "cudnn"; of what moves bytes "eager" and "compiled"; of a step "blocks"
(each block is compiled, once for all) or "full" (the whole pass is), "flash" or "cudnn" for its attention,
and "tuned" (max-autotune-no-cudagraphs) or "graphs" (reduce-overhead)."""
import argparse
import gc
import json
import math
import os
import re
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--device", default="cuda")
parser.add_argument("--small", action="store_true")
parser.add_argument("--runs", type=int, default=7)
parser.add_argument("--cache", help="folder that what was compiled is kept in")
OPTIONS = parser.parse_args()
if OPTIONS.cache:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(OPTIONS.cache, "inductor")
    os.environ["TRITON_CACHE_DIR"] = os.path.join(OPTIONS.cache, "triton")

import torch
import torch.nn.functional as F

DEVICE = torch.device(OPTIONS.device)
DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32}
WARM_UPS, RUNS_MAX = 5, 1000
BLOCK = 1_000_003
ASKED = {}   # what is being answered


def synchronize():
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def compiled(function, **settings):
    backend = "inductor" if DEVICE.type == "cuda" else "aot_eager"
    return torch.compile(function, dynamic=False, backend=backend, **settings)


def samples_of(body, warm=[]):
    """As weft-gpu bench takes them, each of at least ASKED["seconds"]."""
    def seconds(runs):
        synchronize()
        start = time.perf_counter()
        for _ in range(runs):
            body()
        synchronize()
        return (time.perf_counter() - start) / runs
    least, took = (1 if warm else 10) * ASKED["seconds"], 0
    warm.append(True)
    while took < least:
        took += WARM_UPS * seconds(WARM_UPS)
    runs = int(min(max(ASKED["seconds"] / max(1e-9, seconds(2)), 1), RUNS_MAX))
    return [seconds(runs) for _ in range(OPTIONS.runs)]


def use_attention(variant):
    """Only the kernels of this kind."""
    if "cudnn" in variant and DEVICE.type != "cuda":
        raise RuntimeError("cuDNN's attention is a GPU's")
    torch.backends.cuda.enable_flash_sdp("flash" in variant)
    torch.backends.cuda.enable_cudnn_sdp("cudnn" in variant)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_math_sdp(False)


def random(*shape, dtype, leaf=False):
    return torch.randn(*shape, device=DEVICE).to(dtype).requires_grad_(leaf)


def measured(function, leaves, backward):
    """Samples of y = function(*leaves), or of y and the gradients of a random cotangent."""
    if not backward:
        with torch.no_grad():
            return {"samples": samples_of(lambda: function(*leaves))}
    cotangent = torch.randn_like(function(*leaves))
    return {"samples": samples_of(lambda: torch.autograd.grad(function(*leaves), leaves, cotangent))}


def product(variant, dtype, rows, inner, columns):
    x, weight = random(rows, inner, dtype=dtype), random(inner, columns, dtype=dtype)
    return measured(torch.matmul, (x, weight), False)


def attention(variant, dtype, heads, features, tokens, causal, backward):
    use_attention(variant)
    rows = 1 if OPTIONS.small else 16384 // tokens
    leaves = [random(rows, heads, tokens, features, dtype=dtype, leaf=True) for _ in range(3)]

    def run(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    # Forwards alone, too, as ours does: with the sums that a backward pass needs.
    return measured(run, leaves, True) if backward else {"samples": samples_of(lambda: run(*leaves))}


def copy(variant, dtype, rows, width):
    x = random(rows, width, dtype=dtype)
    return measured(torch.empty_like(x).copy_, (x,), False)


def by_row(function, vectors=0):
    def row(variant, dtype, rows, width, backward):
        torch._dynamo.reset()
        leaves = [random(rows, width, dtype=dtype, leaf=backward)]
        leaves += [random(width, dtype=dtype, leaf=backward) for _ in range(vectors)]
        return measured(compiled(function) if variant == "compiled" else function, leaves, backward)
    return row


gelu = by_row(lambda x: F.gelu(x, approximate="tanh"))
layer_norm = by_row(lambda x, gamma: F.layer_norm(x, x.shape[-1:], gamma, gamma, 1e-5), 1)
softmax = by_row(lambda x: F.softmax(x, -1))

# ---- steps of GPT-2: fp32 weights, gradients and moments; what is computed, the residual stream included,
# is rounded to the row's dtype; norms, softmax and the loss are taken in fp32.
MODELS = {"124M": (12, 12, 768, 50257), "1.5B": (48, 25, 1600, 50257)}   # layers, heads, hidden, vocabulary


def shapes_of(layers, hidden, vocabulary, tokens):
    """Names and shapes as Hugging Face's, whose matrices are [in, out]."""
    yield "transformer.wte.weight", (vocabulary, hidden)
    yield "transformer.wpe.weight", (tokens, hidden)
    for layer in range(layers):
        for name, (rows, columns) in (("ln_1", (1, 1)), ("attn.c_attn", (1, 3)), ("attn.c_proj", (1, 1)),
                                      ("ln_2", (1, 1)), ("mlp.c_fc", (1, 4)), ("mlp.c_proj", (4, 1))):
            matrix = (rows * hidden, columns * hidden)
            yield f"transformer.h.{layer}.{name}.weight", (hidden,) if name.startswith("ln") else matrix
            yield f"transformer.h.{layer}.{name}.bias", (columns * hidden,)
    yield "transformer.ln_f.weight", (hidden,)
    yield "transformer.ln_f.bias", (hidden,)


def units():
    """The block of tests/gpu/repeated.h."""
    import numpy
    x = numpy.arange(BLOCK, dtype=numpy.uint32)
    x = (x ^ (x >> 16)) * numpy.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * numpy.uint32(0xC2B2AE35)
    return ((x ^ (x >> 16)) >> 8).astype(numpy.float64) * 2.0 ** -23 - 1


def first_values(layers, shapes):
    """What tests/gpu/repeated.cc makes of the plan of GPT-2."""
    base = units() * math.sqrt(3)
    blocks = {deviation: torch.from_numpy((deviation * base).astype("float32")).to(DEVICE)
              for deviation in (0.02, 0.02 / math.sqrt(2 * layers))}
    parameters = {}
    for name, shape in shapes:
        if len(shape) == 2:
            block = blocks[0.02 / math.sqrt(2 * layers) if name.endswith("c_proj.weight") else 0.02]
            count, start = math.prod(shape), 7919 * sum(name.encode()) % BLOCK
            value = block.roll(-start).repeat(-(-count // BLOCK))[:count].view(shape)
            if ".h." in name:   # as torch's Linear has it
                value = value.t().contiguous()
        else:
            value = torch.full(shape, float(".ln_" in name and name.endswith("weight")), device=DEVICE)
        parameters[name] = torch.nn.Parameter(value.clone())
    return parameters


def norm(x, weight, bias):
    return F.layer_norm(x, x.shape[-1:], weight.to(x.dtype), bias.to(x.dtype), 1e-5)


def linear(x, weight, bias):
    return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))


def block(x, heads, p):
    rows, tokens, hidden = x.shape
    q, k, v = (each.view(rows, tokens, heads, -1).transpose(1, 2)
               for each in linear(norm(x, p[0], p[1]), p[2], p[3]).split(hidden, 2))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(rows, tokens, hidden)
    x = x + linear(y, p[4], p[5])
    return x + linear(F.gelu(linear(norm(x, p[6], p[7]), p[8], p[9]), approximate="tanh"), p[10], p[11])


def embedded(ids, tokens, positions, dtype):
    return (F.embedding(ids, tokens) + positions).to(dtype)


def loss_of(x, weight, bias, table, targets):
    logits = F.linear(norm(x, weight, bias), table.to(x.dtype))
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100)


def whole(ids, targets, heads, dtype, p, pieces):
    """The loss; p: parameters in their order."""
    first, one, last = pieces
    x = first(ids, p[0], p[1], dtype)
    for at in range(2, len(p) - 2, 12):
        x = one(x, heads, p[at:at + 12])
    return last(x, p[-2], p[-1], p[0], targets)


class Step:
    """Forward, backward, clipping to norm 1, fused AdamW; the loss is read."""

    def __init__(self, variant, dtype, model, batch, tokens):
        layers, heads, hidden, vocabulary = (2, 2, 32, 64) if OPTIONS.small else MODELS[model]
        parameters = first_values(layers, shapes_of(layers, hidden, vocabulary, tokens))
        self.all = list(parameters.values())
        matrices, vectors = ([p for p in self.all if (p.ndim == 2) == wide] for wide in (True, False))
        self.optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.01},
                                            {"params": vectors, "weight_decay": 0.0}], lr=1e-4, fused=True)
        place = torch.arange(batch * tokens, device=DEVICE)
        ids = ((place * 7919 + place * place % 31) % vocabulary).view(batch, tokens)
        targets = torch.cat((ids[:, 1:], torch.full_like(ids[:, :1], -100)), 1)
        pieces, run = (embedded, block, loss_of), whole
        mode = "max-autotune-no-cudagraphs" if "tuned" in variant else \
            "reduce-overhead" if "graphs" in variant else None
        settings = {"mode": mode} if mode else {}
        if "full" in variant:
            run = compiled(whole, **settings)
        else:
            pieces = tuple(compiled(piece, **settings) for piece in pieces)
        self.forward = lambda: run(ids, targets, heads, dtype, self.all, pieces)
        self.losses = []

    def __call__(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.all, 1.0)
        self.optimizer.step()
        loss = loss.item()
        if len(self.losses) < WARM_UPS:
            self.losses.append(loss)


def gpt2(variant, dtype, model, batch, tokens):
    torch._dynamo.reset()
    use_attention(variant)
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step = Step(variant, dtype, model, batch, tokens)
    samples = samples_of(step)
    peak = torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else 0
    return {"samples": samples, "losses": step.losses, "peak_bytes": peak}


SIZE = r"(?P<dtype>\w+) (?P<rows>\d+)x(?P<width>\d+)"
WAY = r"(?P<backward> both ways| forward)"
ROWS = [(re.compile(pattern + "$"), function) for pattern, function in (
    (r"product (?P<dtype>\w+) (?P<rows>\d+)x(?P<inner>\d+)x(?P<columns>\d+)", product),
    (rf"attention (?P<dtype>\w+) (?P<heads>\d+)x(?P<features>\d+) T=(?P<tokens>\d+)(?P<causal> causal)?{WAY}",
     attention),
    (rf"copy {SIZE}", copy), (rf"gelu {SIZE}{WAY}", gelu), (rf"layer_norm {SIZE}{WAY}", layer_norm),
    (rf"softmax {SIZE}{WAY}", softmax),
    (r"gpt2 (?P<model>\S+) (?P<dtype>\w+) B=(?P<batch>\d+) T=(?P<tokens>\d+)", gpt2))]


def value_of(key, text):
    if key == "dtype":
        return DTYPES[text]
    if key == "causal":
        return text is not None
    if key == "backward":
        return text == " both ways"
    return int(text) if text.isdigit() else text


def answer(row, variant):
    for pattern, function in ROWS:
        if found := pattern.match(row):
            return function(variant, **{key: value_of(key, text) for key, text in found.groupdict().items()})
    raise ValueError(f"no such row: {row}")


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)   # what libraries print is no answer
    for line in sys.stdin:
        ASKED.update(json.loads(line))
        start = time.perf_counter()
        try:
            result = answer(ASKED["row"], ASKED["variant"])
        except Exception as error:   # of one row: the others go on
            result = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}
        gc.collect()
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()
        print(json.dumps(result | {"seconds": time.perf_counter() - start}), file=answers, flush=True)


main()
