"""What is in the repository for other people's CI: the scripts of the GitHub Action are run as a
runner would run them, with a stand-in for ``edgessl``, ``python`` and ``gh``."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.running import ROOT

yaml: Any = importlib.import_module("yaml")  # by name: it comes without types
HOSTILE = "a b'c\"; touch pwned; $(touch pwned) `touch pwned` ${{ 1 }} && touch pwned # \\"

_STUB = """\
import json, os, sys
from pathlib import Path
name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
with open(os.environ["STUB_LOG"], "a") as log:
    log.write(json.dumps([name, *arguments]) + "\\n")
if name == "gh":
    print(os.environ["STUB_COMMENTS"] if "--jq" in arguments else "", end="")
    sys.exit(0 if "--jq" in arguments else int(os.environ["STUB_GH"]))
for argument in arguments:
    option, _, path = argument.partition("=")
    if option in ("--output", "--junit", "--markdown", "--html") and os.environ["STUB_CODE"] != "2":
        Path(path).write_text(f"text of {option}\\n")
if arguments[0] == "gate":
    print("::error::from the name of a bundle", end="")
    sys.exit(int(os.environ["STUB_CODE"]))
"""


def action() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8")))


@dataclass
class Job:
    """One job: a workspace that lasts, and what its steps wrote."""

    place: Path
    github: dict[str, str]
    code: int = 0
    comments: str = ""
    gh: int = 0
    outputs: dict[str, str] = field(default_factory=dict)
    log: str = ""
    status: int = 0

    def run(self, **inputs: str) -> Job:
        """Run every script of the action whose condition holds, until one fails."""
        work = self.place / "work"
        work.mkdir(exist_ok=True)
        for name in ("edgessl", "python", "gh"):
            stub = self.place / "bin" / name
            stub.parent.mkdir(exist_ok=True)
            stub.write_text(f"#!{sys.executable} -IS\n{_STUB}")
            stub.chmod(0o755)
        described = action()
        given = {name: str(each.get("default", "")) for name, each in described["inputs"].items()}
        values = {f"inputs.{name}": value for name, value in {**given, **inputs}.items()}
        values |= {f"github.{name}": value for name, value in self.github.items()}
        values["runner.temp"] = str(self.place)
        for step in described["runs"]["steps"]:
            if "run" not in step or not _holds(step.get("if", ""), values):
                continue
            output = self.place / "output"
            output.write_text("")
            environment = {name: _filled(text, values) for name, text in step["env"].items()}
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=work,
                env={**self.environment(output), **environment},
                capture_output=True,
                text=True,
            )
            self.log += f"{done.stdout}{done.stderr}\n"
            lines = output.read_text().splitlines()
            for line in lines:
                name, _, value = line.partition("=")
                values[f"steps.{step['id']}.outputs.{name}"] = value
                self.outputs[name] = value
            self.status = done.returncode
            if self.status:
                break
        return self

    def environment(self, output: Path) -> dict[str, str]:
        return {
            "PATH": f"{self.place / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "RUNNER_TEMP": str(self.place),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(self.place / "summary.md"),
            "GITHUB_ACTION_PATH": "/the action",
            "GITHUB_REPOSITORY": "someone/some-repo",
            "STUB_LOG": str(self.place / "calls"),
            "STUB_CODE": str(self.code),
            "STUB_COMMENTS": self.comments,
            "STUB_GH": str(self.gh),
        }

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.place / "calls").read_text().splitlines()]

    def gates(self) -> list[list[str]]:
        return [call[2:] for call in self.calls if call[:2] == ["edgessl", "gate"]]

    def text(self, name: str) -> str:
        return (self.place / name).read_text()


def _filled(text: object, values: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: values.get(found[1], ""), str(text))


def _holds(condition: str, values: dict[str, str]) -> bool:
    def holds(part: str) -> bool:
        found = re.fullmatch(r"(\S+)(?: (==|!=) '(.*)')?", part)
        assert found is not None, part
        name, operator, text = found.groups()
        value = values.get(name, "")
        return bool(value) if operator is None else (value == text) == (operator == "==")

    return all(map(holds, filter(None, condition.split(" && "))))


REQUEST = {
    "event_name": "pull_request",
    "ref": "refs/pull/7/merge",
    "event.pull_request.number": "7",
}
PUSH = {"event_name": "push", "ref": "refs/heads/main"}
MAIN = {"event.repository.default_branch": "main", "token": "secret"}


@pytest.fixture
def request_job(tmp_path: Path) -> Job:
    return Job(tmp_path, {**REQUEST, **MAIN})


@pytest.fixture
def push_job(tmp_path: Path) -> Job:
    return Job(tmp_path, {**PUSH, **MAIN})


def bundle(job: Job, name: str, content: str = "x") -> str:
    folder = job.place / "work" / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(content)
    return name


def test_no_expression_is_in_a_script() -> None:
    described = action()
    scripts = [step for step in described["runs"]["steps"] if "run" in step]
    assert len(scripts) >= 6
    for step in scripts:
        assert "${{" not in step["run"] and step["shell"] == "bash"
    others = [step["uses"] for step in described["runs"]["steps"] if "run" not in step]
    assert all(re.fullmatch(r"actions/[a-z/-]+@v\d+", name) for name in others)


def test_every_name_is_known() -> None:
    described = action()
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(described["inputs"])
    steps = {step["id"]: step for step in described["runs"]["steps"] if "id" in step}
    for step, output in re.findall(r"steps\.([\w-]+)\.outputs\.([\w-]+)", text):
        assert f'echo "{output}=' in steps[step]["run"]
    for step in described["runs"]["steps"]:
        if "run" in step:
            for name in step.get("env", {}):
                assert name in step["run"] or name == "GH_TOKEN"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    for number, step in enumerate(action()["runs"]["steps"]):
        if "run" in step:
            declared = "".join(f"export {name}=x\n" for name in step.get("env", {}))
            (tmp_path / f"{number}.sh").write_text(f"#!/bin/bash\n{declared}{step['run']}")
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(["shellcheck", *files], capture_output=True, text=True)
    assert done.stdout == "" and done.returncode == 0


@pytest.mark.parametrize(
    ("code", "verdict", "inconclusive", "status", "said"),
    [
        (0, "pass", "warn", 0, ""),
        (1, "fail", "warn", 1, "::error title=edgessl gate::a budget is broken"),
        (5, "inconclusive", "warn", 0, "::warning title=edgessl gate::inconclusive"),
        (5, "inconclusive", "fail", 5, "::error title=edgessl gate::inconclusive"),
        (2, "error", "warn", 2, "::error title=edgessl gate::no gate could be held"),
        (3, "error", "warn", 3, "::error title=edgessl gate::no gate"),
        (137, "error", "warn", 137, "::error title=edgessl gate::no gate"),
    ],
)
def test_verdicts(
    request_job: Job, code: int, verdict: str, inconclusive: str, status: int, said: str
) -> None:
    request_job.code = code
    request_job.run(bundles=bundle(request_job, "bundle"), inconclusive=inconclusive)
    assert (request_job.outputs["verdict"], request_job.status) == (verdict, status)
    assert said in request_job.log
    summary = request_job.text("summary.md")
    assert summary == ("text of --markdown\n" if code != 2 else summary)
    assert code != 2 or "no gate could be held (exit code 2)" in summary


def test_inputs_reach_the_command_as_they_are(request_job: Job) -> None:
    first, second = bundle(request_job, "my bundle"), bundle(request_job, "--help")
    request_job.run(
        budget="my budgets.toml",
        bundles=f"\n{first}\n  \nname={second}\nold report.json",
        baseline="main 1.json\nmain 2.json\n",
        data="some texts.csv",
        extras="gate,openvino",
        **{"max-minutes": "2.5"},
    )
    folder = request_job.place / "edgessl-gate-edgessl"
    assert request_job.calls[0] == ["python", "-m", "pip", "install", "--quiet"] + [
        "--disable-pip-version-check",
        "/the action[gate,openvino]",
    ]
    assert request_job.gates() == [
        [
            "--budget=my budgets.toml",
            "--max-minutes=2.5",
            f"--output={folder}/report.json",
            f"--junit={folder}/junit.xml",
            f"--markdown={folder}/gate.md",
            f"--html={folder}/gate.html",
            "--baseline=main 1.json",
            "--baseline=main 2.json",
            "--data=some texts.csv",
            "--",
            "my bundle",
            "name=--help",
            "old report.json",
        ]
    ]
    assert request_job.outputs["folder"] == str(folder)


def test_no_input_is_run(request_job: Job) -> None:
    names = ("budget", "bundles", "baseline", "data", "max-minutes", "name", "extras", "token")
    request_job.run(
        **{name: f"{name} {HOSTILE}" for name in names}, comment="true", remember="true"
    )
    assert not list(request_job.place.rglob("pwned"))
    (given,) = request_job.gates()
    assert given[0] == f"--budget=budget {HOSTILE}"
    assert given[-1] == f"bundles {HOSTILE}"
    assert re.fullmatch(r"[\w.-]+", request_job.outputs["name"])
    assert request_job.status == 0


def test_what_is_printed_is_no_command_to_the_runner(request_job: Job) -> None:
    request_job.run(bundles=bundle(request_job, "bundle"))
    lines = request_job.log.splitlines()
    stop = next(line for line in lines if line.startswith("::stop-commands::"))
    token = stop.rpartition("::")[2]
    injected = lines.index("::error::from the name of a bundle")
    assert len(token) == 32 and lines.index(stop) < injected < lines.index(f"::{token}::")


def test_inconclusive_is_warn_or_fail(request_job: Job) -> None:
    request_job.run(bundles="bundle", inconclusive="pass")
    assert request_job.status == 2 and "should be warn or fail" in request_job.log


def test_a_comment_is_written_once_and_then_changed(request_job: Job) -> None:
    name = bundle(request_job, "bundle")
    request_job.run(bundles=name, comment="true", name="my gate")
    calls = [call for call in request_job.calls if call[0] == "gh"]
    body = request_job.place / "edgessl-gate-my-gate" / "comment.md"
    assert calls[1][1:] == ["api", "--method", "POST"] + [
        "repos/someone/some-repo/issues/7/comments",
        "--silent",
        "-F",
        f"body=@{body}",
    ]
    assert body.read_text() == "<!-- edgessl-gate my-gate -->\ntext of --markdown\n"
    request_job.comments = "41\n42\n"
    request_job.run(bundles=name, comment="true", name="my gate")
    last = request_job.calls[-1]
    assert last[2:5] == ["--method", "PATCH", "repos/someone/some-repo/issues/comments/42"]


def test_a_comment_that_cannot_be_written_is_no_verdict(request_job: Job) -> None:
    request_job.gh = 1
    request_job.run(bundles=bundle(request_job, "bundle"), comment="true")
    assert request_job.status == 0 and "the comment could not be written" in request_job.log


def test_no_comment_without_a_request_or_unasked(push_job: Job, request_job: Job) -> None:
    push_job.run(bundles=bundle(push_job, "bundle"), comment="true")
    request_job.run(bundles="bundle")
    assert not [call for call in push_job.calls if call[0] == "gh"]


def test_the_default_branch_is_what_requests_are_compared_with(push_job: Job) -> None:
    name = bundle(push_job, "bundle", "first")
    memory = ".edgessl-memory/edgessl"
    push_job.run(bundles=name)
    assert "--baseline=bundle" in push_job.gates()[0]  # with itself: there is nothing else
    kept = push_job.place / "work" / memory / "bundle" / "manifest.json"
    assert kept.read_text() == "first"
    assert ["edgessl", "history", "add", f"{memory}/history.sqlite"] == push_job.calls[-2][:4]

    (push_job.place / "work" / name / "manifest.json").write_text("second")
    push_job.github = {**REQUEST, **MAIN}
    push_job.run(bundles=f"ours={name}")
    assert f"--baseline={memory}/bundle" in push_job.gates()[1]
    assert kept.read_text() == "first"  # no request changes it

    push_job.github, push_job.code = {**PUSH, **MAIN}, 5
    push_job.run(bundles=name)
    assert kept.read_text() == "first"  # nor does what was not found to be as good

    push_job.code = 0
    push_job.run(bundles=f"ours={name}")
    assert kept.read_text() == "second"


@pytest.mark.parametrize(("code", "kept"), [(0, True), (5, True), (1, False), (2, False)])
def test_the_first_bundle_is_remembered_unless_it_is_bad(
    push_job: Job, code: int, kept: bool
) -> None:
    push_job.code = code
    push_job.run(bundles=bundle(push_job, "bundle"))
    assert (push_job.place / "work" / ".edgessl-memory" / "edgessl" / "bundle").is_dir() is kept


@pytest.mark.parametrize(
    "github",
    [
        {"event_name": "pull_request_target", "ref": "refs/heads/main"},
        {"event_name": "push", "ref": "refs/heads/other"},
        {"event_name": "push", "ref": "refs/tags/main"},
    ],
)
def test_nothing_else_is_remembered(tmp_path: Path, github: dict[str, str]) -> None:
    job = Job(tmp_path, {**github, **MAIN})
    job.run(bundles=bundle(job, "bundle"))
    assert not any(option.startswith("--baseline") for option in job.gates()[0])
    assert not (tmp_path / "work" / ".edgessl-memory").exists()


def test_a_baseline_that_is_given_is_the_one(push_job: Job) -> None:
    name = bundle(push_job, "bundle")
    push_job.run(bundles=name)
    push_job.run(bundles=name, baseline="other")
    push_job.run(bundles=name, remember="false")
    found = [[o for o in call if o.startswith("--baseline")] for call in push_job.gates()[1:]]
    assert found == [["--baseline=other"], []]


def test_gitlab_runs_the_gate_and_tells_inconclusive_apart(request_job: Job) -> None:
    job = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text(encoding="utf-8"))[".edgessl-gate"]
    assert job["allow_failure"] == {"exit_codes": [5]}
    assert job["artifacts"]["reports"]["junit"] == "edgessl-gate/junit.xml"
    request_job.run(bundles="none")  # for the stand-ins
    given = {
        "EDGESSL_BUDGET": f"budgets {HOSTILE}",
        "EDGESSL_BUNDLE": "my bundle",
        "EDGESSL_BASELINE": "main.json",
    }
    for code in (0, 5):
        done = subprocess.run(
            ["sh", "-e", "-c", "\n".join(job["script"])],  # as the runner joins them
            cwd=request_job.place / "work",
            env={
                **request_job.environment(request_job.place / "output"),
                **job["variables"],
                **given,
                "STUB_CODE": str(code),
            },
        )
        assert done.returncode == code
        assert request_job.calls[-2][-1] == "edgessl[gate,onnx]"
        assert request_job.gates()[-1] == [
            f"--budget=budgets {HOSTILE}",
            "--max-minutes=5",
            "--baseline=main.json",
            "--output=edgessl-gate/report.json",
            "--overwrite",
            "--junit=edgessl-gate/junit.xml",
            "--markdown=edgessl-gate/gate.md",
            "--html=edgessl-gate/gate.html",
            "--",
            "my bundle",
        ]
    assert not list(request_job.place.rglob("pwned"))


def test_the_commands_have_the_options_that_are_used() -> None:
    from edgessl.cli import cli

    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hook["language"] == "python" and hook["pass_filenames"] is False
    command, *arguments = hook["entry"].split()
    gitlab = (ROOT / "ci" / "gitlab.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"--[a-z-]+(?==)", gitlab + (ROOT / "action.yml").read_text("utf-8")))
    gate = cli.commands["gate"]
    known = {name for option in gate.params for name in option.opts}
    assert command == "edgessl" and arguments[0] == "gate"
    assert {*arguments[1:], *used} <= known and len(used) >= 7
