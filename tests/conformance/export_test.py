"""What Weft exports and generates, against transformers: a job is trained by the real programs, its
checkpoints are exported, and transformers loads the folders unchanged."""
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, XLNetLMHeadModel

from cluster import Cluster
from derive import FAMILIES, TOKEN_CLASSIFIERS, Case, derive
from golden_test import golden

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("WEFT_BIN", ROOT / "build/release/bin"))
# Texts that every Debian has and that stay as they are: weights and tokenizers that are learned from them do, too.
TEXTS = [f"/usr/share/common-licenses/{name}" for name in ("GPL-3", "Apache-2.0")]
PROMPTS = ["the ", "A model", "weft\n", "x", "Zwölf Äpfel 🍎 and"]

LANGUAGE_TASK = "  - {name: lm, type: causal_lm, data: {train: texts/, format: text}}\n"
WORDS_TASK = """\
  - {name: tags, type: token_classification, labels: 3,
     data: {train: words.jsonl, validation: words.jsonl, format: jsonl}}
"""
ORDER_TASK = "  - {name: lm, type: permutation_lm, data: {train: texts/, format: text}}\n"
ENCODER_TASKS = "  - {name: lm, type: masked_lm, data: {train: texts/, format: text}}\n" + WORDS_TASK
JOB = f"""
name: conformance
kind: KIND
model: MODEL
TOKENIZER
tasks:
{LANGUAGE_TASK}""" + """\
  - {name: kind, type: sequence_classification, labels: 3,
     data: {train: rows.jsonl, validation: held.jsonl, format: jsonl}}
training: {steps: 40, batch_size: 6, micro_batch_size: 4, sequence_length: 48, seed: 3,
           evaluate_every: 20, dropout: 0.1, gradient_clip: 1.0,
           optimizer: {type: adamw, learning_rate: 3.0e-3},
           schedule: {type: cosine, warmup_steps: 5}}
checkpoint: {every_steps: 20}
parallel: {tensor: 2}
resources: {slots: 2, nodes: 2}
"""


def greedy_by_transformers(model, tokenizer, prompt, count):
    """Prompt and new ids, without the end of the text. An id that the tokenizer lacks (a vocabulary
    is often padded) says nothing and is left out of the choice, as Weft does."""
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        for _ in range(count):
            best = model(input_ids=ids).logits[0, -1, :len(tokenizer)].argmax()
            if best.item() == tokenizer.eos_token_id:
                break
            ids = torch.cat([ids, best.view(1, 1)], dim=1)
    return ids[0].tolist()


