"""The command ``medphantom``: one line for every error, status 2 for what the user can fix, and a fast start.

Verbs import what they need when they run: ``--help`` and ``ingest`` load no torch.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from types import TracebackType
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from medphantom.core.access import private_files
from medphantom.core.errors import InputError, MedphantomError
from medphantom.core.plain import PROGRAM, error_line, plain_output, raw_stream
from medphantom.flows.cli import (
    data as cli_data,
)
from medphantom.flows.cli import (
    models as cli_models,
)
from medphantom.flows.cli import (
    pairs as cli_pairs,
)
from medphantom.flows.cli import (
    runs as cli_runs,
)
from medphantom.flows.cli import (
    studies as cli_studies,
)
from medphantom.flows.cli.examples import help_of
from medphantom.flows.process.ending import (
    STATUS_TERMINATED,
    Interrupted,
    Terminated,
    ended_in_order,
)
from medphantom.flows.process.failure import DEBUG_VARIABLE, UnexpectedFailure, memory_ran_out
from medphantom.flows.runs.housekeeping import keeping_house
from medphantom.learning.interruption import last_kept

STATUS_WRONG_INPUT = 2
STATUS_OUR_FAULT = 1
STATUS_INTERRUPTED = 130
DEBUG_FLAG = "--debug"


class _OwnHelp:
    """A class whose help is this project's own text and may be in colours."""

    def format_help(self, context: Any, formatter: Any) -> None:
        with contextlib.redirect_stdout(raw_stream(sys.stdout)):
            super().format_help(context, formatter)  # type: ignore[misc]


class _Command(_OwnHelp, TyperCommand):
    """A verb."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        left: list[str] = super().parse_args(ctx, args)
        for parameter in self.get_params(ctx):
            value = given.get(str(parameter.name))
            if parameter.name in self._paths() and "" in (value if isinstance(value, list | tuple) else [value]):
                # of which pathlib makes the working directory
                raise InputError(f"{parameter.opts[0].removeprefix('--')} is empty", "give a path")
        return left

    def _paths(self) -> set[str]:
        """Names of the arguments and options that are paths."""
        return {name for name, kind in get_type_hints(self.callback).items() if "pathlib.Path" in str(kind)}

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as ending:
            kept = Interrupted()
            for note in getattr(ending, "__notes__", ()):
                kept.add_note(note)
            raise kept from None


class _Commands(_OwnHelp, TyperGroup):
    """All verbs."""


app = typer.Typer(
    name="medphantom",
    cls=_Commands,
    help="Turns a scarce, private set of medical images into a synthetic one that can be used and shared.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"medphantom {metadata.version('medphantom')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option(DEBUG_FLAG, help="Show tracebacks. May print content of source files.")
    ] = False,
) -> None:
    del version, debug  # the first acts by its callback, the second in main()


DATA, MODEL, EVALUATE, SHARE, OPERATE = "Data", "Model", "Evaluate", "Share", "Operate"
GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    DATA: (cli_data.phantom, cli_data.ingest, cli_data.inspect),
    MODEL: (
        cli_models.bases,
        cli_models.train,
        cli_models.search,
        cli_models.generate,
        cli_models.merge,
        cli_pairs.counterfactual,
    ),
    EVALUATE: (
        cli_models.assess,
        cli_runs.control,
        cli_studies.utility,
        cli_studies.augment,
        cli_studies.compare,
        cli_pairs.rank,
    ),
    SHARE: (cli_data.export, cli_data.verify, cli_data.lineage),
    OPERATE: (cli_runs.demo, cli_runs.init, cli_runs.run, cli_runs.serve, cli_runs.schema),
}
"""Verbs of the command line in the groups of its help."""
CONTINUED = {
    "train", "search", "generate", "assess", "compare", "utility", "augment", "control", "demo", "run", "serve",
}  # fmt: skip
"""Verbs that keep their finished parts when they are interrupted."""

for _group, _verbs in GROUPS.items():
    for _command in _verbs:
        app.command(cls=_Command, help=help_of(_command), rich_help_panel=_group)(keeping_house(_command))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The arguments of the command line; the default is those of the process.

    Returns:
        The exit status: 0, 1 (a fault of this program), 2 (something for the user to fix), 130 (interrupted), or 143
        (ended by SIGTERM).
    """
    # whichever library writes: what is made to be shared is given its mode where it is made
    with private_files(), plain_output(), ended_in_order():
        return _main(list(sys.argv[1:] if arguments is None else arguments))


