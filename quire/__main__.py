"""`python -m quire`: the same as the `quire` command.

The commands are in `quire.cli`.
"""

import sys

from quire.cli.main import main

sys.exit(main())
