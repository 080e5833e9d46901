"""Domain randomisation: off it changes nothing, on it is drawn from the seed, delays by whole steps and continues."""

import dataclasses

import mujoco
import numpy as np
import pytest

from robots import RobotSpec, RobotSpecError, load_robot
from robots.batch import BatchSim, BatchSimError, BatchStep
from robots.channels import FULL_STATE
from robots.model import compile_model
from robots.randomize import RandomizedEnvs
from robots.spec import Randomization

CARTPOLE = load_robot("cartpole")
SHORT = dataclasses.replace(CARTPOLE, episode_seconds=0.3)  # 30 steps
FULL = Randomization((0.7, 1.4), (0.5, 1.5), (0.8, 1.2), (0, 3), (("position", 0.02),))
TERMS = {term.name: len(term.channels) for term in CARTPOLE.observation}


def randomized(spec: RobotSpec, **ranges) -> RobotSpec:
    return dataclasses.replace(spec, randomize=Randomization(**ranges) if ranges else FULL)


def make(spec: RobotSpec, num_envs: int = 4, **options) -> BatchSim:
    options = {"num_threads": 1, "reset_pool": 16, "stagger": False, "randomize": True, **options}
    return BatchSim(spec, num_envs, **options)


def actions(sim: BatchSim, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, sim.num_envs, sim.act_dim))


def run(sim: BatchSim, given: np.ndarray) -> list[BatchStep]:
    return [sim.step(action) for action in given]


def seen(sim: BatchSim, given: np.ndarray) -> np.ndarray:
    """[1 + T, B, obs_dim] from a reset on."""
    return np.array([sim.reset(), *(step.final_observation for step in run(sim, given))])


def test_off_is_as_before() -> None:
    """A section in robot.yaml that is not asked for changes no bit and no key of the state."""
    plain, described = make(CARTPOLE, randomize=False), make(randomized(CARTPOLE), randomize=False)
    given = actions(plain, 40)
    np.testing.assert_array_equal(seen(plain, given), seen(described, given))
    assert set(plain.state_dict()) == set(described.state_dict())


def test_on_without_ranges_is_an_error() -> None:
    """A robot that does not say how far is not randomised in silence."""
    with pytest.raises(RobotSpecError, match="no section randomize"):
        make(CARTPOLE)


def test_draws() -> None:
    """Within their ranges, different between environments, the same for the same seed, whatever B is."""
    spec = randomized(load_robot("cheetah"), **(vars(FULL) | {"noise": ()}))
    model = compile_model(spec, textures=False)
    few, many, other = (RandomizedEnvs(spec, model, n, seed) for n, seed in ((3, 5), (200, 5), (200, 6)))
    for name, (low, high) in {"mass": FULL.mass, "friction": FULL.friction, "gains": FULL.gains}.items():
        drawn = getattr(many, name)
        assert low <= drawn.min() < low + 0.05 and high - 0.05 < drawn.max() <= high
        np.testing.assert_array_equal(drawn[:3], getattr(few, name))
        assert not np.array_equal(drawn, getattr(other, name))
        assert len(np.unique(drawn)) == drawn.size
    assert set(many.delay) == {0, 1, 2, 3}


@pytest.mark.parametrize("name", ["cheetah", "walker"])
def test_shipped_ranges_and_models(name: str) -> None:
    """What model_of shows is the nominal model times the draws, and the physics of an environment is that model's."""
    spec = load_robot(name)
    assert spec.randomize is not None
    assert spec.sha256 == dataclasses.replace(spec, randomize=None).sha256
    sim = make(dataclasses.replace(spec, randomize=dataclasses.replace(spec.randomize, noise=())), num_envs=3)
    sim.reset()
    before = sim.physics_state.copy()
    sim._warmstart[:] = 0.0
    (step,) = run(sim, actions(sim, 1))
    assert not step.truncation.any()
    masses = set()
    for i in range(3):
        model, drawn = sim.model_of(i), sim._random
        assert drawn is not None
        np.testing.assert_allclose(model.body_mass, sim.model.body_mass * drawn.mass[i])
        np.testing.assert_allclose(model.body_inertia, sim.model.body_inertia * drawn.mass[i, :, None])
        np.testing.assert_allclose(model.geom_friction, sim.model.geom_friction * drawn.friction[i])
        np.testing.assert_allclose(model.actuator_gainprm[:, 0], sim.model.actuator_gainprm[:, 0] * drawn.gains[i])
        np.testing.assert_allclose(model.body_subtreemass[0], model.body_mass.sum())
        data = mujoco.MjData(model)
        mujoco.mj_setState(model, data, before[i], FULL_STATE)
        data.ctrl[:] = sim.ctrl[i]
        mujoco.mj_step(model, data, sim.n_substeps)
        reached = np.empty(before.shape[1])
        mujoco.mj_getState(model, data, reached, FULL_STATE)
        np.testing.assert_allclose(sim.physics_state[i], reached, rtol=0, atol=1e-12)
        masses.add(float(model.body_mass.sum()))
    assert len(masses) == 3


