"""Byte-level BPE against the `tokenizers` package: tokenizers trained here on the text of this
repository and on other scripts, then thousands of hard strings; ids, offsets and decoded texts."""
import json
import os
import random
import subprocess
import tempfile
import unittest
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("WEFT_BIN", ROOT / "build/release/bin"))

SCRIPTS = [
    "Sphinx of black quartz, judge my vow. We've, they'll, I'd, it's, DON'T, O'Neill's.",
    "Falsches Üben von Xylophonmusik quält jeden größeren Zwerg. Straße, Maß, fünfzig.",
    "Voix ambiguë d'un cœur qui, au zéphyr, préfère les jattes de kiwis.",
    "Широкая электрификация южных губерний даст мощный толчок подъёму.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.", "いろはにほへと ちりぬるを 色は匂へど", "視野無限廣，窗外有藍天",
    "키스의 고유조건은 입술끼리 만나야 하고", "صِف خَلقَ خَودِ كَمِثلِ الشَمسِ", "דג סקרן שט בים מאוכזב",
    "ऋषियों को सताने वाले दुष्ट", "เป็นมนุษย์สุดประเสริฐ", "Zwölf 12 ١٢ १२ 十二 Ⅻ ⑫ ½ 3²",
    "🙂🙃 👩🏽‍🚀 🇫🇷🇯🇵 ❤️‍🔥 1️⃣ 🏴‍☠️ 🧑‍🤝‍🧑", "∑ᵢ xᵢ² ≤ ∞ ∴ ∂f/∂x ≠ 0", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𒀱 𓂀",
    "cafe\u0301 café A\u030a Å Å ﬁ ẛ̣ q\u0307\u0323 \u1112\u1161\u11ab 한",
    "int main() { return x->y[0] != 0x1F ? a++ : --b; } // done",
    "def f(x):\n\tif x:\n\t\treturn x ** 2\n\n\n    # end\r\n", '{"a": [1, 2.5e-3, null], "b": "\\n"}',
]
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \t ", "\u00a0", "\u3000", "\u2003", "\u200b",
          "\u2028", "\u0085", "\x0b", "\x0c", "\ufeff", "", ""]
ADDED = ["<|endoftext|>", "<pad>", "<mask>", "thread", "two words", "<tag>", "<ta", "é!"]


def corpus():
    lines = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if path.is_file():
            lines += path.read_text().splitlines(keepends=True)
    return lines + SCRIPTS * 3


def strings(count=4000):
    choose = random.Random(20)
    lines = [line.rstrip("\n") for line in corpus()]
    texts = ["", *SPACES, *ADDED, *SCRIPTS, *[a + b for a in SPACES for b in SPACES]]
    texts += [chr(code) for code in range(0x250)] + ["x" * 200, " " * 300, "é" * 97, "😀" * 41, "\0"]
    texts += ["".join(token) for token in zip(ADDED, ADDED)]

    def piece():
        kind = choose.randrange(7)
        if kind == 0:
            return choose.choice(SCRIPTS)[:choose.randrange(40)]
        if kind == 1:
            return choose.choice(lines)[:choose.randrange(100)]
        if kind == 2:
            return choose.choice(ADDED)
        if kind == 3:
            return choose.choice(SPACES) * choose.randrange(1, 5)
        if kind == 4:
            return str(choose.randrange(10 ** choose.randrange(1, 12)))
        if kind == 5:
            return "'" + choose.choice(["s", "t", "re", "ve", "m", "ll", "d", "S", "LL", "x"])
        code = 0xd800
        while 0xd800 <= code < 0xe000:
            code = choose.choice([choose.randrange(0x80), choose.randrange(0x3000),
                                  choose.randrange(0x110000)])
        return chr(code)

    while len(texts) < count:
        texts.append("".join(piece() for _ in range(choose.randrange(1, 8))))
    return texts


def bpe(pre, normalizer=None, post=None, size=900, prefix=False):
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<|endoftext|>", "<pad>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.add_tokens([AddedToken("thread", single_word=True), AddedToken("two words", rstrip=True),
                          AddedToken("<tag>", normalized=False), AddedToken("<ta"),
                          AddedToken("é!", normalized=True)])
    if post is not None:
        tokenizer.post_processor = post(tokenizer)
    return tokenizer


def surrounded(tokenizer):
    end = tokenizer.token_to_id("<|endoftext|>")
    return processors.TemplateProcessing(single="<|endoftext|> $A <|endoftext|>",
                                         special_tokens=[("<|endoftext|>", end)])


def split_of_later_models():
    """Digits by threes, words with one leading mark, lines ends kept with what is before them."""
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
               r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def tokenizers_to_compare():
    byte_level = pre_tokenizers.ByteLevel
    return {
        "gpt2": bpe(byte_level(add_prefix_space=False)),
        "prefix-space": bpe(byte_level(add_prefix_space=True),
                            post=lambda t: processors.ByteLevel(trim_offsets=True)),
        "template": bpe(byte_level(add_prefix_space=False), post=surrounded, size=600),
        "split": bpe(split_of_later_models(), size=1500),
        "digits": bpe(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                               byte_level(add_prefix_space=False)])),
        "split-prefix-space": bpe(
            pre_tokenizers.Sequence([pre_tokenizers.Split(" ", behavior="removed"),
                                     byte_level(add_prefix_space=True)]),
            post=lambda t: processors.ByteLevel(trim_offsets=True)),
        "nfc": bpe(split_of_later_models(), normalizer=normalizers.NFC()),
    }


# Offsets that Weft gives otherwise: a character that normalization has joined out of several comes
# from all of them, not from the first one.
OTHER_OFFSETS = {"nfc"}


class TokenizerAgrees(unittest.TestCase):
    def compare(self, tokenizer, texts, but=()):
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "tokenizer.json"
            tokenizer.save(str(path))
            done = subprocess.run([BIN / "weft-tokenize", path], capture_output=True, text=True,
                                  input="".join(json.dumps({"text": t}) + "\n" for t in texts))
        self.assertEqual(done.returncode, 0, done.stderr)
        answers = [json.loads(line) for line in done.stdout.split("\n") if line]
        self.assertEqual(len(answers), len(texts))
        differences = []
        for text, answer in zip(texts, answers):
            whole = tokenizer.encode(text)
            expected = {
                "ids": whole.ids, "offsets": [list(offset) for offset in whole.offsets],
                "plain_ids": tokenizer.encode(text, add_special_tokens=False).ids,
                "decoded": tokenizer.decode(whole.ids),
                "decoded_with_special": tokenizer.decode(whole.ids, skip_special_tokens=False)}
            wrong = [key for key in expected
                     if key not in but and expected[key] != answer.get(key)]
            if wrong:
                differences.append((text, wrong[0], expected[wrong[0]], answer.get(wrong[0], answer)))
        self.assertEqual(differences[:5], [], f"{len(differences)} of {len(texts)} differ")

    def test_ids_offsets_and_texts(self):
        texts = strings()
        for name, tokenizer in tokenizers_to_compare().items():
            with self.subTest(name):
                self.compare(tokenizer, texts, ("offsets",) if name in OTHER_OFFSETS else ())

    def test_tokens_one_by_one(self):
        """Every token of the vocabulary as a text of its own, cut characters as U+FFFD."""
        tokenizer = tokenizers_to_compare()["gpt2"]
        pieces = [tokenizer.decode([i], skip_special_tokens=False)
                  for i in range(tokenizer.get_vocab_size())]
        self.compare(tokenizer, pieces)


if __name__ == "__main__":
    unittest.main()
