"""Shared by all tests: one small Ray cluster for the session, and pinned threads."""

import os

import vlm_rm_sweeps  # noqa: F401 - before Ray, which reads this package's defaults when it is imported

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"

import logging
from collections.abc import Iterator

import pytest
import ray
import torch

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.serving.pool import NAMESPACE
from vlm_rm_sweeps.tasks.opengl import choose_backend

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of two CPUs on the loopback address, shared by all tests that need one."""
    ray.init(
        num_cpus=2,
        namespace=NAMESPACE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def opengl() -> None:
    """For tests that draw with MuJoCo: they are skipped where this machine has no OpenGL at all."""
    try:
        choose_backend()
    except UserError as error:
        pytest.skip(str(error))
