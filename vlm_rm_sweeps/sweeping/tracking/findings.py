"""What a sweep found, in a few sentences: what was compared, what won, by how much, and how sure that is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from vlm_rm_sweeps.evaluation.over_seeds import chance_of_no_difference, probability_of_improvement
from vlm_rm_sweeps.metrics import REWARD, SAMPLE, SUCCESS, TAKEOVERS, TRUE_RETURN
from vlm_rm_sweeps.sweeping.config.searching import SETTING
from vlm_rm_sweeps.sweeping.config.trial import REFERENCE_PROMPT
from vlm_rm_sweeps.sweeping.tracking.results import CELL, MERITS, cells_of, takeovers_in_words, told_by

_LISTED = 3
_SIGNIFICANT = 0.05
_AXES = {
    "model": "model",
    "alpha": "alpha",
    REWARD: "reward",
    "prompt": "prompt",
    "textures": "texture",
    "camera": "camera",
    SAMPLE: "sample",
}


def findings(task: str, table: pd.DataFrame) -> list[str]:
    """Say what a sweep found.

    No difference is claimed from one seed. With several, how sure the order of the first two is, is told by the probability that a
    run of the first is better than one of the next, with its interval, and a permutation test decides whether the seeds tell the two
    apart. Only then is the first called the best.

    Args:
        task: Name of the task.
        table: The trials, see `results_table`.

    Returns:
        Sentences.
    """
    cells = cells_of(table)
    learned = cells[(cells["prompt"] != REFERENCE_PROMPT) & (cells["seeds"] > 0)]
    reached = _references(cells)
    references = [f"For comparison: {reached}."] if reached else []
    if reached and (cells["prompt"] == REFERENCE_PROMPT).all():
        return [f"Trained on {task} without a reward model, {_seeds(int(cells['seeds'].max()))} each: {reached}."]
    if learned.empty:
        return [f"No trial that learns {task} from a reward model has finished.", *references]
    most = int(learned["seeds"].max())
    ranked = _ranked(learned[learned["seeds"] == most])
    winner = ranked.iloc[0].to_dict()
    if len(ranked) == 1:
        return [
            f"One combination was trained on {task}, from a sentence: {described(winner)}, with {_reached(winner)}.",
            *references,
            *_if_one(most),
        ]
    compared = f"Compared on {task}: {_compared(ranked)}, {_seeds(most)} each."
    same = ranked[_equal(ranked, winner)]
    if len(same) > 1:
        others = len(same) - _LISTED
        named = [described(row) for row in same.head(_LISTED).to_dict("records")] + ([f"{others} more"] if others > 0 else [])
        won = f"{_first_upper(_count(len(same)))} combinations are equally good, with {_reached(winner)}: {'; '.join(named)}."
        return [compared, won, *references, *_if_one(most)]
    second = ranked.iloc[1].to_dict()
    apart, sure = (False, _if_one(most)) if most == 1 else _how_sure(table, winner, second, most)
    first = "Best" if apart else "Highest"
    won = f"{first} is {described(winner)}, with {_reached(winner)}; next is {described(second)}, with {_reached(second)}."
    return [compared, won, *references, *sure]


def described(cell: Mapping[Any, Any]) -> str:
    """Describe a combination as `Trial.cell` does.

    Args:
        cell: A row of a table of trials or combinations.

    Returns:
        For example `embedded/tiny, alpha 0.5, prompt paper`.
    """
    return ", ".join([str(cell["model"]), *within_model(cell)])


def within_model(cell: Mapping[Any, Any]) -> list[str]:
    """Describe what tells a combination from others of its model; nothing for a reference.

    Args:
        cell: A row of a table of trials or combinations.

    Returns:
        Parts such as `alpha 0.5` and `prompt paper`.
    """
    if cell["prompt"] == REFERENCE_PROMPT:
        return []
    reward = [f"reward {cell[REWARD]}"] if REWARD in cell else [f"alpha {cell['alpha']:.4g}"] * (cell["alpha"] == cell["alpha"])
    drawn = [f"{cell['textures']} textures", f"{cell['camera']} camera"] if "textures" in cell else []
    sample = [f"sample {cell[SAMPLE]:.0f}"] if SAMPLE in cell else []
    changed = [takeovers_in_words(int(cell[TAKEOVERS]))] if cell.get(TAKEOVERS, 0) > 0 else []
    first = " at first" if changed else ""
    settings = [
        f"{name.removeprefix(SETTING)} {_readable(cell[name])}{first}" for name in map(str, cell) if name.startswith(SETTING)
    ]
    return [*reward, f"prompt {cell['prompt']}", *drawn, *sample, *settings, *changed]


def _readable(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def estimate_text(cell: Mapping[Any, Any], name: str) -> tuple[str, str]:
    """Write a merit of a combination and its interval.

    Args:
        cell: A row of `cells_of`.
        name: The merit.

    Returns:
        For example `0.83` and `0.60 to 1.00`; empty where unknown.
    """
    value, low, high = (cell[f"{name}_{part}"] for part in ("iqm", "low", "high"))
    digits = 2 if name == SUCCESS else 1
    interval = "" if low != low else f"{low:.{digits}f} to {high:.{digits}f}"
    return ("" if value != value else f"{value:.{digits}f}"), interval


def _ranked(cells: pd.DataFrame) -> pd.DataFrame:
    return cells.sort_values([f"{name}_iqm" for name in MERITS], ascending=False, kind="stable", na_position="last")


def _equal(cells: pd.DataFrame, winner: Mapping[Any, Any]) -> pd.Series:
    values = [f"{name}_iqm" for name in MERITS]
    return (cells[values].eq([winner[name] for name in values]) | cells[values].isna()).all(axis=1)


def _compared(cells: pd.DataFrame) -> str:
    """Name the axes along which combinations differ, and how many there are."""
    counts = {_AXES[name]: cells[name].nunique(dropna=False) for name in CELL if name in cells}
    if REWARD in cells or SAMPLE in cells:
        del counts["alpha"]  # a reward, or a sample, may have one
    several = [f"{count} {name}s" for name, count in counts.items() if count > 1]
    listed = " and ".join([", ".join(several[:-1]), several[-1]] if len(several) > 1 else several)
    return f"{listed}, {len(cells)} combinations" if len(several) > 1 else listed


def _reached(cell: Mapping[Any, Any]) -> str:
    """Say which merits a combination has, with the interval of the first."""
    told: list[str] = []
    for name in MERITS:
        value, interval = estimate_text(cell, name)
        if value:
            in_brackets = f" ({interval})" if interval and not told else ""
            told.append(f"{'a success' if name == SUCCESS else 'a true return'} of {value}{in_brackets}")
    return " and ".join(told) or "neither success nor true return"


def _references(cells: pd.DataFrame) -> str:
    known = cells[(cells["prompt"] == REFERENCE_PROMPT) & (cells["seeds"] > 0)]
    told = [f"{row['model']} {value}" for row in known.to_dict("records") if (value := _first_merit(row))]
    return ", ".join(told)


def _first_merit(cell: Mapping[Any, Any]) -> str:
    return next((value for name in MERITS if (value := estimate_text(cell, name)[0])), "")


def _if_one(seeds: int) -> list[str]:
    """Say what one seed is worth; nothing of several."""
    return ["With one seed this may be luck: no difference is claimed. Several seeds would tell more."] if seeds == 1 else []


def _how_sure(table: pd.DataFrame, winner: Mapping[Any, Any], second: Mapping[Any, Any], seeds: int) -> tuple[bool, list[str]]:
    """Decide whether several seeds tell two combinations apart, and say so."""
    metric = SUCCESS if winner[f"{SUCCESS}_iqm"] == winner[f"{SUCCESS}_iqm"] else TRUE_RETURN
    if winner[f"{metric}_iqm"] == second[f"{metric}_iqm"]:
        metric = TRUE_RETURN
    first, following = _values(table, winner, metric), _values(table, second, metric)
    found = probability_of_improvement([first], [following])
    better = (
        f"A run of the first has more {metric.replace('_', ' ')} than one of the next with probability {float(found.value):.2f}"
    )
    interval = "" if np.isnan(found.low) else f" ({float(found.low):.2f} to {float(found.high):.2f})"
    chance = chance_of_no_difference(first, following)
    told = "tell" if chance < _SIGNIFICANT else "do not tell"
    said = f"{better}{interval}: {_seeds(seeds)} {told} the two apart (permutation test, p = {chance:.2g})."
    return chance < _SIGNIFICANT, [said]


def _values(table: pd.DataFrame, cell: Mapping[Any, Any], metric: str) -> np.ndarray:
    names = told_by(table)
    same = pd.concat([table[name].eq(cell[name]) | (table[name].isna() & pd.isna(cell[name])) for name in names], axis=1)
    return table.loc[same.all(axis=1), metric].dropna().to_numpy(dtype=float)


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _count(number: int) -> str:
    words = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[number - 2] if number - 2 < len(words) else str(number)


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]
