"""The table at the end of a sweep."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vlm_rm_sweeps.metrics import ALARM, CLIP_RETURN, EPIC_DISTANCE, EVALUATION, STEPS_PER_SECOND, SUCCESS, TRUE_RETURN
from vlm_rm_sweeps.sweeping.config.sweep import Trial

COLUMNS = [
    "trial_id",
    "model",
    "alpha",
    "prompt",
    "seed",
    "clip_return",
    "true_return",
    "success",
    "steps_per_second",
    "status",
    "reason",
]


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended: `finished`, `failed` (with the reason) or `unfinished`, and its last metrics."""

    trial: Trial
    status: str
    reason: str
    metrics: dict[str, float]


def results_table(outcomes: list[TrialOutcome]) -> pd.DataFrame:
    """One row for each trial; returns and success are those of the greedy policy at the end (NaN where there is none).

    The columns textures and camera are there if the sweep compares renderings; epic_distance and overoptimisation_alarm, if a
    trial has them.
    """
    rows = [
        {
            "trial_id": outcome.trial.trial_id,
            "model": outcome.trial.model_id,
            "alpha": outcome.trial.alpha if outcome.trial.prompt else float("nan"),
            "prompt": outcome.trial.prompt_id,
            "seed": outcome.trial.seed,
            "clip_return": outcome.metrics.get(EVALUATION + CLIP_RETURN, float("nan")),
            "true_return": outcome.metrics.get(EVALUATION + TRUE_RETURN, float("nan")),
            "success": outcome.metrics.get(EVALUATION + SUCCESS, float("nan")),
            "steps_per_second": outcome.metrics.get(STEPS_PER_SECOND, float("nan")),
            "status": outcome.status,
            "reason": outcome.reason,
        }
        for outcome in outcomes
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    if any(outcome.trial.rendering_named for outcome in outcomes):
        after_prompt = COLUMNS.index("prompt") + 1
        table.insert(after_prompt, "textures", [outcome.trial.rendering.textures for outcome in outcomes])
        table.insert(after_prompt + 1, "camera", [outcome.trial.rendering.camera for outcome in outcomes])
    for metric in (EPIC_DISTANCE, ALARM):
        if any(metric in outcome.metrics for outcome in outcomes):
            values = [outcome.metrics.get(metric, float("nan")) for outcome in outcomes]
            table.insert(table.columns.tolist().index("steps_per_second"), metric, values)
    return table


def best_trial(outcomes: list[TrialOutcome]) -> TrialOutcome | None:
    """The finished trial of a reward model with the highest success, then true return.

    Never by CLIP return: the scales of different models cannot be compared.
    """
    candidates = [outcome for outcome in outcomes if outcome.status == "finished" and outcome.trial.prompt is not None]

    def merit(outcome: TrialOutcome) -> tuple[float, float]:
        return outcome.metrics.get(EVALUATION + SUCCESS, -1.0), outcome.metrics.get(EVALUATION + TRUE_RETURN, -1.0)

    return max(candidates, key=merit, default=None)


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep has left. `interrupted`: the user stopped it; `outcomes`: one for each trial, in order."""

    folder: Path
    tracking_uri: str
    outcomes: list[TrialOutcome]
    interrupted: bool

    @property
    def table(self) -> pd.DataFrame:
        return results_table(self.outcomes)

    @property
    def best(self) -> TrialOutcome | None:
        return best_trial(self.outcomes)

    @property
    def all_finished(self) -> bool:
        return all(outcome.status == "finished" for outcome in self.outcomes)
