"""Native MoLFormer, other encoders of transformers, adapters and saved regressors.

Importing this package registers MoLFormer with transformers' Auto classes.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from lipo_cli.model.config import MolformerConfig
from lipo_cli.model.modeling import (
    MolformerForMaskedLM,
    MolformerForSequenceClassification,
    MolformerModel,
)
from lipo_cli.model.tokenizer import MolformerTokenizer

AutoConfig.register("molformer", MolformerConfig, exist_ok=True)
AutoTokenizer.register(MolformerConfig, fast_tokenizer_class=MolformerTokenizer, exist_ok=True)
AutoModel.register(MolformerConfig, MolformerModel, exist_ok=True)
AutoModelForMaskedLM.register(MolformerConfig, MolformerForMaskedLM, exist_ok=True)
AutoModelForSequenceClassification.register(
    MolformerConfig, MolformerForSequenceClassification, exist_ok=True
)

__all__ = [
    "MolformerConfig",
    "MolformerForMaskedLM",
    "MolformerForSequenceClassification",
    "MolformerModel",
    "MolformerTokenizer",
]
