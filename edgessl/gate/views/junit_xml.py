"""Verdicts as JUnit XML: a test case a limit."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from edgessl.gate import words
from edgessl.gate.report import Report
from edgessl.gate.verdict import FAIL, INCONCLUSIVE, Judgement, Verdict

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report, judgement: Judgement) -> str:
    """JUnit XML as Jenkins, GitLab and GitHub's test reporters read it.

    A broken limit is a ``failure``. An inconclusive one is ``skipped`` with its reason: they all
    count an ``error`` as a failed test, which would be the false alarm that the verdict avoids,
    and all show a skipped test and its message. That an inconclusive gate does not pass is said by
    the command's exit code, which is what CI goes by.
    """
    counts = words.counted(judgement)
    facts = {
        "name": "edgessl gate",
        "tests": str(len(judgement.verdicts)),
        "failures": str(counts[FAIL]),
        "errors": "0",
        "skipped": str(counts[INCONCLUSIVE]),
        "time": f"{judgement.seconds:.3f}",
    }
    top = ET.Element("testsuites")  # attributes of its own are against one schema or another
    host = _token(str(report.environment.get("host") or "")) or "localhost"
    when = {"timestamp": _time(report.created), "hostname": host}
    suite = ET.SubElement(top, "testsuite", {**facts, **when, "package": "edgessl", "id": "0"})
    properties = ET.SubElement(suite, "properties")
    about = {"verdict": judgement.outcome, "commit": report.commit, "created": report.created}
    for name, value in (*about.items(), *words.environment(report)):
        ET.SubElement(properties, "property", name=_token(name), value=_clean(value))
    for verdict in judgement.verdicts:
        _case(suite, verdict)
    ET.SubElement(suite, "system-out").text = _clean(words.headline(judgement))
    ET.SubElement(suite, "system-err")
    ET.indent(top)
    body = ET.tostring(top, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _case(suite: ET.Element, verdict: Verdict) -> None:
    # GitLab keeps only the first of two cases of one name; Jenkins takes what is before the last
    # dot of a class for its package.
    name = f"{verdict.limit} {verdict.subject} {words.where(verdict)} ({verdict.budget})"
    subject = verdict.subject.replace(".", "_")
    case = ET.SubElement(
        suite, "testcase", name=_token(name), classname=_token(f"edgessl.{subject}"), time="0"
    )
    said = f"{words.measured(verdict)}, limit {words.bound(verdict)}: {verdict.reason}"
    text = _clean(
        "\n".join(
            (
                verdict.reason,
                f"measured: {words.measured(verdict)}",
                f"interval: {words.interval(verdict)}",
                f"limit: {words.bound(verdict)}",
                f"samples: {verdict.samples}",
            )
        )
    )
    if verdict.outcome == FAIL:
        # GitLab shows the text, GitHub's reporters and Jenkins the message first.
        failure = ET.SubElement(case, "failure", message=_token(said), type="limit broken")
        failure.text = text
    elif verdict.outcome == INCONCLUSIVE:
        ET.SubElement(case, "skipped", message=_token(f"inconclusive: {said}")).text = text


def _clean(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return _NOT_XML.sub("\ufffd", text)


def _token(text: str) -> str:
    return " ".join(_clean(text).split())


def _time(created: str) -> str:
    """``2026-11-20T17:02:11``: the format has no zone; UTC."""
    found = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", created)
    return found[0] if found else "1970-01-01T00:00:00"
