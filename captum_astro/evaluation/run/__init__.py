"""The engine: samples are read, explained and scored, and the rows stored chunk by chunk so that a run can resume."""

from captum_astro.evaluation.run.bench import run_bench as run_bench
from captum_astro.evaluation.run.results import read_run as read_run
