"""The command ``tandem``. One module per command with ``configure(parser)`` and ``run(args) -> exit code``."""
