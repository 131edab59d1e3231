"""Training a head on a real data set: its file, its card, and one message for each set of labels that cannot teach it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.heads.train import TrainedHead, card_file, train_head, write_trained
from vlm_rm_sweeps.evaluation.states import StateDataset, write_states
from vlm_rm_sweeps.labelling.pairs import draw_pairs, pair_id
from vlm_rm_sweeps.labelling.scales import CLOSER, YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.rewards.heads import head_content, read_head
from vlm_rm_sweeps.tasks.registry import find_task

CARTPOLE = find_task("cartpole-upright")
MODEL = "embedded/tiny"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> StateDataset:
    return write_states(tmp_path_factory.mktemp("states") / "data", CARTPOLE, sampled_states(CARTPOLE, 150, seed=0))


@pytest.fixture
def dataset(written: StateDataset, tmp_path: Path) -> StateDataset:
    """A copy, to be labelled."""
    shutil.copytree(written.folder, tmp_path / "data")
    return StateDataset(tmp_path / "data", written.table)


@pytest.fixture(scope="module")
def trained(written: StateDataset) -> TrainedHead:
    return train_head(written, MODEL, "abs(theta) < 0.4")


def compare_all(dataset: StateDataset, rater: str) -> None:
    """The closer state is the one whose pole is more upright."""
    angle = dict(zip(dataset.ids, np.abs(dataset.table["theta"]), strict=True))
    store = LabelStore(dataset.pairs_file, CLOSER)
    for left, right in draw_pairs(dataset.ids, 0, rater)[:100]:
        same = abs(angle[left] - angle[right]) < 0.02
        store.add(rater, pair_id(left, right), 0.5 if same else float(angle[left] < angle[right]))


def test_a_head_is_better_than_chance_on_what_it_has_not_seen(trained: TrainedHead) -> None:
    assert trained.validation.measures["roc_auc"].low > 0.6
    about = trained.head.about
    assert (about.model, about.width, about.pairs, sum(about.counts.values())) == (MODEL, 32, False, 150)
    assert about.measures["roc_auc"] == trained.validation.measures["roc_auc"].value


def test_the_same_labels_give_the_same_file(written: StateDataset, trained: TrainedHead) -> None:
    assert head_content(train_head(written, MODEL, "abs(theta) < 0.4").head) == head_content(trained.head)
    other = train_head(written, MODEL, "abs(theta) < 0.5").head
    assert other.about.data_sha256 != trained.head.about.data_sha256


def test_file_and_card_are_written_once(trained: TrainedHead, tmp_path: Path) -> None:
    file = tmp_path / "heads" / "upright.safetensors"
    write_trained(file, trained)
    assert read_head(file).about == trained.head.about
    card = card_file(file).read_text()
    for expected in ("cartpole-upright", "`abs(theta) < 0.4`", "ROC-AUC", "Brier", "What it is not for", MODEL):
        assert expected in card
    for exists, gone in ((file, card_file(file)), (card_file(file), file)):
        copy = gone.rename(tmp_path / "elsewhere")
        with pytest.raises(UserError, match=f"{exists.name} exists already and is not overwritten"):
            write_trained(file, trained)
        copy.rename(gone)


def test_a_small_network(written: StateDataset) -> None:
    trained = train_head(written, MODEL, "abs(theta) < 0.4", hidden=3)
    assert trained.head.weights.parameters == 3 * 32 + 3 + 3 + 1
    assert trained.validation.measures["roc_auc"].low > 0.6
    with pytest.raises(UserError, match="hidden 65: expected"):
        train_head(written, MODEL, hidden=65)


def test_a_head_learns_from_pairs(dataset: StateDataset) -> None:
    for rater in ("anna", "bert"):
        compare_all(dataset, rater)
    trained = train_head(dataset, MODEL, pairs=True)
    assert trained.head.about.truth == "raters"
    assert sum(trained.head.about.counts.values()) == 150  # 50 that both have compared, and 50 of each
    assert trained.validation.measures["accuracy"].low > 0.6
    assert "Accuracy on pairs" in trained.card
    assert sum(train_head(dataset, MODEL, "rater:anna", pairs=True).head.about.counts.values()) == 100


def test_labels_by_raters(dataset: StateDataset) -> None:
    store = LabelStore(dataset.labels_file, YES_NO)
    for state, angle in list(zip(dataset.ids, dataset.table["theta"], strict=True))[:120]:
        store.add("anna", state, float(abs(angle) < 0.4))
    assert sum(train_head(dataset, MODEL, "rater:anna").head.about.counts.values()) == 120


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("theta < 100", "is 1 for all 150 states"),
        ("abs(theta) < 0.005", r"\d are in the goal, 14\d are not in the goal: expected at least 10 of each"),
        ("theta", "other values than 0 and 1"),
        ("raters", "has no labels by raters"),
        ("phi < 1", "unknown name 'phi'"),
    ],
)
def test_labels_that_teach_nothing_are_refused(written: StateDataset, truth: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_head(written, MODEL, truth)


def test_pairs_that_teach_nothing_are_refused(dataset: StateDataset) -> None:
    with pytest.raises(UserError, match="has no pairs that raters have compared"):
        train_head(dataset, MODEL, pairs=True)
    with pytest.raises(UserError, match="'success' says nothing of pairs"):
        train_head(dataset, MODEL, "success", pairs=True)
    store = LabelStore(dataset.pairs_file, CLOSER)
    with pytest.raises(UserError, match="has no compared pairs yet"):
        train_head(dataset, MODEL, pairs=True)
    for left, right in draw_pairs(dataset.ids, 0, "anna")[:20]:
        store.add("anna", pair_id(left, right), 0.5)
    with pytest.raises(UserError, match="0 are left is closer, 0 are right is closer, 20 are the same: expected at least 10"):
        train_head(dataset, MODEL, pairs=True)
    with pytest.raises(UserError, match="unknown rater 'bert'"):
        train_head(dataset, MODEL, "rater:bert", pairs=True)
    store.add("anna", "x+y", 1.0)
    with pytest.raises(UserError, match=r"pairs\.sqlite belongs to another data set"):
        train_head(dataset, MODEL, pairs=True)


def test_models_without_embeddings_are_refused(written: StateDataset) -> None:
    with pytest.raises(UserError, match="'own_rewards:Brightness' has no image embeddings"):
        train_head(written, "own_rewards:Brightness")
