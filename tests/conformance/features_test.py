"""Recordings against soundfile, soxr and transformers: files of several formats, rates, lengths and channels, read by
both; their samples at the model's rate, and the features that WhisperFeatureExtractor makes of them."""
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import numpy as np
import soundfile
import soxr
from transformers import WhisperFeatureExtractor

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("WEFT_BIN", ROOT / "build/release/bin"))
FORMATS = [("wav", "PCM_16"), ("wav", "FLOAT"), ("wav", "ULAW"), ("flac", "PCM_24"), ("ogg", "VORBIS"),
           ("ogg", "OPUS"), ("mp3", "MPEG_LAYER_III")]


def signal(rate, seconds, channels, seed):
    """Tones that rise, pauses, clicks and noise, of each channel another."""
    draw = np.random.default_rng(seed)
    time = np.arange(int(rate * seconds)) / rate
    made = []
    for _ in range(channels):
        pitch, speed = draw.uniform(80, 1500), draw.uniform(0, 400)
        sound = 0.4 * np.sin(2 * np.pi * (pitch * time + speed * time ** 2 / 2))
        sound += draw.normal(0, 10 ** draw.uniform(-5, -1), len(time))
        sound *= np.floor(time * 7 + draw.uniform()) % 3 > 0
        sound[draw.integers(0, len(time), 5)] += draw.uniform(-0.3, 0.3, 5)
        made.append(sound)
    return np.clip(np.stack(made, axis=1), -0.99, 0.99)


class Features(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def weft(self, *arguments):
        done = subprocess.run([BIN / "weft-features", *map(str, arguments)], capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return np.frombuffer(done.stdout, np.float32)

    def write(self, kind, subtype, rate, seconds, channels, seed):
        path = self.folder / f"{seed}.{kind}"
        soundfile.write(path, signal(rate, seconds, channels, seed), rate, format=kind.upper(), subtype=subtype)
        return path

    def read(self, path, rate):
        """As librosa.load does."""
        samples, own = soundfile.read(path, dtype="float32", always_2d=True)
        mono = np.mean(samples.T, axis=0)
        return mono if own == rate else soxr.resample(mono, own, rate, quality="HQ")

    def test_samples_are_those_of_soundfile_and_soxr(self):
        seed = 0
        for kind, subtype in FORMATS:
            for rate, channels, seconds in [(16000, 1, 0.7), (48000, 2, 1.3), (8000, 1, 0.05)]:
                seed += 1
                if subtype == "MPEG_LAYER_III" and rate == 8000:
                    seconds = 0.4   # shorter ones are no whole frame
                path = self.write(kind, subtype, rate, seconds, channels, seed)
                for wanted in [16000, 22050]:
                    own, theirs = self.weft(wanted, path), self.read(path, wanted)
                    with self.subTest(subtype=subtype, rate=rate, wanted=wanted):
                        self.assertEqual(len(own), len(theirs))
                        self.assertLess(np.abs(own - theirs).max(), 1e-6)

    def test_features_are_those_of_transformers(self):
        settings = self.folder / "preprocessor_config.json"
        shapes = [dict(feature_size=80, chunk_length=2), dict(feature_size=128, chunk_length=1),
                  dict(feature_size=20, chunk_length=1, n_fft=512, hop_length=320, sampling_rate=8000),
                  dict(feature_size=40, chunk_length=3, hop_length=100, sampling_rate=24000, padding_value=0.25)]
        seed = 100
        for shape in shapes:
            theirs = WhisperFeatureExtractor(**shape)
            theirs.save_pretrained(self.folder)
            frames = theirs.nb_max_frames
            for rate, channels, seconds in [(16000, 1, 0.3), (8000, 1, 1), (44100, 2, 2.7), (22050, 3, 3.5)]:
                seed += 1
                path = self.write("wav", "PCM_16", rate, seconds, channels, seed)
                own = self.weft(settings, shape["feature_size"], frames, path)
                own = own.reshape(-1, frames, shape["feature_size"])
                samples = self.weft(theirs.sampling_rate, path)
                chunks = [samples[at:at + theirs.n_samples] for at in range(0, len(samples), theirs.n_samples)]
                self.assertEqual(len(own), len(chunks))
                for chunk, found in zip(chunks, own):
                    called = theirs(chunk, sampling_rate=theirs.sampling_rate).input_features[0]
                    padded = np.full(theirs.n_samples, theirs.padding_value, np.float32)
                    padded[:len(chunk)] = chunk
                    exact = theirs._np_extract_fbank_features(padded[None], "cpu")[0]
                    with self.subTest(shape=shape, rate=rate, seconds=seconds):
                        self.assertLess(np.abs(found - exact.T).max(), 2e-5)    # in double but for spectra
                        self.assertLess(np.abs(found - called.T).max(), 1e-4)   # in single

    def test_settings_are_read_back(self):
        settings = self.folder / "preprocessor_config.json"
        WhisperFeatureExtractor(feature_size=80, chunk_length=1).save_pretrained(self.folder)
        path = self.write("wav", "PCM_16", 16000, 1, 1, 1)
        first = self.weft(settings, 80, 100, path)
        kept = json.loads(settings.read_text())
        settings.write_text(json.dumps({key: kept[key] for key in ("feature_size", "feature_extractor_type")}))
        self.assertTrue((self.weft(settings, 80, 100, path) == first).all())


if __name__ == "__main__":
    unittest.main()
