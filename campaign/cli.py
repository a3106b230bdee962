"""The ``campaign`` command.  Modules are imported by the commands that need them: ``--help`` is quick."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from campaign.errors import CampaignError

F = TypeVar("F", bound=Callable[..., Any])
INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="drp-campaign", prog_name="campaign")
def cli() -> None:
    """Make calibrations out of raw frames: check, submit, look, certify, go on."""


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Bundle options that several commands share."""

    def wrap(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return wrap


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output, and nothing else.")
ranks = click.option(
    "--ranks",
    type=click.IntRange(1),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="the cores",
    help="MPI ranks of a gang.",
)
env_file = click.option(
    "--env", "env_file", type=click.Path(dir_okay=False), help="Take the variables from FILE, not from the shell."
)


def environment(env_file: str | None) -> dict[str, str]:
    """The operator's variables: the shell's, or a file's on top of nothing but what it names."""
    from pathlib import Path

    from campaign.envfile import read

    if env_file is None:
        return dict(os.environ)
    system = {
        k: v for k, v in os.environ.items() if k in ("HOME", "USER", "LOGNAME", "PATH", "TMPDIR", "CAMPAIGN_HOME")
    }
    return read(Path(env_file), system)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an operator's mistake ends in a message and an exit code, not in a traceback."""
    for commands in ("data", "step", "report"):  # each adds its own
        importlib.import_module(f"campaign.cli_{commands}")

    try:
        code = cli.main(list(arguments) if arguments is not None else None, prog_name="campaign", standalone_mode=False)
    except CampaignError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("interrupted: nothing is left running", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code or 0)
