"""Recordings and their texts against transformers: a small Whisper made from a configuration learns in the real programs
on two nodes, its export loads in transformers unchanged, and both measure the same; so does a second job that starts
from a folder of transformers with a tokenizer of its own."""
import json
import shutil
import unittest
import wave

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor, WhisperForConditionalGeneration

from cluster import Cluster
from derive import shifted_right
from targets_test import small_tokenizer

WORDS = ("red", "green", "blue", "gray")
RATE = 16000
BINS = 12


def spoken(words, seed):
    """Samples of 16 bits; a word is a tone of a fifth of a second, behind noise."""
    draw = np.random.default_rng(seed)
    time = np.arange(RATE // 5) / RATE
    tones = [0.3 * np.sin(2 * np.pi * (300 + 500 * WORDS.index(word)) * time) for word in words]
    return (32767 * (np.concatenate(tones) + draw.normal(0, 0.01, len(tones) * len(time)))).astype("<i2")


class Hearing(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.set_num_threads(1)
        cls.cluster = Cluster(nodes=2, slots=1)
        cls.cluster.up()
        cls.inputs = cls.cluster.folder / "inputs"
        cls.held = cls.folder_of("held", 1000, 7)
        cls.folder_of("train", 0, 24)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None, None, None)

    @classmethod
    def folder_of(cls, name, first, count):
        folder = cls.inputs / name
        folder.mkdir(parents=True)
        rows, heard = [], []
        for number in range(first, first + count):
            words = [WORDS[(number * 7 + i * (number % 5 + 1)) % 4] for i in range(1 + number % 3)]
            samples = spoken(words, number)
            with wave.open(str(folder / f"{number}.wav"), "wb") as file:
                file.setparams((1, samples.itemsize, RATE, len(samples), "NONE", ""))
                file.writeframes(samples.tobytes())
            rows.append({"file_name": f"{number}.wav", "transcription": " ".join(words)})
            heard.append((samples.astype(np.float32) / 32768, " ".join(words)))
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return heard

    def train(self, rest):
        path = self.inputs / "job.yaml"
        data = f"{{train: {self.inputs}/train, validation: {self.inputs}/held, format: audio}}"
        path.write_text(f"name: heard\ntasks: [{{type: speech_recognition, data: {data}}}]\n{rest}")
        done = json.loads(self.cluster.weft("submit", "-f", path, "--wait", "--json", timeout=900).stdout)
        self.assertEqual(done["state"], "succeeded", done)
        return done["id"]

    def compare(self, job, folder):
        """Loss and accuracy of the held-out recordings, by transformers and by the programs."""
        self.cluster.weft("export", job, "--to", folder)
        model, told = WhisperForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
            self.assertFalse(told.get(what), what)
        model.eval()
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        extract = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins,
                                          chunk_length=model.config.max_source_positions // 50)
        total = hits = count = 0
        for samples, text in self.held:
            features = extract(samples, sampling_rate=RATE, return_tensors="pt")
            target = tokenizer(text).input_ids
            if target[-1] != tokenizer.eos_token_id:
                target.append(tokenizer.eos_token_id)
            labels = torch.tensor([target])
            with torch.no_grad():
                logits = model(input_features=features.input_features,
                               decoder_input_ids=shifted_right(model.config, labels)).logits[0]
            total += torch.nn.functional.cross_entropy(logits, labels[0], reduction="sum").item()
            hits += (logits.argmax(1) == labels[0]).sum().item()
            count += len(target)
        measured = [record["values"] for record in self.cluster.metrics(job)
                    if "validation_loss" in record["values"]][-1]
        self.assertEqual(measured["validation_labels"], count)
        self.assertAlmostEqual(measured["validation_loss"], total / count, delta=1e-4 * total / count + 1e-6)
        self.assertAlmostEqual(measured["validation_accuracy"], hits / count, places=6)
        return hits / count

    def test_learned_on_two_nodes_and_exported(self):
        job = self.train(f"""
kind: pretrain
model:
  family: whisper
  config: {{encoder_layers: 2, decoder_layers: 2, d_model: 32, encoder_attention_heads: 4, decoder_attention_heads: 4,
           encoder_ffn_dim: 64, decoder_ffn_dim: 64, vocab_size: 260, num_mel_bins: {BINS}, max_source_positions: 50,
           max_target_positions: 24, decoder_start_token_id: 258, pad_token_id: 259, eos_token_id: 256}}
tokenizer: {{type: byte}}
training: {{steps: 60, batch_size: 12, micro_batch_size: 4, evaluate_every: 60, optimizer: {{learning_rate: 0.01}}}}
checkpoint: {{every_steps: 60}}
parallel: {{data: 2, zero: 3}}
resources: {{slots: 2, nodes: 2}}
""")
        self.assertGreater(self.compare(job, self.cluster.folder / "export"), 0.3)

    def test_a_folder_of_transformers_on_each_axis(self):
        folder = self.cluster.folder / "whisper"
        torch.manual_seed(3)
        config = WhisperForConditionalGeneration.config_class(
            encoder_layers=2, decoder_layers=1, d_model=24, encoder_attention_heads=3, decoder_attention_heads=3,
            encoder_ffn_dim=50, decoder_ffn_dim=50, vocab_size=128, num_mel_bins=BINS, max_source_positions=100,
            max_target_positions=30, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, bos_token_id=0,
            begin_suppress_tokens=None, init_std=0.2)
        WhisperForConditionalGeneration(config).save_pretrained(folder)
        small_tokenizer(folder)
        WhisperFeatureExtractor(feature_size=BINS, chunk_length=2).save_pretrained(folder)
        for axis in ("tensor", "sequence"):
            with self.subTest(axis=axis):
                job = self.train(f"""
kind: fine_tune
model: {{from: {folder}}}
training: {{steps: 6, batch_size: 8, evaluate_every: 6, optimizer: {{learning_rate: 0.002}}}}
checkpoint: {{every_steps: 6}}
parallel: {{{axis}: 2}}
resources: {{slots: 2, nodes: 2}}
""")
                self.compare(job, self.cluster.folder / f"{axis}-tuned")
                shutil.rmtree(self.cluster.folder / f"{axis}-tuned")


if __name__ == "__main__":
    unittest.main()
