"""Write pages of the gallery from results: `python docs/gallery.py results/quickstart-...`, run by `make gallery`.

All pages quote their sweep files anew, without any folder too, after the comments of a file have changed.

Each page is of one shipped sweep, and nothing on it is written by hand: it has a checksum of what came from the results, and a test
fails if that was edited. A page also says of what it is: the sweep file's keys and the weights of the embedded models. When one of
these changes, the page is stale, a test fails, and the page is written anew from new results or removed.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as iio
import pandas as pd

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import new_output, write_whole
from vlm_rm_sweeps.metrics import DONE
from vlm_rm_sweeps.sweeping.config.plan import make_plan
from vlm_rm_sweeps.sweeping.config.sweep import Sweep, load_sweep
from vlm_rm_sweeps.sweeping.config.trial import REFERENCE_PROMPT
from vlm_rm_sweeps.sweeping.config.yaml_file import read_sweep_keys
from vlm_rm_sweeps.sweeping.tracking.findings import described, estimate_text, findings
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.progress import duration
from vlm_rm_sweeps.sweeping.tracking.provenance import Provenance, provenance
from vlm_rm_sweeps.sweeping.tracking.report import CAPTIONS, recorded_episodes
from vlm_rm_sweeps.sweeping.tracking.results import MERITS, cells_of, read_results
from vlm_rm_sweeps.videos import EpisodeContent, film_strip, read_video

REPOSITORY = Path(__file__).parents[1]
GALLERY = REPOSITORY / "docs" / "gallery"
MANIFEST = Path("vlm_rm_sweeps/rewards/embedded/v2/manifest.json")
_FIGURES = (
    "model_scaling",
    "alpha",
    "search",
    "predictive",
    "score_every",
    "performance_profiles",
    "improvement",
    "learning_curves",
    "reward_landscape",
)
_OF_SEVERAL = ("performance_profiles", "improvement")
"""They say nothing about one model or one seed."""
_READABLE = 12
"""Of more combinations, no legend of learning curves can be read."""
_FRAMES = 6
_WITHOUT = "without the start of the command and of Ray"
"""What the journal, whose time a page has, does not know, and the time that the command prints has in it."""
_QUOTED = "## Sweep file"
_MARK = re.compile(r"^<!-- of: (\w+) -->$", re.MULTILINE)
_SEAL = re.compile(r"^<!-- sealed: (\w*) -->\n", re.MULTILINE)
_NAVIGATION = re.compile(r"(      # gallery\n).*?(      # end of gallery\n)", re.DOTALL)


def mark_of(sweep_file: Path) -> str:
    """Compute what a page is of: a checksum of the sweep file's keys (not of its comments) and of the embedded models' weights."""
    keys = json.dumps(read_sweep_keys(sweep_file), sort_keys=True, default=str).replace(str(REPOSITORY), "")
    return hashlib.sha256(keys.encode() + (REPOSITORY / MANIFEST).read_bytes()).hexdigest()[:16]


def mark_on(page: str) -> str:
    """Return what a page says it is of; empty if it says nothing."""
    found = _MARK.search(page)
    return found[1] if found else ""


def seal_of(page: str) -> str:
    """Compute the checksum of what a page has from results: all of it but the sweep file, whose comments may change."""
    from_results = _SEAL.sub("", page.partition(f"{_QUOTED}\n")[0], count=1)
    return hashlib.sha256(from_results.encode()).hexdigest()[:16]


def seal_on(page: str) -> str:
    """Return the checksum that a page says it has; empty if it says nothing."""
    found = _SEAL.search(page)
    return found[1] if found else ""


def sealed(page: str) -> str:
    """Return a page with the checksum of what it has from results."""
    return _SEAL.sub(f"<!-- sealed: {seal_of(page)} -->\n", page, count=1)


def shipped(name: str) -> Path:
    """Return the sweep file of the repository whose sweep has a name.

    Raises:
        UserError: There is none.
    """
    for file in sorted((REPOSITORY / "sweeps").glob("*.yaml")):
        if read_sweep_keys(file).get("name") == name:
            return file
    raise UserError(f"no file in sweeps/ is named {name!r}: the gallery has shipped sweeps alone")


def write_page(path: Path, gallery: Path = GALLERY) -> Path:
    """Write the page of a sweep, with its pictures, and replace the page before.

    Args:
        path: The folder of the sweep's results, with the figures of `make analysis`.
        gallery: Folder of the pages.

    Returns:
        The page.

    Raises:
        UserError: The results are not those of a shipped sweep as it is now, are not whole, or do not say where they come from.
    """
    folder = SweepFolder(path)
    sweep, table = folder.stored_sweep(), read_results(folder.table)
    sweep_file = shipped(sweep.name)
    origin = provenance(folder)
    _check(folder, sweep_file, table, origin)
    pictures = gallery / sweep.name
    with new_output(gallery / f"{sweep.name}.md") as page:
        shown = list(_pictures(folder, table, pictures))
        text = "\n".join(_lines(sweep, table, sweep_file, origin, shown)) + "\n"
        page.write_text(sealed(text), encoding="utf-8")
    _remove_others(pictures, {Path(file).name for file, _, video in shown for file in (file, video)})
    return gallery / f"{sweep.name}.md"


def _check(folder: SweepFolder, sweep_file: Path, table: pd.DataFrame, origin: Provenance) -> None:
    """Refuse results that are not whole, or not of what is shipped now."""
    relative = sweep_file.relative_to(REPOSITORY)
    if differences := _moved(folder.differences(make_plan(load_sweep(sweep_file))), origin.commit):
        raise UserError(f"{folder.path} is not of {relative} as it is now: run that anew\n{differences}")
    if not table["status"].isin(DONE).all():
        raise UserError(f"{folder.path} has trials that are not done: continue it with `vlm-rm sweep {relative} --resume`")
    drawn = folder.path / "figures" / "learning_curves.png"
    if not drawn.is_file():
        raise UserError(f"{drawn} has not been drawn: make analysis SWEEP_RUN={folder.path}")
    if not origin.commit or origin.commit.endswith("-dirty"):
        why = origin.problem or f"its commit is {origin.commit or 'unknown'}"
        raise UserError(f"{folder.path} does not say which code made it ({why}): run it from a commit without changes")
    if _git("merge-base", "--is-ancestor", origin.commit, "HEAD") is None:
        raise UserError(f"{folder.path} is of commit {origin.commit}, from which this one does not follow: run it anew")
    if _git("show", f"{origin.commit}:{MANIFEST}") != (REPOSITORY / MANIFEST).read_text(encoding="utf-8"):
        raise UserError(f"{folder.path} is of commit {origin.commit}, whose embedded models have other weights: run it anew")


def _moved(differences: str, commit: str) -> str:
    """Return the differences; none if all of them are files of the repository that are the same in another checkout of it."""
    lines = [line for line in differences.splitlines()[2:] if line[:1] in ("-", "+")]
    found, now = ([line[1:] for line in lines if line[0] == sign] for sign in "-+")
    if len(found) != len(now):
        return differences
    for before, after in zip(found, now, strict=True):
        file = after.partition(f"{REPOSITORY}/")[2]
        moved = file and before.partition("/")[0] == after.partition("/")[0] and before.endswith(f"/{file}")
        if not moved or _git("diff", "--quiet", commit, "--", file) is None:
            return differences
    return ""


def _git(*arguments: str) -> str | None:
    """Return what git says; None if it fails."""
    ran = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True)
    return ran.stdout if ran.returncode == 0 else None


def _pictures(folder: SweepFolder, table: pd.DataFrame, pictures: Path) -> Iterator[tuple[str, str, str]]:
    """Copy the figures and the video of the best recorded episode, of which a film strip is made, too.

    Yields:
        A picture's path below the gallery, what it shows, and that of its video; empty if it is none's.
    """
    if strip := _best_episode(folder, table):
        file, caption = strip
        with new_output(pictures / "episode.jpg") as unfinished:
            iio.imwrite(unfinished, film_strip(read_video(file), _FRAMES), extension=".jpg", plugin="pillow", quality=82)
        with new_output(pictures / file.name) as unfinished:
            shutil.copyfile(file, unfinished)
        yield f"{pictures.name}/episode.jpg", caption, f"{pictures.name}/{file.name}"
    cells = cells_of(table)
    learned = cells[cells["prompt"] != REFERENCE_PROMPT]
    left_out = ["learning_curves"] if len(cells) > _READABLE else []
    left_out += _OF_SEVERAL if learned["seeds"].max() == 1 or learned["model"].nunique() == 1 else ()
    for name in _FIGURES:
        file = folder.path / "figures" / f"{name}.png"
        if file.is_file() and name not in left_out:
            with new_output(pictures / file.name) as unfinished:
                shutil.copyfile(file, unfinished)
            yield f"{pictures.name}/{file.name}", CAPTIONS[name].removesuffix("."), ""


def _remove_others(pictures: Path, kept: set[str]) -> None:
    """Remove the pictures of the page before that the new one does not show, once it is written."""
    for file in pictures.glob("*"):
        if file.name not in kept:
            file.unlink()


def _best_episode(folder: SweepFolder, table: pd.DataFrame) -> tuple[Path, str] | None:
    """Find the video of the best recorded episode, as the report does; of equal ones, that of the trial with the best merits."""
    by_merits = table.sort_values(list(MERITS), ascending=False, kind="stable")
    for trial, video, episode in recorded_episodes(folder, by_merits):
        of = f"{described(trial)}, seed {trial['seed']}, its best policy, of step {episode['env_steps']:,}"
        return video, f"The best recorded episode: {of}{_outcome(episode)}"
    return None


def _outcome(episode: EpisodeContent) -> str:
    """Say whether a recorded episode is a success, and how much of it is in the goal, as far as that is known."""
    success, in_goal = episode["success"], episode["goal_fraction"]
    parts = [
        "" if success is None else "a success" if success else "no success",
        "" if in_goal is None else f"{100 * in_goal:.0f} % of its steps in the goal",
    ]
    known = ", ".join(part for part in parts if part)
    return f"; {known}" if known else ""


def _lines(
    sweep: Sweep, table: pd.DataFrame, sweep_file: Path, origin: Provenance, shown: list[tuple[str, str, str]]
) -> Iterator[str]:
    relative = sweep_file.relative_to(REPOSITORY)
    yield f"# {sweep.name}"
    yield from (
        "",
        f"<!-- of: {mark_of(sweep_file)} -->",
        "<!-- sealed:  -->",
        "<!-- Written by docs/gallery.py from results: not edited by hand. -->",
        "",
    )
    yield " ".join(findings(sweep.task_name, table))
    if not sweep.videos:
        yield from ("", "This sweep recorded no videos (`videos: false`).")
    for file, caption, video in shown:
        own = re.search(rf"python analysis/{Path(file).stem}\.py[^`\n]*", sweep_file.read_text(encoding="utf-8"))
        remark = f" [Its video]({video})." if video else f" Drawn by `{own[0].rstrip()}`." if own else ""
        yield from ("", f"![{caption}]({file})", "", f"*{caption}.*{remark}")
    yield from (
        "",
        "## Combinations",
        "",
        "Interquartile means over the seeds; in brackets, where seeds differ, 95 % intervals.",
        "",
    )
    yield from ("| combination | seeds | success | true return |", "|---|---|---|---|")
    for cell in cells_of(table).to_dict("records"):
        values = (
            f"{value} ({interval})" if interval else value for value, interval in (estimate_text(cell, name) for name in MERITS)
        )
        yield f"| {described(cell)} | {cell['seeds']} | {' | '.join(values)} |"
    yield from ("", "## Where it comes from", "", "| what | of these results |", "|---|---|")
    yield f"| command | `make sweep SWEEP={relative}` |"
    yield f"| seeds | {', '.join(map(str, sweep.seeds))} |"
    yield f"| environment steps of each trial | {sweep.steps:,} |"
    yield f"| time | {duration(origin.seconds)}, for {len(table)} trials, {_WITHOUT} |"
    yield f"| machine | {origin.machine or 'not recorded'} |"
    yield f"| date | {origin.started:%Y-%m-%d} |"
    yield f"| commit | `{origin.commit}` |"
    yield f"| versions | {', '.join(f'{name} {value}' for name, value in origin.versions.items())} |"
    yield from ("", _QUOTED, *_quoted(sweep_file))


def _quoted(sweep_file: Path) -> Iterator[str]:
    relative = sweep_file.relative_to(REPOSITORY)
    text = sweep_file.read_text(encoding="utf-8").rstrip()
    yield from ("", f"[`{relative}`](../../{relative}):", "", "```text", text, "```")


def quote_anew(page: Path) -> None:
    """Quote the sweep file of a page as it is now: its comments may change without making the page stale."""
    of_results = page.read_text(encoding="utf-8").partition(f"{_QUOTED}\n")[0]
    write_whole(page, "\n".join([of_results + _QUOTED, *_quoted(shipped(page.stem))]) + "\n")


def pages(gallery: Path = GALLERY) -> list[Path]:
    """Return the pages of the gallery, without its index."""
    return sorted(page for page in gallery.glob("*.md") if page.stem != "index")


def write_index(gallery: Path = GALLERY, settings: Path = REPOSITORY / "mkdocs.yml") -> None:
    """Write the list of pages and of shipped sweeps without one, and name the pages in the site's navigation."""
    names = [page.stem for page in pages(gallery)]
    write_whole(gallery / "index.md", "\n".join(_index(names, gallery)) + "\n")
    entries = "".join(f"      - gallery/{name}.md\n" for name in ("index", *names))
    text = settings.read_text(encoding="utf-8")
    write_whole(settings, _NAVIGATION.sub(lambda found: found[1] + entries + found[2], text))


