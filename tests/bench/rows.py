"""The rows of run.sh: what is measured, at which shapes, and how much work it is."""
from dataclasses import dataclass, field


@dataclass
class Row:
    name: str
    what: str                     # of weft-bench and peer.py
    arguments: dict
    bar: float | None             # the ratio of the times is to be at most this; None: it is only told
    peer: str
    work: float = 0               # operations or bytes of one run; 0: none told
    rate: str = ""                # the unit of work a second: GFLOP/s, GB/s, MB/s
    needs: list = field(default_factory=list)   # "texts", "folder", "weights"
    variants: tuple = ({},)       # further arguments of each peer; the best one counts
    state_bytes: float = 0        # a step's weights, gradients and moments: its memory and loss are told
    against: str = ""             # of a mesh: "one rank" with as many threads, "gloo", or "itself": its step
                                  # without communication or its communication alone, what takes longer
    megabits: int = 0             # a second of each rank's link; 0: ranks share memory
    spare: bool = False           # half of the cores are communication's


def step(name, threads, layers, heads, hidden, tokens, batch, vocabulary, dropout=0.0):
    """Products: 6 operations a weight and token; scores and values: 3 passes of 4 T H operations a
    token and layer, of which causality leaves half."""
    weights = layers * 12 * hidden * hidden + vocabulary * hidden
    work = batch * tokens * (6 * weights + layers * 6 * tokens * hidden)
    return Row(f"gpt2_step_{name}_threads{threads}", "gpt2_step",
               dict(threads=threads, layers=layers, heads=heads, hidden=hidden, tokens=tokens,
                    batch=batch, vocabulary=vocabulary, dropout=dropout),
               1.3, "torch, transformers GPT2LMHeadModel (sdpa, fused AdamW)", work, "GFLOP/s")


BASE = dict(layers=12, heads=12, hidden=768)


def base_step(what, threads, bf16, batch, tokens):
    """A step of GPT-2 124M, or of BERT-base's shape, in tokens a second. The peer is the better of
    eager and compiled PyTorch. Bars: as fast in fp32 (1.05 times at 1024 tokens), 1.5 times in bf16."""
    gpt2 = what == "gpt2"
    vocabulary, positions = (50257, tokens) if gpt2 else (30522, 512)
    parameters = 12 * (12 * 768 * 768 + 13 * 768) + (vocabulary + positions) * 768 + (2 if gpt2 else 4) * 768
    name = f"{'gpt2_124m' if gpt2 else 'bert_base'}_{'bf16' if bf16 else 'fp32'}_b{batch}t{tokens}"
    return Row(f"{name}_threads{threads}", f"{what}_step",
               dict(threads=threads, **BASE, tokens=tokens, batch=batch, vocabulary=vocabulary, dropout=0.0,
                    bf16=int(bf16)),
               0.67 if bf16 else 0.95 if tokens == 1024 else 1.0,
               f"torch, transformers {'GPT2LMHeadModel' if gpt2 else 'BertModel'}"
               f" (sdpa, fused AdamW{', bf16 autocast' if bf16 else ''}), eager or compiled",
               batch * tokens, "tokens/s", ["weights"], ({"compiled": 0}, {"compiled": 1}), 16 * parameters)


def base_steps():
    for threads in (2, 1):
        for bf16 in (False, True):
            for batch, tokens in ((4, 64), (4, 256), (1, 1024)):
                yield base_step("gpt2", threads, bf16, batch, tokens)
            yield base_step("bert", threads, bf16, 8, 128)


def matmul(threads, m, k, n):
    return Row(f"matmul_{m}x{k}x{n}_threads{threads}", "matmul",
               dict(threads=threads, m=m, k=k, n=n), 1.3, "torch.matmul", 2 * m * k * n, "GFLOP/s")


# in, out of GPT-2 124M's linear maps
GPT2_MAPS = dict(qkv=(768, 2304), attention_out=(768, 768), mlp_up=(768, 3072), mlp_down=(3072, 768),
                 logits=(768, 50257))


