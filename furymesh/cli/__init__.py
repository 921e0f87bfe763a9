"""The command line: one `cmd_<name>` module a command, thin over `furymesh.node`.

``main`` puts the commands together and turns whatever they raise into one line
and an exit code (``exits``). ``options`` holds what commands have in common,
``output`` lines, tables and JSON, ``progress`` and ``transfer`` what a running
download shows, ``jobs`` the event loop and the signals. Modules import nothing
slow at their top: `furymesh list-resume` must answer at once.
"""
