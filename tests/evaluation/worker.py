"""The program started by torchrun: ``captum-astro`` with the tests' model registered with timm."""

from captum_astro.cli import main
from tests.evaluation import making  # noqa: F401

if __name__ == "__main__":
    main()
