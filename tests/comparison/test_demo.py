"""On the demo set, where the truth is known, the main job finds it."""

from __future__ import annotations

import pytest
from sklearn.metrics import roc_auc_score

from lipo_cli.comparison.engine import compare
from lipo_cli.comparison.prepare import prepare
from lipo_cli.settings import ComparedTraining, CompareSettings, DataSettings
from lipo_cli.tracking.ledger import MlflowLedger
from lipo_cli.tracking.store import Store
from tests.comparison.conftest import Listener


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_tsds_tells_wrong_labels_and_beats_taking_all(store: Store) -> None:
    """The demo was designed so that this holds: it tests the pipeline, not the method's power."""
    settings = CompareSettings(
        data=DataSettings(dataset="demo"),
        selections=("tsds", "all"),
        peft=("lora",),
        controls=False,
        training=ComparedTraining(epochs=2),  # enough for the values; the five of the job, slower
    )
    prepared = prepare(settings.data)
    result = compare(settings, prepared, MlflowLedger(store, "demo"), Listener())
    assert "corrupted" not in result.scored["tsds"].table.columns
    wrong = prepared.dataset.known_corruption
    assert wrong is not None
    wrong = wrong[prepared.require_pool().positions]
    assert 100 < wrong.sum() < 140
    assert roc_auc_score(wrong, -result.scored["tsds"].table["value"]) >= 0.85
    rmse = {cell.selection: cell.test_rmse for cell in result.cells}
    assert rmse["tsds"] < rmse["all"]  # type: ignore[operator]  # both are finished
