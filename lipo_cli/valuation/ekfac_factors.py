"""EK-FAC's factors and products by kronfluence; importable where `lipo[ekfac]` is installed.

Damping is added to the eigenvalues as it is given (`damping_factor`), one lambda for all maps;
kronfluence's default of 1e-8 and its heuristic, a tenth of each map's mean eigenvalue, are never
taken.
"""

from __future__ import annotations

import copy
import gc
import logging
import math
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from kronfluence import Analyzer, FactorArguments, ScoreArguments, prepare_model
from kronfluence.utils.dataset import DataLoaderKwargs
from kronfluence.utils.state import State

from lipo_cli.errors import ValuationError
from lipo_cli.model.batches import batches_in_order
from lipo_cli.progress import Progress
from lipo_cli.valuation.arrays import FloatArray, IntArray
from lipo_cli.valuation.ekfac import Seen
from lipo_cli.valuation.ekfac_task import Rows, SquaredError, collator, predict
from lipo_cli.valuation.gradients import OutputGradients
from lipo_cli.valuation.influence_task import Molecules

_AT_ONCE = 32
_NUMBERS = 2**25
"""Gradients of a batch by one map stay at some hundred MB."""
_NAME = "ekfac"


@contextmanager
def _in_silence() -> Iterator[str]:
    """Gives a temporary folder while kronfluence is neither heard nor slow for want of a detail.

    It collects garbage before and after every step, 22 times for four folds: almost a second each
    while all that was ever imported is looked through.
    """
    logger = logging.getLogger("kronfluence")
    level = logger.level
    logger.setLevel(logging.ERROR)
    gc.freeze()
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="lipo-ekfac-") as folder:
            warnings.filterwarnings("ignore", category=FutureWarning, module="kronfluence")
            yield folder
    finally:
        gc.unfreeze()
        logger.setLevel(level)


