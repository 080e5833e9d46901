"""SEED: what a seed of dm_control's environments may be on the command line."""

import click

# Those of environments end at 2**32 - 1: from here no number of episodes gets there
SEED = click.IntRange(0, 2**31 - 1)
