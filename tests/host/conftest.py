from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

gc.set_threshold(50_000, 20, 50)  # graphs are made of very many objects that live long: looking for garbage takes 7 %


@pytest.fixture(scope="session")
def _pages() -> Iterator[list[bool]]:
    """A list that is not empty while trainings shall write their page and draw their curves."""
    from edge_ran.host import training_report

    wanted: list[bool] = []
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((training_report, "write"), (training_report.Curves, "finish")):
            real = getattr(owner, name)
            patch.setattr(owner, name, lambda *given, real=real: real(*given) if wanted else None)
        yield wanted


@pytest.fixture(autouse=True, scope="session")
def trainings_without_page(_pages: list[bool]) -> None:
    """Leave ``report.html`` and ``curves.png`` out, which take longer than a training of these tests."""


@pytest.fixture
def with_page(_pages: list[bool]) -> Iterator[None]:
    """Have trainings write their ``report.html`` and ``curves.png``, as they do elsewhere."""
    _pages.append(True)
    yield
    _pages.clear()
