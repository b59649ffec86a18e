"""The description of a comparison's run."""

from __future__ import annotations

from lipo_cli.comparison.engine import compare
from lipo_cli.comparison.note import note_of
from lipo_cli.comparison.prepare import prepare
from lipo_cli.tracking.ledger import MlflowLedger
from lipo_cli.tracking.store import Store
from tests.comparison.conftest import Listener, World


def test_the_note_has_the_table_and_the_verdicts_that_fit(world: World, store: Store) -> None:
    settings = world.settings(selections=("random:k=6",), peft=("lora",), seeds=2)
    ledger = MlflowLedger(store, settings.experiment)
    result = compare(settings, prepare(settings.data), ledger, Listener())
    lines = note_of(result, 5000).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| none", "| all", "| random:k=6"]
    assert all(line.count("|") == 7 for line in lines[:5])
    told = [line for line in lines if line.startswith("- ")]
    assert [(v.selection, v.against) for v in result.verdicts] == [
        ("all", "none"),
        ("random:k=6", "none"),
        ("random:k=6", "all"),
    ]
    for line, verdict in zip(told, result.verdicts, strict=True):
        assert line.startswith(f"- {verdict.selection} / lora: ")
        assert verdict.outcome() in line
    result.left_out = ["seed 2"]
    assert "A time budget left out: seed 2." in note_of(result, 5000)
    result.left_out = []
    assert lines[-1] == "The whole of it: `report.html` under Artifacts."
    for limit in range(60, 600, 30):
        short = note_of(result, limit)
        assert len(short) <= limit
        assert short.endswith(lines[-1])
        assert {*short.splitlines()} <= {*lines}, "a line was cut"
