"""The browser in which pages are tested, and its options: headless, without asking or updating anything."""

import os
from pathlib import Path

CHROMIUM = Path(os.environ.get("AUTOSCALER_CHROMIUM", "/usr/bin/chromium"))
IS_THERE = CHROMIUM.exists()
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
