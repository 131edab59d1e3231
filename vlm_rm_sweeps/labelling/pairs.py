"""Pairs of states that raters compare: which pairs, in which order, and on which side each state is shown."""

import hashlib
from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

_JOINT = "+"


def pair_id(left: str, right: str) -> str:
    """Name a pair by the ids of its states, so that labels stay with the states."""
    return f"{left}{_JOINT}{right}"


def states_of_pair(pair: str) -> tuple[str, str] | None:
    """Return the ids of the states shown on the left and on the right; None if this is no pair's id."""
    left, joint, right = pair.partition(_JOINT)
    return (left, right) if joint and left and right else None


def draw_pairs(states: Sequence[str], seed: int, rater: str) -> list[tuple[str, str]]:
    """Draw the pairs that a rater compares.

    About every second pair is the same for all raters, so that their agreement can be measured; the others are the rater's own, so
    that several raters compare more of the states. Each state is in about two pairs. A pair is always shown with the same sides,
    which are as good as random.

    Args:
        states: Distinct ids, in any order.
        seed: Pairs of another seed are other pairs.
        rater: The rater's name.

    Returns:
        Pairs of different states, the left one first, each pair once, in the order in which they are asked: as many as there are
        states, or fewer if there are only a few.
    """
    shared, own = (_paired(states, f"{seed}/{whose}") for whose in ("", rater))
    known = set(shared)
    further = [pair for pair in own if pair not in known]
    drawn = [pair for both in zip_longest(shared, further) for pair in both if pair]
    return [_sides(pair) for pair in drawn]


def _paired(states: Sequence[str], seed: str) -> list[tuple[str, str]]:
    """Shuffle the states and pair neighbours; one is left over if their number is odd."""
    ordered = sorted(states)
    shuffled = np.random.default_rng(_number(seed)).permutation(len(ordered))
    pairs = zip(shuffled[::2], shuffled[1::2], strict=False)
    return [(ordered[min(pair)], ordered[max(pair)]) for pair in pairs]


def _sides(pair: tuple[str, str]) -> tuple[str, str]:
    first, second = pair
    return (second, first) if _number(pair_id(first, second)) % 2 else (first, second)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