class Factors:
    """Factors in a temporary folder, for the time of a `with` block.

    Args:
        gradients: Of the network or the head, which is copied, and left as it is.
        seen: The linear maps that count.
        progress: Told of molecules.
    """

    def __init__(self, gradients: OutputGradients, seen: Seen, progress: Progress) -> None:
        self._gradients, self._seen, self._progress = gradients, seen, progress
        first = next(gradients.module.parameters())
        self._dtype, self._device = first.dtype, first.device
        widest = max(
            gradients.module.get_submodule(name).get_parameter("weight").numel()
            for name in seen.maps
        )
        self._collate = collator(
            self._dtype, gradients.regressor.pad_id, on_embeddings=gradients.on_embeddings
        )
        self._at_once = max(1, min(_AT_ONCE, _NUMBERS // widest))

    def __enter__(self) -> Self:
        """Wraps a copy of the network for kronfluence, which would freeze and change the original.

        Raises:
            ValuationError: a map is used several times for a molecule.
        """
        self._gradients.regressor.model.eval()
        task = SquaredError(self._used_maps(), self._progress)
        with ExitStack() as around:
            scratch = around.enter_context(_in_silence())
            model = prepare_model(copy.deepcopy(self._gradients.module), task)
            # The device is remembered for the whole process, whoever asked first.
            State._reset_state()
            self._analyzer = Analyzer(
                _NAME,
                model,
                task,
                cpu=self._device.type == "cpu",
                disable_tqdm=True,
                output_dir=scratch,
            )
            self._analyzer.set_dataloader_kwargs(DataLoaderKwargs(collate_fn=self._collate))
            self._around = around.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Removes the folder."""
        self._around.close()

    def fit(self, molecules: Molecules) -> float:
        """Fits the factors; returns the largest eigenvalue of the curvature.

        Raises:
            ValuationError: it is zero or not finite.
        """
        rows, _ = self._rows(molecules)
        self._progress.start("EK-FAC factors", 2 * len(rows), "molecules")
        dtypes = {
            "activation_covariance_dtype": self._dtype,
            "gradient_covariance_dtype": self._dtype,
            "per_sample_gradient_dtype": self._dtype,
            "lambda_dtype": self._dtype,
        }
        whole = {"covariance_max_examples": None, "lambda_max_examples": None}
        try:
            self._analyzer.fit_all_factors(
                _NAME,
                rows,
                per_device_batch_size=self._at_once,
                factor_args=FactorArguments(strategy="ekfac", **dtypes, **whole),
            )
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # not finite
            largest = math.nan
        else:
            found = self._analyzer.load_lambda_matrices(_NAME)
            sums, counts = found["lambda_matrix"], found["num_lambda_processed"]
            largest = max(float(sums[name].max() / counts[name]) for name in sums)
        self._progress.finish()
        if not (largest > 0 and math.isfinite(largest)):
            raise ValuationError(
                f"the largest eigenvalue of EK-FAC's curvature is {largest:g}",
                hint="the model's gradients vanish or are not finite: train it anew",
            )
        return largest

    def products(
        self,
        target: Molecules,
        points: Molecules,
        damping: float,
        *,
        together: bool,
        gib: float = 1.0,
    ) -> FloatArray:
        """Multiplies the target's gradients with the points' over the damped curvature.

        Args:
            target: [m] the rows whose loss is to fall.
            points: [n].
            damping: lambda.
            together: Whether the gradients of the rows are summed first.
            gib: Memory that they may take where they are not; beyond it the points are read again.

        Returns:
            [n, m], or [n, 1] together: grad (f - y)^2 of a row, times (H + lambda I)^-1, times
            grad (f - y)^2 of a point.
        """
        rows, order = self._rows(points)
        queries, query_order = self._rows(target)
        rows_held = int(gib * 2**30 / (self._dtype.itemsize * self._seen.n_parameters))
        queries_at_once = max(1, min(self._at_once, rows_held))
        held = max(1, rows_held // queries_at_once)
        arguments = ScoreArguments(
            damping_factor=damping,
            aggregate_query_gradients=together,
            query_gradient_accumulation_steps=held,
            per_sample_gradient_dtype=self._dtype,
            precondition_dtype=self._dtype,
            score_dtype=self._dtype,
        )
        self._analyzer.compute_pairwise_scores(
            _NAME,
            _NAME,
            queries,
            rows,
            per_device_query_batch_size=queries_at_once,
            per_device_train_batch_size=self._at_once,
            score_args=arguments,
            overwrite_output_dir=True,
        )
        scores = self._analyzer.load_pairwise_scores(_NAME)["all_modules"].double().numpy()
        found: FloatArray = np.empty((len(rows), len(scores)))
        found[np.ix_(order, np.zeros(1, dtype=np.int64) if together else query_order)] = scores.T
        return found

    def _rows(self, molecules: Molecules) -> tuple[Rows, IntArray]:
        """Returns rows by length, which are padded least, and their places in the order given."""
        regressor = self._gradients.regressor
        if self._gradients.on_embeddings:
            inputs: list[Any] = list(regressor.embed(molecules.smiles))
            order = np.arange(len(inputs))
        else:
            inputs = list(regressor.encode(molecules.smiles).ids)
            order = batches_in_order([len(ids) for ids in inputs], len(inputs))[0]
        places = order.tolist()
        return Rows([inputs[i] for i in places], molecules.labels[order].tolist()), order

    def _used_maps(self) -> list[str]:
        """Returns the maps that a molecule goes through; of the others there is no gradient.

        Raises:
            ValuationError: it goes through one of them several times.
        """
        model, uses = self._gradients.module, Counter[str]()
        handles = [
            model.get_submodule(name).register_forward_hook(
                lambda *_, name=name: uses.update([name])
            )
            for name in self._seen.maps
        ]
        try:
            rows, _ = self._rows(Molecules(["C"], np.zeros(1)))
            batch = self._collate([rows[0]])
            with torch.no_grad():
                predict(model, {key: value.to(self._device) for key, value in batch.items()})
        finally:
            for handle in handles:
                handle.remove()
        if several := [name for name in self._seen.maps if uses[name] > 1]:
            # kronfluence would count its last use alone.
            raise ValuationError(
                f"{len(several)} linear maps of this encoder are used several times for a molecule "
                f"({several[0]}, ...), which EK-FAC by kronfluence does not count right",
                where="--solver ekfac",
                hint="take --solver auto, or --parameters head",
            )
        if not uses:
            raise ValuationError("no linear map that was trained is used for a molecule")
        return [name for name in self._seen.maps if uses[name]]
