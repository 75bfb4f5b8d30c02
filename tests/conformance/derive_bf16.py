"""How far PyTorch itself is from float64 when it computes a golden case in bfloat16: weights and
activations in bfloat16, fp32 master weights and AdamW. weft-golden --precision bf16 allows twice that.

    tests/conformance/run.sh derive_bf16.py FOLDER...     writes FOLDER/bf16.json

Errors are those of weft-golden: max|a - b| / max|b| over a tensor, relative for a number. Kept is the
larger of those with PyTorch's eager and with its fused attention, where transformers has one. One value alone may be right by luck:
of numbers the largest error of their kind is kept, and a gradient's is at least the median gradient's.
Processors without arithmetic in bfloat16 round elsewhere: gpt2-sequence holds the larger of what one with
(Zen 4) and one without (Zen 3) give, 0.0155 and 0.0193 for the norms of gradients.

ReLU, which heads of DistilBERT have too, has a kink: a unit whose input rounds to the other side of 0
is off instead of on, and the gradient of its weights errs by all of what it was. Which units do so is
luck in every implementation, and one run tells little: that of PyTorch's 32 equivalent runs of one case
erred by 0.035 to 0.49. So a case with ReLU keeps the largest error over such runs: the same model in
other units (other_units), whose every rounding is another.

So does a choice: what its rows have in common cancels out of the gradients, of which roundings then are a large
part. PyTorch's 32 runs of bert-choice err by 0.025 to 0.078 in one bias, the plain one by 0.034.
"""
import json
import statistics
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

from derive import WRITING, label_count, named_parameters, run

EQUIVALENT_RUNS = 16  # with either attention


def case_kind(config):
    return getattr(transformers, config["architectures"][0])


def load_single(folder, attention):
    config = json.loads((folder / "hf/config.json").read_text())
    return case_kind(config).from_pretrained(folder / "hf", attn_implementation=attention,
                                             dtype=torch.float32).eval()


def load_bf16(folder, attention):
    """The model that computes, and its fp32 masters."""
    model = load_single(folder, attention)
    masters = {name: p.detach().clone() for name, p in named_parameters(model).items()}
    model = model.bfloat16()
    if model.config.model_type == "xlnet":  # whose second stream takes distances as they come, in fp32
        distances = model.transformer.relative_positional_encoding
        model.transformer.relative_positional_encoding = lambda *sizes, **more: \
            distances(*sizes, **more).bfloat16()
    return model, masters


def other_units(model, seed):
    """Makes a GPT-2 with ReLU compute in other units. Its outputs stay, but for the hidden states, which
    are divided by the first of what is returned; the second is each parameter's factor, by name.

    A norm does not see the size of its input, ReLU(a x) = a ReLU(x) for a > 0, and a linear map takes
    any factor of its inputs back; queries are multiplied by what keys are divided by. Factors are from
    1 to 2: roundings to bf16 are then as large as before on the whole, but not the same ones.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(count):
        return 2 ** torch.rand(count, generator=generator, dtype=torch.float64)

    stream, width = draw(1), model.config.n_embd
    factors = {name: 1 / stream if "ln_f" in name else stream
               for name, _ in model.named_parameters()}
    for layer, block in enumerate(model.transformer.h):
        normal, queries, values, normal2, units = map(
            draw, (width, width, width, width, block.mlp.c_fc.weight.shape[1]))
        columns = torch.cat([queries, 1 / queries, values])
        factors |= {f"transformer.h.{layer}.{name}": factor for name, factor in {
            "ln_1.weight": normal, "ln_1.bias": normal,
            "attn.c_attn.weight": columns / normal[:, None], "attn.c_attn.bias": columns,
            "attn.c_proj.weight": stream / values[:, None],
            "ln_2.weight": normal2, "ln_2.bias": normal2,
            "mlp.c_fc.weight": units / normal2[:, None], "mlp.c_fc.bias": units,
            "mlp.c_proj.weight": stream / units[:, None]}.items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(factors[name])
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps *= stream.item() ** 2
    return stream.item(), factors


def other_units_of_encoder(model, seed):
    """The same of a DistilBERT, whose head has a ReLU, or a BERT: other units of queries, keys and values, and
    of DistilBERT's head."""
    generator = torch.Generator().manual_seed(seed)
    distilled = model.config.model_type == "distilbert"
    width, factors = model.config.hidden_size, {name: 1 for name, _ in model.named_parameters()}
    blocks = "distilbert.transformer.layer." if distilled else "bert.encoder.layer."
    names = ("q_lin", "k_lin", "v_lin", "out_lin") if distilled else \
        ("self.query", "self.key", "self.value", "output.dense")
    for layer in range(model.config.num_hidden_layers):
        queries, values = (2 ** torch.rand(width, generator=generator, dtype=torch.float64) for _ in range(2))
        of = f"{blocks}{layer}.attention."
        for name, factor in zip(names, (queries, 1 / queries, values)):
            factors |= {f"{of}{name}.weight": factor[:, None], f"{of}{name}.bias": factor}
        factors[f"{of}{names[3]}.weight"] = 1 / values[None, :]
    if distilled:
        units = 2 ** torch.rand(width, generator=generator, dtype=torch.float64)
        factors |= {"pre_classifier.weight": units[:, None], "pre_classifier.bias": units,
                    "classifier.weight": 1 / units[None, :]}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(factors[name])
    return 1, factors


