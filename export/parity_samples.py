"""What a bundle is proven with: inputs, and what torch makes of them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from export.manifest import REWARD_PROBABILITIES
from export.metadata import MAX_HISTORY, PolicyMemory
from export.parity import ParityVectors, stack_history
from robots.spec import RobotSpec, ToolkitError

if TYPE_CHECKING:
    from export.to_onnx import ExportParts

MEMORY_SEQUENCE = 32  # parity vectors in a row from one reset of a policy that remembers
_MAX_REAL = 128  # demo steps among the parity vectors
_RANDOM = 64  # random vectors, within 5 sigma of the demos


class ExportError(ToolkitError):
    """A policy or reward that cannot be made into a bundle."""


def memory_of(policy: torch.nn.Module) -> PolicyMemory:
    """What a policy module remembers, from its attributes `history` (int) and `state_dims` (name -> (layers, width)).

    Raises:
        ExportError: An attribute is there but is no such thing.
    """
    history, dims = getattr(policy, "history", 1), getattr(policy, "state_dims", {})
    if type(history) is not int or not 1 <= history <= MAX_HISTORY:
        raise ExportError(f"policy.history is {history!r}; legal are 1 to {MAX_HISTORY}")
    try:
        states = {str(name): (int(layers), int(width)) for name, (layers, width) in dict(dims).items()}
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"policy.state_dims is {dims!r}; expected name -> (layers, width), such as h: (1, 64)"
        ) from error
    if not all(name.isidentifier() and min(shape) >= 1 for name, shape in states.items()):
        raise ExportError(f"policy.state_dims is {dims!r}; expected names and lengths of at least 1")
    return PolicyMemory(history, states)


def frozen(module: torch.nn.Module) -> torch.nn.Module:
    """A copy in evaluation mode, float32, on the CPU: exporting must not change what the trainer goes on with."""
    return copy.deepcopy(module).to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)


def checked_samples(parts: ExportParts) -> dict[str, np.ndarray]:
    """The reward's inputs by name, in its order."""
    given: dict[str, Any] = {"observation": parts.sample_observations, "action": parts.sample_actions}
    if getattr(parts.reward_module, "uses_next_observation", False):
        given["next_observation"] = getattr(parts, "sample_next_observations", None)
    spec, n = parts.spec, max(len(parts.sample_observations), 1)
    checked = {}
    for name, value in given.items():
        width = spec.act_dim if name == "action" else spec.obs_dim
        array = np.ascontiguousarray([] if value is None else value, dtype=np.float32)
        if array.shape != (n, width):
            raise ExportError(f"sample {name} has shape {array.shape}, expected ({n}, {width}) for {spec.name}")
        if not np.isfinite(array).all():
            raise ExportError(f"sample {name} holds NaN or infinity; legal are finite numbers")
        checked[name] = array
    return checked


def parity_vectors(
    policy: torch.nn.Module, reward: torch.nn.Module, samples: dict[str, np.ndarray], spec: RobotSpec
) -> ParityVectors:
    """Demo steps, random ones within 5 sigma, and zeros: zeros alone pass by coincidence, demos alone are tame.

    A policy that remembers is given them in a row, and is reset after each `MEMORY_SEQUENCE` of them.
    """
    rng = np.random.default_rng(0)
    rows = np.unique(np.linspace(0, len(samples["observation"]) - 1, _MAX_REAL).round().astype(int))
    feeds = {}
    for name, array in samples.items():
        wide = array.mean(0, dtype=np.float64) + array.std(0, dtype=np.float64) * rng.uniform(
            -5, 5, (_RANDOM, array.shape[1])
        )
        random = rng.uniform(-1, 1, wide.shape) if name == "action" else wide
        feeds[name] = np.concatenate([array[rows], random, np.zeros((1, array.shape[1]))]).astype(np.float32)
    action = policy_actions(policy, feeds["observation"], spec.act_dim)
    if np.abs(action).max() > 1.0:
        raise ExportError(
            f"policy put out an action of {np.abs(action).max():g}; legal is [-1, 1]: clip inside the module"
        )
    return ParityVectors(
        policy_action=action, reward=run_module(reward, list(feeds.values()), (len(action),), "reward"), **feeds
    )


def policy_actions(policy: torch.nn.Module, observation: np.ndarray, act_dim: int) -> np.ndarray:
    """What torch makes of observations.

    Args:
        policy: The module; one that remembers is given them in order, and reset after each `MEMORY_SEQUENCE`.
        observation: (n, obs_dim) float32.
        act_dim: Elements of an action.

    Returns:
        (n, act_dim) float32.

    Raises:
        ExportError: It fails on them, or puts out another shape or numbers that are not finite.
    """
    memory = memory_of(policy)
    feed = observation if memory.history == 1 else stack_history(observation, memory.history, MEMORY_SEQUENCE)
    if not memory.states:
        return run_module(policy, [feed], (len(feed), act_dim), "policy")
    stepper = _Stepper(policy, memory)
    actions = []
    for i in range(len(feed)):
        if i % MEMORY_SEQUENCE == 0:
            stepper.states = [torch.zeros(layers, 1, width) for layers, width in memory.states.values()]
        actions.append(run_module(stepper, [feed[i : i + 1]], (1, act_dim), "policy"))
    return np.concatenate(actions)


class _Stepper(torch.nn.Module):
    """A recurrent policy seen as observation -> action; it carries the state along."""

    def __init__(self, policy: torch.nn.Module, memory: PolicyMemory) -> None:
        super().__init__()
        self.policy, self.names = policy, tuple(memory.states)
        self.states: list[torch.Tensor] = []

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        action, *after = self.policy(observation, *self.states)
        shapes = [tuple(state.shape) for state in self.states]
        if [tuple(state.shape) for state in after] != shapes:
            raise ExportError(f"policy put out states of {[tuple(s.shape) for s in after]}, it takes {shapes}")
        self.states = after
        return action


def run_module(module: torch.nn.Module, feeds: list[np.ndarray], shape: tuple[int, ...], role: str) -> np.ndarray:
    """A module's output for `feeds`, float32; ExportError if it fails, or is not of `shape` or not finite."""
    try:
        with torch.inference_mode():
            output = module(*[torch.from_numpy(feed) for feed in feeds]).numpy()
    except (RuntimeError, TypeError, ValueError) as error:  # torch's words for a shape or a number of inputs
        raise ExportError(
            f"{role} fails on inputs of shapes {[f.shape for f in feeds]}: {' '.join(str(error).split())}"
        ) from error
    if output.shape != shape:
        raise ExportError(f"{role} put out shape {output.shape}, expected {shape}")
    if not np.isfinite(output).all():
        raise ExportError(
            f"{role} put out NaN or infinity for {int((~np.isfinite(output)).sum())} numbers; legal are finite ones"
        )
    return output.astype(np.float32)


def reward_quantiles(reward: torch.nn.Module, samples: dict[str, np.ndarray]) -> dict[str, float]:
    """Quantiles of the demos' per-step reward, by probability as text."""
    scores = run_module(reward, list(samples.values()), (len(samples["observation"]),), "reward").astype(np.float64)
    return {
        str(p): float(q) for p, q in zip(REWARD_PROBABILITIES, np.quantile(scores, REWARD_PROBABILITIES), strict=True)
    }
