"""Runs over datasets, in five parts that import each other one way.

``specification`` says what is to be run, ``run`` computes the rows, ``analysis`` draws tables from them, ``report``
writes the tables and a page, and ``vita`` searches for settings of the astrocytes by the engine of ``run``.
"""

from captum_astro.extras import require

# here, so that whichever part is imported first says what is missing
require("The evaluation", "pandas", "pyarrow", "scipy", "jinja2", extra="bench")
