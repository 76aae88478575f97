import warnings
import zlib

import pytest
import torch

# the models here are tiny: one thread is faster than two
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--one-in", type=int, default=1, metavar="N", help="run one in N tests, drawn by their names")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    drawn = [item for item in items if zlib.crc32(item.nodeid.encode()) % config.getoption("one_in") == 0]
    config.hook.pytest_deselected(items=[*{*items} - {*drawn}])
    items[:] = drawn


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", message="Setting forward, backward hooks and attributes on non-linear")