def has_relu(config):
    return config.get("activation_function") == "relu" or config["model_type"] == "distilbert"


def tensors_of(path, prefix=""):
    names = ("input_ids", "attention_mask", "position_ids", "token_type_ids", "document_ids", "pixel_values",
             "input_features", "labels", "start_positions", "end_positions", "perm_mask", "target_mapping")
    stored = load_file(path)
    return {name: stored[prefix + name].numpy() for name in names if prefix + name in stored}


def relative(actual, expected, where=None):
    actual, expected = actual.double(), expected.double()
    if where is not None:
        actual, expected = actual[where], expected[where]
    largest = expected.abs().max().item()
    return (actual - expected).abs().max().item() / (largest or 1)


def backward(task, model, batch, parts):
    """The gradients of the mean loss in fp32, summed over micro-batches; and that loss."""
    rows, total, loss, sums = len(next(iter(batch.values()))), label_count(task, batch), 0.0, {}
    cuts = [rows * part // parts for part in range(parts + 1)]
    for start, end in zip(cuts, cuts[1:]):
        if start == end:
            continue
        model.zero_grad()
        share = run(task, model, {name: value[start:end] for name, value in batch.items()})[0]
        (share / total).backward()
        loss += share.item() / total
        for name, parameter in named_parameters(model).items():
            if parameter.grad is not None:  # of what the loss reaches
                sums[name] = sums.get(name, 0) + parameter.grad.float()
    return loss, sums


def train(task, folder, attention, trajectory, batches, parts):
    model, masters = load_bf16(folder, attention)
    settings, schedule = trajectory["optimizer"], trajectory["schedule"]
    leaves = {name: torch.nn.Parameter(value) for name, value in masters.items()}
    decay = [p for p in leaves.values() if p.ndim >= 2], [p for p in leaves.values() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay[0], "weight_decay": settings["weight_decay"]},
         {"params": decay[1], "weight_decay": 0.0}],
        lr=schedule["peak"], betas=settings["betas"], eps=settings["eps"])
    rates = transformers.get_cosine_schedule_with_warmup(
        optimizer, schedule["warmup_steps"], schedule["total_steps"])
    losses, norms = [], []
    for step in trajectory["steps"]:
        loss, gradients = backward(task, model, batches[step["batch"]], parts)
        for name, leaf in leaves.items():
            leaf.grad = gradients.get(name)
        norms.append(torch.nn.utils.clip_grad_norm_(leaves.values(),
                                                    trajectory["clip_global_norm"]).item())
        losses.append(loss)
        optimizer.step()
        rates.step()
        with torch.no_grad():
            for name, parameter in named_parameters(model).items():
                parameter.copy_(leaves[name])
    return model, leaves, losses, norms


def worst(actual, expected):
    return max(abs(a - b) / abs(b) for a, b in zip(actual, expected))


