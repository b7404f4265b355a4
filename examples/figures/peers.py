"""The competitors' environment: sentence-transformers and optimum-intel, apart from ours."""

from __future__ import annotations

import sys
from pathlib import Path

from examples.figures import environments, report

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT = environments.ROOT / ".venv-peers"
# optimum-intel's own pins hold transformers back; --no-deps keeps torch where edgessl has it.
OPTIMUM = "optimum-intel==1.27.0"
_JOB = str(Path(__file__).with_name("optimum_job.py"))


def environment(given: Path | None) -> Path:
    """The folder of the peers' environment: *given*, or ``.venv-peers``, made when needed."""
    if given is not None:
        if not (given / "bin" / "optimum-cli").exists():
            raise SystemExit(f"--peers {given}: no environment with optimum-cli there")
        return given
    ready = DEFAULT / ".ready"
    if not ready.exists():
        report.say(f"making {DEFAULT.name} (once; several minutes)")
        packages = [
            *(_torch(), "sentence-transformers", "transformers<4.58"),
            *("optimum-onnx[onnxruntime]", "openvino", "nncf", "fastembed"),
        ]
        environments.make(DEFAULT, packages, ("--no-deps", OPTIMUM))
        ready.touch()
    return DEFAULT


def _torch() -> str:
    """torch as edgessl's own pyproject.toml asks for it."""
    text = (environments.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]["compress"]
    (torch,) = (requirement for requirement in extras if requirement.startswith("torch>"))
    return str(torch)


def command(folder: Path, *arguments: str | Path) -> list[str]:
    """``optimum_job.py`` with *arguments* in the peers' environment."""
    return [str(folder / "bin" / "python"), _JOB, *map(str, arguments)]
