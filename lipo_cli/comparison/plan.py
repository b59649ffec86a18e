"""Which cells a comparison consists of: what was asked for, and the controls it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from lipo_cli.errors import SettingsError
from lipo_cli.settings import CompareSettings, Peft, ScoringMethod, TrainingSettings
from lipo_cli.valuation.selection import Scores, Selection, selection_rng, too_many
from lipo_cli.valuation.selection_text import parse_selection

Role = Literal["asked", "control"]
ScoresByMethod = Mapping[ScoringMethod, Scores]
T = TypeVar("T")
NO_ROWS = np.empty(0, dtype=np.int64)
_FIRST = ("none", "all")


@dataclass(frozen=True)
class Choice:
    """A selection of the comparison: its name as the user wrote it, and what it does."""

    name: str
    selection: Selection
    role: Role

    def has_values(self, scores: ScoresByMethod) -> bool:
        """Tells whether the values that it needs, if it needs any, are there."""
        return not self.selection.needs_scores or self.selection.method in scores

    def rows(self, scores: ScoresByMethod, n: int, seed: int) -> NDArray[np.int64]:
        """Returns the chosen positions in a pool of `n`; a random choice differs by seed."""
        own = scores.get(self.selection.method) if self.selection.needs_scores else None
        return self.selection.select(own, n, selection_rng(self.selection, seed)).positions


@dataclass(frozen=True)
class Cell:
    """One fine-tuning: a selection, a method, a seed, and a pretrained model where several are.

    Attributes:
        model: The pretrained model; None: that of the training settings.
        split: The seed of the split, where several are compared.
    """

    choice: Choice
    peft: Peft
    seed: int
    model: str | None = None
    split: int | None = None

    @property
    def name(self) -> str:
        """Names the cell for people and for MLflow."""
        return cell_name(self.label, self.peft, self.seed, self.split)

    @property
    def label(self) -> str:
        """Names selection and model."""
        return labelled(self.choice.name, self.model)

    def training(self, shared: TrainingSettings) -> TrainingSettings:
        """Returns the settings that all cells share, with this cell's model."""
        return shared if self.model is None else shared.model_copy(update={"model": self.model})


def cell_name(label: str, peft: Peft, seed: int, split: int | None) -> str:
    """Names a cell for people and for MLflow.

    Args:
        label: What `labelled` returns.
        peft: The method.
        seed: The training seed.
        split: The seed of the split, where several are compared.
    """
    of_split = "" if split is None else f"split {split} / "
    return f"{of_split}{label} / {peft} / seed {seed}"


def labelled(selection: str, model: str | None) -> str:
    """Returns a selection's name, with the model's last component where several are compared."""
    return selection if model is None else f"{selection} ({Path(model).name})"


def on_splits(n: int, of: int) -> str:
    """Returns what stands behind the name of something that is not on every split."""
    return f" (on {n} of {of} splits)" if 0 < n < of else ""


