"""Pairs of texts, classified and embedded, against transformers: encoders are tuned on them by the real
programs, their checkpoints are exported, and transformers loads the folders unchanged."""
import json
import unittest

import torch
from peft import PeftModel
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from cluster import Cluster
from export_test import make_encoder

LENGTH = 32
WORDS = ["license", "copy", "program", "work", "source", "change"]


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def encode(family, tokenizer, *texts):
    """The tokenizers of these tests do not say that BERT and XLNet take types."""
    return tokenizer(*texts, return_tensors="pt", truncation="longest_first", max_length=LENGTH,
                     return_token_type_ids=family in ("bert", "xlnet"))


class Pairs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(nodes=2, slots=1)
        cls.cluster.up()
        cls.inputs = cls.cluster.folder / "inputs"
        cls.inputs.mkdir(parents=True)
        for name, count in (("train", 60), ("held", 21)):  # the last rows are cut
            with open(cls.inputs / f"{name}.jsonl", "w", encoding="utf-8") as rows:
                for i in range(count):
                    first, second = WORDS[i % 6], WORDS[(i + i % 2) % 6]
                    rows.write(json.dumps({
                        "text": f"the {first} number {i} " * (1 + i // 8), "second": f"any {second}, é {i} " * (1 + i // 5),
                        "label": "same" if first == second else "other"}) + "\n")

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None, None, None)

    def weft(self, *arguments):
        return self.cluster.weft(*arguments).stdout

    def tune(self, family, *more):
        base = self.inputs / f"{family}-{len(more)}"
        make_encoder(base, family)
        done = json.loads(self.weft(
            "fine-tune", base, self.inputs / "train.jsonl", "--validation", self.inputs / "held.jsonl",
            "--text-pair", "second", "--sequence-length", LENGTH, "--steps", 20, "--learning-rate", 3e-3,
            "--slots", 2, "--file", self.inputs / f"{base.name}.yaml", "--wait", "--json", *more))
        self.assertEqual(done["state"], "succeeded")
        folder = self.cluster.folder / f"export-{family}-{len(more)}"
        self.weft("export", done["id"], "--to", folder)
        return done["id"], folder

    def told(self, job):
        """Of the best checkpoint, which a job's name stands for."""
        return min((record["values"] for record in self.cluster.metrics(job) if "validation_loss" in record["values"]),
                   key=lambda values: values["validation_loss"])

    def check_evaluation(self, job, folder, loss, accuracy):
        held, told = self.inputs / "held.jsonl", self.told(job)
        found = json.loads(self.weft("evaluate", job, held, "--json"))
        self.assertAlmostEqual(found["loss"], loss, delta=1e-4 * loss)
        self.assertAlmostEqual(found["loss"], told["validation_loss"], delta=1e-5 * loss)
        self.assertAlmostEqual(found["accuracy"], accuracy, places=6)
        self.assertAlmostEqual(found["accuracy"], told["validation_accuracy"], places=6)

    def test_classified(self):
        for family in ("bert", "roberta", "distilbert", "xlnet"):
            with self.subTest(family):
                job, folder = self.tune(family)
                model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
                tokenizer = AutoTokenizer.from_pretrained(folder)
                rows, expected, loss, hits = read(self.inputs / "held.jsonl"), [], 0.0, 0
                for row in rows:
                    with torch.no_grad():
                        shares = torch.softmax(model(**encode(family, tokenizer, row["text"], row["second"])).logits[0], 0)
                    label = model.config.label2id[row["label"]]
                    loss, hits = loss - shares[label].log().item(), hits + int(shares.argmax() == label)
                    expected.append({name: shares[at].item() for name, at in model.config.label2id.items()})
                self.check_evaluation(job, folder, loss / len(rows), hits / len(rows))
                given = ("--file", self.inputs / "held.jsonl", "--text-pair-key", "second",
                         "--sequence-length", LENGTH)
                answers = [json.loads(line) for line in self.weft("classify", folder, *given, "--json").splitlines()]
                self.assertEqual(len(answers), len(rows))
                self.assertGreater(answers[-1]["dropped_tokens"], 0)
                for answer, shares in zip(answers, expected):
                    for name, share in shares.items():
                        self.assertAlmostEqual(answer["probabilities"][name], share, delta=1e-4)
                [one] = self.weft("classify", job, "--text", rows[3]["text"], "--text-pair", rows[3]["second"],
                                  "--json").splitlines()
                one = json.loads(one)
                self.assertEqual((one["text"], one["text_pair"]), (rows[3]["text"], rows[3]["second"]))
                self.assertAlmostEqual(one["probabilities"]["same"], expected[3]["same"], delta=1e-4)

    def test_embedded(self):
        for family in ("bert", "roberta", "distilbert", "xlnet"):
            with self.subTest(family):
                job, folder = self.tune(family, "--task", "embedding")
                model, told = AutoModel.from_pretrained(folder, output_loading_info=True)
                for what in ("unexpected_keys", "mismatched_keys", "error_msgs"):
                    self.assertFalse(told.get(what), what)
                self.assertTrue(all("pooler." in name for name in told["missing_keys"]), told["missing_keys"])
                self.assertEqual([module["path"] for module in json.loads((folder / "modules.json").read_text())],
                                 ["", "1_Pooling", "2_Normalize"])
                pooling = json.loads((folder / "1_Pooling/config.json").read_text())
                self.assertEqual((pooling["word_embedding_dimension"], pooling["pooling_mode_mean_tokens"]),
                                 (36, True))
                model.eval()
                tokenizer = AutoTokenizer.from_pretrained(folder)

                def vector(text):
                    with torch.no_grad():
                        hidden = model(**encode(family, tokenizer, text)).last_hidden_state[0]
                    return torch.nn.functional.normalize(hidden.mean(0), dim=0)

                rows = read(self.inputs / "held.jsonl")
                first, second = (torch.stack([vector(row[key]) for row in rows]) for key in ("text", "second"))
                loss, hits = 0.0, 0
                for start in range(0, len(rows), 4):  # the job's 8 sequences a step
                    scores = 20 * first[start:start + 4] @ second[start:start + 4].T
                    own = torch.arange(len(scores))
                    loss += torch.nn.functional.cross_entropy(scores, own, reduction="sum").item()
                    hits += int((scores.argmax(1) == own).sum())
                self.check_evaluation(job, folder, loss / len(rows), hits / len(rows))
                lines = self.weft("embed", folder, "--file", self.inputs / "held.jsonl", "--sequence-length", LENGTH,
                                  "--json").splitlines()
                found = torch.tensor([json.loads(line)["embedding"] for line in lines])
                self.assertLess((found - first).abs().max().item(), 1e-4)

    def test_an_embeddings_adapter(self):
        for family in ("bert", "roberta", "distilbert"):
            with self.subTest(family):
                job, folder = self.tune(family, "--task", "embedding", "--lora-rank", 4)
                self.weft("export", job, "--adapter", "--to", self.cluster.folder / f"adapter-{family}")
                batch = encode(family, AutoTokenizer.from_pretrained(folder), "the program number 3")

                def hidden(model):
                    with torch.no_grad():
                        return model.eval()(**batch).last_hidden_state

                base = self.inputs / f"{family}-4"
                merged, before = hidden(AutoModel.from_pretrained(folder)), hidden(AutoModel.from_pretrained(base))
                adapted = hidden(PeftModel.from_pretrained(AutoModel.from_pretrained(base),
                                                           self.cluster.folder / f"adapter-{family}"))
                self.assertGreater((merged - before).abs().max().item(), 1e-3)
                self.assertLess((merged - adapted).abs().max().item(), 1e-5)


if __name__ == "__main__":
    unittest.main()
