"""Media in, clips out: modality specs, decoding, optical flow, packing, the index and the clip stream."""
