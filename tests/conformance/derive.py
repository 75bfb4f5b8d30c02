"""Derives what GPT-2, Llama, BERT, their kin and ViT compute with torch and transformers in float64, as the
folders that weft-golden reads: hf/ (a saved model), case.safetensors (inputs, outputs, loss, gradients), batches.safetensors,
trajectory.json (AdamW with a schedule and clipping) and case.json. A case with an adapter has adapter/ too, as
PEFT saves it, whose weights alone are trained.

The losses are taken here, in float64, from the model's logits: the loss functions of transformers round
the logits to float32 first.
"""
import json
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import peft
import torch
import torch.nn.functional as functional
import transformers
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

IGNORED = -100


@dataclass
class Case:
    name: str
    # causal, packed, masked, sequence, token, choice, question, image, seq2seq, speech, permutation
    task: str = "causal"
    family: str = "gpt2"          # of FAMILIES
    config: dict = field(default_factory=dict)
    rows: int = 5
    tokens: int = 19
    left: bool = False            # padding on the left
    recipe: dict = field(default_factory=dict)
    scale: float = 0.15           # of the random matrices
    stored: dict = field(default_factory=dict)  # further keys of config.json, of no effect in float64
    adapter: dict = None          # arguments of peft.LoraConfig


@dataclass
class Recipe:
    steps: int = 20
    warmup: int = 4
    peak: float = 2e-3
    betas: tuple = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0


def random_stream(*words):
    return np.random.default_rng([sum(map(ord, str(word))) * 31 + len(str(word)) for word in words])


# ---- models ---------------------------------------------------------------------------------------
COMMON = dict(vocab_size=131, pad_token_id=0, bos_token_id=1, eos_token_id=2)
LLAMA = dict(num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, hidden_size=36,
             intermediate_size=50, max_position_embeddings=32)
BERT = dict(num_hidden_layers=2, num_attention_heads=3, hidden_size=36, intermediate_size=50,
            max_position_embeddings=40)
FAMILIES = {
    "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel,
             transformers.GPT2ForSequenceClassification,
             dict(n_layer=2, n_head=3, n_embd=36, n_positions=32)),
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM,
              transformers.LlamaForSequenceClassification, LLAMA),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM,
                transformers.MistralForSequenceClassification, LLAMA | dict(sliding_window=5)),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM,
              transformers.Qwen2ForSequenceClassification, LLAMA),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM,
              transformers.Qwen3ForSequenceClassification, LLAMA | dict(head_dim=10)),
    "bert": (transformers.BertConfig, transformers.BertForMaskedLM,
             transformers.BertForSequenceClassification, BERT | dict(type_vocab_size=3)),
    "roberta": (transformers.RobertaConfig, transformers.RobertaForMaskedLM,
                transformers.RobertaForSequenceClassification, BERT | dict(pad_token_id=3)),
    "distilbert": (transformers.DistilBertConfig, transformers.DistilBertForMaskedLM,
                   transformers.DistilBertForSequenceClassification,
                   dict(n_layers=2, n_heads=3, dim=36, hidden_dim=50, max_position_embeddings=40)),
    "vit": (transformers.ViTConfig, None, transformers.ViTForImageClassification,
            dict(num_hidden_layers=2, num_attention_heads=3, hidden_size=36, intermediate_size=50,
                 image_size=12, patch_size=4)),
    "t5": (transformers.T5Config, transformers.T5ForConditionalGeneration, None,
           dict(num_layers=2, num_heads=3, d_model=36, d_kv=10, d_ff=50, decoder_start_token_id=0,
                relative_attention_num_buckets=8, relative_attention_max_distance=12)),
    "whisper": (transformers.WhisperConfig, transformers.WhisperForConditionalGeneration, None,
                dict(encoder_layers=2, decoder_layers=2, encoder_attention_heads=3,
                     decoder_attention_heads=3, d_model=36, encoder_ffn_dim=50, decoder_ffn_dim=50,
                     num_mel_bins=7, max_source_positions=11, max_target_positions=12,
                     decoder_start_token_id=1, begin_suppress_tokens=None)),
    "xlnet": (transformers.XLNetConfig, transformers.XLNetLMHeadModel,
              transformers.XLNetForSequenceClassification,
              dict(n_layer=2, n_head=3, d_model=36, d_inner=50)),
}
# Parts of ViT's names in memory, and in its files.
RENAMED = {"layers.": "encoder.layer.", "attention.q_proj": "attention.attention.query",
           "attention.k_proj": "attention.attention.key", "attention.v_proj": "attention.attention.value",
           "attention.o_proj": "attention.output.dense", "mlp.fc1": "intermediate.dense",
           "mlp.fc2": "output.dense"}
