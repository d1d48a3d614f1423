"""What is told of a long computation, on a machine of any speed."""

import pytest

from pipeline import progress


def test_nothing_done_yet_has_no_rate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "EVERY", -1)
    counted = progress.Progress("align", 4)
    counted.add(0)
    assert capsys.readouterr().err == ""
    counted.add(2, rejected=1)
    assert capsys.readouterr().err.startswith("align: 2/4, ")
