"""Windows of one packed clip: where they start, how they are decoded, and how a model is applied to them.

Start reading at `cut`. To use it, import `cut_clip` from there, `Application` from `application` and `Piece` from
`piece`.
"""
