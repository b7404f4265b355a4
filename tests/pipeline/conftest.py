"""The bundles that the tests of the pipeline share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import save_text_model
from tests.bundles import Bundles


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, mae: Path) -> Bundles:
    folder = tmp_path_factory.mktemp("pipeline")
    return Bundles(folder, {"bert": save_text_model(folder / "bert"), "mae": mae})
