"""Settings of a training so small that a test can wait for it, whatever its objective or generator."""

SMALL = [
    "total_steps=640", "threads=1", "ppo.num_envs=8", "ppo.horizon=16", "policy.hidden=[8]", "reward.hidden=[8]",
    "reward.segment=8", "reward.batch_steps=128", "policy.warm_start=5", "ppo.head_start=1",
    "sac.num_envs=8", "sac.horizon=16", "sac.batch=16", "sac.hidden=[8]", "sac.segments=16", "sac.head_start=1",
    "sac.updates_per_step=0.1",
]  # fmt: skip
