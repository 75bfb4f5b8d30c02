"""BPE over bytes and over characters, WordPiece and Unigram against the `tokenizers` package: tokenizers trained here on the
text of this repository and on other scripts, then thousands of hard strings and random ids; ids,
offsets and decoded texts."""
import copy
import functools
import json
import os
import random
import subprocess
import tempfile
import unicodedata
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
ADDED = ["<|endoftext|>", "<pad>", "<mask>", "thread", "two words", "<tag>", "<ta", "é!", "<s>", "</s>",
         "<unk>", "▁", "▁▁thread", "<0x41>"]


def corpus():
    lines = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if path.is_file():
            lines += path.read_text().splitlines(keepends=True)
    return lines + SCRIPTS * 3


def character(choose):
    """None that is to be assigned yet: which are letters, each library's tables tell by their age."""
    while True:
        code = choose.choice([choose.randrange(0x80), choose.randrange(0x3000),
                              choose.randrange(0x110000), 0xfffe, 0x10ffff, 0x378])
        if unicodedata.category(chr(code)) not in ("Cs", "Cn") or code in (0xfffe, 0x10ffff, 0x378):
            return chr(code)


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
        return character(choose)

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


def character_vocabulary(learned, merges, byte_tokens=True, **settings):
    """SentencePiece's order: special tokens, bytes, what was learned."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256) if byte_tokens)]
    pieces += [piece for piece in sorted(learned, key=learned.get) if piece not in pieces]
    return dict(dict(type="BPE", dropout=None, unk_token="<unk>", continuing_subword_prefix=None,
                     end_of_word_suffix=None, fuse_unk=True, byte_fallback=True, ignore_merges=False,
                     vocab={piece: place for place, piece in enumerate(pieces)}, merges=merges), **settings)


def learn(across=False, size=900):
    """Vocabulary and merges. across: tokens may hold spaces inside, and line ends."""
    tokenizer = Tokenizer(models.BPE())
    if across:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\n]{40}|\n+"), behavior="isolated")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=size, limit_alphabet=120, show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], model["merges"]


def added(token, place, special=True, **flags):
    return dict(dict(id=place, content=token, single_word=False, lstrip=False, rstrip=False,
                     normalized=False, special=special), **flags)


def sequence(kind, *components):
    name = {"normalizer": "normalizers", "decoder": "decoders"}[kind]
    return {"type": "Sequence", name: list(components)}


LEGACY = sequence("normalizer", {"type": "Prepend", "prepend": "▁"},
                  {"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
DECODER = sequence("decoder", {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                   {"type": "ByteFallback"}, {"type": "Fuse"},
                   {"type": "Strip", "content": " ", "start": 1, "stop": 0})


def metaspace(scheme="first", split=False):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


def characters(model, normalizer=None, pre_tokenizer=None, decoder=DECODER, normalized=False):
    """The tokenizer.json of a Llama or a Mistral, and more added tokens than those have."""
    end = len(model["vocab"])
    more = [("<mask>", dict(lstrip=True)), ("thread", dict(special=False, single_word=True, normalized=True)),
            ("two words", dict(special=False, rstrip=True, normalized=True)),
            ("<tag>", dict(special=False)), ("<ta", dict(special=False, normalized=True)),
            ("<pad>", dict(rstrip=True)), ("é!", dict(special=False, normalized=True))]
    tokens = [added(token, place, normalized=normalized) for place, token in enumerate(["<unk>", "<s>", "</s>"])]
    tokens += [added(token, end + place, **flags) for place, (token, flags) in enumerate(more)]
    template = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    post = {"type": "TemplateProcessing", "single": template, "pair": template + [
        {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    return Tokenizer.from_str(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": post,
        "decoder": decoder, "model": model}))


def character_tokenizers():
    model, across = character_vocabulary(*learn()), character_vocabulary(*learn(across=True))
    some_bytes = copy.deepcopy(model)
    some_bytes["vocab"]["<none>"] = some_bytes["vocab"].pop("<0xE4>")
    old = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "str_rep": "▁"}
    return {
        "legacy": characters(model, LEGACY),
        "legacy-normalized-special": characters(model, LEGACY, normalized=True),
        "legacy-across": characters(across, LEGACY),
        "first": characters(model, None, metaspace()),
        "first-across": characters(across, None, metaspace()),
        "first-split": characters(model, None, metaspace(split=True)),
        "always": characters(model, None, metaspace("always")),
        "always-split": characters(across, None, metaspace("always", True), metaspace("always", True)),
        "never": characters(across, None, metaspace("never"), metaspace("never")),
        "never-split": characters(model, None, metaspace("never", True)),
        "old-metaspace": characters(model, None, old, sequence("decoder", {"type": "ByteFallback"}, old)),
        "whole-words": characters(dict(model, ignore_merges=True), None, metaspace("always", True)),
        "some-bytes": characters(some_bytes, LEGACY),
        "some-bytes-apart": characters(dict(some_bytes, fuse_unk=False), LEGACY),
        "no-bytes": characters(character_vocabulary(*learn(), byte_tokens=False, byte_fallback=False),
                               None, metaspace()),
        "odd-replace": characters(across, sequence(
            "normalizer", {"type": "Replace", "pattern": {"String": "th"}, "content": " e▁"}, LEGACY,
            {"type": "Prepend", "prepend": "ab"})),
        "both": characters(across, LEGACY, metaspace()),
        "as-converted": characters(model, sequence(
            "normalizer", {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            {"type": "Replace", "pattern": {"Regex": "\\A▁"}, "content": "▁▁"}),
            {"type": "Sequence", "pretokenizers": [metaspace("always")]}),
        "regex": characters(model, {"type": "Replace", "pattern": {"Regex": "\\s+|(?=t)|ä"},
                                    "content": "▁e"}, metaspace("never")),
    }


def word_piece(size=900, post="BertProcessing", **normalizer):
    """BERT's; signs and marks that came after Unicode 8 its tables do not know, ours leave out."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(corpus(), trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=specials, show_progress=False))
    tokenizer.add_tokens([AddedToken("thread", single_word=True), AddedToken("<tag>", normalized=False)])
    end, start = ("[SEP]", tokenizer.token_to_id("[SEP]")), ("[CLS]", tokenizer.token_to_id("[CLS]"))
    tokenizer.post_processor = processors.BertProcessing(end, start) if post == "BertProcessing" else \
        processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[end, start])
    return tokenizer


