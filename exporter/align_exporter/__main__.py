"""``python -m align_exporter``, the same as ``align-export``."""

from __future__ import annotations

import sys

from align_exporter.command import main

sys.exit(main())
