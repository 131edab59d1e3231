"""One sweep on Ray nodes with addresses of their own: whatever happens to a node, its table is that of an undisturbed run.

The server reserves two CPUs and fills a node; both trials have another one. A node that is lost gets a successor, as from whoever
keeps a cluster's machines up. `make test-cluster` prints a table of all cases, and writes it to CLUSTER_TABLE.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from exported import SMALL_VIT, export
from ray_nodes import RayNodes, needs_network_namespaces, wait_for
from small_sweeps import SWEEP
from store_server import BUCKET, CREDENTIALS

from vlm_rm_sweeps.cli.terminal import EXIT_BAD_INPUT
from vlm_rm_sweeps.metrics import CLIP_RETURN, FRAMES_SCORED, TRUE_RETURN, UPDATES
from vlm_rm_sweeps.sweeping.tracking.journal import ResultLogged, read_entries

pytestmark = [pytest.mark.cluster, needs_network_namespaces]

KEYS: dict[str, Any] = SWEEP | {
    "name": "nodes",
    "alphas": [0.0, 0.5],
    "true_reward": False,
    "videos": False,
    "steps": 2560,
    "checkpoint_every": 256,
    "trial": {"cpus": 1},
    "pool": {"cpus": 2},
}
STORE = f"""
import time
from moto.server import ThreadedMotoServer
from pyarrow.fs import S3FileSystem

ThreadedMotoServer(ip_address="10.77.0.1", port=5005, verbose=False).start()
keys = {{"access_key": {CREDENTIALS["AWS_ACCESS_KEY_ID"]!r}, "secret_key": {CREDENTIALS["AWS_SECRET_ACCESS_KEY"]!r}}}
store = S3FileSystem(endpoint_override="10.77.0.1:5005", scheme="http", region="us-east-1", allow_bucket_creation=True, **keys)
store.create_dir({BUCKET!r})
print("made", flush=True)
while True:
    time.sleep(60)
"""
_SERVER, _TRIAL = "RewardServer", "TrainableTrial"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[RayNodes]:
    """A head without CPUs."""
    started = RayNodes(tmp_path)
    yield started
    started.stop()


def written(folder: Path, **changes: Any) -> str:
    file = folder / "nodes.yaml"
    file.write_text(yaml.safe_dump(KEYS | changes))
    return str(file)


Found = tuple[pd.DataFrame, dict[tuple[str, int], dict[str, float]]]


def found_in(results: Path) -> Found:
    """The table of the only sweep in a folder, and each result of each trial, without times."""
    (folder,) = results.glob("nodes-*")
    table = pd.read_csv(folder / "trials.csv").drop(columns="steps_per_second")
    logged: dict[tuple[str, int], dict[str, float]] = {}
    for entry in read_entries(folder / "journal.jsonl"):
        if isinstance(entry, ResultLogged):
            told = {name: entry.metrics.get(name, 0.0) for name in (TRUE_RETURN, CLIP_RETURN, FRAMES_SCORED, UPDATES)}
            # What a resumed trial computes again must be the same.
            assert logged.setdefault((entry.trial, entry.step), told) == told
    return table, logged


def until(is_true: Callable[[], bool], timeout_s: float = 240) -> None:
    ends = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < ends
        time.sleep(0.2)


def trials_have_checkpoints(results: Path) -> bool:
    return len({file.parts[-3] for file in results.glob("nodes-*/trials/*/step-*/checkpoint.json")}) == 2


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("undisturbed")
    nodes = RayNodes(folder)
    try:
        nodes.join(2, cpus=2)
        nodes.join(3, cpus=2)
        wait_for(nodes.sweep(written(folder), "--results", str(folder / "results"), log=folder / "log"), folder / "log")
    finally:
        nodes.stop()
    return found_in(folder / "results")


@pytest.fixture(scope="module")
def rows() -> Iterator[list[dict[str, Any]]]:
    """One for each sweep that was compared; printed at the end as a table, and written to CLUSTER_TABLE."""
    found: list[dict[str, Any]] = []
    yield found
    table = pd.DataFrame(found).to_string(index=False)
    print(f"\n{table}")
    if "CLUSTER_TABLE" in os.environ:
        file = Path(os.environ["CLUSTER_TABLE"])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{table}\n")
        print(f"written to {file}")


def recovery_s(results: Path, fault_s: float) -> float:
    """Seconds from a fault to the next result of the trial that waited longest for it, by the journal's times."""
    (folder,) = results.glob("nodes-*")
    after: dict[str, float] = {}
    for entry in read_entries(folder / "journal.jsonl"):
        if isinstance(entry, ResultLogged) and entry.time / 1000 > fault_s:
            after.setdefault(entry.trial, entry.time / 1000 - fault_s)
    return max(after.values())


