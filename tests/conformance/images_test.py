"""Images against transformers: a small ViT made from a configuration learns shapes in the real programs on two nodes,
its export loads in transformers unchanged with its preprocessor, and both see the same in the held-out images; so does
a second job that starts from a folder with a preprocessor of its own."""
import json
import unittest
import warnings

import torch
from peft import PeftModel
from PIL import Image, ImageDraw
from transformers import AutoImageProcessor, AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from cluster import Cluster

SHAPES = ("circle", "cross", "square")
SIZE, PATCH = 32, 8


def draw(shape, number):
    """Another place, size and color by its number."""
    side = 40 + number % 5
    image = Image.new("RGB", (side, side + number % 3), (number * 7 % 60, number * 11 % 60, number * 13 % 60))
    pen = ImageDraw.Draw(image)
    color = (150 + number * 17 % 100, 150 + number * 31 % 100, 150 + number * 41 % 100)
    left, top, width = 6 + number % 4, 5 + number // 2 % 5, 22 + number % 7
    box = (left, top, left + width, top + width)
    if shape == "circle":
        pen.ellipse(box, outline=color, width=4)
    elif shape == "square":
        pen.rectangle(box, outline=color, width=4)
    else:
        pen.line(box, fill=color, width=4)
        pen.line((left, top + width, left + width, top), fill=color, width=4)
    return image