@dataclass(frozen=True)
class Plan:
    """The choices of a comparison, controls included, and the methods and seeds to cross with."""

    choices: tuple[Choice, ...]
    peft: tuple[Peft, ...]
    seeds: tuple[int, ...]
    with_random: bool
    """Whether a random control of equal size joins once the sizes are known."""
    models: tuple[str | None, ...] = (None,)
    """Pretrained models; None alone: that of the training settings."""
    split: int | None = None
    """The seed of the split, where several are compared."""

    @property
    def needs_scores(self) -> bool:
        """Whether the pool must be scored."""
        return any(choice.selection.needs_scores for choice in self.choices)

    @property
    def scoring_methods(self) -> list[ScoringMethod]:
        """The methods whose values are wanted, in the order in which they are first named."""
        return distinct(c.selection.method for c in self.choices if c.selection.needs_scores)

    @property
    def needs_pool(self) -> bool:
        """Whether there must be a secondary set."""
        return any(choice.name != "none" for choice in self.choices)

    def cells(self) -> list[Cell]:
        """Returns the cells, one seed of every pair before the next seed."""
        return [
            Cell(choice, peft, seed, model, self.split)
            for seed in self.seeds
            for peft in self.peft
            for model in self.models
            for choice in self.choices
        ]

    def reference(self, settings: CompareSettings) -> Cell:
        """Returns the cell whose model embeds the pool: primary train alone, the first seed."""
        peft = settings.reference_peft or self.peft[0]
        none = next((c for c in self.choices if c.name == "none"), None)
        choice = none or Choice("none", parse_selection("none"), "control")
        return Cell(choice, peft, self.seeds[0], self.models[0], self.split)

    def check(self, n_pool: int) -> None:
        """Checks before anything is trained that the pool holds as many points as are wanted.

        Raises:
            SettingsError: a selection wants more.
        """
        for choice in self.choices:
            if (count := choice.selection.count) is not None and count > n_pool:
                raise too_many(choice.selection, n_pool, where=f"--selection {choice.name}")

    def random_sizes(self, n_pool: int) -> list[int | None]:
        """Returns the sizes of the random controls to come; None where scores will say."""
        if not self.with_random:
            return []
        sized = {c.selection.count for c in self.choices if c.selection.rule in ("top", "bottom")}
        unsized = {
            str(c.selection)
            for c in self.choices
            if c.selection.rule in ("optimal", "positive", "diverse")
        }
        return [*sorted(k for k in sized if k is not None and k < n_pool), *[None] * len(unsized)]

    def n_expected(self, n_pool: int) -> int:
        """Returns how many cells there will be, the random controls to come included."""
        crossed = len(self.peft) * len(self.seeds) * len(self.models)
        return (len(self.choices) + len(self.random_sizes(n_pool))) * crossed

    def with_random_controls(self, scores: ScoresByMethod, n: int) -> Plan:
        """Adds a random choice for every size that a scored selection has in a pool of `n`."""
        if not self.with_random:
            return self
        sizes = {
            len(c.rows(scores, n, self.seeds[0]))
            for c in self.choices
            if c.selection.needs_scores and c.has_values(scores)
        }
        known = {c.selection.count for c in self.choices if c.selection.rule == "random"}
        added = tuple(
            Choice(f"random:k={k}", parse_selection(f"random:k={k}"), "control")
            for k in sorted(sizes)
            if 0 < k < n and k not in known
        )
        return replace(self, choices=self.choices + added, with_random=False)


def make_plan(settings: CompareSettings, split: int | None = None) -> Plan:
    """Reads the selections and adds the controls `none` and `all`.

    Args:
        settings: What is compared.
        split: The seed of the split that these cells are of, where several are compared.

    Raises:
        SettingsError: a selection is malformed, or nothing is asked for.
    """
    names = distinct_selections(settings.selections)
    if not names or not settings.peft:
        raise SettingsError("nothing to compare", hint="give --selection and --peft")
    choices = [Choice(name, parse_selection(name), "asked") for name in names]
    if settings.controls:
        present = {str(choice.selection) for choice in choices}
        controls = [name for name in ("none", "all") if name not in present]
        choices = [Choice(n, parse_selection(n), "control") for n in controls] + choices
    choices.sort(key=lambda c: _FIRST.index(c.name) if c.name in _FIRST else len(_FIRST))
    seeds = tuple(range(settings.first_seed, settings.first_seed + settings.seeds))
    models: tuple[str | None, ...] = tuple(distinct(settings.models)) or (None,)
    if len({Path(model or "").name for model in models}) < len(models):
        raise SettingsError(
            "two pretrained models end in the same name, and the tables could not tell them apart",
            where="--model",
            hint="rename a folder",
        )
    methods = tuple(distinct(settings.peft))
    return Plan(tuple(choices), methods, seeds, settings.controls, models, split)


def distinct(items: Iterable[T]) -> list[T]:
    """Returns every item once, in the order of the first of each."""
    return list(dict.fromkeys(items))


def distinct_selections(texts: Sequence[str]) -> list[str]:
    """Returns the names of the selections, each once.

    `tsds` and `tsds:optimal`, `None` and `none` are one choice: the first spelling names it.

    Raises:
        SettingsError: one is malformed.
    """
    names: dict[str, str] = {}
    for text in texts:
        names.setdefault(str(parse_selection(text)), text.strip().lower())
    return [*names.values()]