@cache
def _command_line() -> Any:
    """The verbs as one command, derived from their signatures once and not anew in each call."""
    return typer.main.get_command(app)


def _main(given: list[str]) -> int:
    arguments_left = [argument for argument in given if argument != DEBUG_FLAG]
    before = os.environ.get(DEBUG_VARIABLE)
    if DEBUG_FLAG not in given and not before:
        return _guarded(arguments_left)
    os.environ[DEBUG_VARIABLE] = "1"  # stages look at it too
    try:
        status = _command_line()(arguments_left, prog_name="medphantom", standalone_mode=False)
    except Exception:
        sys.excepthook = _plain_traceback  # a traceback quotes what it met
        raise
    finally:
        os.environ[DEBUG_VARIABLE] = before or ""
    return status if isinstance(status, int) else 0


def _guarded(arguments: list[str]) -> int:
    status, line = STATUS_WRONG_INPUT, ""
    try:
        result = _command_line()(arguments, prog_name="medphantom", standalone_mode=False)
        status = result if isinstance(result, int) else 0
        line = f"interrupted; {_next(arguments)}" if status == STATUS_INTERRUPTED else ""
    except Terminated as ending:
        status, line = STATUS_TERMINATED, f"ended by SIGTERM; {_next(arguments, ending)}"
    except (Interrupted, KeyboardInterrupt) as ending:
        status, line = STATUS_INTERRUPTED, f"interrupted; {_next(arguments, ending)}"
    except MedphantomError as error:
        line = str(error)
    except UnexpectedFailure as error:
        status, line = STATUS_OUR_FAULT, str(error)
    except Exception as error:  # whatever happens, the user gets one line
        if memory_ran_out(error):
            line = "memory did not suffice; use smaller batches or images"
        elif hasattr(error, "format_message"):  # a usage error of typer
            said = " ".join(error.format_message().split())
            line = error_line(said, f"see medphantom {_verb(arguments)}--help") if said else ""
        elif isinstance(error, OSError) and error.errno:
            line = _of_the_system(error, error.errno, arguments)
        else:
            status = STATUS_OUR_FAULT
            line = f"unexpected {type(error).__name__}; {DEBUG_FLAG} shows details, which may quote source files"
    if line:
        print(PROGRAM + error_line(line), file=sys.stderr)
    return status


def _of_the_system(error: OSError, number: int, arguments: list[str]) -> str:
    """Describe an error of the operating system; only a path given on this command line is shown, as data may hold
    names.
    """
    known = [argument for argument in arguments if error.filename is not None and argument == str(error.filename)]
    what = known[0] if known else "a file or folder"
    return error_line(f"{what} cannot be used ({os.strerror(number).lower()})", "check paths, permissions and the disk")


def _next(arguments: list[str], ending: BaseException | None = None) -> str:
    """Say what the same command would do after it was ended."""
    notes = "; ".join(getattr(ending, "__notes__", ())) or last_kept()
    if notes:
        return f"{notes}; the same command continues from there"
    return f"the same command {'continues' if set(arguments[:1]) & CONTINUED else 'begins anew'}"


def _plain_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    with plain_output():
        traceback.print_exception(kind, error, trace)


def _verb(arguments: list[str]) -> str:
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    return f"{arguments[0]} " if arguments and arguments[0] in known else ""


if __name__ == "__main__":
    sys.exit(main())
