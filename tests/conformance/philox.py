"""The counter-based random numbers of kernels/ops/random.h."""
import numpy as np


def philox_words(seed, stream, counter):
    """Philox4x32-10 (Salmon et al. 2011): the four words of each counter."""
    word = np.uint64(0xFFFFFFFF)
    c = [counter & word, counter >> np.uint64(32),
         np.full_like(counter, stream & 0xFFFFFFFF), np.full_like(counter, stream >> 32)]
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]), p1 & word,
             (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]), p0 & word]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def philox_uniform(seed, stream, index):
    """One word an index, as a 24-bit uniform."""
    words = philox_words(seed, stream, index // np.uint64(4))
    chosen = np.choose((index % np.uint64(4)).astype(np.int64), words)
    return (chosen >> np.uint64(8)).astype(np.float64) * 2.0 ** -24


def dropout_factor(seed, stream, index, rate):
    """What dropout multiplies by: 0 where the 16 bits of the index are below the rate, else one through the share that stays."""
    words = philox_words(seed, stream, index // np.uint64(8))
    chosen = np.choose((index % np.uint64(8) // np.uint64(2)).astype(np.int64), words)
    half = (chosen >> (index % np.uint64(2) * np.uint64(16))) & np.uint64(0xFFFF)
    dropped = min(max(int(rate * 65536 + 0.5), 1), 65535)
    return np.where(half >= dropped, 65536 / (65536 - dropped), 0.0)
