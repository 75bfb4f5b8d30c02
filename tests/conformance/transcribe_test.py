"""What is written of recordings, against transformers: a small Whisper made from a configuration learns words that are
tones, in files of several formats and rates; its export loads in transformers with its preprocessor, and both have the
same loss, and write the same, of held-out recordings; so does a job that goes on from that folder."""
import json
import unittest

import numpy as np
import soundfile
import soxr
import torch
from transformers import AutoFeatureExtractor, AutoTokenizer, WhisperForConditionalGeneration

from cluster import Cluster

WORDS = ("red", "green", "blue", "grey")


def sound(number, rate):
    """Two words, a third of a second each, of a speed and loudness by its number."""
    said = (number % 4, number // 4 % 4)
    parts = []
    for word in said:
        length = int(rate * (0.25 + 0.02 * (number % 3)))
        time = np.arange(length) / rate
        parts += [(0.2 + 0.05 * (number % 5)) * np.sin(2 * np.pi * (300 + 400 * word) * time), np.zeros(rate // 20)]
    return np.concatenate(parts), " ".join(WORDS[word] for word in said)


class Transcribe(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(nodes=2, slots=1)
        cls.cluster.up()
        cls.inputs = cls.cluster.folder / "inputs"
        cls.held = []
        for name, numbers in (("train", range(48)), ("held", range(100, 112))):
            folder = cls.inputs / name
            folder.mkdir(parents=True)
            with open(folder / "metadata.jsonl", "w") as rows:
                for number in numbers:
                    kind = ("wav", "flac", "ogg")[number % 3]
                    rate = (8000, 16000, 22050)[number % 3]
                    path = folder / f"{number}.{kind}"
                    samples, text = sound(number, rate)
                    soundfile.write(path, samples, rate)
                    rows.write(json.dumps({"file_name": path.name, "sentence": text, "number": number}) + "\n")
                    if name == "held":
                        cls.held.append((path, text))

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
        return f"{{train: {self.inputs}/train, validation: {self.inputs}/held, format: audio, target: sentence}}"

    def validation(self, job):
        return [record["values"] for record in self.cluster.metrics(job) if "validation_loss" in record["values"]][-1]

    def features(self, extractor):
        heard = []
        for path, _ in self.held:
            samples, rate = soundfile.read(path, dtype="float32")
            samples = samples if rate == 16000 else soxr.resample(samples, rate, 16000, quality="HQ")
            heard.append(extractor(samples, sampling_rate=16000, return_tensors="pt").input_features)
        return torch.cat(heard)

    def compare(self, job, folder):
        """Loss and texts of the held-out recordings by transformers and by the programs."""
        self.cluster.weft("export", job, "--to", folder)
        model, told = WhisperForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
            self.assertFalse(told.get(what), what)
        extractor = AutoFeatureExtractor.from_pretrained(folder)
        self.assertEqual((extractor.feature_size, extractor.chunk_length), (20, 1))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        features = self.features(extractor)
        targets = [tokenizer(text, add_special_tokens=False).input_ids + [256] for _, text in self.held]
        longest = max(map(len, targets))
        labels = torch.tensor([ids + [-100] * (longest - len(ids)) for ids in targets])
        with torch.no_grad():
            loss = model.eval()(input_features=features, labels=labels).loss.item()
        measured = json.loads(self.cluster.weft("evaluate", folder, self.inputs / "held", "--text-pair-key", "sentence",
                                                "--json").stdout)
        self.assertAlmostEqual(measured["loss"], loss, delta=1e-3 * loss + 1e-5)
        self.assertAlmostEqual(self.validation(job)["validation_loss"], measured["loss"], delta=1e-4 * loss + 1e-6)
        self.assertEqual((measured["type"], measured["rows"]), ("speech_recognition", len(self.held)))
        lines = self.cluster.weft("transcribe", folder, *(path for path, _ in self.held), "--json").stdout.splitlines()
        written = []
        for line, (path, _), row in zip(lines, self.held, features, strict=True):
            answer = json.loads(line)
            self.assertEqual(answer["file"], str(path))
            self.assertEqual(answer["text"], self.greedy(model, tokenizer, row[None]))
            written.append(answer["text"])
        errors = sum(a != b for text, (_, said) in zip(written, self.held) for a, b in zip(text.split(), said.split()))
        if all(len(text.split()) == 2 for text in written):
            self.assertAlmostEqual(measured["wer"], errors / (2 * len(self.held)), places=6)
        return measured["wer"]

    def greedy(self, model, tokenizer, features):
        """Without generate(), which wants languages and tasks of the large models."""
        ids = [model.config.decoder_start_token_id]
        with torch.no_grad():
            while len(ids) < model.config.max_target_positions:
                logits = model(input_features=features, decoder_input_ids=torch.tensor([ids])).logits
                ids.append(int(logits[0, -1, :257].argmax()))
                if ids[-1] == 256:
                    break
        return tokenizer.decode(ids, skip_special_tokens=True)

    def test_learned_on_two_nodes_and_exported(self):
        job = self.submit(f"""
kind: pretrain
name: words
model:
  family: whisper
  config: {{d_model: 32, encoder_layers: 1, decoder_layers: 1, encoder_attention_heads: 2, decoder_attention_heads: 2,
           encoder_ffn_dim: 64, decoder_ffn_dim: 64, vocab_size: 257, num_mel_bins: 20, max_source_positions: 50,
           max_target_positions: 16, decoder_start_token_id: 256, eos_token_id: 256, pad_token_id: 256,
           bos_token_id: 256}}
tokenizer: {{type: byte}}
tasks: [{{type: speech_recognition, data: {self.data()}}}]
training: {{steps: 200, batch_size: 16, optimizer: {{learning_rate: 0.005}}, evaluate_every: 200}}
checkpoint: {{every_steps: 200}}
parallel: {{data: 2}}
resources: {{slots: 2, nodes: 2}}
""")
        folder = self.cluster.folder / "export"
        self.assertLess(self.compare(job, folder), 0.2)
        settings = json.loads((folder / "preprocessor_config.json").read_text())
        (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"padding_value": 0.01}))
        tuned = self.submit(f"""
kind: fine_tune
name: tuned
model: {{from: {folder}}}
tasks: [{{type: speech_recognition, data: {self.data()}}}]
training: {{steps: 4, batch_size: 16, optimizer: {{learning_rate: 0.0005}}, evaluate_every: 4}}
checkpoint: {{every_steps: 4}}
""")
        self.compare(tuned, self.cluster.folder / "tuned")
        kept = json.loads((self.cluster.folder / "tuned/preprocessor_config.json").read_text())
        self.assertEqual(kept["padding_value"], 0.01)


if __name__ == "__main__":
    unittest.main()
