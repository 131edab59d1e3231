"""What runs a CLIP model's image tower: torch on the network as it is, or a faster equivalent of it.

Each backend computes the same function, and rounds in its own way: rewards of two backends differ in their last digits
(`benchmarks/precision.py` measures by how much). A new one is a function from network to encoder, an entry of `BACKENDS`, and a
name in `BackendName`. The tests then ask of it what is asked of all: rewards near torch's, the same bits whatever the batch.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.fx.experimental.optimization import fuse

from vlm_rm_sweeps.errors import UserError, reason_of
from vlm_rm_sweeps.rewards.reward_model import BackendName, Precision

Encoder = Callable[[torch.Tensor], torch.Tensor]
"""Encodes preprocessed frames (micro-batch, 3, size, size) as features (micro-batch, D), which are not normalised."""

_OPSET = 17
"""Version of ONNX's operators: the first with layer normalisation, in which vision transformers spend much of their time."""


@dataclass(frozen=True)
class Backend:
    """One backend.

    Attributes:
        build: Makes the encoder of a network (open_clip's model, loaded), given an input of the shape that it will get.
        packages: What it needs beside this package's own dependencies.
        on_cpu_in_fp32_only: Whether it computes nowhere else, and in no other precision.
    """

    build: Callable[[Any, torch.Tensor], Encoder]
    packages: tuple[str, ...] = ()
    on_cpu_in_fp32_only: bool = False


def check_backend(name: BackendName, device: str, precision: Precision) -> None:
    """Refuse a backend that cannot run here, or not as it is asked to.

    Args:
        name: The backend.
        device: torch device that the model will run on.
        precision: Floating-point precision of the weights.

    Raises:
        UserError: There is no such backend, a package is missing, or it does not support the device or the precision.
    """
    if name not in BACKENDS:
        raise UserError(f"backend {name!r}: expected one of {', '.join(BACKENDS)}")
    backend = BACKENDS[name]
    missing = [package for package in backend.packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f"backend {name!r} needs {' and '.join(missing)}, not installed here: `pip install {' '.join(missing)}`, or choose 'torch'"
        )
    if backend.on_cpu_in_fp32_only and (device != "cpu" or precision != "fp32"):
        raise UserError(
            f"backend {name!r} runs on CPUs in fp32 only, and the model is to run on {device!r} in {precision!r}: choose "
            "backend 'torch', or no GPU and precision 'fp32'"
        )


def image_encoder(name: BackendName, network: Any, example: torch.Tensor) -> Encoder:
    """Build the encoder of a network.

    Args:
        name: The backend.
        network: open_clip's model, loaded and in evaluation mode. A backend may replace its image tower.
        example: An input of the shape and type that the encoder will get.

    Returns:
        A function from inputs to features, under `torch.inference_mode` if the caller is.

    Raises:
        UserError: The backend cannot run this network.
    """
    try:
        return BACKENDS[name].build(network, example)
    except Exception as error:  # tracing and exporting raise whatever the network's own code raises
        raise UserError(f"backend {name!r} cannot run this model ({reason_of(error)}): choose 'torch'") from error


def _torch(network: Any, _: torch.Tensor) -> Encoder:
    def encode(inputs: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = network.encode_image(inputs)
        return features

    return encode


def _folded(network: Any, example: torch.Tensor) -> Encoder:
    """Multiply each batch normalisation into the convolution before it. A network without any is left as it is."""
    if any(isinstance(module, torch.nn.BatchNorm2d) for module in network.visual.modules()):
        network.visual = fuse(network.visual).to(memory_format=torch.channels_last)
    return _torch(network, example)


class ImageTower(torch.nn.Module):
    """The image half of a network, as the module that an exporter wants.

    Args:
        network: open_clip's model, loaded.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self._network = network

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Encode preprocessed frames (micro-batch, 3, size, size) as features (micro-batch, D)."""
        features: torch.Tensor = self._network.encode_image(inputs)
        return features


class _OnnxRuntime:
    """The network in ONNX Runtime, with one session for each size of the micro-batch: with a fixed shape it plans its memory."""

    def __init__(self, network: Any, example: torch.Tensor) -> None:
        self._tower = ImageTower(network).eval()
        self._sessions = {len(example): self._session_for(example)}

    def _session_for(self, example: torch.Tensor) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Waiting threads would burn the cores that trials need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with TemporaryDirectory() as folder:
            file = Path(folder) / "tower.onnx"
            export(self._tower, example, file)
            return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) not in self._sessions:  # the server makes micro-batches smaller when memory runs out
            self._sessions = {len(inputs): self._session_for(inputs)}
        (features,) = self._sessions[len(inputs)].run(None, {"inputs": inputs.contiguous().numpy()})
        return torch.from_numpy(features)


def export(tower: torch.nn.Module, example: torch.Tensor, file: Path) -> None:
    """Write an image tower as ONNX, for inputs of one shape.

    Args:
        tower: The image half of a network.
        example: An input of the shape that it will get.
        file: Where to.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # The fast path of torch's attention is one operator, which ONNX does not have.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            # The exporter that traces is the older one. The newer needs another package, and takes longer.
            warnings.simplefilter("ignore")
            torch.onnx.export(tower, (example.contiguous(),), file, input_names=["inputs"], opset_version=_OPSET, dynamo=False)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


BACKENDS: dict[BackendName, Backend] = {
    "torch": Backend(_torch),
    "folded": Backend(_folded),
    "onnxruntime": Backend(_OnnxRuntime, packages=("onnxruntime", "onnx"), on_cpu_in_fp32_only=True),
}
"""All backends by name."""
