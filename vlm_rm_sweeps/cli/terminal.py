"""Output to the terminal: lines, tables and exit statuses."""

import io
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from vlm_rm_sweeps.metrics import CLIP_RETURN, HEADINGS, INTERVALS, REWARD, SAMPLE, SUCCESS, TAKEOVERS, TRUE_RETURN

if TYPE_CHECKING:
    import pandas as pd

    from vlm_rm_sweeps.evaluation.confusion import Matrix
    from vlm_rm_sweeps.sweeping.tracking.progress import Progress, Watcher
    from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

_MIN_WIDTH = 110
_ROWS = 16
"""Of a live table, which must not be higher than the terminal."""
_MEASURES_ABREAST = 6
"""With their intervals in one line; those of more would leave no room for models and prompts in `_MIN_WIDTH`."""
console = Console(highlight=False, soft_wrap=True, width=max(_MIN_WIDTH, shutil.get_terminal_size().columns))


class _LastingStream(io.TextIOWrapper):
    """A standard stream that outlives its reader (`| head`) or its disk: what cannot be written is dropped, the work goes on."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        # The descriptor itself is redirected, or what is still buffered would fail again when Python ends.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.fileno())
        os.close(nothing)


def keep_streams() -> None:
    """Let the standard streams never end the work: closed, full, or unable to show a letter.

    Call it before files are opened. A closed descriptor would be taken by the next file, into which everything printed would go.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # it was closed
            nowhere = open(descriptor, "wb", closefd=False)  # noqa: SIM115  # as long as this process lives
            setattr(sys, name, _LastingStream(nowhere, encoding="utf-8", errors="backslashreplace"))
        elif type(stream) is io.TextIOWrapper:  # not what a test or another program has put there
            encoding, by_lines = stream.encoding, stream.line_buffering
            lasting = _LastingStream(stream.buffer, encoding=encoding, errors="backslashreplace", line_buffering=by_lines)
            setattr(sys, name, lasting)


def say(line: str) -> None:
    """Print a line of progress and flush it, so that it also appears at once in a pipe."""
    print(line, flush=True)


