"""The settings of every command: frozen, validated, and nothing that is not named here.

One object per command is at once the validated input, the `--dry-run` plan, the MLflow parameters,
the file saved beside a result (`--config` takes it back) and, through `fingerprint`, the key under
which a finished cell is found again.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lipo_cli.errors import SettingsError

Peft = Literal["full", "bitfit", "lora", "ia3"]
SplitName = Literal["reference", "random", "scaffold", "scaffold_balanced", "column"]
PEFT_METHODS: tuple[Peft, ...] = ("full", "bitfit", "lora", "ia3")


class Settings(BaseModel):
    """The base of all settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def fingerprint(self, **more: object) -> str:
        """Returns 16 hex digits that name these settings and whatever else decides the result."""
        content = {"settings": self.model_dump(mode="json"), **more}
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def flat(self) -> dict[str, str]:
        """Returns the settings as MLflow parameters: dotted names, text values."""
        return dict(_flatten(self.model_dump(mode="json")))


def _flatten(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            pairs.extend(_flatten(value, f"{name}."))
        else:
            pairs.append((name, value if isinstance(value, str) else json.dumps(value)))
    return pairs


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
    split_seed: int = 0
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
    patience: int = Field(default=5, ge=1)
    min_delta: float = Field(default=0.001, ge=0)
    max_length: int = Field(default=202, ge=8)
    lora_rank: int = Field(default=8, ge=1)
    lora_alpha: float = Field(default=16.0, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """0: the encoder has dropout of its own, and this one costs a quarter of a step on a CPU."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class ComparedTraining(TrainingSettings):
    """How the cells of a comparison are fine-tuned: shorter, as there are many of them."""

    epochs: int = Field(default=8, ge=1)


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
    """Stop when the median standard error is below this share of the values' spread."""
    min_permutations: int = Field(default=200, ge=4)
    max_permutations: int = Field(default=20_000, ge=4)
    subset_fraction: tuple[float, float] = (0.25, 0.5)
    """Game `empty`: sizes of the random subsets, as shares of all players."""
    folds: int = Field(default=5, ge=2)
    """Validation folds: the removal curve is read on rows that did not set the order."""
    seed: int = 0


class FinetuneSettings(Settings):
    """`lipo finetune`."""

    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    peft: Peft = "full"
    seed: int = 0
    experiment: str = "lipo"


class ScoreSettings(Settings):
    """`lipo score`."""

    data: DataSettings = DataSettings()
    training: ComparedTraining = ComparedTraining()
    method: Literal["tsds"] = "tsds"
    tsds: TsdsSettings = TsdsSettings()
    reference_peft: Peft = "full"
    """How the reference model, whose embeddings the proxy sees, is fine-tuned."""
    seed: int = 0
    experiment: str = "lipo"


class CompareSettings(Settings):
    """`lipo compare`: selections x methods x seeds, with their controls."""

    data: DataSettings = DataSettings()
    training: ComparedTraining = ComparedTraining()
    tsds: TsdsSettings = TsdsSettings()
    selections: tuple[str, ...] = ("tsds",)
    peft: tuple[Peft, ...] = PEFT_METHODS
    seeds: int = Field(default=1, ge=1)
    first_seed: int = 0
    controls: bool = True
    reference_peft: Peft | None = None
    """How the model that embeds the pool is fine-tuned; None: as the first method compared,
    so that its training is shared with the control `none`."""
    experiment: str = "lipo-compare"
    model_name: str = "lipophilicity"


class PretrainSettings(Settings):
    """`lipo pretrain`: masked language modelling. None means the default of the task."""

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
    seed: int = 0
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


S = TypeVar("S", bound=Settings)


def build(cls: type[S], *layers: Mapping[str, Any]) -> S:
    """Builds settings from layers of nested values, the last one winning.

    Raises:
        SettingsError: a name is unknown or a value makes no sense.
    """
    content: dict[str, Any] = {}
    for layer in layers:
        content = _merge(content, layer)
    try:
        return cls.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or cls.__name__
        raise SettingsError(
            f"{first['msg']} (given: {first['input']!r})", where=name, hint="see --help"
        ) from None


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def read_settings_file(path: Path) -> dict[str, Any]:
    """Reads a TOML file (`lipo.toml`, a preset) or the JSON saved beside a result.

    Raises:
        SettingsError: the file is missing or is not what its name says.
    """
    try:
        text = path.read_text(encoding="utf-8")
        loaded = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("cannot read the settings", where=path, hint=str(error)) from None
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"not valid: {error}", where=path) from None
    if not isinstance(loaded, dict):
        raise SettingsError("settings must be a table of names and values", where=path)
    return loaded
