"""One process on the mesh: its configuration, its composition, its control API.

``config`` reads and validates the configuration file; ``face`` is what the
command line and other programs call; ``resumes`` looks after unfinished
downloads without starting a node. Everything below is put together here and
nowhere else.
"""
