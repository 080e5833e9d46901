"""BatchSim: resets, quarantine, seeds, exact continuation; that it simulates the right thing is in test_parity.py."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robots import RobotSpec, load_robot
from robots.batch import BatchSim, BatchSimError, BatchStep
from robots.observation import make_observation
from robots.spec import ResetSpec

CARTPOLE = load_robot("cartpole")
SHORT = dataclasses.replace(CARTPOLE, episode_seconds=0.2)  # 20 steps


def make(spec: RobotSpec = SHORT, num_envs: int = 8, **options) -> BatchSim:
    return BatchSim(spec, num_envs, **{"num_threads": 1, "reset_pool": 32, **options})


def run(sim: BatchSim, steps: int, seed: int = 0, action: Callable[[int], np.ndarray] | None = None) -> list[BatchStep]:
    rng = np.random.default_rng(seed)
    given = action or (lambda _: rng.uniform(-1, 1, (sim.num_envs, sim.act_dim)))
    return [sim.step(given(t)) for t in range(steps)]


def test_time_limit_truncates_and_resets() -> None:
    """Without stagger all episodes end together after episode_steps; the observation is then that of a new episode."""
    sim = make(stagger=False)
    first = sim.reset()
    steps = run(sim, 41)
    ends = [t for t, step in enumerate(steps) if step.truncation.any()]
    assert ends == [19, 39]
    assert steps[19].truncation.all() and not steps[19].termination.any() and not steps[19].quarantined.any()
    begun = steps[19].observation
    assert not np.array_equal(begun, steps[19].final_observation)
    assert not np.array_equal(begun, first)
    # A hanging pole at rest: cos of its angle is -1, and nothing moves yet.
    np.testing.assert_allclose(begun[:, 1], -1.0, atol=0.01)
    np.testing.assert_array_equal(steps[18].observation, steps[18].final_observation)


def test_stagger_spreads_first_episodes() -> None:
    """First episodes have different lengths, never longer than the limit; later ones have all of it."""
    sim = make(num_envs=64)
    sim.reset()
    truncation = np.array([step.truncation for step in run(sim, 60)])
    first = truncation.argmax(axis=0)
    assert len(set(first)) > 10 and first.max() < 20
    for env in range(64):
        assert np.flatnonzero(truncation[:, env])[:2].tolist() == [first[env], first[env] + 20]


def test_before_reset_sees_the_state_reached() -> None:
    """The callback runs once a step, on the state that final_observation shows, also where the episode ends."""
    sim = make(stagger=False)
    sim.reset()
    seen: list[np.ndarray] = []

    def look() -> None:
        values = np.column_stack([sim.physics_state[:, [1, 2]], sim.physics_state[:, [3, 4]]])
        channels = ["joint_pos/slider", "joint_pos/hinge_1", "joint_vel/slider", "joint_vel/hinge_1"]
        assert list(sim.spec.channels) == channels
        seen.append(make_observation(sim.spec, values))

    for _ in range(20):
        step = sim.step(np.ones((8, 1)), look)
        np.testing.assert_allclose(seen[-1], step.final_observation, rtol=0, atol=1e-12)
    assert step.truncation.all() and len(seen) == 20


def assert_quarantined(sim: BatchSim, step: BatchStep, bad: list[int]) -> None:
    assert np.flatnonzero(step.quarantined).tolist() == bad
    assert not (step.truncation | step.termination)[bad].any()
    assert np.isfinite(step.final_observation).all() and np.isfinite(step.observation).all()
    assert np.isfinite(sim.physics_state).all()


def test_nan_action_is_quarantined() -> None:
    """A NaN for one environment resets that one and leaves the others exactly as without it."""
    sim, clean = make(), make()
    sim.reset()
    clean.reset()
    actions = np.full((8, 1), 0.5)
    spoiled = actions.copy()
    spoiled[3] = np.nan
    step, expected = sim.step(spoiled), clean.step(actions)
    assert_quarantined(sim, step, [3])
    others = np.arange(8) != 3
    np.testing.assert_array_equal(step.final_observation[others], expected.final_observation[others])
    assert not run(sim, 5)[-1].quarantined.any()


@pytest.mark.parametrize("name", ["cartpole", "hopper", "quadruped"])
@pytest.mark.parametrize("velocity", [np.nan, np.inf, 1e12, 1e200])
def test_broken_physics_is_quarantined(name: str, velocity: float) -> None:
    """An environment whose state is NaN or huge is reset, wherever in the step it is noticed; the others go on."""
    sim = make(load_robot(name), num_envs=3, reset_pool=2)
    sim.reset()
    nq = sim.model.nq
    sim.physics_state[1, 1 + nq :][: sim.model.nv] = velocity
    step = sim.step(np.zeros((3, sim.act_dim)))
    assert_quarantined(sim, step, [1])
    assert not any(after.quarantined.any() for after in run(sim, 5))


def exploding(folder: Path, timestep: float, substeps: int, gear: float) -> RobotSpec:
    """One light body on a hinge with an absurd motor."""
    (folder / "robot.xml").write_text(
        f"<mujoco><option timestep='{timestep}'/><worldbody><body><joint name='j'/><geom size='.1' mass='1'/></body>"
        f"</worldbody><actuator><motor name='m' joint='j' gear='{gear}'/></actuator></mujoco>"
    )
    return dataclasses.replace(
        CARTPOLE,
        mjcf="robot.xml",
        directory=folder,
        control_dt=timestep * substeps,
        reset=ResetSpec(),
        observation=(dataclasses.replace(CARTPOLE.observation[0], channels=("joint_pos/j",)),),
        action=(dataclasses.replace(CARTPOLE.action[0], actuator="m", scale=gear, lower=-gear, upper=gear),),
    )


@pytest.mark.parametrize("substeps", [1, 2, 5])
def test_explosion_under_way_is_quarantined(tmp_path: Path, substeps: int) -> None:
    """A model that blows up by its own dynamics, in the first step, is noticed: no reset of MuJoCo's own hides it."""
    sim = make(exploding(tmp_path, 0.01, substeps, gear=1e14), num_envs=3)
    sim.reset()
    assert_quarantined(sim, sim.step(np.array([[0.0], [1.0], [1e-16]])), [1])


