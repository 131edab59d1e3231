"""Screening files: a sweep file with `screen:` ranks its models, alphas and prompts on labelled states instead of training.

All other keys are those of a sweep, and describe the training that the best combinations are meant for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.config.prompts import read_prompts
from vlm_rm_sweeps.sweeping.config.sweep import Combination, LabelledStates, Sweep, check_keys, load_sweep, read_yaml
from vlm_rm_sweeps.tasks.registry import find_task

_KEY = "screen"
_MOST_COMBINATIONS = 100_000
_NAME_LENGTH = 60


class ScreenSettings(LabelledStates):
    """What combinations are screened on, and how many of them go on to training."""

    keep: int = Field(3, ge=1, description="How many of the best combinations the sweep file for training has.")


@dataclass(frozen=True)
class Screening:
    """A checked screening file: `sweep` has the whole grid, `keys` are the file's own, without `screen`."""

    settings: ScreenSettings
    sweep: Sweep
    keys: dict[str, Any]

    def describe(self) -> str:
        sweep = self.sweep
        grid = f"{len(sweep.models)} models, {len(sweep.alphas)} alphas, {len(sweep.wordings())} prompts"
        return (
            f"screening {len(sweep.combinations()):,} combinations ({grid}) on the states in {self.settings.states}, truth: "
            f"{self.settings.truth}"
        )

    def best_sweep(self, best: list[Combination]) -> dict[str, Any]:
        """The keys of a sweep file that trains these combinations and no others."""
        prompts = {prompt.id: prompt for prompt in self.sweep.wordings()}
        # The audit may score for wordings that nothing is trained with.
        audited = self.sweep.audit.prompts if self.sweep.audit else ()
        kept = {name: prompts[name].model_dump(mode="json") for name in (*(each.prompt for each in best), *audited)}
        # As it is for the whole grid: of the best alone another model may be the largest.
        audit = {"audit": self.sweep.audit.model_dump(mode="json")} if self.sweep.audit else {}
        return (
            self.keys
            | audit
            | {
                "name": f"{self.sweep.name[: _NAME_LENGTH - 5]}-best",
                "models": list(dict.fromkeys(each.model for each in best)),
                "alphas": sorted({each.alpha for each in best}),
                "prompts": list(kept.values()),
                "only": [each.model_dump(mode="json") for each in best],
            }
        )


def load_plan(path: Path) -> Sweep | Screening:
    """Read and check a sweep file, or a screening file. UserError as `load_sweep` raises it."""
    data = read_yaml(path)
    return _screening(data, path) if _KEY in data else load_sweep(path)


def _screening(data: dict[str, Any], path: Path) -> Screening:
    settings = check_keys(ScreenSettings, data[_KEY], path, f"{_KEY}.")
    keys = {key: value for key, value in data.items() if key != _KEY}
    # The limit on trials is meant for training; screening a combination costs no more than a few products.
    sweep = check_keys(Sweep, _with_prompts(keys, path) | {"max_trials": _MOST_COMBINATIONS}, path)
    if sweep.task is None:
        raise UserError(f"{path}: 'task' is missing: states are collected and labelled for the tasks of `vlm-rm tasks`")
    screening = Screening(settings, sweep, keys)
    _check_training(screening, path)
    return screening


def _check_training(screening: Screening, path: Path) -> None:
    """UserError if the sweep file of the best combinations would be refused, whichever they will be: now, not after the work."""
    grid = [Combination(model=model, alpha=alpha, prompt=prompt.id) for model, alpha, prompt in screening.sweep.combinations()]
    kept = grid[: screening.settings.keep]
    try:
        check_keys(Sweep, screening.best_sweep(kept), path)
    except UserError as error:
        raise UserError(f"{error} (the training of the best {len(kept)} combinations, screen.keep)") from error


def _with_prompts(keys: dict[str, Any], path: Path) -> dict[str, Any]:
    """The keys, with the prompts that stand in a file in place of the file's name."""
    prompts = keys.get("prompts")
    if not isinstance(prompts, str):
        return keys
    try:
        wordings = read_prompts([prompts], find_task(str(keys.get("task"))).baseline_prompt)
    except UserError as error:
        raise UserError(f"{path}: prompts: {error}") from error
    return keys | {"prompts": [prompt.model_dump(mode="json") for prompt in wordings]}
