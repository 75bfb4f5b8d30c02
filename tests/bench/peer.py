"""The peers' side of run.sh, in the same manner as weft-bench: peer.py NAME key=value... makes a body,
says "ready", and for each line N on stdin runs it N times and says how many seconds one run took. A
training step also answers "state": the loss of its last run and the bytes that the process has grown."""
import os
import sys
import time
from pathlib import Path

ARGUMENTS = dict(word.split("=", 1) for word in sys.argv[2:])
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = ARGUMENTS.get("threads", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def number(key):
    return int(ARGUMENTS[key])


def use_torch():
    import torch
    torch.set_num_threads(number("threads"))
    torch.set_flush_denormal(True)
    torch.manual_seed(1)
    return torch


def random(torch, *shape, leaf=False):
    return (2 * torch.rand(*shape) - 1).requires_grad_(leaf)


def matmul():
    torch = use_torch()
    a, b = random(torch, number("m"), number("k")), random(torch, number("k"), number("n"))
    return lambda: torch.matmul(a, b)


def product():
    """Of a linear map: x w, dy w^T or x^T dy; with logits, of a table [out, in] instead of w."""
    torch = use_torch()
    dtype = torch.bfloat16 if ARGUMENTS.get("bf16") == "1" else torch.float32
    tokens, inside, outside = number("tokens"), number("in"), number("out")
    x, dy = random(torch, tokens, inside).to(dtype), random(torch, tokens, outside).to(dtype)
    table = ARGUMENTS.get("logits") == "1"
    weight = random(torch, *((outside, inside) if table else (inside, outside))).to(dtype)
    mapped = weight.t() if table else weight
    left, right = (dy, x) if table else (x, dy)
    a, b = {"forward": (x, mapped), "input": (dy, mapped.t()), "weight": (left.t(), right)}[ARGUMENTS["pass"]]
    return lambda: torch.matmul(a, b)


def with_backward(forward, leaves, seed=None):
    def body():
        forward().backward(seed)
        for leaf in leaves:
            leaf.grad = None
    return body


def window_mask(torch, tokens, window):
    """Each query sees itself and the window - 1 keys before it."""
    place = torch.arange(tokens)
    apart = place[:, None] - place[None, :]
    return (apart >= 0) & (apart < window)


def attention():
    """scaled_dot_product_attention; for a window that with a mask, or, forward alone (it has no backward
    pass on the CPU), compiled flex_attention, whichever is faster."""
    torch = use_torch()
    causal, window = ARGUMENTS.get("causal") == "1", number("window")
    forward_only, tokens = ARGUMENTS.get("forward") == "1", number("t")
    dtype = torch.bfloat16 if ARGUMENTS.get("bf16") == "1" else torch.float32

    def drawn(heads, leaf):
        return random(torch, number("b"), heads, tokens, number("d")).to(dtype).requires_grad_(leaf)
    q, k, v = (drawn(number(heads), not forward_only) for heads in ("n", "nk", "nk"))
    seed, grouped = drawn(number("n"), False), number("n") != number("nk")
    run = torch.nn.functional.scaled_dot_product_attention
    mask = window_mask(torch, tokens, window) if window else None

    def forward():
        return run(q, k, v, attn_mask=mask, is_causal=causal and not window, enable_gqa=grouped)
    if not forward_only:
        return with_backward(forward, (q, k, v), seed)
    bodies = [forward]
    if window:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
        blocks = create_block_mask(lambda b, h, i, j: (j <= i) & (i - j < window), None, None, tokens,
                                   tokens, device="cpu")
        compiled = torch.compile(flex_attention)
        bodies.append(lambda: compiled(q, k, v, block_mask=blocks))

    def seconds(body):
        body()
        start = time.perf_counter()
        body()
        return time.perf_counter() - start
    return min(bodies, key=seconds)


def layer_norm():
    torch = use_torch()
    rows, width = number("rows"), number("width")
    x, gamma, beta = (random(torch, *shape, leaf=True) for shape in ((rows, width), (width,), (width,)))
    return with_backward(lambda: torch.nn.functional.layer_norm(x, (width,), gamma, beta),
                         (x, gamma, beta), random(torch, rows, width))


def gelu():
    torch = use_torch()
    shape = number("rows"), number("width")
    x = random(torch, *shape, leaf=True)
    return with_backward(lambda: torch.nn.functional.gelu(x, approximate="tanh"), (x,),
                         random(torch, *shape))


def cross_entropy():
    torch = use_torch()
    rows, vocabulary = number("rows"), number("vocabulary")
    logits = random(torch, rows, vocabulary, leaf=True)
    labels = torch.arange(rows) * 7919 % vocabulary
    return with_backward(lambda: torch.nn.functional.cross_entropy(logits, labels, reduction="sum"),
                         (logits,))


def rotary():
    torch = use_torch()
    tokens, heads = number("rows"), number("width") // 64
    x = random(torch, 1, heads, tokens, 64)
    angles = torch.outer(torch.arange(tokens).float(), 10000.0 ** (-torch.arange(32) / 32)).repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()

    def body():   # as transformers has it
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat((-second, first), -1) * sin
    return body


def memory_op(function):
    def make():
        torch = use_torch()
        torch.set_grad_enabled(False)
        x, y = memory_inputs(torch)
        return lambda: function(torch, torch.nn.functional, x, y)
    return make


def memory_inputs(torch):
    shape = number("rows"), number("width")
    dtype = torch.bfloat16 if ARGUMENTS.get("bf16") == "1" else torch.float32
    return random(torch, *shape).to(dtype), random(torch, *shape).square().to(dtype)


def gradients_of(function):
    """Of x, y and what else requires them, with y as the result's."""
    def make():
        torch = use_torch()
        x, seed = memory_inputs(torch)
        more = [seed.clone().requires_grad_(), *(seed[i].clone().requires_grad_() for i in range(2))]
        x.requires_grad_()
        result = function(torch, torch.nn.functional, x, *more)
        return lambda: torch.autograd.grad(result, (x, *more), seed, retain_graph=True, allow_unused=True)
    return make


copy = memory_op(lambda torch, f, x, y: x.clone())
add = memory_op(lambda torch, f, x, y: x + y)
exp = memory_op(lambda torch, f, x, y: x.exp())
log = memory_op(lambda torch, f, x, y: y.log())
swiglu = memory_op(lambda torch, f, x, y: f.silu(x) * y)
gelu_erf = memory_op(lambda torch, f, x, y: f.gelu(x))
gelu_tanh = memory_op(lambda torch, f, x, y: f.gelu(x, approximate="tanh"))
layer_norm_forward = memory_op(lambda torch, f, x, y: f.layer_norm(x, (x.shape[1],), y[0], y[1], 1e-5))
rms_norm = memory_op(lambda torch, f, x, y: f.rms_norm(x, (x.shape[1],), y[0], 1e-5))
log_softmax = memory_op(lambda torch, f, x, y: x.log_softmax(-1))
softmax = memory_op(lambda torch, f, x, y: x.softmax(-1))
dropout = memory_op(lambda torch, f, x, y: f.dropout(x, 0.1))
back_exp = gradients_of(lambda torch, f, x, *more: x.exp())
back_swiglu = gradients_of(lambda torch, f, x, y, *more: f.silu(x) * y)
back_gelu_erf = gradients_of(lambda torch, f, x, *more: f.gelu(x))
back_gelu_tanh = gradients_of(lambda torch, f, x, *more: f.gelu(x, approximate="tanh"))
back_bias_gelu = gradients_of(lambda torch, f, x, y, b, c: f.gelu(x + b, approximate="tanh"))
back_rms_norm = gradients_of(lambda torch, f, x, y, b, c: f.rms_norm(x, (x.shape[1],), b, 1e-5))
back_layer_norm = gradients_of(lambda torch, f, x, y, b, c: f.layer_norm(x, (x.shape[1],), b, c, 1e-5))
back_softmax = gradients_of(lambda torch, f, x, *more: x.softmax(-1))
back_log_softmax = gradients_of(lambda torch, f, x, *more: x.log_softmax(-1))
tanh = memory_op(lambda torch, f, x, y: x.tanh())
sigmoid = memory_op(lambda torch, f, x, y: x.sigmoid())
softplus = memory_op(lambda torch, f, x, y: f.softplus(x))
square = memory_op(lambda torch, f, x, y: x.square())
scale = memory_op(lambda torch, f, x, y: x * 3)
quick_gelu = memory_op(lambda torch, f, x, y: x * (1.702 * x).sigmoid())
maximum = memory_op(lambda torch, f, x, y: torch.maximum(x, y))
cumulative_sum = memory_op(lambda torch, f, x, y: x.cumsum(1))
cumulative_columns = memory_op(lambda torch, f, x, y: x.cumsum(0))


def images(x):
    return x.view(-1, 64, x.shape[1])


def batch_normed(f, x, b, c):
    return f.batch_norm(images(x), None, None, b[:64], c[:64], training=True)


group_norm = memory_op(lambda torch, f, x, y: f.group_norm(images(x), 32, y[0, :64], y[1, :64]))
batch_norm = memory_op(lambda torch, f, x, y: batch_normed(f, x, y[0], y[1]))
batch_norm_evaluation = memory_op(
    lambda torch, f, x, y: f.batch_norm(images(x), y[2, :64], y[3, :64], y[0, :64], y[1, :64]))
back_tanh = gradients_of(lambda torch, f, x, *more: x.tanh())
back_sigmoid = gradients_of(lambda torch, f, x, *more: x.sigmoid())
back_softplus = gradients_of(lambda torch, f, x, *more: f.softplus(x))
back_square = gradients_of(lambda torch, f, x, *more: x.square())
back_quick_gelu = gradients_of(lambda torch, f, x, *more: x * (1.702 * x).sigmoid())
back_maximum = gradients_of(lambda torch, f, x, y, *more: torch.maximum(x, y))
back_group_norm = gradients_of(
    lambda torch, f, x, y, b, c: f.group_norm(images(x), 32, b[:64], c[:64]).view_as(x))
back_batch_norm = gradients_of(lambda torch, f, x, y, b, c: batch_normed(f, x, b, c).view_as(x))
sum_rows = memory_op(lambda torch, f, x, y: x.sum(1))
sum_columns = memory_op(lambda torch, f, x, y: x.sum(0))
argmax = memory_op(lambda torch, f, x, y: x.argmax(1))


def gpt2_config(transformers, dropout=0.0):
    return transformers.GPT2Config(
        n_layer=number("layers"), n_head=number("heads"), n_embd=number("hidden"),
        n_positions=number("tokens"), vocab_size=number("vocabulary"), resid_pdrop=dropout,
        embd_pdrop=dropout, attn_pdrop=dropout, use_cache=False, bos_token_id=0, eos_token_id=0)


def bert_config(transformers):
    return transformers.BertConfig(
        num_hidden_layers=number("layers"), num_attention_heads=number("heads"),
        hidden_size=number("hidden"), intermediate_size=4 * number("hidden"),
        max_position_embeddings=512, vocab_size=number("vocabulary"), hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0)


def fresh_model(transformers, attention="sdpa"):
    """With random weights. Tasks: gpt2_step is trained on the next token, bert_step on masked tokens."""
    if sys.argv[1] == "gpt2_step":
        return transformers.GPT2LMHeadModel._from_config(
            gpt2_config(transformers, float(ARGUMENTS["dropout"])), attn_implementation=attention)
    return transformers.BertModel._from_config(bert_config(transformers),
                                               attn_implementation=attention, add_pooling_layer=False)


def make_weights():
    """Writes the weights that both sides of a step start from."""
    use_torch()
    import transformers
    fresh_model(transformers).save_pretrained(ARGUMENTS["weights"])


def resident_bytes(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    return 0


class Step:
    """A training step: forward, backward, clipping to norm 1, fused AdamW; with bf16 under autocast."""

    def __init__(self):
        self.torch = torch = use_torch()
        import transformers
        self.bytes_before = resident_bytes("VmRSS")
        model = fresh_model(transformers)
        if "weights" in ARGUMENTS:
            model = type(model).from_pretrained(
                ARGUMENTS["weights"], attn_implementation="sdpa", dtype=torch.float32,
                **({} if sys.argv[1] == "gpt2_step" else {"add_pooling_layer": False}))
        self.model = model.train()
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.01},
                                            {"params": vectors, "weight_decay": 0.0}], lr=1e-4,
                                           fused=True)
        place = torch.arange(number("batch") * number("tokens"))
        self.ids = ((place * 7919 + place * place % 31) % number("vocabulary")).view(number("batch"), -1)
        masked = place * 31 % 20 < 3   # 15%; 103 is [MASK] of bert-base-uncased
        self.labels = self.ids.masked_fill(~masked.view_as(self.ids), -100)
        self.masked_ids = self.ids.masked_fill(masked.view_as(self.ids), 103)
        self.forward = self.loss_of_gpt2 if sys.argv[1] == "gpt2_step" else self.loss_of_bert
        if ARGUMENTS.get("compiled") == "1":
            self.forward = torch.compile(self.forward)
        self.loss = 0.0

    def loss_of_gpt2(self):
        return self.model(input_ids=self.ids, labels=self.ids).loss

    def loss_of_bert(self):
        """As BertForMaskedLM takes it: logits of all positions, of which the labels leave 15%."""
        hidden = self.model(input_ids=self.masked_ids).last_hidden_state
        logits = self.torch.nn.functional.linear(hidden, self.model.embeddings.word_embeddings.weight)
        return self.torch.nn.functional.cross_entropy(logits.float().flatten(0, 1),
                                                          self.labels.flatten())

    def __call__(self):
        self.optimizer.zero_grad(set_to_none=True)
        with self.torch.autocast("cpu", self.torch.bfloat16, enabled=ARGUMENTS.get("bf16") == "1"):
            loss = self.forward()
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.loss = loss.item()

    def state(self):
        return f"{self.loss:.9g} {resident_bytes('VmHWM') - self.bytes_before}"


