"""``python -m tandem``, for where the command is not on the path."""

import sys

from tandem.cli.main import main

sys.exit(main())
