"""`gcl keys`: who vouches for a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.group()
def command() -> None:
    """Make keys, sign bundles, and check who signed one.

    A signature says that a bundle is, to the byte, what the owner of a key let go. The private key stays with whoever
    releases policies; the public one lies on the robots, which then run nothing else.

    \b
    Example:
      gcl keys new release
      gcl keys sign cheetah.bundle --key release.key
      gcl keys check cheetah.bundle --trusted release.pub
    """


@command.command()
@click.argument("name", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def new(name: Path, as_json: bool) -> None:
    """Make a key pair: NAME.key, which signs, and NAME.pub, which checks.

    Whoever has NAME.key can sign: it is readable by you only, and has no place in a repository, an image or a robot.

    \b
    Example:
      gcl keys new release
    """
    from export.signature import new_key_pair

    private, public, key = new_key_pair(name)
    if as_json:
        click.echo(json.dumps({"private": str(private), "public": str(public), "key_id": key.key_id}))
        return
    click.echo(f"{private}: signs; keep it secret and backed up")
    click.echo(f"{public}: checks; copy it to the robots")
    click.echo(f"key {key.key_id[:12]}")


@command.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="The private key, NAME.key.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sign(bundle: Path, key: Path, as_json: bool) -> None:
    """Sign a bundle, once it is found whole; a signature already there is replaced.

    \b
    Example:
      gcl keys sign cheetah.bundle --key release.key
    """
    from export.bundle import sign_bundle
    from export.signature import read_private_key

    public = sign_bundle(bundle, read_private_key(key))
    if as_json:
        click.echo(json.dumps({"bundle": str(bundle), "key_id": public.key_id}))
    else:
        click.echo(f"{bundle}: signed by key {public.key_id[:12]}")


@command.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--trusted",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="A public key, NAME.pub; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(bundle: Path, trusted: tuple[Path, ...], as_json: bool) -> None:
    """Check every byte of a bundle and its signature, as a robot does; exit code 2 if it would refuse.

    \b
    Example:
      gcl keys check cheetah.bundle --trusted release.pub
    """
    from export.bundle import read_bundle
    from export.signature import read_public_key

    found = read_bundle(bundle, [read_public_key(path) for path in trusted])
    assert found.signed_by is not None  # or it would have been refused
    facts = {"bundle": str(bundle), "robot": found.spec.name, "created_utc": found.manifest.created_utc}
    if as_json:
        click.echo(json.dumps({**facts, "key_id": found.signed_by.key_id}))
    else:
        click.echo(
            f"{bundle}: whole, for {found.spec.name}, made {found.manifest.created_utc}, "
            f"signed by key {found.signed_by.key_id[:12]}"
        )