def say_aside(line: str) -> None:
    """Print a line of progress on standard error, because standard output has the JSON."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print JSON, for programs.

    Args:
        value: Plain data. A number that is not finite, which JSON does not have, becomes null.
    """
    print(json.dumps(_finite(value), indent=2))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return the rows of a table as plain data.

    Args:
        table: Any table.

    Returns:
        A dictionary for each row, None where a value is missing.
    """
    return list(json.loads(table.to_json(orient="records", double_precision=15)))


@contextmanager
def watching(wanted: bool = True) -> Iterator["Watcher | None"]:
    """Show the trials of a sweep in a table that changes in place, on a terminal.

    Args:
        wanted: Whether to show it.

    Yields:
        What shows the progress; None if it is not wanted, or standard output is no terminal: there lines are calmer.
    """
    screen = Console(highlight=False)  # as wide as the terminal, or lines that wrap would not be overwritten
    if not wanted or not screen.is_terminal or screen.is_dumb_terminal:
        yield None
        return
    with Live(console=screen, refresh_per_second=2, transient=True) as live:
        yield lambda progress: live.update(progress_table(progress))


def progress_table(progress: "Progress") -> Table:
    """Make the table of the trials that run.

    Args:
        progress: The progress of a sweep.

    Returns:
        A row for each trial that has reported and not ended, and the totals as caption.
    """
    table = Table(box=SIMPLE_HEAD, caption=progress.line(), caption_justify="left")
    for heading in ("trial", "steps", "CLIP return", "true return", "success"):
        table.add_column(heading, justify="left" if heading == "trial" else "right", no_wrap=heading != "trial")
    running = [trial for trial in progress.trials.values() if not trial.outcome]
    for trial in running[:_ROWS]:
        numbers = (
            _shown(trial.metrics.get(name, math.nan), digits)
            for name, digits in ((CLIP_RETURN, 1), (TRUE_RETURN, 1), (SUCCESS, 2))
        )
        table.add_row(trial.label, f"{trial.steps:,} of {trial.whole:,}", *numbers)
    if len(running) > _ROWS:
        table.add_row(f"and {len(running) - _ROWS} more", "", "", "", "")
    return table


def trials_table(outcome: "SweepOutcome") -> Table:
    """Make the table of a sweep's trials.

    Args:
        outcome: Results of the sweep.

    Returns:
        A row for each trial, those of the best combination in bold; textures and camera only if the sweep compares them,
        sample and drawn settings only of a search, takeovers and settings at the end only if there were any.
    """
    from vlm_rm_sweeps.sweeping.config.searching import SETTING
    from vlm_rm_sweeps.sweeping.tracking.results import AT_END

    table = Table(title="trials: greedy policy at the end of training")
    drawn = [heading for heading in ("textures", "camera") if heading in outcome.table.columns]
    searched = [
        name for name in outcome.table.columns.map(str) if name in (SAMPLE, TAKEOVERS) or name.startswith((SETTING, AT_END))
    ]
    named = [heading for heading in (REWARD,) if heading in outcome.table.columns]
    words = ("model", *named, "prompt", *drawn, "status")
    for heading in (
        "model",
        "alpha",
        *named,
        "prompt",
        *drawn,
        *searched,
        "seed",
        "CLIP return",
        "true return",
        "success",
        "steps/s",
        "status",
    ):
        table.add_column(heading, justify="left" if heading in words else "right", overflow="fold")

    best_trials = outcome.best.outcomes if outcome.best else ()
    for row, trial in zip(outcome.table.to_dict("records"), outcome.outcomes, strict=True):
        best = any(trial is each for each in best_trials)
        table.add_row(
            row["model"],
            _shown(row["alpha"], 2),
            *(row[heading] for heading in named),
            row["prompt"],
            *(row[heading] for heading in drawn),
            *(_told(row[heading]) for heading in searched),
            str(row["seed"]),
            _shown(row[CLIP_RETURN], 1),
            _shown(row[TRUE_RETURN], 1),
            _shown(row[SUCCESS], 2),
            _shown(row["steps_per_second"], 0),
            "best" if best else row["status"],
            style="bold" if best else None,
        )
    return table


def cells_table(outcome: "SweepOutcome") -> Table:
    """Make the table of a sweep's combinations, each over its seeds.

    Args:
        outcome: Results of the sweep.

    Returns:
        A row for each combination, the best one in bold.
    """
    from vlm_rm_sweeps.sweeping.config.searching import SETTING
    from vlm_rm_sweeps.sweeping.tracking.findings import estimate_text
    from vlm_rm_sweeps.sweeping.tracking.results import MERITS

    cells = outcome.cells
    table = Table(
        title="combinations: interquartile mean over the seeds",
        caption="in brackets: 95 % interval (bootstrap over the seeds); without: too few seeds that differ",
    )
    told = [str(name) for name in cells.columns[: cells.columns.get_loc("seeds")]]
    for heading in (*told, "seeds", "success", "true return"):
        numeric = heading in ("alpha", SAMPLE, TAKEOVERS, "seeds", "success", "true return") or heading.startswith(SETTING)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    best = outcome.best.outcomes[0].trial.cell if outcome.best else None
    names = dict.fromkeys(each.trial.cell for each in outcome.outcomes)
    for name, row in zip(names, cells.to_dict("records"), strict=True):
        table.add_row(
            *(_shown(row[each], 2) if each == "alpha" else _told(row[each]) for each in told),
            str(row["seeds"]),
            *(_estimated(*estimate_text(row, merit)) for merit in MERITS),
            style="bold" if name == best else None,
        )
    return table


def _told(value: Any) -> str:
    """Show what tells a combination: text, or a number of a few digits."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _estimated(value: str, interval: str) -> str:
    return (value or "-") + (f" ({interval})" if interval else "")