def same(rows: list[dict[str, Any]], what: str, found: Found, expected: Found, recovered_s: float | None = None) -> None:
    """Note what was lost or doubled, by the frames of each result, and demand that nothing was."""
    frames = [{key: told[FRAMES_SCORED] for key, told in logged.items()} for _, logged in (found, expected)]
    more = [frames[0].get(key, 0.0) - frames[1].get(key, 0.0) for key in frames[0] | frames[1]]
    rows.append(
        {
            "fault": what,
            "recovery": "-" if recovered_s is None else f"{recovered_s:.1f} s",
            "lost": int(-sum(change for change in more if change < 0)),
            "doubled": int(sum(change for change in more if change > 0)),
            "table equal": "yes" if found[0].equals(expected[0]) else "no",
        }
    )
    pd.testing.assert_frame_equal(found[0], expected[0])
    assert found[1] == expected[1]


@pytest.mark.parametrize("fault", ["the server's node is killed", "the trials' node is cut off the network"])
def test_a_lost_node_changes_no_number(
    nodes: RayNodes, undisturbed: Found, rows: list[dict[str, Any]], tmp_path: Path, fault: str
) -> None:
    results, log = tmp_path / "results", tmp_path / "log"
    nodes.join(2, cpus=2)
    nodes.join(3, cpus=2)
    sweep = nodes.sweep(written(tmp_path), "--results", str(results), log=log)
    until(lambda: trials_have_checkpoints(results) or sweep.poll() is not None)
    assert sweep.poll() is None, log.read_text()[-4000:]
    if fault.startswith("the server"):
        lost = nodes.node_of(_SERVER)
        assert lost is not None
        nodes.kill_raylet(lost)
    else:
        lost = nodes.node_of(_TRIAL)
        assert lost not in (None, nodes.node_of(_SERVER))
        nodes.cut_off(lost)
    fault_s = time.time()
    nodes.join(4, cpus=2)
    wait_for(sweep, log)
    same(rows, fault, found_in(results), undisturbed, recovery_s(results, fault_s))


