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


def test_a_sweep_without_a_name_is_named_as_its_file(tmp_path: Path) -> None:
    nameless = yaml.safe_dump({key: value for key, value in ELSEWHERE.items() if key != "name"})
    for file in (tmp_path / "reaching.yaml", tmp_path / "reaching upwards.yaml"):
        file.write_text(nameless)
    assert load_sweep(tmp_path / "reaching.yaml").name == "reaching"
    with pytest.raises(UserError, match="'name' is missing"):  # no folder can be named so
        load_sweep(tmp_path / "reaching upwards.yaml")


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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": True}, "steps = True: expected no true or false"),
        ({"seeds": [True]}, r"seeds = \[True\]: expected no true or false"),
        ({"alphas": [False]}, "expected no true or false"),
        ({"pool": {"timeout_s": True}}, "pool.timeout_s = True: expected no true or false"),
        ({"pool": {"timeout_s": float("inf")}}, "should be a finite number"),
        ({"seeds": [2**32]}, "seeds.0 = 4294967296: input should be less than 4294967296"),
        ({"seeds": [-1]}, "seeds.0 = -1: input should be greater than or equal to 0"),
        ({"alphas": [0.1, 0.10000000001]}, "0.1 and 0.10000000001 are both shown as 0.1"),
        ({"audit": {"alphas": [0.1, 0.10000000001]}}, "both shown as 0.1"),
        (
            {"prompts": [{"id": "a", "goal": 42, "baseline": "a cart"}]},
            "goal = 42: expected a sentence, or a list of sentences",
        ),
        ({"prompts": [{"id": "a", "goal": ["up", 42], "baseline": "a cart"}]}, "expected a sentence, or a list of sentences"),
    ],
)
def test_a_value_of_another_kind_is_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(ELSEWHERE | changed))
    with pytest.raises(UserError, match=message):
        load_sweep(file)


def test_words_that_pydantic_reads_as_choices_are_choices() -> None:
    assert Sweep.model_validate(ELSEWHERE | {"videos": False, "true_reward": True}).videos is False
    assert Sweep.model_validate(ELSEWHERE | {"seeds": [2**32 - 1]}).seeds == (2**32 - 1,)
