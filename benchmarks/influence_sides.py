"""The ways that `influence_peers.py` sets side by side, each to be run in a process of its own.

    python influence_sides.py WAY FOLDER

FOLDER holds the fitted model and plan.json; one line of JSON with values, seconds and memory goes
to standard output. kronfluence and dattri are used by their own API, without ours between.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from lipo_cli.model.batches import collate
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import InfluenceSettings
from lipo_cli.valuation.gradients import OutputGradients
from lipo_cli.valuation.influence import Molecules, influence

_FOLDS = 2
_AT_ONCE = 32


@dataclass(frozen=True)
class World:
    """The fitted model, the molecules, and the damping (a share, and lambda once it is known)."""

    regressor: Regressor
    train: Molecules
    target: Molecules
    points: Molecules
    share: float
    damping: float | None

    @classmethod
    def read(cls, folder: Path, plan: dict[str, Any]) -> World:
        """Reads what `influence_peers.py` wrote."""
        parts = (
            Molecules(plan[name]["smiles"], np.array(plan[name]["labels"]))
            for name in ("train", "target", "points")
        )
        model = Regressor.load(folder / "model", device="cpu")
        return cls(model, *parts, plan["share"], plan.get("damping"))

    def tensors(self, part: Molecules) -> tuple[Tensor, Tensor, Tensor]:
        """Returns ids and mask [n, length] and labels [n] of a part, padded to one length."""
        ids = self.regressor.encode(part.smiles).ids
        batch = collate(ids, self.regressor.pad_id)
        labels = torch.tensor(part.labels, dtype=torch.float32)
        return batch.input_ids, batch.attention_mask, labels


def ours(world: World, **settings: Any) -> dict[str, Any]:
    """Values by `influence`."""
    found = influence(
        OutputGradients(world.regressor),
        world.train,
        world.target,
        world.points,
        InfluenceSettings(damping=world.share, **settings),
        fold_of=np.arange(len(world.target)) % _FOLDS,
    )
    note = found.how() if settings["solver"] == "ekfac" else f"residual {found.residuals[-1]:.2g}"
    return {"values": found.values.tolist(), "damping": found.damping, "note": note}


def without_curvature(world: World) -> dict[str, Any]:
    """Values by inner products of gradients alone: what a way must surpass to know a curvature."""
    gradients, target, points = OutputGradients(world.regressor), world.target, world.points
    errors = [
        gradients.predictions(part.smiles).double() - torch.from_numpy(part.labels)
        for part in (target, points)
    ]
    downhill = gradients.weighted(target.smiles, (2 * errors[0] / len(target)).float())
    _, slopes = gradients.along(points.smiles, downhill[:, None])
    return {"values": (2 * errors[1] * slopes[:, 0].double() / len(world.train)).tolist()}


def by_kronfluence(world: World, *, default_damping: bool) -> dict[str, Any]:
    """Values by kronfluence's EK-FAC, as its documentation fits and asks for a regression."""
    from kronfluence import Analyzer, FactorArguments, ScoreArguments, Task, prepare_model

    model = world.regressor.model
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    maps = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" in trained
    ]

    class Regression(Task):
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            ids, mask, labels = batch
            predicted = model(input_ids=ids, attention_mask=mask).logits[:, 0]
            if sample:
                with torch.no_grad():
                    labels = torch.normal(predicted.detach(), std=math.sqrt(0.5))
            return (predicted - labels).square().sum()

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return maps

        def get_attention_mask(self, batch: Any) -> Tensor:
            return batch[1]

    torch.manual_seed(0)
    task = Regression()
    train, target, points = (
        TensorDataset(*world.tensors(part)) for part in (world.train, world.target, world.points)
    )
    damping = {} if default_damping else {"damping_factor": world.damping}
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer(
            "peer", prepare_model(model, task), task, cpu=True, disable_tqdm=True, output_dir=folder
        )
        analyzer.fit_all_factors(
            "factors", train, per_device_batch_size=_AT_ONCE, factor_args=FactorArguments()
        )
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            query_dataset=target,
            train_dataset=points,
            per_device_query_batch_size=_AT_ONCE,
            per_device_train_batch_size=_AT_ONCE,
            score_args=ScoreArguments(aggregate_query_gradients=True, **damping),
        )
        scores = analyzer.load_pairwise_scores("scores")["all_modules"][0]
    values = scores.double() / (len(target) * len(train))
    note = "damping 1e-8, its default" if default_damping else ""
    return {"values": values.tolist(), "note": note}


