"""Runs over datasets, in five parts that import each other one way.

``specification`` defines what to run, ``run`` computes the rows, ``analysis`` derives tables from them, ``report``
writes the tables and an HTML page, and ``vita`` searches over astrocyte settings with the engine of ``run``.
"""

from captum_astro.extras import require

# checked here, so that whichever part is imported first reports a missing extra
require("The evaluation", "pandas", "pyarrow", "scipy", "jinja2", extra="bench")
