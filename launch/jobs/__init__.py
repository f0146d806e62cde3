"""Jobs of the commands: pretraining, probing, studies, robustness, embedding.

Start with `pretraining`.
"""
