"""The HTML report of run folders.

`page` reads run folders and renders the template. `charts` and `style` draw figures. `provenance` describes how a run
was made. `examples` selects example clips.

Start with `page`. Import `write_report`.
"""
