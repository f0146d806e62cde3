"""Read media, write clips: modality table, decoding, optical flow, packing, the shard index and the clip stream."""
