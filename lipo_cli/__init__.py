"""lipo: fine-tune a chemical language model, find out which extra data helps, and prove it."""

__version__ = "0.1.0"
