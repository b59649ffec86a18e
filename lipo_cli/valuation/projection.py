"""From embeddings to the features of the ridge proxy: scaled, projected, and a penalty for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

from lipo_cli.errors import ValuationError
from lipo_cli.valuation.arrays import FloatArray, finite_matrix, finite_vector

PENALTIES = np.logspace(-7, 1, 49)
"""Candidate penalties, as shares of the largest eigenvalue of X^T X."""


@dataclass(frozen=True)
class Projection:
    """Standardisation and principal components, both of primary train.

    Attributes:
        mean: [D] means of the embeddings.
        scale: [D] standard deviations, 1 where a column is constant.
        components: [D, d] orthonormal columns, the directions of largest variance.
        explained: The share of the variance that they carry.
    """

    mean: FloatArray
    scale: FloatArray
    components: FloatArray
    explained: float

    def transform(self, x: ArrayLike) -> FloatArray:
        """Returns [n, d] features of [n, D] embeddings; primary train has mean 0.

        Raises:
            ValuationError: a number is not finite or the width is not D.
        """
        embeddings = finite_matrix("the embeddings", x)
        if embeddings.shape[1] != len(self.mean):
            raise ValuationError(
                f"the projection was fitted on {len(self.mean)} columns, "
                f"the embeddings have {embeddings.shape[1]}"
            )
        return np.asarray(((embeddings - self.mean) / self.scale) @ self.components)


def fit_projection(train_x: ArrayLike, n_components: int) -> Projection:
    """Fits scaler and principal components on primary train, and on nothing else.

    Args:
        train_x: [N, D] embeddings.
        n_components: Wanted components, capped to min(N - 1, D).

    Raises:
        ValuationError: a number is not finite, or there are fewer than two rows.
    """
    embeddings = finite_matrix("the train embeddings", train_x)
    if len(embeddings) < 2:
        raise ValuationError("a projection needs two or more train rows")
    kept = max(1, min(n_components, len(embeddings) - 1, embeddings.shape[1]))
    scaler = StandardScaler().fit(embeddings)
    pca = PCA(kept, svd_solver="covariance_eigh").fit(scaler.transform(embeddings))
    explained = float(np.nan_to_num(pca.explained_variance_ratio_).sum())
    return Projection(
        mean=np.asarray(scaler.mean_),
        scale=np.asarray(scaler.scale_),
        components=np.ascontiguousarray(pca.components_.T),
        explained=explained,
    )


def choose_ridge(train_z: ArrayLike, train_y: ArrayLike, *, folds: int = 5, seed: int = 0) -> float:
    """Returns the penalty of the lowest cross-validated squared error on primary train.

    One eigendecomposition per fold serves all candidates; ties take the larger penalty.

    Args:
        train_z: [N, d] features.
        train_y: [N] labels.
        folds: Shuffled folds.
        seed: Of the shuffle.

    Raises:
        ValuationError: a number is not finite, all features are constant, or rows are too few.
    """
    features = finite_matrix("the train features", train_z)
    labels = finite_vector("the train labels", train_y, len(features))
    if len(features) < 2 * folds:
        raise ValuationError(f"{folds} folds need {2 * folds} train rows, there are {len(labels)}")
    centred = features - features.mean(axis=0)
    largest = float(np.linalg.norm(centred, ord=2)) ** 2
    if largest <= 0:
        raise ValuationError("all train features are constant")
    candidates = PENALTIES * largest
    losses = np.zeros(len(candidates))
    for train, held_out in KFold(folds, shuffle=True, random_state=seed).split(features):
        losses += _held_out_losses(
            features[train], labels[train], features[held_out], labels[held_out], candidates
        )
    best = np.flatnonzero(losses <= losses.min())[-1]
    return float(candidates[best])


def _held_out_losses(
    x: FloatArray, y: FloatArray, rows: FloatArray, targets: FloatArray, penalties: FloatArray
) -> FloatArray:
    """Returns the sum of squared errors on `rows` for each penalty, the intercept free."""
    centre, mean = x.mean(axis=0), y.mean()
    x, rows = x - centre, rows - centre
    eigenvalues, vectors = np.linalg.eigh(x.T @ x)
    moments = vectors.T @ (x.T @ (y - mean))
    weights = vectors @ (moments[:, None] / (np.maximum(eigenvalues, 0.0)[:, None] + penalties))
    residuals = (targets - mean)[:, None] - rows @ weights
    return np.asarray((residuals**2).sum(axis=0))
