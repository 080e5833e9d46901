"""ONNX Runtime behind two calls, `OnnxPolicy.act` and `OnnxReward.score`: buffers bound once, nothing allocated after.

At start-up the parity vectors of the bundle are replayed through these very calls on this machine's own CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from export.bound_graph import BoundGraph
from export.bundle import Bundle, read_bundle
from export.manifest import MAX_FILE_SIZE, BundleError, variant_file
from export.parity import ParityVectors
from export.signature import PublicKey
from robots.spec import RobotSpec, ToolkitError


class ParityError(ToolkitError):
    """ONNX Runtime does not compute here what torch computed at export: the policy must not run."""


@dataclass(frozen=True)
class ParityErrors:
    """Greatest differences between ONNX Runtime on this machine and torch at export, over the parity vectors."""

    policy: float  # max |onnx - torch|, of actions
    reward: float  # the same of rewards


class OnnxPolicy:
    """A policy: observation in, action out. One thread drives it; calls share buffers.

    `act` is for everyone. A loop that counts microseconds writes `observation_buffer`, calls `run()` and reads
    `action_buffer`, which is what `act` does after checking a shape.
    """

    spec: RobotSpec | None  # the robot it was made for; None for a foreign ONNX file
    history: int  # observations it is fed at once, 1 for most; it keeps them itself
    observation_buffer: np.ndarray  # (obs_dim,) float32, the newest observation; a view into the network's input
    action_buffer: np.ndarray  # (act_dim,) float32, the network's output
    run: Callable[[], None]  # one step: `action_buffer` from `observation_buffer` and what is remembered

    def __init__(self, source: Bundle | str | Path | bytes, variant: str | None = None) -> None:
        """Loads the network and binds its buffers.

        Args:
            source: A bundle, the path of one, the path of a lone `policy.onnx`, or the bytes of one.
            variant: Of a bundle, which smaller copy of the policy; None for the policy itself.

        Raises:
            BundleError: The bundle is damaged or has no such variant, or the file is no policy of ours.
        """
        graph, where = _source(source, "policy.onnx", variant)
        self._graph = BoundGraph(graph, where)
        self.spec, self.history = self._graph.spec, self._graph.history
        width, self.act_dim = _widths(self._graph, ("observation",), "action", where)
        self.obs_dim = width // self.history
        self._window = self._graph.inputs["observation"][0]  # (history * obs_dim,) oldest first
        self.observation_buffer = self._window[width - self.obs_dim :]
        self.action_buffer = self._graph.output[0]
        self._older, self._newer = self._window[: -self.obs_dim], self._window[self.obs_dim :]
        self._fresh = True
        self._expected = (self.obs_dim,)
        self._finite = np.zeros(self.obs_dim, dtype=bool)
        # An attribute, so that a policy without memory pays nothing for those with one
        self.run = self._graph.run if not self.remembers else self._run_remembering

    @property
    def provider(self) -> str:
        """What computes, as the session itself says; being asked for a GPU is not the same as getting one."""
        return self._graph.session.get_providers()[0]

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself: the customary keys, and `gcl.contract`."""
        return self._graph.metadata

    @property
    def remembers(self) -> bool:
        """Whether an action depends on more than the last observation, so that `reset` matters."""
        return self.history > 1 or bool(self._graph.states)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """One action.

        Args:
            observation: (obs_dim,) float32 or float64.

        Returns:
            (act_dim,) float32 in [-1, 1], a view of a buffer that the next call overwrites: copy it to keep it.

        Raises:
            BundleError: The observation has a wrong shape.
        """
        if observation.shape != self._expected:
            raise BundleError(f"observation of shape {observation.shape}; this policy takes {self._expected}")
        if observation is not self.observation_buffer:
            self.observation_buffer[:] = observation
        self.run()
        return self.action_buffer

    __call__ = act

    def reset(self) -> None:
        """Forgets all that came before: to be called whenever an episode, or control of the robot, begins."""
        self._graph.reset()
        self._fresh = True

    def _run_remembering(self) -> None:
        np.isfinite(self.observation_buffer, out=self._finite)
        if not self._finite.all():
            # ONNX Runtime's GRU and LSTM make ordinary numbers of a NaN, and it would be remembered: so it is neither
            # shown to the network nor kept, and comes out as the NaN that a network without memory would make of it.
            self.action_buffer.fill(np.nan)
            return
        if self._fresh:
            self._older.reshape(-1, self.obs_dim)[:] = self.observation_buffer
            self._fresh = False
        self._graph.run()
        # Moves all observations one place on, in one dimension and so without a copy between; the newest stays, too
        np.copyto(self._older, self._newer)


