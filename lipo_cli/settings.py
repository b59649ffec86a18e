"""The settings of every command: frozen, validated, and nothing that is not named here.

One object per command is at once the validated input, the `--dry-run` plan, the MLflow parameters,
the file saved beside a result (`--config` takes it back) and, through `fingerprint`, the key under
which a finished cell is found again.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from lipo_cli.settings_base import Seed, Settings, build, read_settings_file
from lipo_cli.settings_tuning import TuningSettings
from lipo_cli.settings_valuation import (
    SCORING_METHODS,
    InfluenceSettings,
    KnnSettings,
    ScoringMethod,
    TsdsSettings,
    ValuationSettings,
)

__all__ = [
    "PEFT_METHODS",
    "SCORING_METHODS",
    "CompareSettings",
    "ComparedTraining",
    "DataSettings",
    "FinetuneSettings",
    "InfluenceSettings",
    "KnnSettings",
    "Peft",
    "PretrainSettings",
    "ScoreSettings",
    "ScoringMethod",
    "Settings",
    "SplitName",
    "TrainingSettings",
    "TsdsSettings",
    "TuningSettings",
    "ValuationSettings",
    "build",
    "read_settings_file",
]

Peft = Literal["full", "bitfit", "lora", "ia3"]
SplitName = Literal["reference", "random", "scaffold", "scaffold_balanced", "column"]
PEFT_METHODS: tuple[Peft, ...] = ("full", "bitfit", "lora", "ia3")

_SPLITS_THAT_READ: dict[str, tuple[SplitName, ...]] = {
    "fractions": ("random", "scaffold", "scaffold_balanced"),
    "split_seed": ("random", "scaffold_balanced"),
    "split_file": ("column",),
    "keep_stereo_groups": ("random",),
}
SETS_IN_A_FOLDER = ("auto", "lipophilicity")


class DataSettings(Settings):
    """Which molecules, which labels, which split."""

    dataset: str = "auto"
    """`auto`, `lipophilicity`, `demo`, or the path of a CSV/TSV file (may be .gz)."""
    secondary: str | None = None
    """Path of the secondary set; None: the one that belongs to the dataset."""
    data_dir: str | None = None
    """Folder with the real data; None: `LIPO_DATA_DIR`, then the user cache."""
    smiles_column: str | None = None
    label_column: str | None = None
    on_invalid: Literal["error", "skip"] = "error"
    duplicates: Literal["mean", "keep"] = "mean"
    split: SplitName = "reference"
    split_seed: Seed = 0
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    split_file: str | None = None
    """For `split="column"`: a file with SMILES and `split`; None: the column of the dataset."""
    keep_stereo_groups: bool = True
    """Keep molecules that differ by stereo only on one side of a random split."""

    @model_validator(mode="after")
    def _fractions_sum_to_one(self) -> Self:
        if any(f < 0 for f in self.fractions) or abs(sum(self.fractions) - 1) > 1e-9:
            raise ValueError(f"fractions {self.fractions} must be positive and sum to 1")
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        # Saved settings name every field: one at its default was not asked for.
        fields = type(self).model_fields
        asked = {n for n in self.model_fields_set if getattr(self, n) != fields[n].default}
        for name, splits in _SPLITS_THAT_READ.items():
            if name in asked and self.split not in splits:
                raise ValueError(
                    f"the split '{self.split}' does not read {name}: only {', '.join(splits)} do"
                    if len(splits) > 1
                    else f"the split '{self.split}' does not read {name}: only {splits[0]} does"
                )
        if self.data_dir is not None and self.dataset not in SETS_IN_A_FOLDER:
            raise ValueError(
                f"the dataset '{self.dataset}' is not read from data_dir: "
                f"only {' and '.join(SETS_IN_A_FOLDER)} are"
            )
        return self


class TrainingSettings(Settings):
    """How a regressor is fine-tuned. None means the measured default of the method."""

    model: str = "small"
    """A shipped checkpoint (`small`), a folder, or a hub name."""
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    randomise: float = Field(default=0.5, ge=0, le=1)
    """Share of training molecules written as a random SMILES, anew each epoch."""
    averaging: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the moving average of the weights, which is what is validated and kept; 0: none."""
    tta: int = Field(default=1, ge=1, le=100)
    """SMILES of a molecule whose predictions are averaged; the canonical one weighs as it did in
    training (`randomise`)."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without gain before training stops; None: it runs its schedule to the end. A few
    hundred validation rows are too noisy to stop on before the rate has fallen."""
    min_delta: float = Field(default=0.001, ge=0)
    equal_steps: bool = False
    """Each epoch takes as many rows as primary train has, dealt out in turn from all, whatever was
    added: equal steps, and fewer views of each row where there are more. Off: an epoch is all
    rows."""
    max_length: int = Field(default=202, ge=8)
    standardise: bool = True
    """Train on z-scored labels; off: on raw ones, so that the first prediction is about 0."""
    lora_rank: int = Field(default=32, ge=1)
    lora_alpha: float = Field(default=32.0, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """0: the encoder has dropout of its own, and this one costs a quarter of a step on a CPU."""
    lora_targets: Literal["all", "attention"] = "all"
    """Every linear map of the layers, or queries, keys and values alone."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class ComparedTraining(TrainingSettings):
    """How the cells of a comparison are fine-tuned: shorter, as there are many of them, and by
    equal steps, so that a selection is not better for being larger (docs/benchmarks.md).
    """

    epochs: int = Field(default=5, ge=1)
    equal_steps: bool = True


class FinetuneSettings(Settings):
    """`lipo finetune`."""

    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    peft: Peft = "full"
    selection: str | None = None
    """A file that `lipo select` wrote: its chosen rows join primary train."""
    seed: Seed = 0
    ensemble: int = Field(default=1, ge=1, le=100)
    """Regressors of this many seeds, from `seed` on, that predict together."""
    kernel: bool | None = None
    """Whether a kernel readout of the pretrained encoder predicts with them; None: with several."""
    tuning: TuningSettings = TuningSettings()
    experiment: str = "lipo"

    @property
    def joins_kernel(self) -> bool:
        """Whether a kernel readout predicts with the networks."""
        return self.ensemble > 1 if self.kernel is None else self.kernel


class ScoreSettings(ValuationSettings):
    """`lipo score`."""

    data: DataSettings = DataSettings()
    training: ComparedTraining = ComparedTraining()
    method: ScoringMethod = "tsds"
    reference_peft: Peft = "full"
    """How the reference model, whose embeddings the proxy sees, is fine-tuned."""
    seed: Seed = 0
    experiment: str = "lipo"


class CompareSettings(ValuationSettings):
    """`lipo compare`: selections x methods x seeds, with their controls."""

    data: DataSettings = DataSettings()
    training: ComparedTraining = ComparedTraining()
    selections: tuple[str, ...] = ("tsds", "influence", "knn")
    models: tuple[str, ...] = ()
    """Pretrained models to compare, the first being the baseline; empty: `training.model` alone."""
    peft: tuple[Peft, ...] = PEFT_METHODS
    seeds: int = Field(default=1, ge=1)
    first_seed: Seed = 0
    splits: int = Field(default=1, ge=1)
    """Random splits to repeat everything on, of seeds from `data.split_seed` on."""
    controls: bool = True
    reference_peft: Peft | None = None
    """How the model that embeds the pool is fine-tuned; None: as the first method compared,
    so that its training is shared with the control `none`."""
    tuning: TuningSettings = TuningSettings()
    """Each method is tuned once, on the control `none` with the first seed."""
    experiment: str = "lipo-compare"
    model_name: str = "lipophilicity"
    """Of the registered model."""

    @field_validator("model_name")
    @classmethod
    def _can_be_found_again(cls, value: str) -> str:
        if not value.strip() or any(sign in "/:@'\"" or not sign.isprintable() for sign in value):
            raise ValueError("a registered model's name is not empty and has none of / : @ ' \"")
        return value

    @model_validator(mode="after")
    def _several_splits_are_drawn(self) -> Self:
        drawn = _SPLITS_THAT_READ["split_seed"]
        if self.splits > 1 and self.data.split not in drawn:
            raise ValueError(
                f"there is one split '{self.data.split}': for several, take {' or '.join(drawn)}"
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_chosen_by_test(self) -> Self:
        if self.influence.target == "test":
            raise ValueError(
                "influence.target is 'test': a comparison cannot choose by the split it reports on"
            )
        return self


class PretrainSettings(Settings):
    """`lipo pretrain`: masked tokens and descriptors. None means the default of the task."""

    corpus: str | None = None
    """A file of SMILES: one per line, or a CSV/TSV column; may be .gz."""
    smiles_column: str | None = None
    """The column of a CSV/TSV corpus; None: found by its usual names."""
    on_invalid: Literal["error", "skip"] = "skip"
    exclude: tuple[str, ...] = ()
    """Files whose molecules are left out, compared without stereochemistry."""
    adapt: bool = False
    """Go on with train + validation of `data` instead of a corpus."""
    data: DataSettings = DataSettings()
    model: str | None = None
    """Continue from this checkpoint with its tokenizer; None: random weights of `size`."""
    size: Literal["tiny", "small", "base", "xl"] = "small"
    limit: int | None = Field(default=None, ge=2)
    """Read this many lines of the corpus only; None: all."""
    objective: Literal["mlm", "descriptors", "both"] | None = None
    """Masked tokens, RDKit descriptors, or both; None: both, and `mlm` with `adapt`."""
    descriptor_weight: float = Field(default=3.0, gt=0)
    """Weight of the mean descriptor loss beside the mean token loss."""
    clean: float = Field(default=0.5, ge=0, lt=1)
    """With both objectives: share of molecules shown whole, for the descriptors alone."""
    mask: float = Field(default=0.2, gt=0, lt=1)
    """Share of a molecule's tokens to predict: 80 % masked, 10 % replaced, 10 % kept."""
    randomise: float = Field(default=0.5, ge=0, le=1)
    """Share of molecules written as a random SMILES, anew each epoch."""
    validation: float | None = Field(default=None, gt=0, lt=1)
    """Held-out share; None: 1 %, at least 200 molecules or a tenth, at most 5,000."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the corpus; None: 10 with `adapt`, else 1."""
    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps instead of epochs."""
    batch_size: int | None = Field(default=None, ge=1)
    """Molecules per pass through the model; None: 32 with `adapt`, else 128."""
    accumulate: int = Field(default=1, ge=1)
    """Batches per optimiser step."""
    learning_rate: float | None = Field(default=None, gt=0)
    decay: Literal["cosine", "linear"] = "cosine"
    warmup: float = Field(default=0.04, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout between layers; None: what the preset or the checkpoint says."""
    max_length: int = Field(default=202, ge=8)
    """Longer molecules, in tokens with bos and eos, are left out."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Pause after this time; the same command goes on."""
    checkpoint_every: int = Field(default=500, ge=1)
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between validations; None: 40 in a run."""
    workers: int | None = Field(default=None, ge=0)
    """Processes that prepare molecules; None: by the machine. The result does not depend on it."""
    half: bool = False
    """Save the weights in half precision."""
    seed: Seed = 0
    precision: Literal["auto", "float32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    experiment: str = "lipo-pretrain"

    @model_validator(mode="after")
    def _one_source_and_one_length(self) -> Self:
        if self.adapt and self.corpus is not None:
            raise ValueError("adapt takes the dataset's molecules: give no corpus with it")
        if self.adapt and self.model is None:
            raise ValueError("adapt continues from a model: name it with --from")
        if not self.adapt and self.corpus is None:
            raise ValueError("a file of SMILES is needed (or --adapt)")
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give epochs or steps, not both")
        return self
