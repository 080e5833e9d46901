"""`terminate` of robot.yaml: where a task is over for good, in the batched simulator, in dm_control and on a robot."""

import dataclasses
import json

import numpy as np
import pytest

from demos.stage import BackendStage
from robots import BackendError, RobotSpecError, load_robot, spec_from_dict
from robots.batch import BatchSim
from robots.sim import MujocoBackend
from robots.simulation_yaml import parse_terminate
from robots.spec import Randomization, RobotSpec, TerminationLimit
from robots.task import TaskEnv, TaskError
from robots.termination import Termination

CARTPOLE = load_robot("cartpole")
CART = CARTPOLE.elements("position/slider")[0]


def ending(*limits: TerminationLimit) -> RobotSpec:
    return dataclasses.replace(CARTPOLE, terminate=limits)


SOON = ending(TerminationLimit("position/slider", -0.4, 0.4))


def test_a_limit_is_of_an_element_or_of_all_of_a_term() -> None:
    """On it is not beyond it; either side may be open; a robot without limits never ends."""
    walker = load_robot("walker")
    low, both = TerminationLimit("height", lower=0.7), TerminationLimit("orientations", -0.5, 0.5)
    over = Termination(dataclasses.replace(walker, terminate=(low, both)))
    observation = np.zeros((3, 2, walker.obs_dim))
    observation[..., walker.elements("height")] = 0.7
    assert not over(observation).any()
    observation[1, 0, walker.elements("height")] = 0.699
    observation[2, 1, walker.elements("orientations/right_leg_z[0]")] = 0.51
    assert np.argwhere(over(observation)).tolist() == [[1, 0], [2, 1]]
    assert over.reason(observation[1, 0]) == "height/torso_position[2] 0.699 (limits 0.7 to inf)"
    assert not Termination(walker)(np.full((4, walker.obs_dim), 1e9)).any()


def test_what_was_recorded_within_a_limit_is_within_it() -> None:
    """In single precision 0.4 - 1e-9 is 0.4000000060, and so is the limit."""
    observation = np.zeros(CARTPOLE.obs_dim)
    observation[CART] = 0.4 - 1e-9
    recorded = observation.astype(np.float32)
    assert float(recorded[CART]) > 0.4 + 5e-9
    assert not Termination(SOON)(observation) and not Termination(SOON)(recorded)
    observation[CART] = 0.4 + 1e-6
    assert Termination(SOON)(observation) and Termination(SOON)(observation.astype(np.float32))


def test_the_file_says_it_and_the_identity_does_not() -> None:
    """Through robot.yaml and JSON and back; recordings made without it stay this robot's."""
    limits = parse_terminate({"height": {"lower": 0.7}, "orientations/torso_z[0]": {"upper": 1}}, load_robot("walker"))
    assert limits == (TerminationLimit("height", 0.7, None), TerminationLimit("orientations/torso_z[0]", None, 1.0))
    spec = dataclasses.replace(load_robot("walker"), terminate=limits)
    again = spec_from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again.terminate == limits and again.sha256 == spec.sha256 == load_robot("walker").sha256


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"hight": {"lower": 0.7}}, "terminate.hight: not observed; walker observes .*height/torso_position"),
        ({"height": 0.7}, "terminate.height"),
        ({"height": {}}, "needs lower, upper or both"),
        ({"height": {"lower": 1.0, "upper": 1.0}}, "lower 1 is not below upper 1"),
        ({"height": {"least": 0.7}}, "legal are lower, upper"),
        ({"height": {"lower": "low"}}, "terminate.height.lower"),
    ],
)
def test_mistakes_in_the_file(data: object, words: str) -> None:
    """Each says what is legal."""
    with pytest.raises(RobotSpecError, match=words):
        parse_terminate(data, load_robot("walker"))


def test_episodes_end_where_the_limit_is_passed() -> None:
    """Each environment at its own step, which is then a termination and no truncation, and begins anew at once."""
    sim = BatchSim(SOON, 6, seed=3, num_threads=1, stagger=False)
    sim.reset()
    push, ended, since = np.linspace(-1.0, 1.0, 6)[:, None], 0, np.zeros(6, int)
    for _ in range(SOON.episode_steps + 50):
        step = sim.step(push)
        since += 1
        beyond = np.abs(step.final_observation[:, CART]) > 0.4
        assert (step.termination == beyond).all() and not (step.termination & step.truncation).any()
        assert (step.truncation == ((since == SOON.episode_steps) & ~beyond)).all()
        assert (np.abs(step.observation[:, CART]) <= 0.4).all()
        ended += int(beyond.sum())
        since[step.termination | step.truncation] = 0
    assert ended > 20
    sim.close()


