"""Runs over datasets, in five parts that import each other one way.

``specification`` says what is to be run, ``run`` computes the rows, ``analysis`` draws tables from them, ``report``
writes the tables and a page, and ``vita`` searches for settings of the astrocytes by the engine of ``run``.
"""
