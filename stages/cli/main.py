"""The command `hypernst`: its groups, errors in one line, exit statuses."""

import atexit
import contextlib
import errno
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from pipeline.errors import NO_MEMORY, STOPPED, STOPS, Stop, UserError, is_out_of_memory, printable, stopped
from stages.cli import options, preprocess, results, styles, tools, training

SECTIONS = {
    "Prepare": preprocess.COMMANDS,
    "Train": training.COMMANDS,
    "Evaluate": results.EVALUATE,
    "Apply": results.APPLY,
    "Find styles": styles.COMMANDS,
    "Look after": tools.COMMANDS,
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # where the output goes, as no file is named


class _Group(click.Group):
    """Lists commands by section. A failure becomes one line and an exit status, with --debug a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                rows = [((command.name or "").ljust(width), command.get_short_help_str(80)) for command in commands]
                formatter.write_dl(rows)

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **options)
        except KeyboardInterrupt as stop:
            raise _stopped(stop) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt as stop:
            raise _stopped(stop) from None
        except BrokenPipeError:
            raise  # the reader of our output has gone, such as `head`: click ends quietly
        except Exception as error:
            if ctx.meta.get(options.DEBUG):
                raise
            if isinstance(error, UserError):
                click.echo(f"hypernst: {error}", err=True)
                ctx.exit(error.status)
            if is_out_of_memory(error):
                click.echo(f"hypernst: {NO_MEMORY}", err=True)
                ctx.exit(1)
            if isinstance(error, FileNotFoundError) and not _is_here():
                click.echo("hypernst: the folder in which it runs has gone; change to another", err=True)
                ctx.exit(1)
            text = printable(" ".join(str(error).split()))
            if isinstance(error, OSError) and error.errno in FULL and not error.filename:  # files have their own words
                _give_up_output(error)
                ctx.exit(1)
            if isinstance(error, OSError) and error.errno and error.filename:
                from pipeline import files

                read, path = error.errno not in files.FULL, Path(os.fsdecode(error.filename2 or error.filename))
                told = files.read_error(error.errno, path) if read else files.disk_error(error, path)
                click.echo(f"hypernst: {told}", err=True)
                ctx.exit(1)
            way_out = "run it again with --debug for a traceback"
            click.echo(f"hypernst: {type(error).__name__}: {text} ({way_out})", err=True)
            ctx.exit(1)


def _is_here() -> bool:
    try:
        return bool(Path.cwd())
    except FileNotFoundError:
        return False


def _stopped(stop: KeyboardInterrupt) -> click.exceptions.Exit:
    _end_by_signals()
    number = stop.number if isinstance(stop, Stop) else signal.SIGINT
    with contextlib.suppress(OSError):  # the terminal has gone
        click.echo(stopped(number), err=True)
    return click.exceptions.Exit(STOPPED + number)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="hypernst")
@options.debug
def cli() -> None:
    """Stylise portraits with a hypernetwork, region by region.

    Exit status: 0 done; 1 a stage failed; 2 wrong use or configuration; 3 more rejects than --max-rejects allows;
    130 interrupted; 143 terminated.
    """


for _commands in SECTIONS.values():
    for _command in _commands:
        cli.add_command(_command)


def _open_streams() -> None:
    """Open what a caller has closed of the three streams: else the next file would take its number, and our words."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            while os.open(os.devnull, os.O_RDWR) < number:
                pass
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115 - open to the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8


def main() -> None:
    """Entry point of the console command `hypernst`."""
    from pipeline.device import keep_freed_memory

    _open_streams()
    keep_freed_memory()
    try:
        cli(prog_name="hypernst")
    except SystemExit as end:
        if isinstance(end.code, int) and end.code - STOPPED in STOPS:
            _end_at_once(end.code)
        raise
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            _give_up_output(error)
            if not isinstance(error, BrokenPipeError):
                sys.exit(1)
        _end_by_signals()


def _end_by_signals() -> None:
    """From here on a signal raises nothing: what is left, Python does to end itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: os._exit(STOPPED + number))


def _end_at_once(status: int) -> NoReturn:
    """End without taking Python apart: a library that was interrupted while imported may crash at that."""
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(status)


def _give_up_output(error: OSError) -> None:
    """Say why the output cannot be written. What is left of it goes nowhere: Python would complain when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not isinstance(error, BrokenPipeError):
        click.echo(f"hypernst: the output cannot be written: {error.strerror}", err=True)


if __name__ == "__main__":
    main()
