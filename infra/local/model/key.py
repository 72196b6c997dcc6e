"""The server's API key passes through here from whoever starts it; in the environment, not on the command line."""

from __future__ import annotations

KEY_VARIABLE = "PENSTOCK_LOCAL_MODEL_KEY"
"""Every user of a machine can read command lines."""
USUAL_KEY = "local"
