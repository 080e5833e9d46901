"""A GPU that is not there is refused in a sentence, whoever wants it."""

import pytest
import torch

from toolkit.device import device_of
from toolkit.settings import ConfigError


def test_a_device_is_there_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_of("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device cuda:1: torch .* sees no GPU here"):
        device_of("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("cuda:1") == torch.device("cuda", 1)
