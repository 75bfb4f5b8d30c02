#!/usr/bin/env python3
"""Folders of recordings of the Free Spoken Digit Dataset (https://github.com/Jakobovski/free-spoken-digit-dataset), for
job.yaml: of each speaker and digit the first five are held out, the others are learned.

    prepare.py RECORDINGS FOLDER      FOLDER/train and FOLDER/held
"""
import json
import shutil
import sys
from pathlib import Path

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HELD_OUT = 5


def main():
    recordings, folder = map(Path, sys.argv[1:3])
    rows = {"train": [], "held": []}
    for path in sorted(recordings.glob("*.wav")):
        digit, _, index = path.stem.split("_")
        part = "held" if int(index) < HELD_OUT else "train"
        (folder / part).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / part)
        rows[part].append({"file_name": path.name, "transcription": WORDS[int(digit)]})
    for part, lines in rows.items():
        (folder / part / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        print(f"{folder / part}: {len(lines)} recordings")


if __name__ == "__main__":
    main()
