"""Downstream: frozen features, probes, fine-tuning, violence metrics, prediction and the report."""
