"""Turn recordings of any length, streams and cameras into pieces that a model can score.

Start reading at `pieces` for files and `live_source` for cameras. To use it, import `recording_pieces` from `pieces`,
`LiveSource` from `live_source` and `find_material` from `inputs`.
"""
