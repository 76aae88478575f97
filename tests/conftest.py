import warnings

import pytest
import torch

# the models here are tiny: one thread is faster than two
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", message="Setting forward, backward hooks and attributes on non-linear")
