"""The command line: one `cmd_<name>` module a command, thin over `furymesh.node`.

``app`` puts the commands together; ``main`` turns whatever they raise into one
line and an exit code (``exits``). ``options`` and ``sync_options`` hold what
commands have in common, ``output`` lines, tables and JSON, ``progress`` bars,
``asking`` and ``passphrase`` questions, ``jobs`` the event loop and the signals.
What is shown of something that runs is in ``transfer`` (``download`` runs it),
``sync_view`` and ``sftp``; of unfinished downloads in ``resume_view``. Modules
import nothing slow at their top: `furymesh list-resume` must answer at once.
"""
