"""Landscapes: the right states, one encoding of each, and numbers that say how well a landscape leads to the goal."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from own_rewards import Brightness, Counting

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.landscape import Walk, landscape, make_axis, pictured, shape_of, shapes, walk
from vlm_rm_sweeps.evaluation.landscape_figure import draw_landscape, save_landscape
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.registry import find_reward_model, load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.tasks.registry import find_task

CARTPOLE, MOUNTAIN_CAR = find_task("cartpole-upright"), find_task("mountaincar-summit")
SPECS = {(alpha, "task"): RewardSpec((CARTPOLE.goal_prompt,), ("pole and cart",), alpha) for alpha in (0.0, 0.5, 1.0)}

SMALL = FrameFormat(16)
NATIVE = FrameFormat(400)
TINY = find_reward_model("embedded/tiny").frame_format


@pytest.fixture(scope="module")
def circle() -> Walk:
    return walk(CARTPOLE, [make_axis(CARTPOLE, "theta", 37)], [NATIVE, TINY])


def test_the_walk_shows_the_states_in_order(circle: Walk) -> None:
    np.testing.assert_allclose(circle.points[:, 0], np.linspace(-math.pi, math.pi, 37))
    upright = circle.frames[NATIVE][18]
    brown = np.argwhere(upright[..., 0].astype(int) > upright[..., 2].astype(int) + 40)
    assert np.ptp(brown[:, 0]) > 3 * np.ptp(brown[:, 1])  # the pole stands
    assert not np.array_equal(circle.frames[NATIVE][9], circle.frames[NATIVE][27])


def test_a_part_of_a_variables_range() -> None:
    axis = make_axis(CARTPOLE, "theta=-0.25:0.25", 11)
    assert (axis.values[0], axis.values[5], axis.values[-1]) == (-0.25, 0, 0.25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("angle", "unknown variable 'angle'.*expected one of theta, x"),
        ("theta=1", "a range such as 'theta=-0.25:0.25'"),
        ("theta=a:b", "a range such as"),
        ("theta=1:0", "low end first"),
        ("theta=0:4", "inside -3.142:3.142 rad"),
        ("theta=nan:1", "low end first"),
    ],
)
def test_ranges_that_cannot_be_walked(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_axis(CARTPOLE, text, 5)


def test_one_or_two_different_variables() -> None:
    axis = make_axis(CARTPOLE, "theta", 3)
    for axes in ([], [axis, axis], [axis] * 3):
        with pytest.raises(UserError, match="over one variable, or over two different ones"):
            walk(CARTPOLE, axes, [SMALL])


def test_each_frame_is_encoded_once_for_all_specs(circle: Walk) -> None:
    model = load_reward_model("embedded/tiny")
    counting = Counting("embedded/tiny", model)
    table = landscape(circle, counting, SPECS)
    assert counting.frames == 37
    assert len(table) == 3 * 37
    for alpha, part in table.groupby("alpha"):
        assert part["rescaled"].min() == 0
        assert part["rescaled"].max() == 1
        alone = model.score(circle.frames[TINY], [SPECS[float(str(alpha)), "task"]])[:, 0]
        np.testing.assert_array_equal(part["reward"], alone)
    assert (shapes(circle, table)["peak_distance"] < math.pi / 4).all()


def test_peak_and_rank_correlation_by_hand(circle: Walk) -> None:
    perfect = shape_of(circle, -np.abs(circle.points[:, 0]))
    assert perfect.peak_distance == pytest.approx(0, abs=1e-12)
    assert perfect.spearman == pytest.approx(1)
    inverted = shape_of(circle, np.abs(circle.points[:, 0]))
    assert inverted.peak_distance == pytest.approx(math.pi)
    assert inverted.spearman == pytest.approx(-1)
    assert math.isnan(shape_of(circle, np.ones(37)).spearman)


def test_two_variables_make_a_grid_whose_goal_is_a_line() -> None:
    walked = walk(CARTPOLE, [make_axis(CARTPOLE, "theta", 5), make_axis(CARTPOLE, "x", 3)], [SMALL])
    assert walked.shape == (5, 3)
    assert walked.goal_units == "rad"
    np.testing.assert_allclose(walked.points[:4, 1], [-2.4, 0, 2.4, -2.4])
    shape = shape_of(walked, -np.abs(walked.points[:, 0]) - 0.01 * walked.points[:, 1])
    assert shape.peak == pytest.approx((0, -2.4))
    assert shape.peak_distance == pytest.approx(0, abs=1e-12)


def test_beyond_the_flag_is_in_the_goal() -> None:
    walked = walk(MOUNTAIN_CAR, [make_axis(MOUNTAIN_CAR, "position", 13)], [SMALL])
    at = walked.points[:, 0]
    assert shape_of(walked, at).peak == (0.6,)
    assert shape_of(walked, at).peak_distance == 0
    assert shape_of(walked, np.minimum(at, 0.45)).spearman == pytest.approx(1)
    assert shape_of(walked, -at).peak_distance == pytest.approx(1.65)


def test_the_goal_is_marked_where_the_axis_reaches_it() -> None:
    """A line outside of the axis would stretch it, and the map be a strip of the picture."""
    beside = walk(CARTPOLE, [make_axis(CARTPOLE, "theta=0.5:1", 3), make_axis(CARTPOLE, "x", 3)], [SMALL])
    figure = draw_landscape(beside, landscape(beside, Brightness("own/brightness"), SPECS))
    panel = next(axes for axes in figure.axes if axes.get_ylabel() == "cart position (m)")
    assert panel.get_xlim()[0] > 0.3
    assert not panel.get_lines()
    plt.close(figure)
    flag = walk(MOUNTAIN_CAR, [make_axis(MOUNTAIN_CAR, "position", 5)], [SMALL])
    figure = draw_landscape(flag, landscape(flag, Brightness("own/brightness"), SPECS))
    panel = next(axes for axes in figure.axes if axes.get_xlabel() == "car position (m)")
    ends = [line.get_xdata()[0] for line in panel.get_lines() if len(line.get_xdata()) == 2]  # type: ignore[index, arg-type]
    assert ends == [0.45, 0.6]
    plt.close(figure)


def test_only_what_models_see_is_kept_of_all_states() -> None:
    walked = walk(CARTPOLE, [make_axis(CARTPOLE, "theta", 9), make_axis(CARTPOLE, "x", 5)], [SMALL])
    assert [frames.shape for frames in walked.frames.values()] == [(45, 16, 16, 3)]
    assert {frame.shape for frame in walked.pictures.values()} == {(400, 600, 3)}
    # Three of the first variable by three of the second: neither at an end.
    assert list(walked.pictures) == pictured(walked.axes) == [6, 7, 8, 21, 22, 23, 36, 37, 38]
    with pytest.raises(UserError, match="a landscape of 10,100 states: expected at most 10,000"):
        walk(CARTPOLE, [make_axis(CARTPOLE, "theta", 101), make_axis(CARTPOLE, "x", 100)], [SMALL])


def test_a_map_has_pictures_of_its_states_where_they_lie() -> None:
    walked = walk(CARTPOLE, [make_axis(CARTPOLE, "theta", 9), make_axis(CARTPOLE, "x", 7)], [SMALL])
    figure = draw_landscape(walked, landscape(walked, Brightness("own/brightness"), SPECS))
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert len(titles) == 9
    assert (titles[0], titles[4], titles[8]) == ("theta -2.4, x 1.6", "theta 0, x 0", "theta 2.4, x -1.6")
    plt.close(figure)


def test_a_variable_without_a_goal_has_no_distance() -> None:
    walked = walk(CARTPOLE, [make_axis(CARTPOLE, "x", 3)], [SMALL])
    assert math.isnan(shape_of(walked, np.arange(3.0)).peak_distance)


@pytest.mark.parametrize("variables", [["theta"], ["theta", "x"]])
def test_figures_and_tables_are_written_once(tmp_path: Path, variables: list[str]) -> None:
    walked = walk(CARTPOLE, [make_axis(CARTPOLE, name, 4) for name in variables], [SMALL])
    table = landscape(walked, Brightness("own/brightness"), SPECS)
    save_landscape(tmp_path / "out", walked, table)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "landscape.png",
        "landscape.svg",
        "landscape.csv",
        "shapes.csv",
    }
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "landscape.csv"), table)
    with pytest.raises(UserError, match="exists already"):
        save_landscape(tmp_path / "out", walked, table)


def test_mountain_car_is_walked_too() -> None:
    walked = walk(MOUNTAIN_CAR, [make_axis(MOUNTAIN_CAR, "position", 3)], [SMALL])
    assert walked.points[:, 0].tolist() == pytest.approx([-1.2, -0.3, 0.6])
    assert not np.array_equal(walked.frames[SMALL][0], walked.frames[SMALL][1])
