"""The report of a benchmark: an HTML page, tables as CSV, Markdown and LaTeX, and the form of the Hugging Face Hub."""

from captum_astro.evaluation.report.files import write_tables as write_tables
from captum_astro.evaluation.report.html import write_report as write_report
from captum_astro.evaluation.report.hub import write_hub as write_hub
