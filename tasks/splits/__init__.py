"""Which clips train a model and which test it.

Start with `splits`.
"""