def product(threads, name, which, bf16, tokens):
    """A product as the trainer calls it beside the best library's one call. Bar: within 10%."""
    inside, outside = GPT2_MAPS[name]
    libraries = ("onednn",) if bf16 else ("onednn", "sgemm", "openblas")
    return Row(f"product_{name}_{which}_{'bf16' if bf16 else 'fp32'}_{tokens}tokens_threads{threads}", "product",
               {"threads": threads, "tokens": tokens, "in": inside, "out": outside, "pass": which,
                "logits": int(name == "logits"), "bf16": int(bf16)},
               1.1, "the best of torch.matmul, oneDNN (primitive, sgemm) and OpenBLAS",
               2 * tokens * inside * outside, "GFLOP/s",
               variants=({}, *({"library": library} for library in libraries)))


def product_rows():
    """1024 tokens: B4 T256 and B1 T1024 alike; 256: B4 T64."""
    for threads in (1, 2):
        for bf16 in (False, True):
            for tokens in (256, 1024):
                for name in GPT2_MAPS:
                    for which in ("forward", "input", "weight"):
                        yield product(threads, name, which, bf16, tokens)


def attention(threads, b, n, t, d, causal, bar, bf16=False, window=0, nk=0, forward=False):
    """Two products forward, five backward (the scores are taken anew), of what is visible."""
    visible = window * t - window * (window - 1) / 2 if window else t * t * (0.5 if causal else 1)
    heads = f"n{n}k{nk}" if nk else f"n{n}"
    kind = f"window{window}" if window else "causal" if causal else "full"
    name = f"attention{'_forward' if forward else ''}_{'bf16' if bf16 else 'fp32'}_b{b}{heads}t{t}d{d}_{kind}"
    return Row(f"{name}_threads{threads}", "attention",
               dict(threads=threads, b=b, n=n, nk=nk or n, t=t, d=d, causal=int(causal), window=window,
                    bf16=int(bf16), forward=int(forward)), bar,
               "torch scaled_dot_product_attention" + (" with a mask" if window else ""),
               (4 if forward else 14) * b * n * d * visible, "GFLOP/s")


def attention_rows():
    """Bars: fp32 1.2 times as fast as the peer to 2048 tokens and 1.05 beyond, bf16 1.5 times, windows
    1.2 times."""
    for bf16 in (False, True):
        for threads in (1, 2):
            for t in (512, 1024, 2048, 4096, 8192):
                bar = 0.67 if bf16 else 0.83 if t <= 2048 else 0.95
                for causal in (True, False):
                    yield attention(threads, 1, 12, t, 64, causal, bar, bf16)
            for t in (2048, 8192):
                yield attention(threads, 1, 12, t, 64, True, 0.83, bf16, window=256)
        for n, d in ((24, 32), (10, 80), (6, 128)):
            yield attention(1, 1, n, 1024, d, True, 0.67 if bf16 else 0.83, bf16)
        yield attention(1, 1, 12, 2048, 64, True, 0.83, bf16, window=256, forward=True)
        yield attention(1, 1, 32, 1024, 64, True, 0.67 if bf16 else 0.83, bf16, nk=8)
    yield attention(1, 8, 4, 128, 32, True, 0.83)
    yield attention(1, 4, 6, 256, 64, True, 0.83)
    yield attention(2, 4, 6, 256, 64, True, 0.83)
    yield attention(2, 1, 2, 2048, 64, True, 0.83)


def rows_of(what, threads, rows, width, peer, passes):
    key = "vocabulary" if what == "cross_entropy" else "width"
    return Row(f"{what}_{rows}x{width}_threads{threads}", what,
               {"threads": threads, "rows": rows, key: width}, 1.3, peer,
               passes * 4 * rows * width, "GB/s")


