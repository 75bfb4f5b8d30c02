"""Small random models of each family, computed by torch and transformers in float64 right now, against
weft-golden: outputs, loss, every gradient, and a training of 20 steps, on one rank and on meshes."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import derive_bf16
from derive import Case, write_case

BIN = Path(os.environ.get("WEFT_BIN", Path(__file__).parents[2] / "build/release/bin"))
MESHES = ["", "tensor=2", "sequence=2", "data=2", "tensor=3", "data=2,tensor=2",
          "sequence=2,tensor=2", "data=2,sequence=2", "data=2,sequence=2,tensor=2"]
BF16_MESH = "sequence=2,tensor=2"

CASES = [
    Case("plain"),
    Case("erf-left", left=True, config=dict(
        activation_function="gelu", n_inner=50, layer_norm_epsilon=1e-3, n_layer=3,
        scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False)),
    Case("relu-unscaled", config=dict(activation_function="relu", scale_attn_weights=False,
                                      vocab_size=97), tokens=13, rows=3),
    Case("silu-one-layer", config=dict(activation_function="silu", n_layer=1, n_head=5, n_embd=35,
                                       n_inner=31, vocab_size=53), tokens=32, rows=4,
         recipe=dict(warmup=1, clip=0.2, betas=(0.8, 0.99), weight_decay=0.3)),
    Case("tanh", config=dict(activation_function="tanh", n_head=1, n_embd=20), rows=1, tokens=11,
         recipe=dict(warmup=7, clip=100.0, weight_decay=0.0)),
    # The order of the products, which transformers can only take in float32.
    Case("upcast", config=dict(layer_norm_epsilon=1e-6), rows=2,
         stored=dict(reorder_and_upcast_attn=True)),
    Case("packed", task="packed"),
    Case("packed-untied", task="packed", rows=3, tokens=29,
         config=dict(tie_word_embeddings=False, activation_function="gelu_pytorch_tanh")),
    Case("sequence", task="sequence", config=dict(num_labels=5)),
    Case("sequence-left", task="sequence", left=True, rows=7,
         config=dict(num_labels=2, activation_function="relu", n_inner=41), scale=0.2),
    # Two heads of keys: whole on the ranks that share them where the tensor axis has three or more.
    Case("llama", family="llama"),
    Case("llama-left", family="llama", left=True, config=dict(
        num_hidden_layers=3, num_key_value_heads=1, head_dim=10, rms_norm_eps=1e-3,
        tie_word_embeddings=True)),
    Case("llama-scaled", family="llama", rows=3, tokens=32, config=dict(
        num_key_value_heads=3, pad_token_id=None, rope_parameters=dict(
            rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0,
            high_freq_factor=4.0, original_max_position_embeddings=16))),
    Case("llama-stretched", family="llama", config=dict(rope_parameters=dict(
        rope_type="linear", rope_theta=10000.0, factor=4.0))),
    Case("llama-packed", task="packed", family="llama"),
    Case("llama-sequence", task="sequence", family="llama", left=True, rows=7,
         config=dict(num_labels=5)),
    Case("llama-biases", family="llama", config=dict(attention_bias=True)),
    Case("mistral", family="mistral"),
    Case("mistral-packed", task="packed", family="mistral", tokens=29, config=dict(sliding_window=2)),
    Case("mistral-left", family="mistral", left=True, config=dict(
        sliding_window=1, head_dim=8, num_key_value_heads=6)),
    Case("qwen2", family="qwen2", config=dict(tie_word_embeddings=True)),
    Case("qwen2-mixed", family="qwen2", tokens=27, config=dict(
        num_hidden_layers=3, use_sliding_window=True, sliding_window=4, max_window_layers=1)),
    Case("qwen2-sequence", task="sequence", family="qwen2", rows=7, config=dict(num_labels=3)),
    Case("qwen3", family="qwen3", config=dict(tie_word_embeddings=True, rms_norm_eps=1e-3)),
    Case("qwen3-mixed", family="qwen3", rows=3, config=dict(
        attention_bias=True, num_key_value_heads=1, use_sliding_window=True, sliding_window=3,
        layer_types=["sliding_attention", "full_attention"])),
    Case("qwen3-packed", task="packed", family="qwen3"),
    # Encoders; of a row that is padded on the left the first token, which is pooled, is padding.
    Case("bert-sequence", task="sequence", family="bert", rows=7, config=dict(num_labels=5)),
    Case("bert-sequence-left", task="sequence", family="bert", left=True, config=dict(
        num_labels=2, hidden_act="silu", layer_norm_eps=1e-3, num_hidden_layers=3,
        num_attention_heads=4, pad_token_id=None)),
    Case("roberta-sequence", task="sequence", family="roberta", rows=7, config=dict(num_labels=3)),
    Case("roberta-sequence-left", task="sequence", family="roberta", left=True, tokens=31,
         config=dict(num_labels=4, hidden_act="gelu_new", type_vocab_size=1)),
    Case("distilbert-sequence", task="sequence", family="distilbert", config=dict(num_labels=3)),
    Case("distilbert-sequence-left", task="sequence", family="distilbert", left=True, rows=3,
         config=dict(num_labels=2, activation="gelu_new", n_layers=1)),
    Case("bert-masked", task="masked", family="bert", rows=7),
    Case("bert-masked-left", task="masked", family="bert", left=True, config=dict(
        hidden_act="gelu_new", layer_norm_eps=1e-3, num_attention_heads=4, type_vocab_size=1)),
    Case("roberta-masked", task="masked", family="roberta", rows=3, tokens=31),
    Case("roberta-masked-left", task="masked", family="roberta", left=True,
         config=dict(hidden_act="silu")),
    Case("distilbert-masked", task="masked", family="distilbert", rows=7),
    Case("distilbert-masked-left", task="masked", family="distilbert", left=True,
         config=dict(activation="silu", n_layers=1)),
    Case("bert-token", task="token", family="bert", rows=7, config=dict(num_labels=5)),
    Case("roberta-token", task="token", family="roberta", left=True, config=dict(num_labels=2)),
    Case("distilbert-token", task="token", family="distilbert", tokens=30,
         config=dict(num_labels=9)),
    Case("bert-choice", task="choice", family="bert", rows=7),
    Case("roberta-choice", task="choice", family="roberta", left=True),
    Case("bert-question", task="question", family="bert", rows=7),
    Case("roberta-question", task="question", family="roberta", tokens=31),
    Case("distilbert-question", task="question", family="distilbert", rows=3),
    Case("vit", task="image", family="vit", rows=7, config=dict(num_labels=5)),
    Case("vit-unbiased", task="image", family="vit", config=dict(
        num_labels=2, qkv_bias=False, num_channels=1, image_size=15, patch_size=3, hidden_act="silu",
        layer_norm_eps=1e-3, num_attention_heads=4)),
    Case("vit-deep", task="image", family="vit", rows=3, config=dict(
        num_labels=4, num_hidden_layers=3, image_size=8, patch_size=8, hidden_act="gelu_new")),
    Case("whisper", task="speech", family="whisper"),
    Case("whisper-untied", task="speech", family="whisper", rows=7, config=dict(
        tie_word_embeddings=False, activation_function="silu", encoder_layers=1, decoder_layers=3,
        num_mel_bins=16, max_source_positions=30)),
    Case("whisper-short", task="speech", family="whisper", rows=3, config=dict(
        activation_function="gelu_new", num_mel_bins=1, max_source_positions=4, scale_embedding=True,
        encoder_attention_heads=4, decoder_attention_heads=4)),
    # Adapters: other maps, ranks and scalings of each family. PEFT turns GPT-2's matrices by itself.
    Case("lora", adapter=dict(r=8, lora_alpha=16)),
    Case("lora-all", left=True, adapter=dict(r=3, lora_alpha=5, target_modules="all-linear"),
         config=dict(activation_function="gelu", n_inner=50)),
    Case("lora-rank-1", adapter=dict(r=1, lora_alpha=1, target_modules=["mlp.c_proj"])),
    Case("lora-sequence", task="sequence", rows=7, config=dict(num_labels=3),
         adapter=dict(r=4, lora_alpha=2, use_rslora=True, target_modules=["c_proj", "c_fc"])),
    Case("lora-parts", task="packed", adapter=dict(r=2, target_modules=["c_attn", "c_fc"])),
    Case("dora", left=True, adapter=dict(r=3, lora_alpha=5, target_modules="all-linear", use_dora=True),
         config=dict(tie_word_embeddings=False)),
    Case("dora-sequence", task="sequence", rows=7, config=dict(num_labels=3),
         adapter=dict(r=4, lora_alpha=2, use_rslora=True, use_dora=True,
                      target_modules=["c_attn", "mlp.c_proj"])),
    Case("dora-llama", family="llama", config=dict(attention_bias=True), adapter=dict(
        r=7, lora_alpha=4, use_rslora=True, use_dora=True, target_modules="all-linear")),
    Case("dora-qwen2", family="qwen2", adapter=dict(
        r=2, use_dora=True, target_modules=["q_proj", "v_proj", "down_proj"])),
    # Keys and values of heads that ranks share.
    Case("lora-llama", family="llama", adapter=dict(
        r=5, lora_alpha=10, target_modules=["k_proj", "v_proj", "o_proj"])),
    Case("lora-llama-rslora", family="llama", config=dict(attention_bias=True), adapter=dict(
        r=7, lora_alpha=4, use_rslora=True, target_modules="all-linear")),
    Case("lora-llama-sequence", task="sequence", family="llama", rows=7, config=dict(num_labels=5),
         adapter=dict(r=2, lora_alpha=3)),
    Case("lora-mistral", family="mistral", adapter=dict(r=4, lora_alpha=8)),
    Case("lora-qwen2", family="qwen2", config=dict(tie_word_embeddings=True), adapter=dict(
        r=40, lora_alpha=20, target_modules=["q_proj", "gate_proj", "down_proj"])),
    Case("lora-qwen3", family="qwen3", adapter=dict(r=6, target_modules=["up_proj"])),
    # PEFT leaves the pooler frozen unless it is told to save it.
    Case("lora-bert", task="sequence", family="bert", rows=7, config=dict(num_labels=3), adapter=dict(
        r=4, lora_alpha=8, modules_to_save=["bert.pooler.dense", "classifier"])),
    Case("lora-distilbert", task="sequence", family="distilbert", config=dict(num_labels=3),
         adapter=dict(r=3, target_modules=["q_lin", "out_lin", "lin1", "lin2"],
                      modules_to_save=["pre_classifier", "classifier"])),
]

# Of families that have no sequence axis.
TENSOR_CASES = [
    Case("t5", task="seq2seq", family="t5", scale=0.1),
    Case("t5-gated", task="seq2seq", family="t5", scale=0.1, rows=7, tokens=31, config=dict(
        feed_forward_proj="gated-gelu", num_decoder_layers=1, layer_norm_epsilon=1e-3)),
    Case("t5-silu", task="seq2seq", family="t5", scale=0.1, left=True, rows=3, config=dict(
        feed_forward_proj="gated-silu", num_layers=1, num_decoder_layers=3, num_heads=4, d_kv=5,
        relative_attention_num_buckets=6, decoder_start_token_id=7)),
    Case("t5-erf", task="seq2seq", family="t5", scale=0.1, config=dict(
        feed_forward_proj="gelu", relative_attention_max_distance=40)),
    # transformers classifies the last place of a row, padding or not.
    Case("xlnet", task="sequence", family="xlnet", left=True, rows=7, config=dict(num_labels=3)),
    Case("xlnet-first", task="sequence", family="xlnet", config=dict(
        num_labels=5, summary_type="first", summary_activation="", n_layer=3)),
    Case("xlnet-clamped", task="sequence", family="xlnet", left=True, tokens=31, config=dict(
        num_labels=2, clamp_len=5, n_head=4, ff_activation="gelu_new", layer_norm_eps=1e-3)),
    Case("xlnet-token", task="token", family="xlnet", rows=7, config=dict(num_labels=4)),
    Case("xlnet-permutation", task="permutation", family="xlnet", left=True, rows=7),
    Case("xlnet-permutation-clamped", task="permutation", family="xlnet", tokens=31, config=dict(
        clamp_len=6, ff_activation="gelu_new")),
    Case("xlnet-choice", task="choice", family="xlnet", left=True, rows=7),
]
TENSOR_MESHES = ["", "tensor=2", "data=2", "tensor=3", "tensor=4", "data=2,tensor=2", "data=3"]


def golden(folders, mesh, precision="fp32"):
    command = [BIN / "weft-golden", "--json", "--verbose", "--precision", precision,
               *(["--mesh", mesh] if mesh else []), *folders]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    if not done.stdout:
        raise AssertionError(done.stderr)
    return done.returncode, json.loads(done.stdout), done.stderr


def kinked(folders):
    return [folder for folder, case in zip(folders, CASES)
            if case.config.get("activation_function") == "relu"]


def change(path, edit):
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def drop_unit(folder):
    change(folder / "hf/model.safetensors",
           lambda tensors: tensors["transformer.h.0.mlp.c_proj.weight"][0].zero_())


def enlarge_gradients(folder):
    """By a fifth of what they should be; fp32 finds a difference of 2e-5."""
    change(folder / "case.safetensors", lambda tensors: [
        value.div_(1.2) for name, value in tensors.items() if name.startswith("grad.")])


class Golden(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.set_num_threads(1)  # the models are tiny
        cls.place = tempfile.TemporaryDirectory(prefix="weft-conformance-")
        cls.folders = [write_case(case, Path(cls.place.name) / case.name) for case in CASES]

    @classmethod
    def tearDownClass(cls):
        cls.place.cleanup()

    def test_agrees_on_every_mesh(self):
        for mesh in MESHES:
            with self.subTest(mesh=mesh or "one rank"):
                status, report, errors = golden(self.folders, mesh)
                print(f"\n{mesh or 'one rank'}", file=sys.stderr)
                for case in report["cases"]:
                    worst = case.get("worst", {"what": case.get("error"), "error": 0, "bar": 0})
                    print(f"  {case['case']:<16} {'ok' if case['passed'] else 'FAILED':<7}"
                          f"worst {worst['what']} {worst['error']:.1e} (bar {worst['bar']:.0e})",
                          file=sys.stderr)
                self.assertEqual(len(report["cases"]), len(CASES))
                self.assertEqual(status, 0, errors)
                self.assertTrue(report["passed"])

    def test_families_without_a_sequence_axis_agree_on_every_mesh(self):
        with tempfile.TemporaryDirectory(prefix="weft-conformance-") as place:
            folders = [write_case(case, Path(place) / case.name) for case in TENSOR_CASES]
            for mesh, precision in [(mesh, "fp32") for mesh in TENSOR_MESHES] + [("", "float64")]:
                with self.subTest(mesh=mesh or "one rank", precision=precision):
                    status, report, errors = golden(folders, mesh, precision)
                    for case in report["cases"]:
                        print(f"  {case['case']:<16} {case.get('worst', case.get('error'))}",
                              file=sys.stderr)
                    self.assertEqual(len(report["cases"]), len(folders))
                    self.assertEqual(status, 0, errors)

    def test_float64_agrees_to_the_twelfth_place(self):
        """Losses and norms of 20 steps in full; tensors beyond the float32 in which they are stored."""
        status, report, errors = golden(self.folders, "", "float64")
        for case in report["cases"]:
            print(f"  {case['case']:<16} {case.get('worst', case.get('error'))}", file=sys.stderr)
        self.assertEqual(len(report["cases"]), len(CASES))
        self.assertEqual(status, 0, errors)
        self.assertTrue(all(case["worst"]["bar"] <= 1e-12 for case in report["cases"]))

    def test_bf16_is_as_near_as_pytorch(self):
        """Of all values of all cases 99 in 100 within twice PyTorch's error in bf16, each within three
        times: of two thousand numbers some are by luck nearer to float64 in PyTorch. In cases with ReLU
        luck is more than that: see derive_bf16.py. Adapters' cases have none: it trains whole models."""
        whole = [folder for folder, case in zip(self.folders, CASES) if not case.adapter]
        for folder in whole:
            derive_bf16.write(folder)
        for mesh in ("", BF16_MESH):
            with self.subTest(mesh=mesh or "one rank"):
                _, report, errors = golden(whole, mesh, "bf16")
                for case in report["cases"]:
                    print(f"  {case['case']:<16} {case['worst']}", file=sys.stderr)
                values = [value for case in report["cases"] for value in case["deviations"]]
                self.assertGreater(len(values), 150 * len(whole), errors)
                self.assert_near_pytorch(values)

    def assert_near_pytorch(self, values):
        beyond = [value for value in values if not value["error"] <= value["bar"]]
        self.assertLess(len(beyond), len(values) / 100, beyond)
        for value in beyond:
            self.assertLess(value["error"], 1.5 * value["bar"], value)

    def test_other_units_change_roundings_alone(self):
        for folder in kinked(self.folders):
            task = json.loads((folder / "case.json").read_text())["task"]
            for seed in range(derive_bf16.EQUIVALENT_RUNS):
                model = derive_bf16.load_single(folder, "eager").double()
                errors, _ = derive_bf16.pass_errors(task, folder, model,
                                                    *derive_bf16.other_units(model, seed))
                self.assertLess(max(errors.values()), 3e-7, (folder.name, seed, errors))

    def test_bf16_finds_what_is_wrong(self):
        """With ReLU, where PyTorch's own error is largest: a unit of an MLP gone, gradients too large."""
        for folder in kinked(self.folders):
            if not (folder / "bf16.json").exists():
                derive_bf16.write(folder)
            for what, defect in {"nothing": lambda folder: None, "unit": drop_unit,
                                 "gradients": enlarge_gradients}.items():
                with self.subTest(case=folder.name, what=what), \
                        tempfile.TemporaryDirectory() as place:
                    wrong = shutil.copytree(folder, Path(place) / "wrong")
                    defect(wrong)
                    for mesh in ("", BF16_MESH):
                        _, report, _ = golden([wrong], mesh, "bf16")
                        values = report["cases"][0]["deviations"]
                        with nullcontext() if what == "nothing" \
                                else self.assertRaises(AssertionError):
                            self.assert_near_pytorch(values)

    def test_finds_a_wrong_adapter(self):
        """Another scaling, or a map that is not adapted."""
        [case] = [case for case in CASES if case.name == "lora-llama"]
        for edit in (dict(lora_alpha=11), dict(use_rslora=True)):
            with self.subTest(edit=edit), tempfile.TemporaryDirectory() as place:
                folder = write_case(case, Path(place) / "wrong")
                path = folder / "adapter/adapter_config.json"
                path.write_text(json.dumps(json.loads(path.read_text()) | edit))
                status, report, _ = golden([folder], "")
                self.assertEqual(status, 1)
                self.assertFalse(report["cases"][0]["passed"])

    def test_finds_what_is_wrong(self):
        """The comparison has teeth: with the other GELU, or another epsilon, the case fails."""
        for key, value in {"activation_function": "gelu", "layer_norm_epsilon": 1e-3,
                           "scale_attn_by_inverse_layer_idx": True}.items():
            with self.subTest(key=key), tempfile.TemporaryDirectory() as place:
                folder = write_case(CASES[0], Path(place) / "wrong")
                path = folder / "hf/config.json"
                path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
                status, report, _ = golden([folder], "")
                self.assertEqual(status, 1)
                self.assertFalse(report["passed"])


if __name__ == "__main__":
    unittest.main()
