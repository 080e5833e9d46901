"""What the expert wanted: reward, policy, objectives, trainer, evaluation, and the command line."""
