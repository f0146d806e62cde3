"""Media files: reading and writing video, sound, arrays and flow, and the settings they are packed with.

Start with `container_io`.
"""
