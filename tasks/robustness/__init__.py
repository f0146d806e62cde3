"""What a trained model keeps when sensors fail.

Start with `runner`.
"""
