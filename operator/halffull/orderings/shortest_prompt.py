"""Ordering `shortest-prompt`: the shortest prompt first."""

from halffull.core.contracts import Context, Ordering
from halffull.core.values import Request


class ShortestPrompt(Ordering):
    """Intent: the least mean wait that prompt lengths allow. Inputs: prompt tokens. Cost: none.

    Use it to compare with, or where the queue is always short. Do not use it near saturation: long prompts starve;
    `larry` has most of the gain without that.
    """

    def key(self, request: Request, context: Context) -> float:
        """Return the length of the prompt, tokens."""
        return float(request.prompt_tokens)
