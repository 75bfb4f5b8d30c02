#!/usr/bin/env python3
"""What transformers makes of the folders of jobs.py's jobs. On the CPU.
jobs_peer.py tokenizer FILE TEXT...               a byte-level BPE of up to 50,257 tokens, trained on texts
jobs_peer.py make FOLDER LAYERS HIDDEN HEADS TOKENS    a GPT-2 of bytes
jobs_peer.py same FOLDER EXPORTED                 the weights are the same
jobs_peer.py greedy EXPORTED COUNT SAID.json...   what Weft wrote on is what transformers does"""
import json
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel


def tokenizer(file, *texts):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train(list(texts), trainers.BpeTrainer(
        vocab_size=50257, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    bpe.save(file)
    return f"{bpe.get_vocab_size()} tokens"


def make(folder, layers, hidden, heads, tokens):
    torch.manual_seed(5)
    config = GPT2Config(n_layer=int(layers), n_head=int(heads), n_embd=int(hidden), n_positions=int(tokens),
                        vocab_size=257, bos_token_id=256, eos_token_id=256, initializer_range=0.1)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return "made"


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def same(folder, exported):
    was, now = load(folder).state_dict(), load(exported).state_dict()
    assert was.keys() == now.keys(), was.keys() ^ now.keys()
    apart = max((was[name] - now[name]).abs().max().item() for name in was)
    assert apart < 1e-25, apart
    equal = sum(torch.equal(was[name], now[name]) for name in was)
    return f"{equal} of {len(was)} tensors bit for bit, the others (zeros) at most {apart:.1g} apart"


def greedy(exported, count, *files):
    model, own = load(exported), AutoTokenizer.from_pretrained(exported)
    for file in files:
        with open(file) as text:
            said = json.load(text)
        ids = own(said["prompt"], return_tensors="pt", add_special_tokens=False).input_ids
        with torch.no_grad():
            for _ in range(int(count)):
                best = model(input_ids=ids).logits[0, -1, :len(own)].argmax()
                if best.item() == own.eos_token_id:
                    break
                ids = torch.cat([ids, best.view(1, 1)], dim=1)
        whole = own.decode(ids[0].tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert said["prompt"] + said["text"] == whole, (said, whole)
    return f"{len(files)} texts of {count} tokens are those of transformers"


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("tokenizer", "make", "same", "greedy"):
        sys.exit(__doc__)
    torch.set_num_threads(4)
    print(globals()[sys.argv[1]](*sys.argv[2:]))
