"""Views of reports and verdicts: functions from data to text, which read and write nothing."""

from edgessl.gate.views.comment import markdown as markdown
from edgessl.gate.views.junit_xml import junit as junit
from edgessl.gate.views.page import html as html
from edgessl.gate.views.terminal import table as table
