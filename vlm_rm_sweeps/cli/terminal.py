"""What commands leave in the terminal: lines, tables, and exit statuses."""

import shutil
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

_MIN_WIDTH = 110
console = Console(highlight=False, soft_wrap=True, width=max(_MIN_WIDTH, shutil.get_terminal_size().columns))


def say(line: str) -> None:
    """Print a line at once, also into a pipe: it tells how far a long command is."""
    print(line, flush=True)


def trials_table(outcome: "SweepOutcome") -> Table:
    """A row for each trial of a sweep; textures and camera only where the sweep compares them."""
    table = Table(title="trials: the greedy policy at the end")
    drawn = [heading for heading in ("textures", "camera") if heading in outcome.table.columns]
    words = ("model", "prompt", *drawn, "status")
    for heading in ("model", "alpha", "prompt", *drawn, "seed", "CLIP return", "true return", "success", "steps/s", "status"):
        table.add_column(heading, justify="left" if heading in words else "right", overflow="fold")

    for row, trial in zip(outcome.table.to_dict("records"), outcome.outcomes, strict=True):
        best = trial is outcome.best
        table.add_row(
            row["model"],
            _shown(row["alpha"], 2),
            row["prompt"],
            *(row[heading] for heading in drawn),
            str(row["seed"]),
            _shown(row["clip_return"], 1),
            _shown(row["true_return"], 1),
            _shown(row["success"], 2),
            _shown(row["steps_per_second"], 0),
            "best" if best else row["status"],
            style="bold" if best else None,
        )
    return table


def measures_table(measures: "pd.DataFrame") -> Table:
    """A row for each model, alpha and prompt: how far its reward agrees with the truth."""
    table = Table(box=SIMPLE_HEAD, caption="FPR95: false positives at the threshold that keeps 95 % of the true positives")
    for heading in ("model", "alpha", "prompt", "EPIC", "95 % interval", "Pearson", "Spearman", "ROC-AUC", "FPR95"):
        text = heading in ("model", "prompt")
        table.add_column(heading, justify="left" if text else "right", overflow="fold", no_wrap=heading != "prompt")
    for row in measures.to_dict("records"):
        table.add_row(
            row["model"],
            f"{row['alpha']:.2f}",
            row["prompt"],
            _shown(row["epic_distance"], 3),
            _interval(row["epic_low"], row["epic_high"]),
            *(_shown(row[key], 3) for key in ("pearson", "spearman", "roc_auc", "false_positive_rate")),
        )
    return table


def shapes_table(shapes: "pd.DataFrame", units: str) -> Table:
    """A row for each model, alpha and prompt: where its landscape peaks, and how far from the goal that is, in `units`."""
    table = Table(
        box=SIMPLE_HEAD, caption="distance: of the largest reward from the goal; Spearman: of reward and closeness to the goal"
    )
    peaks = [column for column in shapes.columns.map(str) if column.startswith("peak_") and column != "peak_distance"]
    for heading in ("model", "alpha", "prompt", *(peak.replace("_", " ") for peak in peaks), f"distance ({units})", "Spearman"):
        table.add_column(heading, justify="left" if heading in ("model", "prompt") else "right", overflow="fold")
    for row in shapes.to_dict("records"):
        numbers = (_shown(row[key], 3) for key in (*peaks, "peak_distance", "spearman"))
        table.add_row(row["model"], f"{row['alpha']:.2f}", row["prompt"], *numbers)
    return table


def _interval(low: float, high: float) -> str:
    return "-" if low != low else f"{low:.3f}..{high:.3f}"


def _shown(value: float, digits: int) -> str:
    return "-" if value != value else f"{value:.{digits}f}"
