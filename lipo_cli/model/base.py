"""Where pretrained weights come from: shipped with the package, a folder, or the hub.

Weights are matched by name and strictly: an encoder weight that a checkpoint lacks is an error
that names it, never a random start in silence.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lipo_cli.errors import ModelError
from lipo_cli.model.config import MolformerConfig
from lipo_cli.model.modeling import MolformerPreTrainedModel

CHECKPOINT_FILES = ("config.json", "tokenizer.json", "model.safetensors")
VOCABULARY_FILES = (
    *("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "spm.model", "tokenizer.model"),
    *("sentencepiece.bpe.model", "bpe.codes", "added_tokens.json", "special_tokens_map.json"),
    "tokenizer_config.json",
)
"""What older checkpoints hold instead of a `tokenizer.json`."""
SHIPPED_ROOT = Path(__file__).parent / "checkpoints"
M = TypeVar("M", bound=MolformerPreTrainedModel)


@dataclass(frozen=True)
class Base:
    """A pretrained checkpoint.

    Attributes:
        name: What the user gave; of a folder, its absolute path, as a relative one means another
            folder after the next change of directory.
        folder: Where its files are.
        sha256: SHA-256 of its weights.
        config_sha256: SHA-256 of its `config.json`.
        fingerprint: SHA-256 over all that decides numbers: architecture, tokenizer and weights.
            Equal weights read by another tokenizer, or with another epsilon, predict another value.
    """

    name: str
    folder: Path
    sha256: str
    config_sha256: str
    fingerprint: str

    @property
    def weights(self) -> Path:
        """The file that holds the weights."""
        return self.folder / "model.safetensors"

    def identity(self) -> dict[str, str]:
        """Returns what a manifest keeps: enough to find the base again and to refuse another."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "config_sha256": self.config_sha256,
            "fingerprint": self.fingerprint,
        }


def shipped_names() -> list[str]:
    """Returns the names of the checkpoints in the package."""
    return sorted(f.parent.name for f in SHIPPED_ROOT.glob("*/model.safetensors"))


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, remembered as long as the file stays as it is."""
    status = path.stat()
    return _sha256(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, _size: int, _mtime: int) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def resolve_base(name: str) -> Base:
    """Finds a checkpoint by shipped name, folder, or hub name (`organisation/model`).

    Raises:
        ModelError: there is none of that name, or its folder lacks weights or config.
    """
    if name in shipped_names():
        if (Path(name) / "config.json").is_file():
            raise ModelError(
                f"'{name}' is a shipped model and a folder here",
                hint=f"./{name} is the folder; for the shipped one go to another directory",
            )
        folder = SHIPPED_ROOT / name
    elif Path(name).is_dir():
        folder = Path(name).resolve()
        name = str(folder)
    elif name.count("/") == 1 and not name.startswith((".", "/", "~")):
        folder = _from_hub(name)
    else:
        raise ModelError(
            f"no model '{name}'",
            hint=f"shipped: {', '.join(shipped_names())}; or a folder; or a hub name like "
            "ibm-research/MoLFormer-XL-both-10pct",
        )
    for file in ("config.json", "model.safetensors"):
        if not (folder / file).is_file():
            raise ModelError(
                f"no {file}",
                where=folder,
                hint="a checkpoint folder holds config.json and model.safetensors; a pickle "
                "(pytorch_model.bin) is not read",
            )
    files = {file: folder / file for file in CHECKPOINT_FILES}
    if not files["tokenizer.json"].is_file():
        files |= {f: folder / f for f in VOCABULARY_FILES if (folder / f).is_file()}
    sums = {file: sha256_of(path) if path.is_file() else "" for file, path in files.items()}
    text = "".join(f"{file} {digest}\n" for file, digest in sums.items())
    return Base(
        name,
        folder,
        sha256=sums["model.safetensors"],
        config_sha256=sums["config.json"],
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
    )


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[*CHECKPOINT_FILES, *VOCABULARY_FILES]))
    except Exception as error:  # the hub raises many kinds; each is one line for the user
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"the hub gave no model '{name}': {first}",
            hint="check the name and the network, or give a folder with config.json, "
            "tokenizer.json and model.safetensors",
        ) from None


def config_content(folder: Path) -> dict[str, Any]:
    """Reads `config.json` of a checkpoint folder; `model_type` is None where it names none.

    Raises:
        ModelError: the file is not JSON.
    """
    file = folder / "config.json"
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError("config.json cannot be read", where=file, hint=str(error)) from None
    return {"model_type": None, **(content if isinstance(content, dict) else {})}


def read_config(folder: Path) -> MolformerConfig:
    """Reads the architecture of a MoLFormer's folder.

    Raises:
        ModelError: the file is not JSON, or is another architecture.
    """
    file = folder / "config.json"
    content = config_content(folder)
    if (kind := content["model_type"]) != "molformer":
        raise ModelError(
            f"model_type is {kind!r}, not 'molformer'",
            where=file,
            hint="other encoders can be fine-tuned, not pretrained",
        )
    content.setdefault("num_labels", 1)
    try:
        config = MolformerConfig(**content)
    except (TypeError, ValueError) as error:
        raise ModelError("config.json makes no sense", where=file, hint=str(error)) from None
    if config.feature_map_kernel != "relu":
        kernel = config.feature_map_kernel
        raise ModelError(f"config.json wants the feature map {kernel!r}, not 'relu'", where=file)
    return config


def build_model(cls: type[M], config: MolformerConfig, folder: Path) -> M:
    """Builds a model of random weights.

    Raises:
        ModelError: the sizes or names in the config are not those of a network.
    """
    try:
        return cls(config)
    except (ArithmeticError, KeyError, RuntimeError, TypeError, ValueError) as error:
        file = folder / "config.json"
        raise ModelError("config.json makes no sense", where=file, hint=repr(error)) from None


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Reads a safetensors file as float32.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError("the weights cannot be read", where=file, hint=str(error)) from None
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def load_model(cls: type[M], base: Base, *, seed: int = 0, **changes: object) -> M:
    """Builds a model on a checkpoint's encoder; heads the checkpoint lacks start from `seed`.

    Args:
        cls: `MolformerForMaskedLM`, `MolformerForSequenceClassification` or `MolformerModel`.
        base: The checkpoint.
        seed: Seed of what is not in the checkpoint, that is, of a new head.
        **changes: Fields of the config to change, such as `hidden_dropout_prob`.

    Raises:
        ModelError: an encoder weight is missing from the checkpoint or has another shape.
    """
    config = read_config(base.folder)
    for name, value in changes.items():
        setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(cls, config, base.folder)
    own = model.state_dict()
    prefix = "" if cls.__name__ == "MolformerModel" else "molformer."
    state = read_weights(base.weights)
    if not prefix:
        state = {k.removeprefix("molformer."): v for k, v in state.items()}
    encoder = {k for k in own if k.startswith(prefix) and not k.startswith(("lm_head", "class"))}
    if missing := sorted(encoder - state.keys()):
        raise ModelError(
            f"{len(missing)} encoder weights are missing, the first is {missing[0]}",
            where=base.weights,
            hint="is this a MoLFormer checkpoint in the published names?",
        )
    known = {k: v for k, v in state.items() if k in own}
    for name, value in known.items():
        if own[name].shape != value.shape:
            raise ModelError(
                f"{name} has shape {tuple(value.shape)}, config.json says {tuple(own[name].shape)}",
                where=base.weights,
            )
    model.load_state_dict({**own, **known}, strict=True)
    return model
