"""Open CLIP models as reward models."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.goal_baseline import goal_baseline_reward, prompt_embedding
from vlm_rm_sweeps.rewards.preprocessing import Preprocessing
from vlm_rm_sweeps.rewards.reward_model import RewardSpec

_NUMBERS_AT_ONCE = 2**24
"""Of each of the few arrays of a reward's terms: 64 MB."""


def refuse_cut_prompt(prompt: str, tokenizer: Any, model_id: str) -> None:
    """UserError if the tokenizer would cut the prompt off: it does so silently, and the model would score another text."""
    context = tokenizer.context_length
    # With room to spare, whatever stands behind the context is padding, or would be cut.
    beyond = tokenizer([prompt], context_length=4 * context)[0, context:]
    if bool((beyond != beyond[-1]).any()):
        raise UserError(
            f"prompt {prompt!r} is longer than the {context} tokens that {model_id} reads: the rest would be ignored; shorten it"
        )


def check_prompts(spec: RewardSpec, tokenizer: Any, model_id: str) -> None:
    """UserError if the model would cut one of the prompts off, or reads goal and baseline as the same."""
    for prompt in (*spec.goal_prompts, *spec.baseline_prompts):
        refuse_cut_prompt(prompt, tokenizer, model_id)
    goal, baseline = (
        {tuple(tokens) for tokens in tokenizer(list(prompts)).tolist()}
        for prompts in (spec.goal_prompts, spec.baseline_prompts)
    )
    if goal == baseline:
        raise UserError(
            f"goal {list(spec.goal_prompts)!r} and baseline {list(spec.baseline_prompts)!r} are the same to {model_id}, which does not "
            "tell capitals or spaces apart: word them differently"
        )


class ClipRewardModel:
    """Any open_clip model behind the `RewardModel` protocol.

    Frames are encoded in micro-batches of one fixed shape, the last one padded: a processor picks its kernels, and so its
    rounding, by shape, and with a fixed shape a frame's reward is the same to the bit whatever it is batched with.

    `dtype` is what the image tower takes.
    """

    def __init__(
        self,
        model_id: str,
        model: torch.nn.Module,
        tokenizer: Any,
        preprocessing: Preprocessing,
        micro_batch: int,
        dtype: torch.dtype,
    ) -> None:
        self.model_id = model_id
        self.preprocessing = preprocessing
        self.micro_batch = micro_batch
        self._model: Any = model.eval()
        # Frames are stored channels last: on a CPU the convolutions are a third faster if they stay so.
        self._model.visual.to(memory_format=torch.channels_last)
        self._tokenizer = tokenizer
        self._prompt_embeddings: dict[str, torch.Tensor] = {}
        self._device, self._dtype = next(model.parameters()).device, dtype

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._model.parameters())

    @property
    def frame_format(self) -> FrameFormat:
        return self.preprocessing.frame_format

    @torch.inference_mode()
    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        """Unit embeddings float32 (N, D), on the CPU, of `uint8 (N, H, W, 3)` frames."""
        embeddings = []
        for start in range(0, len(frames), self.micro_batch):
            # One micro-batch at a time, preprocessing included, stays in the processor's cache.
            chunk = self.preprocessing(frames[start : start + self.micro_batch])
            padded = torch.zeros(self.micro_batch, *chunk.shape[1:]).contiguous(memory_format=torch.channels_last)
            padded[: len(chunk)] = chunk
            features = self._model.encode_image(padded.to(self._device, self._dtype))[: len(chunk)]
            embeddings.append(functional.normalize(features.float(), dim=-1).cpu())
        return torch.cat(embeddings)

    @torch.inference_mode()
    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """Unit embedding float32 (D,). Encoded alone, so that it does not depend on other prompts, and kept."""
        if prompt not in self._prompt_embeddings:
            refuse_cut_prompt(prompt, self._tokenizer, self.model_id)
            features = self._model.encode_text(self._tokenizer([prompt]).to(self._device))
            self._prompt_embeddings[prompt] = functional.normalize(features.float(), dim=-1)[0].cpu()
        return self._prompt_embeddings[prompt]

    @torch.inference_mode()
    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        images_nd = self.encode_frames(frames)
        goals_sd = torch.stack([self._embed(spec.goal_prompts) for spec in specs])
        baselines_sd = torch.stack([self._embed(spec.baseline_prompts) for spec in specs])
        alphas_s = torch.tensor([spec.alpha for spec in specs])
        # A part of the specs at a time: images x specs x dimensions are held at once. A spec's reward does not depend on the others.
        part = max(1, _NUMBERS_AT_ONCE // images_nd.numel())
        parts = zip(goals_sd.split(part), baselines_sd.split(part), alphas_s.split(part), strict=True)
        return torch.cat([goal_baseline_reward(images_nd, *each) for each in parts], dim=1).numpy()

    def _embed(self, prompts: tuple[str, ...]) -> torch.Tensor:
        return prompt_embedding(torch.stack([self.encode_prompt(prompt) for prompt in prompts]))
