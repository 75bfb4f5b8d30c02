"""Answers to questions against transformers: encoders learn them in the real programs on two nodes, their checkpoints
are exported, transformers loads the folders unchanged, and code in the way of its run_qa.py (windows with offsets by
the fast tokenizers, answers of whole questions, SQuAD's scores) finds what the trainer, `weft evaluate` and
`weft answer` tell."""
import collections
import json
import re
import string
import unittest

import torch
from peft import PeftModel
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from cluster import Cluster
from export_test import make_encoder

LENGTH, STRIDE, BATCH = 40, 7, 12
WORDS = ["license", "copy", "program", "work", "source", "change"]
MESHES = {"bert": "sequence: 2", "roberta": "data: 2", "distilbert": "tensor: 2"}


def normalized(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1(wanted, found):
    wanted, found = normalized(wanted).split(), normalized(found).split()
    if not wanted or not found:
        return float(wanted == found)
    same = sum((collections.Counter(wanted) & collections.Counter(found)).values())
    return 2 * same / (len(wanted) + len(found))


def windows_of(family, tokenizer, rows):
    """As run_qa.py's features; the loops over offsets end where the window does."""
    features = []
    for number, row in enumerate(rows):
        encoded = tokenizer(row["question"].lstrip(), row["context"], truncation="only_second", max_length=LENGTH,
                            stride=STRIDE, return_overflowing_tokens=True, return_offsets_mapping=True,
                            return_token_type_ids=family == "bert")
        for i, ids in enumerate(encoded["input_ids"]):
            sequence, offsets = encoded.sequence_ids(i), encoded["offset_mapping"][i]
            first = sequence.index(1)
            last = len(sequence) - 1 - sequence[::-1].index(1)
            start = end = 0
            if row["answers"]["text"]:
                begins = row["answers"]["answer_start"][0]
                ends = begins + len(row["answers"]["text"][0])
                if offsets[first][0] <= begins and offsets[last][1] >= ends:
                    start, end = first, last
                    while start <= last and offsets[start][0] <= begins:
                        start += 1
                    while end >= first and offsets[end][1] >= ends:
                        end -= 1
                    start, end = start - 1, end + 1
            features.append({"row": number, "ids": ids, "first": first, "last": last, "offsets": offsets, "start": start,
                             "end": end, "types": encoded["token_type_ids"][i] if family == "bert" else None})
    return features


def batches(features):
    """Padded to the longest, rounded up to a multiple of 8, as rows are here: the softmax sees padding."""
    for at in range(0, len(features), BATCH):
        some = features[at:at + BATCH]
        width = min(LENGTH, (max(len(f["ids"]) for f in some) + 7) // 8 * 8)
        yield some, width


def logits_of(model, pad, some, width):
    def padded(lists, value):
        return torch.tensor([each + [value] * (width - len(each)) for each in lists])
    inputs = {"input_ids": padded([f["ids"] for f in some], pad),
              "attention_mask": padded([[1] * len(f["ids"]) for f in some], 0)}
    if some[0]["types"] is not None:
        inputs["token_type_ids"] = padded([f["types"] for f in some], 0)
    with torch.no_grad():
        given = model(**inputs)
    return given.start_logits, given.end_logits


def best_span(feature, starts, ends):
    count = len(feature["ids"])
    best = None
    likely = [torch.argsort(values[:count], descending=True)[:20].tolist() for values in (starts, ends)]
    for start in likely[0]:
        for end in likely[1]:
            if feature["first"] <= start <= end <= feature["last"] and end - start < 30:
                score = (starts[start] + ends[end]).item()
                if best is None or score > best[0]:
                    best = score, feature["offsets"][start][0], feature["offsets"][end][1]
    return best


def measured(family, model, tokenizer, rows):
    """Loss, accuracy, exact match and F1; and of each row its likeliest answer."""
    loss = hits = count = 0
    found, none, told = {}, {}, {}
    for some, width in batches(windows_of(family, tokenizer, rows)):
        logits = logits_of(model, tokenizer.pad_token_id, some, width)
        for i, feature in enumerate(some):
            ends = [values[i] for values in logits]
            labels = feature["start"], feature["end"]
            loss -= sum(torch.log_softmax(values, 0)[label].item() for values, label in zip(ends, labels)) / 2
            hits += all(values.argmax() == label for values, label in zip(ends, labels))
            count += 1
            row, best = feature["row"], best_span(feature, *ends)
            none[row] = min(none.get(row, 1e9), (ends[0][0] + ends[1][0]).item())
            if best and (row not in found or best[0] > found[row][0]):
                found[row] = best
            seen = [0, *range(feature["first"], feature["last"] + 1)]
            whole = sum(torch.logsumexp(values[seen], 0).item() for values in ends)
            if best:
                score = torch.exp(torch.tensor(best[0] - whole)).item()
                if found[row] is best:
                    told[row] = {"score": score, "start": best[1], "end": best[2]}
    exact = overlap = 0
    for number, row in enumerate(rows):
        best = found.get(number)
        text = "" if best is None or none[number] > best[0] else row["context"][best[1]:best[2]]
        wanted = row["answers"]["text"] or [""]
        exact += max(normalized(text) == normalized(each) for each in wanted)
        overlap += max(f1(each, text) for each in wanted)
    return {"loss": loss / count, "accuracy": hits / count, "exact_match": exact / len(rows), "f1": overlap / len(rows),
            "labels": count}, told


def make_answerer(folder, family):
    """RoBERTa's post-processor as published, without add_prefix_space."""
    make_encoder(folder, family)
    path = folder / "tokenizer.json"
    file = json.loads(path.read_text(encoding="utf-8"))
    if family == "roberta":
        file["post_processor"]["add_prefix_space"] = False
    path.write_text(json.dumps(file), encoding="utf-8")


class Answers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(nodes=2, slots=1)
        cls.cluster.up()
        cls.inputs = cls.cluster.folder / "inputs"
        cls.inputs.mkdir(parents=True)
        for name, count in (("train", 60), ("held", 21)):
            rows = []
            for i in range(count):
                before = "".join(f"Some {WORDS[(i + k) % 6]}, é. " for k in range(i % 7))
                answer = f"the Key {WORDS[i % 6]}"
                answers = {"text": [answer, "Key"], "answer_start": [len(before), len(before) + 4]}
                if i % 7 == 5:
                    answer, answers = "nothing at all", {"text": [], "answer_start": []}
                behind = "".join(f" and a {WORDS[(i * 5 + k) % 6]}" for k in range(i % 5))
                rows.append({"question": f" Which {WORDS[i % 6]} is it?", "context": before + answer + behind + ".",
                             "answers": answers})
            cls.write(name, rows)
        cls.held = rows

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None, None, None)

    @classmethod
    def write(cls, name, rows):
        (cls.inputs / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def weft(self, *arguments):
        return json.loads(self.cluster.weft(*arguments, "--json").stdout)

    def learn(self, name, base, mesh, more="", rate=0.01, steps=60):
        path = self.inputs / f"{name}.yaml"
        path.write_text(f"""
kind: fine_tune
name: answers-{name}
model: {{from: {base}}}
{more}
tasks:
  - type: question_answering
    data: {{train: {self.inputs}/train.jsonl, validation: {self.inputs}/held.jsonl, format: jsonl, stride: {STRIDE}}}
training: {{steps: {steps}, batch_size: {BATCH}, micro_batch_size: 3, sequence_length: {LENGTH},
           optimizer: {{learning_rate: {rate}}}, evaluate_every: {steps}}}
checkpoint: {{every_steps: {steps}}}
parallel: {{{mesh}}}
resources: {{slots: 2, nodes: 2}}
""")
        done = self.weft("submit", "-f", path, "--wait")
        self.assertEqual(done["state"], "succeeded")
        return done["id"], [record["values"] for record in self.cluster.metrics(done["id"])
                            if "validation_loss" in record["values"]][-1]

    def same(self, told, expected, prefix=""):
        self.assertAlmostEqual(told[prefix + "loss"], expected["loss"], delta=1e-4 * expected["loss"])
        for name in ("accuracy", "exact_match", "f1", "labels"):
            self.assertAlmostEqual(told[prefix + name], expected[name], places=6, msg=name)

    def test_learned_and_exported(self):
        for family, mesh in MESHES.items():
            with self.subTest(family):
                base, folder = self.inputs / family, self.cluster.folder / f"export-{family}"
                make_answerer(base, family)
                job, told = self.learn(family, base, mesh)
                self.cluster.weft("export", job, "--to", folder)
                model, loaded = AutoModelForQuestionAnswering.from_pretrained(folder, output_loading_info=True)
                for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
                    self.assertFalse(loaded.get(what), what)
                tokenizer = AutoTokenizer.from_pretrained(folder)
                expected, likeliest = measured(family, model.eval(), tokenizer, self.held)
                self.assertGreater(expected["labels"], len(self.held) + 5)  # windows
                self.assertGreater(expected["exact_match"], 0.5)
                self.same(told, expected, "validation_")
                held = self.inputs / "held.jsonl"
                self.same(self.weft("evaluate", job, held), expected)
                self.same(self.weft("evaluate", folder, held, "--sequence-length", LENGTH, "--batch-size", BATCH),
                          measured_with_default_stride(family, model, tokenizer, self.held))
                self.check_answers(job, likeliest)
                # From the folder the head goes on.
                _, again = self.learn(f"again-{family}", folder, mesh, rate=1e-12, steps=1)
                self.same(again, expected, "validation_")

    def check_answers(self, job, likeliest):
        out = self.cluster.weft("answer", job, "--file", self.inputs / "held.jsonl", "--json").stdout
        lines = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(len(lines), len(self.held))
        for number, (row, told) in enumerate(zip(self.held, lines)):
            wanted = likeliest[number]
            self.assertEqual((told["line"], told["question"]), (number + 1, row["question"]))
            self.assertEqual((told["start"], told["end"]), (wanted["start"], wanted["end"]))
            self.assertEqual(told["answer"], row["context"][told["start"]:told["end"]])
            self.assertAlmostEqual(told["score"], wanted["score"], places=4)
        row = self.held[6]
        told = self.weft("answer", job, "--question", row["question"], "--context", row["context"])
        self.assertEqual((told["start"], told["end"]), (lines[6]["start"], lines[6]["end"]))
        row = self.held[5]
        told = self.weft("answer", job, "--question", row["question"], "--context", row["context"], "--allow-none")
        self.assertEqual(told["answer"], "")

    def test_adapter_is_of_peft(self):
        base, folder = self.inputs / "adapted", self.cluster.folder / "export-adapter"
        make_answerer(base, "bert")
        job, told = self.learn("adapted", base, "data: 2", "adapter: {type: lora, rank: 4}")
        self.cluster.weft("export", job, "--adapter", "--to", folder)
        self.assertEqual(json.loads((folder / "adapter_config.json").read_text())["task_type"], "QUESTION_ANS")
        # The forward pass of PEFT's own class drops token types, that of the model within does not.
        model = PeftModel.from_pretrained(AutoModelForQuestionAnswering.from_pretrained(base), folder).eval().base_model
        expected, _ = measured("bert", model, AutoTokenizer.from_pretrained(base), self.held)
        self.same(told, expected, "validation_")

    def test_fine_tune_tells_questions_by_their_keys(self):
        base = self.inputs / "told"
        make_answerer(base, "roberta")
        spec = self.weft("fine-tune", base, self.inputs / "train.jsonl", "--dry-run")
        self.assertEqual(spec["tasks"][0]["type"], "question_answering")
        self.assertEqual([spec["tasks"][0]["data"][key] for key in ("text", "text_pair", "label")],
                         ["question", "context", "answers"])


def measured_with_default_stride(family, model, tokenizer, rows):
    global STRIDE
    kept, STRIDE = STRIDE, LENGTH // 3
    try:
        return measured(family, model, tokenizer, rows)[0]
    finally:
        STRIDE = kept


if __name__ == "__main__":
    unittest.main()
