"""Windows of one packed clip: where they start, how they are decoded, and how a model is applied to them.

Start with `cut`.
"""