def _index(names: list[str], gallery: Path) -> Iterator[str]:
    yield from ("# Gallery", "", "What shipped sweeps found, written by `make gallery` from their results.", "")
    yield from (f"- [{name}]({name}.md): {_found(gallery / f'{name}.md')}" for name in names)
    without = [file for file in sorted((REPOSITORY / "sweeps").glob("*.yaml")) if file.stem not in names]
    keys = {file: read_sweep_keys(file) for file in without}
    on_gpu = [file for file in without if keys[file].get("pool", {}).get("gpus")]
    screenings = [file for file in without if "screen" in keys[file]]
    groups = {
        "Await a run": [file for file in without if file not in (*on_gpu, *screenings)],
        "Need a GPU": on_gpu,
        "Train nothing, and have no page": screenings,
    }
    for title, files in groups.items():
        if files:
            links = [f"- [`{file.name}`](../../sweeps/{file.name})" for file in files]
            yield from ("", f"## {title}", "", *links)


def _found(page: Path) -> str:
    """Return the first sentence of what a page found; of a comparison also the second, which says how it came out."""
    paragraphs = [each for each in page.read_text(encoding="utf-8").split("\n") if each and each[0] not in "#<"]
    sentences = paragraphs[0].removesuffix(".").split(". ")
    return ". ".join(sentences[: 2 if sentences[0].startswith("Compared ") else 1]) + "."


def main() -> None:
    """Write the pages of the folders that are named, and what all pages have of the repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="Folders of sweeps, such as results/quickstart-...")
    try:
        for folder in parser.parse_args().folders:
            print(write_page(folder))
        for page in pages():
            quote_anew(page)
        write_index()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
