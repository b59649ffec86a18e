"""What is trained: everything, biases (BitFit), low-rank updates (LoRA) or rescalings (IA3).

BitFit: Ben Zaken et al. 2022; LoRA: Hu et al. 2022; IA3: Liu et al. 2022. The head is trained
whole with every method.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn

from lipo_cli.errors import ModelError
from lipo_cli.model.network import Network
from lipo_cli.settings import Peft, TrainingSettings

DEFAULT_LEARNING_RATE: dict[Peft, float] = {
    "full": 4e-4,
    "bitfit": 4e-3,
    "lora": 1e-3,
    "ia3": 1e-2,
}
"""Chosen on validation of Lipophilicity's reference split among a few (docs/benchmarks.md): a small
method wants a larger step."""
DEFAULT_LAYER_DECAY: dict[Peft, float] = {"full": 0.85, "bitfit": 1.0, "lora": 1.0, "ia3": 1.0}


@dataclass(frozen=True)
class ParameterCount:
    """How many parameters are trained, of how many."""

    trainable: int
    total: int


def attach(model: Network, peft: Peft, settings: TrainingSettings) -> nn.Module:
    """Returns the model with just the parameters of the method trainable.

    Args:
        model: A model with a head.
        peft: The method; its targets are owned by the model class.
        settings: Rank, alpha, dropout and place of LoRA.

    Returns:
        The model itself for `full` and `bitfit`, a `peft.PeftModel` around it otherwise.

    Raises:
        ModelError: the encoder has nothing that the method could train.
    """
    targets, head = model.adapter_targets, model.head_name
    place = "lora_attention" if settings.lora_targets == "attention" else "lora"
    if peft in ("lora", "ia3") and not targets[place if peft == "lora" else "ia3"]:
        raise _nothing_for(model, peft)
    if peft == "lora":
        return _wrapped(
            model,
            LoraConfig(
                r=settings.lora_rank,
                lora_alpha=settings.lora_alpha,
                lora_dropout=settings.lora_dropout,
                target_modules=targets[place],
                modules_to_save=[head],
            ),
        )
    if peft == "ia3":
        return _wrapped(
            model,
            IA3Config(
                target_modules=targets["ia3"],
                feedforward_modules=targets["ia3_feedforward"],
                modules_to_save=[head],
            ),
        )
    below = 0
    for name, parameter in model.named_parameters():
        in_head = name.startswith(f"{head}.")
        parameter.requires_grad_(peft == "full" or in_head or name.endswith("bias"))
        below += parameter.requires_grad and not in_head
    if not below:
        raise _nothing_for(model, peft)
    return model


def _nothing_for(model: Network, peft: Peft) -> ModelError:
    kind = model.config.model_type
    return ModelError(f"{peft} finds nothing to train in {kind}", hint="take another --peft")


def _wrapped(model: Network, config: PeftConfig) -> nn.Module:
    with warnings.catch_warnings():
        # PEFT 0.21 still asks for a property that transformers renames.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(model, config)


def unwrap(model: nn.Module) -> Network:
    """Returns the network inside a PEFT wrapper, adapters still in place."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, Network)
    return inner


def count_parameters(model: nn.Module) -> ParameterCount:
    """Counts the parameters that a step changes, and all; PEFT's spare copy of the head is none."""
    trainable = total = 0
    for name, parameter in model.named_parameters():
        if ".original_module." in name:
            continue
        total += parameter.numel()
        trainable += parameter.numel() if parameter.requires_grad else 0
    return ParameterCount(trainable, total)


def warmup_then_decay(n_steps: int, warmup: float) -> Callable[[int], float]:
    """Returns the factor on the learning rate of each step: up in line over the share, then down.

    At least one step warms up, and no step of the run has the factor zero.
    """
    n_warmup = max(1, round(warmup * n_steps))

    def factor(step: int) -> float:
        if step < n_warmup:
            return (step + 1) / n_warmup
        return max(0.0, (n_steps - step) / max(1, n_steps - n_warmup))

    return factor


def parameter_groups(
    model: nn.Module, learning_rate: float, layer_decay: float, weight_decay: float
) -> list[dict[str, object]]:
    """Groups trainable parameters for AdamW, with layer-wise learning-rate decay.

    The head has the full rate, the layer l of L the rate times decay^(L - l), the embeddings
    decay^(L + 1) (Clark et al. 2020, ELECTRA). Weights of vectors (biases, norms, IA3's
    rescalings, whose neutral value is one) are not pulled to zero.
    """
    network = unwrap(model)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if match := network.layer_pattern.search(name):
            depth = network.n_layers - int(match.group(1))
        elif "embed" in name:
            depth = network.n_layers + 1
        else:
            depth = 0
        matrix = parameter.ndim > 1 and ".ia3_l." not in name  # PEFT keeps a vector as [n, 1]
        groups.setdefault((depth, matrix), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * layer_decay**depth,
            "weight_decay": weight_decay if matrix else 0.0,
        }
        for (depth, matrix), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
