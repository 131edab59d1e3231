"""Which conditions of the humanoid's success tests states do not meet, and whether the reward sees it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.states import write_states
from vlm_rm_sweeps.tasks.registry import find_task


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "analysis")


@pytest.mark.parametrize("name", ["humanoid-lotus", "humanoid-hands-on-hips"])
def test_a_state_that_meets_all_conditions_is_a_success(scripts: None, tmp_path: Path, name: str) -> None:
    import unmet_conditions

    task = find_task(name)
    dataset = write_states(tmp_path / "states", task, sampled_states(task, 30, seed=0))
    met = unmet_conditions.conditions_met(dataset)
    assert met.all(axis=1).tolist() == dataset.table["success"].tolist()
    assert 0 < met.all(axis=1).sum() < 30


def test_rewards_are_those_of_the_tasks_own_sentence(
    scripts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import unmet_conditions

    task = find_task("humanoid-standing")
    write_states(tmp_path / "states", task, sampled_states(task, 20, seed=0))
    named = [str(tmp_path / "states"), "--model", "embedded/tiny", "--csv", str(tmp_path / "table.csv")]
    monkeypatch.setattr("sys.argv", ["unmet_conditions.py", *named])
    unmet_conditions.main()
    assert capsys.readouterr().out.startswith("20 states of humanoid-standing\n")
    table = pd.read_csv(tmp_path / "table.csv").set_index("condition")
    assert table["reward_met"]["all"] > table["reward_unmet"]["all"]


def test_each_condition_is_summed_up(scripts: None) -> None:
    import unmet_conditions

    met = pd.DataFrame({"seated": [True, True, False, True], "knees low": [True, False, False, True]})
    table = unmet_conditions.summary(met, np.array([0.9, 0.5, 0.1, 0.7])).set_index("condition")
    assert table["met"].to_dict() == {"seated": 0.75, "knees low": 0.5, "all": 0.5}
    assert table["missing_alone"].fillna(-1).to_dict() == {"seated": 0.0, "knees low": 0.25, "all": -1}
    assert table["reward_met"].tolist() == pytest.approx([0.7, 0.8, 0.8])
    assert table["reward_unmet"].tolist() == pytest.approx([0.1, 0.3, 0.3])
    assert table["reward_missing_alone"].fillna(-1).tolist() == [-1, 0.5, -1]
    assert "reward_met" not in unmet_conditions.summary(met, None)


def test_states_of_another_task_are_refused(scripts: None, tmp_path: Path) -> None:
    import unmet_conditions

    task = find_task("cartpole-upright")
    dataset = write_states(tmp_path / "states", task, sampled_states(task, 3, seed=0))
    with pytest.raises(UserError, match="has states of cartpole-upright: expected states of humanoid-kneeling"):
        unmet_conditions.conditions_met(dataset)
