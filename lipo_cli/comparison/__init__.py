"""Selections x fine-tuning methods x seeds: plan, cells, statistics and figures."""
