#!/usr/bin/env python3
"""Makes the quickstart's data from the licence texts that every Debian has.

    licences.py OUT [--source /usr/share/common-licenses] [--held-out 0.25]

OUT/texts/*.txt    text for language modelling: every file without its held-out paragraphs
OUT/train.jsonl    one {"text": paragraph, "label": family} a line
OUT/held.jsonl     the same, held out
OUT/summary.json   families, counts and the share of the most frequent family among the held-out

A paragraph is a block between blank lines, white space folded. Paragraphs that stand in several
families are in no labelled set; of equal ones within a family one is kept. So no held-out paragraph
stands in the training set or in the texts. Which are held out depends on their SHA-256 only.
"""
import argparse
import collections
import hashlib
import json
import re
import sys
from pathlib import Path

FAMILIES = ["Apache", "Artistic", "BSD", "CC0", "GFDL", "GPL", "LGPL", "MPL"]
SHORTEST = 40  # characters; below it is a heading or a page number


def paragraphs(text):
    for block in re.split(r"\n\s*\n", text):
        folded = " ".join(block.split())
        if folded:
            yield folded


def read_families(source):
    files = {}
    for path in sorted(source.iterdir()):
        family = path.name.split("-")[0]
        if path.is_symlink() or not path.is_file() or family not in FAMILIES:
            continue
        files[path.name] = (family, list(paragraphs(path.read_text("utf-8", errors="replace"))))
    return files


def split(files, held_out):
    """(train, held): lists of (paragraph, label)."""
    stands_in = collections.defaultdict(set)
    for family, blocks in files.values():
        for block in blocks:
            stands_in[block.lower()].add(family)
    by_family = collections.defaultdict(dict)
    for family, blocks in files.values():
        for block in blocks:
            if len(block) >= SHORTEST and len(stands_in[block.lower()]) == 1:
                by_family[family].setdefault(block.lower(), block)
    train, held = [], []
    for label, family in enumerate(FAMILIES):
        unique = sorted(by_family[family].values(),
                        key=lambda block: hashlib.sha256(block.lower().encode()).digest())
        count = max(1, round(len(unique) * held_out)) if len(unique) > 1 else 0
        held += [(block, label) for block in unique[:count]]
        train += [(block, label) for block in unique[count:]]
    return train, held


def write_jsonl(path, rows):
    with open(path, "w", encoding="utf-8") as out:
        for text, label in rows:
            out.write(json.dumps({"text": text, "label": label}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/common-licenses"))
    parser.add_argument("--held-out", type=float, default=0.25)
    options = parser.parse_args()
    if not options.source.is_dir():
        sys.exit(f"licences.py: no folder {options.source}; give one with --source")
    files = read_families(options.source)
    train, held = split(files, options.held_out)
    families_seen = {label for _, label in train}
    if len(families_seen) < 2 or not held:
        sys.exit(f"licences.py: {options.source} holds too few licences")
    (options.out / "texts").mkdir(parents=True, exist_ok=True)
    hidden = {text.lower() for text, _ in held}
    for name, (_, blocks) in files.items():
        kept = [block for block in blocks if block.lower() not in hidden]
        (options.out / "texts" / f"{name}.txt").write_text("\n\n".join(kept) + "\n", "utf-8")
    write_jsonl(options.out / "train.jsonl", train)
    write_jsonl(options.out / "held.jsonl", held)
    counts = collections.Counter(label for _, label in held)
    majority = max(counts.values()) / len(held)
    summary = {"families": FAMILIES, "train": len(train), "held_out": len(held),
               "held_out_by_family": {FAMILIES[k]: v for k, v in sorted(counts.items())},
               "majority_accuracy": majority}
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    print(f"{len(train)} paragraphs to learn from, {len(held)} held out,"
          f" {len(families_seen)} families, majority class {majority:.1%}")


if __name__ == "__main__":
    main()
