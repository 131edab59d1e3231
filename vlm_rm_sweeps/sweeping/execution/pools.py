"""Starts Ray and the reward servers of a sweep.

It imports neither RLlib, Tune nor MLflow: that takes seconds, in which the servers can load their models.
"""

import os
import uuid
from collections.abc import Callable
from contextlib import ExitStack

import ray
from ray.actor import ActorHandle

from vlm_rm_sweeps.files import check_room
from vlm_rm_sweeps.serving.cluster import ray_cluster
from vlm_rm_sweeps.serving.nodes import check_nodes, profile_remark
from vlm_rm_sweeps.serving.placement import await_placement, check_placement
from vlm_rm_sweeps.serving.pool import PoolConfig
from vlm_rm_sweeps.serving.sharing import named_if_shared, reward_servers
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.sweeping.config.labelled_states import check_labelled
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.execution.thresholds import stored_thresholds
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.tasks.opengl import choose_backend

_ONE_JUDGE = {"servers": 1, "most_servers": 1, "cpus": 0.0, "gpus": 0.0, "timeout_s": 86_400.0}
"""The pool of a model that only judges: one process, so that there is one budget. It limits its time itself."""


def pool_configs(plan: Plan, pool_name: str) -> dict[str, PoolConfig]:
    """Return the pool configuration of each model of a sweep and its audit, by model id."""
    counts = {"servers": plan.sweep.pool.servers.min, "most_servers": plan.sweep.pool.servers.max}
    # A trial that reserves a whole GPU needs one that no server has a part of.
    settings = plan.sweep.pool.model_dump() | counts | {"spread": not plan.sweep.trial.gpus}
    return {
        model_id: named_if_shared(
            PoolConfig.of(pool_name, model, **(settings | (_ONE_JUDGE if model.judges_only else {}))), model
        )
        for model_id, model in plan.models.items()
    }


def start_pools(
    plan: Plan, folder: SweepFolder, say: Callable[[str], None], cleanup: ExitStack
) -> tuple[dict[str, PoolConfig], dict[str, list[ActorHandle]]]:
    """Start Ray and the servers of each model of a sweep, without waiting for them.

    Args:
        plan: The sweep.
        folder: The sweep's folder, which need not exist yet.
        say: Prints a line.
        cleanup: Its end stops the servers, and Ray if it was started here.

    Returns:
        The pool and the servers of each model, by model id.

    Raises:
        UserError: Nothing can be written into the results folder, the labelled data set of `epic_states` or of a threshold cannot be
            used, the task draws with OpenGL and there is none, Ray does not start, a node of its cluster lacks this package or the
            results folder, or the servers and one trial cannot be placed.
    """
    check_room(folder.path.parent)
    check_labelled(plan, _is_measured(folder), stored_thresholds(folder))
    # On a cluster the trials draw on its nodes, and this machine may have no OpenGL of its own.
    if plan.task.draws_with_opengl and not os.environ.get("RAY_ADDRESS"):
        choose_backend()
    if plan.sweep.pool.shared and not ray.is_initialized() and not os.environ.get("RAY_ADDRESS"):
        say("pool.shared: this sweep starts a Ray of its own, so no other one shares its servers (RAY_ADDRESS names a cluster)")
    cleanup.enter_context(ray_cluster(say))
    # A unique name: the servers of a killed driver may still be running.
    pools = pool_configs(plan, f"{folder.path.name}-{uuid.uuid4().hex[:6]}")
    results = folder.place.above if isinstance(folder.place, RemoteFolder) else folder.path.parent
    reserved, wait_s = plan.sweep.trial, plan.sweep.wait_for_nodes_s
    demand = list(pools.values()), reserved.cpus, reserved.gpus, reserved.env_runners
    nodes = check_nodes(results)
    if not wait_s:
        check_placement(*demand)
    elif await_placement(*demand, wait_s, say):
        nodes = check_nodes(results)  # those that have joined, too
    remark = profile_remark(nodes, plan.renderings[0].profile)
    if remark is not None and plan.machine_drawn and plan.task.draws_with_opengl:
        say(remark)
    if pools:
        starting = "starting or sharing" if plan.sweep.pool.shared else "starting"
        say(f"{starting} {plan.sweep.pool.servers.min} reward server(s) of each of {', '.join(pools)}")
    servers = {model_id: cleanup.enter_context(reward_servers(pool, plan.models[model_id])) for model_id, pool in pools.items()}
    return pools, servers


def _is_measured(folder: SweepFolder) -> bool:
    from vlm_rm_sweeps.sweeping.execution.reward_metrics import known_measures

    return known_measures(folder.epic) is not None
