"""The outcome of a sweep and its final tables: a row for each trial, and one for each combination over its seeds."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlm_rm_sweeps.errors import DamagedFileError, reason_of
from vlm_rm_sweeps.evaluation.over_seeds import interquartile_mean, iqm
from vlm_rm_sweeps.files import read_whole
from vlm_rm_sweeps.metrics import (
    ALARM,
    CLIP_RETURN,
    DONE,
    EPIC_DISTANCE,
    EVALUATION,
    REWARD,
    SAMPLE,
    STEPS_PER_SECOND,
    SUCCESS,
    TAKEOVERS,
    TRUE_RETURN,
    TrialStatus,
)
from vlm_rm_sweeps.rewards.known_states import AUDIT_DRIFT
from vlm_rm_sweeps.sweeping.config.searching import SETTING, Drawn
from vlm_rm_sweeps.sweeping.config.trial import Trial
from vlm_rm_sweeps.sweeping.tracking.journal import TakenOver

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


TEXT_COLUMNS = ("trial_id", "model", REWARD, "prompt", "textures", "camera", "status", "reason")
"""Columns of the table that are text; all others are numbers."""
MERITS = (SUCCESS, TRUE_RETURN)
"""The metrics by which combinations are compared, the first one first."""
AT_END = "at_end."
"""What the columns begin with that have the settings of trials at their end, where takeovers changed them."""
CELL = ("model", "alpha", REWARD, "prompt", "textures", "camera", SAMPLE)
"""Columns that tell a combination, where a table has them."""
_PARTS = ("iqm", "low", "high")
_REQUIRED = ("trial_id", "model", "alpha", "prompt", "seed", "true_return", "success", "status")
_REMEDY = "restore it, or let `vlm-rm sweep FILE --resume` write it again"


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended, why (empty if it finished), its last metrics, and its takeovers of other trainings.

    Metrics of the greedy policy are of its end, of a trial that finished or was stopped early; else of an evaluation before.
    """

    trial: Trial
    status: TrialStatus
    reason: str
    metrics: dict[str, float]
    takeovers: tuple[TakenOver, ...] = ()

    @property
    def values(self) -> Mapping[str, Drawn]:
        """Of a search, the values that the trial had last: those of its sample, unless a takeover changed them."""
        if self.takeovers:
            return self.takeovers[-1].values
        return self.trial.sample.values or {} if self.trial.sample else {}

    @property
    def has_ended(self) -> bool:
        """Whether the trial is done, in whole or as far as the sweep file lets it go."""
        return self.status in DONE


def results_table(outcomes: list[TrialOutcome]) -> pd.DataFrame:
    """Tabulate the outcomes of a sweep's trials.

    Args:
        outcomes: One for each trial.

    Returns:
        A row for each trial with the columns `COLUMNS`. Returns and success are those of the greedy policy at the end, NaN
        where missing. There is a column reward if the sweep names rewards. There are columns textures and camera if the
        sweep compares renderings; sample, and one for each setting that is drawn, of a search (empty before it is drawn); if trials
        took over the training of others, takeovers, and one for each setting at the end (`at_end.`); and epic_distance,
        overoptimisation_alarm and audit_column/drift if a trial has them.
    """
    table = pd.DataFrame([_row(outcome) for outcome in outcomes], columns=COLUMNS)
    if any(outcome.trial.reward for outcome in outcomes):
        labels = [outcome.trial.reward.label if outcome.trial.reward else "-" for outcome in outcomes]
        table.insert(COLUMNS.index("alpha") + 1, REWARD, labels)
    if any(outcome.trial.rendering_named for outcome in outcomes):
        after_prompt = table.columns.tolist().index("prompt") + 1
        table.insert(after_prompt, "textures", [outcome.trial.rendering.textures for outcome in outcomes])
        table.insert(after_prompt + 1, "camera", [outcome.trial.rendering.camera for outcome in outcomes])
    if any(outcome.trial.sample for outcome in outcomes):
        for position, (name, values) in enumerate(_sample_columns([outcome.trial for outcome in outcomes]).items()):
            table.insert(table.columns.tolist().index("seed") + position, name, values)
    if any(outcome.takeovers for outcome in outcomes):
        for name, values in _takeover_columns(outcomes).items():
            table.insert(table.columns.tolist().index("clip_return"), name, values)
    for metric in (EPIC_DISTANCE, ALARM, AUDIT_DRIFT):
        if any(metric in outcome.metrics for outcome in outcomes):
            values = [outcome.metrics.get(metric, float("nan")) for outcome in outcomes]
            table.insert(table.columns.tolist().index("steps_per_second"), metric, values)
    return table


