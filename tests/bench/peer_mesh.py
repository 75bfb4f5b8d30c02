"""The peer of weft-bench-mesh: GPT-2 in PyTorch on two processes over gloo, by DistributedDataParallel
(data=2) or by torch.distributed.tensor.parallel (tensor=2): columns of query, key, value and of the
first product, rows of the second ones, the vocabulary of embedding and loss. peer_mesh.py key=value...;
speaks as peer.py. Starts from the weights of a Hugging Face folder; the loss that it tells is that of the
second step."""
import contextlib
import os
import socket
import sys
import time

ARGUMENTS = dict(word.split("=", 1) for word in sys.argv[1:])
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = ARGUMENTS["threads"]
os.environ["GLOO_SOCKET_IFNAME"] = "lo"

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

RANKS = 2
LAYERS, HEADS, HIDDEN, TOKENS, BATCH, VOCABULARY = (
    int(ARGUMENTS[key]) for key in ("layers", "heads", "hidden", "tokens", "batch", "vocabulary"))
TENSOR, DATA = (int(ARGUMENTS.get(key, 1)) for key in ("tensor", "data"))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.query, self.key, self.value, self.joined = (nn.Linear(HIDDEN, HIDDEN) for _ in range(4))
        self.up, self.down = nn.Linear(HIDDEN, 4 * HIDDEN), nn.Linear(4 * HIDDEN, HIDDEN)

    def forward(self, x):
        y = self.norm_1(x)
        rows, tokens, _ = y.shape
        query, key, value = (linear(y).view(rows, tokens, HEADS // TENSOR, HIDDEN // HEADS).transpose(1, 2)
                             for linear in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.joined(y.transpose(1, 2).reshape(rows, tokens, HIDDEN // TENSOR))
        return x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))


def copy_weights(model, folder):
    """Those of transformers' GPT2LMHeadModel, whose matrices are [in, out]."""
    from safetensors.torch import load_file
    read = load_file(os.path.join(folder, "model.safetensors"))

    def copy(module, name, columns=slice(None)):
        for key, parameter in module.named_parameters(recurse=False):
            value = read[f"transformer.{name}.{key}"][..., columns]
            parameter.data.copy_(value.T if isinstance(module, nn.Linear) and value.ndim == 2 else value)

    copy(model.words, "wte")
    copy(model.places, "wpe")
    copy(model.norm, "ln_f")
    for layer, block in enumerate(model.blocks):
        copy(block.norm_1, f"h.{layer}.ln_1")
        copy(block.norm_2, f"h.{layer}.ln_2")
        for part, linear in enumerate((block.query, block.key, block.value)):
            copy(linear, f"h.{layer}.attn.c_attn", slice(part * HIDDEN, (part + 1) * HIDDEN))
        copy(block.joined, f"h.{layer}.attn.c_proj")
        copy(block.up, f"h.{layer}.mlp.c_fc")
        copy(block.down, f"h.{layer}.mlp.c_proj")


class GPT2(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, HIDDEN), nn.Embedding(TOKENS, HIDDEN)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(HIDDEN)

    def forward(self, ids):
        x = self.words(ids) + self.places.weight
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)[:, :-1].flatten(0, 1)
        if TENSOR > 1:   # the table is a DTensor, and so are the logits, by vocabulary
            from torch.distributed.tensor import DTensor, Replicate
            x = DTensor.from_local(x, self.words.weight.device_mesh, [Replicate()])
        return F.cross_entropy(F.linear(x, self.words.weight), ids[:, 1:].flatten())


def share_out(model, mesh):
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import (ColwiseParallel, RowwiseParallel, parallelize_module)
    parallelize_module(model, mesh, {"words": RowwiseParallel(input_layouts=Replicate(),
                                                              output_layouts=Replicate())})
    columns = dict.fromkeys(("query", "key", "value", "up"), ColwiseParallel())
    for block in model.blocks:
        parallelize_module(block, mesh, columns | dict.fromkeys(("joined", "down"), RowwiseParallel()))


class Step:
    def __init__(self, rank):
        self.model = model = GPT2()
        copy_weights(model, ARGUMENTS["weights"])
        self.context = contextlib.nullcontext
        if TENSOR > 1:
            from torch.distributed.tensor.parallel import loss_parallel
            self.context = loss_parallel
            share_out(model, dist.init_device_mesh("cpu", (RANKS,)))
        groups = [{"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.01},
                  {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0}]
        # fused AdamW takes either plain tensors or DTensors, not both in one list
        kinds = [{**group, "params": [p for p in group["params"] if is_shared(p) == shared]}
                 for group in groups for shared in (False, True)]
        self.optimizers = [torch.optim.AdamW([group], lr=1e-4, fused=True) for group in kinds
                           if group["params"]]
        if DATA > 1:
            self.model = nn.parallel.DistributedDataParallel(model)
        place = torch.arange(BATCH * TOKENS)
        ids = ((place * 7919 + place * place % 31) % VOCABULARY).view(BATCH, TOKENS)
        share = BATCH // DATA
        self.ids = ids[rank * share:(rank + 1) * share] if DATA > 1 else ids
        self.loss = 0.0

    def __call__(self):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        with self.context():
            loss = self.model(self.ids)
            loss.backward()
        self.clip()
        for optimizer in self.optimizers:
            optimizer.step()
        mean = local(loss).detach().clone()
        if DATA > 1:   # of as many labels on each rank
            dist.all_reduce(mean)
            mean /= RANKS
        self.loss = mean.item()

    def clip(self):
        """To norm 1, of all parts, with one number on the wire."""
        parameters = list(self.model.parameters())
        squares = [sum(local(p.grad).pow(2).sum() for p in parameters if is_shared(p) == shared)
                   for shared in (False, True)]
        if TENSOR > 1:
            dist.all_reduce(squares[1])
        factor = torch.clamp(1 / (torch.sqrt(squares[0] + squares[1]) + 1e-6), max=1.0)
        torch._foreach_mul_([local(p.grad) for p in parameters], factor)


def is_shared(parameter):
    return hasattr(parameter, "to_local")


def local(tensor):
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def serve(rank):
    torch.set_num_threads(int(ARGUMENTS["threads"]))
    torch.set_flush_denormal(True)
    step = Step(rank)
    step()
    step()
    loss = step.loss
    if rank == 0:
        print("ready", flush=True)
    while True:
        line = sys.stdin.readline().strip() if rank == 0 else ""
        count = torch.tensor([-1 if not line else 0 if line == "state" else int(line)])
        dist.broadcast(count, 0)
        if count < 0:
            return
        start = time.perf_counter()
        for _ in range(int(count)):
            step()
        dist.barrier()
        if rank == 0:
            taken = (time.perf_counter() - start) / max(1, int(count))
            print(f"{loss:.9g} 0" if line == "state" else f"{taken:.9g}", flush=True)


def main():
    if "PEER_RANK" not in os.environ:   # rank 0 starts the other one, which gets no input
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            os.environ["MASTER_PORT"] = str(probe.getsockname()[1])
        import subprocess
        others = [subprocess.Popen([sys.executable, *sys.argv], env=os.environ | {"PEER_RANK": str(rank)},
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
                  for rank in range(1, RANKS)]
    else:
        others = []
    rank = int(os.environ.get("PEER_RANK", 0))
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{os.environ['MASTER_PORT']}", rank=rank,
                            world_size=RANKS)
    serve(rank)
    dist.destroy_process_group()
    for other in others:
        other.wait()


main()
