"""Pretraining, fine-tuning, batching by length and encoding."""
