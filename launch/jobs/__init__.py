"""What the verbs run: pretraining, probing, studies, robustness, embedding.

Start with `pretraining`.
"""
