"""A question with a history passes through here and leaves as one that can be understood, and searched for, alone."""

from __future__ import annotations

from collections.abc import Sequence

from infra.budget import Budget
from infra.llm import ModelApi
from infra.templates import UNKNOWN
from schemas.errors import CallFailed, Refused, Unavailable
from schemas.values import Turn
from workers.answer.fence import defuse
from workers.answer.tokens import cut_to_tokens, estimate_tokens

TURNS = 6
TURN_TOKENS = 400
REPLY_TOKENS = 200
LONGEST = 1000

_SYSTEM = """\
You are given a conversation and a follow-up question. Rewrite the follow-up as one question that can be understood \
without the conversation. Keep its language and its names. Reply with the rewritten question and nothing else."""


async def condense(  # noqa: PLR0917 - who pays, by what, and the conversation
    models: ModelApi, budget: Budget, tenant_id: str, model: str, history: Sequence[Turn], question: str
) -> str:
    """Rewrite a follow-up question.

    A model that cannot do it, or is away, does not keep the question from being answered: then the user's previous
    question stands before this one.

    Raises:
        BudgetExceeded, RateLimited, PoolPaused: as for any paid call.
    """
    lines = [f"{turn.role}: {cut_to_tokens(defuse(turn.content), TURN_TOKENS)}" for turn in history[-TURNS:]]
    asked = "Conversation:\n" + "\n".join(lines) + f"\n\nQuestion: {defuse(question)}"
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": asked}]
    reservation = await budget.reserve(
        tenant_id, "chat", model, estimate_tokens(_SYSTEM) + estimate_tokens(asked), REPLY_TOKENS
    )
    try:
        reply = await models.chat(messages, model=model, max_tokens=REPLY_TOKENS)
    except Refused:
        await budget.release(reservation)
        return fallback(history, question)
    except (CallFailed, Unavailable):
        await budget.waste(reservation)
        return fallback(history, question)
    except BaseException:
        await budget.release(reservation)
        raise
    await budget.settle(reservation, reply.tokens_in, reply.tokens_out)
    rewritten = reply.text.strip().strip('"').strip()
    if not rewritten or rewritten == UNKNOWN or len(rewritten) > LONGEST or "\x00" in rewritten:
        return fallback(history, question)
    return rewritten


def fallback(history: Sequence[Turn], question: str) -> str:
    """The user's previous question, then this one."""
    previous = next((turn.content for turn in reversed(history) if turn.role == "user"), "")
    return f"{previous[-LONGEST:]}\n{question}" if previous else question
