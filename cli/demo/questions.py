"""What the demo asks of its documents."""

from __future__ import annotations

QUESTIONS = (
    "What does the assert statement do?",
    "How does the with statement manage a context?",
    "What is the difference between the is operator and equality comparison?",
    "What happens when a break statement is executed inside a loop?",
    "When does the bicycle workshop open?",
)
UNKNOWN = "Which team won the ice hockey championship in 1987?"
OPENING = "When does the bicycle workshop open?"
OFFER = "How large is the discount of the spring offer on bicycle bells?"
