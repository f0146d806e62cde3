"""Read and write media files: video, sound, arrays, optical flow, and the settings they are packed with.

Start reading at `container_io`. To use it, import `probe`, `iterate_frames` and `write_video` from there, and
`PackSettings` from `pack_settings`.
"""
