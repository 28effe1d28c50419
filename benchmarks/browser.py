"""The browser of this machine, and the arguments that keep it from asking for anything on its own."""

import shutil

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next((found for name in BROWSERS if (found := shutil.which(name))), "")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
