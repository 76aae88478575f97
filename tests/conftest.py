import gc
import warnings
import zlib
from collections import Counter

import pytest
import torch

# the models here are tiny: one thread is faster than two
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every", action="store_true", help="run every combination of the tests marked one_in as well")
    parser.addoption("--one-in", type=int, default=1, metavar="N", help="run one in N tests, drawn by their names")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = config.getoption("every") or config.getoption("keyword") or any("::" in word for word in config.args)

    seen: Counter[str] = Counter()

    def is_drawn(item: pytest.Item) -> bool:
        if zlib.crc32(item.nodeid.encode()) % config.getoption("one_in"):
            return False
        mark = None if asked else item.get_closest_marker("one_in")
        if mark is None:
            return True
        test = item.nodeid.partition("[")[0]
        place, seen[test] = seen[test], seen[test] + 1
        # by the golden ratio: evenly over the rows and columns of a grid
        return place * 0.6180339887 % 1 < 1 / mark.args[0]

    drawn = [item for item in items if is_drawn(item)]
    config.hook.pytest_deselected(items=[*{*items} - {*drawn}])
    items[:] = drawn


def pytest_collection_finish() -> None:
    gc.freeze()  # the tests and libraries live to the end: no collection of garbage need look at them again


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", message="Setting forward, backward hooks and attributes on non-linear")
