"""Where the networks are: settings name it, and torch has to see it."""

from __future__ import annotations

import torch

from toolkit.settings import require


def device_of(name: str) -> torch.device:
    """The device that the setting `device` names.

    Args:
        name: "cpu", "cuda", "cuda:1".

    Returns:
        The device.

    Raises:
        ConfigError: A GPU is wanted, and torch sees none.
    """
    seen = name == "cpu" or torch.cuda.is_available()
    require(seen, f"device {name}: torch {torch.__version__} sees no GPU here; cpu works anywhere")
    return torch.device(name)