def pass_errors(task, folder, model, stream=1, factors=None):
    """Of the outputs and gradients of a model, which other_units may have been at; and its mean loss."""
    expected = load_file(folder / "case.safetensors")
    inputs = tensors_of(folder / "case.safetensors")
    loss, outputs = run(task, model, inputs)
    # Of a source, or of more than what is predicted.
    mask = expected.get("attention_mask") if task not in (*WRITING, "permutation") else None
    errors = {}
    for name, value in outputs.items():
        of_tokens = value.ndim == 3 or name in ("start_logits", "end_logits")
        where = mask.reshape(value.shape[:2]) == 1 if mask is not None and of_tokens else None
        size = stream if name == "last_hidden_state" else 1
        errors[name] = relative(value.detach() * size, expected[name], where)
    _, gradients = backward(task, model, inputs, 1)
    for name, parameter in named_parameters(model).items():
        value, factor = gradients.get(name, torch.zeros_like(parameter)), factors[name] if factors else 1
        errors[f"grad.{name}"] = relative(value * factor, expected[f"grad.{name}"])
    return errors, loss.item() / label_count(task, inputs)


def equivalent_errors(attention, folder):
    """The largest of each output's and gradient's over the equivalent runs."""
    task = json.loads((folder / "case.json").read_text())["task"]
    runs = []
    for seed in range(EQUIVALENT_RUNS):
        model = load_single(folder, attention)
        change = other_units if model.config.model_type == "gpt2" else other_units_of_encoder
        stream, factors = change(model, seed)
        runs.append(pass_errors(task, folder, model.bfloat16(), stream, factors)[0])
    return largest(*runs)


def errors_with(attention, folder):
    task = json.loads((folder / "case.json").read_text())["task"]
    expected = load_file(folder / "case.safetensors")
    inputs = tensors_of(folder / "case.safetensors")
    model, _ = load_bf16(folder, attention)
    errors, mean = pass_errors(task, folder, model)

    trajectory = json.loads((folder / "trajectory.json").read_text())
    stored = load_file(folder / "batches.safetensors")
    count = len({name.split(".")[0] for name in stored})
    batches = [tensors_of(folder / "batches.safetensors", f"{n}.") for n in range(count)]
    losses, norms = [], []
    for parts in (1, 2):
        trained, leaves, found, found_norms = train(task, folder, attention, trajectory, batches,
                                                   parts)
        steps = trajectory["steps"] if parts == 1 else None
        wanted = [s["loss"] for s in steps] if steps else trajectory["accumulated"]["loss"]
        wanted_norms = [s["grad_norm"] for s in steps] if steps \
            else trajectory["accumulated"]["grad_norm"]
        losses.append(worst(found, wanted))
        norms.append(worst(found_norms, wanted_norms))
        if parts == 1:
            with torch.no_grad():
                after = run(task, trained, inputs)[0].item() / label_count(task, inputs)
            kept = trajectory["parameter_norms_after"]
            errors["norm after"] = worst([leaves[name].norm().item() for name in kept],
                                         kept.values())
    losses += [worst([mean], [expected["loss"].item()]),
               worst([after], [trajectory["loss_on_case_after"]])]
    return errors | {"loss": max(losses), "grad_norm": max(norms)}


def largest(*runs):
    return {what: max(errors.get(what, 0) for errors in runs) for what in runs[0]}


def errors_of(folder):
    config = json.loads((folder / "hf/config.json").read_text())
    # transformers has no fused attention of XLNet.
    attentions = ("eager",) if config["model_type"] == "xlnet" else ("eager", "sdpa")
    errors = largest(*(errors_with(attention, folder) for attention in attentions))
    median = statistics.median(error for what, error in errors.items() if what.startswith("grad."))
    errors = {what: max(error, median) if what.startswith("grad.") else error
              for what, error in errors.items()}
    task = json.loads((folder / "case.json").read_text())["task"]
    if has_relu(config) or task == "choice":
        errors = largest(errors, *(equivalent_errors(attention, folder) for attention in attentions))
    return errors


def write(folder):
    folder = Path(folder)
    if (folder / "adapter").exists():
        raise SystemExit(f"{folder}: adapter/ must not be there: whole models are trained here, so the errors "
                         "would be those of another one; run the case with --precision fp32")
    report = {"command": f"tests/conformance/run.sh derive_bf16.py {folder.name}",
              "torch": torch.__version__, "transformers": transformers.__version__,
              "errors": {name: float(f"{error:.4g}") for name, error in errors_of(folder).items()}}
    (folder / "bf16.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


if __name__ == "__main__":
    torch.set_num_threads(1)
    for path in sys.argv[1:]:
        print(path, json.dumps(write(path)["errors"], indent=1))
