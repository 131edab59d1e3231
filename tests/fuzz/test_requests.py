"""Reward specs and scoring requests of anything: scored by a model, or refused before the model sees them."""

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec, check_request

# fmt: off
TEXTS: list[Any] = ["a pole", "pole and cart", "", " ", "\0", "\u200b", "\ud800", "é\u202e\U0001f916", "x" * 100,
        "a " * 5_000, "\n", None, 1, b"a", ["a"], ("a",)]
NUMBERS: list[Any] = [
    0, 1, 0.5, -0.0, 1.5, -1, math.nan, math.inf, 1e-320, True, None, "0.5", "", 1j, 10**400, Decimal("0.5"), Decimal("nan"),
        Fraction(1, 3),
    np.float32(0.5), np.float16(1), np.int64(1), np.bool_(True), np.array(0.5), np.array([0.5]), torch.tensor(0.5), [],
        [0.5], {}, object(),
]
SHAPES = [(2, 5, 9, 3)] * 15 + [(), (0,), (3,), (8, 8, 3), (0, 8, 8, 3), (1, 8, 8, 3), (2, 5, 9, 3), (1, 1, 1, 3), (1, 0, 8,
        3), (1, 8, 8, 1), (1, 8, 8, 4), (1, 3, 8, 8),
          (1, 1, 8, 8, 3), (2, 1, 700, 3), (1, 700, 1, 3)]
DTYPES = ["uint8"] * 14 + ["int8", "int64", "float32", "float64", "bool", "complex64", "object", "U1", "datetime64[s]", ">u2"]
# fmt: on
MODEL = "embedded/tiny"


@dataclass(frozen=True)
class Frames:
    """An array, or what looks like one."""

    shape: tuple[int, ...]
    dtype: str
    form: str

    def made(self) -> Any:
        array: Any = np.zeros(self.shape, self.dtype)
        match self.form:
            case "reversed":
                return array[::-1] if array.ndim else array
            case "strided":
                return np.zeros((*self.shape, 2), self.dtype)[..., 0]
            case "fortran":
                return np.asfortranarray(array)
            case "read-only":
                array.setflags(write=False)
            case "list":
                return array.tolist()
            case "masked":
                return np.ma.masked_array(array, mask=True)
            case "tensor":
                return torch.zeros(self.shape, dtype=torch.uint8)
            case "nothing":
                return None
        return array


anything = st.recursive(
    st.sampled_from([*TEXTS, *NUMBERS]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=2).map(tuple),
    max_leaves=4,
)
good_prompts = st.just(("pole upright",))
prompts = (
    good_prompts | st.lists(st.sampled_from(TEXTS), max_size=3).map(tuple) | anything | st.just({"a": 1}) | st.just({"a", "b"})
)
alphas = st.sampled_from([0.0, 0.5, 1.0]) | st.floats() | st.integers() | st.sampled_from(NUMBERS)
spec_parts = st.tuples(prompts, st.just(("pole and cart",)) | prompts, alphas)
frames = st.builds(
    Frames,
    st.sampled_from(SHAPES),
    st.sampled_from(DTYPES),
    st.sampled_from(["plain", "reversed", "strided", "fortran", "read-only", "list", "masked", "tensor", "nothing"]),
)
GOOD = (("pole upright",), ("pole and cart",), 0.5)
specs = st.lists(st.just(GOOD), min_size=1, max_size=3) | st.lists(
    st.just(GOOD) | st.sampled_from([None, "x", 1, ("a", "b", 0.5)]), max_size=3
)
requests = st.tuples(
    frames, specs, st.sampled_from([list, tuple, set, dict.fromkeys, iter, lambda specs: specs[0] if specs else None])
)


@pytest.mark.parametrize(("cases", "short"), [(150, True), pytest.param(500, False, marks=pytest.mark.fuzz)])
def test_odd_specs_are_scored_or_refused(fuzzed: Any, cases: int, short: bool) -> None:
    model = load_reward_model(MODEL)
    picture = np.zeros((1, 8, 8, 3), np.uint8)

    def score(parts: tuple[Any, Any, Any]) -> None:
        spec = RewardSpec(*parts)
        hash(spec)
        assert np.isfinite(model.score(picture, [spec])).all()

    fuzzed("requests: specs", cases, spec_parts, score, short)


@pytest.mark.parametrize(("cases", "short"), [(100, True), pytest.param(500, False, marks=pytest.mark.fuzz)])
def test_odd_requests_are_scored_or_refused(fuzzed: Any, cases: int, short: bool) -> None:
    model = load_reward_model(MODEL)

    def score(request: tuple[Frames, list[Any], Any]) -> None:
        frames, parts, collect = request
        made = [RewardSpec(*each) if each == GOOD else each for each in parts]
        asked: Any = collect(made) if all(each == GOOD for each in parts) else made
        array = frames.made()
        check_request(array, asked)
        rewards = model.score(array, asked)
        assert rewards.shape == (len(array), len(asked))
        assert np.isfinite(rewards).all()

    fuzzed("requests: frames", cases, requests, score, short)
