"""What the nodes of a cluster must have in common: this package's version, and where results are.

Those that are there before a sweep starts are asked for it. One that joins later is looked at by the first trial that comes to it.
"""

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vlm_rm_sweeps.errors import UserError, reason_of
from vlm_rm_sweeps.files import CACHE
from vlm_rm_sweeps.serving.refused_nodes import NodeRefused
from vlm_rm_sweeps.storage import RemoteFolder, StoreError
from vlm_rm_sweeps.tasks.rendering import Profile, machine_profile

_PACKAGE = "vlm-rm-sweeps"
_ANSWER_S = 120.0
"""Seconds in which all nodes must answer: the first process there imports this package."""
_NAMED_AT_MOST = 5
_ANOTHER_STORE = "another store answers there"


@dataclass(frozen=True)
class NodeReport:
    """What one node says of itself.

    Attributes:
        host: Its host name.
        version: The version of this package there.
        folder: What is wrong with the results folder or address there; None if nothing is, or if that was not asked.
        profile: How much OpenGL would draw there, if the sweep file says nothing; None if that was not asked.
    """

    host: str
    version: str
    folder: str | None
    profile: Profile | None = None


@dataclass(frozen=True)
class InCommon:
    """What a machine must see and have to run a trial, as plain data from the driver.

    Attributes:
        file: A file of the sweep, in its folder or at its address.
        version: The driver's version of this package.
    """

    file: Path | RemoteFolder
    version: str = field(default_factory=lambda: version(_PACKAGE))

    def check_here(self) -> None:
        """Refuse this machine if it lacks that: what a trial writes here would be lost. A store that does not answer is no reason.

        Raises:
            NodeRefused: It names the machine, and what it lacks.
        """
        report = NodeReport(socket.gethostname(), version(_PACKAGE), self._trouble())
        problem = _problem_of(report, self.file, self.version)
        if problem is not None:
            node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
            raise NodeRefused(node, problem)

    def _trouble(self) -> str | None:
        if isinstance(self.file, Path):
            return None if self.file.is_file() else "is another folder, or none,"
        with suppress(StoreError):
            return None if self.file.name in self.file.above.names() else _ANOTHER_STORE
        return None


def profile_remark(reports: Sequence[NodeReport], profile: Profile) -> str | None:
    """Word a remark if a sweep that names no profile draws otherwise than its nodes would.

    Args:
        reports: What the nodes say.
        profile: The sweep's profile, from the machine that starts it.

    Returns:
        One line; None if all nodes would choose the same.
    """
    others = [report.host for report in reports if report.profile not in (None, profile)]
    if not others:
        return None
    more = f" and {len(others) - _NAMED_AT_MOST} more nodes" if len(others) > _NAMED_AT_MOST else ""
    named = f"{', '.join(others[:_NAMED_AT_MOST])}{more}"
    chosen = f"frames are drawn in the {profile} profile, which this machine would choose"
    return f"{chosen}; {named} would not: `profile` in the sweep file decides"


def check_nodes(results: Path | RemoteFolder) -> list[NodeReport]:
    """Refuse a cluster on whose nodes trials would fail, or whose checkpoints would vanish with a node.

    A cluster that works on this node alone, such as the one that a sweep starts itself, is not asked. A node without CPUs has
    reward servers at most, which need no results: it is asked for its version alone.

    Args:
        results: The folder that all nodes with CPUs must share, or the address that they must reach. A folder is made if it does
            not exist.

    Returns:
        What the nodes say; nothing if none was asked.

    Raises:
        UserError: One message that names the nodes, and for each what is wrong: another version of this package, a folder that
            is missing, is another one, or cannot be written, or an address that cannot be used.
    """
    nodes = _to_ask(ray.nodes(), ray.get_runtime_context().get_node_id())
    if not nodes:
        return []
    reports, problems = _reports_at(nodes, results)
    if problems:
        more = f"; and {len(problems) - _NAMED_AT_MOST} more nodes" if len(problems) > _NAMED_AT_MOST else ""
        raise UserError(f"{'; '.join(problems[:_NAMED_AT_MOST])}{more}")
    return reports


_Answers = tuple[list[NodeReport], list[str]]
"""The reports of the nodes, and the problems with them."""


def _to_ask(nodes: Sequence[Mapping[str, Any]], here: str) -> list[Mapping[str, Any]]:
    """Return the nodes that may train or serve; none if that is the driver's own alone. A head that only drives gives nothing."""
    working = [node for node in nodes if node["Alive"] and (_may_train(node) or node["Resources"].get("GPU", 0))]
    return working if any(node["NodeID"] != here for node in working) else []


def _may_train(node: Mapping[str, Any]) -> bool:
    """Return whether trials can run there: each reserves CPUs."""
    return bool(node["Resources"].get("CPU", 0))


