"""`gcl train --guide`: how a reward is learned that is to lead policies which do not exist yet.

By default a reward need only be as good as the policy beside it needs it to be, which begins with a clone of the demos:
of what nobody did it knows nothing, and a new policy goes where it is wrong. `docs/changed-robot.md` has the whole way.
"""

from __future__ import annotations

GUIDE_STEPS = 9_000_000  # control steps
GUIDE = (
    "policy.warm_start=0",  # policies begin with random actions, and so try what a new one will try
    "ppo.demo_weight=0",
    "reward.memory=0.65",  # what an earlier one was turned down for is not forgotten
    "ppo.restarts=2",  # three of them, one after the other
    "reward.alpha=0.1",
    "reward.panel=16",  # 16 rewards of the run judge; what the strictest says is what is shipped
    "reward.inputs=state",  # what the robot reaches and not which commands it gave: those are another robot's
)