def test_a_sweep_waits_for_nodes_that_join_late(
    nodes: RayNodes, undisturbed: Found, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    results, log = tmp_path / "results", tmp_path / "log"
    nodes.join(2, cpus=2)
    sweep = nodes.sweep(written(tmp_path, wait_for_nodes_s=300), "--results", str(results), log=log)
    until(lambda: "waiting at most 300 s for machines that join" in log.read_text() or sweep.poll() is not None)
    nodes.join(3, cpus=2)
    wait_for(sweep, log)
    same(rows, "a node joins late", found_in(results), undisturbed)


def test_two_sweeps_at_once_share_a_new_results_folder_and_the_servers(
    nodes: RayNodes, undisturbed: Found, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    nodes.join(2, cpus=6)
    running = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        file = written(tmp_path / name, name=f"nodes-{name}", pool={"cpus": 2, "shared": True})
        running.append(nodes.sweep(file, "--results", str(results), log=tmp_path / f"{name}.log"))
    until(lambda: len(list(results.glob("nodes-*/journal.jsonl"))) == 2)
    assert len(nodes.processes(2, _SERVER)) == 1
    for sweep, name in zip(running, ("first", "second"), strict=True):
        wait_for(sweep, tmp_path / f"{name}.log")
        only = tmp_path / f"only-{name}"
        only.mkdir()
        next(results.glob(f"nodes-{name}-*")).rename(only / "nodes-found")
        same(rows, f"two sweeps at once, the {name}", found_in(only), undisturbed)


def test_a_results_folder_that_a_node_does_not_share_is_refused(nodes: RayNodes, tmp_path: Path) -> None:
    results, log = tmp_path / "results", tmp_path / "log"
    results.mkdir()
    nodes.join(2, cpus=2)
    nodes.join(3, cpus=2, hides=results)
    refused = nodes.sweep(written(tmp_path), "--results", str(results), log=log)
    assert refused.wait(timeout=200) == EXIT_BAD_INPUT
    assert "is another folder on node" in log.read_text()
    assert list(results.iterdir()) == []


def test_a_node_that_joins_late_without_the_results_folder_trains_nothing(nodes: RayNodes, tmp_path: Path) -> None:
    """It is named in one line, and what came to it is trained elsewhere."""
    results, log = tmp_path / "results", tmp_path / "log"
    results.mkdir()
    nodes.join(2, cpus=2)  # the server
    nodes.join(3, cpus=1)
    sweep = nodes.sweep(written(tmp_path, steps=10_240), "--results", str(results), log=log)
    until(lambda: bool(list(results.glob("nodes-*/trials/*/step-*/checkpoint.json"))) or sweep.poll() is not None)
    nodes.join(4, cpus=1, hides=results)
    wait_for(sweep, log, timeout_s=600)
    said = log.read_text()
    assert said.count("is another folder, or none, on node") == said.count("This sweep trains no more on that node") == 1
    assert "Traceback" not in said
    assert set(found_in(results)[0]["status"]) == {"finished"}


OWN_MODEL = """\
from vlm_rm_sweeps import FrameFormat, RewardModel


class Brightness(RewardModel):
    frame_format = FrameFormat(32)

    def score(self, frames, specs):
        return frames.mean(axis=(1, 2, 3), dtype="f4")[:, None].repeat(len(specs), axis=1)
"""


def test_models_and_modules_travel_to_nodes_that_lack_their_files(nodes: RayNodes, tmp_path: Path) -> None:
    results, log, cache, mine = (tmp_path / name for name in ("results", "log", "cache", "mine"))
    model = mine / "model"
    model.mkdir(parents=True)
    export(model, SMALL_VIT, {})
    (mine / "own_brightness.py").write_text(OWN_MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLM_RM_CACHE", str(cache))
        nodes.join(2, cpus=4, hides=mine)
        nodes.join(3, cpus=4, hides=mine)
        file = written(mine, models=[str(model), "own_brightness:Brightness"], pool={"cpus": 1})
        wait_for(nodes.sweep(file, "--results", str(results), log=log), log)
    table = found_in(results)[0]
    assert list(table["status"]) == ["finished"] * 4
    (copy,) = (cache / "models").glob("*/open_clip_model.safetensors")
    assert copy.read_bytes() == (model / copy.name).read_bytes()


def test_results_in_a_store_need_no_common_folder(
    nodes: RayNodes, undisturbed: Found, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    pytest.importorskip("moto", reason="moto is not installed")
    log, copies = tmp_path / "log", tmp_path / "copies"
    store = nodes.run(1, sys.executable, "-c", STORE, log=tmp_path / "store.log")
    endpoint = "endpoint_override=10.77.0.1:5005&scheme=http&region=us-east-1"
    until(lambda: "made" in (tmp_path / "store.log").read_text() or store.poll() is not None)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (CREDENTIALS | {"XDG_CACHE_HOME": str(copies)}).items():
            patch.setenv(name, value)
        (tmp_path / "elsewhere").mkdir()
        copies.mkdir()
        nodes.join(2, cpus=2)
        nodes.join(3, cpus=2, hides=copies)
        sweep = nodes.sweep(written(tmp_path), "--results", f"s3://{BUCKET}/results?{endpoint}", log=log)
        wait_for(sweep, log)
    (folder,) = {file.parent for file in copies.rglob("nodes-*/trials.csv")}
    same(rows, "no common folder, but a store", found_in(folder.parent), undisturbed)


def test_env_runners_on_two_nodes_collect_what_those_on_one_do(
    nodes: RayNodes, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = []
    changes: dict[str, Any] = {"alphas": [0.5], "trial": {"cpus": 1, "env_runners": 2}, "pool": {"cpus": 0}}
    nodes.join(2, cpus=2)
    nodes.join(3, cpus=3)  # what a trial and its two env runners need
    for name in ("apart", "together"):
        (tmp_path / name).mkdir()
        if name == "together":
            nodes.kill_raylet(2)
        results, log = tmp_path / name / "results", tmp_path / name / "log"
        wait_for(nodes.sweep(written(tmp_path / name, **changes), "--results", str(results), log=log), log)
        found.append(found_in(results))
    same(rows, "env runners on two nodes", found[0], found[1])