def _sample_columns(trials: list[Trial]) -> dict[str, list[Any]]:
    """Return the number of each trial's sample and what was drawn for the algorithm. Alpha has a column already."""
    samples = [trial.sample for trial in trials]
    drawn = [sample.values or {} if sample else {} for sample in samples]
    names = dict.fromkeys(key for values in drawn for key in values if key.startswith(SETTING))
    numbers = [sample.number if sample else float("nan") for sample in samples]
    return {SAMPLE: numbers} | {name: [values.get(name, float("nan")) for values in drawn] for name in names}


def _takeover_columns(outcomes: list[TrialOutcome]) -> dict[str, list[Any]]:
    """Return how often each trial took over another training, and the settings that it had last; NaN of a reference."""
    counts = [len(each.takeovers) if each.trial.sample else float("nan") for each in outcomes]
    names = dict.fromkeys(key for each in outcomes for key in each.values if key.startswith(SETTING))
    ends = {AT_END + name.removeprefix(SETTING): [each.values.get(name, float("nan")) for each in outcomes] for name in names}
    return {TAKEOVERS: counts} | ends


def told_by(table: pd.DataFrame) -> list[str]:
    """Return the columns that tell the combinations of a table of trials, and those of a search's settings."""
    return [name for name in table.columns.map(str) if name in CELL or name.startswith(SETTING)]


def _row(outcome: TrialOutcome) -> dict[str, object]:
    def metric(name: str) -> float:
        # An evaluation before the end is not the trial's result.
        known = not name.startswith(EVALUATION) or outcome.has_ended
        return outcome.metrics.get(name, float("nan")) if known else float("nan")

    return {
        "trial_id": outcome.trial.trial_id,
        "model": outcome.trial.model_id,
        "alpha": float("nan") if outcome.trial.known_alpha is None else outcome.trial.known_alpha,
        "prompt": outcome.trial.prompt_id,
        "seed": outcome.trial.seed,
        "clip_return": metric(EVALUATION + CLIP_RETURN),
        "true_return": metric(EVALUATION + TRUE_RETURN),
        "success": metric(EVALUATION + SUCCESS),
        "steps_per_second": metric(STEPS_PER_SECOND),
        "status": str(outcome.status),
        "reason": outcome.reason,
    }


