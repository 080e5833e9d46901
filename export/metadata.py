"""What each ONNX file says about itself, so that it can be used alone, in any ONNX runtime, by any controller.

Two layers: the keys that mjlab and BeyondMimic made customary (CSV, here at full precision), and one lossless JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from export.manifest import BundleError
from robots.spec import ActionTerm, ObservationTerm, RobotSpec, RobotSpecError, spec_from_dict

CONTRACT_KEY = "gcl.contract"
CONTRACT_VERSION = 1
_ABSORBING_KEY = "absorbing_reward"
MAX_HISTORY = 1000  # observations stacked in one input


@dataclass(frozen=True)
class PolicyMemory:
    """What a policy remembers from one step to the next; by default nothing."""

    history: int = (
        1  # observations stacked in its input, oldest first, the first of an episode standing for those before
    )
    states: Mapping[str, tuple[int, int]] = field(
        default_factory=dict
    )  # name, such as "h" -> (layers, width); zero first

    def contract(self) -> dict[str, Any]:
        """What the lossless key says about it."""
        return {
            "history": self.history,
            "history_rule": "observation holds the last `history`, oldest first; after a reset, the first repeated",
            "states": {name: [layers, 1, width] for name, (layers, width) in self.states.items()},
            "state_rule": "feed each <name>_out back as <name>_in on the next step; zeros after a reset",
        }


def policy_metadata(spec: RobotSpec, facts: Mapping[str, Any], memory: PolicyMemory | None = None) -> dict[str, str]:
    """Metadata of `policy.onnx`.

    The customary `observation_terms_history_length` stays 0 for a policy with history: by custom one stacks term by
    term, here whole observations, and who knows only the custom must fail on the length, not misread the input.

    Args:
        spec: The robot.
        facts: JSON-ready facts of the export for the lossless key: settings, demos, versions, ...
        memory: What the policy remembers; None = nothing.

    Returns:
        ONNX metadata properties. `joint_*`, `default_joint_pos` and `action_scale` have one entry an action element,
        `observation_*` one a term; numbers are `repr(float)`, so `float()` gives back every bit.
    """
    memory = memory or PolicyMemory()
    inputs = ("observation", *(f"{name}_in" for name in memory.states))
    kept = {} if memory == PolicyMemory() else memory.contract()
    return {
        "run_path": "local",
        "joint_names": ",".join(spec.action_names),
        "joint_stiffness": _csv(term.kp or 0.0 for term in spec.action),
        "joint_damping": _csv(term.kd or 0.0 for term in spec.action),
        "default_joint_pos": _csv(_default_position(spec, term) for term in spec.action),
        "command_names": "",
        "observation_names": ",".join(term.name for term in spec.observation),
        "observation_terms_scale": ",".join(_term_scale(term) for term in spec.observation),
        "observation_terms_flatten_history_dim": ",".join("1" for _ in spec.observation),
        "observation_terms_history_length": ",".join("0" for _ in spec.observation),
        "observation_terms_clip": ",".join("-inf;inf" for _ in spec.observation),
        "action_scale": _csv(term.scale for term in spec.action),
        CONTRACT_KEY: _contract(spec, "policy", inputs, "action", {**kept, **facts}),
    }


def reward_metadata(
    spec: RobotSpec, inputs: tuple[str, ...], facts: Mapping[str, Any], absorbing: float | None = None
) -> dict[str, str]:
    """Metadata of `reward.onnx`.

    Args:
        spec: The robot.
        inputs: Names of the graph's inputs, in order.
        facts: As for `policy_metadata`, with the quantiles of the demos' reward.
        absorbing: Reward of each step after a task has ended for good; None where tasks do not.

    Returns:
        ONNX metadata properties.
    """
    after = {} if absorbing is None else {_ABSORBING_KEY: absorbing}
    return {CONTRACT_KEY: _contract(spec, "reward", inputs, "reward", {**facts, **after})}


def absorbing_reward_of(metadata: Mapping[str, str]) -> float | None:
    """Reward of each step after a task has ended for good, by the metadata of a `reward.onnx`; None if it says none."""
    if CONTRACT_KEY not in metadata:
        return None
    value = contract_from_metadata(metadata, "reward.onnx").get(_ABSORBING_KEY)
    if value is None or (type(value) is float and math.isfinite(value)):
        return value
    raise BundleError(f"reward.onnx: its {_ABSORBING_KEY} is {value!r}; expected a finite number")


def contract_from_metadata(metadata: Mapping[str, str], where: str) -> dict[str, Any]:
    """The lossless key, parsed.

    Args:
        metadata: The file's metadata properties.
        where: Path for messages.

    Returns:
        The contract, of a version that this gcl reads.

    Raises:
        BundleError: No contract of ours inside, a newer one, or a damaged one.
    """
    if CONTRACT_KEY not in metadata:
        raise BundleError(f"{where}: has no {CONTRACT_KEY!r} metadata, so it was not written by `gcl export`")
    try:
        contract = json.loads(metadata[CONTRACT_KEY])
        version = contract["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{where}: its {CONTRACT_KEY!r} metadata is damaged: {error}") from error
    if version != CONTRACT_VERSION:
        raise BundleError(f"{where}: contract version {version!r}; this gcl reads {CONTRACT_VERSION}")
    return contract


def spec_of(contract: Mapping[str, Any], where: str) -> RobotSpec:
    """The robot a contract is for, bit for bit as it was at export; BundleError if that is damaged."""
    try:
        spec, recorded = spec_from_dict(contract["spec"]), contract["spec_sha256"]
        if spec.sha256 != recorded:
            raise BundleError(f"{where}: robot spec hashes to {spec.sha256[:12]}, the contract says {recorded[:12]}")
    except (ValueError, KeyError, TypeError, RecursionError, RobotSpecError) as error:
        raise BundleError(f"{where}: its {CONTRACT_KEY!r} metadata is damaged: {error}") from error
    return spec


def history_of(contract: Mapping[str, Any], where: str) -> int:
    """How many observations a policy's input stacks; BundleError if that is no such number."""
    history = contract.get("history", 1)
    if type(history) is not int or not 1 <= history <= MAX_HISTORY:
        raise BundleError(f"{where}: history is {history!r}, legal are 1 to {MAX_HISTORY}")
    return history


