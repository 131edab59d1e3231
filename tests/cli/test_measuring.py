"""The commands that measure reward models without training, in the order in which a user runs them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

Command = Callable[..., str]


def test_epic_prints_and_writes_a_table(vlm_rm: Command, refusal: Command, dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "epic.csv"
    options = ("--models", "embedded/tiny", "--alphas", "0,1", "--prompts", "an upright pole", "--prompts", "a hanging pole")
    printed = vlm_rm("epic", dataset, *options, "--truth", "-abs(theta)", "--output", file)
    assert "images encoded: 40, for 160 rewards" in printed
    table = pd.read_csv(file)
    assert table["alpha"].tolist() == [0, 0, 1, 1]
    assert table["prompt"].tolist() == ["an-upright-pole", "a-hanging-pole"] * 2
    assert (table["epic_distance"][::2].to_numpy() < table["epic_distance"][1::2].to_numpy()).all()
    assert "exists already" in refusal("epic", dataset, *options, "--output", file)


def test_invalid_alphas_are_refused(refusal: Command, dataset: Path) -> None:
    assert "expected numbers in [0, 1]" in refusal("epic", dataset, "--model", "embedded/tiny", "--alpha", "0,x")
    for values in ("", "0,0.0", " , "):
        message = refusal("epic", dataset, "--model", "embedded/tiny", "--alpha", values)
        assert message == f"--alpha {values!r}: expected at least one value and no duplicates"
    assert "alpha 1.5" in refusal("epic", dataset, "--model", "embedded/tiny", "--alpha", "1.5")


def test_no_model_and_duplicate_models_are_refused(refusal: Command, dataset: Path, tmp_path: Path) -> None:
    assert "--model '': expected at least one value" in refusal("epic", dataset, "--model", "")
    twice = ("--model", "embedded/tiny,embedded/tiny")
    for command in (("epic", dataset), ("landscape", "--task", "cartpole-upright", "--output", tmp_path / "twice")):
        assert "expected at least one value and no duplicates" in refusal(*command, *twice)
    assert not (tmp_path / "twice").exists()


def test_landscape_prints_where_the_peak_is(vlm_rm: Command, tmp_path: Path) -> None:
    printed = vlm_rm(
        *("landscape", "--task", "cartpole-upright", "--model", "embedded/tiny", "--alpha", "0,1"),
        *("--variable", "theta=-1:1", "--points", "9", "--output", tmp_path / "landscape"),
    )
    assert "distance (rad)" in printed
    assert "images encoded: 9, for 18 rewards" in printed
    assert (tmp_path / "landscape" / "landscape.svg").is_file()


def test_rewards_are_measured_beside_alphas(vlm_rm: Command, refusal: Command, dataset: Path, tmp_path: Path) -> None:
    softmax = "{kind: softmax, negatives: [pole hanging down]}"
    quantile = f"{{kind: threshold, quantile: 0.8, states: {dataset}}}"
    options = ("--model", "embedded/tiny", "--alpha", "0.5", "--reward", "history", "--reward", softmax, "--reward", quantile)
    printed = vlm_rm("epic", dataset, *options, "--truth", "-abs(theta)", "-o", tmp_path / "epic.csv")
    assert "rewards: history: a data set has no reward of the environment, and earlier frames only where" in printed
    table = pd.read_csv(tmp_path / "epic.csv")
    assert table["reward"].tolist()[:2] == ["alpha 0.5", "history"]
    assert [label.split("-")[0] for label in table["reward"][2:]] == ["softmax", "threshold"]
    assert table["alpha"].notna().tolist() == [True, False, False, False]
    printed = vlm_rm("landscape", "--task", "cartpole-upright", *options[:-2], "--points", 9, "-o", tmp_path / "landscape")
    assert "rewards: history: a landscape has frames alone" in printed
    walked = pd.read_csv(tmp_path / "landscape" / "landscape.csv")
    assert walked.groupby("reward_label").size().tolist() == [9, 9, 9]
    assert pd.read_csv(tmp_path / "landscape" / "shapes.csv")["reward"].tolist() == table["reward"].tolist()[:3]
    assert "did you mean 'softmax'" in refusal("epic", dataset, "--model", "embedded/tiny", "--reward", "sofmax")
    assert "--reward '{'" in refusal("epic", dataset, "--model", "embedded/tiny", "--reward", "{")


def test_kinds_of_rewards_are_listed_with_their_parameters(vlm_rm: Command) -> None:
    listed = vlm_rm("rewards")
    for part in ("softmax", "negatives", "required", "exp(s.g / T)", "arXiv 2310.12921", "default 4", "MODULE:CLASS"):
        assert part in listed


def test_confusion_measures_rewards_and_further_prompts_with_intervals(
    vlm_rm: Command, refusal: Command, json_of: Callable[..., Any], dataset: Path, tmp_path: Path
) -> None:
    vlm_rm("states", "sample", "mountaincar-summit", "--count", "40", "-o", tmp_path / "cars")
    options = ("confusion", dataset, tmp_path / "cars", "--model", "embedded/tiny")
    given = ("--alpha", "0.5", "--reward", "history", "--prompt", "a red ball")
    printed = vlm_rm(*options, *given, "-o", tmp_path / "shown")
    assert "rewards: history: a data set has no reward of the environment" in printed
    assert "ROC-AUC of embedded/tiny, alpha 0.5" in printed
    assert "ROC-AUC of embedded/tiny, history" in printed
    rows = json_of(*options, *given, "-o", tmp_path / "told")
    assert len(rows) == 2 * 3 * 2
    assert {row["prompt"] for row in rows} == {"cartpole-upright", "mountaincar-summit", "a-red-ball"}
    assert {row["reward"] for row in rows} == {"alpha 0.5", "history"}
    for row in rows:
        assert row["roc_auc_low"] <= row["roc_auc"] <= row["roc_auc_high"]
        assert f"{row['roc_auc_low']:.2f}..{row['roc_auc_high']:.2f}" in printed
    assert (tmp_path / "told" / "confusion.png").is_file()
    clash = ("--prompt", "cartpole upright", "-o", tmp_path / "clash")
    assert "'cartpole-upright' is the name of a task" in refusal(*options, *clash)
    assert {row["alpha"] for row in json_of(*options, "-o", tmp_path / "default")} == {0.0}
