"""``python -m attnscope`` is the same program as ``attnscope``."""

import sys

from attnscope.commands.main import main

sys.exit(main())
