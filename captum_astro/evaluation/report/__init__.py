"""The report of a benchmark: an HTML page, and tables as CSV, Markdown and LaTeX."""

from captum_astro.evaluation.report.files import write_tables as write_tables
from captum_astro.evaluation.report.html import write_report as write_report
