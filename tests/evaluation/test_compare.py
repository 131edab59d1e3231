"""Models x alphas x prompts on a data set: each image is encoded once, and bad models are named."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_rewards import Counting

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.compare import compare_models, load_for_measuring
from vlm_rm_sweeps.evaluation.epic import epic_distance
from vlm_rm_sweeps.evaluation.ground_truth import read_truth
from vlm_rm_sweeps.evaluation.score import score_states
from vlm_rm_sweeps.evaluation.states import Provenance, State, StateDataset, write_states
from vlm_rm_sweeps.frames import FrameFormat, resize_frames
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.tasks.registry import find_task

CARTPOLE = find_task("cartpole-upright")
SPECS = {
    (alpha, prompt): RewardSpec((goal,), ("pole and cart",), alpha)
    for alpha in (0.0, 0.5, 1.0)
    for prompt, goal in (("upright", CARTPOLE.goal_prompt), ("hanging", "the pole hangs down from the cart"))
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StateDataset:
    return write_states(tmp_path_factory.mktemp("states") / "data", CARTPOLE, sampled_states(CARTPOLE, 100, seed=0))


def test_each_image_is_encoded_once_for_all_alphas_and_prompts(dataset: StateDataset) -> None:
    truth = read_truth(dataset, "-abs(theta)")
    counting = Counting("embedded/tiny", load_for_measuring("embedded/tiny"))
    (comparison,) = compare_models(dataset, truth, ["embedded/tiny"], SPECS, load=lambda _: counting)
    assert counting.frames == comparison.images_encoded == 100
    table = comparison.table
    assert list(zip(table["alpha"], table["prompt"], strict=True)) == list(SPECS)

    model = load_for_measuring("embedded/tiny")
    for row, spec in zip(table.to_dict("records"), SPECS.values(), strict=True):
        alone = score_states(model, dataset, [spec])[:, 0]
        assert row["epic_distance"] == pytest.approx(epic_distance(alone, truth.values), abs=1e-6)
    assert table["epic_distance"][0] < 0.4 < table["epic_distance"][1]


def test_a_reward_model_of_ones_own_is_measured(dataset: StateDataset) -> None:
    truth = read_truth(dataset, "-abs(theta)")
    (comparison,) = compare_models(dataset, truth, ["own_rewards:Brightness"], SPECS)
    assert comparison.table["model"].unique().tolist() == ["own_rewards:Brightness"]
    assert (comparison.table["parameters_millions"] == 0).all()
    brightness = np.array([resize_frames(dataset.frame(index)[None], FrameFormat(16)).mean() for index in range(len(dataset))])
    # Alpha is subtracted from all rewards, which no EPIC distance sees.
    assert comparison.table["epic_distance"].to_numpy() == pytest.approx(epic_distance(brightness, truth.values), abs=1e-4)


def test_a_model_remarks_on_the_states_by_its_own_columns_which_change_no_measure(dataset: StateDataset) -> None:
    truth, remarks = read_truth(dataset, "-abs(theta)"), list[str]()
    (told,) = compare_models(dataset, truth, ["own_rewards:Sceptical"], SPECS, say=remarks.append)
    (plain,) = compare_models(dataset, truth, ["own_rewards:Sceptical"], SPECS)
    pd.testing.assert_frame_equal(told.table, plain.table)
    assert remarks == ["0.00 of the frames are dark"]


def test_a_spec_that_a_model_of_ones_own_refuses_is_refused_before_it_is_loaded(dataset: StateDataset) -> None:
    truth = read_truth(dataset, "success")
    with pytest.raises(UserError, match="expected one word, which is all that own_rewards:ShortSighted reads"):
        next(compare_models(dataset, truth, ["own_rewards:ShortSighted"], SPECS, load=lambda _: pytest.fail("loaded")))


def images(folder: Path, frames: list[np.ndarray]) -> StateDataset:
    return write_states(folder, CARTPOLE, [State(frame, Provenance("images")) for frame in frames])


def test_rewards_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    dataset = images(tmp_path / "data", [np.full((8, 8, 3), shade, np.uint8) for shade in (5, 50, 100)])
    with pytest.raises(UserError, match="own_rewards:NotANumber gave 2 of 6 rewards that are not finite"):
        score_states(load_for_measuring("own_rewards:NotANumber"), dataset, list(SPECS.values())[:2])


def test_images_of_different_sizes_are_scored_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (*size, 3), np.uint8) for size in [(90, 60), (64, 64), (90, 60), (40, 80)]]
    model = load_for_measuring("embedded/tiny")
    specs = list(SPECS.values())[:1]
    together = score_states(model, images(tmp_path / "data", frames), specs)
    alone = [model.score(frame[None], specs)[0, 0] for frame in frames]
    np.testing.assert_array_equal(together[:, 0], alone)


def test_a_prompt_that_a_model_cannot_read_is_refused_before_anything_is_encoded(dataset: StateDataset) -> None:
    long = {(0.0, "long"): RewardSpec(("upright " * 200,), ("a cart",), 0.0)}
    truth = read_truth(dataset, "success")
    with pytest.raises(UserError, match="is longer than"):
        next(compare_models(dataset, truth, ["embedded/tiny"], long, load=lambda _: pytest.fail("loaded")))
    with pytest.raises(UserError, match="unknown model 'embedded/tinny'"):
        next(compare_models(dataset, truth, ["embedded/tinny"], SPECS, load=lambda _: pytest.fail("loaded")))
