"""A program that prints the numbers and WordNet ids of the devkit's ``meta.mat``: SciPy's reader in its own process.

On a damaged file SciPy may end the whole process that it runs in.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Print pairs as JSON; the arguments are the modules' search path, as JSON, and the file."""
    sys.path[:] = json.loads(sys.argv[1])
    from scipy.io import loadmat

    synsets = loadmat(sys.argv[2], squeeze_me=True, variable_names=["synsets"])["synsets"]
    pairs = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
    json.dump([(int(number), str(wnid).strip()) for number, wnid in pairs], sys.stdout)


if __name__ == "__main__":
    main()
