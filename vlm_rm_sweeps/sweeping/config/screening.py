"""Screening files: sweep files with `screen:`, which rank combinations on labelled states instead of training them.

All other keys are those of a sweep. They describe the training that the best combinations are meant for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import RewardMeasure
from vlm_rm_sweeps.rewards.functions.base import seen_in_data_set
from vlm_rm_sweeps.sweeping.config.plan import Plan, plan_of
from vlm_rm_sweeps.sweeping.config.prompts import read_prompts
from vlm_rm_sweeps.sweeping.config.sections import Combination, LabelledStates
from vlm_rm_sweeps.sweeping.config.sweep import with_name
from vlm_rm_sweeps.sweeping.config.validation import check_keys, in_file
from vlm_rm_sweeps.sweeping.config.yaml_file import SCREEN, read_sweep_keys
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.user_modules import make_importable

_MOST_COMBINATIONS = 100_000
_NAME_LENGTH = 60


class ScreenSettings(LabelledStates):
    """What combinations are screened on, and how many of them are kept for training."""

    rank_by: RewardMeasure = Field(
        "epic_distance", description="The measure that combinations are ranked by, as in the table of `vlm-rm epic`."
    )
    keep: int = Field(3, ge=1, description="How many of the best combinations the sweep file for training has.")


@dataclass(frozen=True)
class Screening:
    """A screening file, resolved.

    Attributes:
        settings: The `screen` section.
        plan: The plan of the whole grid.
        keys: The file's own keys, without `screen`.
    """

    settings: ScreenSettings
    plan: Plan
    keys: dict[str, Any]

    def describe(self) -> str:
        """Describe what will be screened, with a remark on rewards that are others on states than in episodes."""
        plan = self.plan
        rewards = f"{len(plan.rewards)} {'rewards' if plan.sweep.rewards else 'alphas'}"
        grid = f"{len(plan.sweep.models)} models, {rewards}, {len(plan.prompts)} prompts"
        screened = f"screening {len(plan.combinations):,} combinations ({grid}) on the states in {self.settings.states}"
        remark = seen_in_data_set(plan.needing_episodes())
        return "\n".join([f"{screened}, truth: {self.settings.truth}", *([remark] if remark else [])])

    def best_sweep(self, best: list[Combination]) -> dict[str, Any]:
        """Build the keys of a sweep file that trains only these combinations."""
        sweep = self.plan.sweep
        prompts = {prompt.id: prompt for prompt in self.plan.prompts}
        # The audit may score for prompts that nothing is trained with.
        audited = sweep.audit.prompts if sweep.audit else ()
        kept = {name: prompts[name].model_dump(mode="json") for name in (*(each.prompt for each in best), *audited)}
        # As resolved for the whole grid: among the best alone, another model may be the largest.
        audit = {"audit": sweep.audit.model_dump(mode="json")} if sweep.audit else {}
        return (
            self.keys
            | audit
            | {
                "name": f"{sweep.name[: _NAME_LENGTH - 5]}-best",
                "models": list(dict.fromkeys(each.model for each in best)),
                **self._best_rewards(best),
                "prompts": list(kept.values()),
                "only": [each.model_dump(mode="json", exclude_none=True) for each in best],
            }
        )

    def _best_rewards(self, best: list[Combination]) -> dict[str, Any]:
        """Return the key for the rewards of these combinations: `alphas`, or `rewards`."""
        if not self.plan.sweep.rewards:
            return {"alphas": sorted({each.alpha for each in best if each.alpha is not None})}
        kept = {each.reward for each in best}
        pairs = zip(self.plan.sweep.rewards, self.plan.rewards, strict=True)
        return {"rewards": [given.model_dump(mode="json", exclude_none=True) for given, made in pairs if made.label in kept]}


def load_plan(path: Path, overrides: Sequence[str] = ()) -> Plan | Screening:
    """Read a sweep file or a screening file, and look up everything that it names.

    The file, and each `base`, may refer to modules in its own folder, as `module:Class`.

    Args:
        path: The YAML file.
        overrides: Changes such as `alphas=[0, 0.5]` or `trial.cpus=2`, applied before validation.

    Returns:
        A screening if the file has a `screen` section, else the plan of the sweep.

    Raises:
        UserError: One message that names the file and everything that is wrong with it.
    """
    return plan_file(path, read_sweep_keys(path, overrides, make_importable))


def plan_file(path: Path, data: dict[str, Any]) -> Plan | Screening:
    """Look up everything that the keys of a sweep file or a screening file name.

    Args:
        path: The file, for messages.
        data: Its keys, with its folder and those of its bases made importable.

    Returns:
        As `load_plan`.

    Raises:
        UserError: One message that names the file and everything that is wrong with it.
    """
    data = with_name(path, data)
    try:
        return _screening(data) if SCREEN in data else plan_of(data)
    except UserError as error:
        raise in_file(path, error) from error


def _screening(data: dict[str, Any]) -> Screening:
    settings = check_keys(ScreenSettings, data[SCREEN], f"{SCREEN}.")
    keys = {key: value for key, value in data.items() if key != SCREEN}
    if keys.get("search") is not None:
        raise UserError("search: a screening trains nothing that could be searched by: leave out `search`, or `screen`")
    if keys.get("task") is None:
        raise UserError("'task' is missing: states are collected and labelled for the tasks of `vlm-rm tasks`")
    # The limit on trials is meant for training; screening a combination costs only a few matrix products.
    plan = plan_of(_with_prompts(keys) | {"max_trials": _MOST_COMBINATIONS})
    if not plan.models:
        raise UserError("models = []: expected at least one to rank")
    screening = Screening(settings, plan, keys)
    _check_training(screening)
    return screening


def _check_training(screening: Screening) -> None:
    """Refuse a file whose best combinations could not be trained, whichever they are, before anything is measured.

    Raises:
        UserError: The sweep file of the best combinations would be refused.
    """
    grid = [
        Combination(model=model, alpha=None if reward.label else reward.alpha, reward=reward.label, prompt=prompt.id)
        for model, reward, prompt in screening.plan.combinations
    ]
    kept = grid[: screening.settings.keep]
    try:
        plan_of(screening.best_sweep(kept))
    except UserError as error:
        raise UserError(f"{error} (the training of the best {len(kept)} combinations, screen.keep)") from error


def _with_prompts(keys: dict[str, Any]) -> dict[str, Any]:
    """Replace the name of a prompt file by the prompts that it contains."""
    named = keys.get("prompts")
    if not isinstance(named, str):
        return keys
    try:
        prompts = read_prompts([named], find_task(str(keys.get("task"))).baseline_prompt)
    except UserError as error:
        raise UserError(f"prompts: {error}") from error
    return keys | {"prompts": [prompt.model_dump(mode="json") for prompt in prompts]}