class OnnxReward:
    """The learned reward of one step. One thread drives it; calls share buffers."""

    def __init__(self, source: Bundle | str | Path | bytes) -> None:
        """Loads the network and binds its buffers.

        Args:
            source: A bundle, the path of one, the path of a lone `reward.onnx`, or the bytes of one.

        Raises:
            BundleError: The bundle is damaged, or the file is no reward of ours.
        """
        graph, where = _source(source, "reward.onnx")
        self._graph = BoundGraph(graph, where)
        self.spec: RobotSpec | None = self._graph.spec  # the robot it was made for; None for a foreign ONNX file
        self.uses_next_observation = "next_observation" in self._graph.inputs
        names = ("observation", "action", "next_observation")[: 3 if self.uses_next_observation else 2]
        self.obs_dim, _ = _widths(self._graph, names, "reward", where)
        self.act_dim = self._graph.inputs["action"].shape[1]
        self._buffers = [self._graph.inputs[name][0] for name in names]
        self._output = self._graph.output
        self._run = self._graph.run

    def score(self, observation: np.ndarray, action: np.ndarray, next_observation: np.ndarray | None = None) -> float:
        """The reward of one step.

        Args:
            observation: (obs_dim,) before the step.
            action: (act_dim,) dimensionless.
            next_observation: (obs_dim,) after the step; needed if `uses_next_observation`, else not looked at.

        Returns:
            The reward.

        Raises:
            BundleError: Something has a wrong shape, or `next_observation` is missing.
        """
        given = (observation, action, next_observation)
        for value, buffer in zip(given, self._buffers, strict=False):
            if value is None or value.shape != buffer.shape:
                came = "nothing" if value is None else f"shape {value.shape}"
                raise BundleError(
                    f"{came} came where this reward takes {buffer.shape}: observation, action, next_observation"
                )
            buffer[:] = value
        self._run()
        return self._output.item()


def load_bundle(
    path: str | Path, trusted: Sequence[PublicKey] | None = None, variant: str | None = None
) -> tuple[Bundle, OnnxPolicy, OnnxReward]:
    """Reads a bundle, checks every byte, and replays its parity vectors on this machine.

    Args:
        path: The bundle's folder.
        trusted: Whose signature will do; None asks for none, and an empty sequence refuses everything.
        variant: "float16" or "int8" for a smaller copy of the policy; None for the policy itself.

    Returns:
        The bundle, its policy and its reward, ready to run.

    Raises:
        BundleError: The bundle is damaged, of a newer format, unsigned or signed by someone else, has no such variant,
            or its networks are not for the robot it names.
        ParityError: This machine does not compute what torch computed.
    """
    bundle = read_bundle(path, trusted)
    policy, reward = OnnxPolicy(bundle, variant), OnnxReward(bundle)
    for name, network in (("policy.onnx", policy), ("reward.onnx", reward)):
        if network.spec != bundle.spec:
            raise BundleError(f"{path}: {name} was made for another robot than the manifest names ({bundle.spec.name})")
    manifest = bundle.manifest
    if policy.remembers and manifest.parity_sequence == 1:
        raise BundleError(f"{path}: its policy remembers, but its parity vectors are single steps, which prove nothing")
    errors = parity_errors(policy, reward, bundle.parity, manifest.parity_sequence)
    tolerance = manifest.parity_tolerance
    check_parity(errors, tolerance, str(path), tolerance if variant is None else manifest.variants[variant].tolerance)
    return bundle, policy, reward


