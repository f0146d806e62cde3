"""The training loop and what it needs.

Start with `loop`.
"""
