"""Small policies that remember: stacked observations, GRU, LSTM."""

import torch

from robots.spec import RobotSpec


class Stacked(torch.nn.Module):
    """Looks at the last three observations."""

    history = 3

    def __init__(self, spec: RobotSpec) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3 * spec.obs_dim, 16), torch.nn.Tanh(), torch.nn.Linear(16, spec.act_dim)
        )

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.net(observation).clamp(-1, 1)


class Recurrent(torch.nn.Module):
    """Layers of GRU or LSTM, named and shaped as rsl_rl does, then a linear one; `history` for both at once."""

    def __init__(self, spec: RobotSpec, kind: str, layers: int = 1, history: int = 1) -> None:
        super().__init__()
        self.history = history
        cell = torch.nn.GRU if kind == "gru" else torch.nn.LSTM
        self.state_dims = dict.fromkeys(("h",) if kind == "gru" else ("h", "c"), (layers, 8))
        self.cell = cell(history * spec.obs_dim, 8, layers)
        self.out = torch.nn.Linear(8, spec.act_dim)

    def forward(self, observation: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        after, new = self.cell(observation.unsqueeze(0), states[0] if len(states) == 1 else states)
        new = (new,) if isinstance(new, torch.Tensor) else new
        return (2 * self.out(after.squeeze(0))).clamp(-1, 1), *new
