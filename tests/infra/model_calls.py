"""What tests of the model API say to it."""

from __future__ import annotations

MESSAGES = [
    {"role": "system", "content": "Answer from the passages."},
    {
        "role": "user",
        "content": '<passage id="1">\nThe gate opens at noon.\n</passage>\nQuestion: When does the gate open?',
    },
]