def test_sensors_are_of_the_drawn_model() -> None:
    """A sensor that depends on masses sees each environment's own: a centre of mass moves with them."""
    humanoid = randomized(load_robot("humanoid"), mass=(0.5, 2.0))
    sim = make(humanoid, num_envs=3, reset_pool=1)
    sim.reset()
    step = run(sim, np.zeros((1, 3, sim.act_dim)))[0]
    columns = [i for i, name in enumerate(humanoid.observation_names) if name.startswith("com_velocity")]
    for i in range(3):
        model = sim.model_of(i)
        data = mujoco.MjData(model)
        mujoco.mj_setState(model, data, sim.physics_state[i], FULL_STATE)
        mujoco.mj_forward(model, data)
        velocity = data.sensor("torso_subtreelinvel").data
        np.testing.assert_allclose(step.final_observation[i, columns], velocity, atol=1e-9)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_delay_is_exact(delay: int) -> None:
    """An action has its effect `delay` control steps later, in every episode; until then action 0 is in force."""
    late = make(randomized(SHORT, delay=(delay, delay)))
    prompt = make(SHORT, randomize=False)
    given = actions(prompt, 60)
    shifted = np.zeros_like(given)
    for begin in (0, 30):  # each episode begins with none under way
        shifted[begin + delay : begin + 30] = given[begin : begin + 30 - delay]
    np.testing.assert_allclose(seen(late, given), seen(prompt, shifted), rtol=0, atol=1e-9)
    if delay:
        assert not np.allclose(seen(late, given), seen(prompt, given), atol=1e-3)


def test_delay_differs_between_environments() -> None:
    """Each environment has its own delay, of whole steps within the range."""
    sim = make(randomized(CARTPOLE, delay=(0, 3)), num_envs=32)
    sim.reset()
    effort = []
    for t in range(5):
        sim.step(np.full((32, 1), 1.0 if t == 0 else 0.0))
        effort.append(sim.ctrl[:, 0].copy())
    assert sim._random is not None
    arrived = np.array(effort).argmax(axis=0)
    np.testing.assert_array_equal(arrived, sim._random.delay)
    assert set(arrived) == {0, 1, 2, 3} and (np.array(effort) != 0).sum() == 32


def test_noise_has_its_deviation() -> None:
    """The named term's noise has mean 0 and its deviation, in first observations too; other terms have none."""
    name, size = next(iter(TERMS.items()))
    spec = randomized(SHORT, noise=((name, 0.05),))
    noisy, clean = make(spec, num_envs=300), make(SHORT, num_envs=300, randomize=False)
    given = actions(clean, 40)
    difference = seen(noisy, given) - seen(clean, given)
    np.testing.assert_allclose(difference[..., size:], 0.0, atol=1e-12)
    of_term = difference[..., :size]
    for part in (of_term[0], of_term):
        assert abs(part.std() - 0.05) < 6 * 0.05 / np.sqrt(2 * part.size)
        assert abs(part.mean()) < 6 * 0.05 / np.sqrt(part.size)
    # Neither from step to step nor between environments is it the same
    flat = of_term.reshape(len(of_term), -1)
    assert np.abs(np.corrcoef(flat)[np.triu_indices(len(flat), 1)]).max() < 0.3
    assert np.abs(np.corrcoef(flat.T)[0, 1:]).max() < 0.8


def test_noise_is_the_same_before_and_after_the_step() -> None:
    """Where no episode ended, the policy acts on the very observation that the transition ended in."""
    sim = make(randomized(SHORT, noise=((next(iter(TERMS)), 0.05),)))
    sim.reset()
    for step in run(sim, actions(sim, 45)):
        same = ~step.truncation
        np.testing.assert_array_equal(step.observation[same], step.final_observation[same])


def test_company_changes_nothing() -> None:
    """An environment's episodes, noise included, do not depend on how many others there are."""
    few, many = make(randomized(SHORT), 3, stagger=True), make(randomized(SHORT), 17, stagger=True)
    given = actions(many, 50)
    np.testing.assert_array_equal(few.reset(), many.reset()[:3])
    for a, b in zip(run(few, given[:, :3]), run(many, given), strict=True):
        np.testing.assert_array_equal(a.observation, b.observation[:3])


@pytest.mark.parametrize("name", ["cheetah", "reacher"])
def test_exact_continuation(name: str) -> None:
    """From a state_dict it goes on with the same bits: delays under way, noise and scenes included."""
    spec = load_robot(name)
    spec = dataclasses.replace(
        spec, episode_seconds=15 * spec.control_dt, reset=dataclasses.replace(spec.reset, settle_seconds=0.0),
        randomize=dataclasses.replace(FULL, noise=((spec.observation[0].name, 0.1),)),
    )  # fmt: skip
    original = make(spec, seed=3)
    original.reset()
    run(original, actions(original, 20))
    state = original.state_dict()
    expected = run(original, actions(original, 40, seed=1))
    rebuilt = make(spec, seed=3)
    rebuilt.load_state_dict(state)
    for a, b in zip(expected, run(rebuilt, actions(rebuilt, 40, seed=1)), strict=True):
        for field in dataclasses.fields(BatchStep):
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), field.name)


def test_state_of_other_ranges_is_refused() -> None:
    """A state goes neither into a simulator that is not randomised nor into one of other ranges."""
    sim = make(randomized(SHORT))
    sim.reset()
    with pytest.raises(BatchSimError, match="keys"):
        make(SHORT, randomize=False).load_state_dict(sim.state_dict())
    wider = dataclasses.replace(FULL, mass=(0.5, 2.0))
    with pytest.raises(BatchSimError, match="randomize"):
        make(dataclasses.replace(SHORT, randomize=wider)).load_state_dict(sim.state_dict())


def test_quarantine_clears_what_was_under_way() -> None:
    """After a NaN the environment begins with no command under way, like any other beginning."""
    sim = make(randomized(CARTPOLE, delay=(2, 2)))
    sim.reset()
    run(sim, np.ones((3, 4, 1)))
    spoiled = np.ones((4, 1))
    spoiled[1] = np.nan
    assert sim.step(spoiled).quarantined.tolist() == [False, True, False, False]
    sim.step(np.zeros((4, 1)))
    assert sim.ctrl[:, 0].tolist() == [1.0, 0.0, 1.0, 1.0]