# How often the bytes of one [rows, width] are read or written; back_: the gradients alone.
MEMORY_PASSES = dict(copy=2, add=3, exp=2, log=2, swiglu=3, gelu_erf=2, gelu_tanh=2, rms_norm=2, layer_norm_forward=2,
                     softmax=2, log_softmax=2, dropout=2, sum_rows=1, sum_columns=1, argmax=1, rotary=2,
                     back_exp=3, back_swiglu=5, back_gelu_erf=3, back_gelu_tanh=3, back_bias_gelu=3,
                     back_rms_norm=3, back_layer_norm=3, back_softmax=3, back_log_softmax=3,
                     tanh=2, sigmoid=2, softplus=2, square=2, scale=2, quick_gelu=2, maximum=3,
                     cumulative_sum=2, cumulative_columns=2,
                     group_norm=2, batch_norm=3, batch_norm_evaluation=2,
                     back_tanh=3, back_sigmoid=3, back_softplus=3, back_square=3, back_quick_gelu=3,
                     back_maximum=5, back_group_norm=3, back_batch_norm=5)
BF16_MEMORY = ("copy", "add", "swiglu", "gelu_erf", "gelu_tanh", "rms_norm", "layer_norm_forward", "softmax",
               "log_softmax", "dropout", "back_swiglu", "back_gelu_erf", "back_gelu_tanh", "back_bias_gelu",
               "back_rms_norm", "back_layer_norm", "back_softmax", "back_log_softmax",
               "tanh", "sigmoid", "softplus", "square", "scale", "quick_gelu", "maximum",
               "cumulative_sum", "cumulative_columns", "group_norm", "batch_norm", "batch_norm_evaluation",
               "back_tanh", "back_sigmoid", "back_softplus", "back_square", "back_quick_gelu", "back_maximum",
               "back_group_norm", "back_batch_norm")
ROWWISE = ("copy", "rms_norm", "layer_norm_forward", "softmax", "log_softmax", "back_rms_norm", "back_layer_norm",
           "back_softmax", "back_log_softmax")


def memory(what, threads, rows, width, bf16=False):
    return Row(f"memory_{what}_{'bf16_' if bf16 else ''}{rows}x{width}_threads{threads}", what,
               dict(threads=threads, rows=rows, width=width, bf16=int(bf16)), 1.0, f"torch, {what}",
               MEMORY_PASSES[what] * (2 if bf16 else 4) * rows * width, "GB/s")


def all_reduce(size):
    return Row(f"all_reduce_{size >> 10}KiB_ranks2", "all_reduce", dict(bytes=size), 1.1,
               "MPI_Allreduce", size, "GB/s")


DEGREES = ("data", "sequence", "tensor")


def mesh(name, bar, against, tokens=1024, batch=1, megabits=0, spare=False, model=None, **degrees):
    """A step of GPT-2 (124M unless told otherwise), one thread a rank. Bars: 0.9 times one rank with two
    threads; 1.2 times gloo's tensor parallelism, 1.05 times its data parallelism; 1.15 times what takes
    longer alone."""
    ranks = 1
    for axis in DEGREES:
        ranks *= degrees.get(axis, 1)
    peer = {"one rank": f"one rank of {ranks} threads", "gloo": "torch over gloo, a process and thread a rank",
            "itself": "the longer of its step without communication and its communication alone"}[against]
    model = model or dict(**BASE, vocabulary=50257)
    return Row(f"mesh_{name}", "mesh", dict(threads=1, **model, tokens=tokens, batch=batch, dropout=0.0,
                                            **degrees),
               bar, peer, batch * tokens, "tokens/s", ["weights"] if against == "gloo" else [],
               against=against, megabits=megabits, spare=spare)