def word_pieces():
    return {
        "uncased": word_piece(),
        "cased": word_piece(lowercase=False, post="template"),
        "plain": word_piece(clean_text=False, handle_chinese_chars=False, strip_accents=False),
        "accents": word_piece(lowercase=True, strip_accents=False),
        "roberta": bpe(pre_tokenizers.ByteLevel(add_prefix_space=False),
                       post=lambda t: processors.RobertaProcessing(
                           ("<pad>", t.token_to_id("<pad>")),
                           ("<|endoftext|>", t.token_to_id("<|endoftext|>")))),
    }


@functools.cache
def unigram_model():
    """The trained scores have many ties."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(corpus(), trainers.UnigramTrainer(
        vocab_size=1500, special_tokens=special, unk_token="<unk>", show_progress=False))
    return json.loads(tokenizer.to_str())["model"]


def unigram(normalizer, pre_tokenizer=None, byte_fallback=False):
    """The tokenizer.json of a T5."""
    model = dict(unigram_model(), byte_fallback=byte_fallback)
    end, space = len(model["vocab"]), metaspace("always", True)
    tokens = [added(token, place) for place, token in enumerate(["<pad>", "</s>", "<unk>"])]
    tokens += [added("<mask>", end, lstrip=True),
               added("thread", end + 1, special=False, single_word=True, normalized=True)]
    template = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]
    post = {"type": "TemplateProcessing", "single": template, "pair": template + [
        {"Sequence": {"id": "B", "type_id": 0}}, template[1]],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}}
    return Tokenizer.from_str(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer or space, "post_processor": post,
        "decoder": sequence("decoder", {"type": "ByteFallback"}, space) if byte_fallback else space, "model": model}))


def precompiled():
    rules = (ROOT / "tests/worker/data/fixtures/charsmap.txt").read_text().strip()
    return {"type": "Precompiled", "precompiled_charsmap": rules}


def unigrams():
    white_space = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace("always", True)]}
    never = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace("never", True)]}
    converted = sequence("normalizer", precompiled(), {"type": "Strip", "strip_left": False, "strip_right": True},
                         {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"})
    quotes = {"type": "Replace", "pattern": {"String": "``"}, "content": '"'}
    xlnet = sequence("normalizer", quotes, {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"},
                     precompiled(), {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    return {
        "unigram": unigram(None),
        "unigram-bytes": unigram(None, byte_fallback=True),
        "unigram-across": unigram(None, metaspace("first")),
        "unigram-nfkc": unigram({"type": "NFKC"}),
        "unigram-nfkc-bytes": unigram({"type": "NFKC"}, byte_fallback=True),
        "unigram-nfd": unigram({"type": "NFD"}, white_space),
        "unigram-nfkd": unigram({"type": "NFKD"}, never, byte_fallback=True),
        "unigram-precompiled": unigram(precompiled(), white_space),
        "unigram-converted": unigram(converted, byte_fallback=True),
        "unigram-xlnet": unigram(xlnet),
    }


# Offsets that Weft gives otherwise: a character that normalization has joined out of several comes
# from all of them, not from the first one.
OTHER_OFFSETS = {"nfc", "unigram-xlnet", "unigram-nfkc", "unigram-nfkc-bytes", "unigram-nfd", "unigram-nfkd"}
# `tokenizers` 0.23 does not leave these out: it looks for a special token's normalized text among
# the special tokens' own.
OTHER_DECODED = {"legacy-normalized-special"}


def random_ids(tokenizer, count):
    """Ids as a model may draw them: bytes that form characters, cut ones, and everything else."""
    choose = random.Random(count)
    size = tokenizer.get_vocab_size()
    vocab = tokenizer.get_vocab()

    def piece():
        kind = choose.randrange(4)
        if kind == 0:
            return [choose.randrange(size)]
        if kind == 1:
            return tokenizer.encode(choose.choice(SCRIPTS)[:choose.randrange(12)]).ids
        if kind == 2:
            return [vocab.get(f"<0x{choose.randrange(256):02X}>", 0)]
        written = choose.choice("é€🙂ß한").encode()
        return [vocab.get(f"<0x{byte:02X}>", 0) for byte in written[:choose.randrange(1, 5)]]

    return [sum((piece() for _ in range(choose.randrange(1, 7))), []) for _ in range(count)]


def answers_of(tokenizer, requests):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "tokenizer.json"
        tokenizer.save(str(path))
        done = subprocess.run([BIN / "weft-tokenize", path], capture_output=True, text=True,
                              input="".join(json.dumps(request) + "\n" for request in requests))
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return [json.loads(line) for line in done.stdout.split("\n") if line]


class TokenizerAgrees(unittest.TestCase):
    def compare(self, tokenizer, texts, but=()):
        def expected(request):
            whole = tokenizer.encode(request["text"])
            return {
                "ids": whole.ids, "offsets": [list(offset) for offset in whole.offsets],
                "plain_ids": tokenizer.encode(request["text"], add_special_tokens=False).ids,
                "decoded": tokenizer.decode(whole.ids),
                "decoded_with_special": tokenizer.decode(whole.ids, skip_special_tokens=False)}
        self.compare_answers(tokenizer, [{"text": text} for text in texts], expected, but)

    def compare_ids(self, tokenizer, rows, before, but=()):
        """before: ids that others stand behind."""
        start = tokenizer.decode(before)

        def expected(request):
            text = tokenizer.decode(request["ids"])
            return {
                "decoded": text, "streamed": text,
                "decoded_with_special": tokenizer.decode(request["ids"], skip_special_tokens=False),
                "continued": tokenizer.decode(before + request["ids"])[len(start):]}
        self.compare_answers(tokenizer, [{"ids": row} for row in rows], expected, but)

    def compare_answers(self, tokenizer, requests, expect, but):
        answers = answers_of(tokenizer, requests)
        self.assertEqual(len(answers), len(requests))
        differences = []
        for request, answer in zip(requests, answers):
            expected = expect(request)
            wrong = [key for key in expected
                     if key not in but and expected[key] != answer.get(key)]
            if wrong:
                differences.append((request, wrong[0], expected[wrong[0]], answer.get(wrong[0], answer)))
        self.assertEqual(differences[:5], [], f"{len(differences)} of {len(requests)} differ")

    def test_ids_offsets_and_texts(self):
        texts = strings()
        for name, tokenizer in (tokenizers_to_compare() | character_tokenizers() | word_pieces() | unigrams()).items():
            with self.subTest(name):
                self.compare(tokenizer, texts, {"offsets"} if name in OTHER_OFFSETS else
                             {"decoded"} if name in OTHER_DECODED else ())

    def test_ids_as_a_model_draws_them(self):
        for name, tokenizer in (tokenizers_to_compare() | character_tokenizers() | word_pieces() | unigrams()).items():
            with self.subTest(name):
                before = tokenizer.encode("It", add_special_tokens=False).ids
                self.compare_ids(tokenizer, random_ids(tokenizer, 1500), before,
                                 {"decoded", "streamed", "continued"} if name in OTHER_DECODED else ())

    def test_a_document_is_one_word(self):
        """A text without a word's end in it, of a size that only n log n gets through."""
        choose = random.Random(4)
        lines = "".join(corpus()).replace(" ", "")
        text = "".join(lines[at:at + 50] for at in (choose.randrange(len(lines)) for _ in range(8000)))
        for name, tokenizer in (character_tokenizers() | unigrams()).items():
            if "across" in name or name == "first":
                with self.subTest(name):
                    self.compare(tokenizer, [text, "a" * 300000, " " * 300000])

    def test_tokens_one_by_one(self):
        """Every token of the vocabulary as a text of its own, cut characters as U+FFFD."""
        tokenizer = tokenizers_to_compare()["gpt2"]
        pieces = [tokenizer.decode([i], skip_special_tokens=False)
                  for i in range(tokenizer.get_vocab_size())]
        self.compare(tokenizer, pieces)


if __name__ == "__main__":
    unittest.main()
