"""Fine-tuning by splits, and the final model.

Start with `finetuning`.
"""
