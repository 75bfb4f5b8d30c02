"""Choices against transformers: encoders learn them in the real programs on two nodes, their checkpoints are
exported, and transformers loads the folders unchanged."""
import json
import unittest

import torch
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

    def job(self, family, base):
        path = self.inputs / f"{family}.yaml"
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
""")
        return path

    def test_learned_and_exported(self):
        for family in ("bert", "roberta", "distilbert", "xlnet"):
            with self.subTest(family):
                base, folder = self.inputs / family, self.cluster.folder / f"export-{family}"
                make_encoder(base, family)
                done = json.loads(self.cluster.weft("submit", "-f", self.job(family, base), "--wait", "--json").stdout)
                self.assertEqual(done["state"], "succeeded")
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
                    batch = tokenizer([row["text"]] * CHOICES, row["choices"], return_tensors="pt", padding=True,
                                      truncation="longest_first", max_length=LENGTH,
                                      return_token_type_ids=family in ("bert", "xlnet"))
                    with torch.no_grad():
                        logits = model(**{key: value.unsqueeze(0) for key, value in batch.items()}).logits[0]
                    loss -= torch.log_softmax(logits, 0)[row["label"]].item()
                    hits += int(logits.argmax() == row["label"])
                loss /= len(self.held)
                self.assertAlmostEqual(told["validation_loss"], loss, delta=1e-4 * loss)
                self.assertAlmostEqual(told["validation_accuracy"], hits / len(self.held), places=6)


if __name__ == "__main__":
    unittest.main()
