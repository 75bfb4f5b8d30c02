#!/usr/bin/env python3
"""Prints held-out accuracies beside the majority class, with 95% Wilson intervals.

    accuracy.py SUMMARY TRANSFER SCRATCH    JSON of licences.py and of two finished jobs
"""
import json
import math
import sys


def wilson(correct, total, z=1.96):
    """Score interval of a proportion (Wilson 1927)."""
    share = correct / total
    denominator = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / denominator
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / denominator
    return centre - half, centre + half


def main():
    summary, transfer, scratch = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:4])
    total = summary["held_out"]
    rows = [("majority class", summary["majority_accuracy"])]
    for name, job in (("from scratch", scratch), ("with transfer", transfer)):
        rows.append((name, job["results"]["licence.validation_accuracy"]))
    print(f"{'':16}{'accuracy':>10}{'95% interval':>18}   of {total} held-out paragraphs")
    for name, accuracy in rows:
        low, high = wilson(round(accuracy * total), total)
        print(f"{name:16}{accuracy:>10.1%}{f'{low:.1%} to {high:.1%}':>18}")


if __name__ == "__main__":
    main()
