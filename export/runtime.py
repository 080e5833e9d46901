"""ONNX Runtime behind two calls, `OnnxPolicy.act` and `OnnxReward.score`: buffers bound once, nothing allocated after.

At start-up the parity vectors of the bundle are replayed through these very calls on this machine's own CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from export.bundle import Bundle, read_bundle
from export.manifest import MAX_FILE_SIZE, BundleError
from export.metadata import CONTRACT_KEY, spec_from_metadata
from export.parity import ParityVectors
from robots.spec import RobotSpec, ToolkitError


class ParityError(ToolkitError):
    """ONNX Runtime does not compute here what torch computed at export: the policy must not run."""


@dataclass(frozen=True)
class ParityErrors:
    """Greatest differences between ONNX Runtime on this machine and torch at export, over the parity vectors."""

    policy: float  # max |onnx - torch|, of actions
    reward: float  # the same of rewards


class OnnxPolicy:
    """A policy: observation in, action out. One thread drives it; calls share buffers."""

    def __init__(self, source: Bundle | str | Path | bytes) -> None:
        """Loads the network and binds its buffers.

        Args:
            source: A bundle, the path of one, the path of a lone `policy.onnx`, or the bytes of one.

        Raises:
            BundleError: The bundle is damaged, or the file is no policy of ours.
        """
        graph, where = _source(source, "policy.onnx")
        self._graph = _BoundGraph(graph, where)
        self.spec: RobotSpec | None = self._graph.spec  # the robot it was made for; None for a foreign ONNX file
        self.obs_dim, self.act_dim = self._graph.widths(("observation",), "action", where)
        self._observation = self._graph.inputs["observation"][0]
        self._action = self._graph.output[0]
        self._expected = (self.obs_dim,)
        # (obs_dim,) float32, the network's own input: an observation assembled here need not be copied.
        self.observation_buffer = self._observation

    @property
    def provider(self) -> str:
        """What computes, as the session itself says; being asked for a GPU is not the same as getting one."""
        return self._graph.session.get_providers()[0]

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
            self._observation[:] = observation
        self._graph.run()
        return self._action


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
        self._graph = _BoundGraph(graph, where)
        self.spec: RobotSpec | None = self._graph.spec  # the robot it was made for; None for a foreign ONNX file
        self.uses_next_observation = "next_observation" in self._graph.inputs
        names = ("observation", "action", "next_observation")[: 3 if self.uses_next_observation else 2]
        self.obs_dim, _ = self._graph.widths(names, "reward", where)
        self.act_dim = self._graph.inputs["action"].shape[1]
        self._buffers = [self._graph.inputs[name][0] for name in names]
        self._output = self._graph.output

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
        self._graph.run()
        return self._output.item()


class _BoundGraph:
    """A session whose inputs and output are numpy buffers, bound once."""

    def __init__(self, graph: bytes, where: str) -> None:
        try:
            self.session = onnxruntime.InferenceSession(graph, _session_options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common base below Exception
            raise BundleError(f"{where}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from error
        self.session.disable_fallback()
        self.inputs = {
            node.name: np.zeros((1, _width(node, where)), dtype=np.float32) for node in self.session.get_inputs()
        }
        outputs = self.session.get_outputs()
        self.output_name = outputs[0].name
        shape = (1,) if len(outputs[0].shape) == 1 else (1, _width(outputs[0], where))
        self.output = np.zeros(shape, dtype=np.float32)
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.spec = spec_from_metadata(metadata, where) if CONTRACT_KEY in metadata else None
        self._binding = self.session.io_binding()
        for name, buffer in self.inputs.items():
            self._binding.bind_cpu_input(name, buffer)
        self._binding.bind_output(
            self.output_name, "cpu", 0, np.float32, list(self.output.shape), self.output.ctypes.data
        )
        self.run()  # the first run plans memory; the control loop must not pay for it

    def run(self) -> None:
        self.session.run_with_iobinding(self._binding)

    def widths(self, inputs: tuple[str, ...], output: str, where: str) -> tuple[int, int]:
        """Lengths of the first input and of the output, once the names and the spec agree with them."""
        if set(self.inputs) != set(inputs) or self.output_name != output:
            raise BundleError(
                f"{where}: {list(self.inputs)} -> {self.output_name}, expected {list(inputs)} -> {output}"
            )
        for name, buffer in self.inputs.items():
            expected = self.spec and (self.spec.act_dim if name == "action" else self.spec.obs_dim)
            if self.spec and buffer.shape[1] != expected:
                raise BundleError(f"{where}: {name} has {buffer.shape[1]} elements, {self.spec.name} has {expected}")
        if output == "action" and self.spec and self.output.shape != (1, self.spec.act_dim):
            raise BundleError(
                f"{where}: action has shape {self.output.shape}, {self.spec.name} takes (1, {self.spec.act_dim})"
            )
        return self.inputs[inputs[0]].shape[1], self.output.shape[-1]


def load_bundle(path: str | Path) -> tuple[Bundle, OnnxPolicy, OnnxReward]:
    """Reads a bundle, checks every byte, and replays its parity vectors on this machine.

    Args:
        path: The bundle's folder.

    Returns:
        The bundle, its policy and its reward, ready to run.

    Raises:
        BundleError: The bundle is damaged, of a newer format, or its networks are not for the robot it names.
        ParityError: This machine does not compute what torch computed.
    """
    bundle = read_bundle(path)
    policy, reward = OnnxPolicy(bundle), OnnxReward(bundle)
    for name, network in (("policy.onnx", policy), ("reward.onnx", reward)):
        if network.spec != bundle.spec:
            raise BundleError(f"{path}: {name} was made for another robot than the manifest names ({bundle.spec.name})")
    check_parity(parity_errors(policy, reward, bundle.parity), bundle.manifest.parity_tolerance, str(path))
    return bundle, policy, reward


def parity_errors(policy: OnnxPolicy, reward: OnnxReward, vectors: ParityVectors) -> ParityErrors:
    """Replays parity vectors one at a time, as the control loop would.

    Args:
        policy: The policy.
        reward: The reward.
        vectors: Inputs and what torch made of them.

    Returns:
        The greatest differences; NaN where one is not finite.
    """
    actions = np.stack([policy.act(observation).copy() for observation in vectors.observation])
    following = vectors.next_observation if vectors.next_observation is not None else vectors.observation
    steps = zip(vectors.observation, vectors.action, following, strict=True)
    rewards = np.array([reward.score(*step) for step in steps])
    return ParityErrors(
        _greatest_difference(actions, vectors.policy_action), _greatest_difference(rewards, vectors.reward)
    )


def check_parity(errors: ParityErrors, tolerance: float, where: str) -> None:
    """Refuses a bundle that this machine does not compute as torch did.

    Args:
        errors: What `parity_errors` measured.
        tolerance: Greatest |onnx - torch| allowed.
        where: Path for messages.

    Raises:
        ParityError: A difference is above the tolerance, or is NaN.
    """
    for role, worst in (("policy", errors.policy), ("reward", errors.reward)):
        if not worst <= tolerance:
            version = onnxruntime.__version__
            raise ParityError(
                f"{where}: {role} in ONNX Runtime {version} differs from torch by {worst:.3g}, allowed {tolerance:g}"
            )


def _greatest_difference(ours: np.ndarray, torch_output: np.ndarray) -> float:
    return float(np.abs(ours.astype(np.float64) - torch_output).max())


def _session_options() -> onnxruntime.SessionOptions:
    """One thread that sleeps when idle: the default, all cores spinning, starves the control loop it should serve."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only
    return options


def _width(node: onnxruntime.NodeArg, where: str) -> int:
    shape = node.shape
    if node.type != "tensor(float)" or len(shape) != 2 or not isinstance(shape[1], int):
        raise BundleError(f"{where}: {node.name} is {node.type} {shape}, expected float32 [batch, length]")
    return shape[1]


def _source(source: Bundle | str | Path | bytes, name: str) -> tuple[bytes, str]:
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
    return (source.policy_onnx if name == "policy.onnx" else source.reward_onnx), str(source.path / name)
