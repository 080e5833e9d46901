import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demos.journal import read_episode
from demos.operators import PolicyOperator, RandomOperator, ScriptOperator
from demos.record import RecordingError, record_episode
from demos.recovery import journal_folder
from demos.store import DemoStore
from robots import RobotSpec
from robots.backend import BackendError
from robots.mock import MockBackend


class Scripted:
    """An operator that does what a function says, and remembers what it saw."""

    name = "scripted"

    def __init__(self, act: Callable[[int], np.ndarray]) -> None:
        self.act, self.seen, self.seeds = act, [], []

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)

    def __call__(self, observation: np.ndarray, step: int) -> np.ndarray:
        self.seen.append(observation)
        return self.act(step)


class Countdown:
    """A task environment that rewards the step number and ends after `steps`, as it is told."""

    def __init__(self, spec: RobotSpec, steps: int, terminates: bool) -> None:
        self.spec, self.steps, self.terminates = spec, steps, terminates

    def reset(self) -> np.ndarray:
        self.step_number = 0
        return np.zeros(self.spec.obs_dim)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        self.step_number += 1
        over = self.step_number >= self.steps
        observation = np.full(self.spec.obs_dim, float(self.step_number))
        return observation, float(self.step_number), over and self.terminates, over and not self.terminates


def test_records_what_was_sent_and_seen(spec: RobotSpec) -> None:
    """Actions are those that went to the robot, clipped; observations are those the operator acted on, and one more."""
    backend = MockBackend(spec)
    operator = Scripted(lambda step: np.full(spec.act_dim, 2.0 if step == 1 else 0.1 * step))
    episode = record_episode(backend, operator, spec, seed=6, max_steps=4)
    assert (episode.length, episode.ended_by, episode.seed, episode.operator) == (4, "truncation", 6, "scripted")
    assert np.allclose(episode.actions[:, 0], [0.0, 1.0, 0.2, 0.3]) and operator.seeds == [6]
    assert np.array_equal(episode.observations[:-1], np.stack(operator.seen))
    scale = np.array([term.scale for term in spec.action])
    assert np.array_equal(np.stack(backend.commands), episode.actions.astype(np.float64) * scale)
    assert episode.task == spec.task and episode.rewards is None


def test_simulated_time_is_the_control_period(spec: RobotSpec) -> None:
    """Going as fast as it can, a simulator's clock is control_dt a step."""
    episode = record_episode(MockBackend(spec), RandomOperator(spec), spec, seed=0, max_steps=5)
    assert np.allclose(episode.timestamps, np.arange(6) * spec.control_dt)


def test_real_time_is_measured_and_kept(spec: RobotSpec) -> None:
    """In real time the timestamps are the readings' own, and no step comes before its period."""
    began = time.monotonic()
    episode = record_episode(MockBackend(spec), RandomOperator(spec), spec, seed=0, max_steps=20, real_time=True)
    assert time.monotonic() - began >= 19 * spec.control_dt
    assert not np.allclose(np.diff(episode.timestamps), spec.control_dt, rtol=0, atol=1e-9)
    # A step may come late on a busy machine, but then the next is not early: the phase is kept
    assert (episode.timestamps[2:] - episode.timestamps[1] >= np.arange(19) * spec.control_dt - 0.005).all()


def test_a_robot_is_left_at_rest(spec: RobotSpec) -> None:
    """It keeps its last command: efforts and speeds are taken off, as fast as slew limits let; positions stay."""
    first, second, third, *rest = spec.action
    kinds = (
        dataclasses.replace(first, kind="position"),
        dataclasses.replace(second, slew=second.scale / 3.0 / spec.control_dt),
        dataclasses.replace(third, kind="velocity"),
    )
    spec = dataclasses.replace(spec, action=(*kinds, *rest))
    backend, script = MockBackend(spec), ScriptOperator(np.ones((5, spec.act_dim)), "script:ones")
    episode = record_episode(backend, script, spec, seed=0, max_steps=5, real_time=True)
    assert episode.length == 5 and len(backend.commands) == 5 + 4
    last = np.where([term.kind == "position" for term in spec.action], backend.commands[4], 0.0)
    ctrl = dataclasses.replace(spec, action=tuple(dataclasses.replace(t, kind="ctrl", offset=0.1) for t in spec.action))
    odd = MockBackend(ctrl)
    record_episode(odd, script, ctrl, seed=0, max_steps=2, real_time=True)
    assert odd.commands[-1].tolist() == [0.1] * spec.act_dim
    assert last[0] == first.scale and all(np.array_equal(command, last) for command in backend.commands[5:])
    simulated = MockBackend(spec)
    record_episode(simulated, script, spec, seed=0, max_steps=5)
    assert len(simulated.commands) == 5


def test_an_operator_may_work_in_what_it_is_handed(spec: RobotSpec, store: DemoStore) -> None:
    """A controller that changes its observation in place changes neither the demo nor the journal."""

    class InPlace(Scripted):
        def __call__(self, observation: np.ndarray, step: int) -> np.ndarray:
            action = super().__call__(observation.copy(), step)
            observation *= 1000.0
            return action

    operator = InPlace(lambda step: np.zeros(spec.act_dim))
    journal = store.start_journal(0, "scripted")
    episode = record_episode(MockBackend(spec), operator, spec, seed=0, max_steps=4, journal=journal)
    assert np.array_equal(episode.observations[:-1], np.stack(operator.seen))
    written = read_episode(journal.path)
    assert written is not None and np.array_equal(written.observations, episode.observations)


