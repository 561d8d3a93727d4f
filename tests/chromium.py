"""The browser that pages are looked at with, and how it is started: alone, and asking nobody."""

import os
from pathlib import Path

CHROMIUM = Path(os.environ.get("AUTOSCALER_CHROMIUM", "/usr/bin/chromium"))
IS_THERE = CHROMIUM.exists()
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
