"""What rewards are measured against: success tests, raters, or a formula over the state variables."""

import ast
import math
from dataclasses import dataclass

import numpy as np
import simpleeval

from vlm_rm_sweeps.errors import UserError, unknown_name
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.labelling.agreement import answers_by_rater
from vlm_rm_sweeps.labelling.scales import YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore

SUCCESS = "success"
RATER = "rater:"
EVERYONE = "raters"
MIN_STATES = 10
_FUNCTIONS = {"abs": abs, "min": min, "max": max, "sin": math.sin, "cos": math.cos, "exp": math.exp}


@dataclass(frozen=True)
class Truth:
    """A truth about the states of a data set: `values` float (N,), NaN where it is unknown."""

    name: str
    values: np.ndarray

    @property
    def known(self) -> np.ndarray:
        return np.isfinite(self.values)

    @property
    def is_binary(self) -> bool:
        """Whether it says of each state yes or no, so that ROC-AUC and false positives mean something."""
        return bool(np.isin(self.values[self.known], (0.0, 1.0)).all())


def read_truth(dataset: StateDataset, name: str) -> Truth:
    """The truth that `name` stands for.

    `success`: the task's success test. `rater:anna`: that person's labels. `raters`: the majority of all raters, unknown where
    they are split. Anything else: a formula over the state variables, such as `-abs(theta)`.

    Raises UserError, with one message, if the rater or variable does not exist, the labels are of another data set, fewer
    than 10 states have a known truth, or all of them the same.
    """
    if name == SUCCESS:
        values = dataset.table["success"].astype("float64").to_numpy(na_value=np.nan)
        if np.isnan(values).all():
            raise UserError(
                f"{dataset.folder}: no state is labelled by a success test: label it with `vlm-rm label {dataset.folder}` and name "
                f"`{EVERYONE}` or `{RATER}NAME` as truth, or a formula over {_listed(dataset)}"
            )
    elif name == EVERYONE or name.startswith(RATER):
        values = _labels(dataset, name)
    else:
        values = _formula(dataset, name)
    truth = Truth(name, values)
    _check(dataset, truth)
    return truth


def _check(dataset: StateDataset, truth: Truth) -> None:
    known = truth.values[truth.known]
    if len(known) < MIN_STATES:
        raise UserError(
            f"{dataset.folder}: {truth.name!r} is known for {len(known)} of {len(dataset)} states: expected at least {MIN_STATES}; "
            "label more states, or make a larger data set"
        )
    if np.ptp(known) == 0:
        raise UserError(
            f"{dataset.folder}: {truth.name!r} is {known[0]:g} for all {len(known)} states: a reward can only be compared with a truth "
            "that varies; add states of the other kind"
        )


def _labels(dataset: StateDataset, name: str) -> np.ndarray:
    if not dataset.labels_file.is_file():
        raise UserError(f"{dataset.folder} has no labels of raters: give some with `vlm-rm label {dataset.folder}`")
    answers = answers_by_rater(LabelStore(dataset.labels_file, YES_NO).table())
    refuse_foreign_labels(dataset, list(answers.index))
    if name == EVERYONE:
        share = answers.mean(axis=1)
        chosen = (share > 0.5).astype(float).where(share != 0.5)
    else:
        rater = name.removeprefix(RATER)
        if answers.empty:
            raise UserError(
                f"{dataset.folder} has no answers yet, of any rater: give some with `vlm-rm label {dataset.folder}`"
            )
        if rater not in answers:
            raise UserError(f"{dataset.folder}: " + unknown_name("rater", rater, answers.columns))
        chosen = answers[rater]
    return chosen.reindex(dataset.ids).to_numpy(dtype=np.float64)


def refuse_foreign_labels(dataset: StateDataset, items: list[str]) -> None:
    """UserError if labels name states that the data set does not have."""
    foreign = sorted(set(items) - set(dataset.ids))
    if foreign:
        raise UserError(
            f"{dataset.labels_file} has labels of another data set: {len(foreign)} of its {len(items)} states are not in "
            f"{dataset.folder} (the first is {foreign[0]}); bring back the labels that belong to it"
        )


def _formula(dataset: StateDataset, formula: str) -> np.ndarray:
    """A formula's values, float64 (N,); NaN where it divides by zero or leaves the domain of a function."""
    table = dataset.table[dataset.variables]
    states = table.select_dtypes("number").to_dict("records")
    # No attribute of any type: a formula sees numbers, and no methods.
    evaluator = simpleeval.SimpleEval(functions=_FUNCTIONS, allowed_attrs={})
    expected = (
        f"expected `{SUCCESS}`, `{EVERYONE}`, `{RATER}NAME`, or a formula such as '-abs(theta)' over {_listed(dataset)}, with numbers, "
        f"+ - * / ** and {', '.join(_FUNCTIONS)}"
    )
    values = []
    try:
        parsed = ast.parse(formula.strip(), mode="eval").body
        for state in states:
            evaluator.names = state
            try:
                values.append(float(evaluator.eval(formula, parsed)))
            except ArithmeticError:
                values.append(math.nan)
    except (SyntaxError, simpleeval.InvalidExpression, TypeError, ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UserError(f"truth {formula!r} cannot be evaluated ({reason}): {expected}") from error
    return np.array(values)


def _listed(dataset: StateDataset) -> str:
    return ", ".join(dataset.variables) or "its state variables (this data set has none)"
