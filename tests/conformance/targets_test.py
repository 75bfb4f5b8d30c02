"""Sources and targets against transformers: a small T5 made from a configuration learns in the real programs on two
nodes, its export loads in transformers unchanged, and both measure the same and write the same; so does a second job
that starts from a folder of transformers with a tokenizer of its own."""
import json
import shutil
import unittest
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedTokenizerFast, T5ForConditionalGeneration

from cluster import Cluster

GOLDEN = Path(__file__).resolve().parents[1] / "fixtures/golden"
WORDS = ("red", "green", "blue", "gray")


def rows(first, count):
    """A text of colors, and the colors in the other order."""
    for number in range(first, first + count):
        colors = [WORDS[(number * 7 + i * (number % 5 + 1)) % 4] for i in range(1 + number % 3)]
        yield {"text": " ".join(colors), "turned": " ".join(reversed(colors))}


def small_tokenizer(folder):
    """128 characters; 0 pads and begins, 1 ends a text, as T5's do."""
    pieces = ["<pad>", "</s>", "<unk>", *map(chr, range(33, 127)), "▁", *map(chr, range(192, 222))]
    tokenizer = Tokenizer(models.BPE(vocab={piece: place for place, piece in enumerate(pieces)}, merges=[],
                                     unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(pieces[:3])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B:1 </s>:1", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>",
                            unk_token="<unk>").save_pretrained(folder)


class Targets(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.set_num_threads(1)
        cls.cluster = Cluster(nodes=2, slots=1)
        cls.cluster.up()
        cls.inputs = cls.cluster.folder / "inputs"
        cls.inputs.mkdir()
        cls.held = list(rows(1000, 15))
        for name, texts in (("train", rows(0, 120)), ("held", cls.held)):
            lines = "".join(json.dumps(row) + "\n" for row in texts)
            (cls.inputs / f"{name}.jsonl").write_text(lines)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None, None, None)

    def submit(self, text):
        path = self.inputs / "job.yaml"
        path.write_text(text)
        done = json.loads(self.cluster.weft("submit", "-f", path, "--wait", "--json", timeout=900).stdout)
        self.assertEqual(done["state"], "succeeded", done)
        return done["id"]

    def data(self):
        return (f"{{train: {self.inputs}/train.jsonl, validation: {self.inputs}/held.jsonl, format: jsonl, "
                "target: turned}")

    def validation(self, job):
        return [record["values"] for record in self.cluster.metrics(job) if "validation_loss" in record["values"]][-1]

    def loaded(self, folder):
        model, told = AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
            self.assertFalse(told.get(what), what)
        return model.eval(), AutoTokenizer.from_pretrained(folder)

    def compare(self, job, folder):
        """Loss of the held-out rows and what is written for them, by transformers and by the programs."""
        self.cluster.weft("export", job, "--to", folder)
        model, tokenizer = self.loaded(folder)
        total = hits = count = 0
        for row in self.held:
            source = tokenizer(row["text"], return_tensors="pt").input_ids
            target = tokenizer(row["turned"]).input_ids
            if target[-1] != tokenizer.eos_token_id:
                target.append(tokenizer.eos_token_id)
            labels = torch.tensor([target])
            with torch.no_grad():
                logits = model(input_ids=source, labels=labels).logits[0]
            total += torch.nn.functional.cross_entropy(logits, labels[0], reduction="sum").item()
            hits += (logits.argmax(1) == labels[0]).sum().item()
            count += len(target)
        told = self.validation(job)
        self.assertEqual(told["validation_labels"], count)
        self.assertAlmostEqual(told["validation_loss"], total / count, delta=1e-4 * total / count + 1e-6)
        self.assertAlmostEqual(told["validation_accuracy"], hits / count, places=6)
        for given in (job, folder):
            more = [] if given == job else ["--text-pair-key", "turned"]
            measured = json.loads(self.cluster.weft("evaluate", given, self.inputs / "held.jsonl", *more, "--json").stdout)
            self.assertAlmostEqual(measured["loss"], told["validation_loss"], delta=1e-4 * told["validation_loss"] + 1e-6)
            self.assertEqual((measured["type"], measured["labels"]), ("seq2seq", count))
        for row in self.held[:5]:
            self.expect_written(model, tokenizer, folder, row["text"])
        return hits / count

    def expect_written(self, model, tokenizer, folder, prompt, count=24):
        """The greedy answer of transformers' generate()."""
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        wanted = model.generate(input_ids=ids, do_sample=False, num_beams=1, max_new_tokens=count)[0, 1:]
        written = json.loads(self.cluster.weft("generate", folder, "--prompt", prompt, "--max-tokens", count,
                                               "--temperature", 0, "--json").stdout)
        self.assertEqual(written["text"], tokenizer.decode(wanted, skip_special_tokens=True), prompt)
        ended = wanted[-1].item() == tokenizer.eos_token_id
        self.assertEqual(written["tokens"], len(wanted) - int(ended))

    def test_learned_on_two_nodes_and_exported(self):
        job = self.submit(f"""
kind: pretrain
name: turned
model:
  family: t5
  config: {{num_layers: 2, num_decoder_layers: 2, d_model: 32, d_kv: 8, d_ff: 64, num_heads: 4, vocab_size: 260,
           relative_attention_num_buckets: 8, relative_attention_max_distance: 16, dropout_rate: 0.0}}
tokenizer: {{type: byte}}
tasks: [{{type: seq2seq, data: {self.data()}}}]
training: {{steps: 60, batch_size: 12, micro_batch_size: 4, sequence_length: 32, target_length: 24, evaluate_every: 60,
           gradient_clip: 1.0, optimizer: {{learning_rate: 0.01}}}}
checkpoint: {{every_steps: 60}}
parallel: {{data: 2, zero: 3}}
resources: {{slots: 2, nodes: 2}}
""")
        self.assertGreater(self.compare(job, self.cluster.folder / "export"), 0.3)

    def test_folders_of_transformers(self):
        """Tied and not; the golden checkpoints, of which the second has the keys of transformers 4."""
        for name in ("t5-relu", "t5-v1_1"):
            with self.subTest(case=name):
                folder = self.cluster.folder / name
                shutil.copytree(GOLDEN / name / "hf", folder)
                small_tokenizer(folder)
                model, tokenizer = T5ForConditionalGeneration.from_pretrained(folder).eval(), \
                    AutoTokenizer.from_pretrained(folder)
                for prompt in ("a", "The quick brown fox", "weft", "12 34 56 78 90 and so on"):
                    self.expect_written(model, tokenizer, folder, prompt)
                job = self.submit(f"""
kind: fine_tune
name: tuned
model: {{from: {folder}}}
tasks: [{{type: seq2seq, data: {self.data()}}}]
training: {{steps: 6, batch_size: 8, sequence_length: 24, evaluate_every: 6, optimizer: {{learning_rate: 0.002}}}}
checkpoint: {{every_steps: 6}}
parallel: {{tensor: 2}}
resources: {{slots: 2, nodes: 2}}
""")
                self.compare(job, self.cluster.folder / f"{name}-tuned")

    def test_fine_tune_writes_the_job(self):
        folder = self.cluster.folder / "small"
        shutil.copytree(GOLDEN / "t5-relu/hf", folder)
        small_tokenizer(folder)
        done = self.cluster.weft("fine-tune", folder, self.inputs / "train.jsonl", "--text-pair", "turned", "--steps", 3,
                                 "--file", self.cluster.folder / "small.yaml", "--wait", timeout=600)
        self.assertIn("seq2seq (the model is an encoder and a decoder)", done.stdout)
        self.assertIn('target: "turned"', (self.cluster.folder / "small.yaml").read_text())
        wrong = self.cluster.weft("fine-tune", folder, self.inputs / "train.jsonl", "--dry-run", check=False)
        self.assertIn("must have rows with the key 'target'", wrong.stderr)


if __name__ == "__main__":
    unittest.main()