def parity_errors(policy: OnnxPolicy, reward: OnnxReward, vectors: ParityVectors, sequence: int = 1) -> ParityErrors:
    """Replays parity vectors one at a time, as the control loop would.

    Args:
        policy: The policy; reset afterwards.
        reward: The reward.
        vectors: Inputs and what torch made of them.
        sequence: Steps from one reset of the policy to the next.

    Returns:
        The greatest differences; NaN where one is not finite.
    """
    actions = actions_in_order(policy, vectors.observation, sequence)
    following = vectors.next_observation if vectors.next_observation is not None else vectors.observation
    steps = zip(vectors.observation, vectors.action, following, strict=True)
    rewards = np.array([reward.score(*step) for step in steps])
    return ParityErrors(
        _greatest_difference(actions, vectors.policy_action), _greatest_difference(rewards, vectors.reward)
    )


def actions_in_order(policy: OnnxPolicy, observation: np.ndarray, sequence: int = 1) -> np.ndarray:
    """Actions for observations one after the other.

    Args:
        policy: The policy; reset before and afterwards.
        observation: (n, obs_dim) in order of time.
        sequence: Steps from one reset of the policy to the next.

    Returns:
        (n, act_dim)
    """
    actions = np.zeros((len(observation), policy.act_dim), dtype=np.float32)
    for i, row in enumerate(observation):
        if i % sequence == 0:
            policy.reset()
        actions[i] = policy.act(row)
    policy.reset()
    return actions


def check_parity(errors: ParityErrors, tolerance: float, where: str, policy_tolerance: float | None = None) -> None:
    """Refuses a bundle that this machine does not compute as torch did.

    Args:
        errors: What `parity_errors` measured.
        tolerance: Greatest |onnx - torch| allowed.
        where: Path for messages.
        policy_tolerance: The same for the policy alone; None for `tolerance`.

    Raises:
        ParityError: A difference is above the tolerance, or is NaN.
    """
    allowed = tolerance if policy_tolerance is None else policy_tolerance
    for role, worst, limit in (("policy", errors.policy, allowed), ("reward", errors.reward, tolerance)):
        if not worst <= limit:
            version = onnxruntime.__version__
            raise ParityError(
                f"{where}: {role} in ONNX Runtime {version} differs from torch by {worst:.3g}, allowed {limit:g}"
            )


def _greatest_difference(ours: np.ndarray, torch_output: np.ndarray) -> float:
    return float(np.abs(ours.astype(np.float64) - torch_output).max())


def _widths(graph: BoundGraph, inputs: tuple[str, ...], output: str, where: str) -> tuple[int, int]:
    """Lengths of the first input and of the output, once the names and the spec agree with them."""
    spec = graph.spec
    if set(graph.inputs) != set(inputs) or graph.output_name != output:
        raise BundleError(f"{where}: {list(graph.inputs)} -> {graph.output_name}, expected {list(inputs)} -> {output}")
    for name, buffer in graph.inputs.items():
        expected = spec and (spec.act_dim if name == "action" else spec.obs_dim * graph.history)
        if spec and buffer.shape[1] != expected:
            raise BundleError(f"{where}: {name} has {buffer.shape[1]} elements, {spec.name} has {expected}")
    if output == "action" and spec and graph.output.shape != (1, spec.act_dim):
        raise BundleError(f"{where}: action has shape {graph.output.shape}, {spec.name} takes (1, {spec.act_dim})")
    return graph.inputs[inputs[0]].shape[1], graph.output.shape[-1]


def _source(source: Bundle | str | Path | bytes, name: str, variant: str | None = None) -> tuple[bytes, str]:
    """The bytes of one network, and how to call it in messages."""
    if isinstance(source, bytes):
        return source, name
    if not isinstance(source, Bundle):
        path = Path(source)
        if path.is_file():
            if path.stat().st_size > MAX_FILE_SIZE:
                raise BundleError(f"{path}: {path.stat().st_size} bytes, at most {MAX_FILE_SIZE} are read")
            return path.read_bytes(), str(path)
        source = read_bundle(path)
    if name == "reward.onnx":
        return source.reward_onnx, str(source.path / name)
    return source.policy_of(variant), str(source.path / (name if variant is None else variant_file(variant)))
