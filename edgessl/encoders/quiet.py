"""Keep the library's own log lines, progress bars and warnings out of a user's terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers inside the block; its settings are put back afterwards."""
    import transformers.utils.logging as library

    verbosity = library.get_verbosity()
    bars = library.is_progress_bar_enabled()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            library.set_verbosity(logging.CRITICAL)
            library.disable_progress_bar()  # type: ignore[no-untyped-call]
            yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()  # type: ignore[no-untyped-call]