def test_step_that_broke_off_is_quarantined(tmp_path: Path) -> None:
    """Where MuJoCo warned and the rest of the step was left out, the transition is not passed on as a whole one."""
    # At so short a step an acceleration beyond MuJoCo's limit leaves position and velocity looking harmless.
    sim = make(exploding(tmp_path, 1e-6, 5, gear=2e8), num_envs=3)
    sim.reset()
    assert_quarantined(sim, sim.step(np.array([[0.0], [1.0], [1e-3]])), [1])


@pytest.mark.parametrize("name", ["cheetah", "reacher", "hopper", "quadruped"])
def test_exact_continuation(name: str) -> None:
    """A simulator rebuilt from a state_dict goes on with the same bits, through resets, scenes and contacts."""
    spec = dataclasses.replace(load_robot(name), reset=dataclasses.replace(load_robot(name).reset, settle_seconds=0.0))
    spec = dataclasses.replace(spec, episode_seconds=spec.control_dt * 15)
    original = make(spec, num_envs=4, reset_pool=8, seed=3)
    original.reset()
    run(original, 20)
    state = original.state_dict()
    assert all(isinstance(value, (int, np.ndarray)) for value in state.values())
    expected = run(original, 40, seed=1)
    rebuilt = make(spec, num_envs=4, reset_pool=8, seed=3)
    rebuilt.load_state_dict(state)
    for a, b in zip(expected, run(rebuilt, 40, seed=1), strict=True):
        for field in dataclasses.fields(BatchStep):
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), field.name)


def test_state_dict_is_a_copy() -> None:
    """Stepping on does not change a state taken before."""
    sim = make()
    sim.reset()
    state = sim.state_dict()
    kept = {key: np.copy(value) for key, value in state.items()}
    run(sim, 25)
    for key, value in kept.items():
        np.testing.assert_array_equal(state[key], value)


