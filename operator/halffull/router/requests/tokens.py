"""How many tokens prompts have, before an engine has counted them. `proxy` has one for all requests.

By the model's tokenizer where there is one, else by a ratio of bytes to tokens that answers teach.
"""

from typing import Any

from halffull.core.estimators import Ratio
from halffull.router.requests.prompt import Prompt, texts
from halffull.router.requests.tokenizer import COUNTED, Tokenizer


class Tokens:
    """What is known of the model's tokens."""

    def __init__(self, bytes_per_token: float) -> None:
        self.ratio = Ratio(bytes_per_token)
        """bytes of text per token"""
        self.tokenizer: Tokenizer | None = None
        """counts prompts; None: they are estimated by the ratio"""
        self._template = Ratio(0.0, weight=1.0)
        """tokens that a chat template adds to a prompt whose text was counted"""
        self._error = Ratio(0.0, weight=1.0)
        """how far estimates are off, over what engines count"""

    def estimate(self, prompt: Prompt, body: bytes) -> int:
        """Note how many tokens a prompt is taken to have, and return it: at least 1."""
        text = self.tokenizer.count(texts(body)) if self.tokenizer is not None and prompt.text_bytes else 0
        text = text + int(self._template.value) if text else int(prompt.text_bytes / self.ratio.value)
        prompt.estimate = max(prompt.tokens + text, 1)
        return prompt.estimate

    def counted(self, prompt: Prompt, tokens: int | None) -> None:
        """The engine said how many tokens a prompt has; None: it did not."""
        prompt.counted = tokens
        if tokens and prompt.text_bytes:
            self.ratio.add(prompt.text_bytes, tokens)
            self._error.add(abs(prompt.estimate - tokens), tokens)
            if self.tokenizer is not None and prompt.text_bytes <= COUNTED:
                self._template.add(tokens - prompt.estimate + int(self._template.value), 1.0)

    def figures(self) -> dict[str, Any]:
        """Return what the status says of them."""
        learned = "usage" if self.ratio.evidence else "prior"
        return {
            "ratio": round(self.ratio.value, 3),
            "source": learned if self.tokenizer is None else "tokenizer",
            "error": round(self._error.value, 4) if self._error.evidence else None,
        }
