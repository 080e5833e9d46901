"""The shipped variants are what they say: one thing differs from the original, and what is seen and done stays."""

import numpy as np
import pytest

from robots import load_robot, robot_names
from robots.model import compile_model
from robots.task import TaskEnv

ORIGINALS = ("cheetah", "walker", "hopper")
VARIANTS = [f"{name}-{kind}" for name in ORIGINALS for kind in ("long", "lame", "weak")]


def both(name: str):
    """The models of a variant and of its original."""
    return compile_model(load_robot(name)), compile_model(load_robot(name.split("-")[0]))


def differing(name: str) -> set[str]:
    """MjModel's arrays that are not the original's."""
    model, original = both(name)
    fields = [field for field in dir(model) if isinstance(getattr(model, field), np.ndarray)]
    return {field for field in fields if not np.array_equal(getattr(model, field), getattr(original, field))}


def test_all_are_here() -> None:
    """Three kinds of each of three robots, under names that the command line takes."""
    assert [name for name in robot_names() if "-" in name] == sorted(VARIANTS)
    assert all(load_robot(name).name == name for name in VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_interface_is_the_original_s(name: str) -> None:
    """Names and sizes of what is observed and done, the time step and the task are those of the original."""
    variant, original = load_robot(name), load_robot(name.split("-")[0])
    for field in ("observation_names", "action_names", "channels", "control_dt", "episode_seconds", "task", "reset"):
        assert getattr(variant, field) == getattr(original, field), field
    assert variant.sha256 != original.sha256


@pytest.mark.parametrize("name", ORIGINALS)
def test_weak(name: str) -> None:
    """Every gear is 0.6 of the original's, and full action is still full ctrl; nothing else differs."""
    assert differing(f"{name}-weak") == {"actuator_gear"}
    model, original = both(f"{name}-weak")
    np.testing.assert_allclose(model.actuator_gear[:, 0], 0.6 * original.actuator_gear[:, 0], rtol=1e-12)
    np.testing.assert_allclose([term.scale for term in load_robot(f"{name}-weak").action], model.actuator_gear[:, 0])


@pytest.mark.parametrize(("name", "joint"), [("cheetah", "bfoot"), ("walker", "left_ankle"), ("hopper", "waist")])
def test_lame(name: str, joint: str) -> None:
    """One gear is 0 and nothing else differs; its action changes nothing, any other does."""
    assert differing(f"{name}-lame") == {"actuator_gear"}
    model, original = both(f"{name}-lame")
    dead = model.actuator(joint).id
    expected = original.actuator_gear.copy()
    expected[dead] = 0.0
    np.testing.assert_array_equal(model.actuator_gear, expected)
    spec = load_robot(f"{name}-lame")
    action = np.eye(spec.act_dim)[dead]
    seen = []
    for given in (np.zeros_like(action), action, np.roll(action, 1)):
        environment = TaskEnv(spec, seed=1)
        environment.reset()
        seen.append(environment.step(given)[0])
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


@pytest.mark.parametrize(
    ("name", "bones"),
    [("cheetah", ["bshin", "fshin"]), ("walker", ["right_leg", "left_leg"]), ("hopper", ["calf"])],
)
def test_long(name: str, bones: list[str]) -> None:
    """Half lengths are 1.3 times the original's, masses those of the longer capsules; other bodies keep theirs."""
    model, original = both(f"{name}-long")
    for body in range(1, model.nbody):
        if original.body(body).name not in bones:
            np.testing.assert_allclose(model.body_mass[body], original.body_mass[body], rtol=1e-9)
            np.testing.assert_allclose(model.body_inertia[body], original.body_inertia[body], rtol=1e-9)
    for bone in bones:
        (radius, half, _), (old_radius, old_half, _) = model.geom(bone).size, original.geom(bone).size
        assert (radius, half) == (pytest.approx(old_radius), pytest.approx(1.3 * old_half))
        volume, old_volume = (np.pi * r**2 * (2 * h + 4 / 3 * r) for r, h in ((radius, half), (old_radius, old_half)))
        assert model.body(bone).mass[0] / original.body(bone).mass[0] == pytest.approx(volume / old_volume)
        assert model.body(bone).inertia.max() > 1.7 * original.body(bone).inertia.max()


@pytest.mark.parametrize("name", VARIANTS)
def test_task_runs(name: str) -> None:
    """dm_control's task of the original runs on the variant's model and rewards it."""
    spec = load_robot(name)
    environment = TaskEnv(spec, seed=2)
    assert environment.reset().shape == (spec.obs_dim,)
    np.testing.assert_array_equal(environment.physics.model.ptr.actuator_gear, compile_model(spec).actuator_gear)
    np.testing.assert_array_equal(environment.physics.model.ptr.geom_size, compile_model(spec).geom_size)
    rng = np.random.default_rng(0)
    for _ in range(20):
        observation, reward, _, _ = environment.step(rng.uniform(-1, 1, spec.act_dim))
    assert np.isfinite(observation).all() and 0.0 <= reward <= 1.0
