"""Training rewards from labels on the command line."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from vlm_rm_sweeps.evaluation.states import load_states
from vlm_rm_sweeps.labelling.pairs import draw_pairs, pair_id
from vlm_rm_sweeps.labelling.scales import CLOSER
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.rewards.heads import read_head

Command = Callable[..., str]


def test_a_head_is_trained_and_never_overwritten(vlm_rm: Command, refusal: Command, dataset: Path, tmp_path: Path) -> None:
    options = ("--model", "embedded/tiny", "--truth", "theta < 0", "-o", tmp_path / "left.safetensors")
    printed = vlm_rm("reward", "train", dataset, *options)
    assert "logistic regression on embedded/tiny, truth theta < 0" in printed
    assert "roc auc" in printed
    assert read_head(tmp_path / "left.safetensors").about.truth == "theta < 0"
    assert (tmp_path / "left.safetensors.md").read_text().startswith("# Reward head for cartpole-upright")
    assert "exists already and is not overwritten" in refusal("reward", "train", dataset, *options)


def test_labels_that_teach_nothing_are_refused(refusal: Command, dataset: Path, tmp_path: Path) -> None:
    assert "has no pairs that raters have compared" in refusal(
        "reward", "train", dataset, "--model", "embedded/tiny", "--pairs"
    )
    few = refusal("reward", "train", dataset, "--model", "embedded/tiny", "--truth", "theta > 1.9", "-o", tmp_path / "a")
    assert "expected at least 10 of each" in few
    assert not list(tmp_path.iterdir())


def test_compared_pairs_are_counted_and_exported(vlm_rm: Command, refusal: Command, tmp_path: Path) -> None:
    folder = tmp_path / "states"
    vlm_rm("states", "sample", "cartpole-upright", "--count", "12", "--output", folder)
    assert "has no compared pairs" in refusal("labels", folder, "--pairs")
    states = load_states(folder)
    store = LabelStore(states.pairs_file, CLOSER)
    for number, pair in enumerate(draw_pairs(states.ids, 0, "anna")[:4]):
        for rater in ("anna", "bert"):
            store.add(rater, pair_id(*pair), (1.0, 0.5, 0.0, 0.0)[number])
    printed = vlm_rm("labels", folder, "--pairs", "-o", tmp_path / "pairs.csv")
    assert "anna: 1 left, 1 the same, 2 right" in printed
    assert "anna and bert: 4 items labelled by both, 100 % equal, Cohen's kappa 1.00" in printed
    assert len(pd.read_csv(tmp_path / "pairs.csv")) == 8
    assert "--pairs shows them" in refusal("labels", folder)
    store.add("anna", "x+y", 1.0)
    for command in ("label", "labels"):
        assert "pairs.sqlite belongs to another data set" in refusal(command, folder, "--pairs")


def test_labels_of_videos_at_an_address_are_kept_in_a_folder(refusal: Command, tmp_path: Path) -> None:
    assert "add --into FOLDER, to which its videos are copied" in refusal("label", "s3://bucket/results/a")
    assert "--into is for a sweep at an address" in refusal("label", tmp_path, "--into", tmp_path / "into")
    assert "`vlm-rm label ADDRESS --into FOLDER`" in refusal("labels", "s3://bucket/results/a")
    assert "holds no sweep" in refusal("label", f"file://{tmp_path}/a", "--into", tmp_path / "into")


def test_videos_are_not_compared(refusal: Command, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert "has no states to compare in pairs" in refusal("label", tmp_path, "--pairs")