def measures_table(measures: "pd.DataFrame") -> Table:
    """Make the table that compares reward models with a truth.

    Args:
        measures: As `compare_models` returns it.

    Returns:
        A row for each model, alpha and prompt.
    """
    table = Table(
        box=SIMPLE_HEAD,
        caption="beneath: 95 % interval; FPR95: false-positive rate at the threshold that keeps 95 % of the true positives",
    )
    # Of most data sets some measures are undefined: their columns would be empty.
    shown = [name for name in HEADINGS if measures[name].notna().any()]
    named = _rewards_column(measures)
    for heading in ("model", named, "prompt", *(HEADINGS[name] for name in shown)):
        text = heading in ("model", REWARD, "prompt")
        # What is too wide is folded, and rich would cut numbers instead of folding them.
        table.add_column(heading, justify="left" if text else "right", overflow="fold", no_wrap=not text)
    to = ".." if len(shown) <= _MEASURES_ABREAST else "..\n"
    for row in measures.to_dict("records"):
        cells = (_with_interval(row[name], to, *(row[end] for end in INTERVALS.get(name, ()))) for name in shown)
        table.add_row(row["model"], _reward_shown(row[named]), row["prompt"], *cells)
    return table


def undefined_lines(measures: "pd.DataFrame") -> list[str]:
    """List why measures are undefined, once for each reason.

    Args:
        measures: As `compare_models` returns it.

    Returns:
        Lines such as "undefined: roc_auc: the truth is not yes or no".
    """
    reasons = dict.fromkeys(reason for text in measures["undefined"] if text for reason in text.split("; "))
    return [f"undefined: {reason}" for reason in reasons]


def confusion_table(matrix: "Matrix") -> Table:
    """Make the table of a confusion matrix.

    Args:
        matrix: One of `confusion.matrices`.

    Returns:
        A row for each prompt, a column for each task, the task's own sentence in bold.
    """
    table = Table(
        box=SIMPLE_HEAD,
        title=f"ROC-AUC of {matrix.model_id}, {matrix.reward}",
        caption="rows: prompts, by a task's name its own sentence; columns: the task that succeeds; beneath: 95 % interval",
    )
    table.add_column("prompt", overflow="fold")
    for task in matrix.areas.columns.map(str):
        table.add_column(task, justify="right", overflow="fold", min_width=len("0.00..0.00"))
    rows = zip(matrix.areas.index, *(each.to_numpy() for each in (matrix.areas, matrix.low, matrix.high)), strict=True)
    for prompt, *estimates in rows:
        cells = [_with_interval(area, "..", low, high) for area, low, high in zip(*estimates, strict=True)]
        own = [f"[bold]{cell}[/]" if task == prompt else cell for task, cell in zip(matrix.areas, cells, strict=True)]
        table.add_row(str(prompt), *own)
    return table


def shapes_table(shapes: "pd.DataFrame", units: str) -> Table:
    """Make the table of the landscapes' peaks.

    Args:
        shapes: As `landscape.shapes` returns it.
        units: Units of the distance from the goal.

    Returns:
        A row for each model, alpha and prompt: the peak, its distance from the goal, and Spearman's correlation.
    """
    table = Table(
        box=SIMPLE_HEAD,
        caption="distance: from the largest reward to the goal; Spearman: of the reward with closeness to the goal",
    )
    peaks = [column for column in shapes.columns.map(str) if column.startswith("peak_") and column != "peak_distance"]
    named = _rewards_column(shapes)
    for heading in ("model", named, "prompt", *(peak.replace("_", " ") for peak in peaks), f"distance ({units})", "Spearman"):
        table.add_column(heading, justify="left" if heading in ("model", REWARD, "prompt") else "right", overflow="fold")
    for row in shapes.to_dict("records"):
        numbers = (_shown(row[key], 3) for key in (*peaks, "peak_distance", "spearman"))
        table.add_row(row["model"], _reward_shown(row[named]), row["prompt"], *numbers)
    return table


def _rewards_column(table: "pd.DataFrame") -> str:
    """Return the column that tells rewards: `reward` if some have labels, else `alpha`."""
    return REWARD if REWARD in table.columns else "alpha"


def _reward_shown(reward: float | str) -> str:
    return reward if isinstance(reward, str) else f"{reward:.2f}"


def _with_interval(value: float, to: str, low: float = float("nan"), high: float = float("nan")) -> str:
    return _shown(value, 3) if low != low else f"{_shown(value, 3)}\n{low:.2f}{to}{high:.2f}"


def _shown(value: float, digits: int) -> str:
    return "-" if value != value else f"{value:.{digits}f}"