class Images(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(nodes=2, slots=1)
        cls.cluster.up()
        cls.inputs = cls.cluster.folder / "inputs"
        cls.held = []
        for name, count, first in (("train", 24, 0), ("held", 8, 100)):
            for label, shape in enumerate(SHAPES):
                folder = cls.inputs / name / shape
                folder.mkdir(parents=True)
                for number in range(first, first + count):
                    kind = ("png", "jpg", "jpeg")[number % 3]
                    path = folder / f"{number:03}.{kind}"
                    image = draw(shape, number)
                    (image.convert("L") if number % 5 == 0 else image).save(path)
                    if name == "held":
                        cls.held.append((path, label))

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None, None, None)

    def submit(self, text):
        path = self.inputs / "job.yaml"
        path.write_text(text)
        done = json.loads(self.cluster.weft("submit", "-f", path, "--wait", "--json", timeout=900).stdout)
        self.assertEqual(done["state"], "succeeded", done)
        return done["id"]

    def data(self, more=""):
        return f"{{train: {self.inputs}/train, validation: {self.inputs}/held, format: images{more}}}"

    def learned(self, mesh, slots):
        return self.submit(f"""
kind: pretrain
name: shapes
model:
  family: vit
  config: {{image_size: {SIZE}, patch_size: {PATCH}, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4,
           intermediate_size: 64}}
tasks: [{{type: image_classification, labels: 3, data: {self.data(", augment: false")}}}]
training: {{steps: 120, batch_size: 24, optimizer: {{learning_rate: 0.003}}, evaluate_every: 120}}
checkpoint: {{every_steps: 120}}
parallel: {mesh}
resources: {{slots: {slots}, nodes: {slots}}}
""")

    def validation(self, job):
        return [record["values"] for record in self.cluster.metrics(job) if "validation_loss" in record["values"]][-1]

    def compare(self, job, folder, told):
        """Loss and classes of the held-out images by transformers and by the programs."""
        self.cluster.weft("export", job, "--to", folder)
        model, loaded = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
            self.assertFalse(loaded.get(what), what)
        self.assertEqual([model.config.id2label[i] for i in range(3)], list(SHAPES))
        processor = AutoImageProcessor.from_pretrained(folder)
        pixels = processor([Image.open(path).convert("RGB") for path, _ in self.held], return_tensors="pt").pixel_values
        with torch.no_grad():
            logits = model.eval()(pixel_values=pixels).logits
        labels = torch.tensor([label for _, label in self.held])
        loss = torch.nn.functional.cross_entropy(logits, labels).item()
        hits = (logits.argmax(1) == labels).float().mean().item()
        self.assertAlmostEqual(told["validation_loss"], loss, delta=1e-3 * loss + 1e-4)
        self.assertAlmostEqual(told["validation_accuracy"], hits, places=6)
        paths = [argument for path, _ in self.held for argument in ("--image", path)]
        lines = self.cluster.weft("classify", folder, *paths, "--json").stdout.splitlines()
        shares = torch.softmax(logits, 1)
        for line, (path, _), row in zip(lines, self.held, shares, strict=True):
            answer = json.loads(line)
            self.assertEqual(answer["file"], str(path))
            self.assertEqual(answer["label"], SHAPES[int(row.argmax())])
            for name, share in zip(SHAPES, row.tolist()):
                self.assertAlmostEqual(answer["probabilities"][name], share, delta=2e-3)
        for given in (job, folder):
            measured = json.loads(self.cluster.weft("evaluate", given, self.inputs / "held", "--json").stdout)
            self.assertAlmostEqual(measured["loss"], told["validation_loss"], delta=1e-4 * loss + 1e-6)
            self.assertAlmostEqual(measured["accuracy"], hits, places=6)
            self.assertEqual((measured["type"], measured["rows"]), ("image_classification", len(self.held)))
        return processor, hits

    def test_learned_on_two_nodes_and_exported(self):
        job = self.learned("{data: 2}", 2)
        _, hits = self.compare(job, self.cluster.folder / "export", self.validation(job))
        self.assertGreater(hits, 0.8)

        # A training that goes on from it has its preprocessor and its classes; from a folder with another one, that.
        folder = self.cluster.folder / "export"
        settings = json.loads((folder / "preprocessor_config.json").read_text())
        self.assertEqual(settings["size"], {"height": SIZE, "width": SIZE})
        (folder / "preprocessor_config.json").write_text(json.dumps(
            settings | {"resample": 3, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}))
        for number, model in enumerate((job, folder)):
            if model is job:
                model = json.loads(self.cluster.weft("checkpoints", job, "--json").stdout)["checkpoints"][0]["id"]
            tuned = self.submit(f"""
kind: fine_tune
name: tuned
model: {{from: {model}}}
tasks: [{{type: image_classification, labels: 3, data: {self.data(", augment: true")}}}]
training: {{steps: 4, batch_size: 24, optimizer: {{learning_rate: 0.0005}}, evaluate_every: 4}}
checkpoint: {{every_steps: 4}}
parallel: {{tensor: 2}}
resources: {{slots: 2, nodes: 2}}
""")
            processor, _ = self.compare(tuned, self.cluster.folder / f"tuned-{number}", self.validation(tuned))
            self.assertEqual(processor.resample, 2 + number)

    def test_an_adapter(self):
        torch.manual_seed(4)
        base = self.cluster.folder / "base"
        ViTForImageClassification(ViTConfig(
            image_size=SIZE, patch_size=PATCH, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=48, num_labels=3)).save_pretrained(base)
        for targets in ("[]", "[query, intermediate.dense, output.dense]"):
            job = self.submit(f"""
kind: fine_tune
name: adapted
model: {{from: {base}}}
adapter: {{type: lora, rank: 4, alpha: 8, targets: {targets}}}
tasks: [{{type: image_classification, labels: 3, data: {self.data()}}}]
training: {{steps: 6, batch_size: 24, optimizer: {{learning_rate: 0.01}}, evaluate_every: 6}}
checkpoint: {{every_steps: 6}}
parallel: {{data: 2}}
resources: {{slots: 2, nodes: 2}}
""")
            folder = self.cluster.folder / f"merged-{len(targets)}"
            self.compare(job, folder, self.validation(job))
            self.cluster.weft("export", job, "--adapter", "--to", f"{folder}-adapter")
            merged = ViTForImageClassification.from_pretrained(folder).eval()
            with warnings.catch_warnings():  # PEFT warns of tensors that it does not find
                warnings.simplefilter("error", UserWarning)
                adapted = PeftModel.from_pretrained(ViTForImageClassification.from_pretrained(base),
                                                    f"{folder}-adapter").eval()
            pixels = torch.randn(5, 3, SIZE, SIZE)
            with torch.no_grad():
                wanted, given = merged(pixel_values=pixels).logits, adapted(pixel_values=pixels).logits
            torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-5)

    def test_fine_tune_writes_the_job(self):
        folder = self.cluster.folder / "small"
        torch.manual_seed(3)
        ViTForImageClassification(ViTConfig(
            image_size=SIZE, patch_size=PATCH, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=48, num_labels=3, id2label=dict(enumerate(SHAPES)),
            label2id={name: i for i, name in enumerate(SHAPES)})).save_pretrained(folder)
        done = self.cluster.weft("fine-tune", folder, self.inputs / "train", "--validation", self.inputs / "held",
                                 "--augment", "--steps", 3, "--file", self.cluster.folder / "small.yaml", "--wait",
                                 timeout=600)
        self.assertIn("image_classification (the data is images)", done.stdout)
        self.assertIn("augment: true", (self.cluster.folder / "small.yaml").read_text())
        wrong = self.cluster.weft("fine-tune", folder, self.inputs / "train", "--sequence-length", 8, "--dry-run",
                                  check=False)
        self.assertIn("the tokens of an image follow from the model", wrong.stderr)

    def test_bad_data_is_told_before_it_is_sent(self):
        broken = self.inputs / "broken" / "circle"
        broken.mkdir(parents=True)
        (broken / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
        path = self.inputs / "bad.yaml"
        path.write_text(f"""
kind: pretrain
name: bad
model: {{family: vit, config: {{image_size: {SIZE}, patch_size: {PATCH}}}}}
tasks: [{{type: image_classification, labels: 3, data: {{train: {self.inputs}/broken, format: images}}}}]
training: {{steps: 1}}
""")
        told = self.cluster.weft("submit", "-f", path, check=False)
        self.assertNotEqual(told.returncode, 0)
        self.assertIn("circle/1.png", told.stderr)
        self.assertIn("must be a whole PNG file", told.stderr)


if __name__ == "__main__":
    unittest.main()