def mesh_rows():
    # zero: ranks that share a row need not both update all weights, and `parallel: auto` does not let them.
    axes = dict(tensor2=dict(tensor=2), ring2=dict(sequence=2, zero=1),
                ulysses2=dict(sequence=2, ulysses=2, zero=1), data2=dict(data=2, batch=2))

    long = dict(tokens=8192, model=dict(layers=2, heads=12, hidden=768, vocabulary=4096))
    for name, degrees in axes.items():
        yield mesh(f"{name}_one_rank", 1.11, "one rank", **degrees)
    yield mesh("tensor2_gloo", 0.83, "gloo", **axes["tensor2"])
    yield mesh("data2_gloo", 0.95, "gloo", **axes["data2"])
    # Of ranks that compute on all cores, communication's processor time cannot be hidden: rows with spare ones too.
    # A step computes two to five times as long as it communicates (where cores are faster it has more work, see
    # bench.py): as long as something can hide all of that, and few percent of a step, by which steps differ, are not
    # much of it. On two cores four ranks take turns: a step without communication is twice what a rank computes.
    for spare, suffix in ((False, ""), (True, "_spare")):
        own = dict(megabits=1000, spare=spare)
        # No bar: what these axes send is needed at once, so that nothing of the step can hide most of it.
        yield mesh(f"tensor2_1gbit{suffix}", None, "itself", **own, **axes["tensor2"])
        yield mesh(f"ulysses2_1gbit{suffix}", None, "itself", **own, sequence=2, ulysses=2, **long)
        yield mesh(f"data2_zero1_1gbit{suffix}", 1.15, "itself", **own, data=2, batch=2, tokens=512, zero=1)
        for ranks, data_tokens, ring_tokens in ((2, 512, 8192), (4, 256, 4096)):
            yield mesh(f"data{ranks}_1gbit{suffix}", 1.15, "itself", **own, data=ranks, batch=ranks,
                       tokens=data_tokens)
            yield mesh(f"ring{ranks}_1gbit{suffix}", 1.15, "itself", **own, sequence=ranks,
                       **long | dict(tokens=ring_tokens))


def files(name, bar, peer, tensors=16, rows=1024):
    return Row(name, name, dict(threads=1, tensors=tensors, rows=rows), bar, peer,
               tensors * rows * 1024 * 4, "GB/s", ["folder"])


SMALL = dict(layers=4, heads=4, hidden=128, tokens=128, batch=8, vocabulary=257)
MEDIUM = dict(layers=6, heads=6, hidden=384, tokens=256, batch=4, vocabulary=8192)

ROWS = [
    *(step(name, threads, **sizes) for name, sizes in (("small", SMALL), ("medium", MEDIUM))
      for threads in (1, 2)),
    step("medium_dropout", 1, **MEDIUM, dropout=0.1),
    *base_steps(),
    *(matmul(threads, *sizes) for sizes in ((1024, 384, 1536), (1024, 1024, 1024))
      for threads in (1, 2)),
    *product_rows(),
    *attention_rows(),
    rows_of("layer_norm", 1, 1024, 768, "torch layer_norm, forward and backward", 5),
    rows_of("gelu", 1, 1024, 3072, "torch gelu (tanh), forward and backward", 5),
    rows_of("cross_entropy", 1, 1024, 8192, "torch cross_entropy, forward and backward", 4),
    rows_of("cross_entropy", 1, 256, 50257, "torch cross_entropy, forward and backward", 4),
    *(memory(what, threads, 4096, 4096) for what in MEMORY_PASSES for threads in (1, 2)),
    # As many bytes as in fp32: half of them would find a copy's source in a last-level cache.
    *(memory(what, 1, 8192, 4096, bf16=True) for what in BF16_MEMORY),
    *(memory(what, 1, 16384, 1024) for what in ROWWISE),
    *(Row(f"tokenizer_encode{of}", "tokenizer", dict(threads=1, alphabet=alphabet), 1.0,
          "tokenizers, one thread", 0, "MB/s", ["texts"])
      for of, alphabet in (("", "bytes"), ("_characters", "characters"))),
    files("safetensors_write", 1.1, "safetensors save_file and fsync"),
    files("safetensors_load", 1.1, "safetensors load_file, copied out of the mapping"),
    files("checkpoint", 2.0, "torch.save and fsync (no hash, no database)"),
    files("checkpoint_load", 2.0, "torch.load (no hash, no database)"),
    *mesh_rows(),
    *(all_reduce(size) for size in (4 << 10, 256 << 10, 4 << 20, 32 << 20)),
]
