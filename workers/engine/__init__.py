"""The engine: `arq.Worker` made fast, and impossible to lose work with.

- `types`        what passes between the engine and a runner: claimed jobs and verdicts
"""
