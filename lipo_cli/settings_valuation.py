"""The settings of what gives points their values."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from lipo_cli.settings_base import Seed, Settings

ScoringMethod = Literal["tsds", "influence", "knn", "loo", "uncertain"]
SCORING_METHODS: tuple[ScoringMethod, ...] = get_args(ScoringMethod)


class TsdsSettings(Settings):
    """TS-DShapley on a ridge proxy (Schoch et al. 2023)."""

    game: Literal["secondary", "empty"] = "secondary"
    """`secondary`: players are the secondary points on top of the primary train set (game A);
    `empty`: chains over subsets from the empty set (game B, the paper's)."""
    components: int = Field(default=100, ge=1)
    """Principal components of the embeddings, fitted on primary train."""
    ridge: float | None = Field(default=None, gt=0)
    """Ridge penalty; None: chosen once by cross-validation on primary train."""
    relative_error: float = Field(default=0.1, gt=0)
    """Stop when the median error of the sampling is below this share of the values' spread."""
    min_permutations: int = Field(default=200, ge=4)
    max_permutations: int = Field(default=20_000, ge=4)
    subset_fraction: tuple[float, float] = (0.25, 0.5)
    """Game `empty`: sizes of the random subsets, as shares of all players."""
    folds: int = Field(default=5, ge=2)
    """Validation folds: the removal curve is read on rows that did not set the order."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _ranges_are_in_order(self) -> Self:
        low, high = self.subset_fraction
        if not 0 < low <= high <= 1:
            raise ValueError(f"subset_fraction ({low}, {high}) must be two shares, 0 < a <= b <= 1")
        if self.min_permutations > self.max_permutations:
            raise ValueError(
                f"min_permutations {self.min_permutations} is above max_permutations "
                f"{self.max_permutations}"
            )
        return self


class InfluenceSettings(Settings):
    """Influence functions (Koh & Liang 2017) on the fitted regressor."""

    part: Literal["all", "head", "output"] = "all"
    """Parameters that may move: all that were trained, the regression head, its last map."""
    curvature: Literal["gauss-newton", "hessian"] = "gauss-newton"
    solver: Literal["auto", "exact", "cg", "lissa", "ekfac"] = "auto"
    """`auto`: exact in the gradients' span where that can be had (of 1,000 train molecules where it
    is large: `curvature_rows`), else LiSSA over batches. `exact`: of all. `ekfac`: another
    curvature, block-diagonal over linear maps, with nothing to solve (needs `lipo[ekfac]`)."""
    damping: float = Field(default=0.01, gt=0)
    """lambda, as a share of the curvature's largest eigenvalue."""
    tolerance: float = Field(default=1e-3, gt=0, lt=1)
    """Relative residual at which a solver stops."""
    curvature_rows: int | None = Field(default=None, ge=2)
    """Measure the curvature on this many train molecules, drawn at random. None: all of them,
    but 1,000 where the span of the gradients is used, one table does not hold those of train, and
    the solver is not `exact`."""
    molecules_per_product: int = Field(default=32, ge=1)
    """Of a stochastic series."""
    table_gib: float = Field(default=6.0, gt=0)
    """Disk for gradients (in up to 16 parts of this size), memory for algebra in their span.

    Of EK-FAC: memory for the gradients of target rows that are wanted apart."""
    target: Literal["validation", "test"] = "validation"
    """The split whose loss is to fall. `test` leaks: no choice may rest on such values."""
    target_rows: tuple[int, ...] | None = None
    """Data rows (from 0) of the primary file, in the target split, instead of all of it."""
    seed: Seed = 0

    @field_validator("target_rows")
    @classmethod
    def _rows_are_several(cls, rows: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if rows is not None and (len(set(rows)) != len(rows) or len(rows) < 2 or min(rows) < 0):
            raise ValueError("target_rows: 2 or more different rows, counted from 0")
        return rows

    @model_validator(mode="after")
    def _ekfac_is_of_gauss_newton(self) -> Self:
        if self.solver == "ekfac" and self.curvature != "gauss-newton":
            raise ValueError("solver ekfac approximates the Gauss-Newton matrix, not the Hessian")
        return self


class KnnSettings(Settings):
    """KNN-Shapley (Jia et al. 2019) on the proxy's features."""

    neighbours: int = Field(default=5, ge=1)


_DEFAULT = TsdsSettings().model_dump()


class ValuationSettings(Settings):
    """How points are valued; every method's settings under its name."""

    tsds: TsdsSettings = TsdsSettings()
    """The proxy and its folds count for every method: they say how many points to keep."""
    influence: InfluenceSettings = InfluenceSettings()
    knn: KnnSettings = KnnSettings()

    def of(self, method: ScoringMethod) -> ValuationSettings:
        """Returns just what decides the values of a method: the others' settings at defaults."""
        sampling = ("relative_error", "min_permutations", "max_permutations", "subset_fraction")
        unread = {} if method == "tsds" else {name: _DEFAULT[name] for name in sampling}
        return ValuationSettings(
            tsds=self.tsds.model_copy(update=unread),
            influence=self.influence if method == "influence" else InfluenceSettings(),
            knn=self.knn if method == "knn" else KnnSettings(),
        )
