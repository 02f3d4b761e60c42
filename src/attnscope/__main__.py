"""``python -m attnscope`` is the same program as ``attnscope``."""

import sys

from attnscope.cli import main

sys.exit(main())
