"""Ground truths, and one clear message for each that cannot be used."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.ground_truth import read_truth
from vlm_rm_sweeps.evaluation.states import Provenance, State, StateDataset, write_states
from vlm_rm_sweeps.labelling.scales import SHARE, YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.tasks.registry import find_task

CARTPOLE = find_task("cartpole-upright")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> StateDataset:
    return write_states(tmp_path_factory.mktemp("states") / "data", CARTPOLE, sampled_states(CARTPOLE, 40, seed=0))


@pytest.fixture
def dataset(written: StateDataset, tmp_path: Path) -> StateDataset:
    """A copy, to be labelled or broken."""
    shutil.copytree(written.folder, tmp_path / "data")
    return StateDataset(tmp_path / "data", written.table)


def plain_dataset(folder: Path, success: list[bool | None]) -> StateDataset:
    frame = np.zeros((4, 4, 3), np.uint8)
    return write_states(folder, CARTPOLE, [State(frame, Provenance("images"), success=each) for each in success])


def test_success_and_formulas(written: StateDataset) -> None:
    angles = written.table["theta"].to_numpy()
    success = read_truth(written, "success")
    np.testing.assert_array_equal(success.values, np.abs(angles) <= math.radians(12))
    assert success.is_binary
    formula = read_truth(written, " -abs(theta) + 0.1 * x**2 ")
    np.testing.assert_allclose(formula.values, -np.abs(angles) + 0.1 * written.table["x"] ** 2)
    assert not formula.is_binary


def test_labels_of_raters_and_of_their_majority(dataset: StateDataset) -> None:
    store = LabelStore(dataset.labels_file, YES_NO)
    for index, item in enumerate(dataset.ids[:20]):
        store.add("anna", item, float(index % 2))
        store.add("bert", item, 1.0)
        if index < 15:
            store.add("carl", item, 1.0 if index < 10 else None)
    np.testing.assert_array_equal(read_truth(dataset, "rater:anna").values[:20], np.arange(20) % 2)
    assert read_truth(dataset, "rater:anna").known.tolist() == [True] * 20 + [False] * 20
    # Three of three or two of three say yes in the first ten; anna and bert are split on every other one after that.
    with pytest.raises(UserError, match="'raters' is 1 for all 15 states"):
        read_truth(dataset, "raters")


@pytest.mark.parametrize(
    "name",
    ["velocity", "theta < 9 or nope", "theta +", "theta.mean()", "__import__('os')", "theta[0]", "'a'", "@x", "lambda: x"],
)
def test_invalid_formulas_are_refused(written: StateDataset, name: str) -> None:
    with pytest.raises(UserError, match=r"over x, x_dot, theta, theta_dot") as caught:
        read_truth(written, name)
    assert repr(name) in str(caught.value)


def test_a_power_is_bounded_before_it_is_computed(written: StateDataset) -> None:
    with pytest.raises(UserError, match="is known for 0 of"):
        read_truth(written, "10**4000000")
    with pytest.raises(UserError, match=r"it has .* characters, expected at most 2,000\): expected `success`") as refused:
        read_truth(written, " + ".join(["theta"] * 3000))
    assert len(str(refused.value)) < 800


def test_an_unknown_rater_is_named_with_the_known_ones(dataset: StateDataset) -> None:
    with pytest.raises(UserError, match="has no labels by raters: add some with"):
        read_truth(dataset, "rater:anna")
    assert not dataset.labels_file.exists()
    LabelStore(dataset.labels_file, YES_NO)
    with pytest.raises(UserError, match="has no answers by raters yet: add some with"):
        read_truth(dataset, "rater:anna")
    LabelStore(dataset.labels_file, YES_NO).add("anna", dataset.ids[0], 1.0)
    with pytest.raises(UserError, match="unknown rater 'ana': did you mean 'anna'"):
        read_truth(dataset, "rater:ana")


def test_labels_of_another_data_set_are_refused(dataset: StateDataset) -> None:
    store = LabelStore(dataset.labels_file, YES_NO)
    for index, item in enumerate([*dataset.ids[:15], "f" * 16]):
        store.add("anna", item, float(index % 2))
    with pytest.raises(UserError, match="belongs to another data set: 1 of its 16 labelled states"):
        read_truth(dataset, "rater:anna")


def test_labels_of_another_scale_are_refused(dataset: StateDataset) -> None:
    LabelStore(dataset.labels_file, SHARE)
    with pytest.raises(UserError, match="of the scale 'share'"):
        read_truth(dataset, "raters")


def test_fewer_than_ten_states_are_refused(dataset: StateDataset, tmp_path: Path) -> None:
    store = LabelStore(dataset.labels_file, YES_NO)
    for index, item in enumerate(dataset.ids[:9]):
        store.add("anna", item, float(index % 2))
    with pytest.raises(UserError, match="known for 9 of 40 states: expected at least 10"):
        read_truth(dataset, "rater:anna")
    with pytest.raises(UserError, match="known for 5 of 5 states"):
        read_truth(plain_dataset(tmp_path / "few", [True, False, True, False, True]), "success")


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'success' is 0 for all 12 states"):
        read_truth(plain_dataset(tmp_path / "data", [False] * 12), "success")


def test_unknown_success_says_what_to_do(tmp_path: Path) -> None:
    dataset = plain_dataset(tmp_path / "data", [None] * 12)
    with pytest.raises(UserError, match="no state has a result of a success test: label states with `vlm-rm label"):
        read_truth(dataset, "success")
    with pytest.raises(UserError, match="this data set has none"):
        read_truth(dataset, "theta")
