"""How a command ends: one line on stderr for what a user can mend, and the exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from edgessl import interrupts
from edgessl.errors import EdgesslError, nearest

# As a shell reports a program that ended by a signal; sysexits.h for a program's own fault.
INTERRUPTED, BROKEN_PIPE, TERMINATED, BUG = 130, 141, 143, 70


_ENDINGS = {
    signal.SIGINT: (INTERRUPTED, "interrupted"),
    signal.SIGTERM: (TERMINATED, "terminated"),
}


def _ending(number: signal.Signals) -> tuple[int, str]:
    code, word = _ENDINGS[number]
    return code, f"{word}: {interrupts.outcome()}"


class _Stopped(Exception):
    """The command ended early, with an exit code and perhaps a line for the user."""

    def __init__(self, code: int, line: str = "") -> None:
        self.code, self.line = code, line


class Commands(click.Group):
    """A group that names the nearest command when one is misspelt."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            names = self.list_commands(ctx)
            raise click.UsageError(
                f"no such command {args[0]!r}.{nearest(args[0], names)} "
                f"Commands: {', '.join(names)}.",
                ctx,
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        # click itself would print an empty line for Ctrl-C and end with 1, a verdict, for a
        # reader that closed the pipe.
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Stopped(*_ending(signal.SIGINT)) from None
        except BrokenPipeError:
            raise _Stopped(BROKEN_PIPE) from None
        except OSError as err:
            place = f": {err.filename}" if err.filename else ""
            raise _Stopped(2, f"error: {err.strerror or err}{place}") from err


def run(group: click.Group, arguments: Sequence[str] | None = None) -> int:
    """Run *group* and return its exit code; a user's mistake is one line on stderr."""
    try:
        with interrupts.remembered():
            result = group.main(args=arguments, prog_name="edgessl", standalone_mode=False)
        return int(result or 0)
    except _Stopped as stop:
        code, line = stop.code, stop.line
    except click.exceptions.Abort:  # Ctrl-C before the command began
        code, line = _ending(signal.SIGINT)
    except SystemExit as stop:
        code, line = stop.code if isinstance(stop.code, int) else BUG, ""
        if code == TERMINATED:
            code, line = _ending(signal.SIGTERM)
    except click.UsageError as err:
        code, line = err.exit_code, _usage(err)
    except click.ClickException as err:
        code, line = err.exit_code, f"error: {err.format_message()}"
    except Exception as err:
        number = interrupts.arrived()
        if number is not None:  # a library made an error of its own of it
            code, line = _ending(signal.Signals(number))
        elif isinstance(err, EdgesslError):
            code, line = err.exit_code, f"error: {err}"
        else:
            raise
    if line:
        click.echo(line, err=True)
    return code


def _usage(err: click.UsageError) -> str:
    """click's message in one line, with the nearest option and where to read on."""
    text = err.format_message()
    if type(err).__name__ == "NoArgsIsHelpError":  # click 8.2 and later; its text is the help
        return text
    if isinstance(err, click.NoSuchOption) and err.ctx is not None:
        known = [name for option in err.ctx.command.params for name in option.opts]
        text = f"no such option {err.option_name}.{nearest(err.option_name, known)}"
    command = err.ctx.command_path if err.ctx is not None else "edgessl"
    stop = "" if text.endswith(("?", ".")) else "."
    return f"error: {text[:1].lower()}{text[1:]}{stop} See: {command} --help"


def main(group: click.Group) -> None:
    """Run *group* as this process, and end it with the exit code."""
    try:
        code = run(group)
    except Exception:
        traceback.print_exc()
        click.echo(
            "This is a bug in edgessl. Please report it with the lines above and what "
            "'edgessl info' prints.",
            err=True,
        )
        code = BUG  # not Python's 1, which would read as a verdict
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # Its reader has gone; Python would try once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if code in (INTERRUPTED, TERMINATED):
        # All is undone by now. Python would take a second to unload torch, and end by SIGINT
        # instead of with a code where the interrupt passed through C on its way up.
        os._exit(code)
    sys.exit(code)
