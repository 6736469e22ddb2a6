"""``python -m medphantom`` does what the command ``medphantom`` does."""

from __future__ import annotations

import sys

from medphantom.flows.cli.main import main

sys.exit(main())
