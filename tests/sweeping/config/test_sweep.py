"""Sweep files are read by their text alone: neither models nor environments need be there."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.config.sections import LabelledStates
from vlm_rm_sweeps.sweeping.config.sweep import Sweep, load_sweep

ELSEWHERE: dict[str, Any] = {
    "name": "elsewhere",
    "env": {"id": "not_installed:Robot-v7", "episode_steps": 20, "success": "obs[0] > 0.9"},
    "models": ["ViT-B-32/weights/that/are/gone.safetensors", "not_installed:Model"],
    "alphas": [0.5],
    "prompts": [{"id": "up", "goal": "an arm up", "baseline": "an arm"}],
    "algorithm": "not_installed:Algorithm",
    "settings": {"anything": 1},
    "steps": 100,
}


def test_a_file_whose_models_and_environment_are_not_there_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(ELSEWHERE))
    sweep = load_sweep(file)
    assert sweep.task_name == "not_installed:Robot-v7"
    assert sweep.models == tuple(ELSEWHERE["models"])
    assert Sweep.model_validate(sweep.model_dump(mode="json")) == sweep


def test_a_bad_key_is_reported_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(ELSEWHERE | {"step": 3}))
    with pytest.raises(UserError, match=rf"^{file}: unknown key 'step' \(value 3\): did you mean 'steps'\?"):
        load_sweep(file)


def test_states_for_epic_are_a_number_or_a_data_set() -> None:
    labelled = Sweep.model_validate(ELSEWHERE | {"epic_states": {"states": "results/states", "truth": "raters"}})
    assert labelled.epic_states == LabelledStates(states=Path("results/states"), truth="raters")
    assert labelled.described_epic_states() == "the labelled states in results/states (truth: raters)"
    assert Sweep.model_validate(ELSEWHERE | {"epic_states": 1000}).described_epic_states() == "1,000 random states"
