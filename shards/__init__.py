"""Read media, write clips: modality table, decoding, optical flow, packing, the shard index and the clip stream."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
