"""The shipped models know CartPole: on states and with prompts that they never saw, and as well as their card says."""

import pytest

from vlm_rm_sweeps.pretraining.evaluate import HeldOutResult, evaluate_cart_pole
from vlm_rm_sweeps.rewards.catalog import EMBEDDED_FOLDER, embedded_sizes


@pytest.fixture(scope="module")
def results() -> dict[str, list[HeldOutResult]]:
    return {size: evaluate_cart_pole(f"embedded/{size}") for size in embedded_sizes()}


def test_larger_model_is_closer_to_the_truth(results: dict[str, list[HeldOutResult]]) -> None:
    for tiny, small in zip(results["tiny"], results["small"], strict=True):
        assert tiny.alpha == small.alpha
        assert small.epic < tiny.epic - 0.03


def test_rewards_order_states_by_their_angle(results: dict[str, list[HeldOutResult]]) -> None:
    for result in results["tiny"] + results["small"]:
        # 0.707 is the distance of a reward that knows nothing.
        assert result.epic < 0.4
        assert result.spearman > 0.7
        assert result.spearman_90 > 0.8


def test_reward_peaks_within_10_degrees_of_upright(results: dict[str, list[HeldOutResult]]) -> None:
    for result in results["tiny"] + results["small"]:
        assert abs(result.peak_degrees) <= 10


def test_model_card_says_what_is_measured(results: dict[str, list[HeldOutResult]]) -> None:
    card = (EMBEDDED_FOLDER / "MODEL_CARD.md").read_text()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in card.splitlines() if line.startswith("| `embedded/")]
    written = {(row[0], row[1]): [float(cell) for cell in row[2:]] for row in rows if len(row) == 6 and "." in row[2]}
    held_out = {key: figures for key, figures in written.items() if key[1] in ("0", "0.5", "1")}
    assert len(held_out) == 3 * len(results)
    for size, each in results.items():
        for result in each:
            epic, spearman, spearman_90, peak = held_out[f"embedded/{size}", f"{result.alpha:g}"]
            # Another processor rounds otherwise.
            assert (result.epic, result.spearman, result.spearman_90) == pytest.approx((epic, spearman, spearman_90), abs=0.003)
            assert result.peak_degrees == pytest.approx(peak, abs=2)
