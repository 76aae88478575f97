"""Runs over datasets, in seven parts that import each other one way.

``specification`` defines what to run, ``run`` computes the rows, ``analysis`` derives tables from them, ``report``
writes the tables and an HTML page, ``evidence`` pages in Markdown, ``vita`` searches over astrocyte settings with the
engine of ``run``, and ``words`` computes such rows for text models.
"""

from captum_astro.extras import require

# checked here, so that whichever part is imported first reports a missing extra
require("The evaluation", "pandas", "pyarrow", "scipy", "jinja2", extra="bench")