@pytest.mark.parametrize("terminates", [True, False])
def test_a_task_environment_gives_rewards_and_ending(spec: RobotSpec, terminates: bool) -> None:
    """The task's rewards are kept, and its termination and truncation told apart."""
    episode = record_episode(Countdown(spec, 3, terminates), RandomOperator(spec), spec, seed=0, max_steps=99)
    assert episode.rewards is not None and episode.rewards.tolist() == [1, 2, 3]
    assert episode.ended_by == ("termination" if terminates else "truncation")


def test_stopping_interrupts(spec: RobotSpec) -> None:
    """Who stops a recording keeps the steps so far, as interrupted; on the last step there is nothing to interrupt."""
    for steps, ended_by in ((3, "interrupted"), (8, "truncation")):
        episode = record_episode(
            MockBackend(spec), RandomOperator(spec), spec, seed=0, max_steps=8, on_step=lambda step, n=steps: step < n
        )
        assert (episode.length, episode.ended_by) == (steps, ended_by)


def test_a_repeated_reading_ends_the_episode(spec: RobotSpec) -> None:
    """A reading that is only the last one again is not recorded as if it were measured."""
    episode = record_episode(MockBackend(spec, drop=[4]), RandomOperator(spec), spec, seed=0, max_steps=9)
    assert (episode.length, episode.ended_by) == (3, "interrupted")
    with pytest.raises(RecordingError, match="repeats its first reading"):
        record_episode(MockBackend(spec, freeze_from=1), RandomOperator(spec), spec, seed=0, max_steps=9)


def test_a_poisoned_reading_stops_the_recording(spec: RobotSpec, store: DemoStore) -> None:
    """NaN from a sensor is refused by name and step, and the steps before it come back from the journal."""
    backend = MockBackend(spec, poison=[5], poison_channel=spec.channels[0])
    journal = store.start_journal(2, "random")
    with pytest.raises(RecordingError, match=r"measured nan for position_z/rootz at step 5"):
        record_episode(backend, RandomOperator(spec), spec, seed=2, max_steps=9, journal=journal)
    assert store.recover().restored == (0,)
    info = store.table()[0]
    assert (info.length, info.ended_by, info.excluded) == (4, "interrupted", True)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (np.full(6, np.nan), "wants nan of bthigh at step 2; nothing was sent"),
        (np.zeros(5), r"shape \(5,\); cheetah takes"),
        ([None] * 6, r"gave \[None, None, .*\] at step 2; cheetah takes 6 numbers; nothing was sent"),
        ([[0.1], 0.2, [0.3, 0.4]], r"gave \[\[0.1\], 0.2, \[0.3, 0.4\]\] at step 2; cheetah takes 6 numbers"),
        (["left"] * 6, r"gave \['left', "),
        (None, "gave None at step 2"),
    ],
)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_broken_operator_is_named(spec: RobotSpec, action: Any, words: str, noise: float) -> None:
    """What no robot can do is not sent to it; noise added to it makes no difference."""
    backend = MockBackend(spec)
    actions = iter([np.zeros(6), np.zeros(6), action])
    operator = PolicyOperator(lambda observation: next(actions), "broken", noise)
    with pytest.raises(RecordingError, match=words):
        record_episode(backend, operator, spec, seed=0, max_steps=9)
    assert len(backend.commands) == 2


def test_the_journal_holds_the_same_episode(spec: RobotSpec, store: DemoStore) -> None:
    """What the journal would bring back is what the recorder returns; once saved, the journal is gone."""
    journal = store.start_journal(7, "random")
    episode = record_episode(MockBackend(spec), RandomOperator(spec), spec, seed=7, max_steps=12, journal=journal)
    written = read_episode(journal.path)
    assert written is not None and written.sha256 == episode.sha256
    store.append(episode)
    assert list(journal_folder(store.path).glob("*.bin")) == []


def test_a_failing_robot_leaves_its_journal(spec: RobotSpec, store: DemoStore) -> None:
    """When the robot fails, its error comes through and the steps before it are not lost."""

    class Failing(MockBackend):
        def step(self, command: np.ndarray):  # noqa: ANN202
            if len(self.commands) == 3:
                raise BackendError("unplugged")
            return super().step(command)

    journal = store.start_journal(0, "script")
    with pytest.raises(BackendError, match="unplugged"):
        record_episode(Failing(spec), ScriptOperator(np.zeros((1, 6))), spec, seed=0, max_steps=9, journal=journal)
    assert store.recover().restored == (0,) and store.table()[0].length == 3


def test_records_into_a_store_of_the_simulator(spec: RobotSpec, tmp_path: Path) -> None:
    """The robot's own simulator records like any other backend, and a seed gives the same episode again."""
    from robots.sim import MujocoBackend

    digests = set()
    for _ in range(2):
        with MujocoBackend(spec, 3) as backend:
            episode = record_episode(backend, RandomOperator(spec), spec, seed=3, max_steps=20)
        digests.add((episode.observations.tobytes(), episode.actions.tobytes()))
    assert len(digests) == 1
