"""The report of a sweep: one HTML file with all that it found, which opens offline and can be sent to others."""

import base64
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import file_inside
from vlm_rm_sweeps.sweeping.folder import SweepFolder
from vlm_rm_sweeps.sweeping.spec import Sweep, Trial, load_sweep
from vlm_rm_sweeps.sweeping.trial_videos import FOLDER as VIDEO_FOLDER

REPORT = "report.html"
_TEMPLATE = "report.html.j2"
_TEXT_COLUMNS = ("trial_id", "model", "prompt", "textures", "camera", "status", "reason")
_MERITS = ["success", "true_return"]
"""What trials are ranked by, as for the best trial of a sweep: never CLIP return."""


def write_report(path: Path, output: Path | None = None) -> Path:
    """Write the report of the sweep in a folder; by default to its report.html, which is replaced, since it can be made again.

    Prompts and all else that a sweep file or a trial can say is escaped, and the page forbids itself scripts and any address
    but its own. Raises UserError if the folder is no sweep's, no attempt at it has ended, a file in it is a link to
    elsewhere, or `output` exists.
    """
    folder = SweepFolder(path)
    if not folder.sweep_file.is_file():
        raise UserError(
            f"{path} is no sweep's folder (it has no {folder.sweep_file.name}): expected one such as results/quickstart-..."
        )
    if not folder.table.is_file():
        raise UserError(
            f"{path} has no {folder.table.name} yet: it is written when the sweep ends; go on with `vlm-rm sweep --resume`"
        )
    if output is not None and output.exists():
        raise UserError(f"{output} exists already: choose another name")
    page = _render(folder)
    target = output or path / REPORT
    try:
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}; choose another place with --output") from error
    return target


def _render(folder: SweepFolder) -> str:
    sweep = load_sweep(folder.sweep_file)
    table = _trials(folder.table)
    environment = Environment(
        loader=PackageLoader("vlm_rm_sweeps.sweeping", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    finished = int((table["status"] == "finished").sum())
    return environment.get_template(_TEMPLATE).render(
        sweep=sweep,
        task=sweep.the_task().name,
        prompts=sweep.wordings(),
        outcome=f"{finished} of {len(table)} trials finished",
        columns=[{"name": name.replace("_", " "), "number": name not in _TEXT_COLUMNS} for name in table.columns.map(str)],
        rows=[[_shown(value) for value in row] for row in table.itertuples(index=False)],
        videos=_videos(folder, sweep, table),
        figures=[_Inlined.of(file, "image/png", file.stem) for file in _files(folder, folder.path / "figures", "*.png")],
        folder=folder.path,
        sweep_file=folder.sweep_file.read_text(encoding="utf-8"),
        versions=_versions(folder),
    )


def _trials(file: Path) -> pd.DataFrame:
    # A prompt's id may look like a number, or like what pandas takes for a missing value.
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    return table.assign(**{name: pd.to_numeric(table[name]) for name in table.columns.map(str) if name not in _TEXT_COLUMNS})


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


@dataclass(frozen=True)
class _Inlined:
    """A file as a data URI, so that the page needs no other file."""

    name: str
    data: str

    @classmethod
    def of(cls, file: Path, media_type: str, name: str) -> "_Inlined":
        return cls(name, f"data:{media_type};base64,{base64.b64encode(file.read_bytes()).decode()}")


def _videos(folder: SweepFolder, sweep: Sweep, table: pd.DataFrame) -> list[dict[str, str]]:
    """The best and the worst trial of a reward model that finished, if they have videos."""
    trials = {trial.trial_id: trial for trial in sweep.trials()}
    known = table["trial_id"].map(lambda trial_id: trial_id in trials and trials[trial_id].prompt is not None)
    ranked = table[known & (table["status"] == "finished")].sort_values(_MERITS, ascending=False, na_position="last")
    if ranked.empty:
        return []
    chosen = {"best trial": ranked.iloc[0]} | ({"worst trial": ranked.iloc[-1]} if len(ranked) > 1 else {})
    return [
        {"title": title, "label": _described(trials[row["trial_id"]], row), "data": _Inlined.of(file, "video/mp4", title).data}
        for title, row in chosen.items()
        for file in _files(folder, folder.trial(row["trial_id"]) / VIDEO_FOLDER, "*.mp4")[:1]
    ]


def _files(folder: SweepFolder, part: Path, pattern: str) -> list[Path]:
    """Those of a part of the sweep's folder; UserError if one, or the part, is a link to elsewhere: it would be sent with the page."""
    return [file_inside(folder.path, file.relative_to(folder.path)) for file in sorted(part.glob(pattern))]


def _described(trial: Trial, row: "pd.Series[Any]") -> str:
    merits = [f"{name.replace('_', ' ')} {row[name]:.3g}" for name in _MERITS if not math.isnan(row[name])]
    return ", ".join([trial.label, *merits])


def _versions(folder: SweepFolder) -> dict[str, str]:
    """Of the packages and the commit that the sweep ran with, as its MLflow run has them."""
    from mlflow.tracking import MlflowClient

    try:
        runs = json.loads(folder.mlflow.read_text(encoding="utf-8"))
        params = MlflowClient(runs["tracking_uri"]).get_run(runs["run_id"]).data.params
    except Exception as error:  # a database, a server or a file that is away: the rest of the report does not need it
        return {"unknown": f"the sweep's MLflow run cannot be read ({type(error).__name__})"}
    prefix = "version_"
    versions = {name.removeprefix(prefix): value for name, value in sorted(params.items()) if name.startswith(prefix)}
    return {"commit": params.get("git_commit", "unknown")} | versions