def cells_of(table: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the combinations of a sweep, each over its seeds.

    Args:
        table: The trials, see `results_table`.

    Returns:
        A row for each combination, in the order of its first trial: what tells it, as in `results_table`; `seeds`, the number of
        its trials that finished, or were stopped with a result of the greedy policy; for each of success and true return the
        interquartile mean over these seeds and the ends of its 95 % interval (`success_iqm`, `success_low`, `success_high`, ...),
        NaN where unknown. One seed has no interval. Where the trials have takeovers, so has a combination: those of all its trials.
    """
    told = told_by(table)
    counted = [TAKEOVERS] if TAKEOVERS in table else []
    rows = []
    for _, trials in table.groupby(told, sort=False, dropna=False):
        judged = (trials["status"] == TrialStatus.FINISHED) | trials[list(MERITS)].notna().any(axis=1)
        row = trials.iloc[0][told].to_dict() | {"seeds": int(judged.sum())}
        for name in MERITS:
            estimate = iqm([trials[name].dropna().to_numpy(dtype=float)])
            row |= {f"{name}_{part}": float(value) for part, value in zip(_PARTS, estimate, strict=True)}
        if counted:
            row[TAKEOVERS] = trials[TAKEOVERS].sum(min_count=1)
        rows.append(row)
    return pd.DataFrame(rows, columns=[*told, *counted, "seeds", *(f"{name}_{part}" for name in MERITS for part in _PARTS)])


def read_results(file: Path) -> pd.DataFrame:
    """Read the final table of a sweep.

    Args:
        file: As `results_table` made it, in CSV.

    Returns:
        The table: `TEXT_COLUMNS` as text, all others as numbers, NaN where missing. Of a search, a drawn setting that is no number
        is text.

    Raises:
        DamagedFileError: The file cannot be read, was cut, lacks a column, or has a value that is not of its column's type.
    """
    content = read_whole(file, _REMEDY)
    if not content.endswith(b"\n"):
        raise DamagedFileError(f"{file} was cut short: {_REMEDY}")
    try:
        # A prompt's id may look like a number, or like a missing value to pandas.
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' own errors, and what is not UTF-8
        raise DamagedFileError(f"{file} is damaged ({reason_of(error)}): {_REMEDY}") from error
    missing = [name for name in _REQUIRED if name not in table]
    if missing:
        raise DamagedFileError(f"{file} is damaged: it lacks {', '.join(missing)}: {_REMEDY}")
    return table.apply(lambda column: _checked(file, column))


def _checked(file: Path, column: pd.Series) -> pd.Series:
    """Return a column with its type."""
    numeric = column.name not in TEXT_COLUMNS
    if str(column.name).startswith((SETTING, AT_END)) and pd.to_numeric(column.replace("", "0"), errors="coerce").isna().any():
        return column
    values = pd.to_numeric(column, errors="coerce") if numeric else column
    statuses = [str(status) for status in TrialStatus] if column.name == "status" else None
    for row, (text, value) in enumerate(zip(column, values, strict=True)):
        misread = numeric and text != "" and value != value
        if not isinstance(text, str) or misread or (statuses and text not in statuses):
            expected = f"one of {', '.join(statuses)}" if statuses else ("a number" if numeric else "text")
            raise DamagedFileError(
                f"{file} is damaged: {column.name} = {text!r} in row {row + 1}: expected {expected}: {_REMEDY}"
            )
    return values


def takeovers_in_words(count: int) -> str:
    """Write a number of takeovers."""
    return "1 takeover" if count == 1 else f"{count} takeovers"


@dataclass(frozen=True)
class BestCell:
    """The best combination of a sweep.

    Attributes:
        outcomes: Its finished trials, one for each seed.
    """

    outcomes: tuple[TrialOutcome, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """Interquartile means over the seeds, of the metrics that all trials have."""
        names = [name for name in self.outcomes[0].metrics if all(name in each.metrics for each in self.outcomes)]
        return {name: float(interquartile_mean(np.array([each.metrics[name] for each in self.outcomes]))) for name in names}

    @property
    def label(self) -> str:
        """Human-readable description: the trial's own if there is one seed."""
        if len(self.outcomes) == 1:
            return f"{self.outcomes[0].trial.label}{self._changed}"
        seeds = ", ".join(str(each.trial.seed) for each in self.outcomes)
        return f"{self.outcomes[0].trial.cell}, over seeds {seeds}{self._changed}"

    @property
    def _changed(self) -> str:
        count = sum(len(each.takeovers) for each in self.outcomes)
        return f" (values at first, {takeovers_in_words(count)} since)" if count else ""


def best_cells(outcomes: list[TrialOutcome]) -> list[BestCell]:
    """Choose the best combinations with a reward model: by success, then by true return, as interquartile means over seeds.

    The first is the best row of `cells_of`. A single seed may be lucky. Only combinations compete of which the most seeds have
    finished, or were stopped with an evaluation of the greedy policy, which then counts against a combination what it might have
    learned later. CLIP returns are not used, because the scales of different models cannot be compared.

    Args:
        outcomes: One for each trial.

    Returns:
        The best combination, and those that are exactly as good; empty if no trial with a reward model finished.
    """
    cells: dict[str, list[TrialOutcome]] = {}
    for each in outcomes:
        judged = each.status == TrialStatus.FINISHED or (each.has_ended and EVALUATION + TRUE_RETURN in each.metrics)
        if judged and each.trial.prompt is not None:
            cells.setdefault(each.trial.cell, []).append(each)
    most = max(map(len, cells.values()), default=0)

    def merit(cell: BestCell) -> tuple[float, ...]:
        return tuple(cell.metrics.get(EVALUATION + name, -math.inf) for name in MERITS)

    competing = [BestCell(tuple(cell)) for cell in cells.values() if len(cell) == most]
    highest = max(map(merit, competing), default=())
    return [cell for cell in competing if merit(cell) == highest]


@dataclass(frozen=True)
class SweepOutcome:
    """How a sweep ended.

    Attributes:
        folder: The sweep's folder.
        tracking_uri: The MLflow server or database with its runs.
        outcomes: One for each trial, in the order of the plan.
        interrupted: Whether the user stopped it.
    """

    folder: Path
    tracking_uri: str
    outcomes: list[TrialOutcome]
    interrupted: bool

    @property
    def table(self) -> pd.DataFrame:
        """The table of the trials, see `results_table`."""
        return results_table(self.outcomes)

    @property
    def cells(self) -> pd.DataFrame:
        """The table of the combinations, see `cells_of`."""
        return cells_of(self.table)

    @property
    def best(self) -> BestCell | None:
        """The best combination, see `best_cells`."""
        return next(iter(best_cells(self.outcomes)), None)

    @property
    def as_good(self) -> int:
        """The number of other combinations that are exactly as good as the best one."""
        return max(0, len(best_cells(self.outcomes)) - 1)

    @property
    def finished(self) -> int:
        """The number of trials that finished."""
        return sum(outcome.status == TrialStatus.FINISHED for outcome in self.outcomes)

    @property
    def all_finished(self) -> bool:
        """Whether every trial finished, or was stopped as the sweep file says."""
        return all(outcome.has_ended for outcome in self.outcomes)
