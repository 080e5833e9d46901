"""The `gcl` command: verbs only. Each verb lives in `toolkit/commands/<verb>.py` and is imported when it is called.

Nothing heavy is imported here, so `gcl --help` is quick and the robot-side verbs run where torch and mujoco are absent.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from robots.spec import ToolkitError

# verb -> one-line help; kept here so that `gcl --help` need not import the verbs
VERBS = {
    "robots": "List, show and check robot descriptions.",
    "record": "Record demonstrations into a Zarr store.",
    "demos": "List, show, check and replay recorded demonstrations.",
    "train": "Learn the reward and the policy from demonstrations.",
    "eval": "Measure a policy in dm_control's own environment.",
    "verdict": "Judge a run by its demos alone, without a true reward.",
    "export": "Write reward and policy as an ONNX bundle.",
    "keys": "Make keys, sign bundles, and check who signed one.",
    "deploy": "Run a bundle on a robot, in real time.",
    "estop": "Be the emergency stop of a robot that runs.",
    "bench": "Measure simulation, training and inference on this machine.",
    "quickstart": "From shipped demonstrations to a deployed policy, in minutes.",
}
# What a missing module means to a person: which extra brings it
_EXTRA_OF = {
    "torch": "train", "mujoco": "train", "dm_control": "train", "onnx": "train", "onnxscript": "train",
    "matplotlib": "train", "tensorboard": "train", "cryptography": "sign", "viser": "web", "mjviser": "web",
}  # fmt: skip


class LazyVerbs(click.Group):
    """A click group whose subcommands are imported on first use, and whose user errors are one line and exit code 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order a user meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports `toolkit.commands.<verb>` and returns its `command`."""
        if cmd_name not in VERBS:
            return None
        return importlib.import_module(f"toolkit.commands.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the verbs without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb; a ToolkitError or a missing extra becomes one line on stderr and exit code 2."""
        try:
            return super().invoke(ctx)
        except ToolkitError as error:
            click.echo(f"gcl: {error}", err=True)
            sys.exit(2)
        except ModuleNotFoundError as error:
            extra = _EXTRA_OF.get((error.name or "").split(".")[0])
            if extra is None:
                raise
            click.echo(
                f"gcl: this needs {error.name}, which is not installed here: pip install 'gcl-toolkit[{extra}]'",
                err=True,
            )
            sys.exit(2)


@click.group(cls=LazyVerbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gcl-toolkit", prog_name="gcl")
def main() -> None:
    """Show a robot what you want; get the reward you meant and a policy that does it, as ONNX.

    \b
    Example, from shipped demonstrations to a running controller:
      gcl quickstart
    """
    # Between its operations torch's threads spin for milliseconds, on cores that the simulator's threads want. So many
    # turns last from one operation to the next and no longer; it is read as torch is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "15000")