def test_a_broken_step_is_no_end() -> None:
    """It is quarantined, whatever its place holders look like."""
    hanging = ending(TerminationLimit("pole_cos/hinge_1", upper=-0.2))  # which a 0 would be beyond
    sim = BatchSim(hanging, 2, seed=3, num_threads=1, stagger=False)
    sim.reset()
    sim.set_state(np.array([0.0, np.pi - 1.3]), np.array([0.0, -20.0]))
    step = sim.step(np.array([[np.nan], [0.0]]))
    assert step.quarantined.tolist() == [True, False] and step.termination.tolist() == [False, True]
    sim.close()


def test_a_noisy_sensor_ends_nothing() -> None:
    """What counts is where the robot is."""
    noisy = dataclasses.replace(SOON, randomize=Randomization(noise=(("position", 5.0),)))
    sim = BatchSim(noisy, 8, seed=3, num_threads=1, stagger=False, randomize=True)
    sim.reset()
    steps = [sim.step(np.zeros((8, 1))) for _ in range(20)]
    assert max(np.abs(step.final_observation[:, CART]).max() for step in steps) > 5.0
    assert not any(step.termination.any() for step in steps)
    sim.close()


def test_an_end_at_the_time_limit_is_an_end() -> None:
    """And no truncation: the value of what follows is known."""
    taken = []
    for limit in (CARTPOLE.episode_seconds, None):
        spec = dataclasses.replace(SOON, episode_seconds=limit or taken[0] * SOON.control_dt)
        sim = BatchSim(spec, 1, seed=3, num_threads=1, stagger=False)
        sim.reset()
        while not (step := sim.step(np.ones((1, 1)))).termination:
            assert not step.truncation
            taken.append(1)
        assert not step.truncation
        taken = [len(taken) + 1]
        sim.close()


def test_episodes_that_would_be_over_as_they_begin_are_refused() -> None:
    """By the simulator for any of its beginnings, by dm_control's environment for the one at hand."""
    upright = ending(TerminationLimit("pole_cos/hinge_1", lower=0.0))
    with pytest.raises(RobotSpecError, match=r"\d+ of 64 episodes of cartpole .*pole_cos/hinge_1 -.*limits 0 to inf"):
        BatchSim(upright, 2, num_threads=1, reset_pool=64)
    with pytest.raises(TaskError, match="is over as it begins: pole_cos"):
        TaskEnv(upright).reset()


def test_dm_control_ends_there_too() -> None:
    """As a termination, once; what is scored ends with it."""
    environment = TaskEnv(SOON, seed=1)
    environment.reset()
    steps = 0
    while True:
        observation, _, termination, truncation = environment.step(np.ones(1))
        steps += 1
        if termination or truncation:
            break
        assert observation[CART] <= 0.4
    assert (termination, truncation) == (True, False) and observation[CART] > 0.4 and steps < 100
    with pytest.raises(TaskError, match="reset first"):
        environment.step(np.ones(1))


def test_a_recording_ends_there() -> None:
    """A robot that falls ends its own demo, as what it is and not as the time limit."""
    backend = MujocoBackend(SOON, seed=1)
    stage = BackendStage(backend, SOON)
    stage.reset()
    ended = [stage.step(np.ones(1, np.float32)).ended_by for _ in range(60)]
    first = ended.index("termination")
    assert set(ended[:first]) == {None} and first > 3
    backend.close()


def test_a_recording_does_not_begin_beyond() -> None:
    """A robot that lies on the ground has nothing to show: its first step would end the demo."""
    backend = MujocoBackend(CARTPOLE, seed=1)
    upright = ending(TerminationLimit("pole_cos/hinge_1", lower=0.0))
    with pytest.raises(BackendError, match=r"is over as it begins: pole_cos/hinge_1 -.*\(limits 0 to inf\)"):
        BackendStage(backend, upright).reset()
    BackendStage(backend, CARTPOLE).reset()
    backend.close()
