"""dm_control's observation in our form: a joint that turns without end is observed as cosine and sine of its angle."""

from collections.abc import Mapping

import numpy as np

from robots.spec import RobotSpec

ENDLESS = {"hopper": 1, "reacher": 0}  # element of dm_control's flat observation that counts turns [rad]


def flat_observation(spec: RobotSpec, observation: Mapping[str, np.ndarray]) -> np.ndarray:
    """(obs_dim,) what `spec` observes, from what dm_control's task does."""
    values = np.concatenate([np.ravel(value) for value in observation.values()])
    place = ENDLESS.get(spec.name.partition("-")[0])
    if place is None:
        return values
    angle = values[place]
    return np.concatenate([values[:place], [np.cos(angle), np.sin(angle)], values[place + 1 :]])