def spec_from_metadata(metadata: Mapping[str, str], where: str) -> RobotSpec:
    """The robot an ONNX file was made for; as `spec_of` its `contract_from_metadata`."""
    return spec_of(contract_from_metadata(metadata, where), where)


def _contract(spec: RobotSpec, role: str, inputs: tuple[str, ...], output: str, facts: Mapping[str, Any]) -> str:
    contract = {
        "version": CONTRACT_VERSION,
        "role": role,
        "inputs": inputs,
        "output": output,
        "spec": spec.to_dict(),
        "spec_sha256": spec.sha256,
        "control_dt": spec.control_dt,
        "observation_elements": spec.observation_names,
        "observation_rule": "transform((raw - offset) * scale) per element as in spec.observation; not in the graph",
        "normaliser_in_graph": True,
        "action_clip": [-1.0, 1.0],
        "action_clip_in_graph": True,
        "action_scale_in_graph": False,
        "command_rule": "clip(offset + scale * action, lower, upper) per element as in spec.action; not in the graph",
        **facts,
    }
    return json.dumps(contract, allow_nan=False)


def _csv(values: Any) -> str:
    return ",".join(repr(float(value)) for value in values)


def _term_scale(term: ObservationTerm) -> str:
    """One number where the whole term has one scale, which is all that customary readers know; else one an element."""
    distinct = set(term.scale)
    return repr(float(term.scale[0])) if len(distinct) == 1 else ";".join(repr(float(value)) for value in term.scale)


def _default_position(spec: RobotSpec, term: ActionTerm) -> float:
    """Customary readers compute default_joint_pos + action_scale * action, so for position drives it is the offset."""
    return term.offset if term.kind == "position" else dict(spec.default_pose).get(term.actuator, 0.0)