def _reports_at(nodes: list[Mapping[str, Any]], results: Path | RemoteFolder) -> _Answers:
    if isinstance(results, RemoteFolder):
        return _reports_with_address(nodes, results)
    return _reports_with_folder(nodes, results)


def _reports_with_folder(nodes: list[Mapping[str, Any]], results: Path) -> _Answers:
    """Put a mark into the folder, and ask all nodes that may train for it."""
    is_new = not results.exists()
    results.mkdir(parents=True, exist_ok=True)
    mark = results.resolve() / _new_mark()
    mark.touch()
    try:
        answers = _answers(nodes, mark)
    finally:
        mark.unlink(missing_ok=True)
    if answers[1] and is_new:
        with suppress(OSError):  # another sweep writes there by now
            results.rmdir()
    return answers


def _reports_with_address(nodes: list[Mapping[str, Any]], results: RemoteFolder) -> _Answers:
    """Put a mark there, and ask all nodes that may train for it."""
    mark = results / _new_mark()
    results.write(mark.name, b"seen")
    try:
        return _answers(nodes, mark)
    finally:
        results.remove_file(mark.name)


def _new_mark() -> str:
    return f".seen-by-all-nodes-{uuid.uuid4().hex[:12]}"


def _answers(nodes: list[Mapping[str, Any]], mark: Path | RemoteFolder) -> _Answers:
    answers = _reports(nodes, mark)
    found = [_problem_of(report, mark, version(_PACKAGE)) for report in answers]
    return [report for report in answers if isinstance(report, NodeReport)], [problem for problem in found if problem]


def _reports(nodes: list[Mapping[str, Any]], mark: Path | RemoteFolder) -> list[NodeReport | str]:
    """Ask all nodes at once: the report of each, or why it has none."""
    ask: Any = ray.remote(num_cpus=0, max_retries=0)(look)
    strategies = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    asked = [
        ask.options(scheduling_strategy=strategy).remote(mark if _may_train(node) else None)
        for node, strategy in zip(nodes, strategies, strict=True)
    ]
    reports: list[NodeReport | str] = []
    answered = set(ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_S)[0])
    for node, answer in zip(nodes, asked, strict=True):
        host = node.get("NodeManagerHostname") or node["NodeManagerAddress"]
        try:
            reports.append(ray.get(answer, timeout=None if answer in answered else 0))
        except GetTimeoutError:
            reports.append(
                f"node {host} has not answered within {_ANSWER_S:g} s: look at its log, or remove it from the cluster"
            )
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, ModuleNotFoundError):
                reports.append(f"node {host} lacks {cause.name}: install {_PACKAGE} {version(_PACKAGE)} there")
            else:
                reports.append(f"node {host} cannot run this package: {reason_of(cause)}")
    return reports


def look(mark: Path | RemoteFolder | None) -> NodeReport:
    """Look at the node that this runs on.

    Args:
        mark: A file that the driver has put into the results folder, or to their address; None where no trial can run.

    Returns:
        The node's report.
    """
    if mark is None:
        return NodeReport(socket.gethostname(), version(_PACKAGE), None)
    trouble = _trouble_with_address(mark) if isinstance(mark, RemoteFolder) else _trouble_with(mark)
    return NodeReport(socket.gethostname(), version(_PACKAGE), trouble, machine_profile())


def _trouble_with_address(mark: RemoteFolder) -> str | None:
    results = mark.above
    if trouble := results.trouble():
        return trouble
    if mark.name not in results.names():
        return _ANOTHER_STORE
    try:
        results.copy.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"its copy {results.copy} cannot be made ({error.strerror}): set {CACHE} there to a folder that can"
    return None if os.access(results.copy, os.W_OK) else f"its copy {results.copy} cannot be written: set {CACHE} there"


def _trouble_with(mark: Path) -> str | None:
    if not mark.parent.is_dir():
        return "does not exist"
    if not mark.is_file():
        return "is another folder"
    own = mark.with_name(f"{mark.name}-{socket.gethostname()}-{os.getpid()}")
    try:
        own.write_bytes(b"written")
        own.unlink()
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    return None


def _problem_of(report: NodeReport | str, mark: Path | RemoteFolder, wanted: str) -> str | None:
    if isinstance(report, str):
        return report
    if report.version != wanted:
        wants = f"and the machine of the sweep {wanted}"
        return f"node {report.host} has {_PACKAGE} {report.version}, {wants}: install the same version on both"
    if report.folder is None:
        return None
    if isinstance(mark, RemoteFolder):
        return (
            f"node {report.host} cannot use {mark.above} for results ({report.folder}): trials put their checkpoints there: each "
            "node needs the network, and credentials in its own environment"
        )
    return (
        f"the results folder {mark.parent} {report.folder} on node {report.host}: trials write their checkpoints there, so name a "
        "folder that all nodes share with --results, or an address such as s3://bucket/results"
    )
