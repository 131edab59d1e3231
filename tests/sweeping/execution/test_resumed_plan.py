"""A sweep is resumed only if its trials are those that its folder has."""

from pathlib import Path

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.execution.run_sweep import resumed_plan
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder

KEYS = {"name": "a", "task": "cartpole-upright", "models": ["embedded/tiny"], "steps": 100}


def test_no_trial_that_has_started_is_abandoned(tmp_path: Path) -> None:
    plan, folder = plan_of(KEYS | {"alphas": [0.5]}), SweepFolder(tmp_path / "sweep")
    folder.create(plan.sweep)
    folder.trial(plan.trials[0].trial_id).mkdir(parents=True)
    resumed_plan(plan, folder)
    folder.trial("of-another-head").mkdir()
    with pytest.raises(UserError, match=r"a file that its sweep file names has changed .* 1 of its trials .*of-another-head"):
        resumed_plan(plan, folder)
