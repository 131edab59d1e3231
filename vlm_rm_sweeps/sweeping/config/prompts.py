"""Reads prompts for one task from a text file with a goal on each line, from YAML, or from the command line."""

import re
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import read_text
from vlm_rm_sweeps.rewards.prompt_text import visible_text
from vlm_rm_sweeps.sweeping.config.sections import Prompt
from vlm_rm_sweeps.sweeping.config.validation import check_keys
from vlm_rm_sweeps.sweeping.config.yaml_text import parse_yaml
from vlm_rm_sweeps.tasks.task import Task

_ID_LENGTH = 40
_YAML_SUFFIXES = (".yaml", ".yml")
_FILE_SUFFIXES = (".txt", *_YAML_SUFFIXES)


def read_prompts(names: Sequence[str], baseline: str) -> tuple[Prompt, ...]:
    """Read prompts from files, or from goals given as plain text.

    Args:
        names: Files (`.txt`, `.yaml`) and goals. A text file has one goal on each line; empty lines and lines that start with
            `#` are ignored. A YAML file has a list of goals, or of `id`, `goal` and `baseline` as in a sweep file.
        baseline: The baseline of every prompt that names none of its own.

    Returns:
        The prompts in order. A prompt without an id gets one that is made of the first words of its goal.

    Raises:
        UserError: A file cannot be read, or two goals are the same or have the same id.
    """
    prompts: dict[str, Prompt] = {}
    of_goal: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
    numbers: Counter[str] = Counter()
    for name in names:
        entries = _entries(Path(name)) if name.endswith(_FILE_SUFFIXES) else [name]
        for entry in entries:
            try:
                prompt = _prompt(entry, baseline, prompts.keys(), numbers)
            except (ValidationError, UserError) as error:
                reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
                raise UserError(f"{name}, {entry!r}: {reason.removeprefix('Value error, ')}") from error
            if (prompt.goal, prompt.baseline) in of_goal:
                raise UserError(f"duplicate goal {' | '.join(prompt.goal)!r}: expected each prompt once")
            if prompt.id in prompts:
                raise UserError(f"duplicate prompt id {prompt.id!r}: expected an id of its own for each goal")
            prompts[prompt.id] = prompt
            of_goal.add((prompt.goal, prompt.baseline))
    return tuple(prompts.values())


def prompts_to_compare(names: Sequence[str], baseline: str | None, task: Task) -> tuple[Prompt, ...]:
    """Return the prompts that `names` specify, or the task's own prompt if `names` is empty.

    Args:
        names: Files and goals, see `read_prompts`.
        baseline: The baseline of every prompt that names none of its own; None for the task's.
        task: The task.

    Returns:
        The prompts in order.

    Raises:
        UserError: See `read_prompts`; or the baseline has no visible letter.
    """
    baseline = baseline or task.baseline_prompt
    if not visible_text(baseline):
        raise UserError(
            f"baseline {baseline!r}: expected a sentence that describes any state, such as {task.baseline_prompt!r}"
        )
    return read_prompts(names, baseline) if names else (prompt_of_task(task, baseline),)


def prompt_of_task(task: Task, baseline: str | None = None) -> Prompt:
    """Return the prompt that a task brings along.

    Args:
        task: The task, also a user's.
        baseline: Another baseline than the task's own.

    Returns:
        Its goal and baseline.

    Raises:
        UserError: One of them is empty, or both are the same.
    """
    own = {"id": "task", "goal": (task.goal_prompt,), "baseline": (task.baseline_prompt if baseline is None else baseline,)}
    return check_keys(Prompt, own, hint=f" (this is the prompt of task {task.name!r}; give others with `prompts` or --prompt)")


def _entries(file: Path) -> list[Any]:
    text = read_text(file, "a file with one goal on each line")
    try:
        entries = parse_yaml(text) if file.suffix in _YAML_SUFFIXES else _lines(text)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{file}: expected goals, one on each line, or a YAML list of them")
    return entries


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if visible_text(line) and not visible_text(line).startswith("#")]


def _prompt(entry: Any, baseline: str, taken: Container[str], numbers: Counter[str]) -> Prompt:
    if isinstance(entry, dict):
        return Prompt.model_validate({"baseline": baseline} | entry)
    if not isinstance(entry, str):
        raise UserError(f"expected a sentence, or `id`, `goal` and `baseline`, found {type(entry).__name__}")
    return Prompt(id=_id_of(entry, taken, numbers), goal=(entry,), baseline=(baseline,))


def _id_of(goal: str, taken: Container[str], numbers: Counter[str]) -> str:
    """Make an id from the first words of a goal, with a number appended if the id is taken; `numbers` has the last of each."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", goal).strip("-").lower()[:_ID_LENGTH].strip("-") or "prompt"
    unique = words
    while unique in taken:
        numbers[words] += 1
        number = f"-{numbers[words] + 1}"
        unique = words[: _ID_LENGTH - max(4, len(number))].rstrip("-") + number
    return unique
