"""A learned reward as the ONNX file it was exported to, for whatever here expects a network."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from export.metadata import absorbing_reward_of
from export.onnx_guard import check_onnx


class ExportedReward(torch.nn.Module):
    """Runs in ONNX Runtime on the CPU; nothing of it can be learned any more."""

    def __init__(self, raw: bytes) -> None:
        """Takes the file as it is.

        Args:
            raw: The bytes of a file with inputs `observation`, `action`, as `export.to_onnx` writes it.

        Raises:
            BundleError: It is none, or one that needs anything but itself. A checkpoint from a stranger may hold it.
        """
        super().__init__()
        check_onnx(raw, "reward.onnx")
        self.onnx = raw
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        after = absorbing_reward_of(self.session.get_modelmeta().custom_metadata_map)
        self.absorbing = None if after is None else torch.tensor(after)  # () reward of a step after the end of a task

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Reward (...) for `observation` (..., obs_dim) and `action` (..., act_dim), on the observation's device."""
        feeds = {
            name: np.ascontiguousarray(x.detach().cpu().numpy().reshape(-1, x.shape[-1]), dtype=np.float32)
            for name, x in (("observation", observation), ("action", action))
        }
        (scores,) = self.session.run(None, feeds)
        return torch.from_numpy(np.asarray(scores)).reshape(observation.shape[:-1]).to(observation.device)

    def __deepcopy__(self, memo: object) -> ExportedReward:
        """Another session on the same bytes: a session cannot be copied."""
        return ExportedReward(self.onnx)