def greedy_by_weft(folder, prompt, count):
    done = subprocess.run([BIN / "weft", "generate", folder, "--prompt", prompt, "--max-tokens",
                           str(count), "--temperature", "0", "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(done.stdout + done.stderr)
    return json.loads(done.stdout)


def character_tokenizer(legacy):
    """Llama 2's and Mistral's kind: bytes for what the vocabulary lacks, a space in front, <s>."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train(TEXTS, trainers.BpeTrainer(vocab_size=300, limit_alphabet=80, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)),
              *sorted(learned["vocab"], key=learned["vocab"].get)]
    tokenizer = Tokenizer(models.BPE(
        vocab={piece: place for place, piece in enumerate(pieces)}, unk_token="<unk>", fuse_unk=True,
        merges=[tuple(merge) for merge in learned["merges"]], byte_fallback=True))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"),
                                                     normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                           decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return tokenizer


def make_tokenizer(folder, family):
    """A small BPE as transformers saves it: Llama's and Mistral's over characters, others over bytes."""
    if family in ("llama", "mistral"):
        fast = PreTrainedTokenizerFast(
            tokenizer_object=character_tokenizer(legacy=family == "mistral"), bos_token="<s>",
            eos_token="</s>", unk_token="<unk>", pad_token="</s>")
        fast.save_pretrained(folder)
        return fast
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train(TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=["<|endoftext|>"],
                                               initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                               show_progress=False))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>",
                                   bos_token="<|endoftext|>", pad_token="<|endoftext|>")
    fast.save_pretrained(folder)
    return fast


def make_model(folder, family="gpt2", **more):
    torch.manual_seed(5)
    tokenizer = make_tokenizer(folder, family)
    end = tokenizer.eos_token_id
    settings = dict(vocab_size=len(tokenizer) + 3, bos_token_id=end, eos_token_id=end,
                    pad_token_id=end, initializer_range=0.3)
    if family == "gpt2":
        settings |= dict(n_layer=2, n_head=2, n_embd=48, n_positions=64)
        model = GPT2LMHeadModel(GPT2Config(**(settings | more)))
    else:
        settings |= dict(num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
                         hidden_size=48, intermediate_size=70, max_position_embeddings=64)
        make_config, kind = FAMILIES[family][:2]
        model = kind(make_config(**(settings | more)))
    model.save_pretrained(folder)


def encoder_tokenizer(family):
    """BERT's kind, or RoBERTa's; XLNet's with BERT's words."""
    if family == "roberta":
        specials = dict(bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>", mask_token="<mask>")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.train(TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=list(specials.values()),
                                                   initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                   show_progress=False))
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", **specials)
    specials = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train(TEXTS, trainers.WordPieceTrainer(vocab_size=400, special_tokens=list(specials.values()),
                                                     show_progress=False))
    if family == "xlnet":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A [SEP] [CLS]:2", pair="$A [SEP] $B:1 [SEP]:1 [CLS]:2",
            special_tokens=[("[SEP]", 3), ("[CLS]", 2)])
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **specials)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials)


def make_encoder(folder, family):
    """As published: a model of masked language, without a head of classes."""
    torch.manual_seed(5)
    tokenizer = encoder_tokenizer(family)
    tokenizer.save_pretrained(folder)
    make_config, kind, _, settings = FAMILIES[family]
    settings = settings | dict(vocab_size=len(tokenizer) + 3, pad_token_id=tokenizer.pad_token_id)
    if family != "xlnet":  # which has no positions
        settings["max_position_embeddings"] = 64
    kind(make_config(**settings)).save_pretrained(folder)


def types_of(model, made):
    """What a model takes beside a tokenizer's ids: XLNet's last token is of a segment of its own."""
    return {"token_type_ids": made.token_type_ids} if model.config.model_type == "xlnet" else {}


class Generation(unittest.TestCase):
    def test_greedy_is_that_of_transformers(self):
        settings = [dict(), dict(activation_function="gelu", tie_word_embeddings=False,
                                 scale_attn_by_inverse_layer_idx=True, n_inner=70),
                    dict(family="llama"), dict(family="mistral", sliding_window=6),
                    dict(family="qwen2"), dict(family="qwen3", head_dim=10, tie_word_embeddings=True),
                    dict(family="llama", tie_word_embeddings=True, head_dim=10, rope_parameters=dict(
                        rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0,
                        high_freq_factor=4.0, original_max_position_embeddings=16))]
        for more in settings:
            with self.subTest(more), tempfile.TemporaryDirectory() as folder:
                make_model(folder, **more)
                compare_greedy(self, folder)


def compare_greedy(test, folder, count=24):
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for prompt in PROMPTS:
        expected = greedy_by_transformers(model, tokenizer, prompt, count)
        whole = tokenizer.decode(expected, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        told = greedy_by_weft(folder, prompt, count)
        new = len(expected) - len(tokenizer(prompt).input_ids)
        test.assertEqual(prompt + told["text"], whole, prompt)
        test.assertIn(told["tokens"], (new, new + 1))   # the end of the text counts as a token


class Export(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(nodes=2, slots=1)
        cls.cluster.up()
        cls.inputs = cls.cluster.folder / "inputs"
        (cls.inputs / "texts").mkdir(parents=True)
        shutil.copy(TEXTS[0], cls.inputs / "texts/a.txt")
        words = ["weft", "warp", "thread"]
        for name, count in (("rows", 60), ("held", 21)):
            with open(cls.inputs / f"{name}.jsonl", "w", encoding="utf-8") as rows:
                for i in range(count):
                    text = f"{'é' * (i % 4)} {words[i % 3]} number {i * i}"
                    rows.write(json.dumps({"text": text, "label": i % 3}) + "\n")

        with open(cls.inputs / "words.jsonl", "w", encoding="utf-8") as rows:
            for i in range(40):
                rows.write(json.dumps({"text": ["the", words[i % 3].title(), f"Übung{i}", "of", words[i % 2]],
                                       "label": ["O", "B-X", "I-X", "O", "B-X"]}) + "\n")

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None, None, None)

    def train(self, kind, model, tokenizer, others=LANGUAGE_TASK):
        path = self.inputs / "job.yaml"
        text = JOB.replace(LANGUAGE_TASK, others if kind == "multi_task" else "")
        path.write_text(text.replace("KIND", kind).replace("MODEL", model)
                        .replace("TOKENIZER", tokenizer))
        job = json.loads(self.cluster.weft("submit", "-f", path, "--json").stdout)["id"]
        return job, self.cluster.wait(job, "succeeded", timeout=300)

    def export(self, checkpoint, task, *more):
        folder = self.cluster.folder / "-".join(["export", checkpoint, task, *more])
        if not folder.exists():
            self.cluster.weft("export", checkpoint, "--to", folder, "--task", task, *more)
        return folder

    def check_adapter(self, done, base, task, auto):
        """PEFT loads the adapter onto the model that it was trained on; the outputs are those of the merged
        model, which are not the base's."""
        folder = self.export(done["checkpoint"], task, "--adapter")
        config = json.loads((folder / "adapter_config.json").read_text())
        self.assertEqual(config["base_model_name_or_path"], str(base))
        merged = auto.from_pretrained(self.export(done["checkpoint"], task)).eval()
        plain = auto.from_pretrained(base, num_labels=3, ignore_mismatched_sizes=True) \
            if task == "kind" else auto.from_pretrained(base)
        ids = torch.arange(5, 45).view(2, 20)
        with torch.no_grad():
            before = plain.eval()(input_ids=ids).logits
            adapted = PeftModel.from_pretrained(plain, folder).eval()
            for name, parameter in adapted.named_parameters():
                self.assertFalse("lora_B" in name and not parameter.any(), f"{name} was not loaded")
            logits, expected = adapted(input_ids=ids).logits, merged(input_ids=ids).logits
        self.assertLess((logits - expected).abs().max(), 2e-5 * expected.abs().max())
        self.assertGreater((before - expected).abs().max(), 1e-3 * expected.abs().max())

    def check_both_heads(self, job, done, family="gpt2"):
        language = self.export(done["checkpoint"], "lm")
        self.check_loads(language, AutoModelForCausalLM, "causal", family)
        compare_greedy(self, language)
        self.check_perplexity(done["checkpoint"], language)
        classes = self.export(done["checkpoint"], "kind")
        self.check_loads(classes, AutoModelForSequenceClassification, "sequence", family)
        self.check_evaluation(job, classes)
        return language

    def check_loads(self, folder, auto, task, family):
        """Nothing is missing, left over or of another shape; outputs agree with Weft's."""
        model, told = auto.from_pretrained(folder, output_loading_info=True)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
            self.assertFalse(told.get(what), what)
        self.assertEqual(len(AutoTokenizer.from_pretrained(folder)) <= model.config.vocab_size, True)
        self.assertEqual(AutoConfig.from_pretrained(folder).model_type, family)
        _, language_model, classifier, _ = FAMILIES[family]
        kind = TOKEN_CLASSIFIERS[family] if task == "token" else \
            classifier if task == "sequence" else language_model
        with tempfile.TemporaryDirectory() as place:
            shutil.copytree(folder, Path(place) / "hf")
            case = derive(Case("exported", task, family, tokens=23, left=family == "xlnet",
                               recipe=dict(steps=1, warmup=0)), kind, Path(place))
            # Further steps in fp32 are chance: trained on from there, PyTorch's own runs part, too.
            status, report, errors = golden([case], "", "float64")
            self.assertEqual(status, 0, f"{errors}\n{report}")

    def measured(self, model, data, *more):
        return json.loads(self.cluster.weft("evaluate", model, data, *more, "--json").stdout)

    def check_evaluation(self, job, folder):
        """The last evaluation that the job told of, taken again by transformers and by the command line
        from the job's checkpoint and from the folder; each row's classes, too."""
        told = [record["values"] for record in self.cluster.metrics(job)
                if record.get("task") == "kind" and "validation_loss" in record["values"]]
        self.assertTrue(told, "no evaluation among the metrics")
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        held = self.inputs / "held.jsonl"
        loss, hits, expected = 0.0, 0, []
        for line in held.read_text().splitlines():
            row = json.loads(line)
            made = tokenizer(row["text"], return_tensors="pt", truncation=True, max_length=48,
                             return_token_type_ids=True)
            with torch.no_grad():
                logits = model(input_ids=made.input_ids, **types_of(model, made)).logits[0]
            loss -= torch.log_softmax(logits, 0)[row["label"]].item()
            hits += int(logits.argmax().item() == row["label"])
            expected.append(torch.softmax(logits, 0).tolist())
        loss, accuracy, values = loss / len(expected), hits / len(expected), told[-1]
        self.assertAlmostEqual(values["validation_accuracy"], accuracy, places=6)
        self.assertAlmostEqual(values["validation_loss"], loss, delta=1e-4 * loss)
        for measured in (self.measured(job, held, "--task", "kind"),
                         self.measured(folder, held, "--sequence-length", 48)):
            self.assertAlmostEqual(measured["accuracy"], accuracy, places=6)
            self.assertAlmostEqual(measured["loss"], values["validation_loss"], delta=1e-5 * loss)
            self.assertEqual((measured["labels"], measured["sequence_length"]), (len(expected), 48))
        lines = self.cluster.weft("classify", folder, "--file", held, "--json").stdout.splitlines()
        self.assertEqual(len(lines), len(expected))
        for line, probabilities in zip(lines, expected):
            answer = json.loads(line)
            for number, probability in enumerate(probabilities):
                self.assertAlmostEqual(answer["probabilities"][str(number)], probability, delta=1e-4)
            self.assertEqual(answer["probability"], max(answer["probabilities"].values()))

    def check_words(self, job, folder):
        """The loss and accuracy of words as transformers cuts them, and their classes."""
        model = AutoModelForTokenClassification.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if isinstance(tokenizer.backend_tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        loss, hits, count, expected = 0.0, 0, 0, []
        data = self.inputs / "words.jsonl"
        for line in data.read_text().splitlines():
            row = json.loads(line)
            made = tokenizer(row["text"], is_split_into_words=True, return_tensors="pt", return_token_type_ids=True)
            with torch.no_grad():
                logits = model(input_ids=made.input_ids, **types_of(model, made)).logits[0]
            places = [made.word_ids().index(word) for word in range(len(row["text"]))]
            labels = torch.tensor([model.config.label2id[name] for name in row["label"]])
            loss += torch.nn.functional.cross_entropy(logits[places], labels, reduction="sum").item()
            hits += int((logits[places].argmax(-1) == labels).sum())
            count += len(labels)
            expected.append([model.config.id2label[n] for n in logits[places].argmax(-1).tolist()])
        measured = self.measured(job, data, "--task", "tags")
        self.assertEqual(measured["labels"], count)
        self.assertAlmostEqual(measured["loss"], loss / count, delta=1e-4 * loss / count)
        self.assertAlmostEqual(measured["accuracy"], hits / count, places=6)
        self.assertIn("f1", measured)
        lines = self.cluster.weft("classify", folder, "--file", data, "--json").stdout.splitlines()
        self.assertEqual([[word["label"] for word in json.loads(line)["words"]] for line in lines], expected)

    def check_perplexity(self, checkpoint, folder):
        """Of windows that share a token, so that each is predicted once, as transformers does it."""
        held = self.inputs / "held.txt"
        held.write_text(Path(TEXTS[1]).read_text()[:2000])
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(held.read_text()).input_ids + [tokenizer.eos_token_id]
        loss, hits = 0.0, 0
        for start in range(0, len(ids) - 1, 47):
            window = torch.tensor([ids[start:start + 48]])
            with torch.no_grad():
                logits = model(input_ids=window).logits[0, :-1]
            loss += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").item()
            hits += int((logits.argmax(-1) == window[0, 1:]).sum())
        loss /= len(ids) - 1
        measured = self.measured(checkpoint, held, "--task", "lm")
        self.assertEqual(measured["labels"], len(ids) - 1)
        self.assertAlmostEqual(measured["loss"], loss, delta=1e-5 * loss)
        self.assertAlmostEqual(measured["perplexity"], torch.tensor(loss).exp().item(),
                               delta=1e-3 * measured["perplexity"])
        self.assertAlmostEqual(measured["accuracy"], hits / (len(ids) - 1), delta=2 / len(ids))

    def test_an_adapter(self):
        for family, adapter in (
                ("gpt2", "{type: lora, rank: 4, alpha: 16, dropout: 0.1}"),
                ("gpt2", "{type: lora, rank: 4, alpha: 16, dora: true, targets: [c_attn, c_fc]}"),
                ("llama", "{type: lora, rank: 3, rslora: true, targets: [all-linear]}"),
                ("llama", "{type: lora, rank: 3, dora: true, targets: [all-linear]}")):
            with self.subTest(family + adapter):
                folder = self.inputs / f"base-{family}"
                make_model(folder, family, initializer_range=0.02)
                job, done = self.train("multi_task", f"{{from: {folder}}}",
                                       f"adapter: {adapter}")
                self.check_both_heads(job, done, family)
                self.check_adapter(done, folder, "lm", AutoModelForCausalLM)
                self.check_adapter(done, folder, "kind", AutoModelForSequenceClassification)

    def test_an_encoder(self):
        for family in ("bert", "roberta", "distilbert"):
            with self.subTest(family):
                folder = self.inputs / family
                make_encoder(folder, family)
                job, done = self.train("fine_tune", f"{{from: {folder}}}", "")
                classes = self.export(done["checkpoint"], "kind")
                self.check_loads(classes, AutoModelForSequenceClassification, "sequence", family)
                self.check_evaluation(job, classes)

    def test_an_encoder_of_three_tasks(self):
        for family in ("bert", "roberta", "distilbert"):
            with self.subTest(family):
                folder = self.inputs / f"three-{family}"
                make_encoder(folder, family)
                job, done = self.train("multi_task", f"{{from: {folder}}}", "", ENCODER_TASKS)
                masked = self.export(done["checkpoint"], "lm")
                self.check_loads(masked, AutoModelForMaskedLM, "masked", family)
                words = self.export(done["checkpoint"], "tags")
                self.check_loads(words, AutoModelForTokenClassification, "token", family)
                self.check_words(job, words)
                self.check_loads(self.export(done["checkpoint"], "kind"),
                                 AutoModelForSequenceClassification, "sequence", family)

    def test_an_encoder_with_an_order_of_tokens(self):
        folder = self.inputs / "three-xlnet"
        make_encoder(folder, "xlnet")
        job, done = self.train("multi_task", f"{{from: {folder}}}", "", ORDER_TASK + WORDS_TASK)
        language = self.export(done["checkpoint"], "lm")
        self.check_loads(language, XLNetLMHeadModel, "permutation", "xlnet")
        words = self.export(done["checkpoint"], "tags")
        self.check_loads(words, AutoModelForTokenClassification, "token", "xlnet")
        self.check_words(job, words)
        classes = self.export(done["checkpoint"], "kind")
        self.check_loads(classes, AutoModelForSequenceClassification, "sequence", "xlnet")
        self.check_evaluation(job, classes)

    def test_an_encoder_s_adapter(self):
        for family, more in (("bert", ", targets: [all-linear]"), ("distilbert", "")):
            with self.subTest(family):
                folder = self.inputs / f"base-{family}"
                make_encoder(folder, family)
                job, done = self.train("fine_tune", f"{{from: {folder}}}",
                                       f"adapter: {{type: lora, rank: 3, alpha: 12{more}}}")
                classes = self.export(done["checkpoint"], "kind")
                self.check_loads(classes, AutoModelForSequenceClassification, "sequence", family)
                self.check_evaluation(job, classes)
                self.check_adapter(done, folder, "kind", AutoModelForSequenceClassification)

    def test_an_encoder_from_a_configuration(self):
        job, done = self.train(
            "pretrain", "{family: bert, config: {num_hidden_layers: 2, num_attention_heads: 4, "
            "hidden_size: 32, intermediate_size: 50, max_position_embeddings: 64, vocab_size: 257}}",
            "tokenizer: {type: byte}")
        classes = self.export(done["checkpoint"], "kind")
        self.check_loads(classes, AutoModelForSequenceClassification, "sequence", "bert")
        self.check_evaluation(job, classes)

    def test_a_model_from_a_configuration(self):
        job, done = self.train(
            "multi_task", "{family: gpt2, config: {n_layer: 2, n_head: 3, n_embd: 36, n_positions: 64, "
            "vocab_size: 257}}", "tokenizer: {type: byte}")
        self.check_both_heads(job, done)

    def test_a_model_from_transformers(self):
        for family, more in (("gpt2", dict(n_head=3)),
                             # One head of keys, which both ranks hold.
                             ("llama", dict(num_key_value_heads=1, tie_word_embeddings=True)),
                             ("mistral", dict(sliding_window=5)), ("qwen2", dict()),
                             ("qwen3", dict(head_dim=16, attention_bias=True))):
            with self.subTest(family):
                folder = self.inputs / family
                make_model(folder, family, initializer_range=0.02, **more)
                job, done = self.train("multi_task", f"{{from: {folder}}}", "")
                exported = self.check_both_heads(job, done, family)
                tokenizer = AutoTokenizer.from_pretrained(exported)
                before = AutoTokenizer.from_pretrained(folder)
                for prompt in PROMPTS:
                    self.assertEqual(tokenizer(prompt).input_ids, before(prompt).input_ids)


if __name__ == "__main__":
    unittest.main()