TOKEN_CLASSIFIERS = {
    "bert": transformers.BertForTokenClassification,
    "roberta": transformers.RobertaForTokenClassification,
    "distilbert": transformers.DistilBertForTokenClassification,
    "xlnet": transformers.XLNetForTokenClassification,
}
CHOOSERS = {
    "bert": transformers.BertForMultipleChoice,
    "roberta": transformers.RobertaForMultipleChoice,
    "distilbert": transformers.DistilBertForMultipleChoice,
    "xlnet": transformers.XLNetForMultipleChoice,
}
ANSWERERS = {
    "bert": transformers.BertForQuestionAnswering,
    "roberta": transformers.RobertaForQuestionAnswering,
    "distilbert": transformers.DistilBertForQuestionAnswering,
}
CHOICES = 3
HEADS = ("score.", "classifier.", "pre_classifier.", "bert.pooler.")


def make_model(case, folder):
    """Saves a random model in float32; returns its class."""
    make_config, language_model, classifier, settings = FAMILIES[case.family]
    kind = TOKEN_CLASSIFIERS[case.family] if case.task == "token" else \
        CHOOSERS[case.family] if case.task == "choice" else \
        ANSWERERS[case.family] if case.task == "question" else \
        classifier if case.task in ("sequence", "image") else language_model
    common = {} if case.task == "image" else COMMON
    model = kind(make_config(**(common | settings | case.config)))
    generator = torch.Generator().manual_seed(sum(map(ord, case.name)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1 and name.endswith("weight"):  # of a norm
                parameter.copy_(1 + 0.3 * noise)
            else:
                parameter.copy_((case.scale if parameter.ndim > 1 else 0.2) * noise)
    model.save_pretrained(folder)
    return kind


def make_adapter(case, kind, folder):
    """Saves a random adapter of the model in folder/hf to folder/adapter."""
    task = "SEQ_CLS" if case.task == "sequence" else "CAUSAL_LM"
    model = peft.get_peft_model(kind.from_pretrained(folder / "hf"),
                                peft.LoraConfig(task_type=task, **case.adapter))
    generator = torch.Generator().manual_seed(sum(map(ord, case.name)) + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                # A magnitude is a norm: what it is, and as much as half of that beside it.
                parameter.copy_(parameter * (1 + noise / 6) if parameter.ndim == 1 else 0.15 * noise)
    model.save_pretrained(folder / "adapter")


def load(folder, kind):
    """As transformers loads it, in float64, with the adapter that stands beside the folder. A stored order of
    the products is float32's affair."""
    config = transformers.AutoConfig.from_pretrained(folder, attn_implementation="eager")
    config.reorder_and_upcast_attn = False
    model = kind.from_pretrained(folder, config=config)
    if (folder.parent / "adapter").exists():
        model = peft.PeftModel.from_pretrained(model, folder.parent / "adapter", is_trainable=True)
    if config.model_type == "xlnet" and kind is not transformers.XLNetLMHeadModel:
        model.transformer.mask_emb.requires_grad_(False)  # of what is predicted, which no other reads
    return model.double().eval()


def without_adapter(model):
    """The model of transformers, with its adapters where there are such."""
    return model.get_base_model() if isinstance(model, peft.PeftModel) else model


def named_parameters(model):
    """Name -> parameter, as the files of transformers call it."""
    renamed = RENAMED.items() if model.config.model_type == "vit" else ()
    named = {}
    for name, parameter in model.named_parameters():
        for in_memory, in_file in renamed:
            name = name.replace(in_memory, in_file)
        named[name] = parameter
    return named


def trained(model):
    """The same of those that are trained, as PEFT's files call them where there is an adapter."""
    return {name.replace(".modules_to_save.default", "").replace(".default", ""): parameter
            for name, parameter in named_parameters(model).items() if parameter.requires_grad}


def merged_weights(folder, kind):
    """What merging changes, as "merged.NAME"."""
    base = kind.from_pretrained(folder / "hf").double().state_dict()
    merged = load(folder / "hf", kind).merge_and_unload().state_dict()
    return {f"merged.{name}": value for name, value in merged.items()
            if name in base and not name.startswith(HEADS) and not torch.equal(value, base[name])}


# Tasks with a label for each row, which of a choice is a question with its choices.
EACH_ROW = ("sequence", "choice", "image")
# Of a question, whose row has two: their mean is what counts.
ENDS = ("start_positions", "end_positions")
# Tasks with a label for each token, and how many of the tokens have one.
EACH_TOKEN = {"masked": 0.3, "token": 0.7}
WRITING = ("seq2seq", "speech")
TARGET_TOKENS = 9  # of what these write at most
PREDICTIONS = 4  # of a permutation's longest row


# ---- batches --------------------------------------------------------------------------------------
def token_ids(model, random, shape):
    """Any but the one that pads."""
    ids = random.integers(0, model.config.vocab_size - 1, shape)
    return ids + (ids >= pad_id(model))


def pad_id(model):
    return 0 if model.config.pad_token_id is None else model.config.pad_token_id


def padded_rows(case, model, random, lengths):
    place = np.arange(case.tokens)[None, :]
    used = np.asarray(lengths)[:, None]
    mask = place >= case.tokens - used if case.left else place < used
    ids = np.where(mask, token_ids(model, random, mask.shape), pad_id(model))
    batch = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    if getattr(model.config, "type_vocab_size", 0):
        batch["token_type_ids"] = random.integers(0, model.config.type_vocab_size, mask.shape)
    if case.family == "xlnet":
        batch["token_type_ids"] = np.where(mask, random.integers(0, 3, mask.shape), 3)
    elif case.left and case.family != "roberta":  # which counts past padding by itself
        batch["position_ids"] = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    return batch


def targets(case, model, random, number):
    ends = random.integers(1, TARGET_TOKENS + 1, case.rows)
    ends[number % case.rows] = TARGET_TOKENS
    labels = token_ids(model, random, (case.rows, TARGET_TOKENS))
    labels[np.arange(TARGET_TOKENS)[None, :] >= ends[:, None]] = IGNORED
    return labels


def make_batch(case, model, number):
    random = random_stream(case.name, number)
    if case.task == "packed":
        return packed_rows(case, model, random)
    if case.task == "image":
        config = model.config
        shape = (case.rows, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": random.standard_normal(shape).astype(np.float32),
                "labels": random.integers(0, config.num_labels, case.rows)}
    if case.task == "speech":
        config = model.config
        shape = (case.rows, config.num_mel_bins, 2 * config.max_source_positions)
        return {"input_features": random.standard_normal(shape).astype(np.float32),
                "labels": targets(case, model, random, number)}
    choices = CHOICES if case.task == "choice" else 1
    lengths = random.integers(2, case.tokens + 1, case.rows * choices)
    lengths[number % case.rows] = case.tokens
    batch = padded_rows(case, model, random, lengths)
    mask = batch["attention_mask"] == 1
    if case.task == "choice":
        batch = {name: value.reshape(case.rows, choices, -1) for name, value in batch.items()}
        labels = random.integers(0, choices, case.rows)
    elif case.task == "seq2seq":
        labels = targets(case, model, random, number)
    elif case.task == "permutation":
        return batch | predictions(random, batch["input_ids"], mask)
    elif case.task == "question":
        return batch | {name: random.integers(0, mask.sum(axis=1)) for name in ENDS}
    elif case.task == "sequence":
        labels = random.integers(0, model.config.num_labels, case.rows)
    elif case.task in EACH_TOKEN:
        classes = model.config.vocab_size if case.task == "masked" else model.config.num_labels
        labels = np.where(mask & (random.random(mask.shape) < EACH_TOKEN[case.task]),
                          random.integers(0, classes, mask.shape), IGNORED)
        labels[number % case.rows, -1] = classes - 1  # the longest row's: at least one counts
    else:
        labels = np.where(mask & (random.random(mask.shape) < 0.9), batch["input_ids"], IGNORED)
        # Only padding could predict the first token of a row that is padded on the left.
        labels[np.arange(case.rows), mask.argmax(axis=1)] = IGNORED
    return batch | {"labels": labels}


def predictions(random, ids, mask):
    """The last tokens of an order of each row's, by places that rise; a short row has fewer, and asks for its
    first token instead, without a label. A token sees all of the context and what is before it in the order."""
    rows, tokens = ids.shape
    hidden, targets = np.zeros((rows, tokens, tokens)), np.zeros((rows, PREDICTIONS, tokens))
    labels = np.full((rows, PREDICTIONS), IGNORED)
    for row in range(rows):
        order = random.permutation(np.flatnonzero(mask[row])[1:])[:PREDICTIONS]
        rank = np.zeros(tokens, np.int64)
        rank[order] = 1 + np.arange(len(order))
        hidden[row] = (rank[None, :] >= rank[:, None]) & (rank[None, :] > 0)
        places = np.sort(order)
        targets[row, np.arange(len(places)), places] = 1
        targets[row, len(places):, mask[row].argmax()] = 1
        labels[row, :len(places)] = ids[row, places]
    return {"perm_mask": hidden.astype(np.float32), "target_mapping": targets.astype(np.float32), "labels": labels}


def packed_rows(case, model, random):
    shape = (case.rows, case.tokens)
    names = ("input_ids", "attention_mask", "position_ids", "document_ids", "labels")
    batch = {name: np.zeros(shape, np.int64) for name in names}
    batch["document_ids"][:], batch["labels"][:] = -1, IGNORED
    for row in range(case.rows):
        start, document = 0, 0
        while case.tokens - start >= 2:
            length = int(random.integers(2, max(3, min(9, case.tokens - start + 1))))
            part = (row, slice(start, start + length))
            ids = token_ids(model, random, length)
            batch["input_ids"][part], batch["attention_mask"][part] = ids, 1
            batch["position_ids"][part], batch["document_ids"][part] = np.arange(length), document
            batch["labels"][row, start + 1:start + length] = ids[1:]
            start, document = start + length, document + 1
    return batch


def label_count(task, batch):
    if task == "question":
        return len(batch["input_ids"])
    labels = batch["labels"]
    if task in EACH_ROW:
        return len(labels)
    alone = task in EACH_TOKEN or task in WRITING or task == "permutation"
    return int(((labels if alone else labels[:, 1:]) != IGNORED).sum())


# ---- one pass -------------------------------------------------------------------------------------
class NothingInFloat32(TorchFunctionMode):
    """Llama's norms, softmax and angles ask for float32, whatever the model's dtype is; in float64 they
    are to be exact too (and a row of padding, masked by float64's smallest number, no NaN)."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.float:
            function = torch.Tensor.double
        exact = {torch.float32: torch.float64}
        args = [exact.get(arg, arg) if isinstance(arg, torch.dtype) else arg for arg in args]
        named = {name: exact.get(value, value) if isinstance(value, torch.dtype) else value
                 for name, value in (kwargs or {}).items()}
        return function(*args, **named)


def run(task, model, batch):
    """The sum of the losses of the labels that count, and the outputs that are compared."""
    with NothingInFloat32() if model.dtype is torch.float64 else nullcontext():
        return run_once(task, model, batch)


def run_once(task, model, batch):
    tensors = {name: torch.as_tensor(value) for name, value in batch.items()}
    for name in ("pixel_values", "input_features", "perm_mask", "target_mapping"):
        if name in tensors:
            tensors[name] = tensors[name].to(model.dtype)
    labels = [tensors.pop(name) for name in ENDS] if task == "question" else tensors.pop("labels")
    if task == "packed":
        return run_packed(model, tensors, labels)
    seen = []
    trunk = model.get_decoder() if task in WRITING else without_adapter(model).base_model
    if task in WRITING:
        tensors["decoder_input_ids"] = shifted_right(model.config, labels)
    handle = trunk.register_forward_hook(lambda module, inputs, output: seen.append(output))
    given = model(**tensors)
    handle.remove()
    if task == "question":
        ends = {"start_logits": given.start_logits, "end_logits": given.end_logits}
        loss = sum(functional.cross_entropy(logits, label, reduction="sum") for logits, label in zip(ends.values(), labels))
        return loss / 2, ends | {"last_hidden_state": seen[0].last_hidden_state}
    logits = given.logits
    if task in EACH_ROW:
        loss = functional.cross_entropy(logits, labels, reduction="sum")
    elif task in EACH_TOKEN or task in WRITING or task == "permutation":
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED,
                                        reduction="sum")
    else:
        loss = shifted_loss(logits, labels)
    return loss, {"logits": logits, "last_hidden_state": seen[0].last_hidden_state}


def shifted_right(config, labels):
    starts = torch.full_like(labels[:, :1], config.decoder_start_token_id)
    return torch.cat([starts, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, config.pad_token_id)], 1)


def shifted_loss(logits, labels):
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(),
                                    ignore_index=IGNORED, reduction="sum")


def run_packed(model, tensors, labels):
    """Document by document, as if no other shared its row."""
    ids, documents = tensors["input_ids"], tensors["document_ids"]
    logits = torch.zeros(*ids.shape, model.config.vocab_size, dtype=torch.float64)
    for row in range(len(ids)):
        for document in range(int(documents[row].max()) + 1):
            where = torch.nonzero(documents[row] == document)[:, 0]
            logits[row, where] = model(input_ids=ids[row, where][None]).logits[0].double()
    return shifted_loss(logits, labels), {"logits": logits}


# ---- training -------------------------------------------------------------------------------------
def gradients_of(task, model, batch, micro_batches):
    """Leaves the gradients of the mean loss on the model; returns that loss. A micro-batch counts by
    its labels, not as one part of so many."""
    rows, total, loss = len(next(iter(batch.values()))), label_count(task, batch), 0.0
    cuts = [rows * part // micro_batches for part in range(micro_batches + 1)]
    for start, end in zip(cuts, cuts[1:]):
        if start == end:
            continue
        part = {name: value[start:end] for name, value in batch.items()}
        mean = run(task, model, part)[0] / total
        mean.backward()
        loss += mean.item()
    return loss


def train(case, recipe, model, batches, micro_batches):
    """AdamW by torch, the schedule by transformers. Also the largest gradient each element had."""
    matrices = [p for p in trained(model).values() if p.ndim >= 2]
    vectors = [p for p in trained(model).values() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay},
         {"params": vectors, "weight_decay": 0.0}], lr=recipe.peak, betas=recipe.betas, eps=1e-8)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, recipe.warmup, recipe.steps)
    steps = []
    peaks = {name: torch.zeros_like(p) for name, p in trained(model).items()}
    for step in range(recipe.steps):
        optimizer.zero_grad()
        batch = batches[step % len(batches)]
        rate = schedule.get_last_lr()[0]
        loss = gradients_of(case.task, model, batch, micro_batches)
        for name, parameter in trained(model).items():
            peaks[name] = torch.maximum(peaks[name], parameter.grad.abs())
        norm = torch.nn.utils.clip_grad_norm_(trained(model).values(), recipe.clip).item()
        optimizer.step()
        schedule.step()
        steps.append({"step": step, "batch": step % len(batches), "lr": rate, "loss": loss,
                      "grad_norm": norm})
    return steps, peaks


def norms_after(model, peaks):
    """Norms of the parameters after training, but for those with elements whose gradient is rounding
    noise: Adam turns noise into whole steps, different ones in every implementation."""
    noise = 1e-6 * max(peak.max().item() for peak in peaks.values())
    return {name: parameter.detach().norm().item() for name, parameter in trained(model).items()
            if not ((peaks[name] > 0) & (peaks[name] < noise)).any()}


# ---- a folder -------------------------------------------------------------------------------------
def store(path, tensors):
    ready = {}
    for name, value in tensors.items():
        value = torch.as_tensor(value).detach()
        ready[name] = value.to(torch.float32 if value.is_floating_point() else torch.int64) \
            .contiguous().clone()
    save_file(ready, path)


def nearest_to_a_kink(model, batch, task):
    """How near an input of a ReLU comes to 0, where rounding would decide its gradient."""
    nearest = [float("inf")]
    handles = [block.mlp.act.register_forward_hook(
        lambda module, inputs, output: nearest.append(inputs[0].abs().min().item()))
        for block in model.transformer.h]
    run(task, model, batch)
    for handle in handles:
        handle.remove()
    return min(nearest)


def write_case(case, folder):
    """Derives `case` into `folder`, which must not exist."""
    (folder / "hf").mkdir(parents=True)
    kind = make_model(case, folder / "hf")
    config = json.loads((folder / "hf/config.json").read_text())
    (folder / "hf/config.json").write_text(json.dumps(config | case.stored, indent=1))
    if case.adapter:
        make_adapter(case, kind, folder)
    return derive(case, kind, folder)


def derive(case, kind, folder):
    """The same of a model that stands in folder/hf."""
    model = load(folder / "hf", kind)
    recipe = Recipe(**case.recipe)
    inputs = make_batch(case, model, 7)
    if "relu" in case.config.values() and case.family == "gpt2":
        assert nearest_to_a_kink(model, inputs, case.task) > 1e-6, "choose another name or scale"
    loss, outputs = run(case.task, model, inputs)
    loss = loss / label_count(case.task, inputs)
    loss.backward()
    grads = {f"grad.{name}": p.grad.clone() for name, p in trained(model).items()}
    # A bias on all keys, without rotations, changes no softmax: its gradient is rounding alone.
    noise = 1e-13 * max(grad.abs().max().item() for grad in grads.values())
    zeros = [name for name, grad in grads.items() if 0 < grad.abs().max().item() < noise]
    for name in zeros:
        grads[name].zero_()
    merged = merged_weights(folder, kind) if case.adapter else {}
    store(folder / "case.safetensors", inputs | outputs | {"loss": loss} | grads | merged)

    batches = [make_batch(case, model, number) for number in range(4)]
    store(folder / "batches.safetensors", {f"{number}.{name}": value
          for number, batch in enumerate(batches) for name, value in batch.items()})

    after_training = load(folder / "hf", kind)
    steps, peaks = train(case, recipe, after_training, batches, 1)
    split, _ = train(case, recipe, load(folder / "hf", kind), batches, 2)
    with torch.no_grad():
        after = run(case.task, after_training, inputs)[0].item() / label_count(case.task, inputs)
    trajectory = {
        "optimizer": {"name": "AdamW", "betas": recipe.betas, "eps": 1e-8,
                      "weight_decay": recipe.weight_decay},
        "schedule": {"name": "cosine", "peak": recipe.peak, "warmup_steps": recipe.warmup,
                     "total_steps": recipe.steps},
        "clip_global_norm": recipe.clip, "steps": steps,
        "accumulated": {"micro_batches": 2, "loss": [step["loss"] for step in split],
                        "grad_norm": [step["grad_norm"] for step in split]},
        "loss_on_case_after": after, "parameter_norms_after": norms_after(after_training, peaks)}
    (folder / "trajectory.json").write_text(json.dumps(trajectory, indent=1))
    (folder / "case.json").write_text(json.dumps({
        "name": case.name, "family": model.config.model_type, "architecture": kind.__name__, "task": case.task,
        "inputs": list(inputs), "outputs": list(outputs),
        "zero_gradients": [name.removeprefix("grad.") for name in zeros]}, indent=1))
    return folder
