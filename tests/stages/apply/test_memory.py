"""What is kept in memory stays under its limit; the least recently used goes first."""

import numpy as np

from stages.apply.memory import Memory


def test_the_least_recently_used_goes_first() -> None:
    made: list[str] = []
    memory = Memory(100)

    def get(key: str, size: int = 40) -> None:
        memory.get(key, lambda: (made.append(key), [np.zeros(size, np.uint8)])[1])

    for key in "abacab":
        get(key)
        assert memory.held <= 100
    assert made == ["a", "b", "c", "b"] and "a" in memory and "c" not in memory
    get("large", 101)
    get("large", 101)
    assert made[-2:] == ["large", "large"] and "large" not in memory and "a" in memory
