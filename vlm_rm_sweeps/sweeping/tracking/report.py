"""The report of a sweep: one HTML file with all that it found, which opens offline and can be sent to others."""

import base64
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import file_inside
from vlm_rm_sweeps.sweeping.config.sweep import Sweep, Trial, load_sweep
from vlm_rm_sweeps.sweeping.execution.trial_videos import FOLDER as VIDEO_FOLDER
from vlm_rm_sweeps.sweeping.execution.trial_videos import RECORDED
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.videos import read_episode

REPORT = "report.html"
_TEMPLATE = "report.html.j2"
_TEXT_COLUMNS = ("trial_id", "model", "prompt", "textures", "camera", "status", "reason")
_MERITS = ["success", "true_return"]
"""What is said of how a trial ended."""
_BY_MODEL = "overoptimisation_by_model.csv"


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
        loader=PackageLoader("vlm_rm_sweeps.sweeping.tracking", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
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
        by_model=_table(file_inside(folder.path, f"figures/{_BY_MODEL}")),
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
    """The best and the worst of the videos of trials of a reward model that finished, by the episode that the video shows."""
    trials = {trial.trial_id: trial for trial in sweep.trials()}
    known = table["trial_id"].map(lambda trial_id: trial_id in trials and trials[trial_id].prompt is not None)
    finished = table[known & (table["status"] == "finished")].set_index("trial_id", drop=False)
    shown = []
    for trial_id in finished.index:
        recorded = _files(folder, folder.trial(trial_id) / VIDEO_FOLDER, RECORDED)
        if recorded and (episode := read_episode(recorded[0])):
            shown.append((trial_id, recorded[0], episode))
    shown.sort(key=lambda each: [each[2][name] or 0.0 for name in ("goal_fraction", "true_return")], reverse=True)
    titled = zip(("best episode", "worst episode"), shown[:1] + shown[1:][-1:], strict=False)
    return [
        {
            "title": title,
            "label": _described(trials[trial_id], episode, finished.loc[trial_id]),
            "data": _Inlined.of(file, "video/mp4", title).data,
        }
        for title, (trial_id, file, episode) in titled
    ]


def _files(folder: SweepFolder, part: Path, pattern: str) -> list[Path]:
    """Those of a part of the sweep's folder; UserError if one, or the part, is a link to elsewhere: it would be sent with the page."""
    return [file_inside(folder.path, file.relative_to(folder.path)) for file in sorted(part.glob(pattern))]


def _described(trial: Trial, episode: dict[str, Any], row: "pd.Series[Any]") -> str:
    """Whose episode a video shows and how it went; then, since that policy is another, how the trial ended."""
    in_goal, clip_return = episode["goal_fraction"], episode["clip_return"]
    parts = [
        f"{trial.label}: its best policy, of step {episode['env_steps']:,}, in the episode with seed {episode['seed']}",
        "" if in_goal is None else f"{100 * in_goal:.0f} % of its steps in the goal",
        f"true return {episode['true_return']:.3g}",
        "" if clip_return is None else f"CLIP return {clip_return:.3g}",
    ]
    merits = [f"{name.replace('_', ' ')} {row[name]:.3g}" for name in _MERITS if not math.isnan(row[name])]
    ended = f". After training, its last policy: {', '.join(merits)}" if merits else ""
    return ", ".join(part for part in parts if part) + ended


def _table(file: Path) -> dict[str, Any] | None:
    """A table of the figures, for the page; None if it has not been made."""
    if not file.is_file():
        return None
    table = pd.read_csv(file)
    numbers = {name: pd.api.types.is_numeric_dtype(table[name]) for name in table.columns.map(str)}
    return {
        "columns": [{"name": name.replace("_", " "), "number": number} for name, number in numbers.items()],
        "rows": [[_shown(value) for value in row] for row in table.itertuples(index=False)],
    }


def _versions(folder: SweepFolder) -> dict[str, str]:
    """Of the packages and the commit that the sweep ran with, as its MLflow run has them."""
    from vlm_rm_sweeps.sweeping.tracking.mlflow_runs import find_runs  # it loads MLflow, which takes seconds

    try:
        runs = find_runs(folder.path)
        params = runs.client.get_run(runs.run_id).data.params
    except Exception as error:  # a database, a server or a file that is away: the rest of the report does not need it
        return {"unknown": f"the sweep's MLflow run cannot be read: {str(error).splitlines()[0]}"}
    prefix = "version_"
    versions = {name.removeprefix(prefix): value for name, value in sorted(params.items()) if name.startswith(prefix)}
    return {"commit": params.get("git_commit", "unknown")} | versions