def by_dattri(world: World, *, solver: str) -> dict[str, Any]:
    """Values by one of dattri's influence functions, the whole target as one test item.

    Its full train set is one batch: over several it would sum the inverses of each.
    """
    from dattri import algorithm
    from dattri.task import AttributionTask

    model = world.regressor.model.eval()

    def loss(parameters: Any, data: Any) -> Tensor:
        ids, mask, labels = data
        # Its LiSSA hands all but the parameters over as floats.
        inputs = {"input_ids": _flat(ids).long(), "attention_mask": _flat(mask).long()}
        predicted = functional_call(model, parameters, kwargs=inputs).logits[:, 0]
        return (predicted - labels.reshape(-1)).square().mean()

    task = AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict())
    train, target, points = (world.tensors(p) for p in (world.train, world.target, world.points))
    sigma = 2.2 * world.damping / world.share + world.damping  # batches curve more than the whole
    series = {
        "scaling": sigma,
        "damping": world.damping / sigma,
        "recursion_depth": math.ceil(sigma / world.damping * math.log(1e3)),
    }
    build, note = {
        "explicit": (
            partial(algorithm.IFAttributorExplicit, regularization=world.damping),
            "the Hessian as a matrix",
        ),
        "cg": (
            partial(algorithm.IFAttributorCG, regularization=world.damping),
            "at most 10 steps, its default",
        ),
        "lissa": (
            partial(algorithm.IFAttributorLiSSA, batch_size=_AT_ONCE, **series),
            f"scaling and {series['recursion_depth']:,} steps set as ours derives them",
        ),
        "arnoldi": (
            partial(algorithm.IFAttributorArnoldi, regularization=world.damping),
            "100 dimensions of 100 steps, its default",
        ),
        "datainf": (
            partial(algorithm.IFAttributorDataInf, regularization=world.damping),
            "",
        ),
        "ekfac": (
            partial(
                algorithm.IFAttributorEKFAC, damping=world.damping, module_name=_trained_maps(model)
            ),
            "",
        ),
    }[solver]
    attributor = build(task=task, device="cpu")
    several = solver in ("datainf", "ekfac")
    attributor.cache(DataLoader(TensorDataset(*train), _AT_ONCE if several else len(train[0])))
    scores = attributor.attribute(
        DataLoader(TensorDataset(*points), len(points[0])),
        DataLoader(TensorDataset(*(each[None] for each in target)), 1),
    )
    values = scores[:, 0].double() / len(train[0])
    return {"values": values.tolist(), "note": note}


def _flat(tokens: Tensor) -> Tensor:
    """Returns [molecules, length] of a batch, of one molecule, or of one item of many."""
    return tokens.reshape(-1, tokens.shape[-1])


def _trained_maps(model: nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad
    ]


SIDES: dict[str, Callable[[World], dict[str, Any]]] = {
    "ours, exact": partial(ours, solver="exact"),
    "no curvature: products of gradients": without_curvature,
    "ours, LiSSA over batches": partial(ours, solver="lissa", table_gib=1e-9),
    "ours, EK-FAC": partial(ours, solver="ekfac"),
    "kronfluence, EK-FAC": partial(by_kronfluence, default_damping=False),
    "kronfluence, EK-FAC, its damping": partial(by_kronfluence, default_damping=True),
    "dattri, explicit": partial(by_dattri, solver="explicit"),
    "dattri, CG": partial(by_dattri, solver="cg"),
    "dattri, LiSSA": partial(by_dattri, solver="lissa"),
    "dattri, Arnoldi": partial(by_dattri, solver="arnoldi"),
    "dattri, DataInf": partial(by_dattri, solver="datainf"),
    "dattri, EK-FAC": partial(by_dattri, solver="ekfac"),
}
"""What is compared, the exact way first."""


def _peak_gib() -> float:
    """Returns the most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage says here is at least what the parent held when it started us.
        line = next(ln for ln in status.read_text().splitlines() if ln.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, else KiB
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def main() -> int:
    """Runs one way and prints what came of it."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    limit = int(plan["memory_gib"] * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    world = World.read(folder, plan)
    loaded, start = _peak_gib(), time.perf_counter()
    found = SIDES[name](world)
    seconds = time.perf_counter() - start
    values = np.array(found["values"])
    if not np.isfinite(values).all():
        raise SystemExit(f"{np.sum(~np.isfinite(values))} of {len(values)} values are not finite")
    print(json.dumps({**found, "seconds": seconds, "loaded_gib": loaded, "peak_gib": _peak_gib()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
