"""`gcl bench rival`: ours beside GAIL and AIRL of the `imitation` package, same demos, same seconds, same threads."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import click

_RIVALS = ("gail", "airl")
# The rival's own tasks that it was tuned for, by the robot that comes nearest
_TUNED_FOR = {"walker": "walker", "hopper": "hopper", "quadruped": "ant"}


@click.command()
@click.option("--robot", default="cheetah", show_default=True, help="A robot that demos ship for.")
@click.option("--demos", type=click.Path(path_type=Path), help="Demo store. Default: the one that ships for the robot.")
@click.option("--count", type=click.IntRange(min=1), default=5, show_default=True, help="Demos: the first so many.")
@click.option("--seconds", type=click.FloatRange(min=1), default=600, show_default=True, help="Of each contender.")
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", show_default=True, help="Whose seconds.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of each contender.")
@click.option("--seed", type=click.IntRange(0, 1000), default=0, show_default=True, help="Of everything random.")
@click.option("--eval-episodes", type=click.IntRange(min=1), default=3, show_default=True, help="Of each evaluation.")
@click.option("--only", multiple=True, type=click.Choice(["ours", *_RIVALS]), help="Run only these; may be repeated.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of ours, as for gcl train.")
@click.option("--rival-set", multiple=True, metavar="NAME=JSON", help="Changes a published setting of the rivals.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of results. Default: runs/rival-<robot>-<time>.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rival(out: Path | None, only: tuple[str, ...], settings: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Ours beside `imitation` 1.0.1: seconds to 0.9 of the demos' return.

    Installs the rival into a virtual environment of its own, runs/rivals/imitation, at the first time (about 2 GB).
    It runs as its authors tuned it; ours with the defaults of gcl train. Evaluations take no part in the seconds.
    A contender that has finished in --out is not run again, so a comparison can be made in several sittings.

    \b
    Examples:
      gcl bench rival
      gcl bench rival --only gail --seconds 5400 --clock cpu --out runs/rival
      gcl bench rival --only gail --rival-set rl.rl_kwargs.gamma=0.99
    """
    from demos.store import DemoStore
    from toolkit.commands.quickstart import shipped_demos
    from toolkit.run import new_folder

    store = DemoStore.open(options["demos"] or shipped_demos(options["robot"]))
    episodes = store.episodes()[: options["count"]]
    folder = out or new_folder(f"rival-{store.spec.name}")
    setup: dict[str, Any] = {
        "robot": store.spec.name,
        "demos": [episode.sha256.hex() for episode in episodes],
        "demos_mean": sum(episode.return_ for episode in episodes) / max(1, len(episodes)),
        **{name: options[name] for name in ("seconds", "clock", "threads", "seed", "eval_episodes")},
        "rival_set": list(options["rival_set"]),
    }
    _agree(folder, setup)
    for name in only or ("ours", *_RIVALS):
        if (folder / f"{name}.json").is_file():
            click.echo(f"{name}: has finished in {folder}, not run again", err=True)
            continue
        click.echo(f"{name}: {setup['seconds']:g} {setup['clock']} seconds ...", err=True)
        if name == "ours":
            _run_ours(folder, setup, store.spec, episodes, list(settings))
        else:
            _run_rival(name, folder, setup, store.spec, episodes)
    report = write_report(folder, setup)
    click.echo(json.dumps(report["contenders"]) if as_json else report["table"])


