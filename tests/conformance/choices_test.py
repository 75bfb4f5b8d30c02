"""Choices against transformers: encoders learn them in the real programs on two nodes, their checkpoints are
exported, and transformers loads the folders unchanged, PEFT their adapters."""
import json
import unittest

import torch
from peft import PeftModel
from transformers import AutoModelForMultipleChoice, AutoTokenizer

from cluster import Cluster
from export_test import make_encoder

LENGTH = 32
CHOICES = 3
WORDS = ["license", "copy", "program", "work", "source", "change"]


class Choices(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(nodes=2, slots=1)
        cls.cluster.up()
        cls.inputs = cls.cluster.folder / "inputs"
        cls.inputs.mkdir(parents=True)
        for name, count in (("train", 60), ("held", 21)):
            rows = []
            for i in range(count):
                right = i % CHOICES
                choices = [f"any {WORDS[(i + (k - right) * 2) % 6]}, é" * (1 + (i + k) % 4) for k in range(CHOICES)]
                rows.append({"text": f"the {WORDS[i % 6]} number {i} " * (1 + i // 15), "choices": choices, "label": right})
            (cls.inputs / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        cls.held = rows

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None, None, None)

    def job(self, family, base, more=""):
        path = self.inputs / f"{family}{len(more)}.yaml"
        path.write_text(f"""
kind: fine_tune
name: choices-{family}
model: {{from: {base}}}
tasks:
  - type: multiple_choice
    labels: {CHOICES}
    data: {{train: {self.inputs}/train.jsonl, validation: {self.inputs}/held.jsonl, format: jsonl}}
training: {{steps: 60, batch_size: 12, sequence_length: {LENGTH}, optimizer: {{learning_rate: 0.01}}, evaluate_every: 60}}
checkpoint: {{every_steps: 60}}
parallel: {{data: 2}}
resources: {{slots: 2, nodes: 2}}
{more}
""")
        return path

    def trained(self, *job):
        done = json.loads(self.cluster.weft("submit", "-f", self.job(*job), "--wait", "--json").stdout)
        self.assertEqual(done["state"], "succeeded")
        return done

    @staticmethod
    def batch_of(tokenizer, family, row):
        """A question as a batch of one."""
        batch = tokenizer([row["text"]] * CHOICES, row["choices"], return_tensors="pt", padding=True,
                          truncation="longest_first", max_length=LENGTH,
                          return_token_type_ids=family in ("bert", "xlnet"))
        return {key: value.unsqueeze(0) for key, value in batch.items()}

    def test_learned_and_exported(self):
        for family in ("bert", "roberta", "distilbert", "xlnet"):
            with self.subTest(family):
                base, folder = self.inputs / family, self.cluster.folder / f"export-{family}"
                make_encoder(base, family)
                done = self.trained(family, base)
                told = [record["values"] for record in self.cluster.metrics(done["id"])
                        if "validation_loss" in record["values"]][-1]
                self.cluster.weft("export", done["id"], "--to", folder)
                model, loaded = AutoModelForMultipleChoice.from_pretrained(folder, output_loading_info=True)
                for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
                    self.assertFalse(loaded.get(what), what)
                model.eval()
                tokenizer = AutoTokenizer.from_pretrained(folder)
                loss, hits = 0.0, 0
                for row in self.held:
                    with torch.no_grad():
                        logits = model(**self.batch_of(tokenizer, family, row)).logits[0]
                    loss -= torch.log_softmax(logits, 0)[row["label"]].item()
                    hits += int(logits.argmax() == row["label"])
                loss /= len(self.held)
                self.assertAlmostEqual(told["validation_loss"], loss, delta=1e-4 * loss)
                self.assertAlmostEqual(told["validation_accuracy"], hits / len(self.held), places=6)
                for measured in (done["checkpoint"], folder):
                    found = json.loads(self.cluster.weft(
                        "evaluate", measured, self.inputs / "held.jsonl", "--sequence-length", str(LENGTH), "--json").stdout)
                    self.assertAlmostEqual(found["loss"], told["validation_loss"], delta=1e-5 * loss)
                    self.assertEqual(found["labels"], len(self.held))
                    self.assertAlmostEqual(found["accuracy"], told["validation_accuracy"], places=6)

    def test_an_adapter(self):
        for family in ("bert", "roberta", "distilbert"):
            with self.subTest(family):
                base = self.inputs / f"adapted-{family}"
                make_encoder(base, family)
                done = self.trained(family, base, "adapter: {type: lora, rank: 3, alpha: 12}")
                folders = [self.cluster.folder / f"{name}-{family}" for name in ("merged", "adapter")]
                self.cluster.weft("export", done["id"], "--to", folders[0])
                self.cluster.weft("export", done["id"], "--to", folders[1], "--adapter")
                merged = AutoModelForMultipleChoice.from_pretrained(folders[0]).eval()
                plain = AutoModelForMultipleChoice.from_pretrained(base).eval()
                tokenizer = AutoTokenizer.from_pretrained(folders[0])
                batches = [self.batch_of(tokenizer, family, row) for row in self.held]
                with torch.no_grad():
                    before = torch.cat([plain(**batch).logits for batch in batches])
                    adapted = PeftModel.from_pretrained(plain, folders[1]).eval()
                    logits = torch.cat([adapted(**batch).logits for batch in batches])
                    expected = torch.cat([merged(**batch).logits for batch in batches])
                self.assertLess((logits - expected).abs().max(), 2e-5 * expected.abs().max())
                self.assertGreater((before - expected).abs().max(), 1e-3 * expected.abs().max())


if __name__ == "__main__":
    unittest.main()
