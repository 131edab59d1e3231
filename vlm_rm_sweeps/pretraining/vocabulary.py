"""The embedded family's vocabulary: open_clip's own byte-pair merges, reduced to those that the captions need.

The full table of 49 408 tokens would be larger than the models. Words of the captions are split exactly as in CLIP; other words
are split into smaller tokens, so that every text can be tokenized.
"""

import gzip
import itertools
import re
from collections.abc import Iterable
from pathlib import Path

import open_clip.tokenizer

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import written_whole

_GENERAL_MERGES = 512
"""Number of the most frequent English merges to keep, so that unknown words are not split into letters."""


def _merges_of(word: str, ranks: dict[tuple[str, str], int]) -> set[tuple[str, str]]:
    """Find the merges that build a word, in the tokenizer's greedy order."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    used = set()
    while len(pieces) > 1:
        pairs = list(itertools.pairwise(pieces))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        used.add(best)
        at = pairs.index(best)
        pieces[at : at + 2] = ["".join(best)]
    return used


def write_vocabulary(captions: Iterable[str], path: Path) -> int:
    """Write the reduced merges that captions need.

    Args:
        captions: All captions of a training.
        path: File to write, in open_clip's format (gzip).

    Returns:
        Size of the vocabulary, in tokens.

    Raises:
        UserError: `path` holds another vocabulary; the models beside it would read every prompt wrongly with this one.
    """
    lines = gzip.decompress(Path(open_clip.tokenizer.default_bpe()).read_bytes()).decode().split("\n")
    header, merges = lines[0], [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    ranks = {(first, second): rank for rank, (first, second) in enumerate(merges)}
    words = set(re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", " ".join(captions).lower()))
    needed = set(list(ranks)[:_GENERAL_MERGES]).union(*(_merges_of(word, ranks) for word in words))
    kept = [" ".join(pair) for pair in ranks if pair in needed]
    # No newline at the end, which open_clip would read as an empty token. mtime=0 makes the file reproducible.
    content = gzip.compress("\n".join([header, *kept]).encode(), mtime=0)
    if path.exists() and path.read_bytes() != content:
        raise UserError(f"{path} is the vocabulary of a training with other images or another seed: choose another folder")
    with written_whole(path) as unfinished:
        unfinished.write_bytes(content)
    return open_clip.tokenizer.SimpleTokenizer(bpe_path=str(path.resolve())).vocab_size
