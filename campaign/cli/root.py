"""The ``campaign`` command.  Commands import the modules that they need, so that ``--help`` is quick."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from campaign import console
from campaign.errors import CampaignError, of_system

F = TypeVar("F", bound=Callable[..., Any])
DEFECT = 70
INTERRUPTED = 130
UNHEARD = 141
#: When each generation of garbage is collected: at Python's (700, 10, 10) a large import does so hundreds of times.
COLLECT_AT = (20_000, 5, 5)
#: Bits that every umask gets: write access to a run's folder gives control over the operator's jobs.
CLOSED = 0o002


#: Commands, by the module that has them.
MODULES = {
    "camera": ("camera",),
    "certify": ("certify", "chain"),
    "clean": ("clean",),
    "convert": ("convert",),
    "data": ("ingest", "simulate"),
    "imports": ("import-calibs",),
    "index": ("errors", "logs", "recover", "rerun", "status"),
    "plan": ("accept", "plan", "reads", "reject", "run"),
    "report": ("demo", "doctor", "history"),
    "run": ("cancel", "pause", "restart", "resume"),
    "siterun": ("site-run",),
    "sites": ("sites",),
    "step": ("check", "render", "submit"),
}
_MODULE_OF = {name: module for module, names in MODULES.items() for name in names}


class _Lazy(click.Group):
    """Group whose commands are imported when they are called, or described."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands."""
        return sorted(_MODULE_OF)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; `None`, with all imported for a suggestion, where there is none of that name."""
        for module in [_MODULE_OF[cmd_name]] if cmd_name in _MODULE_OF else MODULES:
            importlib.import_module(f"campaign.cli.{module}")  # adds its commands to the group
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="drp-campaign", prog_name="campaign")
def cli() -> None:
    """Make calibrations from raw frames: check, submit, look, certify."""


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Bundle options that several commands share."""

    def wrap(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return wrap


#: More ranks than any machine of today gives one job: a slip of the keyboard.
MOST_RANKS = 65_536
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output, and nothing else.")
ranks = click.option(
    "--ranks",
    type=click.IntRange(1, MOST_RANKS),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="the cores",
    help="MPI ranks of a gang.",
)
site_ranks = click.option(
    "--ranks",
    type=click.IntRange(1, MOST_RANKS),
    show_default="the site file's, else by the work",
    help="MPI ranks of a gang, and workers of quanta.",
)
repo_option = click.option("--repo", default=lambda: os.environ.get("REPO"), help="Repository; $REPO by default.")
env_file = click.option(
    "--env", "env_file", type=click.Path(dir_okay=False), help="Read variables from FILE; they override the shell's."
)


def environment(env_file: str | None) -> dict[str, str]:
    """Give the operator's variables: the shell's, overridden by a file's, as if the shell had read it."""
    from pathlib import Path

    from campaign.template.envfile import read

    if env_file is None:
        return dict(os.environ)
    return read(Path(env_file), os.environ)


def _defect(error: Exception) -> str:
    """Keep the traceback of an unforeseen error in a file, and name the file."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="campaign-defect-", suffix=".log", delete=False) as file:
        file.write("".join(traceback.format_exception(error)))
    first = str(error).splitlines()[0] if str(error) else "no more is known"
    return f"a defect of campaign itself: {type(error).__name__}: {first}\n  -> report it, with {file.name}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every error ends in a message and an exit code, never in a traceback."""
    gc.set_threshold(*COLLECT_AT)
    os.umask(os.umask(CLOSED) | CLOSED)
    # Other distributions' plug-ins are not searched for, and do not see what is validated.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if arguments is None:  # SIGTERM ends a command like ^C, with a message
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with console.guarded():
        code = _run(arguments)
    if arguments is None:  # the process ends: a last search for garbage would take a fifth of a short command
        gc.disable()
        gc.freeze()
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
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
        console.deafen()
        code = UNHEARD
    except OSError as error:
        disk = of_system(error)
        print(f"error: {disk}", file=sys.stderr)
        code = disk.exit_code
    except Exception as error:
        print(f"error: {_defect(error)}", file=sys.stderr)
        code = DEFECT
    return int(code or 0)
