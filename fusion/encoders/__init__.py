"""One encoder per modality.

Start with `encoders`: `build_encoder` builds one from its spec.
"""