gpt2_step = bert_step = Step


def tokenizer():
    from tokenizers import Tokenizer
    encoder = Tokenizer.from_file(ARGUMENTS["tokenizer"])
    texts = [path.read_text() for path in Path(ARGUMENTS["texts"]).iterdir()]

    def body():
        for text in texts:
            encoder.encode(text, add_special_tokens=False)
    return body


def some_tensors(torch):
    return {f"tensor.{i}": torch.zeros(number("rows"), 1024) for i in range(number("tensors"))}


def synced(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def safetensors_write():
    torch = use_torch()
    from safetensors.torch import save_file
    tensors, path = some_tensors(torch), ARGUMENTS["folder"] + "/peer.safetensors"

    def body():
        save_file(tensors, path)
        synced(path)
    return body


def safetensors_load():
    torch = use_torch()
    from safetensors.torch import load_file, save_file
    path = ARGUMENTS["folder"] + "/peer.safetensors"
    save_file(some_tensors(torch), path)
    return lambda: [tensor.clone() for tensor in load_file(path).values()]  # out of the mapping


def checkpoint():
    torch = use_torch()
    tensors, path = some_tensors(torch), ARGUMENTS["folder"] + "/peer.pt"

    def body():
        for tensor in tensors.values():
            tensor[:, 0] += 1
        torch.save(tensors, path)
        synced(path)
    return body


def checkpoint_load():
    checkpoint()()
    torch = use_torch()
    return lambda: torch.load(ARGUMENTS["folder"] + "/peer.pt", weights_only=True)


def main():
    if "make_weights" in ARGUMENTS:
        return make_weights()
    body = globals()[sys.argv[1]]()
    clock = time.process_time if ARGUMENTS.get("cpu_time") == "1" else time.perf_counter
    body()
    Path("/proc/self/clear_refs").write_text("5")   # the peak is that of the steady state
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "state":
            print(body.state(), flush=True)
            continue
        count = int(line)
        start = clock()
        for _ in range(count):
            body()
        print(f"{(clock() - start) / count:.9g}", flush=True)


main()
