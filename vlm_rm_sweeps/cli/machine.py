"""Commands for the first hour: a demonstration, whether everything works on this machine, and whether a sweep fits on it."""

import webbrowser
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_rm_sweeps.cli.options import JsonOutput, Overrides, new_file, refuse_to_overwrite
from vlm_rm_sweeps.cli.terminal import EXIT_FAILED, console, print_json, say
from vlm_rm_sweeps.errors import UserError

if TYPE_CHECKING:
    from vlm_rm_sweeps.sweeping.execution.fit import Fit, Machine, Measured

_DEMO = Path("results/demo.html")
_BUSY = 0.25
"""Share of the cores that other programs may use before an estimate is a guess."""
_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(
    results: Annotated[Path, typer.Option(help="Results folder that sweeps would have; it is not made.")] = Path("results"),
    as_json: JsonOutput = False,
) -> None:
    """Check that everything that a sweep needs works here: packages, GPU, drawing, Ray, disk, memory, ports, model hub.

    The exit status is 1 if there is a problem; a sweep runs in spite of a warning.
    """
    from vlm_rm_sweeps.machine.doctor import CHECKS, Finding, Level, examine

    width = max(map(len, CHECKS))
    findings: list[Finding] = []
    for finding in examine(results):
        findings.append(finding)
        if as_json:
            continue
        level = f"[{_STYLES[finding.level]}]{finding.level:8}[/]"
        console.print(f"{level} {finding.check:{width}}", end="  ")
        console.print(finding.found, markup=False)
        if finding.advice:
            console.print(f"{'':{width + 9}}  {finding.advice}", markup=False)
    if as_json:
        print_json([finding.as_json() for finding in findings])
    if any(finding.level == Level.PROBLEM for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def fit(
    file: Annotated[Path, typer.Argument(help="The sweep file, such as sweeps/quickstart.yaml.")],
    overrides: Overrides = [],  # noqa: B006
    results: Annotated[Path, typer.Option(help="Results folder that the sweep would have; it is not made.")] = Path("results"),
    as_json: JsonOutput = False,
) -> None:
    """Measure a sweep's parts for some seconds, and estimate its memory, disk, speed, hours and GPU hours on this machine.

    The exit status is 1 if the sweep does not fit.
    """
    from vlm_rm_sweeps.sweeping.config.screening import Screening, load_plan

    plan = load_plan(file, overrides)
    if isinstance(plan, Screening):
        raise UserError(f"{file} is a screening, which trains nothing: expected a sweep file without `screen`")

    from vlm_rm_sweeps.sweeping.execution.fit import ASSUMED, estimate
    from vlm_rm_sweeps.sweeping.execution.fit_measure import measure, this_machine

    machine = this_machine(results)
    measured = measure(plan, (lambda _: None) if as_json else say)
    found = estimate(plan, measured, machine)
    if as_json:
        print_json(found.as_json() | {"measured": asdict(measured), "machine": asdict(machine), "assumed": ASSUMED})
    else:
        print("\n".join(_fit_lines(found, measured, machine)))
        print(f"assumed: {ASSUMED}")
    if found.problems:
        raise typer.Exit(EXIT_FAILED)


def _fit_lines(found: "Fit", measured: "Measured", machine: "Machine") -> Iterator[str]:
    """Say what was estimated, and from what."""
    from vlm_rm_sweeps.machine.resources import GB
    from vlm_rm_sweeps.sweeping.tracking.progress import duration

    yield f"memory   {sum(found.memory.values()) / GB:.1f} GB of {machine.memory / GB:.1f} GB that are free"
    for part, size in found.memory.items():
        yield f"           {size / GB:.2f} GB  {part}"
    yield f"disk     {found.disk / GB:.2f} GB of {machine.disk / GB:.1f} GB that are free"
    yield f"speed    {found.steps_per_second:.0f} environment steps/s, {found.trials_at_once} trials at once, bound by {found.bound_by}"
    yield f"           {measured.training.seconds * 1e3:.2f} ms  a training step with its updates, not drawn"
    for model_id, encoding in measured.encoding.items():
        drawing = measured.drawing[model_id].seconds * 1e3
        yield f"           {drawing:.2f} ms  to draw it for {model_id}, {encoding.seconds * 1e3:.2f} ms to encode the frame"
    yield f"           {measured.other_cores:.1f} of {machine.cores:g} cores are used by other programs"
    if measured.other_cores > _BUSY * machine.cores:
        yield "           this machine is busy, so speed and time are a guess: measure again when it is not"
    yield f"time     {duration(found.hours * 3600)}, {found.gpu_hours:.1f} GPU hours"
    yield from (f"does not fit: {problem}" for problem in found.problems)
    if not found.problems:
        yield "it fits this machine"


def demo(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            callback=new_file,
            help="New HTML file; by default one that is replaced.",
            show_default=str(_DEMO),
        ),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Show in a minute what this is: a policy that learned from a sentence, its reward as a video, and the reward's landscape."""
    from vlm_rm_sweeps.demo.page import write_demo

    if output is not None:
        refuse_to_overwrite(output)
    page = output or _DEMO
    say("running a policy of the package, and scoring its frames")
    shown = write_demo(page)
    learned, random = shown.learned, shown.random
    print(f"the policy: CLIP return {learned.clip_return:.1f}, {100 * learned.goal_fraction:.0f} % of its steps in the goal")
    print(f"random actions: CLIP return {random.clip_return:.1f}, {100 * random.goal_fraction:.0f} % of their steps")
    print(f"written to {page}")
    if open_browser:
        webbrowser.open(page.resolve().as_uri())
