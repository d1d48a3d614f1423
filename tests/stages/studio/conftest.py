"""The browser that most tests of the studio share."""

from collections.abc import Iterator

import pytest

from tests.stages.studio.tiny_studio import Browser, start


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = start(tmp_path_factory.mktemp("studio"))
    yield made
    made.server.close()
