"""``--html``, ``--markdown`` and ``--junit``: a result written as files beside what is printed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgessl import text_output
from edgessl.errors import require

if TYPE_CHECKING:
    from edgessl.gate.history.series import Series
    from edgessl.gate.report import Report
    from edgessl.gate.verdict import Judgement


@dataclass(frozen=True)
class Views:
    """Where to write what; None: not asked for."""

    html: Path | None = None
    markdown: Path | None = None
    junit: Path | None = None


def view_options(*kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command ``--KIND FILE`` for each of *kinds*, fields of ``Views``.

    The command is called with ``views``, after it was found that the files can be written: before
    any long work.

    Raises:
        OutputError: one of the files cannot be written.
        MissingDependency: an HTML report is asked for and jinja2 is not installed.
    """
    about = {
        "html": "Also write one HTML file, with plots.",
        "markdown": "Also write Markdown, for a comment on a pull request.",
        "junit": "Also write JUnit XML.",
    }

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def checked(**given: Any) -> Any:
            views = Views(**{kind: given.pop(kind) for kind in kinds})
            for kind in kinds:
                path = getattr(views, kind)
                if path is not None:
                    text_output.check(path, overwrite=True)
            if views.html is not None:
                require("jinja2", "gate", "an HTML report")
            return command(views=views, **given)

        decorated: Callable[..., Any] = checked
        for kind in reversed(kinds):
            option = click.option(
                f"--{kind}", metavar="FILE", type=click.Path(path_type=Path), help=about[kind]
            )
            decorated = option(decorated)
        return decorated

    return decorate


def write_views(
    views: Views,
    reports: Sequence[Report],
    judgement: Judgement | None = None,
    baseline: Report | None = None,
    history: Sequence[Series] = (),
) -> None:
    """Write the files that were asked for; *judgement* is about the first of *reports*.

    Raises:
        OutputError: a file cannot be written.
    """
    from edgessl.gate import views as made

    if views.html is not None:
        text_output.write(views.html, made.html(reports, judgement, baseline, history))
    if views.markdown is not None:
        texts = [made.markdown(reports[0], judgement, baseline)]
        texts += [made.markdown(report) for report in reports[1:]]
        text_output.write(views.markdown, "\n".join(texts))
    if views.junit is not None and judgement is not None:
        text_output.write(views.junit, made.junit(reports[0], judgement))
