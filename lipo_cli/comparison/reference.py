"""The reference model: the control `none`, which embeds the pool to give its points values."""

from __future__ import annotations

from dataclasses import replace

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.cells import cell_fingerprint, run_cell
from lipo_cli.comparison.fitted import Fitted
from lipo_cli.comparison.ledger import Ledger
from lipo_cli.comparison.plan import NO_ROWS, Cell
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.view import View
from lipo_cli.model.memory import give_back
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import PEFT_METHODS, Peft, TrainingSettings


def reference_model(
    cell: Cell, prepared: Prepared, training: TrainingSettings, ledger: Ledger, view: View
) -> tuple[Fitted, CellResult]:
    """Returns the model that embeds the pool: the cell `none`, trained now or found."""
    view.started(cell)
    result = run_cell(
        cell,
        NO_ROWS,
        prepared,
        training,
        ledger,
        progress=view,
        on_epoch=lambda row: view.epoch(cell, row),
    )
    view.finished(cell, result)
    assert result.run_id is not None
    give_back()  # what the training took, before a large pool wants its own
    # Loaded from the record, not kept: scores then are the same whether it was trained or found.
    regressor = Regressor.load(ledger.regressor_folder(result.run_id), device=training.device)
    return Fitted(regressor), result


def other_references(
    cell: Cell, prepared: Prepared, training: TrainingSettings, ledger: Ledger
) -> list[Peft]:
    """Returns the other methods whose reference model is recorded, where this one's is not."""

    def known(peft: Peft) -> bool:
        like = replace(cell, peft=peft)
        return ledger.find(cell_fingerprint(like, NO_ROWS, prepared, training)) is not None

    return [] if known(cell.peft) else [p for p in PEFT_METHODS if p != cell.peft and known(p)]
