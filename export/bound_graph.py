"""An ONNX network in ONNX Runtime, its inputs and outputs numpy buffers that are bound once.

Recurrent state is bound twice, crosswise: what one run writes the next one reads, and nothing is copied or allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnxruntime

from export.manifest import BundleError
from export.metadata import CONTRACT_KEY, contract_from_metadata, history_of, spec_of
from export.onnx_guard import check_onnx
from robots.spec import RobotSpec

_MAX_ELEMENTS = 2**22  # of one input or output; a control policy has some hundred


class BoundGraph:
    """A session for one observation at a time. `run` computes from the buffers and into them."""

    spec: RobotSpec | None  # the robot it was made for; None for a foreign ONNX file
    metadata: dict[str, str]  # what the file says of itself
    history: int  # observations stacked in the input
    inputs: dict[str, np.ndarray]  # name -> (1, length) float32, states left out
    output: np.ndarray  # (1, length) or (1,) float32
    output_name: str
    states: tuple[str, ...]  # such as ("h", "c"): inputs h_in, c_in continue as outputs h_out, c_out
    run: Callable[[], None]

    def __init__(self, graph: bytes, where: str) -> None:
        """Loads a network.

        Args:
            graph: Bytes of an ONNX file.
            where: Path for messages.

        Raises:
            BundleError: ONNX Runtime must not or cannot load it, or its inputs and outputs are not as expected.
        """
        check_onnx(graph, where)
        try:
            self.session = onnxruntime.InferenceSession(graph, _session_options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common base below Exception
            raise BundleError(f"{where}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from error
        self.session.disable_fallback()
        self.metadata = dict(self.session.get_modelmeta().custom_metadata_map)
        contract = contract_from_metadata(self.metadata, where) if CONTRACT_KEY in self.metadata else None
        self.spec = None if contract is None else spec_of(contract, where)
        self.history = 1 if contract is None else history_of(contract, where)
        given, made = self.session.get_inputs(), self.session.get_outputs()
        pairs = _state_pairs([node.name for node in given], [node.name for node in made], where)
        self.states = tuple(source.removesuffix("_in") for source, _ in pairs)
        self.inputs = {node.name: _zeros(node, where) for node in given if node.name not in dict(pairs)}
        (answer, *_) = [node for node in made if node.name not in dict(pairs).values()] or [None]
        if answer is None:
            raise BundleError(f"{where}: puts out nothing but its state")
        self.output_name = answer.name
        self.output = np.zeros(1, dtype=np.float32) if len(answer.shape) == 1 else _zeros(answer, where)
        shapes = {node.name: _state_shape(node, where) for node in given if node.name in dict(pairs)}
        self._buffers = [{name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()} for _ in range(2)]
        self._bindings = [self._bind(pairs, *self._buffers)]
        if pairs:
            self._bindings.append(self._bind(pairs, *reversed(self._buffers)))
        self._turn = 0
        # Both are attributes and not methods so that a network without state pays nothing for those with one
        self.run = self._run_in_turns if pairs else self._direct_run()
        self._warm_up(where)

    def reset(self) -> None:
        """Forgets: every state is zero again."""
        for buffers in self._buffers:
            for buffer in buffers.values():
                buffer.fill(0.0)
        self._turn = 0

    def _direct_run(self) -> Callable[[], None]:
        run, binding = self.session.run_with_iobinding, self._bindings[0]

        def run_bound() -> None:  # quicker than functools.partial, whose call the interpreter cannot inline
            run(binding)

        return run_bound

    def _run_in_turns(self) -> None:
        self.session.run_with_iobinding(self._bindings[self._turn])
        self._turn ^= 1

    def _warm_up(self, where: str) -> None:
        """The first runs plan memory; the control loop must not pay for it."""
        try:
            for _ in self._bindings:
                self.run()
        except Exception as error:  # as above; such as a state that comes out in another shape than it went in
            raise BundleError(f"{where}: ONNX Runtime cannot run it: {str(error).splitlines()[0]}") from error
        self.reset()

    def _bind(
        self, pairs: list[tuple[str, str]], before: dict[str, np.ndarray], after: dict[str, np.ndarray]
    ) -> onnxruntime.IOBinding:
        binding = self.session.io_binding()
        for name, buffer in (*self.inputs.items(), *before.items()):
            binding.bind_cpu_input(name, buffer)
        outputs = {self.output_name: self.output, **{target: after[source] for source, target in pairs}}
        for name, buffer in outputs.items():
            binding.bind_output(name, "cpu", 0, np.float32, list(buffer.shape), buffer.ctypes.data)
        return binding


def _state_pairs(inputs: list[str], outputs: list[str], where: str) -> list[tuple[str, str]]:
    """(input, output) of each recurrent state, by rsl_rl's names: h_in and h_out, c_in and c_out."""
    pairs = [(name, f"{name.removesuffix('_in')}_out") for name in inputs if name.endswith("_in")]
    for source, target in pairs:
        if target not in outputs:
            raise BundleError(f"{where}: has the state {source}, but no {target} to go on with; outputs: {outputs}")
    return pairs


def _state_shape(node: onnxruntime.NodeArg, where: str) -> tuple[int, ...]:
    """A state for one robot: the batch, if it is open, is 1."""
    lengths = [1 if not isinstance(length, int) else length for length in node.shape]
    unknown = sum(not isinstance(length, int) for length in node.shape)
    if node.type != "tensor(float)" or unknown > 1 or not 0 < math.prod(lengths) <= _MAX_ELEMENTS:
        raise BundleError(
            f"{where}: state {node.name} is {node.type} {node.shape}, expected float32 with at most one open length"
        )
    return tuple(lengths)


def _zeros(node: onnxruntime.NodeArg, where: str) -> np.ndarray:
    """(1, length) float32 for an input or output of one robot."""
    shape = node.shape
    whole = node.type == "tensor(float)" and len(shape) == 2 and isinstance(shape[1], int)
    if not whole or not 0 < shape[1] <= _MAX_ELEMENTS:
        raise BundleError(f"{where}: {node.name} is {node.type} {shape}, expected float32 [batch, length]")
    return np.zeros((1, shape[1]), dtype=np.float32)


def _session_options() -> onnxruntime.SessionOptions:
    """One thread that sleeps when idle: the default, all cores spinning, starves the control loop it should serve."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # what was checked, whatever it looks like
    options.log_severity_level = 3  # errors only
    return options