def write_report(folder: Path, setup: dict[str, Any]) -> dict[str, Any]:
    """Writes `comparison.json`, `comparison.md` and `comparison.png` about whoever has rows in the folder.

    Args:
        folder: Of the comparison.
        setup: What all contenders shared: `demos_mean`, `clock` and more.

    Returns:
        What went into the JSON, and the table as "table".

    Raises:
        RivalError: Nobody has run yet.
    """
    from toolkit.rivals.comparison import factor, outcome, plot, read_rows, table
    from toolkit.rivals.shared_world import RivalError

    runs = {name: rows for name in ("ours", *_RIVALS) if (rows := read_rows(folder / f"{name}.csv"))}
    if not runs:
        raise RivalError(f"{folder}: nobody has run yet")
    outcomes = {name: outcome(name, rows, setup["demos_mean"]) for name, rows in runs.items()}
    contenders = {name: dataclasses.asdict(o) for name, o in outcomes.items()}
    for name in set(contenders) - {"ours"}:
        contenders[name]["finished"] = (folder / f"{name}.json").is_file()
        found = factor(outcomes["ours"], outcomes[name]) if "ours" in outcomes else None
        contenders[name]["factor"], contenders[name]["is_lower_bound"] = found or (None, None)
    text = table(list(outcomes.values()), setup["demos_mean"], setup["clock"])
    report = {"setup": setup, "contenders": contenders}
    (folder / "comparison.json").write_text(json.dumps(report, indent=2) + "\n")
    (folder / "comparison.md").write_text(text + "\n")
    plot(folder / "comparison.png", runs, setup["demos_mean"], setup["clock"])
    return {**report, "table": text}


def worker_words(name: str, python: Path, folder: Path, setup: dict[str, Any]) -> list[str]:
    """The command line that runs one rival.

    Args:
        name: "gail" or "airl".
        python: Of its virtual environment.
        folder: Of the comparison, with `world/` in it.
        setup: What all contenders share.

    Returns:
        Words for `subprocess`.
    """
    from toolkit.evaluate import FIRST_EVALUATION_SEED
    from toolkit.rivals.comparison import evaluation_times

    options = {
        "objective": name,
        "times": ",".join(f"{time:g}" for time in evaluation_times(setup["seconds"])),
        "clock": setup["clock"],
        "seed": setup["seed"],
        "threads": setup["threads"],
        "tuned-for": _TUNED_FOR.get(setup["robot"], "half_cheetah"),
        "eval-seed": FIRST_EVALUATION_SEED,
        "eval-episodes": setup["eval_episodes"],
    }
    script = Path(__file__).parents[1] / "rivals" / "imitation_worker.py"
    words = [f"--{key}={value}" for key, value in options.items()]
    words += [f"--set={change}" for change in setup["rival_set"]]
    return [str(python), str(script), str(folder), *words]


def _agree(folder: Path, setup: dict[str, Any]) -> None:
    """Writes the setup, or checks that contenders who ran before shared it."""
    from toolkit.rivals.shared_world import RivalError

    path = folder / "setup.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(setup, indent=2) + "\n")
        return
    before = json.loads(path.read_text())
    differ = [key for key in setup if before.get(key) != setup[key]]
    if differ:
        changes = "; ".join(f"{key}: was {before.get(key)}, now {setup[key]}" for key in differ)
        raise RivalError(f"{folder} holds a comparison with another setup ({changes}); choose another --out")


def _run_ours(folder: Path, setup: dict[str, Any], spec: Any, episodes: list[Any], settings: list[str]) -> None:
    from toolkit.rivals.comparison import evaluation_times
    from toolkit.rivals.ours import OurRun

    ours = OurRun(folder, evaluation_times(setup["seconds"]), setup["clock"], setup["eval_episodes"])
    own = [f"threads={setup['threads']}", f"seed={setup['seed']}", *settings]
    if not ours.run(spec, episodes, own):
        raise click.Abort


def _run_rival(name: str, folder: Path, setup: dict[str, Any], spec: Any, episodes: list[Any]) -> None:
    from toolkit.rivals.shared_world import RivalError, write_world
    from toolkit.rivals.virtual_environment import rival_python

    python = rival_python(Path("runs") / "rivals" / "imitation")
    write_world(folder / "world", spec, episodes)
    threads = str(setup["threads"])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.run(worker_words(name, python, folder, setup), env=environment, stdout=log, stderr=log)
    if process.returncode != 0:
        tail = (folder / f"{name}.log").read_text().strip()[-800:]
        raise RivalError(f"{name} ended with code {process.returncode}; {folder / f'{name}.log'} ends:\n{tail}")