@pytest.mark.parametrize(
    ("options", "word"), [({"num_envs": 9}, "physics_state"), ({"seed": 1}, "seed"), ({"reset_pool": 33}, "reset_pool")]
)
def test_state_of_another_simulator(options: dict, word: str) -> None:
    """A state_dict of another size, seed or pool is refused by the name of what differs."""
    sim = make(**options)
    sim.reset()
    with pytest.raises(BatchSimError, match=word):
        make().load_state_dict(sim.state_dict())
    with pytest.raises(BatchSimError, match="keys"):
        make().load_state_dict({})


def test_threads_and_company_change_nothing() -> None:
    """An environment's episodes do not depend on the number of threads, nor on how many environments there are."""
    spec = dataclasses.replace(load_robot("hopper"), episode_seconds=0.4)
    few, many = make(spec, num_envs=3, num_threads=1), make(spec, num_envs=40, num_threads=4)
    np.testing.assert_array_equal(few.reset(), many.reset()[:3])
    rng = np.random.default_rng(5)
    for _ in range(50):
        actions = rng.uniform(-1, 1, (40, spec.act_dim))
        a, b = few.step(actions[:3]), many.step(actions)
        np.testing.assert_array_equal(a.observation, b.observation[:3])
        np.testing.assert_array_equal(a.truncation, b.truncation[:3])


def test_seeds() -> None:
    """The same seed gives the same first observations, another seed others; environments differ among themselves."""
    first, again, other = make(seed=1).reset(), make(seed=1).reset(), make(seed=2).reset()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(first, axis=0)) > 4


def test_actions_are_clipped() -> None:
    """An action beyond 1 does what 1 does."""
    a, b = make(), make()
    a.reset()
    b.reset()
    np.testing.assert_array_equal(a.step(np.full((8, 1), 7.0)).observation, b.step(np.ones((8, 1))).observation)


def test_returned_arrays_are_the_caller_s() -> None:
    """What a step returned does not change when the next step is made, nor the simulator when it is overwritten."""
    sim, clean = make(), make()
    clean.reset()
    sim.reset()[:] = 1e9
    step = sim.step(np.ones((8, 1)))
    clean.step(np.ones((8, 1)))
    kept = step.final_observation.copy()
    step.observation[:] = 1e9
    np.testing.assert_array_equal(sim.step(np.ones((8, 1))).observation, clean.step(np.ones((8, 1))).observation)
    np.testing.assert_array_equal(step.final_observation, kept)


def test_float32_actions() -> None:
    """Actions as a policy gives them, in float32, are taken."""
    sim = make()
    sim.reset()
    assert sim.step(np.ones((8, 1), dtype=np.float32)).observation.dtype == np.float64


def test_scenes_differ() -> None:
    """Each environment has its own target, where its observation and its model say, and a new one in a new episode."""
    spec = dataclasses.replace(load_robot("reacher"), episode_seconds=0.1)
    sim = make(spec, num_envs=6, stagger=False)
    sim.reset()
    before = sim.placement.copy()
    assert len(np.unique(before[:, 0, :2], axis=0)) > 3
    step = run(sim, 1)[0]
    for i in range(6):
        model = sim.model_of(i)
        np.testing.assert_array_equal(model.geom("target").pos, before[i, 0])
        cos, sin, wrist = step.observation[i, :3]
        shoulder = np.arctan2(sin, cos)
        finger = 0.12 * np.array([cos + np.cos(shoulder + wrist), sin + np.sin(shoulder + wrist)])
        np.testing.assert_allclose(step.observation[i, 3:5], before[i, 0, :2] - finger, atol=1e-9)
    run(sim, 4)
    assert not np.array_equal(sim.placement, before)
    radius = np.linalg.norm(sim.placement[:, 0, :2], axis=1)
    assert (radius >= 0.05).all() and (radius <= 0.2).all()


def test_misuse() -> None:
    """Wrong shapes and the wrong order of calls are errors that say so."""
    sim = make()
    with pytest.raises(BatchSimError, match="before reset"):
        sim.step(np.zeros((8, 1)))
    sim.reset()
    with pytest.raises(BatchSimError, match=r"\(8, 1\)"):
        sim.step(np.zeros((8, 2)))
    with pytest.raises(BatchSimError, match="at least 1"):
        make(num_envs=0)
    sim.close()
    sim.close()
    with pytest.raises(BatchSimError, match="closed"):
        sim.step(np.zeros((8, 1)))
