"""Ground truths against which rewards are measured: success tests, labels by raters, or formulas over state variables."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlm_rm_sweeps.errors import UserError, shown, unknown_name
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.formulas import Formula
from vlm_rm_sweeps.labelling.agreement import answers_by_rater
from vlm_rm_sweeps.labelling.scales import YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore

SUCCESS = "success"
RATER = "rater:"
EVERYONE = "raters"
MIN_STATES = 10
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "min": min,
    "max": max,
    "sin": math.sin,
    "cos": math.cos,
    "exp": math.exp,
}


@dataclass(frozen=True)
class Truth:
    """A ground truth for the N states of a data set.

    Attributes:
        name: As in `read_truth`.
        values: float (N,), NaN where it is unknown.
    """

    name: str
    values: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Whether the truth is known, bool (N,)."""
        return np.isfinite(self.values)

    @property
    def is_binary(self) -> bool:
        """Whether all known values are 0 or 1, so that ROC-AUC and false positives are defined."""
        return bool(np.isin(self.values[self.known], (0.0, 1.0)).all())


def read_truth(dataset: StateDataset, name: str) -> Truth:
    """Read the ground truth of a data set by its name.

    Args:
        dataset: The states.
        name: `success`: the task's success test. `rater:anna`: the labels of that rater. `raters`: the majority of all raters,
            unknown where they are split. Anything else: a formula over the state variables, such as `-abs(theta)`.

    Returns:
        The truth, known for at least 10 states, and not the same for all of them.

    Raises:
        UserError: The rater or variable does not exist, the labels belong to another data set, fewer than 10 states have a
            known truth, or it is the same for all of them.
    """
    if name == SUCCESS:
        values = dataset.table["success"].astype("float64").to_numpy(na_value=np.nan)
        if np.isnan(values).all():
            raise UserError(
                f"{dataset.folder}: no state has a result of a success test: label states with `vlm-rm label {dataset.folder}` and use "
                f"the truth `{EVERYONE}` or `{RATER}NAME`, or use a formula over {_listed(dataset)}"
            )
    elif name == EVERYONE or name.startswith(RATER):
        values = _labels(dataset, name)
    else:
        values = _formula(dataset, name)
    truth = Truth(name, values)
    is_formula = name not in (SUCCESS, EVERYONE) and not name.startswith(RATER)
    _check(dataset, truth, _NO_VALUE if is_formula and len(dataset) >= MIN_STATES else _TOO_FEW)
    return truth


_TOO_FEW = "label more states, or make a larger data set"
_NO_VALUE = "it has no value where it divides by zero, is too large or leaves a function's domain: write another formula"


def _check(dataset: StateDataset, truth: Truth, remedy: str) -> None:
    known = truth.values[truth.known]
    if len(known) < MIN_STATES:
        raise UserError(
            f"{dataset.folder}: {truth.name!r} is known for {len(known)} of {len(dataset)} states: expected at least {MIN_STATES}; "
            f"{remedy}"
        )
    if np.ptp(known) == 0:
        raise UserError(
            f"{dataset.folder}: {truth.name!r} is {known[0]:g} for all {len(known)} states: expected a truth that varies; add states "
            "with another value"
        )


def _labels(dataset: StateDataset, name: str) -> np.ndarray:
    if not dataset.labels_file.is_file():
        raise UserError(f"{dataset.folder} has no labels by raters: add some with `vlm-rm label {dataset.folder}`")
    answers = answers_by_rater(LabelStore(dataset.labels_file, YES_NO).table())
    refuse_foreign_labels(dataset, list(answers.index))
    if name == EVERYONE:
        share = answers.mean(axis=1)
        chosen = (share > 0.5).astype(float).where(share != 0.5)
    else:
        rater = name.removeprefix(RATER)
        if answers.empty:
            raise UserError(f"{dataset.folder} has no answers by raters yet: add some with `vlm-rm label {dataset.folder}`")
        if rater not in answers:
            raise UserError(f"{dataset.folder}: " + unknown_name("rater", rater, answers.columns))
        chosen = answers[rater]
    return chosen.reindex(dataset.ids).to_numpy(dtype=np.float64)


def refuse_foreign_labels(dataset: StateDataset, items: Iterable[str], file: Path | None = None) -> None:
    """Refuse labels of states that are not in the data set.

    Args:
        dataset: The states.
        items: Ids of the labelled states.
        file: The file that they are from; by default that of the labels of states.

    Raises:
        UserError: At least one of them is not in the data set.
    """
    labelled = set(items)
    foreign = sorted(labelled - set(dataset.ids))
    if foreign:
        raise UserError(
            f"{file or dataset.labels_file} belongs to another data set: {len(foreign)} of its {len(labelled)} labelled states are not "
            f"in {dataset.folder} (the first is {foreign[0]}); restore the file of this data set"
        )


def _formula(dataset: StateDataset, formula: str) -> np.ndarray:
    """Evaluate a formula for each state, float64 (N,); NaN where it divides by zero or leaves a function's domain."""
    numbers = dataset.table[dataset.variables].select_dtypes("number")
    expected = (
        f"expected `{SUCCESS}`, `{EVERYONE}`, `{RATER}NAME`, or a formula such as '-abs(theta)' over {_listed(dataset)}, with numbers, "
        f"+ - * / ** and the functions {', '.join(_FUNCTIONS)}"
    )
    try:
        parsed = Formula(formula, _FUNCTIONS, names=[str(name) for name in numbers])
        computed = [parsed({str(name): value for name, value in state.items()}) for state in numbers.to_dict("records")]
        return np.array([math.nan if value is None else float(value) for value in computed])
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"truth {shown(formula)} cannot be evaluated ({error}): {expected}") from error


def _listed(dataset: StateDataset) -> str:
    return ", ".join(dataset.variables) or "state variables (this data set has none)"
