"""Pairs to compare: drawn deterministically, each once, half of them the same for all raters, on sides that favour nobody."""

import numpy as np

from vlm_rm_sweeps.labelling.pairs import draw_pairs, pair_id, states_of_pair

STATES = [f"{index:016x}" for index in range(200)]


def test_a_raters_pairs_are_the_same_whenever_they_are_drawn() -> None:
    pairs = draw_pairs(STATES, 3, "anna")
    assert draw_pairs(list(reversed(STATES)), 3, "anna") == pairs
    assert draw_pairs(STATES, 4, "anna") != pairs
    assert len(STATES) - 5 < len(pairs) == len(set(map(frozenset, pairs))) <= len(STATES)
    assert all(left != right for left, right in pairs)


def test_every_second_pair_is_shared_by_all_raters() -> None:
    anna, bert = draw_pairs(STATES, 0, "anna"), draw_pairs(STATES, 0, "bert")
    both = set(anna) & set(bert)
    assert [pair for pair in anna if pair in both] == [pair for pair in bert if pair in both]
    assert anna[:150:2] == bert[:150:2]
    assert 100 <= len(both) < 110
    assert len({state for pair in both for state in pair}) == len(STATES)


def test_sides_belong_to_the_pair_and_are_as_good_as_random() -> None:
    sides = {frozenset(pair): pair for seed in range(5) for pair in draw_pairs(STATES, seed, "anna")}
    for seed in range(5, 50):
        for pair in draw_pairs(STATES, seed, "bert"):
            assert sides.setdefault(frozenset(pair), pair) == pair
    assert 0.45 < np.mean([left < right for left, right in sides.values()]) < 0.55


def test_few_states_have_few_pairs() -> None:
    assert draw_pairs(["b", "a"], 0, "anna") in ([("a", "b")], [("b", "a")])
    assert draw_pairs(["a"], 0, "anna") == []
    assert len(draw_pairs(["a", "b", "c"], 0, "anna")) in (1, 2)


def test_a_pairs_id_names_its_states() -> None:
    assert states_of_pair(pair_id("a", "b")) == ("a", "b")
    assert states_of_pair("a") is None
    assert states_of_pair("+b") is None
