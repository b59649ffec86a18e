"""A fitted model, a pool, and what every method says of it: shared by the valuation benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import InfluenceSettings, KnnSettings, TsdsSettings
from lipo_cli.training.examples import Examples
from lipo_cli.valuation.gradients import OutputGradients, Part
from lipo_cli.valuation.influence import Molecules, influence
from lipo_cli.valuation.proxy import Proxy, knn_values, leave_one_out_values, make_proxy
from lipo_cli.valuation.removal import FoldedValues
from lipo_cli.valuation.tsds import ts_dshapley

Floats = NDArray[np.float64]
BASELINES = ("chance", "error of the model")
"""What stands beside the methods: neither needs a valuation."""


@dataclass(frozen=True)
class Valued:
    """What a method says of a pool; low is bad.

    Attributes:
        values: [n] values.
        fold_values: [n, F] their parts by fold of the target rows; None for a baseline, which
            looks at no target row.
    """

    values: Floats
    fold_values: Floats | None = None

    @classmethod
    def of(cls, found: FoldedValues) -> Valued:
        """Takes what the benchmarks read of a method's result."""
        return cls(found.values, found.fold_values)


@dataclass(frozen=True)
class World:
    """A fitted model, what it was trained on, its target rows, and a pool.

    Attributes:
        regressor: The fitted model.
        train: What it was trained on.
        target: The rows whose loss is to fall.
        pool: The points to value.
        embedded: The model's embeddings of train, target and pool.
    """

    regressor: Regressor
    train: Examples
    target: Examples
    pool: Examples
    embedded: tuple[Floats, Floats, Floats]

    @classmethod
    def of(cls, regressor: Regressor, train: Examples, target: Examples, pool: Examples) -> World:
        """Embeds the molecules of each part once."""
        train_x, target_x, pool_x = (regressor.embed(p.smiles) for p in (train, target, pool))
        return cls(regressor, train, target, pool, (train_x, target_x, pool_x))


def proxies_of(world: World, labels: Floats, seed: int) -> dict[str, Proxy]:
    """Returns the ridge proxy of either game over the pool with these labels."""
    train_x, target_x, pool_x = world.embedded
    settings = TsdsSettings(seed=seed)
    return {
        game: make_proxy(
            train_x,
            world.train.labels,
            pool_x,
            labels,
            target_x,
            world.target.labels,
            settings.model_copy(update={"game": game}),
        )
        for game in ("secondary", "empty")
    }


def values_by_method(
    world: World,
    labels: Floats,
    parts: Sequence[Part],
    seed: int,
    proxies: Mapping[str, Proxy] | None = None,
) -> dict[str, Valued]:
    """Returns what every method says of the pool with these labels.

    Args:
        world: The model and the molecules.
        labels: [n] labels of the pool.
        parts: Parameters that influence counts, a method each.
        seed: Of permutations and chance.
        proxies: What `proxies_of` says of the same; None: it is asked.
    """
    tsds = TsdsSettings(seed=seed)
    proxies = proxies or proxies_of(world, labels, seed)
    on_top, empty = proxies["secondary"], proxies["empty"]
    from_empty = tsds.model_copy(update={"game": "empty"})
    found: dict[str, Valued] = {
        "chance": Valued(np.random.default_rng(seed).normal(size=len(labels))),
        "error of the model": Valued(-np.abs(world.regressor.predict(world.pool.smiles) - labels)),
        "tsds": Valued.of(ts_dshapley(on_top.game, tsds)),
        "tsds, game from empty": Valued.of(ts_dshapley(empty.game, from_empty)),
        "knn": Valued.of(knn_values(empty, KnnSettings())),
        "loo": Valued.of(leave_one_out_values(on_top)),
    }
    sets: tuple[Molecules, ...] = tuple(
        Molecules(part.smiles, part.labels) for part in (world.train, world.target)
    )
    for part in parts:
        found[f"influence, {part}"] = Valued.of(
            influence(
                OutputGradients(world.regressor, part),
                *sets,
                Molecules(world.pool.smiles, labels),
                InfluenceSettings(),
                fold_of=on_top.game.fold_of,
            )
        )
    return found
