"""Videos are recorded one after the other, in a process that stays; one that fails affects no other."""

import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray

from vlm_rm_sweeps.serving.refused_nodes import NodeRefused, forget_refused_nodes
from vlm_rm_sweeps.sweeping.execution import trial_videos
from vlm_rm_sweeps.sweeping.execution.trial_videos import TrialVideos

# The recorder below travels to its process by value: else that would import this module.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


CPUS = {"head": 0.0, "large": 15.0, "middle": 4.0, "small": 3.0, "dead": 64.0}


class Recorder:
    """Records nothing, but names its process and the number of recordings that began in it."""

    def __init__(self) -> None:
        self._begun = 0

    def record(self, job: Any) -> Path:
        self._begun += 1
        if job == "kills":
            os._exit(1)
        if job == "hangs":
            time.sleep(3)
        if job == "refused":
            raise NodeRefused(ray.get_runtime_context().get_node_id(), "node far-away has another version")
        if job == "fails":
            raise ValueError("no picture")
        return Path(str(os.getpid()), str(self._begun))


@pytest.fixture(autouse=True)
def recorder(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_videos, "Recorder", Recorder)


def recorded(jobs: dict[str, Any], said: list[str]) -> dict[str, Path]:
    videos = TrialVideos(said.append)
    for trial_id, job in jobs.items():
        videos.record(trial_id, job)
    return videos.finish()


def test_all_videos_of_a_small_machine_are_recorded_in_one_process() -> None:
    said: list[str] = []
    files = recorded(dict.fromkeys("abc"), said)
    assert list(files) == ["a", "b", "c"]
    assert len({file.parent for file in files.values()}) == 1
    assert [file.name for file in files.values()] == ["1", "2", "3"]
    assert not [line for line in said if "no video" in line]


def test_a_large_machine_has_several_recorders(monkeypatch: pytest.MonkeyPatch) -> None:
    (node,) = ray.nodes()
    monkeypatch.setattr(ray, "nodes", lambda: [node | {"Resources": {"CPU": 8.0}}])
    files = recorded(dict.fromkeys("abc"), [])
    assert len({file.parent for file in files.values()}) == 2


def test_recorders_are_bounded_for_each_node_of_a_cluster() -> None:
    """All on one node would take its memory."""
    nodes = [{"NodeID": name, "Alive": name != "dead", "Resources": {"CPU": cpus}} for name, cpus in CPUS.items()]
    taken: list[str] = []
    while (node := trial_videos._with_room(nodes, taken)) is not None:
        taken.append(node)
    assert Counter(taken) == {"large": 3, "middle": 1}
    small = [node | {"Resources": {"CPU": 2.0}} for node in nodes[1:3]]
    assert trial_videos._with_room(small, []) in ("large", "middle")
    assert trial_videos._with_room(small, ["large"]) is None
    assert trial_videos._with_room([], []) is None


def test_a_video_that_fails_is_reported_and_the_others_are_recorded() -> None:
    said: list[str] = []
    files = recorded({"a": None, "b": "fails", "c": "kills", "d": None}, said)
    assert list(files) == ["a", "d"]
    lost = [line for line in said if line.startswith("no video of trial")]
    assert lost[0] == "no video of trial b: ValueError: no picture"
    assert re.match("no video of trial c: Actor(Died|Unavailable)Error: ", lost[1])
    assert len(lost) == 2


def test_a_node_that_cannot_record_is_named_once_and_gets_no_more_to_record() -> None:
    said: list[str] = []
    forget_refused_nodes()
    assert recorded(dict.fromkeys("ab", "refused"), said) == {}
    forget_refused_nodes()
    assert [line for line in said if "being recorded" not in line] == [
        "node far-away has another version. No video is recorded on that node",
        "no video of trial a: it was not recorded in time",
        "no video of trial b: it was not recorded in time",
    ]


def test_a_video_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_videos, "_SILENCE_S", 0.0)
    monkeypatch.setattr(trial_videos, "_PATIENCE_S", 0.1)
    said: list[str] = []
    assert recorded({"a": "hangs", "b": None}, said) == {}
    assert said == [
        "2 videos are being recorded; Ctrl-C leaves them to --resume",
        "no video of trial a: it was not recorded in time",
        "no video of trial b: it was not recorded in time",
    ]


def test_nothing_to_record_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "wait", lambda *arguments, **options: pytest.fail("there is nothing to wait for"))
    assert TrialVideos(print).finish() == {}
