"""Nodes that lack what a sweep needs are named before anything starts."""

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from own_network import needs_namespaces, run_in_own_network

from vlm_rm_sweeps.serving import nodes
from vlm_rm_sweeps.serving.nodes import InCommon, NodeReport, check_nodes, look, profile_remark
from vlm_rm_sweeps.serving.refused_nodes import NodeRefused
from vlm_rm_sweeps.storage import RemoteFolder, StoreError
from vlm_rm_sweeps.tasks.rendering import Profile, machine_profile


def test_a_folder_that_is_shared_has_no_trouble_and_keeps_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    assert look(mark).folder is None
    assert look(mark).profile == machine_profile()
    assert list(tmp_path.iterdir()) == [mark]


def test_an_address_that_a_node_reaches_has_no_trouble_and_keeps_nothing(remote: RemoteFolder) -> None:
    remote.write("mark", b"seen")
    assert look(remote / "mark").folder is None
    assert remote.names() == ["mark"]
    assert look(remote / "other").folder == "another store answers there"


def test_an_address_that_a_node_cannot_use_is_named_with_the_cause(remote: RemoteFolder, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    report = look(remote / "mark")
    assert report.folder
    problem = nodes._problem_of(report, remote / "mark", report.version)
    assert problem is not None
    assert problem.startswith(f"node {report.host} cannot use {remote} for results ({report.folder})")


def test_a_folder_that_is_not_shared_is_told_from_one_that_is_missing(tmp_path: Path) -> None:
    assert look(tmp_path / "mark").folder == "is another folder"
    assert look(tmp_path / "missing" / "mark").folder == "does not exist"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_trouble(tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    tmp_path.chmod(0o500)
    assert look(tmp_path / "mark").folder == "cannot be written (Permission denied)"
    tmp_path.chmod(0o700)


def test_a_node_with_another_version_is_named_with_both() -> None:
    problem = nodes._problem_of(NodeReport("far-away", "0.2.0", None), Path("results/mark"), "0.3.0")
    assert problem is not None
    assert "node far-away has vlm-rm-sweeps 0.2.0, and the machine of the sweep 0.3.0" in problem


def test_a_machine_without_the_sweeps_file_or_with_another_version_refuses_a_trial(tmp_path: Path) -> None:
    """As a node that joined late has one: the driver asked those that were there."""
    file, host = tmp_path / "sweep.yaml", socket.gethostname()
    with pytest.raises(NodeRefused, match=rf"^the results folder {tmp_path} is another folder, or none, on node {host}: "):
        InCommon(file).check_here()
    file.touch()
    InCommon(file).check_here()
    with pytest.raises(NodeRefused, match=rf"^node {host} has vlm-rm-sweeps .*, and the machine of the sweep 0\.0\.1: install"):
        InCommon(file, "0.0.1").check_here()
    assert list(tmp_path.iterdir()) == [file]


def test_a_machine_that_reaches_another_store_refuses_a_trial_and_one_that_reaches_none_goes_on(
    remote: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NodeRefused, match=rf"^node {socket.gethostname()} cannot use {remote} for results .another store"):
        InCommon(remote / "sweep.yaml").check_here()
    remote.write("sweep.yaml", b"name: x")
    InCommon(remote / "sweep.yaml").check_here()

    def silent(folder: RemoteFolder) -> list[str]:
        raise StoreError(f"{folder} does not answer")

    monkeypatch.setattr(RemoteFolder, "names", silent)
    InCommon(remote / "sweep.yaml").check_here()


def test_nodes_that_would_draw_otherwise_are_named_in_one_line() -> None:
    profiles: dict[str, Profile | None] = {"a": "fast", "b": "full", "c": None}
    here, with_gpu, silent = (NodeReport(name, "1", None, profile) for name, profile in profiles.items())
    assert profile_remark([here, silent], "fast") is None
    remark = profile_remark([here, with_gpu, silent], "fast")
    assert remark is not None
    assert remark.startswith("frames are drawn in the fast profile, which this machine would choose; b would not: `profile`")


def hang(mark: Path) -> NodeReport:
    time.sleep(60)
    raise AssertionError


def test_nodes_that_do_not_answer_in_time_are_all_named(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one wait for all of them."""
    waits: list[Any] = []
    wait = ray.wait

    def noted(*asked: Any, **options: Any) -> Any:
        waits.append(options["timeout"])
        return wait(*asked, **options)

    monkeypatch.setattr(ray, "wait", noted)
    monkeypatch.setattr(nodes, "_ANSWER_S", 0.5)
    monkeypatch.setattr(nodes, "look", hang)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    reports = nodes._reports(
        [node | {"NodeManagerHostname": name} for node in ray.nodes() for name in "abc"], tmp_path / "mark"
    )
    assert [str(report).partition(":")[0] for report in reports] == [
        f"node {name} has not answered within 0.5 s" for name in "abc"
    ]
    assert waits == [0.5]


def test_a_new_folder_in_which_another_sweep_writes_by_now_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(asked: Any, mark: Path) -> tuple[list[NodeReport], list[str]]:
        (mark.parent / "other").mkdir()
        return [], ["a problem"]

    monkeypatch.setattr(nodes, "_answers", answers)
    assert nodes._reports_with_folder([], tmp_path / "results") == ([], ["a problem"])
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["other"]


def test_a_cluster_of_one_node_is_not_asked(ray_cluster: None, tmp_path: Path) -> None:
    check_nodes(tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_single_worker_is_asked_if_the_driver_runs_on_a_head_without_cpus() -> None:
    head: dict[str, Any] = {"NodeID": "head", "Alive": True, "Resources": {}}
    worker: dict[str, Any] = {"NodeID": "worker", "Alive": True, "Resources": {"CPU": 8.0}}
    assert nodes._to_ask([head, worker], "head") == [worker]
    assert nodes._to_ask([head, worker | {"Alive": False}], "head") == []
    assert nodes._to_ask([head | {"Resources": {"CPU": 2.0}}], "head") == []


def test_a_node_with_gpus_alone_is_asked_too_for_it_may_have_servers() -> None:
    own: dict[str, Any] = {"NodeID": "own", "Alive": True, "Resources": {"CPU": 2.0}}
    serving: dict[str, Any] = {"NodeID": "serving", "Alive": True, "Resources": {"GPU": 2.0}}
    assert nodes._to_ask([own, serving], "own") == [own, serving]
    with_none = serving | {"Resources": {"CPU": 0.0, "GPU": 2.0}}
    assert nodes._to_ask([own, with_none], "own") == [own, with_none]
    assert nodes._to_ask([own, serving | {"Alive": False}], "own") == []
    assert nodes._to_ask([own, serving | {"Resources": {"memory": 2.0}}], "own") == []
    assert nodes._to_ask([serving], "serving") == []


def test_a_node_without_cpus_is_asked_for_its_version_and_no_folder(ray_cluster: None, tmp_path: Path) -> None:
    (node,) = ray.nodes()
    training, serving = nodes._reports([node, node | {"Resources": {"GPU": 1.0}}], tmp_path / "mark")
    assert isinstance(training, NodeReport)
    assert training.folder == "is another folder"
    assert serving == NodeReport(training.host, training.version, None)


TWO_NODES = """
import subprocess, sys
from pathlib import Path
import ray
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.process_defaults import prepare_ray
from vlm_rm_sweeps.serving.nodes import check_nodes
from vlm_rm_sweeps.storage import RemoteFolder

results, private = Path(sys.argv[1]), "private" in sys.argv[2]
place = RemoteFolder.at(f"file://{results}") if "address" in sys.argv[2] else results
prepare_ray()
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
ray.init(address=cluster.address, log_to_driver=False)
has = "--num-cpus=0 --num-gpus=1" if "serving" in sys.argv[2] else "--num-cpus=1"
start = f"ray start --address={cluster.address} {has} --node-name=second --block"
if private:
    start = f"mount -t tmpfs none {results} && {start}"
node = subprocess.Popen(["unshare", "--mount", "sh", "-c", start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    while sum(each["Alive"] for each in ray.nodes()) < 2:
        assert node.poll() is None, "the second node has ended"
    print(len(check_nodes(place)), "nodes will do")
except UserError as error:
    print(error)
finally:
    node.terminate()
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.slow
@needs_namespaces
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("private", "is another folder on node"),
        ("shared", "2 nodes will do"),
        ("private address", "for results (another store answers there)"),
        ("shared address", "2 nodes will do"),
        ("private serving", "2 nodes will do"),
    ],
)
def test_the_results_folder_of_two_nodes(kind: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    results = tmp_path / "results"
    results.mkdir()
    done = run_in_own_network(tmp_path / "two_nodes.py", TWO_NODES, str(results), kind)
    assert said in done.stdout
    assert list(results.iterdir()) == []
