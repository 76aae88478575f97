"""What torchrun starts: ``captum-astro`` with the tests' model known to timm."""

from captum_astro.cli import main
from tests.evaluation import making  # noqa: F401

if __name__ == "__main__":
    main()
