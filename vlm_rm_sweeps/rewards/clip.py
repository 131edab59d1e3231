"""CLIP models as reward models."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import get_input_dtype
from torch.nn import functional

from vlm_rm_sweeps.errors import UserError, reason_of, shown
from vlm_rm_sweeps.rewards.backends import Encoder, check_backend, image_encoder
from vlm_rm_sweeps.rewards.functions.base import FrameReward, Texts, rehearse, rewards_of
from vlm_rm_sweeps.rewards.functions.goal_baseline import goal_baseline_reward, prompt_embedding
from vlm_rm_sweeps.rewards.functions.model_column import ModelColumn
from vlm_rm_sweeps.rewards.open_clip_models import ModelSource, find_model
from vlm_rm_sweeps.rewards.prompt_tokens import count_tokens
from vlm_rm_sweeps.rewards.reward_model import BackendName, Precision, RewardModel, RewardSpec, check_request

_NUMBERS_AT_ONCE = 2**24
"""Limit on the elements of each intermediate array of the reward, 64 MB in float32."""


class ClipRewardModel(RewardModel):
    """Any open_clip model as a reward model, with any reward function of its embeddings.

    Frames are encoded in micro-batches of one fixed shape, the last one padded. A processor chooses its kernels, and so its
    rounding, by shape: with a fixed shape a frame's reward is bit-identical whatever it is batched with.

    Args:
        model_id: In one of the forms that `open_clip_models.py` lists.
        source: Where the model comes from; None for the place that its id names. Used for embedded models in other folders.

    Raises:
        UserError: There is no such architecture, tag or file.
    """

    embeds = True

    def __init__(self, model_id: str, source: ModelSource | None = None) -> None:
        super().__init__(model_id)
        self._other_source = source
        self.source = source or find_model(model_id)
        self.frame_format = self.source.preprocessing.frame_format
        self._prompt_tokens: dict[str, tuple[int, ...]] = {}
        self._prompt_embeddings: dict[str, torch.Tensor] = {}
        self._loaded: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Only what was chosen before loading is pickled: another process loads the weights and the tokenizer again.
        return type(self), (self.model_id, self._other_source), {"backend": self.backend}

    @cached_property
    def parameters(self) -> int:  # type: ignore[override]  # counted at first access: it takes a second
        """Number of parameters, counted without loading weights."""
        return self.source.parameters

    def check_weights(self) -> None:
        """Refuse a checkpoint file that cannot be of this model."""
        self.source.check_weights()

    @cached_property
    def _tokenizer(self) -> Any:
        return self.source.tokenizer

    def check_spec(self, spec: RewardSpec) -> None:
        """Refuse a spec that this model cannot score.

        This loads the tokenizer, but no weights.

        Args:
            spec: Prompts and alpha to check.

        Raises:
            UserError: A prompt is longer than the model's context, goal and baseline have the same tokens, or so have the goal and
                a text of the reward function; or the function needs another model.
        """
        if spec.function is not None:
            spec.function.check_model(self)
            if isinstance(spec.function, FrameReward) and not spec.function.needs_states:
                rehearse(spec.function, self.width)
        others = spec.function.prompts() if spec.function else ()
        goal, baseline = self._tokens(spec.goal_prompts), self._tokens(spec.baseline_prompts)
        for other in others:
            if self._tokens((other,)) <= goal:
                raise UserError(
                    f"{other!r} and the goal {list(spec.goal_prompts)!r} are the same to {self.model_id}, which does not tell capitals "
                    "or spaces apart: word them differently"
                )
        if goal == baseline:
            raise UserError(
                f"goal {list(spec.goal_prompts)!r} and baseline {list(spec.baseline_prompts)!r} are the same to {self.model_id}, which "
                "does not tell capitals or spaces apart: word them differently"
            )

    def _tokens(self, prompts: Sequence[str]) -> set[tuple[int, ...]]:
        """Return the tokens of prompts, each of which is read once: a baseline is that of thousands of goals."""
        for prompt in prompts:
            if prompt not in self._prompt_tokens:
                self._refuse_cut_prompt(prompt)
                self._prompt_tokens[prompt] = tuple(self._tokenizer([prompt])[0].tolist())
        return {self._prompt_tokens[prompt] for prompt in prompts}

    def use_backend(self, backend: BackendName, device: str = "cpu", precision: Precision = "fp32") -> None:
        """Choose what will run the image tower, before `load`.

        Args:
            backend: The backend.
            device: torch device that the model will run on.
            precision: Floating-point precision of the weights.

        Raises:
            UserError: A package is missing, the backend does not support the device or the precision, or the architecture does not
                support the precision.
        """
        check_backend(backend, device, precision)
        self.source.check_precision(precision)
        self.backend = backend

    @property
    def identity(self) -> str:
        """The same for two ids of one architecture with the same weights."""
        return self.source.identity

    @cached_property
    def weights_identity(self) -> str:
        """The same for two ids of one architecture with the same weights, also on different machines.

        It reads the whole of a checkpoint file, once.
        """
        return self.source.weights_identity

    @property
    def files(self) -> Sequence[Path]:
        """Weights that lie on this machine, and what is beside them; none of what ships in this package or is downloaded."""
        return self.source.files

    @property
    def width(self) -> int:
        """Number of embedding dimensions, known without loading weights."""
        return self.source.width

    def remarks_on(self, spec: RewardSpec) -> list[str]:
        """Name the words of the prompts that the captions of an embedded model never used."""
        unknown = self.source.unknown_words([*spec.goal_prompts, *spec.baseline_prompts])
        if not unknown:
            return []
        words = ", ".join(map(repr, unknown))
        return [
            f"{self.model_id}: its captions never used {words}, so it knows nothing of {'them' if len(unknown) > 1 else 'it'}; `vlm-rm "
            "landscape` shows what the prompt means to it"
        ]

    def remarks(self) -> list[str]:
        """Say what had to be guessed of a checkpoint file."""
        return [self.source.remark] if self.source.remark else []

    def _refuse_cut_prompt(self, prompt: str) -> None:
        """Refuse a prompt that the tokenizer would silently truncate: the model would score another text."""
        context = self._tokenizer.context_length
        if count_tokens(self._tokenizer, prompt) > context:
            raise UserError(
                f"prompt {shown(prompt)} is longer than the {context} tokens that {self.model_id} reads: the rest would be ignored; "
                "shorten it"
            )

    def load(self, device: str = "cpu", precision: Precision = "fp32", micro_batch: int = 64) -> None:
        """Load the weights.

        Every tensor must be present: no weight is ever left random.

        Args:
            device: torch device that the model runs on: `cpu`, `cuda`, `cuda:1`.
            precision: Floating-point precision of the weights.
            micro_batch: Frames in one forward pass.

        Raises:
            UserError: This machine has no such device, the weights are missing, damaged or cannot be downloaded, the backend cannot
                run the model, or the model cannot be used in this precision.
        """
        super().load(device, precision, micro_batch)
        model: Any = self.source.load(device, precision).eval()
        # Frames are stored channels last: on a CPU, convolutions are a third faster if they stay in that format.
        model.visual.to(memory_format=torch.channels_last)
        self._device, self._dtype = next(model.parameters()).device, get_input_dtype(precision) or torch.float32
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self._prompt_embeddings = {}
        self._encode: Encoder = image_encoder(self.backend, model, self._new_inputs().zero_().to(self._dtype))
        self._loaded = model
        if precision != "fp32":
            self._check_runs(precision)

    def _new_inputs(self) -> torch.Tensor:
        """Allocate the input of one micro-batch, in which frames are normalised."""
        size = self.source.preprocessing.size
        return torch.empty(self.micro_batch, 3, size, size, device=self._device, memory_format=torch.channels_last)

    def _check_runs(self, precision: Precision) -> None:
        """Encode a frame and a prompt: some architectures load in half precision and cannot be used in it.

        Raises:
            UserError: They cannot be encoded.
        """
        size = self.source.preprocessing.size
        try:
            self.encode_frames(np.zeros((1, size, size, 3), np.uint8))
            self.encode_prompt("a pole")
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise UserError(f"{self.model_id} cannot be used in {precision} ({reason_of(error)}): expected fp32") from error

    @property
    def network(self) -> Any:
        """open_clip's model; reading it before `load` raises a RuntimeError."""
        self._refuse_not_loaded()
        return self._loaded

    def _refuse_not_loaded(self) -> None:
        if self._loaded is None:
            raise RuntimeError(f"{self.model_id} is not loaded: call `load` first, or make it by `load_reward_model`")

    @torch.inference_mode()
    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        """Encode frames as unit embeddings.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.

        Returns:
            float32 (N, D), on the CPU.
        """
        return self._embed_and_tell(frames, ())[0]

    def _embed_and_tell(self, frames: np.ndarray, columns: Collection[str]) -> tuple[torch.Tensor, Mapping[str, np.ndarray]]:
        """Return the unit embeddings of frames, float32 (N, D), and some of the model's own columns by name, each (N,)."""
        return torch.cat([functional.normalize(features, dim=-1).cpu() for features in self._features(frames)]), {}

    def _features(self, frames: np.ndarray) -> Iterator[torch.Tensor]:
        """Yield what the image tower returns for each micro-batch of frames, float32 (n, D), on the model's device."""
        self._refuse_not_loaded()
        inputs = self._new_inputs()
        for start in range(0, len(frames), self.micro_batch):
            # Preprocessed and encoded one micro-batch at a time, the data stays in the processor's cache.
            chunk = frames[start : start + self.micro_batch]
            self.source.preprocessing.write(chunk, inputs[: len(chunk)])
            # A partial micro-batch is padded: another shape would be rounded differently.
            inputs[len(chunk) :] = 0
            yield self._encode(inputs.to(self._dtype))[: len(chunk)].float()

    @torch.inference_mode()
    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """Encode a prompt as a unit embedding, which is cached.

        It is encoded alone, so that its embedding does not depend on other prompts.

        Args:
            prompt: One sentence.

        Returns:
            float32 (D,), on the CPU.

        Raises:
            UserError: The prompt is longer than the model's context.
        """
        if prompt not in self._prompt_embeddings:
            self._refuse_cut_prompt(prompt)
            features = self.network.encode_text(self._tokenizer([prompt]).to(self._device))
            self._prompt_embeddings[prompt] = functional.normalize(features.float(), dim=-1)[0].cpu()
        return self._prompt_embeddings[prompt]

    @torch.inference_mode()
    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        """Score frames for many specs at once, encoding each frame once.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.
            specs: Prompts and function of each reward, each of single frames.

        Returns:
            Rewards, float32 (N, number of specs).

        Raises:
            UserError: The request is none (see `check_request`), a prompt is longer than the model's context, or a goal and its
                baseline have the same embedding.
        """
        check_request(frames, specs)
        if not len(frames):
            return np.zeros((0, len(specs)), np.float32)
        own = {spec.function.name for spec in specs if isinstance(spec.function, ModelColumn)}
        images_nd, told = self._embed_and_tell(frames, own)
        rewards = np.empty((len(frames), len(specs)), np.float32)
        by_alpha = [column for column, spec in enumerate(specs) if spec.function is None]
        if by_alpha:
            rewards[:, by_alpha] = self._goal_baseline(images_nd, [specs[column] for column in by_alpha])
        for column, spec in enumerate(specs):
            if isinstance(spec.function, ModelColumn) and spec.function.name in told:
                rewards[:, column] = told[spec.function.name]
            elif isinstance(spec.function, FrameReward):
                rewards[:, column] = rewards_of(spec.function, images_nd.numpy(), self._texts(spec))
        return rewards

    def _goal_baseline(self, images_nd: torch.Tensor, specs: Sequence[RewardSpec]) -> np.ndarray:
        goals_sd = torch.stack([self._embed(spec.goal_prompts) for spec in specs])
        baselines_sd = torch.stack([self._embed(spec.baseline_prompts) for spec in specs])
        alphas_s = torch.tensor([spec.alpha for spec in specs])
        # A few specs at a time, because arrays of images x specs x dimensions are in memory at once. A spec's reward does not
        # depend on the other specs.
        part = max(1, _NUMBERS_AT_ONCE // images_nd.numel())
        parts = zip(goals_sd.split(part), baselines_sd.split(part), alphas_s.split(part), strict=True)
        rewards: np.ndarray = torch.cat([goal_baseline_reward(images_nd, *each) for each in parts], dim=1).numpy()
        return rewards

    def _texts(self, spec: RewardSpec) -> Texts:
        goal, baseline = (self._embed(prompts).numpy() for prompts in (spec.goal_prompts, spec.baseline_prompts))
        return Texts(
            goal,
            baseline,
            lambda text: self.encode_prompt(text).numpy(),
            float(self.network.logit_scale.detach().float().exp()),
        )

    def _embed(self, prompts: tuple[str, ...]) -> torch.Tensor:
        return prompt_embedding(torch.stack([self.encode_prompt(prompt) for prompt in prompts]))

    def visible(self, frames: np.ndarray) -> np.ndarray:
        """Return frames as the model sees them: resized, and padded with bars if they are not square.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.

        Returns:
            uint8 (N, size, size, 3).
        """
        return self.source.preprocessing.visible(frames)
