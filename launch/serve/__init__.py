"""A model behind a local web page.

Start with `server_app`.
"""
