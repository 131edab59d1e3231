"""The shipped models know CartPole: on states and with prompts that they never saw, and as well as their card says."""

from pathlib import Path

import pytest

from vlm_rm_sweeps.pretraining import evaluate as evaluate_module
from vlm_rm_sweeps.pretraining.evaluate import HeldOutResult, evaluate_cart_pole, write_model_card
from vlm_rm_sweeps.pretraining.train import pretrain
from vlm_rm_sweeps.rewards.catalog import EMBEDDED_FOLDER, embedded_sizes, load_reward_model


@pytest.fixture(scope="module")
def results() -> dict[str, list[HeldOutResult]]:
    return {size: evaluate_cart_pole(load_reward_model(f"embedded/{size}")) for size in embedded_sizes()}


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


def held_out_rows(folder: Path) -> dict[str, list[list[float]]]:
    """By size, one row of figures for each alpha: EPIC, Spearman, Spearman within 90 degrees, peak."""
    rows: dict[str, list[list[float]]] = {}
    for line in (folder / "MODEL_CARD.md").read_text().splitlines():
        cells = [cell.strip(" `") for cell in line.split("|")[1:-1]]
        if len(cells) == 6 and cells[0].startswith("embedded/") and cells[1] in ("0", "0.5", "1"):
            rows.setdefault(cells[0].removeprefix("embedded/"), []).append([float(cell) for cell in cells[2:]])
    return rows


def test_model_card_says_what_is_measured(results: dict[str, list[HeldOutResult]]) -> None:
    written = held_out_rows(EMBEDDED_FOLDER)
    assert set(written) == set(results)
    for size, each in results.items():
        for result, (epic, spearman, spearman_90, peak) in zip(each, written[size], strict=True):
            # Another processor rounds otherwise.
            assert (result.epic, result.spearman, result.spearman_90) == pytest.approx((epic, spearman, spearman_90), abs=0.003)
            assert result.peak_degrees == pytest.approx(peak, abs=2)


def test_model_card_is_about_the_weights_beside_it(
    results: dict[str, list[HeldOutResult]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer states, to be quick.
    monkeypatch.setattr(evaluate_module, "_HELD_OUT_STATES", 200)
    pretrain(["tiny"], samples=256, images=40, seed=0, folder=tmp_path)
    write_model_card(tmp_path)
    # One training step teaches nothing, so the new model's distances are nothing like those of the shipped one.
    for result, (epic, *_) in zip(results["tiny"], held_out_rows(tmp_path)["tiny"], strict=True):
        assert epic > result.epic + 0.1
