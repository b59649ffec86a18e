"""A scoring that is kept: found again where what decides it is the same, recorded otherwise."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lipo_cli.comparison.cell_record import log_inputs
from lipo_cli.comparison.cells import cell_fingerprint
from lipo_cli.comparison.fitted import Fitted
from lipo_cli.comparison.ledger import Finished, Ledger, code_version
from lipo_cli.comparison.plan import NO_ROWS, Cell
from lipo_cli.comparison.prepare import Prepared, digest, rows_digest
from lipo_cli.comparison.score_figures import draw_scores
from lipo_cli.comparison.scoring import Scored, score_pool
from lipo_cli.comparison.targets import target_of
from lipo_cli.errors import TrackingError
from lipo_cli.progress import Progress
from lipo_cli.settings import Peft, ScoringMethod, TrainingSettings, ValuationSettings
from lipo_cli.valuation.selection import PointScores
from lipo_cli.valuation.table import read_curve, read_values, write_values

BY_TARGET = "by_target.csv"
"""A column of values for each target row that was named."""


class ScoreParameters(ValuationSettings):
    """The parameters of a scoring's run."""

    method: ScoringMethod
    dataset: str
    split: str
    reference_peft: Peft
    reference_seed: int
    training: TrainingSettings


def scores_of(
    method: ScoringMethod,
    reference: Cell,
    fitted: Fitted,
    prepared: Prepared,
    training: TrainingSettings,
    valuation: ValuationSettings,
    ledger: Ledger,
    progress: Progress,
) -> Scored:
    """Finds the values that a method gives the pool, or computes and records them."""
    pool = prepared.require_pool()
    deciding = valuation.of(method)
    fingerprint = _fingerprint(method, reference, prepared, training, valuation)
    if (found := ledger.find(fingerprint)) is not None:
        return _scored_from(method, found)
    settings = ScoreParameters(
        method=method,
        dataset=prepared.dataset.name,
        split=prepared.split.name,
        reference_peft=reference.peft,
        reference_seed=reference.seed,
        training=reference.training(training),
        tsds=deciding.tsds,
        influence=deciding.influence,
        knn=deciding.knn,
    )
    tags = {
        "method": method,
        "peft": reference.peft,
        "dataset": prepared.dataset.name,
        "split": prepared.split.name,
        "overlap": pool.overlap.sentence(),
    }
    if method == "influence" and valuation.influence.target == "test":
        tags["leaking"] = "the target is the test split"
    with ledger.record("score", method, fingerprint, settings, tags) as record:
        log_inputs(record, prepared, np.arange(len(pool), dtype=np.int64))
        scored = score_pool(
            method, fitted, prepared, valuation, reference.training(training), progress
        )
        record.metrics(scored.figures)
        record.tags({"reason": scored.reason, "optimal": scored.sentence})
        with tempfile.TemporaryDirectory() as scratch:
            for path in write_values(Path(scratch), scored.table, scored.curve):
                record.file(path, "values")
            if scored.by_target is not None:
                scored.by_target.to_csv(Path(scratch) / BY_TARGET, index=False)
                record.file(Path(scratch) / BY_TARGET, "values")
            label = prepared.dataset.label_name()
            for path in draw_scores(scored, Path(scratch) / "figures", label):
                record.figure(path)
    return replace(scored, record=ledger.find(fingerprint))


def find_scores(
    method: ScoringMethod,
    reference: Cell,
    prepared: Prepared,
    training: TrainingSettings,
    valuation: ValuationSettings,
    ledger: Ledger,
) -> Scored | None:
    """Returns the values that a method gave the pool, where they are recorded."""
    found = ledger.find(_fingerprint(method, reference, prepared, training, valuation))
    return None if found is None else _scored_from(method, found)


def _fingerprint(
    method: ScoringMethod,
    reference: Cell,
    prepared: Prepared,
    training: TrainingSettings,
    valuation: ValuationSettings,
) -> str:
    """Names everything that decides the values."""
    pool = prepared.require_pool()
    # Rows are named as the file counts them: what decides are the molecules that stand there.
    target = target_of(prepared, valuation.influence) if method == "influence" else None
    by_ekfac = method == "influence" and valuation.influence.solver == "ekfac"
    return valuation.of(method).fingerprint(
        method=method,
        reference=cell_fingerprint(reference, NO_ROWS, prepared, training),
        pool=digest(pool.examples),
        # Tables name rows of the file: the same molecules elsewhere in it are another table.
        rows=rows_digest(pool.rows),
        target=None if target is None else target.fingerprint(),
        code=code_version(libraries=("kronfluence",) if by_ekfac else ()),
    )


def _scored_from(method: ScoringMethod, found: Finished) -> Scored:
    table = read_values(found.artifact("values/values.parquet"))
    scores = PointScores(
        table["value"].to_numpy(),
        table["standard_error"].to_numpy(),
        None if (kept := found.metrics.get("n_optimal")) is None else int(kept),
        table["smiles"].tolist(),
    )
    return Scored(
        method=method,
        scores=scores,
        table=table,
        curve=read_curve(found.artifact("values/removal_curve.csv")),
        figures=dict(found.metrics),
        sentence=found.tags.get("optimal", ""),
        reason=found.tags.get("reason", ""),
        converged=bool(found.metrics["converged"]),
        by_target=_by_target_from(found),
        leaks="leaking" in found.tags,
        record=found,
    )


def _by_target_from(found: Finished) -> pd.DataFrame | None:
    try:
        return pd.read_csv(found.artifact(f"values/{BY_TARGET}"), keep_default_na=False)
    except TrackingError:  # no rows were named
        return None
